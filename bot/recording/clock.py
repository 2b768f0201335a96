"""One clock for all streams of a meeting, from sender reports (RFC 3550 section 6.4.1). Pure.

Three clocks meet here: a stream's RTP clock (that of a sound card or a camera), its sender's wall clock, and ours.
Sender reports say where the first two are at the same time; sound and picture of one sender are put together by
that, wherever either of them waits on the way. How far a sender's wall clock is from ours is taken from the
packets that came fastest; it is the same for all streams of that sender, and follows slowly, as clocks drift apart
by 100 ppm and more.
"""

from __future__ import annotations

from collections import deque

#: Reports that the line through a stream's clocks is drawn by, as many as libwebrtc takes.
MAX_REPORTS = 20
#: A report that is so far (seconds) from where the line says is that of a clock that was set; after so many of
#: them in a row the line begins anew.
MAX_RESIDUAL, MAX_ODD = 0.1, 3
#: Rates further from the nominal one than this (1 %) are those of reports that came too close together.
MAX_SKEW = 0.01
#: The fastest packet is looked for among those of so many spans of so many seconds.
SPAN, SPANS = 10.0, 6
#: How fast what was said of time is corrected: 1 % of the time that goes by, which nobody hears.
SLEW = 0.01
#: A clock that is wrong by more (seconds) is put right at once.
JUMP = 0.5
#: A line without a report for so long (seconds) is trusted no more: by then clocks are apart.
STALE = 60.0
#: A time stamp that is so far (seconds) from where the packets before say is that of a sender that began anew.
RESTART = 3.0
_NTP_FRACTION = 1 << 32
_HALF, _WHOLE = 1 << 31, 1 << 32


def unwrap_timestamp(value: int, reference: int) -> int:
    """The unbounded number nearest to ``reference`` whose lower 32 bits are ``value``."""
    return reference + ((value - reference + _HALF) % _WHOLE) - _HALF


class Line:
    """A stream's RTP clock against its sender's wall clock; ``rate`` is the nominal one in Hz."""

    def __init__(self, rate: int) -> None:
        self._rate = rate
        self._reports: deque[tuple[int, float]] = deque(maxlen=MAX_REPORTS)
        self._odd: list[tuple[int, float]] = []
        self._at: tuple[int, float] | None = None
        self._slope = 1 / rate

    @property
    def known(self) -> bool:
        """Whether there was a report."""
        return self._at is not None

    def feed(self, timestamp: int, ntp: float) -> bool:
        """Take a report (unwrapped time stamp, seconds); True where the line began anew."""
        if self._at is not None and abs(self.time(timestamp) - ntp) > MAX_RESIDUAL:
            self._odd.append((timestamp, ntp))
            if len(self._odd) < MAX_ODD:
                return False
            self._reports.clear()
            self._reports.extend(self._odd)
            self._odd.clear()
            self._draw()
            return True
        self._odd.clear()
        if self._reports and timestamp <= self._reports[-1][0]:
            return False  # told again, or overtaken
        self._reports.append((timestamp, ntp))
        self._draw()
        return False

    def time(self, timestamp: int) -> float:
        """The sender's wall clock at an unwrapped time stamp."""
        assert self._at is not None
        return self._at[1] + (timestamp - self._at[0]) * self._slope

    def _draw(self) -> None:
        """Least squares through the reports, from their centre to keep the numbers small."""
        first = self._reports[0]
        count = len(self._reports)
        steps = [(stamp - first[0], ntp - first[1]) for stamp, ntp in self._reports]
        mean_x, mean_y = sum(x for x, _ in steps) / count, sum(y for _, y in steps) / count
        spread = sum((x - mean_x) ** 2 for x, _ in steps)
        slope = sum((x - mean_x) * (y - mean_y) for x, y in steps) / spread if spread else 0.0
        nominal = 1 / self._rate
        # A line through reports of a few seconds says more of their noise than of the clock.
        if abs(slope / nominal - 1) > MAX_SKEW or steps[-1][0] < 5 * self._rate:
            slope = nominal
        self._slope = slope
        self._at = (first[0] + round(mean_x), first[1] + mean_y + (round(mean_x) - mean_x) * slope)


class Fastest:
    """The least of what came in the last minute: the way of the packets that met no queue."""

    def __init__(self) -> None:
        self._spans: deque[tuple[int, float]] = deque(maxlen=SPANS)
        #: The least value, None before the first.
        self.least: float | None = None

    def feed(self, value: float, now: float) -> float:
        """Take a value at ``now`` (seconds); returns the least one."""
        span = int(now / SPAN)
        if not self._spans or self._spans[-1][0] != span:
            self._spans.append((span, value))
        elif value < self._spans[-1][1]:
            self._spans[-1] = (span, value)
        self.least = min(least for number, least in self._spans if number > span - SPANS)
        return self.least


class Slewed:
    """A value that follows another one slowly, but for jumps; what is written can't be taken back."""

    def __init__(self) -> None:
        #: None before the first call.
        self.value: float | None = None
        self._at = 0.0

    def feed(self, target: float, now: float) -> float:
        """Go towards ``target`` as far as the time since the last call lets."""
        if self.value is None or abs(target - self.value) > JUMP:
            self.value = target
        else:
            most = SLEW * max(0.0, now - self._at)
            self.value += min(max(target - self.value, -most), most)
        self._at = max(self._at, now)
        return self.value


class _Stream:
    """One SSRC: ``last`` is the newest time stamp, unwrapped, and ``came`` when it came."""

    __slots__ = ("came", "correction", "fastest", "last", "line", "rate", "reported", "sender")

    def __init__(self, sender: str, rate: int, timestamp: int, now: float) -> None:
        self.sender = sender
        self.rate = rate
        self.last = timestamp
        self.came = now
        self.line = Line(rate)
        self.reported = now
        #: How far its time stamps are from our clock, for want of reports.
        self.fastest = Fastest()
        self.correction = Slewed()

    @property
    def trusted(self) -> bool:
        """Whether its line says where it is now."""
        return self.line.known and self.came - self.reported < STALE


class _Sender:
    """How far a sender's wall clock is behind ours."""

    __slots__ = ("_fastest", "offset")

    def __init__(self) -> None:
        self._fastest = Fastest()
        self.offset = Slewed()

    def feed(self, value: float, now: float) -> None:
        self.offset.feed(self._fastest.feed(value, now), now)


class MeetingClock:
    """When what is in a packet was captured, on our monotonic clock in seconds, for all streams of a meeting.

    It is later than the truth by the fastest way from its sender to us, the same for all streams of that sender.
    """

    def __init__(self) -> None:
        self._streams: dict[int, _Stream] = {}
        self._senders: dict[str, _Sender] = {}
        #: Reports whose time stamps are not those of the packets.
        self.foreign = 0

    def __repr__(self) -> str:
        return f"<MeetingClock of {len(self._streams)} streams>"

    def packet(self, ssrc: int, sender: str, rate: int, timestamp: int, now: float) -> None:
        """Note a packet that came at ``now``, with its RTP time stamp of ``rate`` Hz; not for what repairs."""
        stream = self._streams.get(ssrc)
        if stream is None or stream.sender != sender or stream.rate != rate:
            stream = self._streams[ssrc] = _Stream(sender, rate, timestamp, now)
        unwrapped = unwrap_timestamp(timestamp, stream.last)
        if abs(unwrapped - stream.last - (now - stream.came) * rate) > RESTART * rate:
            # The sender began anew; so does all that is known of this stream's clock.
            stream = self._streams[ssrc] = _Stream(sender, rate, timestamp, now)
            unwrapped = timestamp
        if unwrapped >= stream.last:
            stream.last, stream.came = unwrapped, now
        stream.fastest.feed(now - unwrapped / rate, now)
        if stream.trusted:
            self._sender(sender).feed(now - stream.line.time(unwrapped), now)

    def report(self, ssrc: int, ntp: int, timestamp: int, now: float) -> None:
        """Take a sender report: ``ntp`` in 1/2³² s since 1900 belongs to the RTP time stamp ``timestamp``."""
        stream = self._streams.get(ssrc)
        if stream is None or not ntp:
            return  # of a stream that is not heard, or of a sender without a clock (RFC 3550 section 6.4.1)
        unwrapped = unwrap_timestamp(timestamp, stream.last)
        if abs(unwrapped - stream.last - (now - stream.came) * stream.rate) > RESTART * stream.rate:
            # Videobridge gives packets other time stamps, of H264 always, of VP8 after it went to another layer,
            # and leaves the reports as they were: they say nothing of what comes.
            self.foreign += 1
            return
        stream.reported = now
        first = not stream.line.known
        if stream.line.feed(unwrapped, ntp / _NTP_FRACTION):
            self._senders.pop(stream.sender, None)
        if first:
            stream.correction = Slewed()  # what was guessed before is put right at once
        self._sender(stream.sender).feed(stream.came - stream.line.time(stream.last), now)

    def time(self, ssrc: int, timestamp: int) -> float:
        """When the sample or picture of an RTP time stamp was captured. Raises KeyError for an unknown SSRC."""
        stream = self._streams[ssrc]
        unwrapped = unwrap_timestamp(timestamp & 0xFFFFFFFF, stream.last)
        plain = unwrapped / stream.rate
        offset = self._sender(stream.sender).offset.value
        if stream.trusted and offset is not None:
            target = stream.line.time(unwrapped) + offset - plain
        else:
            target = stream.fastest.least or 0.0
        return plain + stream.correction.feed(target, plain)

    def forget(self, *ssrcs: int) -> None:
        """Drop streams that are gone, or carry another source from now on."""
        for ssrc in ssrcs:
            self._streams.pop(ssrc, None)
        alive = {stream.sender for stream in self._streams.values()}
        self._senders = {name: state for name, state in self._senders.items() if name in alive}

    def _sender(self, name: str) -> _Sender:
        found = self._senders.get(name)
        if found is None:
            found = self._senders[name] = _Sender()
        return found
