"""How many participants are carried: up until something breaks, then ever closer to where it does. Pure."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Literal

#: From one try to the next, as long as nothing breaks.
GROWTH = 2

Outcome = Literal["carried", "broken", "client"]


@dataclass(frozen=True, slots=True)
class Trial:
    """One try with ``size`` units; ``why`` says what broke, or what of the client was overloaded."""

    size: int
    outcome: Outcome
    why: str = ""


@dataclass(slots=True)
class Search:
    """Looks for the largest size that is carried, from ``start`` to ``limit``, to within ``step``.

    Ask ``next`` for the size to try, tell ``feed`` how it came out, until ``next`` gives None. A client that is
    the limit counts as no answer on the server: nothing above that size is tried, and ``client_limited`` is set.
    """

    start: int
    limit: int
    step: int = 1
    trials: list[Trial] = field(default_factory=list)

    def __post_init__(self) -> None:
        if not 1 <= self.start <= self.limit or self.step < 1:
            raise ValueError(f"can't search from {self.start} to {self.limit} in steps of {self.step}")

    @property
    def carried(self) -> int:
        """The largest size below all that broke which was carried; 0 where none was."""
        fine = [item.size for item in self.trials if item.outcome == "carried" and item.size < self._ceiling]
        return max(fine, default=0)

    @property
    def broken(self) -> Trial | None:
        """The smallest try that did not come through, for whatever reason; None where all did."""
        failed = [item for item in self.trials if item.outcome != "carried"]
        return min(failed, key=lambda item: item.size, default=None)

    @property
    def client_limited(self) -> bool:
        """Whether the client, and not the server, ended the search: the server may carry more."""
        return self.broken is not None and self.broken.outcome == "client"

    @property
    def _ceiling(self) -> int:
        return self.limit + 1 if self.broken is None else self.broken.size

    def next(self) -> int | None:
        """The size to try now; None where it is known well enough."""
        if not self.trials:
            return self.start
        low, high = self.carried or self.start - 1, self._ceiling
        if self.broken is None:
            return None if low == self.limit else min(self.limit, low * GROWTH)
        return None if high - low <= self.step else (low + high) // 2

    def feed(self, trial: Trial) -> None:
        """Note how a try came out."""
        self.trials.append(trial)
