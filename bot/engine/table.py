"""Statistics of all streams of all participants in one structure of arrays, a batch of packets at a time.

What :mod:`bot.bridge.receive` does for one packet (RFC 3550 appendix A) is done here for whole batches with numpy,
with the same results. Only what is rare goes packet by packet: gaps, late packets, packets without media.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Mapping, Sequence
from types import MappingProxyType
from typing import Any

import numpy as np
from numpy.typing import NDArray

from bot.bridge.nack import NackTracker
from bot.bridge.payloads import PayloadFormat
from bot.bridge.receive import MAX_DROPOUT, MAX_MISORDER
from bot.bridge.rtp import RtpHeader, extensions, unwrap_sequence
from bot.jingle.model import Media
from bot.media import freezes

#: Bytes of a packet that a layout looks at, from the profile of the header extension on.
LAYOUT_AT, LAYOUT_BYTES = 12, 24
_SLOTS_PER_SECOND = 5
_SLOTS = _SLOTS_PER_SECOND + 1
_FIRST_ROWS = 256
_NONE = -1
_WRAPPED = 2.0**31
Ints = NDArray[Any]
Floats = NDArray[Any]


class Layout:
    """Where the transport-wide sequence number stands in packets whose header extension is built alike.

    ``mask`` and ``value`` say which bytes from ``LAYOUT_AT`` on prove it; ``offset`` is that of the number, 0
    where there is none. ``known`` is False where the bytes that are looked at don't reach it.
    """

    __slots__ = ("known", "length", "mask", "offset", "value")

    def __init__(self, data: bytes, header: RtpHeader, ext_id: int | None) -> None:
        mask, value = bytearray(LAYOUT_BYTES), bytearray(LAYOUT_BYTES)
        self.offset, self.length, self.known = 0, header.length, True
        fixed: list[int] = []
        if header.profile:
            fixed += range(LAYOUT_AT, LAYOUT_AT + 4)
            if ext_id is not None:
                fixed += self._elements(data, header, ext_id)
        for at in fixed:
            if at - LAYOUT_AT >= LAYOUT_BYTES:
                self.known = False
                break
            mask[at - LAYOUT_AT], value[at - LAYOUT_AT] = 0xFF, data[at]
        self.mask = np.frombuffer(bytes(mask), np.uint64)
        self.value = np.frombuffer(bytes(value), np.uint64)

    def _elements(self, data: bytes, header: RtpHeader, ext_id: int) -> list[int]:
        """The bytes that are no values, up to the number or, where there is none, to the end."""
        values: set[int] = set()
        for found, start, end in extensions(data, header):
            if found == ext_id:
                self.offset = start if end - start >= 2 else 0
                return [at for at in range(header.extensions_start, start) if at not in values]
            values.update(range(start, end))
        return [at for at in range(header.extensions_start, header.extensions_end) if at not in values]


class StreamRow:
    """One received stream: a view of its row, with the words of :class:`bot.bridge.receive.StreamStats`."""

    __slots__ = (
        "counted_from",
        "format",
        "index",
        "key",
        "kind",
        "on_hole",
        "owner",
        "payload_type",
        "size",
        "size_due",
        "special",
        "ssrc",
        "table",
        "tracked",
        "tracker",
        "watched",
    )

    def __init__(self, table: StreamTable, index: int, ssrc: int, payload_type: int) -> None:
        self.table = table
        self.index = index
        self.ssrc = ssrc
        self.payload_type = payload_type
        self.format: PayloadFormat | None = None
        #: Whose stream it is, for the receiver.
        self.owner: Any = None
        #: Its key among the flows, None while all its packets are taken singly.
        self.key: int | None = None
        #: Why packets are looked at singly although they are counted in batches; 0 for no reason.
        self.special = 0
        self.watched = _NONE
        self.tracker: NackTracker | None = None
        #: How far the tracker was told of packets in order.
        self.tracked = 0
        self.on_hole: Callable[[StreamRow], None] | None = None
        #: Media of its bytes, and how many there were before they were of this.
        self.kind: Media | None = None
        self.counted_from = 0
        #: Width and height of the newest picture whose size was seen, and when to look again.
        self.size: tuple[int, int] | None = None
        self.size_due = 0.0

    def __repr__(self) -> str:
        return f"<StreamRow {self.ssrc} packets {self.packets} lost {self.lost}>"

    @property
    def first(self) -> float:
        """When the first packet came."""
        return float(self.table.first[self.index])

    @property
    def last(self) -> float:
        """When the last packet came."""
        return float(self.table.last[self.index])

    @property
    def clock_rate(self) -> int:
        """The RTP clock in Hz."""
        return int(self.table.clock[self.index])

    @property
    def packets(self) -> int:
        """All that came."""
        return int(self.table.packets[self.index])

    @property
    def padding(self) -> int:
        """Those without media."""
        return int(self.table.padding[self.index])

    @property
    def bytes(self) -> int:
        """Bytes of whole packets with media."""
        return int(self.table.bytes[self.index])

    @property
    def frames(self) -> int:
        """Frames that ended."""
        return int(self.table.frames[self.index])

    @property
    def reordered(self) -> int:
        """Packets that came late."""
        return int(self.table.reordered[self.index])

    @property
    def jitter(self) -> float:
        """Interarrival jitter in units of the RTP clock."""
        return float(self.table.jitter[self.index])

    @property
    def jitter_seconds(self) -> float:
        """Interarrival jitter in seconds."""
        return self.jitter / self.clock_rate

    @property
    def highest(self) -> int:
        """Highest sequence number, with its cycles."""
        return int(self.table.highest[self.index])

    @property
    def expected(self) -> int:
        """Packets that were sent as far as the sequence numbers tell."""
        return self.highest - int(self.table.base[self.index]) + 1 if self.packets else 0

    @property
    def lost(self) -> int:
        """Cumulative loss; duplicates can't make it negative."""
        return max(0, self.expected - self.packets)

    @property
    def first_frame(self) -> float | None:
        """When the first frame was complete, None before."""
        value = float(self.table.first_frame[self.index])
        return None if value != value else value  # noqa: PLR0124 - NaN

    @first_frame.setter
    def first_frame(self, value: float | None) -> None:
        self.table.first_frame[self.index] = np.nan if value is None else value

    @property
    def freezes(self) -> int:
        """Gaps in the arrival of frames (:mod:`bot.media.freezes`): a player's buffer would hide the shortest."""
        self.table.settle()
        return int(self.table.freezes[self.index])

    @property
    def frozen(self) -> float:
        """Seconds of these gaps (webrtc-stats, totalFreezesDuration)."""
        self.table.settle()
        return float(self.table.frozen[self.index])

    def bitrate(self, now: float) -> float:
        """Media in bit/s, over the last second in whole fifths."""
        return 8.0 * self._rate(self.table.byte_slots, now)

    def frame_rate(self, now: float) -> float:
        """Frames per second, over the last second in whole fifths."""
        return self._rate(self.table.frame_slots, now)

    def _rate(self, slots: Ints, now: float) -> float:
        table = self.table
        table.advance(int(now * _SLOTS_PER_SECOND))
        column = slots[:, self.index]
        return float(column.sum() - column[table.slot % _SLOTS])

    # --- packet by packet ----------------------------------------------------------------------------------

    def begin(self, sequence: int, now: float, clock_rate: int) -> None:
        """Begin with the stream's first packet."""
        table, row = self.table, self.index
        table.highest[row] = table.base[row] = sequence
        table.first[row] = table.last[row] = now
        table.clock[row] = clock_rate
        self.tracked = sequence

    def repaired(self, sequence: int) -> bool:
        """Note a retransmission; True when the packet was missing."""
        tracker = self.tracker
        if tracker is None:
            return False
        if self.table.next_sequence[self.index] >= 0:
            tracker.in_order(self.highest - self.tracked)
            self.tracked = self.highest
        return tracker.repaired(sequence)

    def count(
        self, sequence: int, timestamp: int, size: int, now: float, *, frame_ends: bool, empty: bool = False
    ) -> None:
        """Count one packet, as :meth:`bot.bridge.receive.ReceiveStatistics.count` does."""
        table, row = self.table, self.index
        table.packets[row] += 1
        table.last[row] = now
        self.sequences((sequence,), (now,))
        if empty:
            table.padding[row] += 1
            return
        self._time(timestamp, now)
        self.media(size, now, frame_ends=frame_ends)

    def follow(self, tracker: NackTracker | None) -> None:
        """Tell another tracker, or none, of packets from now on."""
        if self.tracker is tracker:
            return
        if self.tracker is not None and self.table.next_sequence[self.index] >= 0:
            self.tracker.in_order(self.highest - self.tracked)
        self.tracker, self.tracked = tracker, self.highest
        self.table.next_sequence[self.index] = _NONE  # until both agree on what comes next

    def sequences(self, sequences: Sequence[int], times: Sequence[float]) -> None:
        """Take sequence numbers that may be in any order; the tracker hears of each."""
        table, row = self.table, self.index
        highest, base = int(table.highest[row]), int(table.base[row])
        anew = int(table.expected_anew[row])
        tracker, holes = self.tracker, False
        given_up = tracker.given_up if tracker is not None else 0
        if tracker is not None and table.next_sequence[row] >= 0:
            tracker.in_order(highest - self.tracked)
        for sequence, now in zip(sequences, times, strict=True):
            if tracker is not None and tracker.received(sequence, now):
                holes = True
            if sequence == (highest + 1) & 0xFFFF:
                highest += 1
                continue
            extended = unwrap_sequence(sequence, highest)
            if not -MAX_MISORDER <= extended - highest <= MAX_DROPOUT:
                if sequence == anew:
                    expected = highest - base + 1
                    highest, base = sequence, sequence - expected - 1
                anew = (sequence + 1) & 0xFFFF
            elif extended > highest:
                highest = extended
            elif extended < highest:
                table.reordered[row] += 1
                base = min(base, extended)
        table.highest[row], table.base[row], table.expected_anew[row] = highest, base, anew
        # In batches only while both see the same packet as the next one.
        after = (highest + 1) & 0xFFFF
        table.next_sequence[row] = after if tracker is None or tracker.expects(after) else _NONE
        self.tracked = highest
        if tracker is not None and self.on_hole is not None and (holes or tracker.given_up != given_up):
            self.on_hole(self)

    def media(self, size: int, now: float, *, frame_ends: bool) -> None:
        """Count the media in a packet of ``size`` bytes."""
        table, row = self.table, self.index
        table.bytes[row] += size
        slot = int(now * _SLOTS_PER_SECOND)
        table.advance(slot)
        if slot > table.slot - _SLOTS:
            table.byte_slots[slot % _SLOTS, row] += size
        if frame_ends:
            table.frames[row] += 1
            if slot > table.slot - _SLOTS:
                table.frame_slots[slot % _SLOTS, row] += 1
            if self.first_frame is None:
                self.first_frame = now
            if table.video[row]:
                table.frame_ended(row, now)

    def _time(self, timestamp: int, now: float) -> None:
        table, row = self.table, self.index
        transit = now * float(table.clock[row]) - timestamp
        difference = abs(transit - float(table.transit[row]))
        if difference < _WRAPPED:  # False for the first, whose predecessor is NaN
            table.jitter[row] += (difference - float(table.jitter[row])) / 16
        table.transit[row] = transit

    def learn(self, layout: Layout, overhead: int) -> None:
        """Expect packets built like this one; ``overhead`` is what SRTP adds."""
        table, row = self.table, self.index
        table.masks[row], table.values[row] = layout.mask, layout.value
        table.offsets[row] = layout.offset
        table.smallest[row] = layout.length + overhead
        table.overhead[row] = overhead
        table.smallest_of_all = max(table.smallest_of_all, layout.length + overhead)

    def of(self, format_: PayloadFormat | None) -> None:
        """The stream carries this format from now on."""
        self.format = format_
        self.table.sound[self.index] = format_ is not None and format_.media == "audio"
        self.table.video[self.index] = format_ is not None and format_.media == "video" and format_.apt is None


def flow_key(number: int, data: bytes) -> int:
    """The key of packets that begin like ``data`` but for the marker bit, of one SSRC and transport."""
    kind = bytes((data[0], data[1] & 0x7F))
    return int.from_bytes(data[8:12] + kind + number.to_bytes(2, sys.byteorder), sys.byteorder)


class Flows(dict[int, int]):
    """Rows of packets by transport, first bytes and SSRC: negative where each is looked at, too; 0 for no row."""

    def __missing__(self, key: int) -> int:
        return 0


class StreamTable:
    """All rows. Row 0 is nobody's: packets that are taken singly fall on it. ``settle`` ends what was put off."""

    def __init__(self, capacity: int = 1024) -> None:
        self.rows: list[StreamRow | None] = [None]
        self.flows = Flows()
        self._free: list[int] = []
        self._resting: list[int] = []
        #: The newest fifth of a second.
        self.slot = 0
        self.smallest_of_all = 0
        self._frame_rows: list[Ints] = []
        self._frame_times: list[Floats] = []
        self._size = _FIRST_ROWS
        self._allocate()
        # A geometric series: what a difference weighs in the jitter after so many others.
        self._weights = (15 / 16) ** np.arange(capacity + 1, dtype=np.float64)
        self._index = np.arange(capacity + 1)
        self._changes = np.ones(capacity, np.bool_)
        self._before = np.empty(capacity, np.float64)
        self._next = np.empty(capacity, np.int64)

    def __repr__(self) -> str:
        return f"<StreamTable {len(self)} streams>"

    def __len__(self) -> int:
        return len(self.rows) - 1 - len(self._free) - len(self._resting)

    def _allocate(self) -> None:
        """The columns; what a new row has in them is in ``_defaults``."""
        size = self._size
        self.packets, self.padding, self.bytes = (np.zeros(size, np.int64) for _ in range(3))
        self.frames, self.reordered, self.highest = (np.zeros(size, np.int64) for _ in range(3))
        self.base, self.offsets, self.overhead = (np.zeros(size, np.int64) for _ in range(3))
        self.smallest, self.sound, self.video = (np.zeros(size, np.int64) for _ in range(3))
        self.freezes = np.zeros(size, np.int64)
        self.expected_anew, self.next_sequence = (np.full(size, _NONE, np.int64) for _ in range(2))
        self.jitter, self.last, self.first = (np.zeros(size, np.float64) for _ in range(3))
        self.frozen, self.clock = (np.zeros(size, np.float64) for _ in range(2))
        self.transit, self.first_frame, self.frame_at = (np.full(size, np.nan) for _ in range(3))
        self.masks, self.values = (np.zeros((size, LAYOUT_BYTES // 8), np.uint64) for _ in range(2))
        self.byte_slots, self.frame_slots = (np.zeros((_SLOTS, size), np.int64) for _ in range(2))
        self.intervals = np.zeros((size, freezes.WINDOW), np.float32)
        self.interval_count = np.zeros(size, np.int64)

    def _columns(self) -> dict[str, NDArray[Any]]:
        return {
            name: column
            for name, column in vars(self).items()
            if isinstance(column, np.ndarray) and not name.startswith("_")
        }

    def _grow(self) -> None:
        before, used = self._columns(), self._size
        self._size *= 2
        self._allocate()
        for name, column in before.items():
            if name in {"byte_slots", "frame_slots"}:
                getattr(self, name)[:, :used] = column
            else:
                getattr(self, name)[:used] = column

    def add(self, ssrc: int, payload_type: int) -> StreamRow:
        """A row for a new stream, perhaps one that another had before."""
        if self._free:
            index = self._free.pop()
        else:
            index = len(self.rows)
            self.rows.append(None)
            if index >= self._size:
                self._grow()
        row = self.rows[index] = StreamRow(self, index, ssrc, payload_type)
        return row

    def remove(self, row: StreamRow) -> None:
        """Give a row up. It is used again after the next batch: packets on their way may still fall on it."""
        if self.rows[row.index] is row:
            self.rows[row.index] = None
            self._resting.append(row.index)

    def recycle(self) -> None:
        """No packet is on its way: rows that were given up may be used again."""
        if not self._resting:
            return
        self.settle()
        fresh = {"transit": np.nan, "first_frame": np.nan, "frame_at": np.nan}
        fresh |= {"expected_anew": _NONE, "next_sequence": _NONE}
        for name, column in self._columns().items():
            if name in {"byte_slots", "frame_slots"}:
                column[:, self._resting] = 0
            else:
                column[self._resting] = fresh.get(name, 0)
        self._free += self._resting
        self._resting = []

    def advance(self, slot: int) -> None:
        """Begin a new fifth of a second."""
        if slot <= self.slot:
            return
        for passed in range(max(self.slot + 1, slot - _SLOTS + 1), slot + 1):
            self.byte_slots[passed % _SLOTS] = 0
            self.frame_slots[passed % _SLOTS] = 0
        self.slot = slot

    # --- batches -------------------------------------------------------------------------------------------

    def batch(
        self, rows: Ints, packets: Ints, times: Floats, smallest: Mapping[int, int] = MappingProxyType({})
    ) -> tuple[Ints, Ints, Ints]:
        """Count packets in the order of their coming.

        ``rows`` are their rows, ``packets`` have a line each for sequence numbers, time stamps, marker bits and
        sizes on the wire, ``times`` are seconds. ``smallest`` has, by place, the size without payload of packets
        whose header is not built as others of their stream. Returns the order of the packets by row, where in it
        each row begins, and how many it has: those of row 0 are left out.
        """
        order = rows.argsort(kind="stable")
        sorted_rows = rows.take(order)
        if sorted_rows.size and not sorted_rows[0]:
            unclaimed = int(sorted_rows.searchsorted(1))
            order, sorted_rows = order[unclaimed:], sorted_rows[unclaimed:]
        if order.size and (smallest or int(packets[3].min()) <= self.smallest_of_all):
            limits = self.smallest.take(rows)
            for place, limit in smallest.items():
                limits[place] = limit
            order, sorted_rows = self._without_empty(order, sorted_rows, packets, times, limits)
        if not order.size:
            return order, order, order
        return order, *self._count(sorted_rows, packets.take(order, axis=1), times.take(order))

    def _count(self, rows: Ints, packets: Ints, times: Floats) -> tuple[Ints, Ints]:
        size = rows.size
        changes = self._changes[:size]
        np.not_equal(rows[1:], rows[:-1], out=changes[1:])
        starts: Ints = changes.nonzero()[0]
        found = rows.take(starts)
        stops = np.empty_like(starts)
        stops[:-1] = starts[1:]
        stops[-1] = size
        counts = stops - starts
        sequences, _, markers, _ = packets
        self._sequences(found, starts, counts, sequences, times)
        np.bitwise_or(markers, self.sound.take(rows), out=markers)
        sums = np.add.reduceat(packets[2:], starts, axis=1)
        frames, octets = sums
        octets -= counts * self.overhead.take(found)
        self.packets[found] += counts
        self.bytes[found] += octets
        self.last[found] = times.take(stops - 1)
        self._jitter(rows, starts, counts, packets[1], times)
        self._rates(found, starts, sums, packets, times)
        if frames.any():
            self._frames(rows, found, frames, markers, times)
        return starts, counts

    def _sequences(self, found: Ints, starts: Ints, counts: Ints, sequences: Ints, times: Floats) -> None:
        expected = self._next[: sequences.size]
        np.add(sequences[:-1], 1, out=expected[1:])
        np.bitwise_and(expected, 0xFFFF, out=expected)
        expected[starts] = self.next_sequence.take(found)
        wrong = sequences != expected
        highest = self.highest.take(found)
        if wrong.any():
            at = np.unique(starts.searchsorted(wrong.nonzero()[0], side="right") - 1)
            for segment in at.tolist():
                self._irregular(int(found[segment]), int(starts[segment]), int(counts[segment]), sequences, times)
            regular = np.ones(found.size, np.bool_)
            regular[at] = False
            found, highest, counts = found[regular], highest[regular], counts[regular]
        highest += counts
        self.highest[found] = highest
        highest += 1
        highest &= 0xFFFF
        self.next_sequence[found] = highest

    def _irregular(self, index: int, start: int, count: int, sequences: Ints, times: Floats) -> None:
        row = self.rows[index]
        if row is not None:
            stop = start + count
            row.sequences(sequences[start:stop].tolist(), times[start:stop].tolist())

    def _jitter(self, rows: Ints, starts: Ints, counts: Ints, stamps: Ints, times: Floats) -> None:
        """Interarrival jitter (RFC 3550 section 6.4.1) of many packets at once: the filter is a weighted sum."""
        size, found = rows.size, rows.take(starts)
        transit = times * self.clock.take(rows)
        transit -= stamps
        before = self._before[:size]
        before[1:] = transit[:-1]
        before[starts] = self.transit.take(found)
        stops = starts + counts
        self.transit[found] = transit.take(stops - 1)
        np.subtract(transit, before, out=before)
        np.abs(before, out=before)
        jitter = self.jitter.take(found)
        if not before.max() < _WRAPPED:  # NaN, too
            self.jitter[found] = [
                _filtered(value, before[start:stop].tolist())
                for value, start, stop in zip(jitter.tolist(), starts.tolist(), stops.tolist(), strict=True)
            ]
            return
        before *= self._weights.take(np.repeat(stops - 1, counts) - self._index[:size])
        sums = np.add.reduceat(before, starts)
        sums *= 1 / 16
        jitter *= self._weights.take(counts)
        jitter += sums
        self.jitter[found] = jitter

    def _rates(self, found: Ints, starts: Ints, sums: Ints, packets: Ints, times: Floats) -> None:
        low, high = int(times.min() * _SLOTS_PER_SECOND), int(times.max() * _SLOTS_PER_SECOND)
        self.advance(high)
        if low == high:
            self.frame_slots[high % _SLOTS][found] += sums[0]
            self.byte_slots[high % _SLOTS][found] += sums[1]
            return
        slots = (times * _SLOTS_PER_SECOND).astype(np.int64)
        overhead = self.overhead.take(found)
        for slot in range(max(low, self.slot - _SLOTS + 1), high + 1):
            here = (slots == slot).astype(np.int64)
            frames, octets = np.add.reduceat(packets[2:] * here, starts, axis=1)
            self.byte_slots[slot % _SLOTS][found] += octets - overhead * np.add.reduceat(here, starts)
            self.frame_slots[slot % _SLOTS][found] += frames

    def _frames(self, rows: Ints, found: Ints, frames: Ints, markers: Ints, times: Floats) -> None:
        self.frames[found] += frames
        ended = markers.nonzero()[0]
        rows, times = rows.take(ended), times.take(ended)
        new = np.isnan(self.first_frame.take(rows))
        if new.any():
            for row, time in zip(rows[new][::-1].tolist(), times[new][::-1].tolist(), strict=True):
                self.first_frame[row] = time
        self._frame_rows.append(rows)
        self._frame_times.append(times)

    def _without_empty(
        self, order: Ints, rows: Ints, packets: Ints, times: Floats, limits: Ints
    ) -> tuple[Ints, Ints]:
        """Count the streams that have a packet without payload packet by packet; returns the others."""
        sizes, limits = packets[3].take(order), limits.take(order)
        empty = sizes <= limits
        if not empty.any():
            return order, rows
        chosen = np.isin(rows, rows[empty])
        for index, at, limit in zip(
            rows[chosen].tolist(), order[chosen].tolist(), limits[chosen].tolist(), strict=True
        ):
            sequence, stamp, marker, size = packets[:, at].tolist()
            row = self.rows[index]
            if row is None or size < limit:
                continue  # too short for its header: SRTP would refuse it
            ends, is_empty = bool(marker or self.sound[index]), size == limit
            size -= int(self.overhead[index])
            if is_empty:
                row.owner.empty(row, size)
            row.count(sequence, stamp, size, float(times[at]), frame_ends=ends, empty=is_empty)
        kept = ~chosen
        return order[kept], rows[kept]

    # --- frames --------------------------------------------------------------------------------------------

    def frame_ended(self, row: int, now: float) -> None:
        """Note the end of one frame."""
        self._frame_rows.append(np.array([row]))
        self._frame_times.append(np.array([now]))

    def settle(self) -> None:
        """Look at the time between frames, which is put off: it costs less for many."""
        if not self._frame_rows:
            return
        rows, times = np.concatenate(self._frame_rows), np.concatenate(self._frame_times)
        self._frame_rows, self._frame_times = [], []
        shown = self.video.take(rows).nonzero()[0]
        rows, times = rows.take(shown), times.take(shown)
        while rows.size:
            found, at = np.unique(rows, return_index=True)  # the first frame of each stream
            self._intervals(found, times.take(at))
            if found.size == rows.size:
                return
            rest = np.ones(rows.size, np.bool_)
            rest[at] = False
            rows, times = rows[rest], times[rest]

    def _intervals(self, rows: Ints, times: Floats) -> None:
        passed = times - self.frame_at.take(rows)
        self.frame_at[rows] = times
        known = (passed >= 0).nonzero()[0]  # not the first one, which has NaN
        rows, passed = rows.take(known), passed.take(known)
        count = self.interval_count.take(rows)
        usual = self.intervals[rows].sum(axis=1) / np.maximum(1, np.minimum(count, freezes.WINDOW))
        froze = (count >= freezes.NEEDED) & (passed >= freezes.shortest_of_all(usual)) & (passed < freezes.PAUSE)
        if froze.any():
            self.freezes[rows[froze]] += 1
            self.frozen[rows[froze]] += passed[froze]
        lasting = (passed < freezes.PAUSE).nonzero()[0]
        rows, count = rows.take(lasting), count.take(lasting)
        self.intervals[rows, count % freezes.WINDOW] = passed.take(lasting)
        self.interval_count[rows] = count + 1


def _filtered(jitter: float, differences: Sequence[float]) -> float:
    for difference in differences:
        if difference < _WRAPPED:  # a wrapped time stamp is no jitter
            jitter += (difference - jitter) / 16
    return jitter
