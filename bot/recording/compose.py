"""The composite of a recording: everybody in one picture, with all voices, as one file.

Files are decoded in threads of their own a little ahead, pictures are painted and sound is mixed here, and
encoding goes on beside it: what is in memory does not grow with the meeting.
"""

from __future__ import annotations

import os
import threading
from collections import deque
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from fractions import Fraction
from pathlib import Path
from typing import NamedTuple

import av
import numpy as np
from av import AudioFrame, VideoFrame
from av.audio.stream import AudioStream
from av.container import OutputContainer
from av.video.reformatter import VideoReformatter
from av.video.stream import VideoStream

from bot.errors import ConfigurationError
from bot.recording.compose_layout import (
    MAX_TILES,
    STRIP_TILES,
    Rect,
    fitted,
    size_of,
    speaker_rects,
    tile_rects,
)
from bot.recording.compose_media import RATE, Limiter, Pictures, Samples, Sounds
from bot.recording.compose_paint import Canvas, Letters, scaled
from bot.recording.compose_plan import Format, Layout, Playing, Scene, Shown, Timeline
from bot.recording.disk import FILE_MODE, Folder, Replace
from bot.recording.manifest import MANIFEST, Manifest, Note, Segment, read_manifest
from bot.recording.recover import InUseError, locked

Progress = Callable[[float, float], None]
#: Frames that wait for the encoder.
WAITING = 4


@dataclass(frozen=True, slots=True)
class ComposeOptions:
    """How a composite looks. ``threads`` decode at once, 0 for as many as there are processors."""

    layout: Layout = "tile"
    format: Format = "mp4"
    height: int = 720
    fps: int = 30
    threads: int = 0
    font: Path | None = None

    @property
    def workers(self) -> int:
        """Threads that decode, and that encode."""
        return self.threads or os.cpu_count() or 1


@dataclass(slots=True)
class Composed:
    """What was made. ``problems`` are files that could not be decoded, or not to their ends."""

    path: Path
    seconds: float
    frames: int
    dropped: int = 0
    problems: dict[str, str] = field(default_factory=dict)


class Placed(NamedTuple):
    """A tile and where it is."""

    shown: Shown
    place: Rect


def placed(scene: Scene, width: int, height: int) -> list[Placed]:
    """Where the tiles of a scene are, the stage first."""
    if scene.stage is None:
        return [
            Placed(*item) for item in zip(scene.tiles, tile_rects(len(scene.tiles), width, height), strict=True)
        ]
    stage, strip = speaker_rects(len(scene.tiles), width, height)
    return [Placed(scene.stage, stage), *(Placed(*item) for item in zip(scene.tiles, strip, strict=True))]


class Painter:
    """Paints scenes. ``paint`` gets the decoded picture of each tile; what has not changed stays."""

    def __init__(self, options: ComposeOptions) -> None:
        self.options = options
        self.canvas = Canvas(*size_of(options.height))
        self._letters = Letters(options.font)
        self._scene: Scene | None = None
        self._placed: list[Placed] = []
        self._painted: dict[str, VideoFrame | None] = {}
        self._scalers: dict[str, VideoReformatter] = {}

    def __repr__(self) -> str:
        return f"<Painter of {len(self._placed)} tiles>"

    @property
    def room(self) -> int:
        """Tiles that there is room for, beside the stage."""
        return MAX_TILES if self.options.layout == "tile" else STRIP_TILES

    def paint(self, scene: Scene, frames: dict[str, VideoFrame | None]) -> None:
        """Bring the canvas up to date; ``frames`` by the keys of the tiles."""
        if scene != self._scene:
            self._begin(scene)
        for item in self._placed:
            frame = frames.get(item.shown.key)
            if item.shown.key not in self._painted or frame is not self._painted[item.shown.key]:
                self._tile(item, frame)
                self._painted[item.shown.key] = frame

    def _begin(self, scene: Scene) -> None:
        self._scene = scene
        self._placed = placed(scene, self.canvas.width, self.canvas.height)
        self._painted.clear()
        keys = {item.shown.key for item in self._placed}
        self._scalers = {key: value for key, value in self._scalers.items() if key in keys}
        self.canvas.clear()
        if scene.hidden:
            self._note(f"+{scene.hidden}")

    def _note(self, text: str) -> None:
        """How many there was no room for, in the upper left."""
        label = self._letters.label(text, self.canvas.width, self.canvas.height // 2)
        self.canvas.put(label, Rect(0, 0, label.y.shape[1], label.y.shape[0]))

    def _tile(self, item: Placed, frame: VideoFrame | None) -> None:
        shown, place = item
        if frame is None:
            self.canvas.put(self._letters.avatar(shown.name, shown.endpoint, place.width, place.height), place)
        else:
            scaler = self._scalers.setdefault(shown.key, VideoReformatter())
            size = fitted(frame.width, frame.height, place, whole=shown.screen)
            if size[0] < place.width or size[1] < place.height:
                self.canvas.clear(place)
            self.canvas.put(scaled(frame, *size, scaler), place)
        label = self._letters.label(shown.name, place.width, place.height)
        high, wide = label.y.shape
        margin = place.height // 40 // 2 * 2
        self.canvas.put(label, Rect(place.x + margin, place.y + place.height - high - margin, wide, high))
        assert self._scene is not None
        if self._scene.stage is None and shown.endpoint == self._scene.speaker and len(self._placed) > 1:
            self.canvas.border(place)


class Encoder:
    """Writes the file, in a thread of its own. Raises ConfigurationError where it can't be written."""

    def __init__(self, path: Path, options: ComposeOptions, *, live: bool = False) -> None:
        self._rate = options.fps
        self._container = _opened(path, options.format, live=live)
        self._video = _video_stream(self._container, options, live=live)
        self._audio = _audio_stream(self._container, options)
        self._pool = ThreadPoolExecutor(1, thread_name_prefix="encode")
        self._jobs: deque[Future[None]] = deque()

    def __repr__(self) -> str:
        return f"<Encoder {self._container.name} {len(self._jobs)} waiting>"

    def picture(self, number: int, frame: VideoFrame) -> None:
        """The ``number``-th picture."""
        frame.pts, frame.time_base = number, Fraction(1, self._rate)
        self._do(lambda: self._container.mux(self._video.encode(frame)))

    def sound(self, start: int, data: Samples) -> None:
        """Samples from ``start`` on."""
        frame = AudioFrame.from_ndarray(np.ascontiguousarray(data), format="fltp", layout="stereo")
        frame.sample_rate, frame.pts, frame.time_base = RATE, start, Fraction(1, RATE)
        self._do(lambda: self._container.mux(self._audio.encode(frame)))

    def finish(self) -> None:
        """Write the end."""
        self._do(lambda: self._container.mux(self._video.encode(None)))
        self._do(lambda: self._container.mux(self._audio.encode(None)))
        self._wait(0)

    def close(self) -> None:
        """Close the file; what was not finished is left as it is."""
        self._pool.shutdown(cancel_futures=True)
        self._container.close()

    def _do(self, work: Callable[[], None]) -> None:
        self._jobs.append(self._pool.submit(work))
        self._wait(2 * WAITING)

    def _wait(self, most: int) -> None:
        while len(self._jobs) > most:
            self._jobs.popleft().result()


def _opened(path: Path, format_: Format, *, live: bool) -> OutputContainer:
    options = {"movflags": "faststart"}
    if live:  # what is on the disk can be played at any moment; delayed, the head tells of the sound's lead-in
        options = {"movflags": "frag_keyframe+delay_moov+default_base_moof", "frag_duration": str(av.time_base)}
    if format_ == "webm":
        options = {"cluster_time_limit": "1000"} if live else {}
    options |= {"flush_packets": "1"} if live else {}
    os.close(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_NOFOLLOW, FILE_MODE))
    return av.open(f"file:{path}", "w", format=format_, options=options)


def _video_stream(container: OutputContainer, options: ComposeOptions, *, live: bool) -> VideoStream:
    width, height = size_of(options.height)
    if options.format == "mp4":
        codec, own = "libx264", {"preset": "veryfast", "crf": "23"} | ({"tune": "zerolatency"} if live else {})
    else:
        codec, own = "libvpx-vp9", {"deadline": "realtime", "cpu-used": "7", "row-mt": "1", "crf": "34", "b": "0"}
    stream = container.add_stream(codec, rate=options.fps, options=own)
    assert isinstance(stream, VideoStream)
    stream.width, stream.height, stream.pix_fmt = width, height, "yuv420p"
    stream.time_base = stream.codec_context.time_base = Fraction(1, options.fps)
    stream.codec_context.gop_size = 2 * options.fps
    stream.codec_context.thread_count = min(16, options.workers)
    if options.format == "webm":
        stream.codec_context.bit_rate = 0
    return stream


def _audio_stream(container: OutputContainer, options: ComposeOptions) -> AudioStream:
    stream = container.add_stream("aac" if options.format == "mp4" else "libopus", rate=RATE, layout="stereo")
    assert isinstance(stream, AudioStream)
    stream.bit_rate = 128_000
    return stream


class Composer:
    """Makes the composite of one recording, frame by frame. Close it."""

    def __init__(
        self, folder: Path, options: ComposeOptions, growing: Callable[[str], bool] | None = None
    ) -> None:
        self.folder = folder
        self.options = options
        self._growing = growing
        self.timeline = Timeline(Manifest.model_construct(duration=0.0, participants=[], dominant_speakers=[]))
        self.problems: dict[str, str] = {}
        self._painter = Painter(options)
        self._slots = threading.Semaphore(options.workers)
        self._pictures: dict[str, Pictures] = {}
        self._sounds: dict[str, Sounds] = {}
        self._waiting: deque[Playing] = deque()
        self._begun: set[str] = set()
        self._limiter = Limiter()
        self._turn = -1
        self._scene = Scene()

    def __repr__(self) -> str:
        return f"<Composer of {self.folder.name}: {len(self._pictures)} pictures, {len(self._sounds)} voices>"

    def update(self, manifest: Manifest) -> None:
        """Go on with a manifest that knows more."""
        self.timeline = Timeline(manifest)
        self._turn = -1
        self._waiting = deque(play for play in self.timeline.sounds if play.segment.file not in self._begun)

    def picture(self, when: float, patience: float | None = None) -> VideoFrame:
        """What is seen at ``when``; a source that has nothing within ``patience`` seconds stands still."""
        if (turn := self.timeline.turn(when)) != self._turn:
            self._turn = turn
            self._show(self.timeline.scene(when, self.options.layout, self._painter.room), when)
        # Half a frame ahead: on the average a picture is then neither early nor late against the sound.
        seen = when + 0.5 / self.options.fps
        frames = {
            shown.key: self._pictures[shown.segment.file].at(seen, patience)
            for shown in _tiles(self._scene)
            if shown.segment is not None
        }
        self._painter.paint(self._scene, frames)
        return self._painter.canvas.frame()

    def sound(self, start: int, count: int, patience: float | None = None) -> Samples:
        """All voices from the sample ``start`` on."""
        while self._waiting and self._waiting[0].start * RATE < start + count + RATE // 2:
            self._listen(self._waiting.popleft())
        mixed = np.zeros((2, count), np.float32)
        for name, source in list(self._sounds.items()):
            mixed += source.read(start, count, patience)
            if source.silent:
                self._forget(self._sounds, name)
        return self._limiter.feed(mixed)

    def close(self) -> None:
        """Close all files."""
        for sources in (self._pictures, self._sounds):
            for name in list(sources):
                self._forget(sources, name)

    def _show(self, scene: Scene, when: float) -> None:
        self._scene = scene
        shown = {item.segment.file: item.segment for item in _tiles(scene) if item.segment is not None}
        for name in self._pictures.keys() - shown.keys():
            self._forget(self._pictures, name)
        for name in shown.keys() - self._pictures.keys():
            segment = shown[name]
            playing = Playing(segment, segment.start, segment.end)
            self._pictures[name] = Pictures(
                self._path(segment), playing, self._slots, since=when, growing=self._growing
            )

    def _listen(self, playing: Playing) -> None:
        name = playing.segment.file
        self._begun.add(name)
        self._sounds[name] = Sounds(self._path(playing.segment), playing, self._slots, growing=self._growing)

    def _path(self, segment: Segment) -> Path:
        """The file of a segment, in the folder, whatever a manifest says that others may have written."""
        return self.folder / Path(segment.file).name

    def _forget(self, sources: dict[str, Pictures] | dict[str, Sounds], name: str) -> None:
        source = sources.pop(name)
        source.close()
        if source.error or source.broken:
            self.problems[name] = source.error or f"{source.broken} packets can't be decoded"


def _tiles(scene: Scene) -> Iterator[Shown]:
    if scene.stage is not None:
        yield scene.stage
    yield from scene.tiles


def default_out(folder: Path, options: ComposeOptions) -> Path:
    """The composite's place in its recording's folder; no segment's name has a dot before the last."""
    return folder / f"composite.{options.layout}.{options.format}"


def compose(folder: Path, out: Path, options: ComposeOptions, progress: Progress = lambda *_: None) -> Composed:
    """Make the composite of a finished recording in ``out``, which is there when it is whole.

    ``progress`` gets the seconds that are done, and of how many. Raises ConfigurationError.
    """
    manifest = finished_manifest(folder)
    with writing(out, options) as encoder, composing(folder, options) as composer:
        composer.update(manifest)
        total = composer.timeline.duration
        count = max(1, round(total * options.fps))
        for number in range(count):
            write_frame(composer, encoder, number)
            progress((number + 1) / options.fps, total)
        encoder.finish()
    note_composite(folder, out)
    return Composed(out, count / options.fps, count, problems=composer.problems)


def note_composite(folder: Path, out: Path, note: str = "") -> None:
    """Name a composite in the manifest of its folder; one elsewhere, or of a folder in use, is not named."""
    if out.parent.resolve() != folder.resolve():
        return
    with suppress(InUseError), locked(folder):
        manifest = read_manifest(folder)
        manifest.composites = sorted({*manifest.composites, out.name})
        if note:
            manifest.notes.append(Note(at=manifest.duration, event="composite_incomplete", text=note))
        Folder(folder).carry_out(Replace(MANIFEST, manifest.to_json()))


def write_frame(
    composer: Composer, encoder: Encoder, number: int, patience: float | None = None, *, seen: bool = True
) -> None:
    """The ``number``-th picture, unless it is left out, and its sound."""
    fps = composer.options.fps
    if seen:
        encoder.picture(number, composer.picture(number / fps, patience))
    start, end = number * RATE // fps, (number + 1) * RATE // fps
    encoder.sound(start, composer.sound(start, end - start, patience))


def finished_manifest(folder: Path) -> Manifest:
    """The manifest of a recording that has ended. Raises ConfigurationError."""
    try:
        manifest = read_manifest(folder)
    except FileNotFoundError:
        raise ConfigurationError(f"{folder} holds no recording: it has no manifest.json") from None
    except (OSError, ValueError) as error:
        raise ConfigurationError(f"the manifest of {folder} can't be read: {error}") from error
    if manifest.state == "recording":
        raise ConfigurationError(
            f"{folder} is still being recorded, or its recorder was killed",
            hint="jitsi-bot record recover makes it whole",
        )
    return manifest


@contextmanager
def composing(
    folder: Path, options: ComposeOptions, growing: Callable[[str], bool] | None = None
) -> Iterator[Composer]:
    """A composer that is closed."""
    composer = Composer(folder, options, growing)
    try:
        yield composer
    finally:
        composer.close()


@contextmanager
def writing(out: Path, options: ComposeOptions, *, live: bool = False) -> Iterator[Encoder]:
    """An encoder of a file that gets its name ``out`` when all is well. Raises ConfigurationError."""
    part = out.with_suffix(f".part{out.suffix}")
    try:
        encoder = Encoder(part, options, live=live)
        try:
            yield encoder
        except BaseException:
            with suppress(OSError):  # what went wrong before says more
                encoder.close()
            if not live:
                part.unlink(missing_ok=True)
            raise
        encoder.close()
        part.replace(out)
    except OSError as error:
        raise ConfigurationError(f"{out} can't be written: {error.strerror or error}") from error
