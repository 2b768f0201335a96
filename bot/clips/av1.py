"""AV1 in RTP payloads (RTP Payload Format For AV1 v1.0.0), and its dependency descriptor (appendix A). Pure.

Videobridge routes AV1 by the descriptor alone, which is a header extension: a sender without it in the offer can't
send AV1 to a bridge. Frame numbers run per sender, so that the descriptor is made when a packet is sent.
"""

from __future__ import annotations

from collections.abc import Iterator
from itertools import pairwise

from bot.clips.model import MAX_PAYLOAD
from bot.clips.split import evenly

#: URI of the header extension, as offers name it.
DEPENDENCY_DESCRIPTOR = "https://aomediacodec.github.io/av1-rtp-spec/#dependency-descriptor-rtp-header-extension"
FRAME_NUMBERS = 1 << 16

_TEMPORAL_DELIMITER, _TILE_LIST, _PADDING = 2, 8, 15
#: What the payload format tells a sender to leave out (section 5).
_LEFT_OUT = (_TEMPORAL_DELIMITER, _TILE_LIST, _PADDING)
_EXTENSION, _HAS_SIZE = 0x04, 0x02
_CONTINUES, _CONTINUED, _NEW_SEQUENCE = 0x80, 0x40, 0x08


def leb128(value: int) -> bytes:
    """``value`` in AV1's variable length (AV1 section 4.10.5)."""
    out = bytearray()
    while value > 0x7F:
        out.append(value & 0x7F | 0x80)
        value >>= 7
    out.append(value)
    return bytes(out)


def read_leb128(data: bytes, at: int) -> tuple[int, int]:
    """The value at ``at`` and where it ends. Raises ValueError for a broken one."""
    value = 0
    for number, byte in enumerate(data[at : at + 8]):
        value |= (byte & 0x7F) << (7 * number)
        if not byte & 0x80:
            return value, at + number + 1
    raise ValueError("an encoded frame has a broken OBU size")


def obus(frame: bytes) -> Iterator[bytes]:
    """The OBUs of a temporal unit, as they go out: without size fields. Raises ValueError for broken ones."""
    at = 0
    while at < len(frame):
        header = frame[at]
        head = 2 if header & _EXTENSION else 1
        if header & _HAS_SIZE:
            size, begin = read_leb128(frame, at + head)
        else:
            size, begin = len(frame) - at - head, at + head
        if begin + size > len(frame):
            raise ValueError("an encoded frame ends inside an OBU")
        if header >> 3 & 0x0F not in _LEFT_OUT:
            yield bytes((header & ~_HAS_SIZE,)) + frame[at + 1 : at + head] + frame[begin : begin + size]
        at = begin + size


def av1_payloads(frame: bytes, *, key: bool) -> tuple[bytes, ...]:
    """One temporal unit in payloads; each OBU element has its length before it (W = 0).

    A key frame begins a coded video sequence (N). Raises ValueError for a broken one, or one without OBU.
    """
    elements = list(obus(frame))
    if not elements:
        raise ValueError("an encoded frame holds no OBU")
    stream = b"".join(elements)
    ends = _ends(elements)
    payloads = []
    at = 0
    for piece in evenly(stream, MAX_PAYLOAD - 1 - 3 * len(elements)):
        stop = at + len(piece)
        cuts = [at, *(end for end in sorted(ends) if at < end < stop), stop]
        parts = [stream[left:right] for left, right in pairwise(cuts)]
        header = (
            (_CONTINUES if at and at not in ends else 0)
            | (_CONTINUED if stop not in ends else 0)
            | (_NEW_SEQUENCE if key and at == 0 else 0)
        )
        payloads.append(bytes((header,)) + b"".join(leb128(len(part)) + part for part in parts))
        at = stop
    return tuple(payloads)


def _ends(elements: list[bytes]) -> set[int]:
    ends, at = set(), 0
    for element in elements:
        at += len(element)
        ends.add(at)
    return ends


class _Bits:
    """Writes numbers of some bits each, highest first."""

    def __init__(self) -> None:
        self._value = 0
        self._length = 0

    def write(self, value: int, bits: int) -> None:
        self._value = self._value << bits | value
        self._length += bits

    def to_bytes(self) -> bytes:
        size = -(-self._length // 8)
        return (self._value << (8 * size - self._length)).to_bytes(size, "big")


def dependency_descriptor(
    frame_number: int, *, first: bool, last: bool, key: bool, size: tuple[int, int] = (1, 1)
) -> bytes:
    """The descriptor of a packet of a stream without layers (L1T1): 3 bytes, 13 where a key frame begins.

    ``first`` and ``last`` packet of the frame ``frame_number`` (16 bits); ``size`` is (width, height) of a key
    frame, which brings the structure: a template for key frames, and one for those that refer to the frame before.
    """
    bits = _Bits()
    bits.write(first, 1)
    bits.write(last, 1)
    bits.write(0 if key else 1, 6)
    bits.write(frame_number % FRAME_NUMBERS, 16)
    if key and first:
        bits.write(0b10000, 5)  # a structure follows; nothing else does
        _write_structure(bits, size)
    return bits.to_bytes()


def _write_structure(bits: _Bits, size: tuple[int, int]) -> None:
    bits.write(0, 6)  # template_id_offset
    bits.write(0, 5)  # one decode target
    bits.write(0b00_11, 4)  # the second template is in the same layer; no third
    bits.write(0b10_10, 4)  # both are switch points of the decode target
    bits.write(0b0, 1)  # a key frame refers to none
    bits.write(0b1_0000_0, 6)  # the other to the frame one before
    bits.write(0b1, 1)  # one chain, ns(2), which protects the decode target, ns(1): no bits
    bits.write(0x01, 8)  # distance in the chain: 0 of a key frame, 1 of the other
    bits.write(1, 1)  # sizes follow
    bits.write(size[0] - 1, 16)
    bits.write(size[1] - 1, 16)
