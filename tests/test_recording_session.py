"""A recording without sockets, disks and waiting: packets and events in, files and a manifest out."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from bot.bridge.payloads import PayloadFormat
from bot.bridge.rtcp import SenderReport
from bot.bridge.rtp import build, parse_header
from bot.bridge.streams import NamedSource
from bot.jingle.model import Media
from bot.recording.disk import Folder, Order, Replace
from bot.recording.manifest import MANIFEST, SPEAKERS, Cause, Manifest, Segment, SourceEntry, read_manifest
from bot.recording.matroska import repair
from bot.recording.session import MANIFEST_INTERVAL, SILENCE, RecordingSession
from bot.recording.track import NEVER, Rotation
from tests.recording_support import STARTED, decoded, pictures, read, sound

VP8 = PayloadFormat(100, "video", "vp8", 90_000, nack=True, pli=True)
OPUS = PayloadFormat(111, "audio", "opus", 48_000, audio_level=1)
NTP = 1 << 32


class World:
    """A recorder's session whose orders are carried out at once, and senders for it."""

    def __init__(self, folder: Path, *, rotation: Rotation = NEVER, video: bool = True) -> None:
        self.folder = Folder(folder)
        self.asked: list[int] = []
        self.got: list[int] = []
        self.session = RecordingSession(
            "room", started=STARTED, rotation=rotation, video=video, requests=lambda: self
        )
        self.now = 1000.0
        self.session.begin(self.now, STARTED)
        self.sequences: dict[int, int] = {}

    def want_key_frame(self, ssrc: int, now: float) -> None:
        self.asked.append(ssrc)

    def got_key_frame(self, ssrc: int) -> None:
        self.got.append(ssrc)

    def do(self, orders: Iterable[Order]) -> None:
        for order in orders:
            self.folder.carry_out(order)

    def packet(self, ssrc: int, name: str, known: PayloadFormat, stamp: int, body: bytes, level: int = 30) -> None:
        sequence = self.sequences[ssrc] = (self.sequences.get(ssrc, 0) + 1) & 0xFFFF
        values = {1: bytes((level,))} if known.media == "audio" else None
        data = build(
            payload_type=known.id,
            sequence=sequence,
            timestamp=stamp & 0xFFFFFFFF,
            ssrc=ssrc,
            body=body,
            marker=True,
            values=values,
        )
        named = NamedSource(ssrc, known.media, name, f"room@muc/{name.partition('-')[0]}")
        self.do(self.session.packet(named, known, parse_header(data), data, self.now))

    def talk(
        self,
        seconds: float,
        *,
        who: str = "a",
        ssrcs: tuple[int, int] = (1, 2),
        size: tuple[int, int] = (96, 64),
        first: int = 0,
        media: str = "av",
        level: int = 30,
    ) -> None:
        """Sound each 20 ms and a picture each 40 ms, with a tick each 0.25 s; ``first`` picture of 90."""
        film = pictures("vp8", 90, width=size[0], height=size[1])
        for step in range(round(seconds * 50)):
            if "a" in media:
                self.packet(ssrcs[0], f"{who}-a0", OPUS, int(self.now * 48_000), sound(50)[step % 50], level)
            if "v" in media and step % 2 == 0:
                body = b"\x10" + film[(first + step // 2) % 90]
                self.packet(ssrcs[1], f"{who}-v0", VP8, int(self.now * 90_000), body)
            self.wait(0.02, tick=step % 12 == 0)

    def wait(self, seconds: float, *, tick: bool = True) -> None:
        self.now = round(self.now + seconds, 6)
        if tick:
            self.do(self.session.tick(self.now))

    def end(self, cause: str = "stopped") -> Manifest:
        self.do(self.session.end(cause, self.now))
        self.folder.close()
        return read_manifest(self.folder.path)


@pytest.fixture
def world(tmp_path: Path) -> World:
    return World(tmp_path)


def source(manifest: Manifest, name: str) -> SourceEntry:
    [found] = [item for who in manifest.participants for item in who.sources if item.name == name]
    return found


def ends(entry: SourceEntry) -> list[Cause | None]:
    return [item.ended for item in entry.segments]


def assert_plays(folder: Path, segment: Segment) -> None:
    """All frames that the manifest counts are in the file and decode."""
    assert len(decoded(folder / segment.file)) == segment.frames > 0
    duration = read(folder / segment.file).duration
    assert duration == pytest.approx(1000 * (segment.end - segment.start), abs=2)


def test_each_source_is_in_a_file_of_its_own_and_plays(world: World, tmp_path: Path) -> None:
    world.session.joined("a", "Ann", world.now)
    world.talk(4)
    manifest = world.end()
    assert manifest.state == "finished"
    assert manifest.end_cause == "stopped"
    assert [item.file for item in manifest.segments()] == ["Ann-a-a0-1.webm", "Ann-a-v0-1.webm"]
    for segment in manifest.segments():
        assert_plays(tmp_path, segment)
        assert (tmp_path / segment.file).stat().st_mode & 0o777 == 0o600
        assert segment.ended == "end"
    [who] = manifest.participants
    assert (who.endpoint, who.name) == ("a", "Ann")
    assert [(span.start, span.end) for span in who.present] == [(0.0, 4.0)]
    assert source(manifest, "a-v0").segments[0].width == 96
    assert (tmp_path / MANIFEST).stat().st_mode & 0o777 == 0o600


def test_what_a_killed_recorder_has_given_to_the_disk_is_two_seconds_old_at_most(world: World) -> None:
    world.talk(5.9)
    written = [len(read(path).packets) for path in sorted(world.folder.path.glob("*.webm"))]
    assert written[0] >= 50 * 4.6  # sound
    assert written[1] >= 25 * 4.6
    assert read_manifest(world.folder.path).duration >= 5.9 - MANIFEST_INTERVAL - 0.3
    world.end()


def test_muted_sound_and_cameras_that_are_off_end_segments_and_leave_gaps(world: World) -> None:
    world.talk(2)
    world.do(world.session.mute("a-a0", muted=True))
    assert world.session.muted == {"a-a0"}
    world.talk(2, first=50, level=127)
    world.do(world.session.mute("a-a0", muted=False))
    world.do(world.session.mute("a-v0", muted=True))
    world.talk(2, media="a")
    manifest = world.end()
    entry = source(manifest, "a-a0")
    assert ends(entry) == ["muted", "end"]
    assert entry.segments[1].file.endswith("-a0-2.webm")
    [gap] = entry.gaps
    assert gap.cause == "muted"
    assert [gap.start, gap.end] == pytest.approx([2, 4], abs=0.05)
    assert ends(source(manifest, "a-v0")) == ["muted"]


def test_another_size_goes_on_in_another_file_without_a_gap(world: World, tmp_path: Path) -> None:
    world.talk(1.2)
    world.talk(1.2, size=(48, 32))
    entry = source(world.end(), "a-v0")
    assert [(item.width, item.height) for item in entry.segments] == [(96, 64), (48, 32)]
    assert ends(entry) == ["format", "end"]
    assert entry.gaps == []
    for segment in entry.segments:
        assert_plays(tmp_path, segment)


def test_a_source_on_another_ssrc_goes_on_with_a_key_frame(world: World, tmp_path: Path) -> None:
    world.talk(1.2)
    world.talk(1.2, ssrcs=(1, 22), first=1)  # no key frame in front
    assert 22 in world.asked
    assert 22 in world.got
    entry = source(world.end(), "a-v0")
    assert ends(entry) == ["moved", "end"]
    for segment in entry.segments:
        assert_plays(tmp_path, segment)


def test_an_ssrc_with_another_source_is_another_participants(world: World, tmp_path: Path) -> None:
    world.talk(1.2)
    world.do(world.session.moved([1, 2]))
    world.talk(1.2, who="b")
    manifest = world.end()
    assert ends(source(manifest, "a-v0")) == ["moved"]
    assert ends(source(manifest, "b-v0")) == ["end"]
    assert source(manifest, "b-v0").segments[0].start == pytest.approx(1.2, abs=0.05)
    for segment in manifest.segments():
        assert_plays(tmp_path, segment)


def test_who_leaves_and_returns_has_two_segments_and_two_times_of_presence(world: World) -> None:
    world.session.joined("a", "Ann", world.now)
    world.talk(1)
    world.do(world.session.moved([1], "removed"))
    world.do(world.session.left("a", world.now))
    world.wait(3)
    world.session.joined("a", "Ann", world.now)
    world.talk(1, ssrcs=(11, 12))
    manifest = world.end()
    [who] = manifest.participants
    assert [(span.start, span.end) for span in who.present] == [(0.0, 1.0), (4.0, 5.0)]
    for entry in who.sources:
        assert ends(entry) == ["left", "end"]
        assert [gap.cause for gap in entry.gaps] == ["left"]


def test_another_name_is_that_of_the_next_files(world: World) -> None:
    world.session.joined("a", "Ann", world.now)
    world.talk(1, media="a")
    world.session.joined("a", "Anna / ../etc", world.now)
    world.do(world.session.mute("a-a0", muted=True))
    world.do(world.session.mute("a-a0", muted=False))
    world.talk(1, media="a")
    manifest = world.end()
    assert [item.file for item in manifest.segments()] == ["Ann-a-a0-1.webm", "Anna______etc-a-a0-2.webm"]
    assert manifest.participants[0].name == "Anna / ../etc"


def test_a_lost_media_session_is_a_gap_in_the_same_recording(world: World, tmp_path: Path) -> None:
    world.talk(1.5)
    world.do(world.session.session_lost())
    world.session.note("media_failed", "gone", world.now)
    world.wait(4)
    world.talk(1.5, ssrcs=(5, 6))
    manifest = world.end()
    for name in ("a-a0", "a-v0"):
        entry = source(manifest, name)
        assert ends(entry) == ["reconnect", "end"]
        [gap] = entry.gaps
        assert gap.cause == "reconnect"
        assert gap.end - gap.start == pytest.approx(4, abs=0.1)
    assert [(note.event, note.text) for note in manifest.notes] == [("media_failed", "gone")]


def test_a_picture_of_which_nothing_comes_is_ended_and_sound_goes_on_in_its_file(world: World) -> None:
    world.talk(1)
    world.wait(SILENCE - 1)
    assert ends(source(world.session.manifest, "a-v0")) == [None]
    world.wait(2)
    assert ends(source(world.session.manifest, "a-v0")) == ["silent"]
    world.talk(1)
    manifest = world.end()
    assert ends(source(manifest, "a-v0")) == ["silent", "end"]
    assert ends(source(manifest, "a-a0")) == ["end"]
    for entry in manifest.participants[0].sources:
        [gap] = entry.gaps
        assert gap.cause == "silent"
        assert [gap.start, gap.end] == pytest.approx([1, SILENCE + 2], abs=0.06)


def test_a_picture_that_pauses_has_a_gap(world: World, tmp_path: Path) -> None:
    world.talk(1, media="v")
    world.wait(4)
    world.talk(1, media="v", first=45)
    entry = source(world.end(), "a-v0")
    assert ends(entry) == ["end"]
    assert [gap.cause for gap in entry.gaps] == ["silent"]
    assert_plays(tmp_path, entry.segments[0])


def test_lost_pictures_are_a_gap_and_a_key_frame_is_asked_for(world: World) -> None:
    world.talk(0.4)
    world.sequences[2] += 3
    world.talk(0.2, first=1)
    world.wait(1.5)
    assert (world.asked, world.got) == ([2], [])
    world.talk(1, first=15)
    assert world.got == [2]
    entry = source(world.end(), "a-v0")
    assert ends(entry) == ["end"]
    [gap] = entry.gaps
    assert gap.cause == "loss"
    assert gap.end - gap.start > 0.2


def test_lost_sound_is_a_gap(world: World) -> None:
    world.talk(0.5, media="a")
    world.sequences[1] += 10
    world.wait(0.2, tick=False)
    world.talk(0.5, media="a")
    entry = source(world.end(), "a-a0")
    [gap] = entry.gaps
    assert gap.cause == "loss"
    assert gap.end - gap.start == pytest.approx(0.22, abs=0.05)


@pytest.mark.parametrize("rotation", [Rotation(seconds=1.0), Rotation(size=30_000)])
def test_long_and_large_files_are_followed_by_others(tmp_path: Path, rotation: Rotation) -> None:
    world = World(tmp_path, rotation=rotation)
    world.talk(5)
    manifest = world.end()
    entry = source(manifest, "a-v0")
    assert len(entry.segments) >= 3
    assert set(ends(entry)[:-1]) == {"rotation"}
    assert entry.gaps == []
    assert sum(item.frames for item in entry.segments) == 125
    for segment in entry.segments:
        assert_plays(tmp_path, segment)


def test_without_room_pictures_are_left_out_and_sound_goes_on(world: World) -> None:
    world.talk(1)
    world.do(world.session.drop_video())
    world.talk(1)
    manifest = world.end("disk")
    assert ends(source(manifest, "a-v0")) == ["disk"]
    assert source(manifest, "a-a0").segments[0].end == pytest.approx(2, abs=0.05)
    assert ends(source(manifest, "a-a0")) == ["disk"]


def test_sound_alone(tmp_path: Path) -> None:
    world = World(tmp_path, video=False)
    world.talk(1)
    assert [item.codec for item in world.end().segments()] == ["opus"]


def test_talk_is_measured_by_levels(world: World) -> None:
    world.session.joined("a", "Ann <b>", world.now)
    world.talk(1, media="a", level=127)
    world.talk(2, media="a", level=20)
    world.talk(0.4, media="a", level=127)  # a pause
    world.talk(1, media="a", level=20)
    world.talk(1, media="a", level=127)
    manifest = world.end()
    [span] = manifest.participants[0].talking
    assert [span.start, span.end] == pytest.approx([1, 4.4], abs=0.05)
    assert manifest.participants[0].talk_time == pytest.approx(3.4, abs=0.1)
    vtt = (world.folder.path / SPEAKERS).read_text()
    assert vtt.startswith("WEBVTT\n\n00:00:01.0")
    assert "<v Ann &lt;b&gt;>Ann &lt;b&gt;</v>" in vtt


def test_chat_speakers_and_notes_are_in_the_manifest(world: World) -> None:
    world.wait(2)
    world.session.chat("a", "Ann", "hello", world.now)
    world.session.speaker("a", world.now)
    manifest = world.end()
    assert [(item.at, item.name, item.text) for item in manifest.chat] == [(2.0, "Ann", "hello")]
    assert [(item.at, item.endpoint) for item in manifest.dominant_speakers] == [(2.0, "a")]


def test_nothing_is_taken_before_the_beginning_and_after_the_end(tmp_path: Path) -> None:
    world = World(tmp_path)
    world.session = RecordingSession("room", started=STARTED)
    world.talk(1)
    world.session.chat("a", "Ann", "secret", world.now)
    assert world.session.manifest.participants == []
    world.session.begin(world.now, STARTED)
    world.end()
    world.talk(1)
    manifest = read_manifest(tmp_path)
    assert manifest.chat == []
    assert list(manifest.segments()) == []
    assert world.session.end("again", world.now) == []


def test_sound_and_picture_are_together_by_their_reports(world: World) -> None:
    """The picture comes 300 ms later than the sound of the same moment, which reports put right."""
    film = pictures("vp8", 90)
    for step in range(500):
        true = world.now
        world.packet(1, "a-a0", OPUS, int(true * 48_000), sound(50)[step % 50])
        if step % 2 == 0 and step >= 15:
            captured = true - 0.3
            number = (step - 16) // 2
            world.packet(2, "a-v0", VP8, int(captured * 90_000) + 777, b"\x10" + film[number % 90])
        if step % 50 == 20:
            for ssrc, rate, offset in ((1, 48_000, 0), (2, 90_000, 777)):
                ntp = int((true + 3.9e9) * NTP)
                stamp = (int(true * rate) + offset) & 0xFFFFFFFF
                world.session.report(SenderReport(ssrc, ntp, stamp, 0, 0), true)
        world.wait(0.02, tick=step % 12 == 0)
    manifest = world.end()
    audio, video = source(manifest, "a-a0").segments[0], source(manifest, "a-v0").segments[0]
    last_sound = audio.start + read(world.folder.path / audio.file).times[-1] / 1000
    last_picture = video.start + read(world.folder.path / video.file).times[-1] / 1000
    assert last_sound - last_picture == pytest.approx(0.32, abs=0.03)


def test_sources_of_the_bridge_and_of_nobody_are_no_files(world: World) -> None:
    data = build(payload_type=100, sequence=1, timestamp=0, ssrc=9, body=b"\x10" + pictures("vp8", 90)[0])
    for named in (None, NamedSource(9, "video", "jvb-v0", "jvb"), NamedSource(9, "video")):
        assert world.session.packet(named, VP8, parse_header(data), data, world.now) == []
    empty = build(payload_type=100, sequence=1, timestamp=0, ssrc=9, padding=10)
    assert world.session.packet(NamedSource(9, "video", "a-v0", "a"), VP8, parse_header(empty), empty, 0.0) == []
    assert list(world.end().segments()) == []


def test_a_file_that_failed_is_followed_by_another(world: World) -> None:
    world.talk(1)
    world.session.failed("a-a-a0-1.webm")
    world.talk(1)
    entry = source(world.end(), "a-a0")
    assert ends(entry) == ["disk", "end"]
    assert [gap.cause for gap in entry.gaps] == ["disk"] or entry.gaps == []


def test_the_manifest_is_written_at_most_once_a_second(world: World) -> None:
    written = 0
    for _ in range(40):
        world.session.speaker("a", world.now)
        world.now += 0.25
        written += sum(isinstance(order, Replace) for order in world.session.tick(world.now))
    assert 8 <= written <= 11
    world.wait(5)
    assert [order for order in world.session.tick(world.now) if isinstance(order, Replace)] == []
    assert repr(world.session) == "<RecordingSession room 0 streams>"


BODIES = st.one_of(
    st.binary(max_size=60),
    st.builds(
        lambda head, rest: head + rest, st.sampled_from([b"\x10", b"\x08", b"\x18\x00", b"\x7c\x85"]), st.binary()
    ),
    st.builds(lambda rest: b"\x10" + pictures("vp8", 90)[0][:10] + rest, st.binary(max_size=30)),
)


@settings(max_examples=150, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    packets=st.lists(
        st.tuples(
            st.sampled_from(["vp8", "vp9", "h264", "av1", "opus", "red", "theora"]),
            st.integers(1, 3),
            st.integers(0, 12),
            st.integers(0, 2**32 - 1),
            st.booleans(),
            BODIES,
        ),
        max_size=30,
    )
)
def test_whatever_is_in_packets_nothing_is_raised_and_files_can_be_read(
    tmp_path_factory: pytest.TempPathFactory, packets: list[tuple[str, int, int, int, bool, bytes]]
) -> None:
    world = World(tmp_path_factory.mktemp("hostile"))
    for codec, ssrc, sequence, stamp, marker, body in packets:
        media: Media = "audio" if codec in ("opus", "red") else "video"
        known = PayloadFormat(100, media, codec, 90_000, nack=True, audio_level=1)
        data = build(payload_type=100, sequence=sequence, timestamp=stamp, ssrc=ssrc, body=body, marker=marker)
        named = NamedSource(ssrc, media, f"a-{media[0]}{ssrc}", "a")
        world.do(world.session.packet(named, known, parse_header(data), data, world.now))
        world.wait(0.3)
    world.wait(5)
    for segment in world.end().segments():
        assert repair(world.folder.path / segment.file).outcome in {"whole", "empty"}
        assert segment.frames > 0
