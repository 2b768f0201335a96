"""How much the way to the bridge carries, from its feedback: in the spirit of draft-ietf-rmcat-gcc-02. Pure.

What is sent is a clip, whose rate nobody can turn down: the estimate only has to say which layers fit. It is
unknown (None) until the link shows that it is too small: a queue that grows, or loss. Then it is what came
through, and grows with what is sent. A train of packets at a higher rate (:meth:`Uplink.probe`) tells whether the
link is wide again.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Sequence
from typing import NamedTuple, Protocol

from bot.bridge.twcc import TransportFeedback

#: Packets whose time of sending is kept: five seconds of three layers.
RING = 2048
_MASK = RING - 1
#: Feedback of so many seconds is looked at.
WINDOW = 1.0
#: Less tells nothing of a rate (seconds between the first and the last arrival).
MIN_SPAN = 0.25
#: A queue of so many seconds that grows is too much, one of ``WORST_QUEUE`` always, one of ``CALM_QUEUE`` never.
FULL_QUEUE, WORST_QUEUE, CALM_QUEUE = 0.06, 0.3, 0.03
#: A queue grows when it does so by this much within the window (seconds).
GROWTH = 0.03
#: Feedback in a row that must tell of a queue: a key frame, or a train, makes one that soon goes.
PERSISTENT = 5
#: Less loss than this happens to a radio link of any rate, and RTX mends it. More: the link is too small.
TOO_MUCH_LOSS = 0.2
#: With a queue, less loss says the same.
LOSS_WITH_QUEUE = 0.02
#: What is left of the measured rate (draft-ietf-rmcat-gcc-02 section 5.5), and growth in a second.
DECREASE, INCREASE = 0.85, 1.08
#: The shortest delay is that of the last two of these intervals (seconds).
BASE_INTERVAL = 15.0
#: A REMB holds so long (seconds); bridges send them every second or so.
REMB_LIFETIME = 10.0
#: The packets of a train may come apart by this factor and so many seconds more than they were sent.
TRAIN_STRETCH, TRAIN_JITTER = 1.1, 0.003
#: What is taken of the rate that a train came apart to: it must not queue at once.
TRAIN_SHARE = 0.95
#: A train that is not answered within this time is forgotten (seconds).
TRAIN_LIFETIME = 3.0


class Numbers(Protocol):
    """The counter of transport-wide sequence numbers."""

    def take(self, count: int = 1) -> int:
        """The first of the next ``count`` numbers, modulo 65536."""
        ...


class _Interval(NamedTuple):
    """What one feedback packet said. Arrivals on the receiver's clock, ``delay`` is the least of the packets."""

    first: float
    last: float
    octets: int
    received: int
    lost: int
    delay: float


class _Train:
    """Packets that were sent at a high rate, and what came of them."""

    def __init__(self, rate: float, first: int, now: float) -> None:
        self.rate = rate
        self.first = first
        self.started = now
        self.last: int | None = None
        self.came: list[tuple[float, int]] = []


class Uplink:
    """Hands out transport-wide sequence numbers and keeps when each was sent. Times in monotonic seconds."""

    def __init__(self, numbers: Numbers) -> None:
        self._numbers = numbers
        self._times = [0.0] * RING
        self._sizes = [0] * RING
        self._next = 0
        self._intervals: deque[_Interval] = deque()
        self._base: float | None = None
        self._older_base: float | None = None
        self._base_until = self._least = 0.0
        self._decreased = -1.0
        self._estimate: float | None = None
        self._updated = 0.0
        self._remb: tuple[float, float] | None = None
        self._train: _Train | None = None
        #: Share of the packets that were lost lately, and the queue on the way in seconds.
        self.loss = self.queue = 0.0
        #: Times that the link was found too small.
        self.decreases = 0

    def __repr__(self) -> str:
        rate = "unknown" if self._estimate is None else f"{self._estimate / 1000:.0f} kbit/s"
        return f"<Uplink {rate} loss {100 * self.loss:.0f} % queue {1000 * self.queue:.0f} ms>"

    def take(self, sizes: Sequence[int], now: float) -> int:
        """Numbers for packets of these sizes (bytes on the wire) that are sent now: the first of them."""
        number = len(sizes)
        first = self._numbers.take(number)
        at = first & _MASK
        if number == 1:
            self._times[at] = now
            self._sizes[at] = sizes[0]
        elif at + number <= RING:
            self._times[at : at + number] = [now] * number
            self._sizes[at : at + number] = sizes
        else:
            for offset, size in enumerate(sizes):
                self._times[(at + offset) & _MASK] = now
                self._sizes[(at + offset) & _MASK] = size
        self._next = first + number
        return first

    def feedback(self, feedback: TransportFeedback, now: float) -> None:
        """Take what the bridge says of our packets."""
        packets = feedback.packets
        if not packets or not self._is_known(packets[0][0]):
            return
        if self._train is not None:
            self._answer_train(self._train, feedback, now)
        times = self._times
        if times[packets[0][0] & _MASK] <= self._decreased:
            return  # it tells of what was sent before the last decrease, which was drawn from it
        came = [(arrival, number & _MASK) for number, arrival in packets if arrival is not None]
        if not came:
            return
        sizes = self._sizes
        self._intervals.append(
            _Interval(
                came[0][0],
                came[-1][0],
                sum([sizes[at] for _, at in came]),
                len(came),
                len(packets) - len(came),
                min([arrival - times[at] for arrival, at in came]),
            )
        )
        while came[-1][0] - self._intervals[0].last > WINDOW:
            self._intervals.popleft()
        self._judge(now)

    def remb(self, bitrate: float, now: float) -> None:
        """Take a receiver's estimate (draft-alvestrand-rmcat-remb-03), in bit/s."""
        self._remb = bitrate, now

    def estimate(self, now: float) -> float | None:
        """Bit/s that the link carries, all headers included; None while nothing says that it is too small."""
        limits = [] if self._estimate is None else [self._estimate]
        if self._remb is not None and now - self._remb[1] < REMB_LIFETIME:
            limits.append(self._remb[0])
        return min(limits, default=None)

    def assume(self, rate: float) -> None:
        """Let the estimate be ``rate`` bit/s at least: what is sent then will show whether it is."""
        if self._estimate is not None:
            self._estimate = max(self._estimate, rate)

    def calm(self, now: float) -> bool:
        """Whether a train may be sent: nothing queues, and no other one is on its way."""
        return self.queue < CALM_QUEUE and (self._train is None or now - self._train.started > TRAIN_LIFETIME)

    def probe(self, rate: float, now: float) -> None:
        """A train of packets at ``rate`` bit/s begins; ``take`` gives the numbers of its packets, too."""
        self._train = _Train(rate, self._next & 0xFFFF, now)

    def probed(self) -> None:
        """The train's last packet was sent."""
        if self._train is not None:
            self._train.last = (self._next - 1) & 0xFFFF

    def _is_known(self, number: int) -> bool:
        """Whether the ring still has the packet."""
        return 0 < (self._next - number) & 0xFFFF <= RING and self._sizes[number & _MASK] > 0

    def _judge(self, now: float) -> None:
        self._measure(now)
        span = self._intervals[-1].last - self._intervals[0].first
        if span < MIN_SPAN:
            return
        rate = 8 * sum([item.octets for item in self._intervals]) / span
        if self._is_too_much():
            self._estimate = DECREASE * rate
            self._decreased = now
            self._updated = now
            self.decreases += 1
            self._intervals.clear()
        elif self._estimate is not None and self.queue < CALM_QUEUE and self.loss < TOO_MUCH_LOSS / 2:
            grown = self._estimate * INCREASE ** min(1.0, now - self._updated)
            self._estimate = max(self._estimate, min(grown, 1.5 * rate))
            self._updated = now

    def _measure(self, now: float) -> None:
        newest = self._intervals[-1].delay
        if now >= self._base_until:
            self._older_base, self._base = self._base, newest
            self._base_until = now + BASE_INTERVAL
        self._base = newest if self._base is None else min(self._base, newest)
        self._least = self._base if self._older_base is None else min(self._base, self._older_base)
        self.queue = newest - self._least
        lost = sum([item.lost for item in self._intervals])
        received = sum([item.received for item in self._intervals])
        self.loss = lost / (lost + received)

    def _is_too_much(self) -> bool:
        """Whether the link is too small: a queue that grows or overflows, or loss that no radio has."""
        if self.loss > TOO_MUCH_LOSS:
            return True
        delays = [item.delay for item in self._intervals]
        standing = min(delays[-PERSISTENT:]) - self._least
        if standing < FULL_QUEUE or len(delays) < PERSISTENT:
            return False
        grows = min(delays[-PERSISTENT:]) - min(delays) > GROWTH
        return grows or standing > WORST_QUEUE or self.loss > LOSS_WITH_QUEUE

    def _answer_train(self, train: _Train, feedback: TransportFeedback, now: float) -> None:
        for number, arrival in feedback.packets:
            if arrival is not None and (number - train.first) & 0xFFFF < RING:
                train.came.append((arrival, number))
        last = train.last
        if last is not None and (feedback.packets[-1][0] - last) & 0xFFFF < 0x8000:
            self._train = None
            self._judge_train([item for item in train.came if (last - item[1]) & 0xFFFF < RING], train, now)
        elif now - train.started > TRAIN_LIFETIME:
            self._train = None

    def _judge_train(self, came: list[tuple[float, int]], train: _Train, now: float) -> None:
        """The rate of a train that came as it was sent is there; of one that came apart, what was left of it."""
        count = ((train.last or 0) - train.first + 1) & 0xFFFF
        if len(came) < 3 or len(came) < (1 - TOO_MUCH_LOSS) * count or self._estimate is None:
            return
        came.sort()
        span = came[-1][0] - came[0][0]
        sent = self._times[came[-1][1] & _MASK] - self._times[came[0][1] & _MASK]
        measured = 8 * sum(self._sizes[number & _MASK] for _, number in came[1:]) / max(span, 0.001)
        found = (
            train.rate if span <= TRAIN_STRETCH * sent + TRAIN_JITTER else TRAIN_SHARE * min(measured, train.rate)
        )
        self._estimate = max(self._estimate, found)
        self._updated = now
