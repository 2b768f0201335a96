"""Tracks of files, over and over: whatever FFmpeg reads, at its own pace. They work in any aiortc program."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Literal

import av
from aiortc.mediastreams import MediaStreamError
from av import AudioFrame, AudioResampler, VideoFrame

from bot.errors import ConfigurationError
from bot.media.sound import FRAME_SAMPLES, SAMPLE_RATE
from bot.media.synthetic import AUDIO_TIME_BASE, VIDEO_CLOCK_RATE, VIDEO_TIME_BASE, Clock, TimedTrack

_MICROSECONDS = 1_000_000  # FFmpeg's AV_TIME_BASE
#: A frame later than this (s) is not made up for: the file stood still, as it does while nobody asks.
_PATIENCE = 1.0


class _Reader:
    """The frames of a file's first stream of a kind, and when each is due in seconds, counted through all rounds.

    It reads and decodes: not for an event loop. Several threads may use it, one after the other. Raises
    ConfigurationError that names the setting where there is nothing to read.
    """

    kind: Literal["audio", "video"]

    def __init__(self, path: str) -> None:
        self._path = path
        self._lock = threading.Lock()
        self._closed = False
        self._round_began = 0.0
        self._container: Any = None
        self._frames = self._pass()
        self._first: tuple[Any, float] | None = self._next_of_pass()
        if self._first is None:
            raise self._error("nothing can be decoded of it")

    def _error(self, cause: str) -> ConfigurationError:
        return ConfigurationError(f"{self.kind}: can't publish {self._path}: {cause}")

    def read(self) -> tuple[Any, float]:
        """The next frame and when it is due.

        Raises ConfigurationError for a file that broke meanwhile, MediaStreamError for a closed one.
        """
        with self._lock:
            if self._is_closed():
                raise MediaStreamError
            found, self._first = self._first, None
            found = found or self._next_of_pass()
            if found is None:
                self._frames = self._pass()
                found = self._next_of_pass()
            if self._is_closed():
                self._close()
        if found is None:
            raise self._error("nothing can be decoded of it any more")
        return found

    def close(self) -> None:
        """Close the file, now or when the thread that reads has ended."""
        self._closed = True
        if self._lock.acquire(blocking=False):
            self._close()
            self._lock.release()

    def _is_closed(self) -> bool:
        return self._closed

    def _close(self) -> None:
        if self._container is not None:
            self._container.close()
            self._container = None

    def _next_of_pass(self) -> tuple[Any, float] | None:
        try:
            return next(self._frames, None)
        except (av.FFmpegError, OSError):
            return None  # broken from here on: what came before is what there is

    def _pass(self) -> Iterator[tuple[Any, float]]:
        """One round; the next begins when the longest stream is over, so that sound and picture stay together."""
        self._open()
        container, began, end = self._container, self._round_began, 0.0
        stream = next(item for item in container.streams if item.type == self.kind)
        start = (container.start_time or 0) / _MICROSECONDS
        for frame, time in self._decoded(container, stream):
            at = max(0.0, time - start)
            end = max(end, at + self.length(frame, stream))
            yield frame, began + at
        self._round_began = began + max(end, (container.duration or 0) / _MICROSECONDS)

    def _open(self) -> None:
        self._close()
        try:
            self._container = av.open(self._path)
        except (av.FFmpegError, OSError) as error:
            raise self._error(str(error)) from error
        if not any(item.type == self.kind for item in self._container.streams):
            self._close()
            raise self._error(f"it has no {self.kind}")

    def _decoded(self, container: Any, stream: Any) -> Iterator[tuple[Any, float]]:
        raise NotImplementedError

    def length(self, frame: Any, stream: Any) -> float:
        """Seconds that a frame lasts."""
        raise NotImplementedError


class _PictureReader(_Reader):
    kind = "video"

    def _decoded(self, container: Any, stream: Any) -> Iterator[tuple[VideoFrame, float]]:
        for frame in container.decode(stream):
            if frame.time is not None:
                width, height = frame.width & ~1, frame.height & ~1
                yield frame.reformat(width=width, height=height, format="yuv420p"), frame.time

    def length(self, frame: VideoFrame, stream: Any) -> float:
        del frame
        rate = stream.average_rate
        return float(1 / rate) if rate else 1 / 30


class _SoundReader(_Reader):
    """In 20 ms of 48 kHz stereo, the last of a round filled up with silence."""

    kind = "audio"

    def _decoded(self, container: Any, stream: Any) -> Iterator[tuple[AudioFrame, float]]:
        resampler = AudioResampler("s16", "stereo", SAMPLE_RATE, FRAME_SAMPLES)
        began: float | None = None
        samples = 0
        for frame in self._resampled(container, stream, resampler):
            if began is None:
                began = frame.time or 0.0
            yield frame, began + samples / SAMPLE_RATE
            samples += FRAME_SAMPLES

    def _resampled(self, container: Any, stream: Any, resampler: AudioResampler) -> Iterator[AudioFrame]:
        for frame in container.decode(stream):
            yield from resampler.resample(frame)
        yield from (_filled(frame) for frame in resampler.resample(None))

    def length(self, frame: AudioFrame, stream: Any) -> float:
        del frame, stream
        return FRAME_SAMPLES / SAMPLE_RATE


def _filled(frame: AudioFrame) -> AudioFrame:
    if frame.samples == FRAME_SAMPLES:
        return frame
    full = AudioFrame(format="s16", layout="stereo", samples=FRAME_SAMPLES)
    sound = bytes(frame.planes[0])[: frame.samples * 4]
    full.planes[0].update(sound + bytes(full.planes[0].buffer_size - len(sound)))
    full.sample_rate, full.pts, full.time_base = SAMPLE_RATE, frame.pts, frame.time_base
    return full


class _FileTrack(TimedTrack):
    """Gives each frame when it is due. Files are read in threads."""

    def __init__(self, path: str | Path, reader: type[_Reader], clock: Clock | None) -> None:
        super().__init__(clock)
        self._path = str(path)
        self._reader = reader(self._path)
        self._origin: float | None = None

    def __repr__(self) -> str:
        return f"<{type(self).__name__} {self._path} {self.readyState}>"

    async def next_frame(self) -> tuple[Any, float]:
        """The next frame, when it is due, and its time in the file. Raises MediaStreamError once stopped."""
        self._check_live()
        frame, at = await asyncio.get_running_loop().run_in_executor(None, self._reader.read)
        now = self.now()
        if self._origin is None or now - self._origin - at > _PATIENCE:
            self._origin = now - at
        await self.wait_until(self._origin + at)
        return frame, at

    def stop(self) -> None:
        """End the track and close its file."""
        super().stop()
        self._reader.close()


class FileAudioTrack(_FileTrack):
    """The sound of a file, looped: 48 kHz s16 stereo, 20 ms frames. Raises ConfigurationError."""

    kind = "audio"

    def __init__(self, path: str | Path, *, clock: Clock | None = None) -> None:
        super().__init__(path, _SoundReader, clock)

    async def recv(self) -> AudioFrame:
        """The next 20 ms, when they are due. Raises MediaStreamError once the track is stopped."""
        frame: AudioFrame
        frame, at = await self.next_frame()
        frame.pts, frame.time_base = round(at * SAMPLE_RATE), AUDIO_TIME_BASE
        return frame


class FileVideoTrack(_FileTrack):
    """The picture of a file, looped, in its own size and rate. Raises ConfigurationError."""

    kind = "video"

    def __init__(self, path: str | Path, *, clock: Clock | None = None) -> None:
        super().__init__(path, _PictureReader, clock)

    async def recv(self) -> VideoFrame:
        """The next frame, when it is due. Raises MediaStreamError once the track is stopped."""
        frame: VideoFrame
        frame, at = await self.next_frame()
        frame.pts, frame.time_base = round(at * VIDEO_CLOCK_RATE), VIDEO_TIME_BASE
        return frame


def make_file_track(path: str | Path, kind: Literal["audio", "video"]) -> FileAudioTrack | FileVideoTrack:
    """The sound or the picture of a file. Raises ConfigurationError that names the setting ``kind``."""
    return FileAudioTrack(path) if kind == "audio" else FileVideoTrack(path)
