"""The running fields of payload descriptors: numbers that each sender counts on its own. Pure.

A clip's payloads have them at fixed places, zero, so that setting them costs a copy. They are the same for all
packets of a frame: a sender that wants to save more packs ``fields`` once a frame and joins
``payload[:start] + fields + payload[stop:]`` with its header.
"""

from __future__ import annotations

import struct
from collections.abc import Callable
from dataclasses import dataclass

#: Values of a picture id (15 bits) and of TL0PICIDX (8 bits): they wrap at these.
PICTURE_IDS = 1 << 15
TL0_INDICES = 1 << 8

Patch = Callable[[bytes, int, int], bytes]

_VP8 = struct.Struct("!HB")
_VP9 = struct.Struct("!HxB")


@dataclass(frozen=True, slots=True)
class Descriptor:
    """The running fields of a codec: bytes ``start`` to ``stop`` of each payload.

    ``fields(picture_id, tl0)`` packs them and ``patch(payload, picture_id, tl0)`` sets them; both take numbers of
    any size below 32768 and 256.
    """

    start: int
    stop: int
    fields: Callable[[int, int], bytes]
    patch: Patch


def _vp8_fields(picture_id: int, tl0: int) -> bytes:
    return _VP8.pack(picture_id | 0x8000, tl0)


def _vp8_patch(payload: bytes, picture_id: int, tl0: int) -> bytes:
    return payload[:2] + _VP8.pack(picture_id | 0x8000, tl0) + payload[5:]


def _vp9_fields(picture_id: int, tl0: int) -> bytes:
    return _VP9.pack(picture_id | 0x8000, tl0)


def _vp9_patch(payload: bytes, picture_id: int, tl0: int) -> bytes:
    return payload[:1] + _VP9.pack(picture_id | 0x8000, tl0) + payload[5:]


_DESCRIPTORS = {
    # RFC 7741 section 4.2: X, then I L T K, PictureID of 15 bits, TL0PICIDX, TID and KEYIDX.
    "vp8": Descriptor(2, 5, _vp8_fields, _vp8_patch),
    # RFC 9628 section 4.2: PictureID of 15 bits, TID U SID D (all zero), TL0PICIDX.
    "vp9": Descriptor(1, 5, _vp9_fields, _vp9_patch),
}


def descriptor(codec: str) -> Descriptor | None:
    """The running fields of ``codec``, None where its payloads go out as they are (H264, AV1, opus)."""
    return _DESCRIPTORS.get(codec)


def patch_of(codec: str) -> Patch | None:
    """Sets picture id and TL0PICIDX in a payload of ``codec``; None where there are none."""
    found = _DESCRIPTORS.get(codec)
    return found.patch if found else None
