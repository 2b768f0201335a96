"""What a participant sends of clips: the one of its settings, made once for all participants of the process."""

from __future__ import annotations

import asyncio
from dataclasses import replace
from functools import lru_cache
from pathlib import Path
from typing import NamedTuple, cast
from weakref import WeakKeyDictionary

import av

from bot.clips.model import Clip
from bot.clips.spec import MAX_DURATION, ClipSpec, LayerSpec, SoundSpec, VideoCodec, VideoSpec
from bot.engine.streams import Speech
from bot.media.clips import ClipLibrary
from bot.media.identity import PITCH_MAX, PITCH_MIN, stable_hash
from bot.media.speech import Conversation
from bot.participant.config import ParticipantConfig
from bot.settings import FILE, Settings

#: Bits of a picture for each pixel: 500 kbit/s for 640x360 at 30 frames a second.
BITS_PER_PIXEL = 500_000 / (640 * 360 * 30)
MIN_BITRATE = 30_000
#: Different voices that there are.
VOICES = 8
#: The sides of the lower layers of simulcast, as shares of the tallest (lib-jitsi-meet).
_SHARES = (4, 2)


class ClipSource:
    """A clip to be, in whatever codec the session takes. ``speech`` says when there is sound of it."""

    def __init__(
        self, spec: ClipSpec, library: SharedLibrary, *, red: bool = False, speech: Speech | None = None
    ) -> None:
        self.spec = spec
        self.red = red
        self.speech = speech
        self._library = library

    def __repr__(self) -> str:
        return f"<ClipSource {self.spec.name}>"

    def layers(self, codec: str) -> int:
        """How many layers are sent in ``codec``."""
        spec = self._in(codec)
        return len(spec.layers) if isinstance(spec, VideoSpec) else 1

    def prepare(self, codec: str) -> None:
        """Begin to make it, as it will be wanted soon; what is wrong with it is told who gets it."""
        self._library.prepare(self._in(codec))

    async def get(self, codec: str) -> Clip:
        """The clip, made now where nobody has. Raises ConfigurationError for what can't be made."""
        return await self._library.get(self._in(codec))

    def _in(self, codec: str) -> ClipSpec:
        if not isinstance(self.spec, VideoSpec):
            return self.spec
        layers = self.spec.layers if codec == "vp8" else self.spec.layers[-1:]
        return replace(self.spec, codec=cast("VideoCodec", codec), layers=layers)


class SharedLibrary:
    """The clips of one event loop in one directory, for any number of users."""

    def __init__(self, directory: Path | None) -> None:
        self._library = ClipLibrary(directory)
        self._prepared: dict[ClipSpec, asyncio.Task[Clip]] = {}
        #: How many use it.
        self.users = 0

    async def get(self, spec: ClipSpec) -> Clip:
        """As :meth:`ClipLibrary.get`."""
        return await self._library.get(spec)

    def prepare(self, spec: ClipSpec) -> None:
        """Get it, for whoever comes."""
        if spec not in self._prepared:
            task = asyncio.get_running_loop().create_task(self.get(spec), name="prepare clip")
            self._prepared[spec] = task
            task.add_done_callback(lambda done: done.cancelled() or done.exception())  # the next one hears of it

    async def close(self) -> None:
        """End what is being made."""
        for task in self._prepared.values():
            task.cancel()
        await asyncio.gather(*self._prepared.values(), return_exceptions=True)
        await self._library.close()


_libraries: WeakKeyDictionary[asyncio.AbstractEventLoop, dict[Path | None, SharedLibrary]] = WeakKeyDictionary()


class LibraryUse:
    """A user's share of the library of the running event loop; the last one that closes it ends it."""

    def __init__(self, directory: Path | None) -> None:
        self._directory = directory
        self._all = _libraries.setdefault(asyncio.get_running_loop(), {})
        self.library = self._all.setdefault(directory, SharedLibrary(directory))
        self.library.users += 1
        self._closed = False

    async def close(self) -> None:
        """Be done; may be called twice."""
        if self._closed:
            return
        self._closed = True
        self.library.users -= 1
        if not self.library.users:
            self._all.pop(self._directory, None)
            await self.library.close()


def video_clip(config: ParticipantConfig) -> VideoSpec | None:
    """What the settings want to be seen; None for a file that is too long for a clip."""
    settings = config.settings
    if not config.video.startswith(FILE):
        layers = video_layers(settings, settings.width, settings.height)
        return VideoSpec(layers=layers, fps=settings.fps, variants=min(2, settings.fps))
    path = Path(config.video.removeprefix(FILE))
    found = probe(path)
    if found is None or found.video is None:
        return None
    width, height, fps = found.video
    return VideoSpec(file=path, layers=video_layers(settings, width, height, fps), fps=fps, variants=min(2, fps))


def sound_clip(config: ParticipantConfig) -> SoundSpec | None:
    """What the settings want to be heard; None for a file that is too long for a clip."""
    if config.audio.startswith(FILE):
        path = Path(config.audio.removeprefix(FILE))
        return None if probe(path) is None else SoundSpec(file=path)
    # Some voices: each is a clip of its own.
    pitch = PITCH_MIN + stable_hash(config.name) % VOICES * (PITCH_MAX - PITCH_MIN) // VOICES
    return SoundSpec(mode="tone" if config.audio == "tone" else "speech", pitch=pitch)


def speech_of(config: ParticipantConfig) -> Speech | None:
    """When the voice is heard; None for always."""
    if config.settings.talk == "always" or config.audio != "speech":
        return None
    return Conversation.of_size(config.room_jid, config.seats).talk(str(config.seat))


def video_layers(settings: Settings, width: int, height: int, fps: int | None = None) -> tuple[LayerSpec, ...]:
    """The layers that the settings want of a picture of this size."""
    top = settings.video_bitrate * 1000 or BITS_PER_PIXEL * width * height * (fps or settings.fps)
    return layers_of(width, height, top, simulcast=settings.simulcast)


def layers_of(width: int, height: int, top: float, *, simulcast: bool) -> tuple[LayerSpec, ...]:
    """This size with ``top`` bit/s, and a half and a quarter of it with simulcast."""
    sizes = [(_even(width), _even(height))]
    if simulcast:
        sizes = [*((_even(width / share), _even(height / share)) for share in _SHARES), *sizes]
    # A small picture takes more bits a pixel: half the sides take a third of the rate.
    return tuple(
        LayerSpec(wide, tall, max(MIN_BITRATE, round(top * (wide * tall / (width * height)) ** 0.8)))
        for wide, tall in sizes
    )


def _even(side: float) -> int:
    return max(16, round(side / 2) * 2)


class Probed(NamedTuple):
    """A file that a clip can be made of: width, height and frames a second of its picture, if it has one."""

    video: tuple[int, int, int] | None


@lru_cache(maxsize=64)
def probe(path: Path) -> Probed | None:
    """Look into a file; None where it is too long for a clip, or does not tell how long it is."""
    try:
        with av.open(str(path)) as container:
            if container.duration is None or container.duration > MAX_DURATION * av.time_base:
                return None
            stream = next(iter(container.streams.video), None)
            if stream is None:
                return Probed(None)
            fps = round(stream.average_rate or stream.guessed_rate or 30)
            return Probed((stream.width, stream.height, max(1, min(fps, 60))))
    except (av.FFmpegError, OSError):
        return None  # who plays it says what is wrong with it
