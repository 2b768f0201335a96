"""What a clip is to be made of and made like. Pure; what can't be made is refused here, by the setting's name."""

from __future__ import annotations

import math
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path
from typing import Literal, NamedTuple, get_args

from bot.errors import ConfigurationError

VideoCodec = Literal["vp8", "vp9", "h264", "av1"]
VIDEO_CODECS: tuple[str, ...] = get_args(VideoCodec)

#: Frames of sound a second: 20 ms each.
SOUND_FPS = 50
#: Seconds of a synthetic clip, and the most of any.
DEFAULT_DURATION = Fraction(8)
MAX_DURATION = Fraction(60)

_BITRATES = (10_000, 20_000_000)
_SOUND_BITRATES = (6_000, 510_000)  # what opus can do (RFC 6716 section 2.1.1)
_SIDES = (16, 4096)
_PATTERN_SIDES = (160, 90)
_MAX_FPS = 60
_MAX_VARIANTS = 8


@dataclass(frozen=True, slots=True)
class LayerSpec:
    """One encoding: ``width`` x ``height`` pixels (even) at ``bitrate`` bit/s."""

    width: int
    height: int
    bitrate: int


class TemporalLayer(NamedTuple):
    """The temporal layer of a frame: its TID, and whether it refers to the lowest one alone (RFC 7741's Y)."""

    tid: int
    sync: bool = False


#: The only one of what has no temporal layers.
LOWEST = TemporalLayer(0)
#: Those of the frames of simulcast, again and again: what web clients send of VP8 (L1T3). Videobridge goes up by
#: steps, temporal layers among them, and goes no further than to one that takes no more than the step below.
TEMPORAL_LAYERS = (LOWEST, TemporalLayer(2, sync=True), TemporalLayer(1, sync=True), TemporalLayer(2))

#: One layer, and the three of simulcast with the rates that lib-jitsi-meet gives VP8.
SINGLE = (LayerSpec(640, 360, 500_000),)
SIMULCAST = (LayerSpec(320, 180, 200_000), LayerSpec(640, 360, 500_000), LayerSpec(1280, 720, 1_500_000))


@dataclass(frozen=True, slots=True)
class VideoSpec:
    """Pictures: the test pattern, or those of ``file``, which is anything that FFmpeg reads.

    ``layers`` are sorted by size, lowest first: one, or several for VP8 simulcast. ``duration`` is in seconds;
    unless given it is 8 for the pattern, and that of the file, cut to whole seconds and to 60; what is shorter
    than one is filled up with its last picture. Key frames come every ``key_interval`` seconds in each of the
    ``variants``, whose places for them are spread over it. ``title`` is written into the pattern.
    """

    file: Path | None = None
    codec: VideoCodec = "vp8"
    layers: tuple[LayerSpec, ...] = SINGLE
    fps: int = 30
    duration: Fraction | None = None
    key_interval: Fraction = Fraction(1)
    variants: int = 2
    title: str = "jitsi-bot"

    def __post_init__(self) -> None:
        """Raise ConfigurationError that names what can't be."""
        if self.codec not in VIDEO_CODECS:
            raise ConfigurationError(f"codec must be one of {', '.join(VIDEO_CODECS)}, not {self.codec!r}")
        _within("fps", self.fps, (1, _MAX_FPS))
        _within("variants", self.variants, (1, _MAX_VARIANTS))
        self._check_layers()
        if self.duration is not None:
            check_duration(self.duration, self.fps)
        frames = self.key_interval * self.fps
        if frames.denominator != 1 or frames < self.variants:
            raise ConfigurationError(
                f"key_interval must be whole frames, at least as many as variants, not {float(frames):g} frames"
            )

    def _check_layers(self) -> None:
        if not self.layers:
            raise ConfigurationError("layers must name at least one size")
        if len(self.layers) > 1 and self.codec != "vp8":
            raise ConfigurationError(f"layers: simulcast is for vp8, {self.codec} is sent in one layer")
        for layer in self.layers:
            self._check_layer(layer)
        heights = [layer.height for layer in self.layers]
        if heights != sorted(set(heights)):
            raise ConfigurationError(f"layers must be sorted by height, lowest first, not {heights}")

    def _check_layer(self, layer: LayerSpec) -> None:
        smallest = _PATTERN_SIDES if self.file is None else (_SIDES[0], _SIDES[0])
        for name, value, least in (("width", layer.width, smallest[0]), ("height", layer.height, smallest[1])):
            _within(f"{name} of a layer", value, (least, _SIDES[1]))
            if value % 2:
                raise ConfigurationError(f"{name} of a layer must be even for 4:2:0, not {value}")
        _within("bitrate of a layer", layer.bitrate, _BITRATES)

    @property
    def name(self) -> str:
        """What the clip shows, for logs."""
        return self.file.name if self.file else self.title

    @property
    def temporal_layers(self) -> tuple[TemporalLayer, ...]:
        """The temporal layers of the frames, which begin again behind the last."""
        return TEMPORAL_LAYERS if len(self.layers) > 1 else TEMPORAL_LAYERS[:1]

    def key_frames(self, variant: int, count: int) -> frozenset[int]:
        """The numbers of the key frames among the ``count`` frames of a variant; the first is always one.

        All are of the lowest temporal layer.
        """
        interval, period = int(self.key_interval * self.fps), len(self.temporal_layers)
        places = range(interval * variant // self.variants, count, interval)
        return frozenset({0, *(place - place % period for place in places)})


@dataclass(frozen=True, slots=True)
class SoundSpec:
    """Sound in opus: a voice or a tone of ``pitch`` Hz, or the sound of ``file``, mixed down to one channel.

    ``level`` is that of the synthetic sound in dBFS. ``duration`` as in VideoSpec.
    """

    file: Path | None = None
    mode: Literal["tone", "speech"] = "speech"
    pitch: int = 160
    level: float = -20.0
    bitrate: int = 32_000
    duration: Fraction | None = None

    def __post_init__(self) -> None:
        """Raise ConfigurationError that names what can't be."""
        if self.mode not in ("tone", "speech"):
            raise ConfigurationError(f"mode must be 'tone' or 'speech', not {self.mode!r}")
        _within("pitch", self.pitch, (20, 12_000))
        _within("level", self.level, (-90, 0))
        _within("bitrate", self.bitrate, _SOUND_BITRATES)
        if self.duration is not None:
            check_duration(self.duration, SOUND_FPS)

    @property
    def name(self) -> str:
        """What is heard, for logs."""
        return self.file.name if self.file else self.mode


ClipSpec = VideoSpec | SoundSpec


def check_duration(duration: Fraction, fps: int) -> None:
    """Raise ConfigurationError for a length that does not hold whole frames of ``fps`` and of sound."""
    step = Fraction(1, math.gcd(fps, SOUND_FPS))
    if not 0 < duration <= MAX_DURATION or duration % step:
        raise ConfigurationError(
            f"duration must be up to {MAX_DURATION} s in steps of {float(step):g} s (whole frames of picture and "
            f"sound), not {float(duration):g} s"
        )


def _within(name: str, value: float, limits: tuple[float, float]) -> None:
    if not limits[0] <= value <= limits[1]:
        raise ConfigurationError(f"{name} must be {limits[0]:g} to {limits[1]:g}, not {value:g}")
