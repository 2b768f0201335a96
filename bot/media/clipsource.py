"""What clips are made of: the pictures of the test pattern or of a file, in every size asked for, and sound.

All of it takes time and none of it belongs into an event loop.
"""

from __future__ import annotations

import hashlib
import math
from collections.abc import Callable, Generator, Iterator, Sequence
from contextlib import closing
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path
from typing import Any, Literal, Protocol

import av
import numpy as np
import structlog
from av import AudioResampler, VideoFrame
from numpy.typing import NDArray

from bot.clips.spec import DEFAULT_DURATION, MAX_DURATION, SoundSpec, VideoSpec
from bot.errors import ConfigurationError
from bot.media.identity import stable_hash
from bot.media.marks import mix
from bot.media.pattern import Planes, TestPattern
from bot.media.sound import FRAME_SAMPLES, SAMPLE_RATE, sound_frames
from bot.media.synthetic import planes_of

log = structlog.get_logger(__name__)

Samples = NDArray[np.int16]
_AV_TIME_BASE = 1_000_000
#: A picture is shown this share of a frame before its time, which containers round.
_EARLY = 0.25
#: RMS of the luma's noise: the pattern alone is too easy for an encoder to spend a camera's bitrate on.
_GRAIN = 1.0
_GRAIN_STEPS = 64
_GRAIN_LIMIT = 6
_BLACK = (16, 128, 128)
#: Pictures a second of raw streams, which have no time stamps: what FFmpeg takes for them.
_RAW_FPS = 25
_BLOCK = 1 << 20


@dataclass(frozen=True, slots=True)
class Decoration:
    """What is added to synthetic media before it is encoded. ``version`` changes whenever the result would.

    ``picture(planes, index, time)`` draws over the picture ``index``, which is ``time`` seconds after the clip's
    start, in each size; ``sound(samples)`` changes the samples of the whole loop (48 kHz, mono) in place.
    """

    version: str
    picture: Callable[[Planes, int, Fraction], None] | None = None
    sound: Callable[[Samples], None] | None = None


class PictureSource(Protocol):
    """Pictures of a clip, again and again the same."""

    #: Seconds; whole pictures.
    duration: Fraction

    def identity(self) -> str:
        """Says what the pictures are: another text for others."""
        ...

    def pictures(self) -> Iterator[Sequence[VideoFrame]]:
        """Picture by picture, each in every size of the clip's layers, YUV 4:2:0."""
        ...


class PatternPictures:
    """The test pattern without room and participant: a title, the clip's time and the frame number."""

    def __init__(self, spec: VideoSpec, decoration: Decoration | None) -> None:
        self.duration = spec.duration or DEFAULT_DURATION
        self._spec = spec
        self._decoration = decoration
        self._patterns = [
            TestPattern(
                f"{spec.codec} {layer.width}x{layer.height}", spec.title, layer.width, layer.height, zone=""
            )
            for layer in spec.layers
        ]
        self._grains = [_grain(layer.width, layer.height) for layer in spec.layers]

    def identity(self) -> str:
        """The first pictures themselves, so that no change of the pattern is forgotten, and the decoration."""
        first = hashlib.sha256()
        for _, frames in zip(range(2), self.pictures(), strict=False):
            for frame in frames:
                for plane in planes_of(frame):
                    first.update(plane.tobytes())
        return f"pattern {first.hexdigest()} {self._decoration.version if self._decoration else ''}"

    def pictures(self) -> Iterator[Sequence[VideoFrame]]:
        """All pictures of one round."""
        for index in range(int(self.duration * self._spec.fps)):
            yield [self._draw(size, index) for size in range(len(self._patterns))]

    def _draw(self, size: int, index: int) -> VideoFrame:
        layer = self._spec.layers[size]
        frame = VideoFrame(layer.width, layer.height, "yuv420p")
        planes = Planes(*planes_of(frame))
        time = Fraction(index, self._spec.fps)
        self._patterns[size].draw(planes, index, float(time))
        down, right = index * 37 % _GRAIN_STEPS, index * 23 % _GRAIN_STEPS
        planes.y[...] += self._grains[size][down : down + layer.height, right : right + layer.width]
        if self._decoration is not None and self._decoration.picture is not None:
            self._decoration.picture(planes, index, time)
        return frame


def _grain(width: int, height: int) -> NDArray[np.uint8]:
    """Noise to be added modulo 256, larger than the picture: its place in it differs from frame to frame."""
    shape = (height + _GRAIN_STEPS, width + _GRAIN_STEPS)
    noise = np.random.default_rng(width * 10_000 + height).normal(0, _GRAIN, shape)
    return np.clip(np.rint(noise), -_GRAIN_LIMIT, _GRAIN_LIMIT).astype(np.int8).view(np.uint8)


class FilePictures:
    """The pictures of a file at the clip's rate, scaled into each layer with bars where the shape differs.

    Raises ConfigurationError where there is nothing to read.
    """

    def __init__(self, spec: VideoSpec, path: Path) -> None:
        self._spec = spec
        self._path = path
        self.duration = _duration_of("video", path, spec.duration)

    def identity(self) -> str:
        """The content of the file."""
        return f"file {_content_of('video', self._path)}"

    def pictures(self) -> Iterator[Sequence[VideoFrame]]:
        """All pictures of one round: at each time the one that a player would show, the last one to the end."""
        count, fps = int(self.duration * self._spec.fps), self._spec.fps
        shown: Sequence[VideoFrame] | None = None
        index = 0
        with closing(self._decoded()) as decoded:
            for frame, at in decoded:
                while shown is not None and index < count and (index + _EARLY) / fps < at:
                    yield shown
                    index += 1
                if index >= count:
                    return
                shown = [_fitted(frame, layer.width, layer.height) for layer in self._spec.layers]
        if shown is None:
            raise _unusable("video", self._path, "nothing can be decoded of it")
        for _ in range(index, count):
            yield shown

    def _decoded(self) -> Generator[tuple[VideoFrame, float], None, None]:
        with _opened("video", self._path) as container:
            start = (container.start_time or 0) / _AV_TIME_BASE
            try:
                for number, frame in enumerate(container.decode(video=0)):
                    time = frame.time if frame.time is not None else number / _RAW_FPS + start
                    yield frame, max(0.0, time - start)
            except av.FFmpegError as error:  # what came before is what there is
                log.warning(
                    "A file is broken", event_name="clip_file_broken", path=str(self._path), cause=str(error)
                )


def _fitted(frame: VideoFrame, width: int, height: int) -> VideoFrame:
    """The picture as large as fits into ``width`` x ``height``, on black."""
    factor = min(Fraction(width, frame.width), Fraction(height, frame.height))
    inner = tuple(max(2, round(side * factor / 2) * 2) for side in (frame.width, frame.height))
    scaled = frame.reformat(width=inner[0], height=inner[1], format="yuv420p")
    if inner == (width, height):
        return scaled
    whole = VideoFrame(width, height, "yuv420p")
    left, top = (width - inner[0]) // 4 * 2, (height - inner[1]) // 4 * 2
    for number, (target, source) in enumerate(zip(planes_of(whole), planes_of(scaled), strict=True)):
        target[...] = _BLACK[number]
        x, y = (left, top) if number == 0 else (left // 2, top // 2)
        target[y : y + source.shape[0], x : x + source.shape[1]] = source
    return whole


def picture_source(spec: VideoSpec, decoration: Decoration | None = None) -> PictureSource:
    """The pictures that ``spec`` asks for. Raises ConfigurationError."""
    return PatternPictures(spec, decoration) if spec.file is None else FilePictures(spec, spec.file)


def sound_of(spec: SoundSpec, decoration: Decoration | None = None) -> Samples:
    """The samples of one round: 48 kHz, one channel, whole frames. Raises ConfigurationError."""
    if spec.file is not None:
        return _file_sound(spec.file, _duration_of("audio", spec.file, spec.duration))
    seed = stable_hash(str(spec.pitch))
    frames = sound_frames(spec.mode, spec.pitch, seed=seed, level=spec.level, channels=1)
    loop = np.frombuffer(b"".join(frames), np.int16)
    samples = np.resize(loop, int((spec.duration or DEFAULT_DURATION) * SAMPLE_RATE))
    if spec.mode == "speech":
        mix(samples)
    if decoration is not None and decoration.sound is not None:
        decoration.sound(samples)
    return samples


def _file_sound(path: Path, duration: Fraction) -> Samples:
    count = int(duration * SAMPLE_RATE)
    resampler = AudioResampler("s16", "mono", SAMPLE_RATE)
    pieces: list[Samples] = []
    length = 0
    with _opened("audio", path) as container, closing(_resampled(container, resampler)) as frames:
        lead = int(_lead(container) * SAMPLE_RATE)
        for frame in frames:
            pieces.append(frame.to_ndarray()[0])
            length += frame.samples
            if lead + length >= count:
                break
    if not pieces:
        raise _unusable("audio", path, "nothing can be decoded of it")
    samples = np.zeros(count, np.int16)
    found = np.concatenate(pieces)[: max(0, count - lead)]
    samples[lead : lead + len(found)] = found
    return samples


def _lead(container: Any) -> float:
    """Seconds that a file's pictures are ahead of its sound."""
    stream = container.streams.audio[0]
    if stream.start_time is None or container.start_time is None:
        return 0.0
    return max(0.0, float(stream.start_time * stream.time_base) - float(container.start_time) / _AV_TIME_BASE)


def _resampled(container: Any, resampler: AudioResampler) -> Generator[Any, None, None]:
    try:
        for frame in container.decode(audio=0):
            yield from resampler.resample(frame)
    except av.FFmpegError as error:
        log.warning("A file is broken", event_name="clip_file_broken", path=container.name, cause=str(error))
    yield from resampler.resample(None)


# --- files ---


def _unusable(kind: str, path: Path, cause: str) -> ConfigurationError:
    return ConfigurationError(f"{kind}: can't publish {path}: {cause}")


def _opened(kind: Literal["audio", "video"], path: Path) -> Any:
    try:
        container: Any = av.open(str(path))
    except (av.FFmpegError, OSError) as error:
        raise _unusable(kind, path, str(error)) from error
    if not any(stream.type == kind for stream in container.streams):
        container.close()
        raise _unusable(kind, path, f"it has no {kind}")
    return container


def _duration_of(kind: Literal["audio", "video"], path: Path, asked: Fraction | None) -> Fraction:
    """Seconds of a file's clip: as asked, or whole seconds of the file, for sound and picture alike."""
    with _opened(kind, path) as container:
        length: Fraction = Fraction(container.duration or 0, _AV_TIME_BASE) or _counted(container)
    if asked is not None:
        return asked
    if length > MAX_DURATION:
        log.warning(
            "A file is cut",
            event_name="clip_cut",
            path=str(path),
            seconds=round(float(length), 3),
            kept=int(MAX_DURATION),
        )
    # Some milliseconds short of a second are a rounding of the container.
    return min(MAX_DURATION, Fraction(max(1, math.floor(length + Fraction(1, 100)))))


def _counted(container: Any) -> Fraction:
    """Seconds of a file that doesn't tell, up to a little more than is used of one."""
    first = last = 0.0
    unstamped = 0
    for packet in container.demux():
        if packet.pts is not None and packet.time_base is not None:
            last = float((packet.pts + (packet.duration or 0)) * packet.time_base)
            first = min(first, last)
        elif packet.size:  # the last of each stream is empty
            unstamped += 1
        if max(last - first, unstamped / _RAW_FPS) > MAX_DURATION + 1:
            break
    return Fraction(max(last - first, unstamped / _RAW_FPS))


def _content_of(kind: str, path: Path) -> str:
    """SHA-256 of a file."""
    digest = hashlib.sha256()
    try:
        with path.open("rb") as file:
            while block := file.read(_BLOCK):
                digest.update(block)
    except OSError as error:
        raise _unusable(kind, path, str(error)) from error
    return digest.hexdigest()


__all__ = ["FRAME_SAMPLES", "Decoration", "PictureSource", "Samples", "picture_source", "sound_of"]
