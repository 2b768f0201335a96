"""Transport-wide congestion control feedback (draft-holmer-rmcat-transport-wide-cc-extensions-01). Pure.

A receiver notes when each transport-wide sequence number came and tells the sender every 100 ms or so; the
bridge derives its bandwidth estimate from that, and soon sends little video to a receiver that is silent.
"""

from __future__ import annotations

import struct
from collections.abc import Iterable
from dataclasses import dataclass
from itertools import accumulate
from typing import cast

from bot.bridge import rtcp
from bot.bridge.rtp import unwrap_sequence

#: Reference times count in 64 ms, deltas in 250 µs (section 3.1).
REFERENCE = 0.064
TICKS_PER_REFERENCE = 256
_TICK = REFERENCE / TICKS_PER_REFERENCE
_MAX_RUN = 0x1FFF
#: A packet older than this is not reported again, and its arrival is forgotten (seconds).
HISTORY = 0.5
#: A jump by more than this is a restarted counter, not a loss of so many packets.
MAX_GAP = 4096
#: Arrivals kept between two feedback packets; a flood beyond it is dropped and counted.
MAX_PENDING = 8192
#: Bytes of status chunks and deltas in one feedback packet, which has to fit a datagram.
MAX_STATUS_BYTES = 1000

_HEAD = struct.Struct("!HHL")
_CHUNK = struct.Struct("!H")
_MISSING, _SMALL, _LARGE = 0, 1, 2


@dataclass(frozen=True, slots=True)
class TransportFeedback:
    """What one feedback packet says: ``(sequence, arrival)`` for each number, arrival in s or None if missing.

    Arrivals are on the receiver's clock, modulo 2²⁴ · 64 ms.
    """

    sender_ssrc: int
    media_ssrc: int
    number: int
    packets: tuple[tuple[int, float | None], ...]


class ArrivalRecorder:
    """The receiver's side: ``record`` each packet, then ``build`` the feedback for what came since."""

    def __init__(self) -> None:
        self._arrivals: dict[int, float] = {}
        self._next: int | None = None
        self._first_new: int | None = None
        self._highest = 0
        self._number = 0
        #: Arrivals that were not noted because feedback was not built in time.
        self.overflow = 0

    def record(self, sequence: int, arrival: float) -> None:
        """Note that the 16-bit ``sequence`` came at ``arrival`` (seconds, monotonic). Duplicates count once."""
        if self._next is None:
            self._restart(sequence)
        number = unwrap_sequence(sequence, self._highest)
        if abs(number - self._highest) > MAX_GAP:
            self._restart(sequence)
            number = sequence
        if number in self._arrivals:
            return
        if len(self._arrivals) >= MAX_PENDING:
            self.overflow += 1
            return
        self._arrivals[number] = arrival
        self._highest = max(self._highest, number)
        self._first_new = number if self._first_new is None else min(self._first_new, number)

    def build(self, sender_ssrc: int, media_ssrc: int, now: float) -> list[bytes]:
        """Feedback packets (RTCP, unprotected) for what came since the last call; none when nothing came."""
        packets = []
        if self._first_new is not None and self._next is not None:
            first = min(self._next, self._first_new)
            # What was reported before the last late packet may be forgotten by now: nothing follows it then.
            last = max(self._arrivals)
            while first <= last:
                fci, first = self._pack(first)
                packets.append(rtcp.feedback(rtcp.RTPFB, rtcp.FMT_TRANSPORT_CC, sender_ssrc, media_ssrc, fci))
            self._next, self._first_new = self._highest + 1, None
        # An arrival is kept for a while: a late packet is reported together with those around it. Forgetting
        # must not depend on new packets, or a full recorder would stay full.
        self._arrivals = {number: arrival for number, arrival in self._arrivals.items() if arrival > now - HISTORY}
        return packets

    def state(self) -> tuple[dict[int, float], int, int]:
        """After ``build``: the arrivals that are still known, the highest number, and that of the next packet."""
        return self._arrivals, self._highest, self._number

    def restore(self, arrivals: dict[int, float], highest: int, number: int) -> None:
        """Go on from the ``state`` of another; its last ``build`` had told of everything."""
        self._arrivals, self._highest, self._number = arrivals, highest, number
        self._next, self._first_new = highest + 1, None

    def _restart(self, sequence: int) -> None:
        self._arrivals.clear()
        self._next = self._highest = sequence
        self._first_new = None

    def _pack(self, first: int) -> tuple[bytes, int]:
        """Feedback control information from ``first`` on, and the number where the next packet starts."""
        start = next(number for number in range(first, self._highest + 1) if number in self._arrivals)
        reference = int(self._arrivals[start] / REFERENCE)
        symbols, deltas, last = [_MISSING] * (start - first), [], reference * TICKS_PER_REFERENCE
        number, size = start, 0.0
        while number <= self._highest and size < MAX_STATUS_BYTES:
            size += 2 / 7  # a chunk has seven symbols at worst
            arrival = self._arrivals.get(number)
            if arrival is None:
                symbols.append(_MISSING)
            else:
                ticks = round(arrival / _TICK)
                delta = ticks - last
                if not -0x8000 <= delta <= 0x7FFF:
                    break  # too far from the one before: another packet with its own reference time
                symbols.append(_SMALL if 0 <= delta <= 0xFF else _LARGE)
                deltas.append(struct.pack("!B" if 0 <= delta <= 0xFF else "!h", delta))
                size += len(deltas[-1])
                last = ticks
            number += 1
        head = _HEAD.pack(first & 0xFFFF, len(symbols), (reference & 0xFFFFFF) << 8 | self._number)
        self._number = (self._number + 1) & 0xFF
        body = head + b"".join(_CHUNK.pack(chunk) for chunk in status_chunks(symbols)) + b"".join(deltas)
        return body + bytes(-len(body) % 4), number


def status_chunks(symbols: list[int]) -> list[int]:
    """Packet status chunks (sections 3.1.3 and 3.1.4): run lengths where they pay, else vectors."""
    chunks, position = [], 0
    while position < len(symbols):
        run = 1
        while position + run < len(symbols) and run < _MAX_RUN and symbols[position + run] == symbols[position]:
            run += 1
        if run >= 7 or position + run == len(symbols):
            chunks.append(symbols[position] << 13 | run)
            position += run
            continue
        bits = symbols[position : position + 14]
        if _LARGE not in bits:
            chunks.append(0x8000 | sum(bit << (13 - at) for at, bit in enumerate(bits)))
            position += len(bits)
        else:
            pairs = bits[:7]
            chunks.append(0xC000 | sum(pair << (12 - 2 * at) for at, pair in enumerate(pairs)))
            position += len(pairs)
    return chunks


def parse_feedback(packet: rtcp.Feedback) -> TransportFeedback:
    """Read a feedback packet; raises RtcpError when it is none, or broken."""
    if packet.kind != rtcp.RTPFB or packet.fmt != rtcp.FMT_TRANSPORT_CC:
        raise rtcp.RtcpError("not a transport-wide-cc feedback packet")
    try:
        base, count, word = _HEAD.unpack_from(packet.fci)
        if (whole := _all_in_order(packet.fci, count, (word >> 8) * TICKS_PER_REFERENCE)) is not None:
            numbers: Iterable[int] = range(base, base + count)
            if base + count > 0x10000:
                numbers = [number & 0xFFFF for number in numbers]
            pairs = tuple(zip(numbers, whole, strict=True))
            return TransportFeedback(packet.sender_ssrc, packet.media_ssrc, word & 0xFF, pairs)
        symbols, position = _symbols(packet.fci, count)
        arrivals = _arrivals(packet.fci, position, symbols, (word >> 8) * TICKS_PER_REFERENCE)
    except struct.error:
        raise rtcp.RtcpError("transport-wide-cc feedback is truncated") from None
    numbered = tuple(((base + at) & 0xFFFF, arrival) for at, arrival in enumerate(arrivals))
    return TransportFeedback(packet.sender_ssrc, packet.media_ssrc, word & 0xFF, numbered)


def _all_in_order(fci: bytes, count: int, ticks: int) -> list[float] | None:
    """The arrivals where all came one soon after the other, which is how it mostly is; else None."""
    (chunk,) = _CHUNK.unpack_from(fci, _HEAD.size)
    start = _HEAD.size + _CHUNK.size
    if chunk >> 13 != _SMALL or chunk & _MAX_RUN < count or len(fci) < start + count:
        return None
    return [at * _TICK for at in accumulate(fci[start : start + count], initial=ticks)][1:]


def _symbols(fci: bytes, count: int) -> tuple[list[int], int]:
    symbols: list[int] = []
    position = _HEAD.size
    while len(symbols) < count:
        (chunk,) = _CHUNK.unpack_from(fci, position)
        position += 2
        if not chunk & 0x8000:
            symbols += [chunk >> 13] * min(chunk & _MAX_RUN, count - len(symbols))
        elif chunk & 0x4000:
            symbols += [chunk >> shift & 3 for shift in range(12, -1, -2)]
        else:
            symbols += [chunk >> shift & 1 for shift in range(13, -1, -1)]
    return symbols[:count], position


def _arrivals(fci: bytes, position: int, symbols: list[int], ticks: int) -> list[float | None]:
    arrivals: list[float | None] = []
    for symbol in symbols:
        if symbol not in (_SMALL, _LARGE):
            arrivals.append(None)
            continue
        layout = "!B" if symbol == _SMALL else "!h"
        ticks += struct.unpack_from(layout, fci, position)[0]
        position += symbol
        arrivals.append(ticks * _TICK)
    return arrivals


class FeedbackCounter:
    """The sender's side: how many of our packets the other end got. A packet that comes late is put right."""

    def __init__(self) -> None:
        self.acked = 0
        self.lost = 0
        self._highest: int | None = None
        self._missing: dict[int, None] = {}

    def feed(self, feedback: TransportFeedback) -> None:
        """Count one feedback packet."""
        packets = feedback.packets
        follows = self._highest is not None and packets and packets[0][0] == (self._highest + 1) & 0xFFFF
        if follows and None not in [arrival for _, arrival in packets]:
            self._highest = cast("int", self._highest) + len(packets)
            self.acked += len(packets)
            return
        for sequence, arrival in feedback.packets:
            if self._highest is None:
                self._highest = sequence - 1
            number = unwrap_sequence(sequence, self._highest)
            if number > self._highest:
                self._highest = number
                self._count(number, came=arrival is not None)
            elif arrival is not None and number in self._missing:
                del self._missing[number]
                self.lost -= 1
                self.acked += 1

    def _count(self, number: int, *, came: bool) -> None:
        if came:
            self.acked += 1
            return
        self.lost += 1
        self._missing[number] = None
        if len(self._missing) > MAX_GAP:
            del self._missing[next(iter(self._missing))]
