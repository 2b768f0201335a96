"""RTP headers as they stand on the wire (RFC 3550 section 5.1, RFC 8285): parsing and rewriting. Pure.

The header of an SRTP packet is in the clear (RFC 3711 section 3.1), so everything here works on protected
packets, except what looks at the payload (:func:`payload`, :func:`wrap_rtx`, :func:`unwrap_rtx`).
"""

from __future__ import annotations

import struct
from collections.abc import Iterator
from typing import NamedTuple

_FIXED = struct.Struct("!BBHLL")
_PAIR = struct.Struct("!HH")
_SHORT = struct.Struct("!H")

HEADER_LENGTH = 12
ONE_BYTE_PROFILE = 0xBEDE
TWO_BYTE_PROFILE = 0x1000
#: Bit 28 of the first word: a header extension follows.
_EXTENSION_BIT = 0x10
_PADDING_BIT = 0x20


class RtpError(ValueError):
    """The bytes are no RTP packet; says which rule they break."""


class RtpHeader(NamedTuple):
    """The header of one RTP packet. ``profile`` is 0 when there is no header extension.

    ``extensions_start`` and ``extensions_end`` frame the extension elements without their four bytes of profile
    and length; ``length`` is where the payload starts.
    """

    payload_type: int
    marker: bool
    sequence: int
    timestamp: int
    ssrc: int
    padding: bool
    profile: int
    extensions_start: int
    extensions_end: int
    length: int


def is_rtp_or_rtcp(data: bytes) -> bool:
    """Whether a datagram is in the range of RTP and RTCP (RFC 7983 section 7)."""
    return len(data) >= 2 and 127 < data[0] < 192


def is_rtcp(data: bytes) -> bool:
    """Whether an RTP/RTCP datagram is RTCP (RFC 5761 section 4)."""
    return len(data) >= 2 and 192 <= data[1] <= 223


def parse_header(data: bytes) -> RtpHeader:
    """Parse the header of ``data``, protected or not; raises RtpError."""
    size = len(data)
    if size < HEADER_LENGTH:
        raise RtpError(f"RTP packet of {size} bytes is shorter than its header")
    first, second, sequence, timestamp, ssrc = _FIXED.unpack_from(data)
    if first >> 6 != 2:
        raise RtpError(f"RTP version is {first >> 6}")
    end = HEADER_LENGTH + 4 * (first & 0x0F)
    profile = start = 0
    if first & _EXTENSION_BIT:
        if size < end + 4:
            raise RtpError("RTP header extension is truncated")
        profile, words = _PAIR.unpack_from(data, end)
        start = end + 4
        end = start + 4 * words
    if size < end:
        raise RtpError("RTP packet ends inside its header")
    return RtpHeader(
        second & 0x7F,
        second > 0x7F,
        sequence,
        timestamp,
        ssrc,
        bool(first & _PADDING_BIT),
        profile,
        start,
        end if start else 0,
        end,
    )


def extensions(data: bytes, header: RtpHeader) -> Iterator[tuple[int, int, int]]:
    """Yield ``(id, start, end)`` of each header extension element (RFC 8285 sections 4.2 and 4.3).

    What does not fit into the extension ends the iteration: a receiver ignores what it can't read.
    """
    if header.profile == ONE_BYTE_PROFILE:
        return _one_byte(data, header.extensions_start, header.extensions_end)
    if header.profile & 0xFFF0 == TWO_BYTE_PROFILE:
        return _two_byte(data, header.extensions_start, header.extensions_end)
    return iter(())


def _one_byte(data: bytes, position: int, end: int) -> Iterator[tuple[int, int, int]]:
    while position < end:
        head = data[position]
        position += 1
        if not head:
            continue  # padding
        if head >> 4 == 15:
            return  # reserved: stop (RFC 8285 section 4.2)
        stop = position + (head & 0x0F) + 1
        if stop > end:
            return
        yield head >> 4, position, stop
        position = stop


def _two_byte(data: bytes, position: int, end: int) -> Iterator[tuple[int, int, int]]:
    while position < end:
        ext_id = data[position]
        position += 1
        if not ext_id:
            continue  # padding
        if position >= end:
            return
        stop = position + 1 + data[position]
        if stop > end:
            return
        yield ext_id, position + 1, stop
        position = stop


def extension(data: bytes, header: RtpHeader, ext_id: int) -> bytes | None:
    """Value of the header extension ``ext_id``, None if the packet has none."""
    for found, start, end in extensions(data, header):
        if found == ext_id:
            return data[start:end]
    return None


def transport_sequence(data: bytes, header: RtpHeader, ext_id: int) -> int | None:
    """Transport-wide sequence number (0–65535) in the extension ``ext_id``, None if the packet has none."""
    for found, start, end in extensions(data, header):
        if found == ext_id:
            return int(_SHORT.unpack_from(data, start)[0]) if end - start >= 2 else None
    return None


def audio_level(data: bytes, header: RtpHeader, ext_id: int) -> int | None:
    """Level of the packet's sound in -dBov, 0 (loud) to 127 (silent) (RFC 6464), None if the packet has none."""
    value = extension(data, header, ext_id)
    return value[0] & 0x7F if value else None


def pack_extensions(values: dict[int, bytes]) -> tuple[int, bytes]:
    """Profile and padded elements for ``values``: one-byte headers where they do, else two-byte (RFC 8285)."""
    short = all(0 < ext_id < 15 and 0 < len(value) <= 16 for ext_id, value in values.items())
    if short:
        body = b"".join(bytes((ext_id << 4 | len(value) - 1,)) + value for ext_id, value in values.items())
    else:
        body = b"".join(bytes((ext_id, len(value))) + value for ext_id, value in values.items())
    profile = ONE_BYTE_PROFILE if short else TWO_BYTE_PROFILE
    return profile, body + bytes(-len(body) % 4)


def replace_extensions(data: bytes, header: RtpHeader, values: dict[int, bytes]) -> bytes:
    """The packet with exactly the header extensions ``values`` (none at all for an empty dict)."""
    csrc_end = HEADER_LENGTH + 4 * (data[0] & 0x0F)
    if not values:
        return bytes((data[0] & ~_EXTENSION_BIT,)) + data[1:csrc_end] + data[header.length :]
    profile, body = pack_extensions(values)
    head = bytes((data[0] | _EXTENSION_BIT,)) + data[1:csrc_end]
    return head + _PAIR.pack(profile, len(body) // 4) + body + data[header.length :]


def set_extension(data: bytes, header: RtpHeader, ext_id: int, value: bytes) -> bytes:
    """The packet with ``value`` in the extension ``ext_id``: in place where it has that size, else added."""
    for found, start, end in extensions(data, header):
        if found == ext_id and end - start == len(value):
            return data[:start] + value + data[end:]
    values = {found: data[start:end] for found, start, end in extensions(data, header)}
    values[ext_id] = value
    return replace_extensions(data, header, values)


def set_transport_sequence(data: bytes, header: RtpHeader, ext_id: int, sequence: int) -> bytes:
    """The packet with the transport-wide sequence number ``sequence`` (taken modulo 65536)."""
    return set_extension(data, header, ext_id, _SHORT.pack(sequence & 0xFFFF))


def rewrite(
    data: bytes,
    *,
    payload_type: int | None = None,
    sequence: int | None = None,
    timestamp: int | None = None,
    ssrc: int | None = None,
) -> bytes:
    """The packet with other values in its fixed header; those left out stay."""
    first, second, old_sequence, old_timestamp, old_ssrc = _FIXED.unpack_from(data)
    return (
        _FIXED.pack(
            first,
            second if payload_type is None else (second & 0x80) | payload_type,
            old_sequence if sequence is None else sequence & 0xFFFF,
            old_timestamp if timestamp is None else timestamp & 0xFFFFFFFF,
            old_ssrc if ssrc is None else ssrc,
        )
        + data[HEADER_LENGTH:]
    )


def build(
    *,
    payload_type: int,
    sequence: int,
    timestamp: int,
    ssrc: int,
    body: bytes = b"",
    marker: bool = False,
    values: dict[int, bytes] | None = None,
    padding: int = 0,
) -> bytes:
    """One RTP packet. ``values`` are header extensions by id; ``padding`` 0–255 bytes, the count included."""
    first = 0x80 | (_PADDING_BIT if padding else 0) | (_EXTENSION_BIT if values else 0)
    head = _FIXED.pack(
        first, marker << 7 | payload_type, sequence & 0xFFFF, timestamp & 0xFFFFFFFF, ssrc & 0xFFFFFFFF
    )
    if values:
        profile, elements = pack_extensions(values)
        head += _PAIR.pack(profile, len(elements) // 4) + elements
    return head + body + (bytes(padding - 1) + bytes((padding,)) if padding else b"")


def is_padding_only(data: bytes, header: RtpHeader) -> bool:
    """Whether an unprotected packet has no payload: a probe for bandwidth, or one that fills a gap."""
    size = len(data) - header.length
    return size == 0 or (header.padding and data[-1] >= size)


def payload(data: bytes, header: RtpHeader) -> bytes:
    """Payload of an unprotected packet, without its padding; raises RtpError on impossible padding."""
    if not header.padding:
        return data[header.length :]
    count = data[-1]
    if not 0 < count <= len(data) - header.length:
        raise RtpError(f"RTP padding of {count} bytes does not fit the packet")
    return data[header.length : len(data) - count]


def wrap_rtx(data: bytes, header: RtpHeader, *, payload_type: int, sequence: int, ssrc: int) -> bytes:
    """The retransmission (RFC 4588 section 4) of an unprotected packet, header extensions kept."""
    osn = _SHORT.pack(header.sequence)
    packet = rewrite(data, payload_type=payload_type, sequence=sequence, ssrc=ssrc)
    return packet[: header.length] + osn + packet[header.length :]


def unwrap_rtx(data: bytes, header: RtpHeader, *, payload_type: int, ssrc: int) -> bytes | None:
    """The original of an unprotected retransmission (RFC 4588), None for a padding-only probe."""
    if len(payload(data, header)) < 2:
        return None
    sequence = _SHORT.unpack_from(data, header.length)[0]
    packet = rewrite(data, payload_type=payload_type, sequence=sequence, ssrc=ssrc)
    return packet[: header.length] + packet[header.length + 2 :]


def sequence_newer(a: int, b: int) -> bool:
    """Whether the 16-bit sequence number ``a`` comes after ``b`` (RFC 3550 appendix A.1)."""
    return a != b and (a - b) & 0xFFFF < 0x8000


def unwrap_sequence(value: int, reference: int) -> int:
    """The unbounded number nearest to ``reference`` whose lower 16 bits are ``value``."""
    return reference + ((value - reference + 0x8000) & 0xFFFF) - 0x8000
