"""What comes on one media transport of the shared engine: :class:`bot.bridge.inbound.InboundMedia` on a table.

Packets are counted in batches by :class:`bot.engine.table.StreamTable`. Here is what goes packet by packet, and
what a session asks for. Time is a parameter.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from math import inf
from typing import Any

import numpy as np
from numpy.typing import NDArray

from bot.bridge import rtcp
from bot.bridge.decode import Decode, DecodedStream, Decoders, OnFrame
from bot.bridge.nack import DEFAULT_ROUND_TRIP, MAX_IN_PACKET, KeyFrameRequests, NackTracker
from bot.bridge.payloads import VIDEO_CLOCK, PayloadFormat
from bot.bridge.receive import MAX_STREAMS, SILENT_FOR
from bot.bridge.rtp import RtpError, RtpHeader, is_padding_only, parse_header, unwrap_rtx
from bot.bridge.streams import NamedSource, RemoteSources, RemoteStream
from bot.bridge.tap import MediaTap
from bot.engine.keyframes import picture_size, starts_key_frame
from bot.engine.path import MediaPath
from bot.engine.table import Layout, StreamRow, StreamTable, flow_key
from bot.jingle.model import Media

#: Why packets that are counted in batches are looked at singly, too: retransmissions, decoding, a key frame.
RTX, DECODED, AWAITED = 1, 2, 4
#: Between two looks at the picture size of a stream (seconds): in vain, and after one that told it.
SIZE_RETRY, SIZE_REFRESH = 0.3, 2.0
#: So often (seconds) it is seen to which streams the decoders turned.
REVIEW_INTERVAL = 0.1
_RETRY_ROOM = 1.0
#: What comes so soon after its source was removed was on its way (seconds): sockets are read every tick only.
LATE = 0.2
Octets = bytes  # EngineInbound has something else of that name


class EngineStatistics:
    """Statistics of every stream of one transport, as :class:`bot.bridge.receive.ReceiveStatistics` has them."""

    def __init__(self, table: StreamTable) -> None:
        self._table = table
        self.streams: dict[int, StreamRow] = {}
        #: Packets that are no RTP, or of streams beyond the limit.
        self.ignored = 0
        #: Hears of streams that made room for others.
        self.on_retired: Callable[[Sequence[int]], None] = lambda _: None
        self._packets = self._bytes = 0
        self._last: float | None = None
        self._retire_at = 0.0
        self._rows: NDArray[Any] | None = None

    @property
    def packets(self) -> int:
        """All that came."""
        return self._packets + int(self._table.packets[self._indices()].sum())

    @property
    def bytes(self) -> int:
        """Bytes of whole packets, unprotected."""
        return self._bytes + int(self._table.bytes[self._indices()].sum())

    @property
    def last(self) -> float | None:
        """When the last packet came, None before the first."""
        rows = self._indices()
        if not rows.size:
            return self._last
        last = float(self._table.last[rows].max())
        return last if self._last is None else max(last, self._last)

    def _indices(self) -> NDArray[Any]:
        if self._rows is None:
            self._rows = np.array([row.index for row in self.streams.values()], np.int64)
        return self._rows

    def empty(self, size: int) -> None:
        """Count the bytes of a packet without media, which no stream counts."""
        self._bytes += size

    def has_room(self, now: float) -> bool:
        """Whether a new stream can be counted; those that are silent for long make room."""
        if len(self.streams) < MAX_STREAMS:
            return True
        if now < self._retire_at:
            return False
        self._retire_at = now + _RETRY_ROOM
        silent = [ssrc for ssrc, row in self.streams.items() if now - row.last >= SILENT_FOR]
        self.on_retired(silent)
        for ssrc in silent:
            self._drop(ssrc)
        return bool(silent)

    def add(self, ssrc: int, payload_type: int) -> StreamRow:
        """A row for a new stream."""
        row = self.streams[ssrc] = self._table.add(ssrc, payload_type)
        self._rows = None
        return row

    def clear(self) -> None:
        """Give up all rows; the totals stay."""
        for ssrc in list(self.streams):
            self._drop(ssrc)

    def _drop(self, ssrc: int) -> None:
        row = self.streams.pop(ssrc)
        self._rows = None
        self._packets += row.packets
        self._bytes += row.bytes
        self._last = row.last if self._last is None else max(self._last, row.last)
        self._table.remove(row)


class EngineInbound:
    """The receiving half of a session; parameters and results as of :class:`bot.bridge.inbound.InboundMedia`.

    ``table`` is the receiver's. A hole in a picture that nothing repaired is followed by requests for a key frame
    until one comes, also where nothing is decoded. ``on_first`` is called with the first packet.
    """

    def __init__(
        self,
        formats: Mapping[int, PayloadFormat],
        *,
        ssrc: int,
        started: float,
        table: StreamTable | None = None,
        decode: Decode = "none",
        on_frame: OnFrame | None = None,
        wake: Callable[[], None] = lambda: None,
        round_trip: Callable[[], float | None] = lambda: None,
        on_first: Callable[[], None] = lambda: None,
        tap: MediaTap | None = None,
    ) -> None:
        self.table = StreamTable() if table is None else table
        self._formats = formats
        self.ssrc = ssrc
        self._now = started
        self._on_wake = wake
        #: Hears that a request may be due earlier than was said.
        self.hurry: Callable[[], None] = lambda: None
        self._on_first = on_first
        self._round_trip = round_trip
        self._nacks: dict[int, NackTracker] = {}
        self._holes: dict[int, NackTracker] = {}
        #: Until when packets of removed sources are late ones.
        self._gone: dict[int, float] = {}
        self._given_up: dict[int, int] = {}
        self._key_frames = KeyFrameRequests()
        self._fir_numbers: dict[int, int] = {}
        #: The transport's number among those of a receiver, and its path; set while it is attached.
        self.number = 0
        self.path: MediaPath | None = None
        self.statistics = EngineStatistics(self.table)
        self.statistics.on_retired = self._retired
        self.sources = RemoteSources(started)
        self.decoders = Decoders(
            decode,
            on_frame=on_frame,
            need_key_frame=self._need_key_frame,
            wake=self._wake,
            endpoint_of=self.sources.endpoint_of,
        )
        self._review_at = started
        self._final: tuple[RemoteStream, ...] | None = None
        self._octets: dict[Media, int] = {"audio": 0, "video": 0}
        self._tap = tap
        if tap is not None:
            tap.opened(self)
        #: Padding-only packets on RTX payload types: the bridge's probes for bandwidth.
        self.probes = 0
        #: RTX packets of streams that nobody announced, or that repair nothing known.
        self.unassigned = 0

    def __repr__(self) -> str:
        return f"<EngineInbound packets {self.statistics.packets} {self.decoders!r}>"

    @property
    def overhead(self) -> int:
        """Bytes that SRTP adds to a packet."""
        return self.path.overhead if self.path is not None else 0

    @property
    def bytes(self) -> dict[Media, int]:
        """Bytes of whole packets by media, probes left out."""
        total = dict(self._octets)
        for row in self.statistics.streams.values():
            if row.kind is not None:
                total[row.kind] += row.bytes - row.counted_from
        return total

    # --- packets -------------------------------------------------------------------------------------------

    def format_of(self, payload_type: int) -> PayloadFormat | None:
        """What the offer says of a payload type."""
        return self._formats.get(payload_type)

    def packet(self, data: Octets, header: RtpHeader, now: float, *, postpone: bool = False) -> bool:
        """Take one unprotected RTP packet with its parsed header that no batch counts.

        True where it is a retransmission that the caller wants to ``postpone``, for ``repair``.
        """
        self._now = now
        known = self._formats.get(header.payload_type)
        empty = is_padding_only(data, header)
        row = self.statistics.streams.get(header.ssrc)
        if row is None:
            row = self._new(header, known, now)
            if row is None:
                return False
        if row.format is not known:
            self._become(row, known)
        if empty:
            self.statistics.empty(len(data))
        late = self._is_late(header.ssrc, now)
        if known is not None and known.apt is None and not late:
            self._received(row, known, empty=empty)
        ends = header.marker or (known is not None and known.media == "audio")
        row.count(header.sequence, header.timestamp, len(data), now, frame_ends=ends, empty=empty)
        if known is None:
            return False
        if not empty and not late:
            self._file(row, known, data, header)
        if known.apt is None:
            self._media(row, known, data, header, now)
        elif not postpone:
            self._retransmission(data, header, known.apt, now)
        return postpone and known.apt is not None

    def _is_late(self, ssrc: int, now: float) -> bool:
        """Whether a packet was on its way when its source was removed: that does not bring it back."""
        until = self._gone.get(ssrc)
        if until is None or now < until:
            return until is not None
        del self._gone[ssrc]
        return False

    def repair(self, data: Octets, now: float) -> None:
        """Take an unprotected retransmission that was counted before."""
        header = parse_header(data)
        known = self._formats.get(header.payload_type)
        if known is not None and known.apt is not None:
            self._now = now
            self._retransmission(data, header, known.apt, now)

    def _received(self, row: StreamRow, known: PayloadFormat, *, empty: bool) -> None:
        if not empty:
            self.sources.received(row, known)
        if known.nack and row.tracker is None:
            tracker = self._nacks[row.ssrc] = self._nacks.get(row.ssrc) or NackTracker()
            row.follow(tracker)

    def _new(self, header: RtpHeader, known: PayloadFormat | None, now: float) -> StreamRow | None:
        statistics = self.statistics
        if not statistics.has_room(now):
            statistics.ignored += 1
            return None
        if statistics.last is None:
            self._on_first()
        row = statistics.add(header.ssrc, header.payload_type)
        row.owner = self
        row.on_hole = self._hole
        row.begin(header.sequence, now, known.clock_rate if known else VIDEO_CLOCK)
        return row

    def _become(self, row: StreamRow, known: PayloadFormat | None) -> None:
        """The stream has another payload type from this packet on."""
        self._unfile(row)
        if row.kind is not None:
            self._octets[row.kind] += row.bytes - row.counted_from
        row.counted_from = row.bytes
        is_media = known is not None and known.apt is None
        row.kind = known.media if known is not None and is_media else None
        row.of(known)
        if known is None or not is_media or not known.nack:
            row.follow(None)
        row.special = RTX if known is not None and not is_media else 0
        if is_media and self._wants(row.ssrc):
            row.special |= DECODED
        elif is_media and self._key_frames.wanted(row.ssrc):
            row.special |= AWAITED

    def _file(self, row: StreamRow, known: PayloadFormat, data: Octets, header: RtpHeader) -> None:
        """Let the packets that are built like this one be counted in batches from now on."""
        if not self.number or header.padding or data[0] & 0x0F:
            return
        key = flow_key(self.number, data)
        if row.key == key:
            return
        layout = Layout(data, header, known.transport_cc)
        if not layout.known:
            return
        self._unfile(row)
        row.key = key
        row.learn(layout, self.overhead)
        self._flag(row, row.special)

    def _unfile(self, row: StreamRow) -> None:
        if row.key is not None:
            self.table.flows.pop(row.key, None)
            row.key = None

    def _flag(self, row: StreamRow, special: int) -> None:
        row.special = special
        if row.key is not None:
            self.table.flows[row.key] = -row.index if special else row.index

    def relearn(self, row: StreamRow, data: Octets, header: RtpHeader) -> None:
        """The packets of a stream that is counted in batches have another header extension now."""
        layout = Layout(data, header, row.format.transport_cc if row.format is not None else None)
        if layout.known:
            row.learn(layout, self.overhead)

    def empty(self, row: StreamRow, size: int) -> None:
        """A batch has a packet without media."""
        del row
        self.statistics.empty(size)

    def look(self, row: StreamRow, protected: Octets, now: float) -> None:
        """Look into a packet that a batch counts."""
        known = row.format
        if self.path is None or known is None:
            return
        if row.special == AWAITED and row.watched == (stamp := int.from_bytes(protected[4:8], "big")):
            return  # not the first of its frame
        if row.special == AWAITED:
            row.watched = stamp
        data = self.path.unprotect(protected)
        if data is None:
            return
        self._now = now
        header = parse_header(data)
        self._media(row, known, data, header, now)

    def _media(self, row: StreamRow, known: PayloadFormat, data: Octets, header: RtpHeader, now: float) -> None:
        """Show a packet of media to whoever looks at its payload."""
        if self.decoders.active:
            self.decoders.packet(known, header, data, now)
        if self._tap is not None:
            self._tap.packet(known, header, data, now)
        if known.media != "video":
            self._review(row)
            return
        if row.special & AWAITED and starts_key_frame(known.codec, header, data):
            self._key_frames.done(row.ssrc)
            row.special &= ~AWAITED
        if (size := picture_size(known.codec, header, data)) is not None:
            row.size, row.size_due = size, now + SIZE_REFRESH
        self._review(row)

    def _wants(self, ssrc: int) -> bool:
        """Whether somebody looks at the payload of all packets of ``ssrc``."""
        return self._tap is not None or self.decoders.wants(ssrc)

    def _review_all(self) -> None:
        """The decoders may have turned to other streams."""
        if self.decoders.active:
            for row in self.statistics.streams.values():
                if row.kind is not None:
                    self._review(row)

    def _review(self, row: StreamRow) -> None:
        """See whether the packets of a media stream have to be looked at."""
        special = row.special & AWAITED | (DECODED if self._wants(row.ssrc) else 0)
        if special != row.special or row.key is None or (self.table.flows[row.key] < 0) != bool(special):
            self._flag(row, special)

    def glimpse(self, row: StreamRow, protected: Octets, now: float) -> None:
        """Look for the picture's size in a packet that may begin a key frame."""
        row.size_due = now + SIZE_RETRY
        data = self.path.glance(protected) if self.path is not None else None
        if data is None or row.format is None:
            return
        size = picture_size(row.format.codec, parse_header(data), data)
        if size is not None:
            row.size, row.size_due = size, now + SIZE_REFRESH

    def _retransmission(self, data: Octets, header: RtpHeader, repaired_type: int, now: float) -> None:
        source = self.sources.repaired_by(header.ssrc)
        ssrc = source.stats.ssrc if source else 0
        try:
            original = unwrap_rtx(data, header, payload_type=repaired_type, ssrc=ssrc)
        except RtpError:
            self.unassigned += 1
            return
        if original is None:
            self.probes += 1
            return
        known = self._formats.get(repaired_type)
        row = self.statistics.streams.get(ssrc)
        if source is None or known is None or row is None:
            self.unassigned += 1
            return
        source.rtx += 1
        found = parse_header(original)
        if row.tracker is not None and row.repaired(found.sequence):
            source.repaired += 1
            row.media(0, now, frame_ends=found.marker)
            self._media(row, known, original, found, now)

    # --- names ---------------------------------------------------------------------------------------------

    def name(self, named: Iterable[NamedSource]) -> None:
        """Take the names of sources; an SSRC with another source than before is counted and decoded anew."""
        named = list(named)
        for item in named:
            self._gone.pop(item.ssrc, None)
        moved = self.sources.name(named)
        self.decoders.forget(*moved)
        if self._tap is not None and moved:
            self._tap.moved(moved)
        for ssrc in moved:
            if (row := self.statistics.streams.get(ssrc)) is not None:
                row.size = None
        self._review_all()

    def forget(self, ssrcs: Iterable[int]) -> None:
        """Drop sources that are gone."""
        gone = list(ssrcs)
        self.sources.forget(gone)
        self._drop(gone)
        until = max(self._now, self.statistics.last or 0.0) + LATE
        self._gone = {ssrc: when for ssrc, when in self._gone.items() if when > until - LATE}
        self._gone.update((ssrc, until) for ssrc in gone if ssrc in self.statistics.streams)

    def _retired(self, ssrcs: Sequence[int]) -> None:
        self.sources.retire(ssrcs)
        self._drop(ssrcs)
        for ssrc in ssrcs:
            self._leave(self.statistics.streams[ssrc])

    def _drop(self, ssrcs: Sequence[int]) -> None:
        """Keep nothing of SSRCs that are gone; what comes of them begins anew."""
        self.decoders.forget(*ssrcs)
        if self._tap is not None:
            self._tap.gone(ssrcs)
        for ssrc in ssrcs:
            self._key_frames.forget(ssrc)
            self._fir_numbers.pop(ssrc, None)
            self._nacks.pop(ssrc, None)
            self._holes.pop(ssrc, None)
            self._given_up.pop(ssrc, None)
            if (row := self.statistics.streams.get(ssrc)) is not None:
                row.follow(None)
                row.special &= ~AWAITED
                self._unfile(row)  # its next packet makes it a source again
        self._review_all()

    def _leave(self, row: StreamRow) -> None:
        self._unfile(row)
        if row.kind is not None:
            self._octets[row.kind] += row.bytes - row.counted_from
            row.kind = None

    def attached(self, number: int, path: MediaPath | None) -> None:
        """The transport has this ``number`` at its receiver from now on, 0 for none."""
        for row in self.statistics.streams.values():
            self._unfile(row)
        self.number, self.path = number, path

    def release(self, now: float) -> None:
        """Give all rows back, after the transport was detached; totals and the last ``snapshot`` stay.

        Whoever is done with a session must call it: the table would keep its rows for good. May be called twice.
        """
        if self._final is not None:
            return
        self._final = self.sources.snapshot(now)
        for row in self.statistics.streams.values():
            self._leave(row)
        self.sources.retire(list(self.statistics.streams))
        self.statistics.clear()

    def snapshot(self, now: float) -> tuple[RemoteStream, ...]:
        """What was received of each source."""
        return self.sources.snapshot(now) if self._final is None else self._final

    def decoded(self, key: int | str) -> DecodedStream | None:
        """What was decoded of an SSRC or of a named source."""
        ssrc = self._ssrc_of(key)
        return None if ssrc is None else self.decoders.get(ssrc)

    def row(self, key: int | str) -> StreamRow | None:
        """The counters of an SSRC or of a named source: freezes, frame rate, picture size besides the usual."""
        ssrc = self._ssrc_of(key)
        return None if ssrc is None else self.statistics.streams.get(ssrc)

    def _ssrc_of(self, key: int | str) -> int | None:
        return self.sources.ssrc_of(key) if isinstance(key, str) else key

    # --- requests ------------------------------------------------------------------------------------------

    def want_key_frame(self, ssrc: int, now: float) -> None:
        """Ask for a key frame of ``ssrc`` until it comes; for whoever begins to look at a stream."""
        if not self._key_frames.want(ssrc, now):
            return
        row = self.statistics.streams.get(ssrc)
        if row is not None and not row.special & DECODED:
            row.watched = -1
            self._flag(row, row.special | AWAITED)
        self._wake()

    def got_key_frame(self, ssrc: int) -> None:
        """A key frame of ``ssrc`` came, says who asked for it."""
        self._key_frames.done(ssrc)

    def due(self, now: float) -> list[Octets]:
        """NACK and key frame requests to send at ``now``; holes that nothing repairs are given up."""
        self._now = now
        self.decoders.expire(now)
        if self.decoders.active:
            self._review_at = now + REVIEW_INTERVAL
            self._review_all()
        round_trip = self._round_trip() or DEFAULT_ROUND_TRIP
        packets = []
        for ssrc, tracker in list(self._holes.items()):
            lost = tracker.due(now, round_trip)
            if not tracker.missing:
                del self._holes[ssrc]
            self._damaged(ssrc, tracker)
            packets += [
                rtcp.nack(self.ssrc, ssrc, lost[start : start + MAX_IN_PACKET])
                for start in range(0, len(lost), MAX_IN_PACKET)
            ]
        return packets + [self._key_frame_request(ssrc) for ssrc in self._key_frames.due(now)]

    def next_deadline(self) -> float:
        """When ``due`` is to be called; infinity when nothing is open."""
        deadline = self._key_frames.next_deadline()
        if self.decoders.active:
            deadline = min(deadline, self.decoders.next_deadline(), self._review_at)
        if self._holes:
            deadline = min(deadline, *(tracker.next_deadline() for tracker in self._holes.values()), inf)
        return deadline

    def _wake(self) -> None:
        self.hurry()
        self._on_wake()

    def _hole(self, row: StreamRow) -> None:
        tracker = row.tracker
        if tracker is None:
            return
        if tracker.missing:
            self._holes[row.ssrc] = tracker
            self._wake()
        self._damaged(row.ssrc, tracker)

    def _damaged(self, ssrc: int, tracker: NackTracker) -> None:
        """Ask for a key frame of a picture with a hole that stays; a decoder does so itself."""
        if tracker.given_up == self._given_up.get(ssrc, 0):
            return
        self._given_up[ssrc] = tracker.given_up
        row = self.statistics.streams.get(ssrc)
        if row is None or row.format is None or row.format.media != "video" or row.special & DECODED:
            return
        if row.format.pli or row.format.fir:
            self.want_key_frame(ssrc, self._now)

    def _need_key_frame(self, ssrc: int, needed: bool) -> None:
        if not needed:
            self._key_frames.done(ssrc)
        elif self._key_frames.want(ssrc, self._now):
            self._wake()

    def _key_frame_request(self, ssrc: int) -> Octets:
        """PLI where the offer has it, else FIR (RFC 5104 section 4.3.1)."""
        row = self.statistics.streams.get(ssrc)
        known = self._formats.get(row.payload_type) if row else None
        if known is None or known.pli or not known.fir:
            return rtcp.pli(self.ssrc, ssrc)
        number = self._fir_numbers[ssrc] = (self._fir_numbers.get(ssrc, -1) + 1) & 0xFF
        return rtcp.fir(self.ssrc, ssrc, number)
