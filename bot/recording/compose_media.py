"""Files of a recording decoded for its composite, each in a thread of its own, and what they say mixed."""

from __future__ import annotations

import queue
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any, Generic, Self, TypeVar

import av
import numpy as np
from av import AudioResampler, VideoFrame
from av.audio.stream import AudioStream
from av.container import InputContainer
from av.video.stream import VideoStream
from numpy.typing import NDArray

from bot.recording.compose_plan import Playing

RATE = 48_000
Samples = NDArray[np.float32]
#: Decoded pictures and blocks of sound that wait to be taken, of each source.
PICTURES_AHEAD, SOUND_AHEAD = 2, 25
#: Sound is stretched by this part at most to follow its time stamps; what is further off (samples) jumps.
STRETCH, JUMP = 1 / 200, RATE * 40 // 1000
#: Time stamps are whole milliseconds: less (samples) than this is no drift.
NOISE = RATE * 2 // 1000
#: Seconds between two looks at a file that grows.
POLL = 0.1
T = TypeVar("T", VideoFrame, Samples)


class Source(Generic[T]):
    """One file that is decoded a little ahead of who takes from it. ``slots`` is how many may decode at once.

    ``since`` leaves out what ends before that time. ``growing`` says of a file's name whether it is being written.
    """

    def __init__(
        self,
        path: Path,
        playing: Playing,
        slots: threading.Semaphore,
        *,
        since: float = 0.0,
        growing: Callable[[str], bool] | None = None,
    ) -> None:
        self.path = path
        self.playing = playing
        self.ended = False
        #: Why it ended before its end, and packets that could not be decoded.
        self.error: str | None = None
        self.broken = 0
        self._since = since - playing.start
        self._slots = slots
        self._growing = growing
        self._queue: queue.Queue[tuple[float, T] | None] = queue.Queue(self._ahead())
        self._stopped = False
        self._stalled = False
        self._thread = threading.Thread(target=self._run, name=f"decode {path.name}", daemon=True)
        self._thread.start()

    def __repr__(self) -> str:
        return f"<{type(self).__name__} {self.path.name}>"

    def take(self, patience: float | None = None) -> tuple[float, T] | None:
        """The next one with its time; None at the end, and where none came within ``patience`` seconds.

        What was waited for in vain is not waited for again before something comes; without ``patience`` it is.
        """
        if self.ended:
            return None
        try:
            item = self._queue.get(timeout=0.001 if self._stalled and patience is not None else patience)
        except queue.Empty:
            self._stalled = True
            return None
        self._stalled = False
        self.ended = item is None
        return item

    def close(self) -> None:
        """Stop decoding; blocks until the thread has ended."""
        self._stopped = True
        while self._thread.is_alive():
            try:
                self._queue.get_nowait()
            except queue.Empty:
                self._thread.join(0.01)
        self.ended = True

    def _ahead(self) -> int:
        raise NotImplementedError

    def _decoded(self, packet: av.Packet[Any]) -> list[tuple[float, T]]:
        """What is in a packet, with times in the file."""
        raise NotImplementedError

    def _prepare(self, container: InputContainer) -> None:
        """Set the decoder up, and seek; a file that is being written has no index for that yet."""
        if self._since > 1.0 and self._growing is None:
            container.seek(int(self._since * av.time_base))

    @contextmanager
    def _open(self) -> Iterator[InputContainer]:
        with ExitStack() as stack:
            # An address for FFmpeg, whatever the name looks like.
            file: Growing | str = f"file:{self.path}"
            if self._growing is not None:
                file = stack.enter_context(Growing(self.path, self._goes_on))
            container = stack.enter_context(av.open(file, options={"analyzeduration": "0"}))
            assert isinstance(container, InputContainer)
            yield container

    def _goes_on(self) -> bool:
        return not self._stopped and self._growing is not None and self._growing(self.path.name)

    def _run(self) -> None:
        try:
            with self._open() as container:
                self._prepare(container)
                for packet in container.demux():
                    if self._stopped:
                        return
                    self._put_all(packet)
        except (OSError, ValueError) as error:
            self.error = str(error)
        finally:
            self._put(None)

    def _put_all(self, packet: av.Packet[Any]) -> None:
        try:
            with self._slots:
                items = self._decoded(packet)
        except (av.FFmpegError, ValueError):
            self.broken += 1
            return
        for at, item in items:
            self._put((self.playing.start + at, item))

    def _put(self, item: tuple[float, T] | None) -> None:
        while not self._stopped:
            try:
                self._queue.put(item, timeout=0.2)
            except queue.Full:
                continue
            return


class Pictures(Source[VideoFrame]):
    """A file of pictures. ``at`` is the one that is seen."""

    _current: tuple[float, VideoFrame] | None = None
    _next: tuple[float, VideoFrame] | None = None

    def at(self, when: float, patience: float | None = None) -> VideoFrame | None:
        """The newest picture that was captured at ``when`` or before; None before the first."""
        if self._next is None:
            self._next = self.take(patience)
        while self._next is not None and self._next[0] <= when:
            self._current, self._next = self._next, self.take(patience)
        return self._current[1] if self._current else None

    def _ahead(self) -> int:
        return PICTURES_AHEAD

    def _prepare(self, container: InputContainer) -> None:
        # One thread for each file: FFmpeg's own hold frames back, and miss pictures that come in layers.
        container.streams.video[0].codec_context.thread_count = 1
        super()._prepare(container)

    def _decoded(self, packet: av.Packet[VideoStream]) -> list[tuple[float, VideoFrame]]:
        return [(frame.time, frame) for frame in packet.decode() if frame.time is not None]


class Sounds(Source[Samples]):
    """A file of sound as stereo. ``read`` gives each sample in its place."""

    _resampler: AudioResampler | None = None
    _line: Line | None = None

    def read(self, start: int, count: int, patience: float | None = None) -> Samples:
        """Samples from ``start`` on, counted since the recording began; silence where there are none."""
        if self._line is None:
            self._line = Line(start)
        while not self.ended and self._line.end < start + count:
            item = self.take(patience)
            if item is None:
                break
            self._line.feed(*item)
        return self._line.read(start, count)

    @property
    def silent(self) -> bool:
        """Whether all of it was read."""
        return self.ended and (self._line is None or not self._line.waiting)

    def _ahead(self) -> int:
        return SOUND_AHEAD

    def _decoded(self, packet: av.Packet[AudioStream]) -> list[tuple[float, Samples]]:
        if self._resampler is None:
            self._resampler = AudioResampler(format="fltp", layout="stereo", rate=RATE)
        found: list[tuple[float, Samples]] = []
        for frame in packet.decode():
            if frame.time is not None:
                blocks = [item.to_ndarray() for item in self._resampler.resample(frame)]
                found += [(frame.time, np.concatenate(blocks, axis=1))] if blocks else []
        return found


class Line:
    """Blocks of sound with their times, put onto a clock of samples. Pure.

    Blocks that follow each other stay together; where the sender's clock is not the meeting's they are stretched,
    which nobody hears, and where something is missing there is silence.
    """

    def __init__(self, start: int = 0) -> None:
        self._blocks: list[tuple[int, Samples]] = []
        self.end = start
        self._fresh = True

    def __repr__(self) -> str:
        return f"<Line until {self.end / RATE} s>"

    @property
    def waiting(self) -> bool:
        """Whether there is something that was not read."""
        return bool(self._blocks)

    def feed(self, at: float, data: Samples) -> None:
        """Take a block whose first sample was said at ``at`` seconds."""
        off = round(at * RATE) - self.end
        if self._fresh or abs(off) > JUMP:
            data = self._jumped(off, data)
        elif abs(off) > NOISE:
            data = stretched(data, max(-1, min(1, off)) * max(1, int(data.shape[1] * STRETCH)))
        if data.shape[1]:
            self._blocks.append((self.end, data))
            self.end += data.shape[1]

    def _jumped(self, off: int, data: Samples) -> Samples:
        """Leave silence, or what was there already, out; begins softly."""
        self._fresh = False
        data = data[:, max(0, -off) :].copy()
        self.end += max(0, off)
        fade = min(96, data.shape[1])
        data[:, :fade] *= np.linspace(0, 1, fade, dtype=np.float32)
        return data

    def read(self, start: int, count: int) -> Samples:
        """Samples from ``start`` on; what comes before them is forgotten."""
        out = np.zeros((2, count), np.float32)
        for at, data in self._blocks:
            begin, stop = max(at, start), min(at + data.shape[1], start + count)
            if begin < stop:
                out[:, begin - start : stop - start] += data[:, begin - at : stop - at]
        self._blocks = [item for item in self._blocks if item[0] + item[1].shape[1] > start + count]
        self.end = max(self.end, start + count) if not self._blocks else self.end
        return out


def stretched(data: Samples, by: int) -> Samples:
    """``data`` with so many samples more, or less."""
    count = data.shape[1]
    places = np.linspace(0, count - 1, max(1, count + by))
    return np.stack([np.interp(places, np.arange(count), row) for row in data]).astype(np.float32)


class Limiter:
    """Keeps the sum of all voices below full scale: down at once, up again slowly (a half in a second). Pure."""

    def __init__(self, ceiling: float = 0.97) -> None:
        self._ceiling = ceiling
        self._gain = 1.0

    def __repr__(self) -> str:
        return f"<Limiter {self._gain:.2f}>"

    def feed(self, data: Samples) -> Samples:
        """Take a block of the sum."""
        peak = float(np.abs(data).max(initial=0.0))
        before = self._gain
        up = before + (1.0 - before) * min(1.0, data.shape[1] / RATE * 0.7)
        self._gain = min(up, self._ceiling / peak if peak > self._ceiling else 1.0)
        if before == self._gain == 1.0:
            return data
        ramp = np.full(data.shape[1], self._gain, np.float32)
        # Down over two milliseconds, which clips less than it clicks.
        fade = min(96, ramp.size) if self._gain < before else ramp.size
        ramp[:fade] = np.linspace(before, self._gain, fade, dtype=np.float32)
        mixed: Samples = np.clip(data * ramp, -1.0, 1.0)
        return mixed


class Growing:
    """A file that somebody writes: at its end a read waits, as long as ``going`` says that more will come."""

    def __init__(self, path: Path, going: Callable[[], bool]) -> None:
        self._file = path.open("rb", buffering=0)
        self._going = going

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._file.close()

    def read(self, size: int = -1) -> bytes:
        """At least one byte, none at the end."""
        while not (data := self._file.read(size)):
            going = self._going()
            if not going:  # what was written before it was said to be whole
                return self._file.read(size)
            time.sleep(POLL)
        return data
