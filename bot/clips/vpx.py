"""VP8 and VP9 in RTP payloads (RFC 7741, RFC 9628), laid out so that :mod:`bot.clips.descriptor` finds its fields.

Videobridge routes VP8 by picture id and temporal layer, and VP9 by picture id; it tells VP9's layers from the
scalability structure of key frames, and its key frames from the P bit.
"""

from __future__ import annotations

import struct

from bot.clips.model import MAX_PAYLOAD
from bot.clips.spec import LOWEST, TemporalLayer
from bot.clips.split import evenly

# VP8: X; I, L and T; PictureID with M; TL0PICIDX; then come TID and Y.
_VP8_START, _VP8_NEXT = b"\x90\xe0\x80\x00\x00", b"\x80\xe0\x80\x00\x00"

_VP9_I, _VP9_P, _VP9_L, _VP9_B, _VP9_E, _VP9_V, _VP9_Z = 0x80, 0x40, 0x20, 0x08, 0x04, 0x02, 0x01
_VP9_RUNNING = b"\x80\x00\x00\x00"
# One spatial layer with its size (Y), and a picture group (G) of one: TID 0, which refers to the picture before.
_VP9_STRUCTURE = struct.Struct("!BHHBBB")


def vp8_payloads(frame: bytes, temporal: TemporalLayer = LOWEST) -> tuple[bytes, ...]:
    """One frame of VP8 in payloads. Raises ValueError for an empty one."""
    pieces, layer = (
        evenly(frame, MAX_PAYLOAD - len(_VP8_START) - 1),
        bytes((temporal.tid << 6 | temporal.sync << 5,)),
    )
    return (_VP8_START + layer + pieces[0], *(_VP8_NEXT + layer + piece for piece in pieces[1:]))


def vp9_payloads(frame: bytes, *, key: bool, size: tuple[int, int]) -> tuple[bytes, ...]:
    """One frame of VP9 in payloads, in non-flexible mode; ``size`` is (width, height). Raises ValueError."""
    base = _VP9_I | _VP9_L | _VP9_Z | (0 if key else _VP9_P)
    structure = _VP9_STRUCTURE.pack(0x18, *size, 1, 0x04, 1) if key else b""
    pieces = evenly(frame, MAX_PAYLOAD - 1 - len(_VP9_RUNNING), first=len(structure))
    payloads = []
    for number, piece in enumerate(pieces):
        first, last = number == 0, number == len(pieces) - 1
        flags = base | (_VP9_B if first else 0) | (_VP9_E if last else 0) | (_VP9_V if first and structure else 0)
        payloads.append(bytes((flags,)) + _VP9_RUNNING + (structure if first else b"") + piece)
    return tuple(payloads)
