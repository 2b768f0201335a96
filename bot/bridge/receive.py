"""What is received, per SSRC, from RTP headers alone (RFC 3550 appendix A). Pure: time is a parameter."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

from bot.bridge.rtp import RtpError, RtpHeader, is_padding_only, parse_header, unwrap_sequence

#: A room of 500 with simulcast and RTX stays below; what is beyond is counted together.
MAX_STREAMS = 4096
#: Where there are so many, those that were silent for this long make room for new ones (seconds): whoever stands
#: in a room for days hears many come and go.
SILENT_FOR = 60.0
_RETRY_ROOM = 1.0
#: The bitrate is that of the last whole second, in steps of a fifth.
_SLOTS_PER_SECOND = 5
_SLOTS = _SLOTS_PER_SECOND + 1
#: Jumps that are loss, or a late packet; beyond, the sender began anew (RFC 3550 appendix A.1).
MAX_DROPOUT = 3000
MAX_MISORDER = 100


@dataclass(slots=True)
class StreamStats:
    """One received stream. ``jitter`` in units of the RTP clock; ``first`` and ``last`` on the caller's clock.

    ``packets`` are all that came, as RFC 3550 counts them; ``padding`` of these carried no media. ``bytes`` are
    those of whole packets with media. A frame ends with the marker bit (RFC 3551 section 4.1 has another use of it
    for sound: there each packet is one).
    """

    ssrc: int
    payload_type: int
    first: float
    last: float
    clock_rate: int = 90_000
    packets: int = 0
    padding: int = 0
    bytes: int = 0
    frames: int = 0
    reordered: int = 0
    jitter: float = 0.0
    #: When the first frame was complete, None before.
    first_frame: float | None = None
    #: Highest sequence number, with its cycles (RFC 3550 appendix A.1).
    highest: int = 0
    _base: int = 0
    _expected_anew: int = field(default=-1, repr=False)
    _transit: float | None = field(default=None, repr=False)
    _slot: int = field(default=0, repr=False)
    _slots: list[int] = field(default_factory=lambda: [0] * _SLOTS, repr=False)

    @property
    def expected(self) -> int:
        """Packets that were sent as far as the sequence numbers tell."""
        return self.highest - self._base + 1 if self.packets else 0

    @property
    def lost(self) -> int:
        """Cumulative loss; duplicates can't make it negative."""
        return max(0, self.expected - self.packets)

    @property
    def jitter_seconds(self) -> float:
        """Interarrival jitter in seconds."""
        return self.jitter / self.clock_rate

    def bitrate(self, now: float) -> float:
        """Media in bit/s, over the last second in whole fifths."""
        self._advance(int(now * _SLOTS_PER_SECOND))
        return 8.0 * (sum(self._slots) - self._slots[self._slot % _SLOTS])

    def media(self, size: int, now: float, *, frame_ends: bool) -> None:
        """Count the media in a packet of ``size`` bytes."""
        self.bytes += size
        slot = int(now * _SLOTS_PER_SECOND)
        if slot != self._slot:
            self._advance(slot)
        self._slots[slot % _SLOTS] += size
        if frame_ends:
            self.frames += 1
            if self.first_frame is None:
                self.first_frame = now

    def jumped(self, sequence: int) -> None:
        """Two packets in a row from elsewhere are a sender that began anew; what was lost before stays lost."""
        if sequence == self._expected_anew:
            expected = self.highest - self._base + 1
            self.highest = sequence
            self._base = sequence - expected - 1  # both of them are expected, too
        self._expected_anew = (sequence + 1) & 0xFFFF

    def _advance(self, slot: int) -> None:
        for passed in range(max(self._slot + 1, slot - _SLOTS + 1), slot + 1):
            self._slots[passed % _SLOTS] = 0
        self._slot = max(self._slot, slot)


class ReceiveStatistics:
    """Statistics of every stream of one transport."""

    def __init__(self) -> None:
        self.streams: dict[int, StreamStats] = {}
        self.packets = 0
        self.bytes = 0
        #: Packets that are no RTP, or of streams beyond the limit.
        self.ignored = 0
        #: When the last packet came, None before the first.
        self.last: float | None = None
        #: Hears of streams that made room for others.
        self.on_retired: Callable[[Sequence[int]], None] = lambda _: None
        self._retire_at = 0.0

    def feed(self, data: bytes, now: float, clock_rate: int) -> StreamStats | None:
        """Count one RTP packet that came at ``now`` (seconds); ``clock_rate`` in Hz. None when it was ignored."""
        try:
            header = parse_header(data)
        except RtpError:
            self.ignored += 1
            return None
        return self.count(header, len(data), now, clock_rate, empty=is_padding_only(data, header))

    def count(
        self,
        header: RtpHeader,
        size: int,
        now: float,
        clock_rate: int,
        *,
        empty: bool = False,
        each_a_frame: bool = False,
    ) -> StreamStats | None:
        """Count a packet of ``size`` bytes whose header was parsed before.

        ``empty`` ones have padding only; ``each_a_frame`` where every packet is a frame. None when it was ignored.
        """
        stream = self.streams.get(header.ssrc)
        if stream is None:
            stream = self._new(header, now, clock_rate)
            if stream is None:
                return None
        self.packets += 1
        self.bytes += size
        self.last = now
        stream.packets += 1
        stream.last = now
        sequence = header.sequence
        if sequence == (stream.highest + 1) & 0xFFFF:
            stream.highest += 1
        else:
            self._out_of_order(stream, sequence)
        if empty:
            stream.padding += 1
        else:
            self._time(stream, header.timestamp, now)
            stream.media(size, now, frame_ends=each_a_frame or header.marker)
        return stream

    def _new(self, header: RtpHeader, now: float, clock_rate: int) -> StreamStats | None:
        if len(self.streams) >= MAX_STREAMS and not self._make_room(now):
            self.ignored += 1
            return None
        stream = StreamStats(header.ssrc, header.payload_type, now, now, clock_rate)
        stream._base = stream.highest = header.sequence
        self.streams[header.ssrc] = stream
        return stream

    def _make_room(self, now: float) -> bool:
        """Retire what is silent; all are looked through for that, once a second at most."""
        if now < self._retire_at:
            return False
        self._retire_at = now + _RETRY_ROOM
        silent = [ssrc for ssrc, stream in self.streams.items() if now - stream.last >= SILENT_FOR]
        for ssrc in silent:
            del self.streams[ssrc]
        self.on_retired(silent)
        return bool(silent)

    @staticmethod
    def _out_of_order(stream: StreamStats, sequence: int) -> None:
        extended = unwrap_sequence(sequence, stream.highest)
        if not -MAX_MISORDER <= extended - stream.highest <= MAX_DROPOUT:
            stream.jumped(sequence)
        elif extended > stream.highest:
            stream.highest = extended
        elif extended < stream.highest:
            stream.reordered += 1
            stream._base = min(stream._base, extended)

    @staticmethod
    def _time(stream: StreamStats, timestamp: int, now: float) -> None:
        """Interarrival jitter, RFC 3550 section 6.4.1: a sixteenth of each difference of transit times."""
        transit = now * stream.clock_rate - timestamp
        if stream._transit is not None:
            difference = abs(transit - stream._transit)
            if difference < 2**31:  # a wrapped timestamp is no jitter
                stream.jitter += (difference - stream.jitter) / 16
        stream._transit = transit
