"""Watching a remote track on request: does a picture come, does it move, is there sound.

``VideoGauge`` and ``AudioGauge`` are pure; ``FrameWatcher`` is the task that feeds them.
"""

from __future__ import annotations

import asyncio
import math
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass, replace
from types import TracebackType
from typing import Any, Self

import numpy as np
import structlog
from aiortc.mediastreams import MediaStreamError, MediaStreamTrack
from av import AudioFrame, VideoFrame
from numpy.typing import NDArray

log = structlog.get_logger(__name__)

#: Silence in dBFS; the scale of RFC 6464 ends here.
SILENCE = -127.0
_STEP = 8  # every 8th pixel of every 8th row is looked at
_NOTICEABLE = 12  # luma steps: more than the noise of a codec
_MOVING_SHARE = 0.001
_RECENT = 2.0  # seconds over which rate, movement and level are taken
_MAX_KEPT = 512


@dataclass(frozen=True, slots=True)
class WatchStats:
    """What was seen so far. Times are seconds, sizes pixels.

    ``fps`` (frames a second), ``changing`` (a picture differed from the one before) and ``level`` (RMS in dBFS)
    are of the last two seconds: where nothing comes any more, they fall to 0, False and ``SILENCE``.
    """

    kind: str
    frames: int = 0
    #: From the start of the watching to the first frame, None before it.
    first_frame_after: float | None = None
    fps: float = 0.0
    width: int = 0
    height: int = 0
    #: How often a picture differed from the one before.
    changes: int = 0
    changing: bool = False
    level: float = SILENCE
    ended: bool = False


class RateGauge:
    """Counts frames and takes their rate."""

    def __init__(self, started: float) -> None:
        self._started = started
        self._times: deque[float] = deque(maxlen=_MAX_KEPT)
        self.frames = 0
        self.first_after: float | None = None

    def feed(self, now: float) -> None:
        """Count a frame that came at ``now`` (monotonic seconds)."""
        if self.first_after is None:
            self.first_after = now - self._started
        self.frames += 1
        self._times.append(now)

    def rate(self, now: float) -> float:
        """Frames a second of late, 0 for less than two frames."""
        while self._times and self._times[0] < now - _RECENT:
            self._times.popleft()
        if len(self._times) < 2 or self._times[-1] <= self._times[0]:
            return 0.0
        return (len(self._times) - 1) / (self._times[-1] - self._times[0])


class MotionGauge:
    """Tells whether a picture changes, from a coarse grid of its luma."""

    def __init__(self) -> None:
        self._last: NDArray[np.int16] | None = None
        self._changed_at: float | None = None
        self.changes = 0

    def feed(self, luma: NDArray[np.uint8], now: float) -> None:
        """Look at the luma (rows x columns) of a picture that came at ``now`` (monotonic seconds)."""
        grid = luma[::_STEP, ::_STEP].astype(np.int16)
        last, self._last = self._last, grid
        if last is None or last.shape != grid.shape:
            return
        if float(np.mean(np.abs(grid - last) > _NOTICEABLE)) > _MOVING_SHARE:
            self.changes += 1
            self._changed_at = now

    def changing(self, now: float) -> bool:
        """Whether a picture differed from the one before it of late."""
        return self._changed_at is not None and now - self._changed_at <= _RECENT


class LevelGauge:
    """The RMS of the sound of late."""

    def __init__(self) -> None:
        self._parts: deque[tuple[float, float, int]] = deque(maxlen=_MAX_KEPT)

    def feed(self, samples: NDArray[Any], now: float) -> None:
        """Take in samples that came at ``now``: floats against 1, integers against their full scale."""
        values = samples.astype(np.float64)
        if samples.dtype.kind != "f":
            full_scale = 2.0 ** (8 * samples.dtype.itemsize - 1)
            values = values / full_scale - (
                samples.dtype.kind == "u"
            )  # unsigned samples have silence in the middle
        self._parts.append((now, float(np.sum(values * values)), values.size))

    def level(self, now: float) -> float:
        """The level in dBFS, ``SILENCE`` when there is none."""
        while self._parts and self._parts[0][0] < now - _RECENT:
            self._parts.popleft()
        count = sum(part[2] for part in self._parts)
        energy = sum(part[1] for part in self._parts)
        if not count or energy <= 0:
            return SILENCE
        return max(SILENCE, 10 * math.log10(energy / count))


def luma_of(frame: VideoFrame) -> NDArray[np.uint8]:
    """The luma of a frame, rows x columns; a view of the frame where its format has a plane of luma."""
    if frame.format.name not in ("yuv420p", "yuvj420p"):
        frame = frame.reformat(format="yuv420p")
    plane = frame.planes[0]
    rows = np.frombuffer(memoryview(plane), dtype=np.uint8).reshape(-1, plane.line_size)
    return rows[: plane.height, : plane.width]


class FrameWatcher:
    """Consumes a track in a task of its own, which ``close`` ends; the track itself is not stopped.

    ::

        async with FrameWatcher(track) as watcher:
            await watcher.wait_for(lambda stats: stats.frames >= 10, timeout=5)

    ``on_frame`` sees every frame, for instance to keep one.
    """

    def __init__(
        self,
        track: MediaStreamTrack,
        *,
        on_frame: Callable[[VideoFrame | AudioFrame], None] | None = None,
        clock: Callable[[], float] | None = None,
    ) -> None:
        self._track = track
        self._on_frame = on_frame
        self._clock = clock
        self._task: asyncio.Task[None] | None = None
        self._news = asyncio.Event()
        self._rate = RateGauge(0.0)
        self._motion = MotionGauge()
        self._level = LevelGauge()
        self._size = (0, 0)
        self._ended = False

    def __repr__(self) -> str:
        return f"<FrameWatcher {self._track.kind} frames={self._rate.frames} ended={self._ended}>"

    def _now(self) -> float:
        return self._clock() if self._clock else asyncio.get_running_loop().time()

    def start(self) -> None:
        """Begin to watch. Raises RuntimeError when begun before."""
        if self._task is not None:
            raise RuntimeError("the watcher was started before")
        self._rate = RateGauge(self._now())
        self._task = asyncio.get_running_loop().create_task(self._run(), name=f"watch-{self._track.kind}")

    async def close(self) -> None:
        """End the watching; may be called more than once. What went wrong in it is logged, never raised."""
        task, self._task = self._task, None
        if task is None:
            return
        task.cancel()
        await asyncio.wait({task})
        if not task.cancelled() and (error := task.exception()) is not None:
            log.warning("Watching a track failed", event_name="watch_failed", exc_info=error)

    async def __aenter__(self) -> Self:
        self.start()
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.close()

    async def _run(self) -> None:
        try:
            while True:
                self._feed(await self._track.recv())
                self._news.set()
        except MediaStreamError:
            log.debug("Watched track ended", event_name="watch_ended", kind=self._track.kind)
        finally:
            self._ended = True
            self._news.set()

    def _feed(self, frame: object) -> None:
        if not isinstance(frame, VideoFrame | AudioFrame):
            return  # encoded packets: nothing to look at
        now = self._now()
        self._rate.feed(now)
        if isinstance(frame, VideoFrame):
            self._size = (frame.width, frame.height)
            self._motion.feed(luma_of(frame), now)
        else:
            self._level.feed(frame.to_ndarray(), now)
        if self._on_frame is not None:
            self._on_frame(frame)

    def stats(self) -> WatchStats:
        """What was seen so far, and of late."""
        now = self._now()
        common = WatchStats(
            kind=self._track.kind,
            frames=self._rate.frames,
            first_frame_after=self._rate.first_after,
            fps=self._rate.rate(now),
            ended=self._ended,
        )
        if self._track.kind == "audio":
            return replace(common, level=self._level.level(now))
        width, height = self._size
        changes, changing = self._motion.changes, self._motion.changing(now)
        return replace(common, width=width, height=height, changes=changes, changing=changing)

    async def wait_for(self, condition: Callable[[WatchStats], bool], timeout: float) -> WatchStats:
        """Wait until ``condition`` holds or the track ended; gives the statistics then.

        Raises TimeoutError after ``timeout`` seconds.
        """
        async with asyncio.timeout(timeout):
            while True:
                stats = self.stats()
                if condition(stats) or stats.ended:
                    return stats
                self._news.clear()
                await self._news.wait()
