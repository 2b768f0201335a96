"""Recordings of rooms of the embedded server: what plays, what a kill leaves, who is told."""

from __future__ import annotations

import asyncio
import json
import os
import random
import signal
import statistics
import sys
import time
from collections.abc import AsyncIterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any, Self

import pytest
import pytest_asyncio
from av import AudioResampler, VideoFrame

from bot import events
from bot.api import Participant
from bot.bridge.rtp import is_rtcp
from bot.embedded.bridge import Endpoint
from bot.embedded.server import EmbeddedServer
from bot.media import watermark
from bot.media.marks import MarkDetector, position_of
from bot.recording.manifest import Manifest, SourceEntry, read_manifest
from bot.recording.options import RecordOptions
from bot.recording.recorder import Recorder
from bot.recording.recover import recover
from bot.recording.service import recorder_config
from bot.settings import load
from tests.bridge_support import until
from tests.clips_support import luma_of
from tests.recording_support import decoded, read

#: A busy machine may take its time; what is asserted of time says how busy it was.
pytestmark = pytest.mark.timeout(180)


@pytest_asyncio.fixture
async def server() -> AsyncIterator[EmbeddedServer]:
    found = EmbeddedServer(port=0)
    await found.start()
    yield found
    await found.stop()


def someone(server: EmbeddedServer, name: str, **settings: Any) -> Participant:
    return Participant(server.url, "room", name=name, ice_addresses="127.0.0.1", **settings)


class Run:
    """A recorder that runs, and what it told."""

    def __init__(self, server: EmbeddedServer, out: Path, **options: Any) -> None:
        self.events: list[events.Event] = []
        settings = load(ws_url=server.url, room="room", ice_addresses="127.0.0.1")
        self.recorder = Recorder(
            recorder_config(settings),
            RecordOptions.of(out=out, disk_soft=0, disk_hard=0, **options),
            emit=self.events.append,
        )
        self.task: asyncio.Task[None] | None = None

    @property
    def manifest(self) -> Manifest:
        return self.recorder.session.manifest

    async def __aenter__(self) -> Self:
        self.task = asyncio.create_task(self.recorder.run())
        return self

    async def __aexit__(self, *_: object) -> None:
        self.recorder.stop()
        assert self.task is not None
        await asyncio.wait([self.task])
        self.task.result()

    async def recorded(self, seconds: float, sources: int) -> None:
        """Wait until so many sources have files of that length."""

        def long_enough() -> bool:
            lengths = [item.end - item.start for item in self.manifest.segments()]
            return sum(length >= seconds for length in lengths) >= sources

        await until(long_enough, 90)


@pytest.mark.parametrize("engine", ["shared", "aiortc"])
async def test_a_room_of_two_is_recorded_and_all_of_it_plays(
    server: EmbeddedServer, tmp_path: Path, engine: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("JITSI_MEDIA_ENGINE", engine)
    async with someone(server, "Ann") as ann, someone(server, "Bob") as bob, Run(server, tmp_path) as run:
        await run.recorded(3.0, 4)
        ann.room.send_chat("hello")
        await until(lambda: len(run.manifest.chat) == 1)
        names = {ann.endpoint: "Ann", bob.endpoint: "Bob"}
    manifest = read_manifest(run.recorder.folder)
    assert {who.endpoint: who.name for who in manifest.participants} == names
    assert (manifest.state, manifest.end_cause) == ("finished", "stopped")
    assert [line.text for line in manifest.chat] == ["hello"]
    assert manifest.poster == "poster.jpg"
    assert (run.recorder.folder / "poster.jpg").stat().st_size > 1000
    for who in manifest.participants:
        assert sorted(source.media for source in who.sources) == ["audio", "video"]
        for source in who.sources:
            [segment] = source.segments
            frames = decoded(run.recorder.folder / segment.file)
            assert len(frames) == segment.frames > 0
            assert segment.ended == "end"
            assert source.gaps == []
    started = [event for event in run.events if isinstance(event, events.RecordingStarted)]
    ended = [event for event in run.events if isinstance(event, events.RecordingEnded)]
    assert (len(started), len(ended), ended[0].files) == (1, 1, 4)


async def test_everybody_is_told_before_anything_is_recorded(server: EmbeddedServer, tmp_path: Path) -> None:
    heard: list[tuple[str, bool]] = []
    async with someone(server, "Ann") as ann, Run(server, tmp_path) as run:

        async def listen() -> None:
            async for event in ann.events():
                if isinstance(event, events.ChatMessageReceived):
                    heard.append((event.body, bool(run.manifest.segments())))
                    return

        await asyncio.wait_for(listen(), 60)
        [recorder] = ann.others.values()
        assert recorder.nick == "Recorder"
        conference = run.recorder.participant.conference
        assert conference is not None
        assert conference.room.presence is not None
        said = {item.tag.rpartition("}")[2]: item.text for item in conference.room.presence.elements()}
        assert said["jitsi_participant_localRecording"] == "true"
        await run.recorded(0.5, 2)
    assert heard == [("This meeting is being recorded.", False)]


async def test_mutes_leaves_and_returns_are_segments(server: EmbeddedServer, tmp_path: Path) -> None:
    async with someone(server, "Ann") as ann, Run(server, tmp_path) as run:
        async with someone(server, "Bob"):
            await run.recorded(0.5, 4)
            name = f"{ann.endpoint}-a0"
            ann.own.mute("a0")
            await until(lambda: name in run.recorder.session.muted)
            await asyncio.sleep(0.5)
            ann.own.unmute("a0")
            await until(lambda: name not in run.recorder.session.muted)
            await until(lambda: _count(run.manifest, name) == 2, 60)
            await run.recorded(0.5, 5)
        await until(lambda: any(item.ended == "left" for item in run.manifest.segments()), 60)
        async with someone(server, "Bob", video="none"):
            await until(lambda: sum(who.name == "Bob" for who in run.manifest.participants) == 2, 60)
            await until(lambda: _of(run.manifest, "Bob") >= 3, 60)
    manifest = read_manifest(run.recorder.folder)
    [source] = [item for who in manifest.participants for item in who.sources if item.name == name]
    assert [item.ended for item in source.segments] == ["muted", "end"]
    assert [gap.cause for gap in source.gaps] == ["muted"]
    for segment in manifest.segments():
        assert len(decoded(run.recorder.folder / segment.file)) == segment.frames > 0


def _count(manifest: Manifest, name: str) -> int:
    return sum(len(item.segments) for who in manifest.participants for item in who.sources if item.name == name)


def _of(manifest: Manifest, name: str) -> int:
    return sum(len(item.segments) for who in manifest.participants if who.name == name for item in who.sources)


async def test_alone_for_too_long_ends_it(server: EmbeddedServer, tmp_path: Path) -> None:
    run = Run(server, tmp_path, alone=1)
    async with asyncio.timeout(30):
        await run.recorder.run()
    manifest = read_manifest(run.recorder.folder)
    assert (manifest.state, manifest.end_cause) == ("finished", "alone")


async def test_a_full_disk_closes_the_files_and_the_recorder_stays(
    server: EmbeddedServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    free = [10**12]
    monkeypatch.setattr("bot.recording.disk.Folder.free", lambda _: free[0])
    options = {"disk_soft": 2000, "disk_hard": 1000}
    async with someone(server, "Ann") as ann:
        run = Run(server, tmp_path)
        run.recorder._options = RecordOptions.of(out=tmp_path, **options)
        async with run:
            await run.recorded(1.0, 2)
            free[0] = 1500 * 1024 * 1024
            await until(lambda: not run.recorder.session.video, 60)
            await until(lambda: any(item.ended == "disk" for item in run.manifest.segments()))
            free[0] = 1
            await until(lambda: run.manifest.state == "finished", 60)
            assert run.recorder.participant.in_room
            assert len(ann.others) == 1
    manifest = read_manifest(run.recorder.folder)
    assert manifest.end_cause == "disk"
    assert [note.event for note in manifest.notes if note.event.startswith("disk")] == ["disk_low", "disk_full"]
    for segment in manifest.segments():
        assert len(decoded(run.recorder.folder / segment.file)) == segment.frames


class Lag:
    """How late this machine is: the longest that a task had to wait for its turn, in seconds."""

    def __init__(self) -> None:
        self.worst = 0.0

    async def measure(self) -> None:
        while True:
            began = time.monotonic()
            await asyncio.sleep(0.05)
            self.worst = max(self.worst, time.monotonic() - began - 0.05)

    async def __aenter__(self) -> Self:
        self._task = asyncio.create_task(self.measure())
        return self

    async def __aexit__(self, *_: object) -> None:
        self._task.cancel()
        await asyncio.wait([self._task])


async def killed_at(server: EmbeddedServer, out: Path, alive: float) -> float:
    """Record in a process of its own and kill it; returns when that was (Unix time)."""
    environment = {**os.environ, "JITSI_ICE_ADDRESSES": "127.0.0.1"}
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "bot", "record", "--url", server.url, "--room", "room", "--out", str(out)),
        *("--disk-soft", "0", "--disk-hard", "0"),
        env=environment,
        stdout=asyncio.subprocess.DEVNULL,
        stderr=asyncio.subprocess.DEVNULL,
    )
    try:
        await until(lambda: len(_files(out)) >= 4, 90)
        await asyncio.sleep(alive)
    finally:
        process.send_signal(signal.SIGKILL)
        when = time.time()
        await process.wait()
    return when


def _files(out: Path) -> list[Path]:
    return list(out.glob("*/*.webm"))


@pytest.mark.parametrize("number", range(2))
async def test_a_kill_loses_two_seconds_at_most(server: EmbeddedServer, tmp_path: Path, number: int) -> None:
    alive = random.uniform(1.5, 5)
    async with someone(server, "Ann"), someone(server, "Bob"), Lag() as lag:
        when = await killed_at(server, tmp_path, alive)
    [folder] = {path.parent for path in _files(tmp_path)}
    before = json.loads((folder / "manifest.json").read_bytes())
    assert before["state"] == "recording"
    done = recover(folder)
    assert done.recovered == 4
    manifest = read_manifest(folder)
    assert manifest.state == "recovered"
    assert len(manifest.segments()) == 4
    for segment in manifest.segments():
        assert len(decoded(folder / segment.file)) > 0
        end = manifest.started + timedelta(
            seconds=segment.start, milliseconds=read(folder / segment.file).duration or 0
        )
        assert (datetime.fromtimestamp(when, UTC) - end).total_seconds() < 2.0 + 4 * lag.worst
        assert segment.recovered


def _offsets(manifest: Manifest, folder: Path, endpoint: str) -> tuple[list[float], list[float]]:
    """When clip positions are seen and heard, each less its position: seconds in the clip's eight."""
    seen: list[float] = []
    heard: list[float] = []
    [who] = [item for item in manifest.participants if item.endpoint == endpoint]
    for segment in (segment for source in who.sources for segment in source.segments):
        # The detector wants stamps without jitter, which times in whole milliseconds have: samples are its clock.
        detector, times = MarkDetector(), list[float]()
        for frame in decoded(folder / segment.file):
            assert frame.time is not None
            times.append(segment.start + frame.time)
            if isinstance(frame, VideoFrame):
                if (mark := watermark.read(luma_of(frame))) is not None:
                    seen.append((times[-1] - mark.index / 30) % 8)
                continue
            samples = AudioResampler(format="s16", layout="mono").resample(frame)[0].to_ndarray()[0]
            for beep in detector.feed(samples, 0.02 * (len(times) - 1)):
                place, rest = divmod(beep.time, 0.02)
                heard.append((times[int(place)] + rest - position_of(beep.number)) % 8)
    return seen, heard


@pytest.mark.parametrize("engine", ["shared", "aiortc"])
async def test_lips_and_voice_are_together_by_their_marks(
    server: EmbeddedServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, engine: str
) -> None:
    async with someone(server, "Ann") as ann, someone(server, "Bob") as bob:
        monkeypatch.setenv("JITSI_MEDIA_ENGINE", engine)
        async with Run(server, tmp_path) as run, Lag() as lag:
            await run.recorded(6.0, 4)
            await until(lambda: sum(who.talk_time for who in run.manifest.participants) > 4, 30)
            endpoints = ann.endpoint, bob.endpoint
            late = lag.worst
    beeps = 0
    for endpoint in endpoints:
        seen, heard = _offsets(read_manifest(run.recorder.folder), run.recorder.folder, endpoint)
        assert len(seen) > 120
        beeps += len(heard)  # there are none while somebody is silent
        middle = statistics.median((item - seen[0] + 4) % 8 - 4 for item in seen)
        apart = [(item - seen[0] - middle + 4) % 8 - 4 for item in heard]
        assert max(map(abs, apart), default=0) < 0.04 + late, apart
    assert beeps > 1


class Loss:
    """The way from the bridge to one receiver: packets are lost by chance, and those of pictures for a while."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, rate: float) -> None:
        self.victim = ""
        self.rng = random.Random(3)
        self.outage = False
        self.lost = 0
        put = Endpoint.put

        def lossy(endpoint: Endpoint, data: bytes) -> None:
            media = endpoint.name == self.victim and not is_rtcp(data)
            if media and (self.rng.random() < rate or (self.outage and len(data) > 400)):
                self.lost += 1
                return
            put(endpoint, data)

        monkeypatch.setattr(Endpoint, "put", lossy)


async def test_what_is_lost_is_repaired_and_what_is_not_is_a_gap(
    server: EmbeddedServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    loss = Loss(monkeypatch, 0.03)
    async with someone(server, "Ann"), someone(server, "Bob"), Run(server, tmp_path) as run:
        await until(lambda: run.recorder.participant.conference is not None)
        conference = run.recorder.participant.conference
        assert conference is not None
        loss.victim = conference.room.own.partition("/")[2]
        await run.recorded(4.0, 4)
        loss.outage = True
        await asyncio.sleep(2.5)
        loss.outage = False
        await until(lambda: all(any(gap.end - gap.start > 1.2 for gap in s.gaps) for s in _videos(run.manifest)))
        length = max(item.end for item in run.manifest.segments())
        await until(lambda: all(item.segments[-1].end > length + 1 for item in _videos(run.manifest)), 60)
    manifest = read_manifest(run.recorder.folder)
    assert loss.lost > 50
    for source in _videos(manifest):
        # Of the last second of the outage NACK brings some back.
        assert any(gap.cause == "loss" and gap.end - gap.start > 1.2 for gap in source.gaps)
    for segment in manifest.segments():
        assert len(decoded(run.recorder.folder / segment.file)) == segment.frames > 0


def _videos(manifest: Manifest) -> list[SourceEntry]:
    return [source for who in manifest.participants for source in who.sources if source.media == "video"]


async def record_command(*words: str) -> asyncio.subprocess.Process:
    environment = {**os.environ, "JITSI_ICE_ADDRESSES": "127.0.0.1", "JITSI_LOG_FORMAT": "json"}
    return await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "bot", "record", *words),
        env=environment,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
    )


async def test_the_command_records_bots_in_two_rooms_until_it_is_told_to_end(tmp_path: Path) -> None:
    there = tmp_path / "there"
    words = ("--disk-soft", "0", "--disk-hard", "0", "--room", "r", "--room", "s", "--out", str(tmp_path / "out"))
    after = ("--deliver-folder", str(there), "--audio-only", "--audio", "flac", "--remove-delivered")
    process = await record_command("--embedded", "--embedded-port", "0", *words, *after)
    try:
        await until(lambda: len(_files(tmp_path / "out")) == 4, 90)
        await asyncio.sleep(0.5)
        process.terminate()
        assert await asyncio.wait_for(process.wait(), 20) == 0
    finally:
        if process.returncode is None:
            process.kill()
        await process.communicate()
    assert _files(tmp_path / "out") == []  # removed once they had been delivered
    folders = {path.parent for path in _files(there)}
    for folder in folders:
        manifest = read_manifest(folder)
        assert (manifest.state, manifest.end_cause) == ("finished", "stopped")
        assert sorted(who.name for who in manifest.participants) == ["bot-1", "bot-2"]
        assert {item.ended for item in manifest.segments()} == {"end"}
        assert len(list(folder.glob("*.flac"))) == 2
    assert {read_manifest(folder).room for folder in folders} == {"r", "s"}
    recover_it = await record_command("recover", str(tmp_path))
    said, _ = await recover_it.communicate()
    assert (recover_it.returncode, said) == (0, b"nothing to recover\n")
