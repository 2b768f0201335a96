"""When the next frame of a real-time track is due: pure, time is a parameter."""

from __future__ import annotations

import math
from dataclasses import dataclass
from fractions import Fraction


@dataclass(frozen=True, slots=True)
class Slot:
    """A frame's place on the time line: its ``index`` since the start, and when it is ``due`` (seconds)."""

    index: int
    due: float


class Pacer:
    """An absolute schedule of ``rate`` frames a second, which neither drifts nor bursts.

    Frame n is due at start + n / rate, so errors of single waits never add up. Who comes late by more than
    ``patience`` whole frames gets the newest frame that is due: those between are skipped, not made up for.
    """

    def __init__(self, rate: Fraction, *, patience: int = 0) -> None:
        if rate <= 0:
            raise ValueError(f"rate must be above 0, not {rate}")
        if patience < 0:
            raise ValueError(f"patience must not be negative, not {patience}")
        self._rate = rate
        self._patience = patience
        self._start: float | None = None
        self._next = 0
        self._skipped = 0

    def __repr__(self) -> str:
        return f"<Pacer {float(self._rate):g}/s next={self._next} skipped={self._skipped}>"

    @property
    def skipped(self) -> int:
        """Frames left out so far because they were asked for too late."""
        return self._skipped

    def next(self, now: float) -> Slot:
        """The next frame to send. It may be due at once (``due`` <= ``now``, both in monotonic seconds)."""
        if self._start is None:
            self._start = now
        newest = math.floor((now - self._start) * self._rate)
        index = self._next
        if newest - index > self._patience:
            self._skipped += newest - index
            index = newest
        self._next = index + 1
        return Slot(index, self._start + float(index / self._rate))
