"""EBML (RFC 8794): the elements that Matroska is made of, written and read. Pure."""

from __future__ import annotations

import struct
import zlib
from collections.abc import Iterator
from typing import NamedTuple

CRC32, VOID = 0xBF, 0xEC
#: A size of eight bytes whose bits are all set: not known yet (RFC 8794 section 6.2).
UNKNOWN_SIZE = (1 << 56) - 1
CRC_LENGTH = 6


class EbmlError(ValueError):
    """The bytes are no EBML element; says what is wrong with them."""


class Element(NamedTuple):
    """An element at ``start`` whose data is from ``data`` to ``end``; ``end`` is None for an unknown size."""

    id: int
    start: int
    data: int
    end: int | None


def element_id(number: int) -> bytes:
    """An element's id as it stands in a file: its length marker is part of the number."""
    return number.to_bytes(-(-number.bit_length() // 8), "big")


def size(value: int, length: int = 0) -> bytes:
    """A data size in as few bytes as it takes, or in ``length`` of them (RFC 8794 section 4)."""
    if not length:
        length = max(1, -(-(value + 1).bit_length() // 7))  # all bits set would mean unknown
    return (value | 1 << 7 * length).to_bytes(length, "big")


def element(number: int, data: bytes) -> bytes:
    """One element around ``data``."""
    return element_id(number) + size(len(data)) + data


def unsigned(number: int, value: int) -> bytes:
    """An unsigned integer element."""
    return element(number, value.to_bytes(max(1, -(-value.bit_length() // 8)), "big"))


def signed(number: int, value: int) -> bytes:
    """A signed integer element of eight bytes, as dates are."""
    return element(number, value.to_bytes(8, "big", signed=True))


def real(number: int, value: float) -> bytes:
    """A floating point element of eight bytes."""
    return element(number, struct.pack("!d", value))


def text(number: int, value: str) -> bytes:
    """An UTF-8 element."""
    return element(number, value.encode())


def void(length: int) -> bytes:
    """``length`` bytes (2 to 65 545) that mean nothing."""
    if length < 9:
        return element_id(VOID) + size(length - 2, 1) + bytes(length - 2)
    return element_id(VOID) + size(length - 9, 8) + bytes(length - 9)


def checked(number: int, data: bytes) -> bytes:
    """A master element with a checksum of its children as the first of them (RFC 8794 section 11.3.1)."""
    checksum = struct.pack("<L", zlib.crc32(data))
    return element_id(number) + size(len(data) + CRC_LENGTH, 8) + element(CRC32, checksum) + data


def is_whole(data: bytes) -> bool:
    """Whether the data of a master element fits the checksum that it begins with; True where it has none."""
    if data[:2] != b"\xbf\x84":
        return True
    return len(data) >= CRC_LENGTH and struct.unpack_from("<L", data, 2)[0] == zlib.crc32(data[CRC_LENGTH:])


def parse_element(data: bytes, start: int) -> Element:
    """The head of the element at ``start``; its data may lie beyond the end. Raises EbmlError."""
    number, at = _number(data, start, keep_marker=True, most=4)
    length, begin = _number(data, at, keep_marker=False, most=8)
    unknown = length == (1 << 7 * (begin - at)) - 1
    return Element(number, start, begin, None if unknown else begin + length)


def _number(data: bytes, at: int, *, keep_marker: bool, most: int) -> tuple[int, int]:
    if at >= len(data):
        raise EbmlError("the data ends before an element")
    first = data[at]
    length = 9 - first.bit_length()
    if length > most:
        raise EbmlError(f"an element's number begins with 0x{first:02x}")
    if at + length > len(data):
        raise EbmlError("the data ends inside an element's head")
    value = int.from_bytes(data[at : at + length], "big")
    return (value if keep_marker else value ^ 1 << 7 * length), at + length


def children(data: bytes, start: int, end: int) -> Iterator[Element]:
    """The elements between ``start`` and ``end``. Raises EbmlError where they do not fill it."""
    while start < end:
        found = parse_element(data, start)
        if found.end is None or found.end > end:
            raise EbmlError(f"element 0x{found.id:X} does not fit what it is in")
        yield found
        start = found.end
