"""What a stream sent lately, by frame, and what is sent again of it (RFC 4585 section 6.2.1, RFC 4588). Pure."""

from __future__ import annotations

from collections import deque
from typing import NamedTuple

from bot.engine.templates import Template

#: Frames that are kept: two seconds and more. Receivers give up after one.
FRAMES = 64
#: Without a measured round trip, a packet is not sent again within this time (seconds).
DEFAULT_ROUND_TRIP = 0.1
#: A flood of requests must not become a flood of answers: retransmissions have the layer's rate, or this (bit/s).
MIN_RATE = 300_000.0
#: The window of that limit (seconds).
WINDOW = 1.0


class Sent(NamedTuple):
    """A frame that was sent: its first sequence number, RTP time stamp and running fields."""

    first: int
    template: Template
    timestamp: int
    fields: bytes


class History:
    """The frames of one SSRC. What was sent again is not sent anew within a round trip, as web clients do."""

    __slots__ = ("_again", "_budget", "_frames", "_since", "add", "limited", "unknown")

    def __init__(self) -> None:
        self._frames: deque[tuple[int, Template, int, bytes]] = deque(maxlen=FRAMES)
        self._again: dict[int, float] = {}
        self._since = 0.0
        self._budget = 0.0
        #: Takes the newest frame, as the values of a :class:`Sent`: making one takes as long as a packet's header.
        self.add = self._frames.append
        #: Requests for what is too old or was never sent, and those beyond the limits.
        self.unknown = self.limited = 0

    def find(self, sequence: int) -> tuple[Sent, int] | None:
        """The frame with the packet ``sequence``, and which of its packets that is."""
        for sent in reversed(self._frames):
            if (number := (sequence - sent[0]) & 0xFFFF) < sent[1].count:
                return Sent(*sent), number
        return None

    def again(
        self, sequence: int, now: float, *, round_trip: float | None, rate: float
    ) -> tuple[Sent, int] | None:
        """As ``find``, for a packet that is asked for; None where it must not be sent again now."""
        found = self.find(sequence)
        if found is None:
            self.unknown += 1
            return None
        sent, number = found
        size = 8 * sent.template.sizes[number]
        if now - self._since >= WINDOW:
            self._since, self._budget = now, max(rate, MIN_RATE) * WINDOW
            self._again = {item: when for item, when in self._again.items() if now - when < WINDOW}
        spacing = DEFAULT_ROUND_TRIP if round_trip is None else round_trip
        if now - self._again.get(sequence, -spacing) < spacing or size > self._budget:
            self.limited += 1
            return None
        self._budget -= size
        self._again[sequence] = now
        return found

    def newest(self, octets: int) -> list[int]:
        """Sequence numbers of packets that have ``octets`` bytes together, the newest first; again from there."""
        found: list[int] = []
        while self._frames and octets > 0:
            for first, template, _, _ in reversed(self._frames):
                for number, size in enumerate(template.sizes):
                    found.append((first + number) & 0xFFFF)
                    octets -= size
                    if octets <= 0:
                        return found
        return found
