"""A clip as bytes of a file, and back: a checksum, a description, an index of frames, and their payloads. Pure.

The layout, numbers in network order::

    magic, 8 bytes        names format and version
    checksum, 32 bytes    SHA-256 of all that follows
    length, 4 bytes       of the description
    description           JSON: the clip and its layers, how many frames each variant has
    index                 a record of 8 bytes a frame: timestamp (32 bits), flags (8), level (8), payloads (16);
                          then the length of each payload (16)
    payloads              one after the other
"""

from __future__ import annotations

import hashlib
import json
import struct
from collections.abc import Iterator
from fractions import Fraction
from itertools import islice
from typing import Any

from bot.clips.model import Clip, ClipFrame, ClipLayer

#: Part of the key of every cached clip: a new layout never meets an old file.
FORMAT_VERSION = 1
_MAGIC = b"jbclip" + FORMAT_VERSION.to_bytes(2, "big")
_LENGTH = struct.Struct("!L")
_RECORD = struct.Struct("!LBBH")
_BODY = len(_MAGIC) + hashlib.sha256().digest_size
_KEY, _HAS_LEVEL = 1, 2


class FormatError(ValueError):
    """The bytes are no clip of this version, or not as they were written."""


def dump(clip: Clip) -> bytes:
    """``clip`` as bytes."""
    frames = [frame for layer in clip.layers for variant in layer.variants for frame in variant]
    description = json.dumps(_describe(clip)).encode()
    payloads = [payload for frame in frames for payload in frame.payloads]
    body = b"".join(
        (
            _LENGTH.pack(len(description)),
            description,
            *(_record(frame) for frame in frames),
            struct.pack(f"!{len(payloads)}H", *map(len, payloads)),
            *payloads,
        )
    )
    return _MAGIC + hashlib.sha256(body).digest() + body


def load(data: bytes) -> Clip:
    """The clip of which ``data`` was made. Raises FormatError."""
    if data[: len(_MAGIC)] != _MAGIC:
        raise FormatError("no clip of this version")
    body = memoryview(data)[_BODY:]
    if hashlib.sha256(body).digest() != data[len(_MAGIC) : _BODY]:
        raise FormatError("the checksum is wrong")
    try:
        return _clip(data)
    except (ValueError, KeyError, TypeError, struct.error, ZeroDivisionError) as error:
        raise FormatError(f"the description is wrong: {error!r}") from error


def _describe(clip: Clip) -> dict[str, Any]:
    return {
        "media": clip.media,
        "codec": clip.codec,
        "clock_rate": clip.clock_rate,
        "duration": str(clip.duration),
        "digest": clip.digest,
        "name": clip.name,
        "layers": [
            {
                "width": layer.width,
                "height": layer.height,
                "fps": str(layer.fps),
                "bitrate": layer.bitrate,
                "variants": [len(variant) for variant in layer.variants],
            }
            for layer in clip.layers
        ],
    }


def _record(frame: ClipFrame) -> bytes:
    flags = (_KEY if frame.key else 0) | (0 if frame.level is None else _HAS_LEVEL)
    return _RECORD.pack(frame.timestamp, flags, frame.level or 0, len(frame.payloads))


def _clip(data: bytes) -> Clip:
    (length,) = _LENGTH.unpack_from(data, _BODY)
    begin = _BODY + _LENGTH.size
    found = json.loads(data[begin : begin + length])
    count = sum(sum(layer["variants"]) for layer in found["layers"])
    frames = _frames(data, begin + length, count)
    layers = tuple(
        ClipLayer(
            item["width"],
            item["height"],
            Fraction(item["fps"]),
            item["bitrate"],
            tuple(tuple(islice(frames, size)) for size in item["variants"]),
        )
        for item in found["layers"]
    )
    return Clip(
        found["media"],
        found["codec"],
        found["clock_rate"],
        Fraction(found["duration"]),
        layers,
        found["digest"],
        found["name"],
    )


def _frames(data: bytes, at: int, count: int) -> Iterator[ClipFrame]:
    """The frames whose index begins at ``at``. Raises ValueError unless payloads and data end together."""
    records = list(_RECORD.iter_unpack(data[at : at + count * _RECORD.size]))
    at += count * _RECORD.size
    total = sum(record[3] for record in records)
    lengths = struct.unpack_from(f"!{total}H", data, at)
    at += 2 * total
    if at + sum(lengths) != len(data):
        raise ValueError("its payloads are not those of the index")
    return _cut(data, at, records, iter(lengths))


def _cut(data: bytes, at: int, records: list[Any], lengths: Iterator[int]) -> Iterator[ClipFrame]:
    for timestamp, flags, level, number in records:
        payloads = []
        for length in (next(lengths) for _ in range(number)):
            payloads.append(data[at : at + length])
            at += length
        yield ClipFrame(timestamp, bool(flags & _KEY), tuple(payloads), level if flags & _HAS_LEVEL else None)
