"""H264 in RTP payloads (RFC 6184), packetization-mode 1: single NAL units, STAP-A and FU-A. Pure."""

from __future__ import annotations

import re
from collections.abc import Iterator

from bot.clips.model import MAX_PAYLOAD
from bot.clips.split import evenly

_START_CODE = re.compile(rb"\x00\x00\x01")
_SEI, _SPS, _PPS, _DELIMITER, _FILLER = 6, 7, 8, 9, 12
_STAP_A, _FU_A = 24, 28
#: Says nothing that a decoder needs: the encoder's name and options, and the place of frames in a file.
_LEFT_OUT = (_SEI, _DELIMITER, _FILLER)


def nal_units(stream: bytes) -> list[bytes]:
    """The NAL units of a byte stream with start codes (ITU-T H.264 annex B)."""
    marks = [(found.start(), found.end()) for found in _START_CODE.finditer(stream)]
    ends = [*(start for start, _ in marks[1:]), len(stream)][: len(marks)]
    units = (stream[begin:end].rstrip(b"\x00") for (_, begin), end in zip(marks, ends, strict=True))
    return [unit for unit in units if unit]


def h264_payloads(frame: bytes) -> tuple[bytes, ...]:
    """One frame (annex B) in payloads: small units together, large ones in pieces. Raises ValueError for none."""
    units = [unit for unit in nal_units(frame) if unit[0] & 0x1F not in _LEFT_OUT]
    if not units:
        raise ValueError("an encoded frame holds no NAL unit")
    payloads: list[bytes] = []
    for group in _groups(units):
        payloads += _fragments(group[0]) if len(group) == 1 else [_aggregated(group)]
    return tuple(payloads)


def _groups(units: list[bytes]) -> Iterator[list[bytes]]:
    """Neighbours that fit into one STAP-A, each with two bytes for its size after one for the type."""
    group: list[bytes] = []
    size = 1
    for unit in units:
        if group and size + 2 + len(unit) > MAX_PAYLOAD:
            yield group
            group, size = [], 1
        group.append(unit)
        size += 2 + len(unit)
    yield group


def _aggregated(units: list[bytes]) -> bytes:
    importance = max(unit[0] & 0x60 for unit in units)
    return bytes((importance | _STAP_A,)) + b"".join(len(unit).to_bytes(2, "big") + unit for unit in units)


def _fragments(unit: bytes) -> list[bytes]:
    if len(unit) <= MAX_PAYLOAD:
        return [unit]
    indicator, kind = unit[0] & 0x60 | _FU_A, unit[0] & 0x1F
    pieces = evenly(unit[1:], MAX_PAYLOAD - 2)
    last = len(pieces) - 1
    return [
        bytes((indicator, kind | (0x80 if number == 0 else 0) | (0x40 if number == last else 0))) + piece
        for number, piece in enumerate(pieces)
    ]
