"""What a clip is: pictures or sound in RTP payloads, played in a loop on the wall clock. Pure and immutable."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from fractions import Fraction

from bot.jingle.model import Media

#: Ticks a second of RTP's time stamps of video (RFC 7741, RFC 9628, RFC 6184) and of opus (RFC 7587).
VIDEO_CLOCK_RATE = 90000
OPUS_CLOCK_RATE = 48000
#: Most bytes of a payload: leaves room for header extensions, RTX and SRTP below 1200 bytes.
MAX_PAYLOAD = 1100
#: Sound below this many -dBov counts as voice (RFC 6464 leaves the measure to the sender).
VOICE_LEVEL = 60
SILENCE_LEVEL = 127


@dataclass(frozen=True, slots=True)
class ClipFrame:
    """A picture, or 20 ms of sound.

    ``timestamp`` counts RTP ticks since the clip's start. ``payloads`` are whole RTP payloads, codec descriptor
    included; the descriptor's running fields are zero, and :mod:`bot.clips.descriptor` sets them for each sender.
    ``level`` is that of sound in -dBov: 0 is loudest, 127 silence (RFC 6464); None for pictures.
    """

    timestamp: int
    key: bool
    payloads: tuple[bytes, ...]
    level: int | None = None

    @property
    def size(self) -> int:
        """Bytes of all payloads."""
        return sum(map(len, self.payloads))


@dataclass(frozen=True, slots=True)
class ClipLayer:
    """One encoding of the clip. Sound has the width and height 0, and 50 frames a second.

    ``variants`` hold the same pictures, frame by frame at the same times, with key frames at different places;
    the first frame of each is one. ``bitrate`` is what was asked for, in bit/s.
    """

    width: int
    height: int
    fps: Fraction
    bitrate: int
    variants: tuple[tuple[ClipFrame, ...], ...]


@dataclass(frozen=True, slots=True)
class Clip:
    """Media of one kind in one codec, ``duration`` seconds (whole frames) that are played in a loop.

    ``layers`` are sorted by size, lowest first; ``digest`` is the key in the cache (hex), ``name`` what it shows.
    """

    media: Media
    codec: str
    clock_rate: int
    duration: Fraction
    layers: tuple[ClipLayer, ...]
    digest: str
    name: str

    def __repr__(self) -> str:
        sizes = "+".join(f"{layer.width}x{layer.height}" for layer in self.layers)
        what = f"{self.codec} {sizes}" if self.media == "video" else self.codec
        return f"<Clip {self.name!r} {what} {float(self.duration):g} s>"

    @property
    def ticks(self) -> int:
        """The length of the loop in RTP ticks."""
        return int(self.duration * self.clock_rate)

    @property
    def size(self) -> int:
        """Bytes of all payloads of all layers and variants."""
        return sum(frame.size for layer in self.layers for variant in layer.variants for frame in variant)


def phase_of(endpoint: str, duration: Fraction) -> float:
    """Where in the loop ``endpoint`` is at the Unix time 0, in seconds: 0 up to ``duration``, from a stable hash.

    Spreads participants in time, and lets whoever knows the endpoint tell when a frame of it was due.
    """
    digest = hashlib.sha256(endpoint.encode("utf-8", "surrogatepass")).digest()
    return (int.from_bytes(digest[:6], "big") * duration.numerator) / (duration.denominator << 48)


def position(unix_time: float, phase: float, duration: Fraction) -> float:
    """The place in the loop at ``unix_time``, in seconds: 0 up to ``duration``."""
    return (unix_time + phase) % float(duration)
