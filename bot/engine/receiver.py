"""One receiver for all media transports of an event loop: a tick reads all sockets, one pass counts what came."""

from __future__ import annotations

import asyncio
import random
import select
import time
from bisect import bisect_left, insort
from collections.abc import Callable
from contextlib import suppress
from typing import Any
from weakref import WeakKeyDictionary

import numpy as np
import structlog
from numpy.typing import NDArray

from bot.bridge.rtp import RtpError, RtpHeader, is_rtcp, is_rtp_or_rtcp, parse_header, transport_sequence
from bot.engine import mmsg
from bot.engine.feedback import EngineFeedback
from bot.engine.inbound import RTX, EngineInbound
from bot.engine.path import MediaPath
from bot.engine.table import LAYOUT_AT, LAYOUT_BYTES, StreamRow, StreamTable

log = structlog.get_logger(__name__)

#: Seconds between two readings of the sockets. While they bring few packets, in all or from each, and nothing is
#: decoded, waking up and asking costs more than they do: then it is ``_LIGHT`` times as long. Arrivals are the
#: kernel's anyway.
TICK = 0.01
FEW = 96
FEW_OF_ONE = 10
_LIGHT = 3
#: Readings of one socket in one tick: who sends more than that has its turn in the next.
_READINGS = 4
#: A tick that is later than this (seconds) is counted: the process can't keep up.
LATE = 0.02
_SETTLE_INTERVAL = 1.0
_DROPS_INTERVAL = 1.0
#: So many packets of a stream in a batch may be a key frame, which tells the picture's size.
_MANY = 5
_MAX_TRANSPORTS = 0x7FFF
_MIN_PACKET = 12
#: The first two bytes of RTP without the marker bit.
_KIND = np.frombuffer(b"\xff\x7f", np.uint16)[0]
#: Packets of a stream that is counted in batches are unprotected now and then, one of so many of all, lest SRTP
#: lose track of the roll-over counter (RFC 3711 section 3.3.1): that takes 32768 in a row of one stream.
_SYNC_INTERVAL = 256
_LOGGED_FAULTS = 10

Ints = NDArray[Any]


class Attachment:
    """A transport whose packets a receiver reads. ``feedback`` goes out by itself."""

    def __init__(
        self,
        receiver: Receiver,
        *,
        number: int,
        inbound: EngineInbound,
        path: MediaPath,
        feedback: EngineFeedback,
        on_rtcp: Callable[[bytes], None],
    ) -> None:
        self._receiver = receiver
        self.number = number
        self.inbound = inbound
        self.path = path
        self.feedback = feedback
        self.on_rtcp = on_rtcp
        self.fileno = -1
        self.attached = True
        #: Datagrams that the socket's full buffer turned away while it was attached.
        self.overflow = 0
        self.dropped_before = 0

    def __repr__(self) -> str:
        return f"<Attachment {self.number} {self.path!r} {'attached' if self.attached else 'detached'}>"

    def detach(self) -> None:
        """Stop reading; the socket is watched by the event loop again. May be called at any time, and twice."""
        self._receiver.detach(self)


class Receiver:
    """Reads the sockets of all attached transports every ``TICK`` seconds; it does nothing while there is none.

    ``buffer`` and ``clock`` (monotonic seconds) are for tests.
    """

    def __init__(
        self, *, buffer: mmsg.DatagramBuffer | None = None, clock: Callable[[], float] = time.monotonic
    ) -> None:
        self._clock = clock
        self._buffer = buffer or mmsg.make_buffer()
        self.table = StreamTable(self._buffer.capacity)
        self._attachments: dict[int, Attachment] = {}
        self._by_fileno: dict[int, Attachment] = {}
        self._next_number = 1
        #: Both only while there is something to read.
        self._loop: asyncio.AbstractEventLoop | None = None
        self._poller: Any = None
        self._timer: asyncio.TimerHandle | None = None
        self._due = 0.0
        self._few = False
        #: Transports of which something is decoded.
        self._decoding = 0
        #: Ticks, those that came late, and the worst of it (seconds).
        self.ticks = 0
        self.late_ticks = 0
        self.worst_lateness = 0.0
        #: Packets read, and passes over them.
        self.packets = 0
        self.passes = 0
        #: Datagrams whose handling failed.
        self.faults = 0
        self._overflow_before = 0
        self._settle_at = self._drops_at = 0.0
        self._read_at = self._clock()
        self._prepare()

    def __repr__(self) -> str:
        return f"<Receiver {len(self._attachments)} transports {len(self.table)} streams>"

    @property
    def overflow(self) -> int:
        """Datagrams that full socket buffers turned away: the process could not keep up."""
        return self._overflow_before + sum(item.overflow for item in self._attachments.values())

    def _prepare(self) -> None:
        """Views of the header fields of all slots, and what is kept of each between reading and counting."""
        capacity, step = self._buffer.capacity, mmsg.SLOT_BYTES

        def view(kind: str, offset: int) -> Ints:
            return np.ndarray((capacity,), kind, self._buffer.data, offset, (step,))

        # As they stand in memory: they are only compared.
        self._kinds, self._ssrcs = view("=u2", 0), view("=u4", 8)
        self._sequences, self._stamps, self._seconds = view(">u2", 2), view(">u4", 4), view("u1", 1)
        self._elements: Ints = np.ndarray(
            (capacity, LAYOUT_BYTES // 8), np.uint64, self._buffer.data, LAYOUT_AT, (step, 8)
        )
        #: The two bytes at any place.
        self._pairs: Ints = np.ndarray((capacity * step - 1,), ">u2", self._buffer.data, 0, (1,))
        self._begins = np.arange(capacity, dtype=np.int64) * step
        #: SSRC, kind and transport of each packet: what :func:`bot.engine.table.flow_key` makes of a packet.
        self._keys = np.zeros(capacity, np.int64)
        parts = self._keys.view(np.uint16).reshape(capacity, 4)
        self._key_ssrcs = self._keys.view(np.uint32).reshape(capacity, 2)[:, 0]
        self._key_kinds, self._key_numbers = parts[:, 2], parts[:, 3]
        self._flows = np.zeros(capacity, np.int64)
        self._fields = np.zeros((4, capacity), np.int64)
        #: Slots are filled, then looked up, then counted.
        self._filled = self._looked = self._counted = 0
        self._unseen = 0
        self._rare: list[int] = []
        #: By place in the batch: packets whose header extension is built otherwise than that of the one before.
        self._odd: dict[int, tuple[StreamRow, bytes, RtpHeader]] = {}
        self._segments: list[tuple[Attachment, int, int]] = []
        self._single: list[tuple[int, int]] = []
        self._repairs: list[tuple[EngineInbound, bytes]] = []
        self._now = self._floor = 0.0

    # --- transports ----------------------------------------------------------------------------------------

    def attach(
        self,
        inbound: EngineInbound,
        path: MediaPath,
        *,
        cname: str,
        on_rtcp: Callable[[bytes], None] = lambda _: None,
    ) -> Attachment:
        """Read the path's socket from now on, and send feedback.

        ``inbound`` was made with this receiver's ``table``. ``on_rtcp`` takes each RTCP packet, unprotected; any
        other datagram goes to the socket's protocol. Raises ValueError for a path that has no socket of its own,
        or one that is closed.
        """
        socket = path.socket
        if socket is None or socket.is_closing():
            raise ValueError("Only an open EngineSocket can be read by the receiver")
        if inbound.table is not self.table:
            raise ValueError("The inbound half has another receiver's table")
        now = self._clock()
        number = self._number()
        feedback = EngineFeedback(
            path.send_rtcp,
            inbound.statistics,
            ssrc=inbound.ssrc,
            cname=cname,
            started=now - number % 10 * TICK,  # spread over the ticks
            requests=inbound,
        )
        attachment = Attachment(
            self, number=number, inbound=inbound, path=path, feedback=feedback, on_rtcp=on_rtcp
        )
        inbound.hurry = feedback.hurry
        inbound.attached(number, path)
        socket.hand_over()
        socket.on_close = attachment.detach
        attachment.fileno = socket.fileno()
        attachment.dropped_before = socket.dropped()
        if not self._attachments:
            self._begin(now)
        self._attachments[number] = self._by_fileno[attachment.fileno] = attachment
        self._decoding += inbound.decoders.active
        if self._poller is not None:
            self._poller.register(attachment.fileno, select.EPOLLIN)
        return attachment

    def _begin(self, now: float) -> None:
        self._loop = asyncio.get_running_loop()
        self._poller = select.epoll() if hasattr(select, "epoll") else None
        self._read_at = now
        self._schedule(now)

    def _end(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
        if self._poller is not None:
            self._poller.close()
        self._loop = self._timer = self._poller = None

    def _number(self) -> int:
        if len(self._attachments) >= _MAX_TRANSPORTS:
            raise ValueError(f"More than {_MAX_TRANSPORTS} transports at one receiver")
        while self._next_number in self._attachments:
            self._next_number = self._next_number % _MAX_TRANSPORTS + 1
        number, self._next_number = self._next_number, self._next_number % _MAX_TRANSPORTS + 1
        return number

    def detach(self, attachment: Attachment) -> None:
        """Stop reading a transport. What was counted stays in its inbound half until that is released."""
        if not attachment.attached:
            return
        attachment.attached = False
        self._note_drops(attachment)
        self._overflow_before += attachment.overflow
        del self._attachments[attachment.number], self._by_fileno[attachment.fileno]
        self._decoding -= attachment.inbound.decoders.active
        if self._poller is not None:
            with suppress(OSError):
                self._poller.unregister(attachment.fileno)
        attachment.inbound.attached(0, None)
        if (socket := attachment.path.socket) is not None:
            socket.on_close = None
            socket.take_back()
        if not self._attachments:
            self._end()

    def close(self) -> None:
        """Detach all; may be called twice."""
        for attachment in list(self._attachments.values()):
            self.detach(attachment)

    # --- ticks ---------------------------------------------------------------------------------------------

    def _schedule(self, now: float) -> None:
        # A timer may fire a little early: the next tick is that of the grid after the last one, all the same.
        self._due = max(self._due + TICK * (_LIGHT if self._few else 1), (now // TICK + 1) * TICK)
        if self._loop is not None:
            self._timer = self._loop.call_at(self._loop.time() + self._due - now, self._tick)

    def _tick(self) -> None:
        now = self._clock()
        late = now - self._due
        self.worst_lateness = max(self.worst_lateness, late)
        self.late_ticks += late > LATE
        self._timer = None
        try:
            self.poll(now)
        finally:
            if self._attachments and self._timer is None:
                self._schedule(self._clock())

    def poll(self, now: float) -> None:
        """Read and handle what waits, and send the feedback that is due. ``now`` is monotonic."""
        self.ticks += 1
        before = self.packets
        if self._poller is None:
            ready = list(self._attachments.values())
        else:
            ready = [self._by_fileno[fileno] for fileno, _ in self._poller.poll(0) if fileno in self._by_fileno]
        read_at = self._clock()
        for attachment in ready:
            self._drain(attachment)  # it may end all attachments
        if self._filled > self._looked:
            self._look(now)
        self._read_at = read_at
        if self._filled:
            self._pass(now)
        few = max(FEW, FEW_OF_ONE * len(ready))
        self._few = self.packets - before < few and not self._decoding
        for attachment in [item for item in self._attachments.values() if item.feedback.deadline <= now]:
            try:
                attachment.feedback.due(now)
            except Exception:
                if self._is_told():
                    log.exception("Feedback could not be sent", event_name="feedback_failed")
        self._housekeeping(now)

    def _housekeeping(self, now: float) -> None:
        if now >= self._settle_at:
            self._settle_at = now + _SETTLE_INTERVAL
            self.table.settle()
            if not self._filled:
                self.table.recycle()
        if now >= self._drops_at:
            self._drops_at = now + _DROPS_INTERVAL
            for attachment in self._attachments.values():
                self._note_drops(attachment)

    @staticmethod
    def _note_drops(attachment: Attachment) -> None:
        socket = attachment.path.socket
        if socket is not None and socket.fileno() >= 0:
            attachment.overflow = socket.dropped() - attachment.dropped_before

    def _is_told(self) -> bool:
        """Count a fault; whether it is among the first, which are logged."""
        self.faults += 1
        return self.faults <= _LOGGED_FAULTS

    def _drain(self, attachment: Attachment) -> None:
        socket, buffer = attachment.path.socket, self._buffer
        for _ in range(_READINGS):
            if not attachment.attached or socket is None:
                return  # what came before was handled meanwhile, and detached it
            start = self._filled
            try:
                count = buffer.receive(socket.socket, start)
            except OSError as error:
                socket.refused(error)
                continue
            if count:
                stop = self._filled = start + count
                self._key_numbers[start:stop] = attachment.number
                self._segments.append((attachment, start, stop))
            if self._filled < buffer.capacity:
                return
            self._look(self._clock())
            self._pass(self._clock())

    # --- packets -------------------------------------------------------------------------------------------

    def _look(self, now: float) -> None:
        """Look up whose the new packets are; what is no media that is counted in batches is handled here."""
        start, stop = self._looked, self._filled
        self._now = now
        if not start:
            self._floor = self._read_at
        self._key_ssrcs[start:stop] = self._ssrcs[start:stop]
        np.bitwise_and(self._kinds[start:stop], _KIND, out=self._key_kinds[start:stop])
        flows = self._flows[start:stop]
        flows[:] = [*map(self.table.flows.__getitem__, self._keys[start:stop].tolist())]
        self.packets += stop - start
        self._looked = stop
        self._rare = (start + (flows <= 0).nonzero()[0]).tolist()
        if self._rare:
            self._handle()

    def _handle(self) -> None:
        segments = self._segments
        stops = [stop for _, _, stop in segments]
        for slot in self._rare:  # it grows behind the one that is handled
            attachment = segments[bisect_left(stops, slot + 1)][0]
            if not attachment.attached:
                continue
            try:
                self._one(attachment, slot, int(self._flows[slot]))
            except Exception:
                if self._is_told():
                    log.exception("A datagram could not be handled", event_name="datagram_failed")

    def _one(self, attachment: Attachment, slot: int, flow: int) -> None:
        data = self._buffer.datagram(slot)
        if flow < 0:
            row = self.table.rows[-flow]
            if row is None:
                return
            if not row.special & RTX:
                row.owner.look(row, data, self._now)
            elif (unprotected := attachment.path.unprotect(data)) is not None:
                self._repairs.append((attachment.inbound, unprotected))
        elif not is_rtp_or_rtcp(data):
            self._deliver(attachment, slot, data)
        elif is_rtcp(data):
            if (unprotected := attachment.path.unprotect_rtcp(data)) is not None:
                attachment.on_rtcp(unprotected)
        else:
            self._single_packet(attachment, slot, data)

    def _deliver(self, attachment: Attachment, slot: int, data: bytes) -> None:
        socket = attachment.path.socket
        if data and socket is not None:
            socket.deliver(data, self._buffer.address(slot))

    def _single_packet(self, attachment: Attachment, slot: int, protected: bytes) -> None:
        """A packet of a new stream, or one that a batch can't count."""
        inbound = attachment.inbound
        data = attachment.path.unprotect(protected)
        if data is None:
            return
        try:
            header = parse_header(data)
        except RtpError:
            inbound.statistics.ignored += 1
            return
        known = inbound.format_of(header.payload_type)
        row = inbound.statistics.streams.get(header.ssrc)
        if known is not None and known.transport_cc is not None:
            sequence = transport_sequence(data, header, known.transport_cc)
            if sequence is not None:
                self._single.append((slot, sequence))
        if row is not None and self._waits(row, slot):
            self._count(slot)  # its packets before this one are counted first
        before = None if row is None else (row.format, row.key)
        if inbound.packet(data, header, float(self._arrivals(slot, slot + 1)[0]), postpone=True):
            self._repairs.append((inbound, data))
        if row is not None and (row.format, row.key) != before:
            self._take_singly(row, slot)

    def _take_singly(self, row: StreamRow, slot: int) -> None:
        """The stream is another now: what was looked up of it before that is looked at anew."""
        flows = self._flows[slot + 1 : self._looked]
        for place in (flows == row.index).nonzero()[0].tolist():
            insort(self._rare, slot + 1 + place)
        flows[np.abs(flows) == row.index] = 0  # negative ones are among the rare ones already

    def _arrivals(self, start: int, stop: int) -> Ints:
        """When packets came. The system's clock may be set: what waits came after the reading before the last."""
        times: Ints = self._buffer.arrivals(start, stop)
        np.maximum(times, self._floor, out=times)
        np.minimum(times, max(self._now, self._clock()), out=times)
        return times

    def _waits(self, row: StreamRow, slot: int) -> bool:
        flows = self._flows[self._counted : slot]
        return bool(((flows == row.index) | (flows == -row.index)).any())

    def _pass(self, now: float) -> None:
        """Count all that was looked up; then the slots are free."""
        self._count(self._looked)
        repairs, self._repairs = self._repairs, []
        for inbound, data in repairs:
            try:
                inbound.repair(data, now)
            except Exception:
                if self._is_told():
                    log.exception("A datagram could not be handled", event_name="datagram_failed")
        if self._looked < self._filled:
            return
        self._buffer.release(self._filled)
        self._filled = self._looked = self._counted = 0
        self._segments.clear()
        self._single.clear()
        self.table.recycle()

    def _count(self, stop: int) -> None:
        start = self._counted
        if start >= stop:
            return
        self._counted = stop
        self.passes += 1
        table = self.table
        flows = self._flows[start:stop]
        rows = np.abs(flows)
        times = self._arrivals(start, stop)
        self._feedback(start, stop, rows, times)
        packets = self._fields[:, : stop - start]
        packets[0] = self._sequences[start:stop]
        packets[1] = self._stamps[start:stop]
        np.right_shift(self._seconds[start:stop], 7, out=packets[2])
        packets[3] = self._buffer.sizes[start:stop]
        self._synchronise(start, stop)
        smallest = {place: header.length + row.owner.overhead for place, (row, _, header) in self._odd.items()}
        order, starts, counts = table.batch(rows, packets, times, smallest)
        for row, data, header in self._odd.values():
            row.owner.relearn(row, data, header)
        self._odd.clear()
        if order.size and int(counts.max()) >= _MANY:
            self._glimpse(start, rows, order, starts, counts)

    def _feedback(self, start: int, stop: int, rows: Ints, times: Ints) -> None:
        """Note the transport-wide sequence numbers."""
        table = self.table
        elements = table.masks.take(rows, axis=0)
        np.bitwise_and(elements, self._elements[start:stop], out=elements)
        expected = table.values.take(rows, axis=0)
        offsets = table.offsets.take(rows)
        lacking = set((offsets == 0).nonzero()[0].tolist())
        offsets += self._begins[start:stop]
        sequences = self._pairs[offsets]
        if elements.tobytes() != expected.tobytes():  # much faster than numpy's comparison of a few
            for place in (elements != expected).any(axis=1).nonzero()[0].tolist():
                self._reread(start + place, int(rows[place]), sequences, lacking, place)
        for slot, sequence in self._single:
            if start <= slot < stop:
                sequences[slot - start] = sequence
                lacking.discard(slot - start)
        without = sorted(lacking)
        for attachment, begin, end in self._segments:
            first, last = max(begin, start) - start, min(end, stop) - start
            if first < last:
                found, arrivals, newest = _present(sequences, times, without, first, last)
                if found.size:
                    attachment.feedback.arrivals.record(found, arrivals)
                    newest_ssrc = self._ssrcs[start + newest]
                    attachment.feedback.media_ssrc = int.from_bytes(newest_ssrc.tobytes(), "big")

    def _reread(self, slot: int, index: int, sequences: Ints, lacking: set[int], place: int) -> None:
        """A packet whose header extension is built otherwise than that of the one before it."""
        row = self.table.rows[index]
        lacking.add(place)
        if row is None or row.format is None:
            return
        data = self._buffer.datagram(slot)
        try:
            header = parse_header(data)
        except RtpError:
            return
        ext_id = row.format.transport_cc
        sequence = None if ext_id is None else transport_sequence(data, header, ext_id)
        if sequence is not None:
            sequences[place] = sequence
            lacking.discard(place)
        self._odd[place] = (row, data, header)

    def _synchronise(self, start: int, stop: int) -> None:
        self._unseen += stop - start
        while self._unseen >= _SYNC_INTERVAL:
            self._unseen -= _SYNC_INTERVAL
            slot = random.randrange(start, stop)
            row = self.table.rows[max(0, int(self._flows[slot]))]
            if row is not None and row.owner.path is not None:
                row.owner.path.glance(self._buffer.datagram(slot))

    def _glimpse(self, start: int, rows: Ints, order: Ints, starts: Ints, counts: Ints) -> None:
        """Look into the first packet of frames that are much larger than usual: they may be key frames."""
        for segment in (counts >= _MANY).nonzero()[0].tolist():
            first, count = int(starts[segment]), int(counts[segment])
            row = self.table.rows[int(rows[order[first]])]
            if row is None or row.special or row.format is None or row.format.codec != "vp8":
                continue
            now = self._now
            if now >= row.size_due and count >= 2 + 2 * row.packets / max(1, row.frames):
                slots = [start + place for place in order[first : first + count].tolist()]
                row.owner.glimpse(row, self._buffer.datagram(self._largest(slots)), now)

    def _largest(self, slots: list[int]) -> int:
        """The first packet of the frame that most of ``slots`` are of."""
        sizes: dict[int, int] = {}
        begins: dict[int, int] = {}
        for slot in slots:
            stamp = int(self._stamps[slot])
            sizes[stamp] = sizes.get(stamp, 0) + 1
            begins.setdefault(stamp, slot)
        return begins[max(sizes, key=sizes.__getitem__)]


_receivers: WeakKeyDictionary[asyncio.AbstractEventLoop, Receiver] = WeakKeyDictionary()


def running_receiver() -> Receiver:
    """The receiver of the running event loop."""
    loop = asyncio.get_running_loop()
    found = _receivers.get(loop)
    if found is None:
        found = _receivers[loop] = Receiver()
    return found


def _present(sequences: Ints, times: Ints, lacking: list[int], first: int, last: int) -> tuple[Ints, Ints, int]:
    """Of the packets from ``first`` to ``last`` those with a number, their times, and the place of the newest."""
    low, high = bisect_left(lacking, first), bisect_left(lacking, last)
    if low == high:
        return sequences[first:last], times[first:last], last - 1
    present = np.array(sorted(set(range(first, last)).difference(lacking[low:high])), np.int64)
    return sequences.take(present), times.take(present), int(present[-1]) if present.size else first
