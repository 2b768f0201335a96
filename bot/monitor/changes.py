"""Which results are news: a change of state, once, and the recovery from it. Pure."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Literal

from bot.monitor.model import ProbeResult, Severity, Stage

State = tuple[Severity, Stage]
FINE: State = (Severity.OK, Stage.NONE)
Kind = Literal["problem", "changed", "recovered"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Change:
    """The state is another one. ``since`` is when the state before began (Unix seconds); ``lasted`` how long."""

    kind: Kind
    previous: State
    result: ProbeResult
    since: float
    lasted: float

    def as_dict(self) -> dict[str, Any]:
        """The body of the web-hook. ``id`` is the same whenever the same change is told."""
        severity, stage = self.previous
        verdict = self.result.verdict
        return {
            "id": f"{self.result.at:.3f}-{self.kind}-{verdict.stage.value}",
            "event": f"probe_{self.kind}",
            "previous": {"severity": severity.name.lower(), "stage": stage.value},
            "since": round(self.since, 3),
            "lasted": round(self.lasted, 3),
            "result": self.result.as_dict(),
        }


class Changes:
    """Takes one result after the other. ``after`` of them in a row with another state make a change.

    The state is severity and stage: a cause in other words, or another measure that is missed, is no news.
    """

    def __init__(self, after: int = 1) -> None:
        self._after = after
        self._state = FINE
        self._since: float | None = None
        self._next: State = FINE
        self._first: float = 0.0
        self._count = 0

    @property
    def state(self) -> State:
        """The state that was told last; fine before all."""
        return self._state

    def feed(self, result: ProbeResult) -> Change | None:
        """The change that ``result`` makes, None for no news."""
        state = _state_of(result)
        if self._since is None:
            self._since = result.at
        if state == self._state:
            self._count = 0
            return None
        if not self._count or state != self._next:
            self._next, self._first, self._count = state, result.at, 0
        self._count += 1
        if self._count < self._after:
            return None
        return self._change(result)

    def _change(self, result: ProbeResult) -> Change:
        previous, since = self._state, self._since
        assert since is not None
        self._state, self._since, self._count = self._next, self._first, 0
        kind: Kind = "recovered" if self._state == FINE else "problem" if previous == FINE else "changed"
        return Change(
            kind=kind, previous=previous, result=result, since=since, lasted=max(0.0, self._first - since)
        )


def _state_of(result: ProbeResult) -> State:
    verdict = result.verdict
    return FINE if verdict.ok else (verdict.severity, verdict.stage)
