from __future__ import annotations

import asyncio
import heapq
import time
from collections.abc import Callable
from fractions import Fraction

import numpy as np
import pytest
from aiortc.mediastreams import MediaStreamError
from av import AudioFrame, VideoFrame

from bot.media.identity import pitch_of
from bot.media.pattern import read_clock, read_number
from bot.media.synthetic import Clock, PacedTrack, SyntheticAudioTrack, SyntheticVideoTrack, Timer, planes_of

NOON = 12 * 3600.0


class SimulatedTimer:
    def __init__(self) -> None:
        self.cancelled = False

    def cancel(self) -> None:
        self.cancelled = True


class SimulatedClock:
    """Time that stands still until somebody waits for it; then it is at once what was waited for."""

    def __init__(self, start: float = 1000.0) -> None:
        self.now = start
        self._queue: list[tuple[float, int, Callable[[], object], SimulatedTimer]] = []
        self.waited: list[float] = []

    def time(self) -> float:
        return self.now

    def call_at(self, when: float, callback: Callable[[], object], /) -> Timer:
        timer = SimulatedTimer()
        self.waited.append(when)
        heapq.heappush(self._queue, (when, len(self.waited), callback, timer))
        asyncio.get_running_loop().call_soon(self._advance)
        return timer

    def _advance(self) -> None:
        when, _, callback, timer = heapq.heappop(self._queue)
        if not timer.cancelled:
            self.now = max(self.now, when)
            callback()


class StoppedClock(SimulatedClock):
    """Time that never goes on."""

    def _advance(self) -> None:
        pass


def _tracks(clock: Clock) -> list[PacedTrack]:
    return [SyntheticVideoTrack("room", "bot", 160, 90, clock=clock), SyntheticAudioTrack("bot", clock=clock)]


async def test_video_frames_come_at_their_times() -> None:
    clock = SimulatedClock()
    track = SyntheticVideoTrack("room", "bot", clock=clock, wall=lambda: NOON + clock.now - 1000)
    frames = [await track.recv() for _ in range(91)]
    assert clock.now == pytest.approx(1003.0, abs=1e-9)
    assert [frame.pts for frame in frames] == [3000 * index for index in range(91)]
    assert {frame.time_base for frame in frames} == {Fraction(1, 90000)}
    assert {(frame.width, frame.height, frame.format.name) for frame in frames} == {(640, 360, "yuv420p")}
    lumas = [planes_of(frame).y for frame in frames]
    assert [read_number(luma) for luma in lumas] == list(range(91))
    assert read_clock(lumas[45]) == "12:00:01.500"
    assert track.skipped == 0


async def test_audio_frames_come_at_their_times() -> None:
    clock = SimulatedClock()
    track = SyntheticAudioTrack("bot", clock=clock)
    frames = [await track.recv() for _ in range(251)]
    assert clock.now == pytest.approx(1005.0, abs=1e-9)
    assert [frame.pts for frame in frames] == [960 * index for index in range(251)]
    assert {(f.samples, f.sample_rate, f.format.name, f.layout.name) for f in frames} == {
        (960, 48000, "s16", "stereo")
    }
    assert {frame.time_base for frame in frames} == {Fraction(1, 48000)}


async def test_a_late_reader_gets_the_newest_picture_and_no_burst() -> None:
    clock = SimulatedClock()
    track = SyntheticVideoTrack("room", "bot", 160, 90, clock=clock)
    await track.recv()
    clock.now += 1.01
    frames = [await track.recv() for _ in range(2)]
    assert [frame.pts for frame in frames] == [90000, 93000]
    assert clock.now == pytest.approx(1000 + 31 / 30)
    assert track.skipped == 29


async def test_sound_makes_up_for_a_short_hold_up_and_skips_a_long_one() -> None:
    clock = SimulatedClock()
    track = SyntheticAudioTrack("bot", clock=clock)
    await track.recv()
    clock.now += 0.065
    assert [(await track.recv()).pts for _ in range(3)] == [960, 1920, 2880]
    assert clock.now == pytest.approx(1000.065)
    clock.now += 1.0
    assert (await track.recv()).pts == 53 * 960
    assert track.skipped == 49


async def test_uneven_frame_rates() -> None:
    clock = SimulatedClock()
    track = SyntheticVideoTrack("room", "bot", 160, 90, fps=29.97, clock=clock)
    pts = [(await track.recv()).pts for _ in range(4)]
    assert pts == [0, 3003, 6006, 9009]


async def test_two_readers_share_the_frames() -> None:
    track = SyntheticVideoTrack("room", "bot", 160, 90, clock=SimulatedClock())
    frames = await asyncio.gather(*(track.recv() for _ in range(4)))
    assert sorted(frame.pts or 0 for frame in frames) == [0, 3000, 6000, 9000]


@pytest.mark.parametrize("number", [0, 1])
async def test_stop_ends_a_waiting_recv_at_once(number: int) -> None:
    track = _tracks(StoppedClock())[number]
    await track.recv()
    ended: list[bool] = []
    track.once("ended", lambda: ended.append(True))
    waiting = asyncio.create_task(track.recv())
    await asyncio.sleep(0)
    assert not waiting.done()
    track.stop()
    with pytest.raises(MediaStreamError):
        await waiting
    with pytest.raises(MediaStreamError):
        await track.recv()
    track.stop()
    assert ended == [True]
    assert track.readyState == "ended"


async def test_a_cancelled_recv_leaves_nothing_behind() -> None:
    track = SyntheticVideoTrack("room", "bot", 160, 90, clock=StoppedClock())
    await track.recv()
    waiting = asyncio.create_task(track.recv())
    await asyncio.sleep(0)
    waiting.cancel()
    with pytest.raises(asyncio.CancelledError):
        await waiting
    assert not track._waiting
    track.stop()


async def test_a_timer_that_fires_after_stop_does_no_harm() -> None:
    track = SyntheticAudioTrack("bot", clock=SimulatedClock())
    await track.recv()
    waiting = asyncio.create_task(track.recv())
    await asyncio.sleep(0)
    track.stop()  # the simulated timer fires in the same turn of the loop
    with pytest.raises(MediaStreamError):
        await waiting


async def test_the_loop_is_the_clock_unless_another_is_given() -> None:
    track = SyntheticVideoTrack("room", "bot", 160, 90, fps=100)
    before = asyncio.get_running_loop().time()
    for _ in range(11):
        frame = await track.recv()
    assert asyncio.get_running_loop().time() - before >= 0.095
    assert (frame.pts or 0) >= 9000


def test_frames_wider_than_their_lines_are_aligned_to() -> None:
    frame = SyntheticVideoTrack("room", "bot", 426, 240, wall=lambda: NOON).render(7)
    assert frame.planes[0].line_size > 426
    assert read_clock(frame.to_ndarray()[:240].astype(np.uint8)) == "12:00:00.000"


@pytest.mark.parametrize("fps", [0, 0.5, 241, float("nan")])
def test_frame_rates_that_cannot_be_are_refused(fps: float) -> None:
    with pytest.raises(ValueError, match="fps"):
        SyntheticVideoTrack("room", "bot", fps=fps)


def _sound(track: SyntheticAudioTrack, count: int = 250) -> bytes:
    return b"".join(track.render(index).to_ndarray().tobytes() for index in range(count))


def test_sound_is_the_same_for_the_same_name_and_seed() -> None:
    assert _sound(SyntheticAudioTrack("a", seed=1)) == _sound(SyntheticAudioTrack("a", seed=1))
    assert _sound(SyntheticAudioTrack("a", seed=1)) != _sound(SyntheticAudioTrack("a", seed=2))
    assert _sound(SyntheticAudioTrack("a", seed=1)) != _sound(SyntheticAudioTrack("b", seed=1))


def test_the_tone_goes_on_over_the_end_of_its_loop() -> None:
    track = SyntheticAudioTrack("bot", mode="tone", frequency=217, level=-20, channels=1)
    samples = np.frombuffer(_sound(track, 150), dtype=np.int16)
    expected = 0.1 * np.sqrt(2) * 32767 * np.sin(2 * np.pi * 217 * np.arange(len(samples)) / 48000)
    assert int(np.max(np.abs(samples - expected))) < 5 * 32767 / 1000
    assert track.frequency == 217
    assert SyntheticAudioTrack("bot", mode="tone").frequency == pitch_of("bot")


def test_mono_frames() -> None:
    frame = SyntheticAudioTrack("bot", channels=1).render(3)
    assert (frame.layout.name, frame.samples, frame.to_ndarray().size) == ("mono", 960, 960)


def test_stereo_frames() -> None:
    frame = SyntheticAudioTrack("bot", mode="tone").render(3)
    assert (frame.layout.name, frame.samples) == ("stereo", 960)
    samples = frame.to_ndarray().reshape(-1, 2)
    assert (samples[:, 0] == samples[:, 1]).all()
    assert samples.any()


def test_sound_is_cheap() -> None:
    track = SyntheticAudioTrack("bot")
    costs = []
    for _ in range(5):  # the best of five: the machine may have other things to do
        before = time.thread_time()
        for index in range(200):
            track.render(index)
        costs.append((time.thread_time() - before) / 200)
    assert min(costs) < 0.00005


def test_repr_tells_kind_and_state() -> None:
    track = SyntheticVideoTrack("room", "bot")
    assert repr(track) == "<SyntheticVideoTrack live <Pacer 30/s next=0 skipped=0>>"
    track.stop()
    assert "ended" in repr(track)


async def test_kinds_and_frame_types() -> None:
    video, audio = _tracks(SimulatedClock())
    assert (video.kind, audio.kind) == ("video", "audio")
    assert isinstance(await video.recv(), VideoFrame)
    assert isinstance(await audio.recv(), AudioFrame)
