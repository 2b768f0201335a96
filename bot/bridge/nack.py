"""Which packets of a stream are asked for again (RFC 4585 section 6.2.1), and when a key frame is. Pure.

The limits are those of web clients: a packet is asked for after a short wait for reordered ones, then once a round
trip, ten times at most, and given up after a second.
"""

from __future__ import annotations

from math import inf

from bot.bridge.rtp import unwrap_sequence

#: A packet that is overtaken by others usually comes within this time (seconds).
REORDER_TOLERANCE = 0.02
#: Never ask more often than this (seconds), however short the round trip.
MIN_SPACING = 0.02
#: The round trip before it is known (seconds).
DEFAULT_ROUND_TRIP = 0.1
MAX_TRIES = 10
MAX_AGE = 1.0
#: Packets of one stream that are missed at the same time.
MAX_MISSING = 1000
#: Sequence numbers in one NACK packet: 17 in each four bytes at best, one at worst, and it must fit a datagram.
MAX_IN_PACKET = 250
#: Key frames are asked for half a second apart at first; the gaps double up to the last (seconds).
KEY_FRAME_INTERVAL = 0.5
MAX_KEY_FRAME_INTERVAL = 8.0


class _Missing:
    __slots__ = ("due", "since", "tries")

    def __init__(self, now: float) -> None:
        self.since = now
        self.due = now + REORDER_TOLERANCE
        self.tries = 0


class NackTracker:
    """The gaps of one stream. Times in seconds on the caller's monotonic clock."""

    __slots__ = ("_highest", "_missing", "given_up")

    def __init__(self) -> None:
        self._highest: int | None = None
        self._missing: dict[int, _Missing] = {}
        #: Packets that were not repaired in time.
        self.given_up = 0

    def __repr__(self) -> str:
        return f"<NackTracker missing {len(self._missing)} given up {self.given_up}>"

    @property
    def missing(self) -> int:
        """Packets that may still come."""
        return len(self._missing)

    def received(self, sequence: int, now: float) -> bool:
        """Note a packet of the stream itself; True when it shows that others before it are missing."""
        highest = self._highest
        if highest is None:
            self._highest = sequence
            return False
        if sequence == (highest + 1) & 0xFFFF:
            self._highest = highest + 1
            return False
        number = unwrap_sequence(sequence, highest)
        if number <= highest:
            self._missing.pop(number, None)
            if highest - number > MAX_MISSING:
                self._give_up_all(0)  # far behind: the sender began anew
                self._highest = number
            return False
        self._highest = number
        gap = number - highest - 1
        if gap > MAX_MISSING:
            self._give_up_all(gap)
            return False
        self._missing.update((lost, _Missing(now)) for lost in range(highest + 1, number))
        while len(self._missing) > MAX_MISSING:
            del self._missing[next(iter(self._missing))]
            self.given_up += 1
        return True

    def in_order(self, count: int) -> None:
        """Note ``count`` packets at once, each the one after the last."""
        if self._highest is not None:
            self._highest += count

    def expects(self, sequence: int) -> bool:
        """Whether a packet with this 16-bit sequence number would be in order."""
        return self._highest is not None and sequence == (self._highest + 1) & 0xFFFF

    def repaired(self, sequence: int) -> bool:
        """Note a retransmission; True when the packet was missing."""
        if self._highest is None:
            return False
        return self._missing.pop(unwrap_sequence(sequence, self._highest), None) is not None

    def due(self, now: float, round_trip: float) -> list[int]:
        """Sequence numbers to ask for now; those that are too old are given up."""
        asked, given_up = [], []
        for number, item in self._missing.items():
            if item.due > now:
                continue
            if item.tries >= MAX_TRIES or now - item.since >= MAX_AGE:
                given_up.append(number)
                continue
            item.tries += 1
            item.due = now + max(round_trip, MIN_SPACING)
            asked.append(number & 0xFFFF)
        for number in given_up:
            del self._missing[number]
        self.given_up += len(given_up)
        return asked

    def next_deadline(self) -> float:
        """When ``due`` is to be asked again; infinity when nothing is missing."""
        return min((item.due for item in self._missing.values()), default=inf)

    def _give_up_all(self, gap: int) -> None:
        """So much is missing that only a key frame helps (or the sender began anew)."""
        self.given_up += gap + len(self._missing)
        self._missing.clear()


class KeyFrameRequests:
    """The streams that need a key frame, each asked for until it comes, less and less often."""

    def __init__(self) -> None:
        self._wanted: dict[int, tuple[float, float]] = {}
        self._asked: dict[int, float] = {}

    def want(self, ssrc: int, now: float) -> bool:
        """Ask for a key frame of ``ssrc``; False when that is being done already."""
        if ssrc in self._wanted:
            return False
        earliest = self._asked.get(ssrc, now - KEY_FRAME_INTERVAL) + KEY_FRAME_INTERVAL
        self._wanted[ssrc] = (max(now, earliest), KEY_FRAME_INTERVAL)
        return True

    def wanted(self, ssrc: int) -> bool:
        """Whether a key frame of ``ssrc`` is being asked for."""
        return ssrc in self._wanted

    def done(self, ssrc: int) -> None:
        """A key frame of ``ssrc`` came."""
        self._wanted.pop(ssrc, None)

    def forget(self, ssrc: int) -> None:
        """Nobody needs ``ssrc`` any more."""
        self._wanted.pop(ssrc, None)
        self._asked.pop(ssrc, None)

    def due(self, now: float) -> list[int]:
        """Streams to ask now."""
        asked = [ssrc for ssrc, (when, _) in self._wanted.items() if when <= now]
        for ssrc in asked:
            _, interval = self._wanted[ssrc]
            self._wanted[ssrc] = (now + interval, min(2 * interval, MAX_KEY_FRAME_INTERVAL))
            self._asked[ssrc] = now
        return asked

    def next_deadline(self) -> float:
        """When ``due`` is to be asked again; infinity when nothing is wanted."""
        return min((when for when, _ in self._wanted.values()), default=inf)
