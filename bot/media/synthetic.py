"""Synthetic tracks: a test pattern that tells room, name, time and frame number, and a sound for each name.

Both are ordinary tracks of aiortc and work in any aiortc program::

    pc.addTrack(SyntheticVideoTrack("room", "bot-1"))
    pc.addTrack(SyntheticAudioTrack("bot-1"))
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable
from fractions import Fraction
from typing import Protocol

import numpy as np
from aiortc.mediastreams import MediaStreamError, MediaStreamTrack
from av import AudioFrame, VideoFrame

from bot.media.font import Luma
from bot.media.identity import pitch_of, stable_hash
from bot.media.pacing import Pacer, Slot
from bot.media.pattern import Planes, TestPattern
from bot.media.sound import FRAME_SAMPLES, FRAMES_PER_SECOND, SAMPLE_RATE, Mode, sound_frames

VIDEO_CLOCK_RATE = 90000  # Hz, RFC 3551 section 5
VIDEO_TIME_BASE = Fraction(1, VIDEO_CLOCK_RATE)
AUDIO_TIME_BASE = Fraction(1, SAMPLE_RATE)
_MAX_FPS = 240
#: Sound that is late by up to 60 ms is caught up with: a hole in it is worse than three packets in a row.
_AUDIO_PATIENCE = 3


class Timer(Protocol):
    """What can be called off."""

    def cancel(self) -> None:
        """Never call back."""


class Clock(Protocol):
    """The part of an event loop that pacing needs. Times are monotonic seconds."""

    def time(self) -> float:
        """Now."""
        ...

    def call_at(self, when: float, callback: Callable[[], object], /) -> Timer:
        """Call ``callback`` at ``when``."""
        ...


class TimedTrack(MediaStreamTrack):
    """A track that waits until its frames are due; ``stop`` ends a waiting ``recv`` at once."""

    #: Frames are made when they are asked for, and by then nobody else has them.
    on_demand = True

    def __init__(self, clock: Clock | None) -> None:
        super().__init__()
        self._clock = clock
        self._waiting: set[asyncio.Future[None]] = set()

    def now(self) -> float:
        """Seconds on the track's clock: that of the event loop unless another was given."""
        return self._time().time()

    def _time(self) -> Clock:
        return self._clock or asyncio.get_running_loop()

    def _check_live(self) -> None:
        if self.readyState != "live":
            raise MediaStreamError

    async def wait_until(self, due: float) -> None:
        """Wait until ``due``, if that is to come. Raises MediaStreamError once the track is stopped."""
        self._check_live()
        if due > self.now():
            await self._wait(due)
            self._check_live()

    async def _wait(self, due: float) -> None:
        future: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._waiting.add(future)
        timer = self._time().call_at(due, lambda: _wake(future))
        try:
            await future
        finally:
            timer.cancel()
            self._waiting.discard(future)

    def stop(self) -> None:
        """End the track: every ``recv``, also a waiting one, raises MediaStreamError."""
        super().stop()
        for future in self._waiting:
            _wake(future)


class PacedTrack(TimedTrack):
    """A track with so many frames a second."""

    def __init__(self, pacer: Pacer, clock: Clock | None) -> None:
        super().__init__(clock)
        self._pacer = pacer

    def __repr__(self) -> str:
        return f"<{type(self).__name__} {self.readyState} {self._pacer!r}>"

    @property
    def skipped(self) -> int:
        """Frames left out because they were asked for too late."""
        return self._pacer.skipped

    async def next_slot(self) -> Slot:
        """Wait until the next frame is due. Raises MediaStreamError once the track is stopped."""
        self._check_live()
        slot = self._pacer.next(self.now())
        await self.wait_until(slot.due)
        return slot


def _wake(future: asyncio.Future[None]) -> None:
    if not future.done():
        future.set_result(None)


class SyntheticVideoTrack(PacedTrack):
    """A moving test pattern in YUV 4:2:0, with room, name, UTC clock and frame number readable in it.

    Sizes are in pixels and even, 160x90 at least; ``fps`` is frames a second. A frame asked for late is
    skipped, which its number and time stamp (1/90000 s) show. ``wall`` gives the time of day in seconds since
    the epoch. Raises ValueError for a size or rate that can't be made.
    """

    kind = "video"

    def __init__(
        self,
        room: str,
        name: str,
        width: int = 640,
        height: int = 360,
        fps: float = 30,
        *,
        clock: Clock | None = None,
        wall: Callable[[], float] = time.time,
    ) -> None:
        if not 1 <= fps <= _MAX_FPS:
            raise ValueError(f"fps must be 1 to {_MAX_FPS}, not {fps:g}")
        rate = Fraction(fps).limit_denominator(1001)
        super().__init__(Pacer(rate), clock)
        self._rate = rate
        self._wall = wall
        self.pattern = TestPattern(room, name, width, height)

    async def recv(self) -> VideoFrame:
        """The next frame, when it is due. Raises MediaStreamError once the track is stopped."""
        slot = await self.next_slot()
        return self.render(slot.index)

    def render(self, index: int) -> VideoFrame:
        """Frame ``index`` with the present time in it, without waiting."""
        layout = self.pattern.layout
        frame = VideoFrame(layout.width, layout.height, "yuv420p")
        self.pattern.draw(planes_of(frame), index, self._wall())
        frame.pts = int(index * VIDEO_CLOCK_RATE / self._rate)
        frame.time_base = VIDEO_TIME_BASE
        return frame


def planes_of(frame: VideoFrame) -> Planes:
    """Views of the planes of a yuv420p ``frame``: what is written to them is written to the frame."""
    return Planes(*(_plane_view(frame, index) for index in range(3)))


def _plane_view(frame: VideoFrame, index: int) -> Luma:
    plane = frame.planes[index]
    rows = np.frombuffer(memoryview(plane), dtype=np.uint8).reshape(-1, plane.line_size)
    return rows[: plane.height, : plane.width]  # a line can be longer than the picture is wide


class SyntheticAudioTrack(PacedTrack):
    """A sound for each name: syllables of a voice (``speech``) or a steady ``tone``; 48 kHz s16, 20 ms frames.

    ``level`` is the RMS in dBFS. Stereo is the default because aiortc codes stereo and takes 3 dB off mono.
    ``frequency`` is the fundamental in whole Hz, from the name when None. The
    same name and ``seed`` give the same samples. Raises ValueError for what can't be made.
    """

    kind = "audio"

    def __init__(
        self,
        name: str,
        *,
        mode: Mode = "speech",
        level: float = -20.0,
        seed: int = 0,
        channels: int = 2,
        frequency: int | None = None,
        clock: Clock | None = None,
    ) -> None:
        super().__init__(Pacer(Fraction(FRAMES_PER_SECOND), patience=_AUDIO_PATIENCE), clock)
        self.frequency = pitch_of(name) if frequency is None else frequency
        mixed = stable_hash(f"{seed}/{name}")
        self._frames = sound_frames(mode, self.frequency, seed=mixed, level=level, channels=channels)
        self._layout = "mono" if channels == 1 else "stereo"

    async def recv(self) -> AudioFrame:
        """The next 20 ms, when they are due. Raises MediaStreamError once the track is stopped."""
        slot = await self.next_slot()
        return self.render(slot.index)

    def render(self, index: int) -> AudioFrame:
        """The 20 ms with number ``index``, without waiting."""
        frame = AudioFrame(format="s16", layout=self._layout, samples=FRAME_SAMPLES)
        frame.planes[0].update(self._frames[index % len(self._frames)])
        frame.sample_rate = SAMPLE_RATE
        frame.pts = index * FRAME_SAMPLES
        frame.time_base = AUDIO_TIME_BASE
        return frame
