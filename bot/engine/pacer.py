"""When the streams of all participants send: one schedule and one timer of the event loop for all of them."""

from __future__ import annotations

import asyncio
import math
import time
from collections.abc import Callable
from heapq import heappop, heappush, heapreplace
from itertools import count
from typing import Protocol
from weakref import WeakKeyDictionary, ref

import structlog

log = structlog.get_logger(__name__)

#: Timers fire on a grid of so many seconds: what is due in between is sent together, which saves wake-ups.
TICK = 0.004
#: A stream that is later than this leaves out what it missed (seconds).
PATIENCE = 0.1
#: A stream that fails is asked again after this time (seconds).
RETRY = 0.1
#: Failures that are logged; all are counted.
_LOGGED_FAULTS = 10


class Scheduled(Protocol):
    """Something that sends at times of its own."""

    def send(self, now: float) -> float | None:
        """Send what is due at ``now`` (monotonic seconds); returns when it is due next, None for never."""
        ...


class Lateness:
    """How late things were sent: a histogram in steps of a millisecond, of 0 to 255 ms and more."""

    def __init__(self) -> None:
        self._buckets = [0] * 256
        #: The latest so far, in seconds.
        self.max = 0.0

    def record(self, late: float) -> None:
        """Count one (seconds)."""
        self._buckets[min(int(late * 1000), 255) if late > 0.001 else 0] += 1
        self.max = max(self.max, late)

    @property
    def count(self) -> int:
        """How many were counted."""
        return sum(self._buckets)

    def counts(self) -> list[int]:
        """How many were late by each millisecond, from 0 to 255 and more."""
        return list(self._buckets)

    def percentile(self, share: float) -> float:
        """Seconds that ``share`` (0 to 1) were not later than, rounded up to a millisecond; 0 before the first."""
        wanted, seen = share * self.count, 0
        for milliseconds, number in enumerate(self._buckets):
            seen += number
            if number and seen >= wanted:
                return min((milliseconds + 1) / 1000, self.max)
        return 0.0

    def reset(self) -> None:
        """Begin anew."""
        self._buckets = [0] * 256
        self.max = 0.0


class Ticket:
    """A stream's place in a schedule."""

    __slots__ = ("rank", "stream")

    def __init__(self, stream: Scheduled, rank: int) -> None:
        self.stream: Scheduled | None = stream
        self.rank = rank

    def __lt__(self, other: object) -> bool:
        """Of two tickets of one stream for the same time one was cancelled: their order means nothing."""
        return False

    @property
    def gone(self) -> bool:
        """Whether it was cancelled, or the stream has ended."""
        return self.stream is None


class Schedule:
    """Who sends when. Pure: time is a parameter, but for ``clock``, which tells how late each stream is."""

    def __init__(self, clock: Callable[[], float]) -> None:
        self._clock = clock
        self._heap: list[tuple[float, int, Ticket]] = []
        self._ranks = count()
        self._gone = 0
        self.lateness = Lateness()
        #: Times that a stream was later than ``PATIENCE``.
        self.skips = 0
        #: Times that a stream failed.
        self.faults = 0

    def __len__(self) -> int:
        return len(self._heap) - self._gone

    def add(self, stream: Scheduled, due: float, after: Ticket | None = None) -> Ticket:
        """Let ``stream`` send from ``due`` on. Of two that are due together, who was added first goes first.

        ``after`` is an earlier ticket of the stream, whose place among others it keeps.
        """
        ticket = Ticket(stream, next(self._ranks) if after is None else after.rank)
        heappush(self._heap, (due, ticket.rank, ticket))
        return ticket

    def cancel(self, ticket: Ticket) -> None:
        """Don't ask the stream of ``ticket`` any more; may be called twice."""
        if ticket.stream is not None:
            ticket.stream = None
            self._gone += 1
            if self._gone > 64 and self._gone > len(self._heap) // 2:  # they would keep their place for hours
                self._heap = [entry for entry in self._heap if entry[2].stream is not None]
                self._heap.sort()
                self._gone = 0

    def next_deadline(self) -> float:
        """When ``run`` is to be called; infinity when nothing is to be sent."""
        return self._heap[0][0] if self._heap else math.inf

    def run(self, now: float) -> None:
        """Let everybody send who is due at ``now``, each once or more."""
        while self._heap and self._heap[0][0] <= now:
            due, rank, ticket = self._heap[0]
            if ticket.stream is None:
                heappop(self._heap)
                self._gone -= 1
                continue
            at = self._clock()
            self.lateness.record(at - due)
            if at - due > PATIENCE:
                self.skips += 1
            try:
                following = ticket.stream.send(at)
            except Exception:
                self.faults += 1
                if self.faults <= _LOGGED_FAULTS:
                    log.exception("A stream could not be sent", event_name="send_failed")
                following = at + RETRY
            if ticket.gone:
                continue  # it was cancelled while it sent; its entry may be elsewhere by now
            if self._heap[0][2] is not ticket:
                self._move(ticket, following)
            elif following is None:
                self._finish(ticket)
            else:
                heapreplace(self._heap, (following, rank, ticket))

    def _finish(self, ticket: Ticket) -> None:
        ticket.stream = None
        heappop(self._heap)

    def _move(self, ticket: Ticket, following: float | None) -> None:
        """Put the ticket elsewhere: another that is due earlier was added while it sent."""
        stream, self._heap = ticket.stream, [entry for entry in self._heap if entry[2] is not ticket]
        self._heap.sort()
        if stream is not None and following is not None:
            heappush(self._heap, (following, ticket.rank, ticket))
        else:
            ticket.stream = None


class Pacer:
    """The schedule of one event loop: its timer runs only while there is something to send.

    Nothing is to be closed: who takes his streams out leaves nothing behind.
    """

    def __init__(self, loop: asyncio.AbstractEventLoop, *, tick: float = TICK) -> None:
        self._loop = ref(loop)  # it outlives nobody: what is kept by the loop must not keep it
        self._tick = tick
        self._schedule = Schedule(time.monotonic)
        self._timer: asyncio.TimerHandle | None = None
        self._wake = math.inf

    def __repr__(self) -> str:
        return f"<Pacer {len(self)} streams, 99 % at most {1000 * self.lateness.percentile(0.99):.0f} ms late>"

    def __len__(self) -> int:
        return len(self._schedule)

    @property
    def lateness(self) -> Lateness:
        """How late streams sent."""
        return self._schedule.lateness

    @property
    def skips(self) -> int:
        """Times that a stream left something out because it was too late."""
        return self._schedule.skips

    @property
    def faults(self) -> int:
        """Times that a stream failed; it was asked again."""
        return self._schedule.faults

    def add(self, stream: Scheduled, due: float, after: Ticket | None = None) -> Ticket:
        """As :meth:`Schedule.add`; ``due`` is in monotonic seconds."""
        ticket = self._schedule.add(stream, due, after)
        self._arm()
        return ticket

    def cancel(self, ticket: Ticket) -> None:
        """As :meth:`Schedule.cancel`."""
        self._schedule.cancel(ticket)
        if not len(self._schedule):
            self._disarm()

    def is_armed(self) -> bool:
        """Whether a timer of the loop runs."""
        return self._timer is not None

    def _arm(self) -> None:
        due = self._schedule.next_deadline()
        if not len(self._schedule) or due >= self._wake:
            return
        self._disarm()
        self._wake = math.ceil(due / self._tick) * self._tick
        # The loop's clock need not be the one that streams are due by.
        if (loop := self._loop()) is not None:
            self._timer = loop.call_later(max(0.0, self._wake - time.monotonic()), self._run)

    def _disarm(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
        self._timer, self._wake = None, math.inf

    def _run(self) -> None:
        self._timer, self._wake = None, math.inf
        self._schedule.run(time.monotonic())
        self._arm()


_pacers: WeakKeyDictionary[asyncio.AbstractEventLoop, Pacer] = WeakKeyDictionary()


def running_pacer() -> Pacer:
    """The pacer of the running event loop."""
    loop = asyncio.get_running_loop()
    found = _pacers.get(loop)
    if found is None:
        found = _pacers[loop] = Pacer(loop)
    return found
