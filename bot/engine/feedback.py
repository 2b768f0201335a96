"""What a receiver tells the bridge, made from batches: transport-wide-cc feedback, reports, requests.

The packets are those of :mod:`bot.bridge.twcc` and :mod:`bot.bridge.receiver`, byte by byte.
"""

from __future__ import annotations

import struct
from collections.abc import Callable
from typing import Any

import numpy as np
from numpy.typing import NDArray

from bot.bridge import rtcp
from bot.bridge.receiver import FEEDBACK_INTERVAL, REPORT_INTERVAL, ReceiverReports, Requests, StreamCounters
from bot.bridge.twcc import (
    HISTORY,
    MAX_GAP,
    MAX_PENDING,
    MAX_STATUS_BYTES,
    REFERENCE,
    TICKS_PER_REFERENCE,
    ArrivalRecorder,
    status_chunks,
)

_TICK = REFERENCE / TICKS_PER_REFERENCE
_HEAD = struct.Struct("!HHL")
_CHUNK = struct.Struct("!H")
_MAX_RUN = 0x1FFF
#: Bytes of requests in one datagram, before encryption.
_MAX_DATAGRAM = 1100
_MISSING, _SMALL, _LARGE = 0, 1, 2

Ints = NDArray[Any]
Floats = NDArray[Any]


class BatchRecorder:
    """An ArrivalRecorder for batches. What comes in order is packed as arrays, anything else by that one."""

    def __init__(self) -> None:
        self._exact = ArrivalRecorder()
        #: Whether ``_exact`` knows all; else it lacks what is in ``_history``, and its counters.
        self._is_exact = True
        self._new: list[tuple[Ints, Floats]] = []
        self._history: list[tuple[Ints, Floats]] = []
        self._highest = 0
        self._number = 0
        self._forgotten = -np.inf
        self._pending = 0

    @property
    def overflow(self) -> int:
        """Arrivals that were not noted because feedback was not built in time."""
        return self._exact.overflow

    def record(self, sequences: Ints, times: Floats) -> None:
        """Note that the 16-bit ``sequences`` came at ``times`` (seconds, monotonic), in this order."""
        if self._pending + sequences.size > 2 * MAX_PENDING:
            self._exact.overflow += sequences.size
            return
        self._pending += sequences.size
        self._new.append((sequences, times))

    def build(self, sender_ssrc: int, media_ssrc: int, now: float) -> list[bytes]:
        """Feedback packets (RTCP, unprotected) for what came since the last call; none when nothing came."""
        if not self._new:
            if self._is_exact:
                return self._exact.build(sender_ssrc, media_ssrc, now)
            self._forget(now)
            return []
        if len(self._new) == 1:
            sequences, times = self._new[0]
        else:
            sequences = np.concatenate([item for item, _ in self._new])
            times = np.concatenate([item for _, item in self._new])
        self._new, self._pending = [], 0
        packed = None if self._is_exact else self._pack(sequences, times)
        if packed is None:
            return self._build_exactly(sequences, times, sender_ssrc, media_ssrc, now)
        self._forget(now)
        return [rtcp.feedback(rtcp.RTPFB, rtcp.FMT_TRANSPORT_CC, sender_ssrc, media_ssrc, packed)]

    def _build_exactly(
        self, sequences: Ints, times: Floats, sender_ssrc: int, media_ssrc: int, now: float
    ) -> list[bytes]:
        exact = self._exact
        if not self._is_exact:
            known: dict[int, float] = {}
            for numbers, arrivals in self._history:
                known.update(zip(numbers.tolist(), arrivals.tolist(), strict=True))
            kept = {number: arrival for number, arrival in known.items() if arrival > self._forgotten}
            exact.restore(kept, self._highest, self._number)
        for sequence, arrival in zip(sequences.tolist(), times.tolist(), strict=True):
            exact.record(sequence, arrival)
        packets = exact.build(sender_ssrc, media_ssrc, now)
        kept, self._highest, self._number = exact.state()
        self._history = [(np.array(list(kept), np.int64), np.array(list(kept.values()), np.float64))]
        self._forgotten = now - HISTORY
        self._is_exact = False
        return packets

    def _forget(self, now: float) -> None:
        """Drop what is too old to be reported once more."""
        self._forgotten = now - HISTORY
        while self._history and not (self._history[0][1] > self._forgotten).any():
            del self._history[0]

    def _pack(self, sequences: Ints, times: Floats) -> bytes | None:
        """The feedback control information; None where it takes more than one packet, or an exact look."""
        numbers = sequences.astype(np.int64)
        numbers -= self._highest
        numbers += 0x8000
        numbers &= 0xFFFF
        numbers += self._highest - 0x8000
        first, last = self._highest + 1, int(numbers[-1])
        held = sum(item.size for item, _ in self._history)
        if last - first >= MAX_GAP or numbers[0] < first or held + numbers.size > MAX_PENDING:
            return None
        steps = np.diff(numbers)
        if steps.size and steps.min() < 1:
            return None  # late ones, or duplicates
        ticks = np.rint(times / _TICK)
        reference = int(times[0] / REFERENCE)
        deltas = np.empty(ticks.size, np.int64)
        deltas[0] = ticks[0] - reference * TICKS_PER_REFERENCE
        deltas[1:] = np.diff(ticks)
        body = self._status(numbers - first, last - first + 1, deltas)
        if body is None:
            return None
        self._history.append((numbers, times))
        self._highest = last
        head = _HEAD.pack(first & 0xFFFF, last - first + 1, (reference & 0xFFFFFF) << 8 | self._number)
        self._number = (self._number + 1) & 0xFF
        body = head + body
        return body + bytes(-len(body) % 4)

    @staticmethod
    def _status(places: Ints, count: int, deltas: Ints) -> bytes | None:
        """Status chunks and deltas; None where they don't fit one packet."""
        small = (deltas >= 0) & (deltas <= 0xFF)
        all_small = bool(small.all())
        size = count * (2 / 7) + deltas.size + (0 if all_small else int((~small).sum()))
        if size >= MAX_STATUS_BYTES - 4:  # near the limit the exact recorder decides
            return None
        if all_small:
            octets = deltas.astype(np.uint8).tobytes()
            if count == deltas.size and count <= _MAX_RUN:
                return _CHUNK.pack(_SMALL << 13 | count) + octets
        elif deltas.min() < -0x8000 or deltas.max() > 0x7FFF:
            return None
        else:
            octets = _mixed(deltas, small)
        symbols = np.zeros(count, np.int64)
        symbols[places] = np.where(small, _SMALL, _LARGE)
        chunks = status_chunks(symbols.tolist())
        return struct.pack(f"!{len(chunks)}H", *chunks) + octets


def _mixed(deltas: Ints, small: Ints) -> bytes:
    """Deltas of one byte and of two (section 3.1.5)."""
    sizes = np.where(small, 1, 2)
    ends = np.cumsum(sizes)
    octets = np.zeros(int(ends[-1]), np.uint8)
    octets[ends - 1] = deltas & 0xFF
    octets[ends[~small] - 2] = deltas[~small] >> 8 & 0xFF
    return octets.tobytes()


class EngineFeedback:
    """The feedback of one transport, sent when ``due`` says. ``send`` takes one RTCP packet and raises nothing.

    ``arrivals`` takes the transport-wide sequence numbers; ``requests`` are the NACK and key frame requests.
    """

    def __init__(
        self,
        send: Callable[[bytes], None],
        statistics: StreamCounters,
        *,
        ssrc: int,
        cname: str,
        started: float,
        requests: Requests,
    ) -> None:
        self._send = send
        self._ssrc = ssrc
        self._cname = cname
        self._requests = requests
        self._reports = ReceiverReports(statistics)
        self.arrivals = BatchRecorder()
        #: The stream of the last packet with a transport-wide sequence number.
        self.media_ssrc = 0
        self._next_feedback = started + FEEDBACK_INTERVAL
        self._next_report = started + REPORT_INTERVAL
        #: When ``due`` is to be called (seconds, monotonic).
        self.deadline = started
        #: RTCP packets that could not be read.
        self.malformed = 0

    def rtcp(self, data: bytes, now: float) -> list[rtcp.Packet]:
        """Take one RTCP packet: sender reports give the round trip its reference. Returns what was in it."""
        try:
            packets = rtcp.parse(data)
        except rtcp.RtcpError:
            self.malformed += 1
            return []
        for packet in packets:
            self._reports.feed(packet, now)
        return packets

    def hurry(self) -> None:
        """There may be a request that is due before the deadline."""
        self.deadline = 0.0

    def due(self, now: float) -> None:
        """Send what is due: feedback ten times a second, reports once, requests at their deadlines."""
        if now >= self._next_feedback:
            self._next_feedback = _next(self._next_feedback, FEEDBACK_INTERVAL, now)
            for packet in self.arrivals.build(self._ssrc, self.media_ssrc, now):
                self._send(packet)
        if now >= self._next_report:
            self._next_report = _next(self._next_report, REPORT_INTERVAL, now)
            for packet in self.reports(now):
                self._send(packet)
        if now >= self._requests.next_deadline():
            for packet in _joined(self._requests.due(now)):
                self._send(packet)
        self.deadline = min(self._next_feedback, self._next_report, self._requests.next_deadline())

    def reports(self, now: float) -> list[bytes]:
        """Receiver reports, each with the CNAME."""
        blocks = self._reports.blocks(now)
        compound = rtcp.sdes(self._ssrc, self._cname)
        return [
            rtcp.receiver_reports(self._ssrc, blocks[start : start + rtcp.MAX_BLOCKS]) + compound
            for start in range(0, max(1, len(blocks)), rtcp.MAX_BLOCKS)
        ]


def _joined(packets: list[bytes]) -> list[bytes]:
    """As few datagrams as the packets fit in (RFC 5506): each costs encryption and a system call."""
    joined: list[bytes] = []
    for packet in packets:
        if joined and len(joined[-1]) + len(packet) <= _MAX_DATAGRAM:
            joined[-1] += packet
        else:
            joined.append(packet)
    return joined


def _next(due: float, interval: float, now: float) -> float:
    """The next time of a series; what was missed is not made up for."""
    return due + interval if due + interval > now else now + interval
