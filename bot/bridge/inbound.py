"""Everything that comes on one media transport: counted, repaired, decoded on request. Time is a parameter."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Protocol

from bot.bridge import rtcp
from bot.bridge.decode import Decode, DecodedStream, Decoders, OnFrame
from bot.bridge.nack import DEFAULT_ROUND_TRIP, MAX_IN_PACKET, KeyFrameRequests, NackTracker
from bot.bridge.payloads import VIDEO_CLOCK, PayloadFormat
from bot.bridge.receive import ReceiveStatistics
from bot.bridge.receiver import StreamCounters
from bot.bridge.rtp import RtpError, RtpHeader, is_padding_only, parse_header, unwrap_rtx
from bot.bridge.streams import NamedSource, RemoteSources, RemoteStream
from bot.bridge.tap import MediaTap
from bot.jingle.model import Media

Octets = bytes  # the classes have something else of that name


class InboundStatistics(StreamCounters, Protocol):
    """Totals of a transport, as :class:`bot.bridge.receive.ReceiveStatistics` has them."""

    #: Packets that are no RTP, or of streams beyond the limit.
    ignored: int

    @property
    def packets(self) -> int:
        """All that came."""
        ...

    @property
    def bytes(self) -> int:
        """Bytes of whole packets."""
        ...

    @property
    def last(self) -> float | None:
        """When the last packet came, None before the first."""
        ...


class Inbound(Protocol):
    """What a session needs of its receiving half; see :class:`InboundMedia`."""

    sources: RemoteSources
    decoders: Decoders
    probes: int
    unassigned: int

    @property
    def statistics(self) -> InboundStatistics:
        """Totals and streams."""
        ...

    @property
    def bytes(self) -> Mapping[Media, int]:
        """Bytes of whole packets by media, probes left out."""
        ...

    def packet(self, data: Octets, header: RtpHeader, now: float) -> object:
        """Take one unprotected RTP packet with its parsed header."""
        ...

    def name(self, named: Iterable[NamedSource]) -> None:
        """Take the names of sources."""
        ...

    def forget(self, ssrcs: Iterable[int]) -> None:
        """Drop sources that are gone."""
        ...

    def snapshot(self, now: float) -> tuple[RemoteStream, ...]:
        """What was received of each source."""
        ...

    def decoded(self, key: int | str) -> DecodedStream | None:
        """What was decoded of an SSRC or of a named source."""
        ...

    def want_key_frame(self, ssrc: int, now: float) -> None:
        """Ask for a key frame of ``ssrc`` until it comes."""
        ...

    def due(self, now: float) -> list[Octets]:
        """Requests to send at ``now``."""
        ...

    def next_deadline(self) -> float:
        """When ``due`` is to be called; infinity when nothing is open."""
        ...


class InboundMedia:
    """The receiving half of a session. ``ssrc`` is ours, for requests; ``formats`` those of the offer.

    ``tap`` sees all packets of media. ``wake`` is called when a new request has to be sent: ``due`` then gives it
    at ``next_deadline``. All times are in seconds on one monotonic clock, ``started`` too.
    """

    def __init__(
        self,
        formats: Mapping[int, PayloadFormat],
        *,
        ssrc: int,
        started: float,
        decode: Decode = "none",
        on_frame: OnFrame | None = None,
        wake: Callable[[], None] = lambda: None,
        round_trip: Callable[[], float | None] = lambda: None,
        tap: MediaTap | None = None,
    ) -> None:
        self._formats = formats
        self._ssrc = ssrc
        self._now = started
        self._wake = wake
        self._round_trip = round_trip
        self._nacks: dict[int, NackTracker] = {}
        #: The trackers that have something to ask for: of hundreds of streams few lose packets at a time.
        self._holes: dict[int, NackTracker] = {}
        self._key_frames = KeyFrameRequests()
        self._fir_numbers: dict[int, int] = {}
        self.statistics = ReceiveStatistics()
        self.statistics.on_retired = self._retired
        #: Bytes of whole packets by media, probes left out.
        self.bytes: dict[Media, int] = {"audio": 0, "video": 0}
        self.sources = RemoteSources(started)
        self.decoders = Decoders(
            decode,
            on_frame=on_frame,
            need_key_frame=self._need_key_frame,
            wake=wake,
            endpoint_of=self.sources.endpoint_of,
        )
        self._tap = tap
        if tap is not None:
            tap.opened(self)
        #: Padding-only packets on RTX payload types: the bridge's probes for bandwidth.
        self.probes = 0
        #: RTX packets of streams that nobody announced, or that repair nothing known.
        self.unassigned = 0

    def __repr__(self) -> str:
        return f"<InboundMedia packets {self.statistics.packets} {self.decoders!r}>"

    # --- packets -------------------------------------------------------------------------------------------

    def packet(self, data: bytes, header: RtpHeader, now: float) -> None:
        """Take one unprotected RTP packet with its parsed header."""
        self._now = now
        known = self._formats.get(header.payload_type)
        empty = is_padding_only(data, header)
        if known is None:
            self.statistics.count(header, len(data), now, VIDEO_CLOCK, empty=empty)
            return
        stats = self.statistics.count(
            header, len(data), now, known.clock_rate, empty=empty, each_a_frame=known.media == "audio"
        )
        if stats is None:
            return
        if known.apt is not None:
            self._retransmission(data, header, known.apt, now)
            return
        if not empty:
            self.bytes[known.media] += len(data)
            self.sources.received(stats, known)
        if known.nack and (tracker := self._tracker(header.ssrc)).received(header.sequence, now):
            self._holes[header.ssrc] = tracker
            self._wake()
        self._look(known, header, data, now)

    def _look(self, known: PayloadFormat, header: RtpHeader, data: bytes, now: float) -> None:
        """Show a packet of media to whoever looks at its payload."""
        if self.decoders.active:
            self.decoders.packet(known, header, data, now)
        if self._tap is not None:
            self._tap.packet(known, header, data, now)

    def _tracker(self, ssrc: int) -> NackTracker:
        tracker = self._nacks.get(ssrc)
        if tracker is None:
            tracker = self._nacks[ssrc] = NackTracker()
        return tracker

    def _retransmission(self, data: bytes, header: RtpHeader, repaired_type: int, now: float) -> None:
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
        if source is None or known is None:
            self.unassigned += 1
            return
        source.rtx += 1
        tracker = self._nacks.get(ssrc)
        found = parse_header(original)
        if tracker is not None and tracker.repaired(found.sequence):
            source.repaired += 1
            source.stats.media(0, now, frame_ends=found.marker)
            self._look(known, found, original, now)

    # --- names ---------------------------------------------------------------------------------------------

    def name(self, named: Iterable[NamedSource]) -> None:
        """Take the names of sources; an SSRC with another source than before is counted and decoded anew."""
        moved = self.sources.name(named)
        self.decoders.forget(*moved)
        if self._tap is not None and moved:
            self._tap.moved(moved)

    def forget(self, ssrcs: Iterable[int]) -> None:
        """Drop sources that are gone."""
        gone = list(ssrcs)
        self.sources.forget(gone)
        self._drop(gone)

    def _retired(self, ssrcs: Sequence[int]) -> None:
        self.sources.retire(ssrcs)
        self._drop(ssrcs)

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

    def snapshot(self, now: float) -> tuple[RemoteStream, ...]:
        """What was received of each source."""
        return self.sources.snapshot(now)

    def decoded(self, key: int | str) -> DecodedStream | None:
        """What was decoded of an SSRC or of a named source."""
        ssrc = self.sources.ssrc_of(key) if isinstance(key, str) else key
        return None if ssrc is None else self.decoders.get(ssrc)

    # --- requests ------------------------------------------------------------------------------------------

    def want_key_frame(self, ssrc: int, now: float) -> None:
        """Ask for a key frame of ``ssrc`` until it comes; for whoever begins to look at a stream."""
        if self._key_frames.want(ssrc, now):
            self._wake()

    def got_key_frame(self, ssrc: int) -> None:
        """A key frame of ``ssrc`` came, says who asked for it."""
        self._key_frames.done(ssrc)

    def due(self, now: float) -> list[bytes]:
        """NACK and key frame requests to send at ``now``; holes that nothing repairs are given up."""
        self._now = now
        self.decoders.expire(now)
        round_trip = self._round_trip() or DEFAULT_ROUND_TRIP
        packets = []
        for ssrc, tracker in list(self._holes.items()):
            lost = tracker.due(now, round_trip)
            if not tracker.missing:
                del self._holes[ssrc]
            packets += [
                rtcp.nack(self._ssrc, ssrc, lost[start : start + MAX_IN_PACKET])
                for start in range(0, len(lost), MAX_IN_PACKET)
            ]
        return packets + [self._key_frame_request(ssrc) for ssrc in self._key_frames.due(now)]

    def next_deadline(self) -> float:
        """When ``due`` is to be called; infinity when nothing is open."""
        gaps = [tracker.next_deadline() for tracker in self._holes.values()]
        return min(self._key_frames.next_deadline(), self.decoders.next_deadline(), *gaps)

    def _need_key_frame(self, ssrc: int, needed: bool) -> None:
        if not needed:
            self._key_frames.done(ssrc)
        elif self._key_frames.want(ssrc, self._now):
            self._wake()

    def _key_frame_request(self, ssrc: int) -> bytes:
        """PLI where the offer has it, else FIR (RFC 5104 section 4.3.1)."""
        stats = self.statistics.streams.get(ssrc)
        known = self._formats.get(stats.payload_type) if stats else None
        if known is None or known.pli or not known.fir:
            return rtcp.pli(self._ssrc, ssrc)
        number = self._fir_numbers[ssrc] = (self._fir_numbers.get(ssrc, -1) + 1) & 0xFF
        return rtcp.fir(self._ssrc, ssrc, number)
