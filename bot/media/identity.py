"""What makes one participant's media tell-tale: colour and pitch from a hash of its name that never changes."""

from __future__ import annotations

import hashlib
import math
from dataclasses import dataclass

#: Distance of the two chroma components from grey; keeps every hue inside what BT.601 can show at medium luma.
_CHROMA_RADIUS = 64.0
PITCH_MIN = 100
PITCH_MAX = 300


@dataclass(frozen=True, slots=True)
class Colour:
    """The chroma of a colour in BT.601 studio range: ``u`` and ``v`` are 16–240, 128 is grey."""

    u: int
    v: int

    def towards_grey(self, share: float) -> Colour:
        """The same hue with only ``share`` (0–1) of the saturation."""
        return Colour(128 + round((self.u - 128) * share), 128 + round((self.v - 128) * share))


def stable_hash(text: str) -> int:
    """64 bits of ``text``, the same in every process and on every machine (``hash`` of a str is neither)."""
    return int.from_bytes(hashlib.blake2b(text.encode("utf-8", "surrogatepass"), digest_size=8).digest(), "big")


def _hue(turn: float) -> Colour:
    """The saturated colour at ``turn`` (0–1) of the colour circle."""
    angle = 2 * math.pi * turn
    return Colour(128 + round(_CHROMA_RADIUS * math.cos(angle)), 128 + round(_CHROMA_RADIUS * math.sin(angle)))


def colour_of(name: str) -> Colour:
    """The main colour of the participant called ``name``."""
    return _hue(stable_hash(name) / 2**64)


def second_colour_of(name: str) -> Colour:
    """A second colour, at least a quarter of the circle away: tells names apart whose main colours are near."""
    value = stable_hash(name)
    return _hue(value / 2**64 + 0.25 + 0.5 * (value & 0xFFFF) / 0xFFFF)


def pitch_of(name: str) -> int:
    """The fundamental frequency of the participant's voice in whole Hz, ``PITCH_MIN`` to ``PITCH_MAX``."""
    return PITCH_MIN + stable_hash(name) % (PITCH_MAX - PITCH_MIN + 1)
