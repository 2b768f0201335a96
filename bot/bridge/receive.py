"""What is received, per SSRC, from RTP headers alone (RFC 3550 appendix A). Pure: time is a parameter."""

from __future__ import annotations

from dataclasses import dataclass, field

from bot.bridge.rtp import RtpError, parse_header, unwrap_sequence

#: A room of 500 with simulcast and RTX stays below; what is beyond is counted together.
MAX_STREAMS = 4096


@dataclass(slots=True)
class StreamStats:
    """One received stream. ``jitter`` in units of the RTP clock; ``first`` and ``last`` on the caller's clock."""

    ssrc: int
    payload_type: int
    first: float
    last: float
    packets: int = 0
    bytes: int = 0
    reordered: int = 0
    jitter: float = 0.0
    #: When the first frame was complete (marker bit), None before.
    first_frame: float | None = None
    _base: int = 0
    _highest: int = 0
    _transit: float | None = field(default=None, repr=False)

    @property
    def expected(self) -> int:
        """Packets that were sent as far as the sequence numbers tell."""
        return self._highest - self._base + 1 if self.packets else 0

    @property
    def lost(self) -> int:
        """Cumulative loss; duplicates can't make it negative."""
        return max(0, self.expected - self.packets)


class ReceiveStatistics:
    """Statistics of every stream of one transport."""

    def __init__(self) -> None:
        self.streams: dict[int, StreamStats] = {}
        self.packets = 0
        self.bytes = 0
        #: Packets that are no RTP, or of streams beyond the limit.
        self.ignored = 0

    @property
    def lost(self) -> int:
        """Packets of all streams that never came."""
        return sum(stream.lost for stream in self.streams.values())

    def feed(self, data: bytes, now: float, clock_rate: int) -> StreamStats | None:
        """Count one RTP packet that came at ``now`` (seconds); ``clock_rate`` in Hz. None when it was ignored."""
        try:
            header = parse_header(data)
        except RtpError:
            self.ignored += 1
            return None
        stream = self.streams.get(header.ssrc)
        if stream is None:
            if len(self.streams) >= MAX_STREAMS:
                self.ignored += 1
                return None
            stream = StreamStats(header.ssrc, header.payload_type, now, now)
            stream._base = stream._highest = header.sequence
            self.streams[header.ssrc] = stream
        self._count(stream, len(data), header.sequence)
        self._time(stream, header.timestamp, now, clock_rate)
        if header.marker and stream.first_frame is None:
            stream.first_frame = now
        return stream

    def _count(self, stream: StreamStats, size: int, sequence: int) -> None:
        self.packets += 1
        self.bytes += size
        stream.packets += 1
        stream.bytes += size
        extended = unwrap_sequence(sequence, stream._highest)
        if extended > stream._highest:
            stream._highest = extended
        elif extended < stream._highest:
            stream.reordered += 1
            stream._base = min(stream._base, extended)

    @staticmethod
    def _time(stream: StreamStats, timestamp: int, now: float, clock_rate: int) -> None:
        """Interarrival jitter, RFC 3550 section 6.4.1: a sixteenth of each difference of transit times."""
        stream.last = now
        transit = now * clock_rate - timestamp
        if stream._transit is not None:
            difference = abs(transit - stream._transit)
            if difference < 2**31:  # a wrapped timestamp is no jitter
                stream.jitter += (difference - stream.jitter) / 16
        stream._transit = transit
