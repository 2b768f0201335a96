from __future__ import annotations

import asyncio
from collections.abc import Sequence
from typing import Any

import numpy as np
import pytest
import structlog.testing
from aiortc.mediastreams import MediaStreamError, MediaStreamTrack
from av import AudioFrame, Packet, VideoFrame

from bot.media.synthetic import SyntheticAudioTrack, SyntheticVideoTrack
from bot.media.watch import SILENCE, FrameWatcher, LevelGauge, MotionGauge, RateGauge, luma_of


class ListedTrack(MediaStreamTrack):
    """Gives the frames listed, each 0.1 s after the one before, and then ends or waits for ever."""

    def __init__(self, kind: str, frames: Sequence[object], *, ends: bool = True) -> None:
        super().__init__()
        self.kind = kind
        self.now = 10.0
        self._frames = list(frames)
        self._ends = ends

    async def recv(self) -> Any:
        await asyncio.sleep(0)
        self.now += 0.1
        if self._frames:
            return self._frames.pop(0)
        if self._ends:
            raise MediaStreamError
        return await asyncio.get_running_loop().create_future()

    def clock(self) -> float:
        return self.now


def _video(count: int, *, still: bool = False) -> list[object]:
    track = SyntheticVideoTrack("room", "bot", 320, 180, wall=lambda: 0.0)
    return [track.render(0 if still else index) for index in range(count)]


def test_rate_gauge() -> None:
    gauge = RateGauge(5.0)
    assert gauge.rate(5.0) == 0
    for index in range(100):
        gauge.feed(6.0 + index / 25)
    assert gauge.first_after == 1.0
    assert gauge.frames == 100
    assert gauge.rate(6.0 + 99 / 25) == pytest.approx(25)
    assert gauge.rate(20.0) == 0


def test_frames_that_come_at_one_moment_have_no_rate() -> None:
    gauge = RateGauge(0.0)
    gauge.feed(1.0)
    gauge.feed(1.0)
    assert gauge.rate(1.0) == 0


def test_motion_gauge_sees_change_and_stillness() -> None:
    gauge = MotionGauge()
    picture = np.full((90, 160), 100, np.uint8)
    gauge.feed(picture, 0.0)
    gauge.feed(picture + np.uint8(5), 0.1)  # a codec's noise is no change
    assert (gauge.changes, gauge.changing(0.1)) == (0, False)
    moved = picture.copy()
    moved[:40, :40] = 200
    gauge.feed(moved, 0.2)
    assert (gauge.changes, gauge.changing(0.2), gauge.changing(2.1), gauge.changing(2.3)) == (1, True, True, False)


def test_motion_gauge_starts_anew_when_the_size_changes() -> None:
    gauge = MotionGauge()
    gauge.feed(np.zeros((90, 160), np.uint8), 0.0)
    gauge.feed(np.full((180, 320), 255, np.uint8), 0.1)
    assert gauge.changes == 0


@pytest.mark.parametrize(
    ("samples", "level"),
    [
        (np.full(960, 16384, np.int16), -6.02),
        (np.full((2, 960), -(2**30), np.int32), -6.02),
        (np.full(960, 0.1, np.float32), -20.0),
        (np.full(960, 192, np.uint8), -6.02),
        (np.full(960, 128, np.uint8), SILENCE),
        (np.zeros(960, np.int16), SILENCE),
        (np.full(960, 1e-9, np.float32), SILENCE),
    ],
)
def test_level_gauge(samples: np.ndarray[Any, Any], level: float) -> None:
    gauge = LevelGauge()
    gauge.feed(samples, 1.0)
    assert gauge.level(1.0) == pytest.approx(level, abs=0.01)
    assert gauge.level(3.5) == SILENCE


def test_luma_of_other_formats() -> None:
    frame = VideoFrame.from_ndarray(np.full((90, 160, 3), 255, np.uint8), format="rgb24")
    luma = luma_of(frame)
    assert luma.shape == (90, 160)
    assert int(luma.min()) >= 234


async def test_a_moving_picture_is_watched() -> None:
    track = ListedTrack("video", _video(12))
    seen: list[object] = []
    async with FrameWatcher(track, on_frame=seen.append, clock=track.clock) as watcher:
        stats = await watcher.wait_for(lambda stats: stats.frames >= 10, timeout=5)
        assert (stats.frames, stats.width, stats.height, stats.kind) == (10, 320, 180, "video")
        assert stats.first_frame_after == pytest.approx(0.1)
        assert stats.fps == pytest.approx(10)
        assert (stats.changes, stats.changing, stats.ended) == (9, True, False)
        ended = await watcher.wait_for(lambda stats: False, timeout=5)
    assert ended.ended
    assert ended.frames == len(seen) == 12
    assert repr(watcher) == "<FrameWatcher video frames=12 ended=True>"


async def test_a_still_picture_does_not_change() -> None:
    track = ListedTrack("video", _video(5, still=True))
    async with FrameWatcher(track, clock=track.clock) as watcher:
        stats = await watcher.wait_for(lambda stats: stats.ended, timeout=5)
    assert (stats.frames, stats.changes, stats.changing) == (5, 0, False)


async def test_the_level_of_sound_is_watched() -> None:
    source = SyntheticAudioTrack("bot", mode="tone", level=-30)
    track = ListedTrack("audio", [source.render(index) for index in range(5)])
    async with FrameWatcher(track, clock=track.clock) as watcher:
        stats = await watcher.wait_for(lambda stats: stats.ended, timeout=5)
    assert stats.level == pytest.approx(-30, abs=0.1)
    assert (stats.frames, stats.width, stats.changing) == (5, 0, False)


async def test_packets_are_passed_over() -> None:
    track = ListedTrack("video", [Packet(b"x"), *_video(1)])
    async with FrameWatcher(track) as watcher:
        stats = await watcher.wait_for(lambda stats: stats.ended, timeout=5)
    assert stats.frames == 1


async def test_close_ends_the_task_and_not_the_track() -> None:
    track = ListedTrack("video", _video(1), ends=False)
    watcher = FrameWatcher(track)
    await watcher.close()
    watcher.start()
    with pytest.raises(RuntimeError, match="started before"):
        watcher.start()
    await watcher.wait_for(lambda stats: stats.frames == 1, timeout=5)
    await watcher.close()
    await watcher.close()
    assert watcher.stats().ended
    assert track.readyState == "live"


async def test_what_goes_wrong_is_logged_at_close() -> None:
    def refuse(frame: VideoFrame | AudioFrame) -> None:
        raise ArithmeticError("no")

    with structlog.testing.capture_logs() as logs:
        async with FrameWatcher(ListedTrack("video", _video(1)), on_frame=refuse) as watcher:
            await watcher.wait_for(lambda stats: stats.ended, timeout=5)
    assert [line["event_name"] for line in logs] == ["watch_failed"]


async def test_waiting_in_vain_times_out() -> None:
    async with FrameWatcher(ListedTrack("video", [], ends=False)) as watcher:
        with pytest.raises(TimeoutError):
            await watcher.wait_for(lambda stats: stats.frames > 0, timeout=0.01)
        assert watcher.stats().first_frame_after is None
        assert watcher.stats().fps == 0
