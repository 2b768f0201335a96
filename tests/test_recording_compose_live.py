"""Composites made while somebody records: a recorder by hand, whose clock goes on as the composite waits."""

from __future__ import annotations

import fcntl
import os
import subprocess
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from structlog.testing import capture_logs
from typer.testing import CliRunner

from bot import events
from bot.cli import app
from bot.errors import ConfigurationError
from bot.recording import compose_live
from bot.recording.compose import Composed, ComposeOptions, Composer, Encoder, write_frame
from bot.recording.compose_live import TOO_LATE, Beside, Follower, Pace, in_use
from bot.recording.manifest import MANIFEST, Segment, SourceEntry, read_manifest
from bot.recording.matroska import Muxer, TrackFormat, write_ending
from bot.recording.recover import LOCK, locked
from tests.recording_support import STARTED
from tests.test_recording_compose import BLUE, RED, Meeting, at, beeping, colored, heard, is_color, pictures

OPTIONS = ComposeOptions(height=180, fps=10)


@pytest.fixture(autouse=True)
def patient(monkeypatch: pytest.MonkeyPatch) -> None:
    """A busy machine may take its time to decode what is there."""
    monkeypatch.setattr(compose_live, "PATIENCE", 10.0)


class Growth:
    """Writes one file of a meeting second by second; ``color`` is that of its frames."""

    def __init__(self, meeting: Meeting, name: str, color: tuple[int, int, int], start: int, end: int) -> None:
        self.meeting, self.start, self.end = meeting, start, end
        self.who = meeting.add(name)
        frames = [(number * 1000 // 30, data) for number, data in enumerate(colored(*color, 30 * (end - start)))]
        self._clusters = self._written(name, frames)
        self._segment: Segment | None = None

    def _written(self, name: str, frames: list[tuple[int, bytes]]) -> Iterator[None]:
        muxer = Muxer([TrackFormat("vp8", 128, 72)], started=STARTED)
        with (self.meeting.folder / f"{name}.webm").open("w+b") as file:
            file.write(muxer.header)
            for when, data in frames:
                if when and when % 1000 == 0:
                    file.write(muxer.flush())
                    file.flush()
                    yield
                file.write(muxer.add(1, when, data, key=when % 1000 == 0))
            file.write(muxer.flush())
            write_ending(file, muxer.size, muxer.ending())

    def tick(self, now: int) -> None:
        """All that is on the disk ``now`` seconds after the beginning."""
        if not self.start < now <= self.end:
            return
        with suppress(StopIteration):
            next(self._clusters)
        if self._segment is None:
            source = SourceEntry(name=f"{self.who.endpoint}-v0", media="video")
            self.who.sources.append(source)
            self._segment = Segment(file=f"{self.who.name}.webm", codec="vp8", start=self.start, end=now)
            source.segments.append(self._segment)
        self._segment.end = float(now)
        self._segment.ended = "end" if now == self.end else None


class Room:
    """A recorder and its clock. ``wait`` is what the composite sleeps with."""

    def __init__(self, folder: Path, end: int) -> None:
        self.meeting = Meeting(folder, 0.0)
        self.meeting.manifest.state = "recording"
        self.now, self.end, self._second = 0.0, end, 0
        self.sources: list[Growth] = []
        self.each_second: Callable[[int], None] = lambda _: None
        self._lock = os.open(folder / LOCK, os.O_RDWR | os.O_CREAT, 0o600)
        fcntl.flock(self._lock, fcntl.LOCK_EX)

    def clock(self) -> float:
        return self.now

    def wait(self, seconds: float) -> None:
        self.now += seconds
        while self._second < min(self.end, int(self.now)):
            self._second += 1
            self.each_second(self._second)
            self._tick(self._second)

    def _tick(self, second: int) -> None:
        for source in self.sources:
            source.tick(second)
        manifest = self.meeting.manifest
        manifest.duration = float(second)
        if second == self.end:
            manifest.state = "finished"
        (self.meeting.folder / MANIFEST).write_bytes(manifest.to_json())
        if second == self.end:
            self.close()

    def close(self) -> None:
        if self._lock >= 0:
            os.close(self._lock)
            (self.meeting.folder / LOCK).unlink()
            self._lock = -1


@pytest.fixture
def room(tmp_path: Path) -> Iterator[Room]:
    found = Room(tmp_path, 8)
    yield found
    found.close()


def make(room: Room, tell: Callable[[str], None] = lambda _: None) -> Composed:
    out = room.meeting.folder / "composite.tile.mp4"
    return compose_live.compose_live(
        room.meeting.folder, out, OPTIONS, tell=tell, clock=room.clock, sleep=room.wait
    )


def test_it_follows_the_recording_to_its_end(room: Room) -> None:
    room.sources = [Growth(room.meeting, "Ann", RED, 0, 8), Growth(room.meeting, "Bob", BLUE, 3, 6)]
    room.meeting.voice(room.sources[0].who, 0.0, beeping(300, 100, 150))
    told: list[str] = []
    done = make(room, told.append)
    found = pictures(done.path)
    assert (len(found), done.dropped, done.problems, told) == (80, 0, {}, [])
    assert all(is_color(at(found, time), 0.25, 0.5, RED) for time in (0.5, 2.5, 4.5, 7.5))
    assert is_color(at(found, 4.5), 0.75, 0.5, BLUE)
    assert not is_color(at(found, 7.5), 0.75, 0.4, BLUE)
    assert read_manifest(room.meeting.folder).composites == ["composite.tile.mp4"]
    loud = np.flatnonzero(np.abs(heard(done.path)) > 0.1) / 48_000
    assert (loud[0], loud[-1]) == (pytest.approx(2.0, abs=0.02), pytest.approx(3.0, abs=0.03))


def test_what_is_there_can_be_played_while_it_is_written(room: Room) -> None:
    room.sources = [Growth(room.meeting, "Ann", RED, 0, 8)]
    seen: list[int] = []

    def look(second: int) -> None:
        if second == 8:
            seen.append(len(pictures(room.meeting.folder / "composite.tile.part.mp4")))

    room.each_second = look
    make(room)
    assert seen[0] >= 10


def test_a_recorder_that_was_killed_ends_it(room: Room) -> None:
    room.sources = [Growth(room.meeting, "Ann", RED, 0, 8)]
    room.each_second = lambda second: room.close() if second == 5 else None
    done = make(room)
    assert 4 <= done.seconds <= 6
    assert read_manifest(room.meeting.folder).state == "recording"
    assert is_color(at(pictures(done.path), 2.0), 0.5, 0.5, RED)


def test_a_machine_that_is_too_slow_leaves_pictures_out_and_says_so(
    room: Room, monkeypatch: pytest.MonkeyPatch
) -> None:
    room.sources = [Growth(room.meeting, "Ann", RED, 0, 8)]
    room.meeting.voice(room.sources[0].who, 0.0, beeping(400, 0, 400))
    room.end = 20

    def slow(composer: Composer, encoder: Encoder, number: int, patience: float | None, *, seen: bool) -> None:
        write_frame(composer, encoder, number, patience, seen=seen)
        if seen:
            room.wait(0.4)  # four times as long as a picture lasts

    monkeypatch.setattr(compose_live, "write_frame", slow)
    told: list[str] = []
    done = make(room, told.append)
    assert told == ["this machine is too slow for the composite: pictures are left out"]
    assert 0 < done.dropped < 200
    assert len(pictures(done.path)) == done.frames == 200 - done.dropped
    assert float(np.abs(heard(done.path)[4800 : 7 * 48_000]).reshape(-1, 4800).max(axis=1).min()) > 0.1
    [note] = read_manifest(room.meeting.folder).notes
    assert (note.event, note.text) == (
        "composite_incomplete",
        f"{done.dropped} pictures were left out of composite.tile.mp4",
    )


def test_late_is_a_picture_a_second_until_it_has_caught_up() -> None:
    pace = Pace(10)
    assert [pace.keeps(0) for _ in range(5)] == [True] * 5
    assert [pace.keeps(TOO_LATE) for _ in range(20)] == ([False] * 9 + [True]) * 2
    assert pace.keeps(TOO_LATE - 0.1)
    assert pace.dropped == 18


def test_a_folder_that_nobody_records_into_is_named(tmp_path: Path) -> None:
    assert not in_use(tmp_path)
    with pytest.raises(ConfigurationError, match="holds no recording"):
        compose_live.compose_live(tmp_path, tmp_path / "c.c.mp4", OPTIONS, tell=lambda _: None)
    assert list(tmp_path.iterdir()) == []
    with locked(tmp_path):
        assert in_use(tmp_path)
        assert not Follower(tmp_path).look()
    assert not in_use(tmp_path)


async def test_a_process_of_its_own_follows_and_its_failure_ends_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    started: list[list[str]] = []

    class Process(subprocess.Popen[bytes]):
        def __init__(self, words: list[str], **options: Any) -> None:
            started.append(words)
            super().__init__(["false"], **options)

    monkeypatch.setattr(subprocess, "Popen", Process)
    emitted: list[events.Event] = []
    finished: list[Path] = []
    beside = Beside(OPTIONS, emitted.append, finished.append)
    beside.whole(tmp_path / "never begun")
    await beside.wait()
    assert finished == [tmp_path / "never begun"]
    event = events.RecordingStarted(room="r", participant="p", folder=str(tmp_path))
    beside.take(event)
    with capture_logs() as logged:
        beside.whole(tmp_path)
        await beside.wait()
    assert finished[1:] == [tmp_path]
    assert emitted == [event]
    assert [item["event_name"] for item in logged] == ["composite_finishing", "composite_failed"]
    [[_, _, module, *words]] = started
    found = CliRunner().invoke(app, words)
    assert (module, found.exit_code) == ("bot", 2)
    assert "holds no recording" in " ".join(found.output.split())
