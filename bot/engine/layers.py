"""Which layers of one participant's pictures are sent: what the room asks for and the link carries. Pure."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Protocol

from bot.engine.bandwidth import Uplink

#: A layer comes back when the link carries this much more than it needs.
HEADROOM = 1.1
#: A train is sent at this much more than what is wanted.
PROBE_HEADROOM = 1.25
#: Seconds from a layer's end to the first train, and between two of them.
PROBE_INTERVAL = 4.0
MAX_PROBE_INTERVAL = 60.0
#: A layer that lasts so long was no mistake (seconds).
LASTING = 20.0
#: Where a train can't be sent, the layer itself is the trial, after this much longer.
TRIAL_FACTOR = 2.0


def layers_for_height(heights: Sequence[int], max_height: int | None) -> int:
    """How many layers of these ``heights`` (lowest first) ``max_height`` asks for; None is no limit.

    As web clients understand SenderSourceConstraints: 0 asks for nothing, anything above at least for the lowest.
    """
    if max_height is None:
        return len(heights)
    return 0 if max_height <= 0 else max(1, sum(height <= max_height for height in heights))


class LayeredSender(Protocol):
    """A sender of pictures in layers."""

    #: Bit/s of each layer on the wire, lowest first.
    rates: tuple[float, ...]
    #: How many layers the link allows.
    layers_allowed: int

    @property
    def layers_wanted(self) -> int:
        """How many layers would be sent on any link; 0 while muted."""
        ...

    def probe(self, rate: float, now: float) -> bool:
        """Send a train of packets at ``rate`` bit/s; whether there is anything to make it of."""
        ...


class LayerControl:
    """Shares the link between the senders of one participant: the lowest layers first, then the next ones.

    The lowest layer of each picture and all sound is always sent. Call ``update`` after each feedback, or every
    100 ms or so.
    """

    def __init__(self, uplink: Uplink) -> None:
        self._uplink = uplink
        self._senders: list[LayeredSender] = []
        self._interval = PROBE_INTERVAL
        self._next_probe = 0.0
        self._raised: float | None = None
        #: Bit/s of sound on the wire.
        self.reserved = 0.0
        #: Times that layers were dropped because of the link.
        self.drops = 0

    def add(self, sender: LayeredSender) -> None:
        """Share the link with ``sender``, after those that are there."""
        self._senders.append(sender)

    def remove(self, sender: LayeredSender) -> None:
        """Forget a sender; may be called twice."""
        if sender in self._senders:
            self._senders.remove(sender)

    def update(self, now: float) -> None:
        """Set how many layers each sender is allowed, and look for more where some are missing."""
        estimate = self._uplink.estimate(now)
        if estimate is None:
            for sender in self._senders:
                sender.layers_allowed = len(sender.rates)
            return
        wanted = self._share(estimate, now)
        if self._raised is not None and now - self._raised > LASTING:
            self._raised, self._interval = None, PROBE_INTERVAL
        if wanted is not None and now >= self._next_probe:
            self._look_for_more(wanted, now)

    def _share(self, estimate: float, now: float) -> float | None:
        """Allow what fits; returns what the first layer that does not fit would need, with those below it."""
        total, missing = self.reserved, None
        allowed = [0] * len(self._senders)
        for at, level in self._steps():
            sender = self._senders[at]
            total += sender.rates[level]
            needed = total if level < sender.layers_allowed else HEADROOM * total
            if level and (missing is not None or needed > estimate):
                missing = total if missing is None else missing
            else:
                allowed[at] = level + 1
        for sender, number in zip(self._senders, allowed, strict=True):
            self._allow(sender, number, now)
        return missing

    def _steps(self) -> Iterator[tuple[int, int]]:
        wanted = [sender.layers_wanted for sender in self._senders]
        for level in range(max(wanted, default=0)):
            yield from ((at, level) for at, number in enumerate(wanted) if level < number)

    def _allow(self, sender: LayeredSender, number: int, now: float) -> None:
        if not (wanted := sender.layers_wanted):
            return
        if number < min(wanted, sender.layers_allowed):
            self.drops += 1
            if self._raised is not None:
                self._interval = min(2 * self._interval, MAX_PROBE_INTERVAL)  # it should not have come back
                self._raised = None
            self._next_probe = now + self._interval
        elif number > sender.layers_allowed:
            self._raised = now
            self._next_probe = now + PROBE_INTERVAL / 2
        sender.layers_allowed = number if number < wanted else max(number, sender.layers_allowed)

    def _look_for_more(self, wanted: float, now: float) -> None:
        if not self._uplink.calm(now):
            return
        self._next_probe = now + self._interval
        rate = PROBE_HEADROOM * wanted
        senders = [sender for sender in self._senders if sender.layers_wanted]
        if not any(sender.probe(rate, now) for sender in senders):
            self._next_probe = now + TRIAL_FACTOR * self._interval
            self._uplink.assume(HEADROOM * wanted)
