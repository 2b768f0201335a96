"""Opus in RTP payloads (RFC 7587): a packet is a payload. Pure."""

from __future__ import annotations

import math

import numpy as np
from numpy.typing import NDArray

from bot.clips.model import SILENCE_LEVEL

#: RTP ticks, and samples at 48 kHz, of the 20 ms that a frame lasts.
FRAME_TICKS = 960
#: 20 ms of digital silence in mono: CELT, full band, one frame (RFC 6716 section 3.1), its silence flag set.
SILENCE = b"\xf8\xff\xfe"
_FULL_SCALE = 32768.0


def opus_payloads(packet: bytes) -> tuple[bytes, ...]:
    """One packet as the one payload that it is. Raises ValueError for an empty one."""
    if not packet:
        raise ValueError("an encoded frame is empty")
    return (packet,)


def level_of(samples: NDArray[np.int16]) -> int:
    """Level of a frame in -dBov (RFC 6465 appendix A): 0 is loudest, 127 silence."""
    power = float(np.mean(np.square(samples, dtype=np.float64))) / _FULL_SCALE**2
    return SILENCE_LEVEL if power <= 0 else max(0, min(SILENCE_LEVEL, round(-10 * math.log10(power))))
