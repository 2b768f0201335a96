"""What happens to a recording when the disk is really full, and when the server is gone for a while."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

import pytest

from bot import events
from bot.api import Participant
from bot.embedded.server import EmbeddedServer
from bot.recording.delivery import finished
from bot.recording.disk import RESERVE, Append, Folder, Open, Replace
from bot.recording.manifest import MANIFEST, read_manifest
from bot.recording.matroska import repair
from bot.recording.options import RecordOptions
from bot.recording.recorder import Recorder
from bot.recording.recover import unfinished
from bot.recording.service import RecordingService
from bot.settings import load
from tests.bridge_support import until
from tests.recording_support import decoded, read
from tests.requirements import unavailable

pytestmark = pytest.mark.timeout(120)
KIBIBYTE = 1024


@pytest.fixture
def small_disk(tmp_path: Path, request: pytest.FixtureRequest) -> Iterator[Path]:
    """A file system of so many KiB."""
    if sys.platform != "linux" or os.geteuid() != 0:
        pytest.skip("only root mounts a tmpfs")
    place = tmp_path / "disk"
    place.mkdir()
    words = ["mount", "-t", "tmpfs", "-o", f"size={request.param}k", "tmpfs", str(place)]
    done = subprocess.run(words, capture_output=True, text=True, check=False)
    if done.returncode:
        unavailable(f"no tmpfs can be mounted here: {done.stderr.strip()}")
    yield place
    subprocess.run(["umount", "-l", str(place)], check=True)


def service(url: str, out: Path, told: list[events.Event]) -> RecordingService:
    settings = load(ws_url=url, ice_addresses="127.0.0.1", retry_base=0.1)
    options = RecordOptions.of(out=out, disk_soft=0, disk_hard=0, alone=0)
    return RecordingService(settings, options, emit=told.append)


def recorded(recorder: Recorder) -> int:
    """Files with more than a cluster of a second in them."""
    return sum(item.end > item.start + 1.2 for item in recorder.session.manifest.segments())


def fill(disk: Path) -> None:
    """Leave not a byte free."""
    with (disk / "ballast").open("wb", buffering=0) as file, suppress(OSError):
        while True:
            file.write(bytes(4 * KIBIBYTE))


def started(told: list[events.Event]) -> list[events.Event]:
    return [item for item in told if isinstance(item, events.RecordingStarted)]


def someone(url: str, name: str, video: str = "pattern") -> Participant:
    return Participant(url, "room", name=name, ice_addresses="127.0.0.1", retry_base=0.1, video=video)


@pytest.mark.parametrize("small_disk", [2048], indirect=True)
async def test_a_disk_that_is_really_full_ends_the_recording_whole(small_disk: Path) -> None:
    told: list[events.Event] = []
    server = EmbeddedServer(port=0)
    await server.start()
    async with (
        someone(server.url, "Ann", video="none") as ann,
        someone(server.url, "Bob", video="none"),
        service(server.url, small_disk, told) as recordings,
    ):
        identity = recordings.start("room").id
        recorder = recordings.recorder(identity)
        assert recorder is not None
        await until(lambda: recorded(recorder) == 2, 60)
        fill(small_disk)
        await until(lambda: any(isinstance(item, events.RecordingEnded) for item in told), 60)
        await until(lambda: recordings.list()[0].state == "standby", 60)
        assert len(ann.others) == 2  # the recorder stays
        assert recordings.list()[0].id == identity
    await server.stop()
    [folder] = finished(small_disk)
    manifest = read_manifest(folder)
    assert (manifest.state, manifest.end_cause) == ("finished", "disk")
    assert unfinished(small_disk) == []
    assert {note.event for note in manifest.notes} >= {"disk_failed", "disk_full"}
    assert len(manifest.segments()) == 2
    for segment in manifest.segments():
        assert segment.ended == "disk"
        assert len(decoded(folder / segment.file)) > 0
        assert read(folder / segment.file).duration == pytest.approx(1000 * (segment.end - segment.start), abs=30)
        assert repair(folder / segment.file).outcome == "whole"
    assert not [item.name for item in folder.iterdir() if item.name.startswith(".")]


@pytest.mark.parametrize("small_disk", [64], indirect=True)
def test_the_room_that_is_kept_is_for_the_end_alone(small_disk: Path) -> None:
    folder = Folder(small_disk)
    folder.reserve(32 * KIBIBYTE)
    folder.carry_out(Replace(MANIFEST, b"first"))
    folder.carry_out(Open("a", b""))
    with pytest.raises(OSError, match="No space"):
        folder.carry_out(Append("a", bytes(60 * KIBIBYTE)))
    assert (small_disk / "a").stat().st_size == 0
    folder.carry_out(Open("b", bytes(20 * KIBIBYTE)))
    with pytest.raises(OSError, match="No space"):
        folder.carry_out(Replace(MANIFEST, bytes(20 * KIBIBYTE)))
    assert (small_disk / RESERVE).exists()
    folder.carry_out(Replace(MANIFEST, bytes(20 * KIBIBYTE), last=True))
    assert not (small_disk / RESERVE).exists()
    assert (small_disk / MANIFEST).stat().st_size == 20 * KIBIBYTE
    with pytest.raises(OSError, match="No space"):
        folder.carry_out(Replace(MANIFEST, bytes(50 * KIBIBYTE), last=True))
    assert (small_disk / MANIFEST).stat().st_size == 20 * KIBIBYTE
    folder.close()


async def test_a_server_that_is_gone_for_a_while_makes_new_segments_of_the_same_recording(tmp_path: Path) -> None:
    told: list[events.Event] = []
    server = EmbeddedServer(port=0)
    await server.start()
    url = server.url
    async with someone(url, "Ann"), someone(url, "Bob", video="none"), service(url, tmp_path, told) as recordings:
        recordings.start("room")

        recorder = recordings.recorder(recordings.list()[0].id)
        assert recorder is not None
        await until(lambda: recorded(recorder) == 3, 60)
        await server.stop()
        await until(lambda: any(isinstance(item, events.ConnectionDegraded) for item in told), 60)
        server = EmbeddedServer(port=int(url.rpartition(":")[2]))
        await server.start()
        await until(lambda: recorded(recorder) == 6, 60)
    await server.stop()
    [folder] = finished(tmp_path)
    manifest = read_manifest(folder)
    assert (manifest.state, manifest.end_cause) == ("finished", "stopped")
    # Everybody joined anew, and is another endpoint of the same name.
    assert sorted(who.name for who in manifest.participants) == ["Ann", "Ann", "Bob", "Bob"]
    ends = sorted(str(item.ended) for item in manifest.segments())
    assert ends == ["end"] * 3 + ["reconnect"] * 3
    assert max(item.end for item in manifest.segments() if item.ended == "reconnect") < min(
        item.start for item in manifest.segments() if item.ended == "end"
    )
    assert {note.event for note in manifest.notes} >= {"connection_degraded", "connection_recovered"}
    for segment in manifest.segments():
        assert len(decoded(folder / segment.file)) == segment.frames > 0
    assert len(started(told)) == 1
