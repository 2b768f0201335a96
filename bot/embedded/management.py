"""Stream management of one session (XEP-0198), the server's side. Pure."""

from __future__ import annotations

from collections import deque

_WRAP = 1 << 32


class TooManyAckedError(ValueError):
    """The client acknowledged more stanzas than were sent: the stream has to end."""


class StreamManagement:
    """Counters and unacknowledged stanzas. Counts only iq, message and presence, modulo 2^32 (section 4)."""

    def __init__(self, stream_id: str, *, ack_every: int, limit: int, max_size: int) -> None:
        self.id = stream_id
        #: Stanzas of the client that were handled.
        self.handled = 0
        #: Stanzas that the client has acknowledged.
        self.acknowledged = 0
        #: False once more than ``limit`` stanzas or ``max_size`` characters wait: dropped ones are lost.
        self.resumable = True
        self._ack_every = ack_every
        self._limit = limit
        self._max_size = max_size
        self._size = 0
        self._unacked: deque[str] = deque()
        self._unrequested = 0

    @property
    def unacked(self) -> tuple[str, ...]:
        """Frames sent and not acknowledged, oldest first."""
        return tuple(self._unacked)

    @property
    def sent(self) -> int:
        """Stanzas sent since ``<enabled/>``."""
        return (self.acknowledged + len(self._unacked)) % _WRAP

    def count_received(self) -> None:
        """Note a stanza of the client as handled."""
        self.handled = (self.handled + 1) % _WRAP

    def record_sent(self, frame: str) -> bool:
        """Keep a stanza until it is acknowledged. True when an acknowledgement should be asked for now."""
        self._unacked.append(frame)
        self._size += len(frame)
        while len(self._unacked) > self._limit or self._size > self._max_size:
            self._drop()
            self.acknowledged = (self.acknowledged + 1) % _WRAP
            self.resumable = False
        self._unrequested += 1
        if self._unrequested < self._ack_every:
            return False
        self._unrequested = 0
        return True

    def acknowledge(self, h: int) -> None:
        """Drop what the client has handled; raises TooManyAckedError."""
        count = (h - self.acknowledged) % _WRAP
        if count > len(self._unacked):
            # An acknowledgement of what overflowed is no error, only late.
            if not self.resumable and (self.acknowledged - h) % _WRAP < _WRAP // 2:
                return
            raise TooManyAckedError(f"acknowledged {h} of {self.sent} stanzas")
        for _ in range(count):
            self._drop()
        self.acknowledged = h

    def _drop(self) -> None:
        self._size -= len(self._unacked.popleft())
