"""Names, watchdogs, options, the disk, and the repair of whole recordings."""

from __future__ import annotations

import errno
import os
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bot.errors import ConfigurationError
from bot.recording import disk as disks
from bot.recording.disk import Append, DiskThread, Finish, Folder, Open, Replace
from bot.recording.manifest import MANIFEST, SPEAKERS, Manifest, Segment, SourceEntry, Span, read_manifest, web_vtt
from bot.recording.matroska import Muxer, TrackFormat, repair
from bot.recording.names import meeting_folder, sanitised, segment_file
from bot.recording.options import MEBIBYTE, RecordOptions
from bot.recording.recorder import make_folder
from bot.recording.recover import InUseError, locked, recover, unfinished
from bot.recording.service import recover_all
from bot.recording.talk import HOLD, TalkMeter, talk_time
from bot.recording.watchdogs import Situation, Verdict, Watchdogs
from tests.recording_support import STARTED, read, sound

# --- names ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("name", "found"),
    [
        ("Ann", "Ann"),
        ("../../etc/passwd", "etc_passwd"),
        ("Jörg Müßig", "Jörg_Müßig"),
        ("会议室", "会议室"),
        ("a\0b\nc", "a_b_c"),
        ("..", "unnamed"),
        ("", "unnamed"),
        ("\u202egpj.exe", "gpj_exe"),
        ("x" * 300, "x" * 40),
    ],
)
def test_names_are_no_paths(name: str, found: str) -> None:
    assert sanitised(name) == found


@given(st.text())
def test_whatever_people_call_themselves_is_one_part_of_a_path(name: str) -> None:
    found = segment_file(name, "ab12-v0", 1, ".webm")
    assert Path(found).name == found
    assert len(found.encode()) < 200
    assert not found.startswith((".", "-"))
    assert all(item.isalnum() or item in "-_." for item in found)


def test_folders_of_one_second_differ(tmp_path: Path) -> None:
    assert meeting_folder("my/room", STARTED) == "my_room-20260102T030405Z"
    one, two = make_folder(tmp_path / "out", "r", STARTED), make_folder(tmp_path / "out", "r", STARTED)
    assert (one.name, two.name) == ("r-20260102T030405Z", "r-20260102T030405Z-2")
    assert one.stat().st_mode & 0o777 == 0o700


def test_a_folder_that_cannot_be_made_names_the_option(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(ConfigurationError, match="record out"):
        make_folder(tmp_path / "file", "r", STARTED)


# --- options and watchdogs --------------------------------------------------------------------------------


def test_options_name_what_is_wrong() -> None:
    assert RecordOptions.of(alone=5, out=None).alone == 5
    with pytest.raises(ConfigurationError, match="record alone"):
        RecordOptions.of(alone=-1)
    with pytest.raises(ConfigurationError, match="disk_hard"):
        RecordOptions.of(disk_soft=1, disk_hard=2)


def verdicts(dogs: Watchdogs, situation: Situation, times: range) -> list[tuple[int, Verdict]]:
    found = [(now, dogs.feed(situation, float(now))) for now in times]
    return [(now, verdict) for now, verdict in found if verdict is not None]


@pytest.mark.parametrize(
    ("situation", "first"),
    [
        (Situation(0, None, all_muted=True), (30, "alone")),
        (Situation(2, None, all_muted=False), (180, "no_media")),
        (Situation(2, 100.0, all_muted=False), (280, "no_media")),
        (Situation(2, 100.0, all_muted=True), (600, "all_muted")),
    ],
)
def test_what_ends_a_recording_and_when(situation: Situation, first: tuple[int, Verdict]) -> None:
    dogs = Watchdogs(RecordOptions(), 0.0)
    assert verdicts(dogs, situation, range(0, 1000, 10))[0] == first


def test_what_changes_begins_to_count_anew_and_a_meeting_that_goes_on_is_not_ended() -> None:
    dogs = Watchdogs(RecordOptions(), 0.0)
    for now in range(0, 1000, 20):
        alone = Situation(0, float(now), all_muted=True)
        assert dogs.feed(alone, float(now)) is None
        assert dogs.feed(Situation(1, float(now), all_muted=False), now + 10.0) is None


def test_the_longest_length_and_what_is_off() -> None:
    dogs = Watchdogs(RecordOptions(max_length=100, alone=0), 50.0)
    assert verdicts(dogs, Situation(0, None, all_muted=True), range(50, 200, 10))[0] == (150, "max_length")


def test_what_free_space_means() -> None:
    dogs = Watchdogs(RecordOptions(disk_soft=100, disk_hard=10), 0.0)
    assert [dogs.disk(size * MEBIBYTE) for size in (100, 99, 10, 9)] == ["fine", "low", "low", "full"]


def test_talk_needs_more_than_a_click_and_survives_a_pause() -> None:
    spans: list[Span] = []
    meter = TalkMeter(spans)
    for at, level in [(0.0, 20), (0.02, 20), (0.04, 90), (1.0, 20), (1.02, 20), (1.04, 20), (1.04 + HOLD, 20)]:
        meter.feed(level, at)
    assert [(span.start, span.end) for span in spans] == [(1.0, None)]
    assert talk_time(spans, 3.0) == 2.0
    meter.expire(9.0)
    assert not meter.talking
    assert spans[0].end == pytest.approx(1.76)


# --- the disk ---------------------------------------------------------------------------------------------


def muxed(count: int = 100) -> tuple[Muxer, list[bytes]]:
    muxer = Muxer([TrackFormat("opus")], started=STARTED)
    found = [muxer.add(1, 20 * number, data, key=True) for number, data in enumerate(sound(count))]
    return muxer, [item for item in [*found, muxer.flush()] if item]


def test_the_thread_writes_what_it_is_given_in_order(tmp_path: Path) -> None:
    muxer, clusters = muxed()
    thread = DiskThread(Folder(tmp_path))
    thread.give(Open("a.webm", muxer.header))
    for cluster in clusters:
        thread.give(Append("a.webm", cluster))
    thread.give(Replace("b", b"one"))
    thread.give(Finish("a.webm", muxer.size, muxer.ending()))
    thread.give(Replace("b", b"two"))
    thread.close()
    assert thread.waiting == 0
    assert thread.failures() == []
    assert read(tmp_path / "a.webm").duration == 2000
    assert (tmp_path / "b").read_bytes() == b"two"
    assert sorted(item.name for item in tmp_path.iterdir()) == ["a.webm", "b"]


class FullDisk:
    """Writes go wrong after so many bytes, and in the middle, as those of a full disk do."""

    def __init__(self, room: int) -> None:
        self.room = room

    def write(self, file: object, data: bytes) -> None:
        part = data[: self.room]
        file.write(part)  # type: ignore[attr-defined]
        self.room -= len(part)
        if len(part) < len(data):
            raise OSError(errno.ENOSPC, "No space left on device")


@contextmanager
def full_after(room: int, monkeypatch: pytest.MonkeyPatch) -> Iterator[FullDisk]:
    found = FullDisk(room)
    with monkeypatch.context() as patch:
        patch.setattr(disks, "write_all", found.write)
        yield found


def test_a_full_disk_leaves_whole_clusters_and_is_told_once_for_each_order(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    muxer, clusters = muxed(200)
    with full_after(len(muxer.header) + len(clusters[0]) + 100, monkeypatch):
        thread = DiskThread(Folder(tmp_path))
        thread.give(Open("a.webm", muxer.header))
        for cluster in clusters:
            thread.give(Append("a.webm", cluster))
        thread.give(Finish("a.webm", muxer.size, muxer.ending()))
        thread.give(Replace(MANIFEST, bytes(5000)))
        thread.close()
    failures = thread.failures()
    assert [type(item.order) for item in failures] == [Append, Replace]
    assert failures[0].error.errno == errno.ENOSPC
    assert (tmp_path / "a.webm").stat().st_size == len(muxer.header) + len(clusters[0])
    assert repair(tmp_path / "a.webm").duration == 1000
    assert [item.name for item in tmp_path.iterdir()] == ["a.webm"]


def test_files_that_are_there_and_links_are_not_written_to(tmp_path: Path) -> None:
    (tmp_path / "a.webm").write_text("mine")
    (tmp_path / "b.webm").symlink_to(tmp_path / "elsewhere")
    folder = Folder(tmp_path)
    for name in ("a.webm", "b.webm"):
        with pytest.raises(FileExistsError):
            folder.carry_out(Open(name, b"x"))
        folder.carry_out(Append(name, b"x"))  # of a file that could not be begun
    assert (tmp_path / "a.webm").read_text() == "mine"
    assert not (tmp_path / "elsewhere").exists()
    assert folder.free() > 0


# --- recovery ---------------------------------------------------------------------------------------------


def killed(out: Path) -> Path:
    """A recording as a killed recorder leaves it: one file of two seconds, one head, one that is not listed."""
    folder = out / "room-20260102T030405Z"
    folder.mkdir(parents=True)
    muxer, clusters = muxed()
    for name, parts in {"a": clusters, "empty": [], "new": clusters[:1]}.items():
        (folder / f"{name}.webm").write_bytes(muxer.header + b"".join(parts) + (b"\x1f\x43" if parts else b""))
    segments = [
        Segment(file=f"{name}.webm", codec="opus", start=5.0, end=6.0) for name in ("a", "empty", "never-made")
    ]
    manifest = Manifest(program="test", room="room", started=STARTED, duration=6.5)
    who = manifest.participant("a")
    who.name = "Ann"
    who.present.append(Span(start=0.0))
    who.talking.append(Span(start=5.0))
    who.sources.append(SourceEntry(name="a-a0", media="audio", segments=segments))
    (folder / MANIFEST).write_bytes(manifest.to_json())
    (folder / f".{MANIFEST}.new").write_bytes(b"half")
    (folder / ".lock").write_bytes(b"")
    return folder


def test_what_a_killed_recorder_left_is_made_whole(tmp_path: Path) -> None:
    folder = killed(tmp_path)
    assert unfinished(tmp_path) == [folder]
    done = recover(folder)
    assert done.recovered == 2
    manifest = read_manifest(folder)
    assert (manifest.state, manifest.end_cause, manifest.duration) == ("recovered", "crash", 7.0)
    [segment] = manifest.segments()
    assert (segment.file, segment.end, segment.ended, segment.recovered) == ("a.webm", 7.0, "crash", True)
    assert segment.bytes == (folder / "a.webm").stat().st_size
    assert manifest.unlisted == ["new.webm"]
    assert manifest.participants[0].present[0].end == 7.0
    assert manifest.participants[0].talk_time == 2.0
    assert read(folder / "a.webm").duration == 2000
    assert sorted(item.name for item in folder.iterdir()) == ["a.webm", MANIFEST, "new.webm", SPEAKERS]
    assert unfinished(tmp_path) == []
    assert recover_all(tmp_path) == []


def test_a_recording_that_is_being_made_is_left_alone(tmp_path: Path) -> None:
    folder = killed(tmp_path)
    before = (folder / MANIFEST).read_bytes()
    with locked(folder):
        with pytest.raises(InUseError):
            recover(folder)
        assert recover_all(tmp_path) == []
    assert (folder / MANIFEST).read_bytes() == before


@pytest.mark.parametrize("content", [None, b"", b"{}", b"[1]", b'{"version": 99}'])
def test_without_a_manifest_that_can_be_read_files_are_made_whole_all_the_same(
    tmp_path: Path, content: bytes | None
) -> None:
    folder = killed(tmp_path)
    (folder / MANIFEST).unlink()
    if content is not None:
        (folder / MANIFEST).write_bytes(content)
    [done] = recover_all(folder)
    assert done.recovered == 2
    manifest = read_manifest(folder)
    assert manifest.room == folder.name
    assert manifest.unlisted == ["a.webm", "new.webm"]


def test_what_is_no_recording_is_left_alone(tmp_path: Path) -> None:
    killed(tmp_path)
    other = tmp_path / "other"
    other.mkdir()
    (other / "film.webm").write_bytes(b"not ours")
    (folder := tmp_path / "room-20260102T030405Z" / "b.webm").write_bytes(b"not ours either")
    [done] = recover_all(tmp_path)
    assert list(done.unreadable) == ["b.webm"]
    assert folder.read_bytes() == b"not ours either"
    assert (other / "film.webm").read_bytes() == b"not ours"
    assert recover_all(tmp_path / "nowhere") == []


@given(
    names=st.lists(st.text(max_size=20), max_size=5),
    start=st.floats(0, 1e6, allow_nan=False),
    length=st.floats(0, 1e4, allow_nan=False),
)
def test_web_vtt_has_a_cue_for_each_talk_whatever_names_there_are(
    names: list[str], start: float, length: float
) -> None:
    manifest = Manifest(program="test", room="room", started=datetime(2026, 1, 1, tzinfo=UTC))
    for number, name in enumerate(names):
        who = manifest.participant(str(number))
        who.name = name
        who.talking.append(Span(start=start, end=start + length))
    text = web_vtt(manifest).decode()
    assert text.count(" --> ") == len(names)
    assert text.count("<v ") == len(names)
    assert "\n\n" in text


def test_a_manifest_is_read_as_it_was_written() -> None:
    manifest = Manifest(program="test", room="röom", started=STARTED)
    manifest.participant("a").sources.append(
        SourceEntry(name="a-v0", media="video", segments=[Segment(file="x", codec="vp8", start=0, end=1)])
    )
    assert Manifest.model_validate_json(manifest.to_json()) == manifest
    assert manifest.participant("a") is manifest.participants[0]
    assert os.linesep.encode() in manifest.to_json()
