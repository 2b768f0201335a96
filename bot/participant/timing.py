"""How long each phase of joining took, on an injected monotonic clock."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from types import MappingProxyType

#: The phases of joining, in the order of the normal case.
PHASES = (
    "websocket",
    "sasl",
    "bind",
    "focus",
    "muc",
    "offer",
    "ice",
    "dtls",
    "channel",
    "first_packet_out",
    "first_packet_in",
)


class PhaseTimer:
    """Each phase begins where the one before it ended; ``done`` gives its length in seconds."""

    def __init__(self, clock: Callable[[], float]) -> None:
        self._clock = clock
        self._start = clock()
        self._phase_start = self._start
        self._seconds: dict[str, float] = {}

    def __repr__(self) -> str:
        return f"<PhaseTimer {self._seconds}>"

    @property
    def seconds(self) -> Mapping[str, float]:
        """Length of every phase that is done, in seconds."""
        return MappingProxyType(self._seconds)

    @property
    def total(self) -> float:
        """Seconds since the timer was made or restarted."""
        return self._clock() - self._start

    def restart(self) -> None:
        """Begin anew: a new attempt, or a new media session."""
        self._start = self._phase_start = self._clock()

    def done(self, phase: str) -> float:
        """Note that ``phase`` ended now; returns its length in seconds."""
        now = self._clock()
        length, self._phase_start = now - self._phase_start, now
        self._seconds[phase] = length
        return length

    def picked(self, *phases: str) -> dict[str, float]:
        """The lengths of these phases, those that are done."""
        return {phase: self._seconds[phase] for phase in phases if phase in self._seconds}
