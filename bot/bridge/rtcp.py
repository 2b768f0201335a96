"""RTCP packets (RFC 3550 section 6, RFC 4585, RFC 5104): building and parsing. Pure."""

from __future__ import annotations

import struct
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

SR, RR, SDES, BYE, RTPFB, PSFB = 200, 201, 202, 203, 205, 206
FMT_NACK, FMT_TRANSPORT_CC = 1, 15
FMT_PLI, FMT_FIR, FMT_REMB = 1, 4, 15
#: Report blocks that fit the five-bit count of one packet (RFC 3550 section 6.4.1).
MAX_BLOCKS = 31

_HEAD = struct.Struct("!BBH")
_WORD = struct.Struct("!L")
_TWO_WORDS = struct.Struct("!LL")
_SENDER = struct.Struct("!LQLLL")
_BLOCK = struct.Struct("!LLLLLL")
_NACK = struct.Struct("!HH")


class RtcpError(ValueError):
    """The bytes are no RTCP packet; says which rule they break."""


@dataclass(frozen=True, slots=True)
class ReportBlock:
    """What one receiver saw of ``ssrc``. ``fraction_lost`` in 1/256, ``jitter`` in units of the RTP clock.

    ``last_sr`` is the middle 32 bits of the last sender report's NTP time, ``delay`` since then in 1/65536 s;
    both 0 before the first.
    """

    ssrc: int
    fraction_lost: int
    lost: int
    highest: int
    jitter: int
    last_sr: int = 0
    delay: int = 0


@dataclass(frozen=True, slots=True)
class SenderReport:
    """SR (RFC 3550 section 6.4.1). ``ntp`` in 1/2³² s since 1900."""

    ssrc: int
    ntp: int
    timestamp: int
    packets: int
    octets: int
    blocks: tuple[ReportBlock, ...] = ()


@dataclass(frozen=True, slots=True)
class ReceiverReport:
    """RR (RFC 3550 section 6.4.2)."""

    ssrc: int
    blocks: tuple[ReportBlock, ...] = ()


@dataclass(frozen=True, slots=True)
class Bye:
    """BYE (RFC 3550 section 6.6): the sources that end."""

    ssrcs: tuple[int, ...]


@dataclass(frozen=True, slots=True)
class Feedback:
    """RTPFB or PSFB (RFC 4585 section 6.1), its control information not yet read."""

    kind: int
    fmt: int
    sender_ssrc: int
    media_ssrc: int
    fci: bytes = b""


@dataclass(frozen=True, slots=True)
class Other:
    """A packet type that nobody here reads (SDES, APP, XR …)."""

    kind: int
    count: int
    body: bytes


Packet = SenderReport | ReceiverReport | Bye | Feedback | Other


def pack(kind: int, count: int, body: bytes) -> bytes:
    """One packet around ``body``, whose length is a multiple of four."""
    return _HEAD.pack(0x80 | count, kind, len(body) // 4) + body


def parse(data: bytes) -> list[Packet]:
    """Parse a compound or reduced-size packet (RFC 5506), unprotected; raises RtcpError."""
    packets: list[Packet] = []
    position = 0
    while position < len(data):
        if len(data) < position + 4:
            raise RtcpError("RTCP header is truncated")
        first, kind, words = _HEAD.unpack_from(data, position)
        end = position + 4 + 4 * words
        if first >> 6 != 2:
            raise RtcpError(f"RTCP version is {first >> 6}")
        if len(data) < end:
            raise RtcpError("RTCP packet is truncated")
        body = _unpadded(data[position + 4 : end]) if first & 0x20 else data[position + 4 : end]
        packets.append(_parse_one(kind, first & 0x1F, body))
        position = end
    return packets


def _unpadded(body: bytes) -> bytes:
    if not body or not 0 < body[-1] <= len(body):
        raise RtcpError("RTCP padding does not fit the packet")
    return body[: -body[-1]]


def _parse_one(kind: int, count: int, body: bytes) -> Packet:
    try:
        if kind == SR:
            ssrc, ntp, timestamp, packets, octets = _SENDER.unpack_from(body)
            return SenderReport(ssrc, ntp, timestamp, packets, octets, _blocks(body, _SENDER.size, count))
        if kind == RR:
            return ReceiverReport(_WORD.unpack_from(body)[0], _blocks(body, 4, count))
        if kind == BYE:
            return Bye(struct.unpack_from(f"!{count}L", body))
        if kind in (RTPFB, PSFB):
            sender_ssrc, media_ssrc = _TWO_WORDS.unpack_from(body)
            return Feedback(kind, count, sender_ssrc, media_ssrc, body[8:])
    except struct.error:
        raise RtcpError(f"RTCP packet of type {kind} is too short") from None
    return Other(kind, count, body)


def _blocks(body: bytes, start: int, count: int) -> tuple[ReportBlock, ...]:
    return tuple(_block(body, start + 24 * number) for number in range(count))


def _block(body: bytes, start: int) -> ReportBlock:
    ssrc, loss, highest, jitter, last_sr, delay = _BLOCK.unpack_from(body, start)
    lost = loss & 0xFFFFFF
    signed = lost - (1 << 24) if lost & 0x800000 else lost
    return ReportBlock(ssrc, loss >> 24, signed, highest, jitter, last_sr, delay)


def _pack_block(block: ReportBlock) -> bytes:
    lost = max(-0x800000, min(block.lost, 0x7FFFFF)) & 0xFFFFFF
    loss = (block.fraction_lost & 0xFF) << 24 | lost
    highest, jitter = block.highest & 0xFFFFFFFF, min(block.jitter, 0xFFFFFFFF)
    return _BLOCK.pack(block.ssrc, loss, highest, jitter, block.last_sr, min(block.delay, 0xFFFFFFFF))


def receiver_reports(ssrc: int, blocks: Sequence[ReportBlock]) -> bytes:
    """As many RRs as ``blocks`` need, at least one (RFC 3550 section 6.1)."""
    chunks = [blocks[start : start + MAX_BLOCKS] for start in range(0, len(blocks), MAX_BLOCKS)] or [blocks]
    return b"".join(
        pack(RR, len(chunk), _WORD.pack(ssrc) + b"".join(_pack_block(block) for block in chunk))
        for chunk in chunks
    )


def sender_report(report: SenderReport) -> bytes:
    """One SR, with the first 31 of its blocks."""
    blocks = report.blocks[:MAX_BLOCKS]
    head = _SENDER.pack(
        report.ssrc, report.ntp, report.timestamp, report.packets & 0xFFFFFFFF, report.octets & 0xFFFFFFFF
    )
    return pack(SR, len(blocks), head + b"".join(_pack_block(block) for block in blocks))


def sdes(ssrc: int, cname: str) -> bytes:
    """One SDES chunk with the CNAME (RFC 3550 section 6.5), cut to 255 bytes."""
    name = cname.encode()[:255]
    chunk = _WORD.pack(ssrc) + bytes((1, len(name))) + name + b"\0"
    return pack(SDES, 1, chunk + bytes(-len(chunk) % 4))


def bye(ssrcs: Sequence[int]) -> bytes:
    """One BYE for at most 31 sources."""
    return pack(BYE, len(ssrcs), struct.pack(f"!{len(ssrcs)}L", *ssrcs))


def feedback(kind: int, fmt: int, sender_ssrc: int, media_ssrc: int, fci: bytes = b"") -> bytes:
    """One RTPFB or PSFB packet; ``fci`` is a multiple of four bytes."""
    return pack(kind, fmt, _TWO_WORDS.pack(sender_ssrc, media_ssrc) + fci)


def pli(sender_ssrc: int, media_ssrc: int) -> bytes:
    """Picture loss indication (RFC 4585 section 6.3.1)."""
    return feedback(PSFB, FMT_PLI, sender_ssrc, media_ssrc)


def fir(sender_ssrc: int, media_ssrc: int, number: int) -> bytes:
    """Full intra request (RFC 5104 section 4.3.1); ``number`` rises by one for each new request."""
    return feedback(PSFB, FMT_FIR, sender_ssrc, 0, _WORD.pack(media_ssrc) + bytes((number & 0xFF, 0, 0, 0)))


def nack(sender_ssrc: int, media_ssrc: int, sequences: Iterable[int]) -> bytes:
    """Generic NACK (RFC 4585 section 6.2.1) for 16-bit ``sequences``, in their order."""
    entries: list[list[int]] = []
    for sequence in sequences:
        distance = (sequence - entries[-1][0]) & 0xFFFF if entries else 0x10000
        if 0 < distance <= 16:
            entries[-1][1] |= 1 << (distance - 1)
        elif distance:
            entries.append([sequence & 0xFFFF, 0])
    fci = b"".join(_NACK.pack(*entry) for entry in entries)
    return feedback(RTPFB, FMT_NACK, sender_ssrc, media_ssrc, fci)


def nacked(packet: Feedback) -> list[int]:
    """Sequence numbers that a generic NACK asks for again."""
    found: list[int] = []
    for position in range(0, len(packet.fci) - 3, 4):
        first, bits = _NACK.unpack_from(packet.fci, position)
        found.append(first)
        found += [(first + bit + 1) & 0xFFFF for bit in range(16) if bits >> bit & 1]
    return found


def intra_requests(packet: Feedback) -> tuple[tuple[int, int], ...]:
    """SSRC and command number of each entry of a FIR; empty for any other feedback."""
    if packet.kind != PSFB or packet.fmt != FMT_FIR:
        return ()
    return tuple(
        (_WORD.unpack_from(packet.fci, at)[0], packet.fci[at + 4]) for at in range(0, len(packet.fci) - 7, 8)
    )


def keyframe_requests(packet: Feedback) -> tuple[int, ...]:
    """SSRCs that a PLI or FIR wants a key frame of; empty for any other feedback."""
    if packet.kind != PSFB:
        return ()
    if packet.fmt == FMT_PLI:
        return (packet.media_ssrc,)
    return tuple(ssrc for ssrc, _ in intra_requests(packet))


def remb(packet: Feedback) -> tuple[int, tuple[int, ...]] | None:
    """Bitrate (bit/s) and SSRCs of a REMB (draft-alvestrand-rmcat-remb-03), None for any other feedback."""
    fci = packet.fci
    if packet.kind != PSFB or packet.fmt != FMT_REMB or len(fci) < 8 or fci[:4] != b"REMB":
        return None
    count = min(fci[4], (len(fci) - 8) // 4)
    mantissa = (fci[5] & 3) << 16 | fci[6] << 8 | fci[7]
    return mantissa << (fci[5] >> 2), struct.unpack_from(f"!{count}L", fci, 8)
