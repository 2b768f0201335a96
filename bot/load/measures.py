"""All that a run measures, mergeable between processes: values, shares, counts, lines over time. Pure."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping
from typing import Any

from bot.load.catalogue import measure
from bot.load.distribution import Distribution
from bot.load.series import Kind, Series

#: Lines over time: kind and unit. A share over time is made of two sums.
SERIES: Mapping[str, tuple[Kind, str]] = {
    "participants": ("level", ""),
    "joining": ("level", ""),
    "joins": ("sum", ""),
    "leaves": ("sum", ""),
    "failures": ("sum", ""),
    "reconnects": ("sum", ""),
    "bits_sent": ("sum", "bit/s"),
    "bits_received": ("sum", "bit/s"),
    "packets_sent": ("sum", "packets/s"),
    "packets_received": ("sum", "packets/s"),
    "packets_lost": ("sum", "packets/s"),
    "rtt": ("mean", "s"),
    "jitter": ("mean", "s"),
    "e2e_delay": ("mean", "s"),
    "fps": ("mean", "fps"),
    "client_cpu": ("level", "cores"),
    "client_loop_lag": ("mean", "s"),
}
#: Causes kept of each count; those beyond are counted together, so that hostile servers can't fill the memory.
MAX_CAUSES = 200
OTHER = "other"


class Measures:
    """What one process has measured, or several together. Times are seconds since the start of the run.

    Values, shares and counts of the first ``warm_up`` seconds don't count, lines over time show them.
    """

    def __init__(self, warm_up: float = 0.0) -> None:
        self.warm_up = warm_up
        self.values: dict[str, Distribution] = {}
        #: Part and whole.
        self.shares: dict[str, tuple[float, float]] = {}
        self.counts: dict[str, Counter[str]] = {}
        self.series: dict[str, Series] = {}

    def __repr__(self) -> str:
        return f"<Measures: {', '.join(sorted(self.values.keys() | self.shares.keys() | self.counts.keys()))}>"

    def value(self, name: str, value: float, at: float, count: int = 1) -> None:
        """Note a value of a measure that has many, in its unit."""
        if not measure(name).has_values:
            raise ValueError(f"{name} is one number and has no values")
        if at >= self.warm_up:
            self.values.setdefault(name, Distribution()).record(value, count)

    def share(self, name: str, part: float, whole: float, at: float) -> None:
        """Add to a share: ``part`` of ``whole`` more."""
        if measure(name).kind != "share":
            raise ValueError(f"{name} is not a share")
        if at >= self.warm_up:
            before, total = self.shares.get(name, (0.0, 0.0))
            self.shares[name] = (before + part, total + whole)

    def count(self, name: str, at: float, cause: str = OTHER, number: int = 1) -> None:
        """Count something that happened, by its cause. A number of 0 says that it was looked at."""
        if measure(name).kind != "count":
            raise ValueError(f"{name} is not a count")
        if at >= self.warm_up:
            causes = self.counts.setdefault(name, Counter())
            if number:
                _add(causes, cause, number)

    def over_time(self, name: str, value: float, at: float) -> None:
        """Add to a line over time, one of :data:`SERIES`."""
        self._series(name).record(value, at)

    def _series(self, name: str) -> Series:
        if name not in SERIES:
            raise ValueError(f"unknown series {name!r}; known are {', '.join(SERIES)}")
        return self.series.setdefault(name, Series(SERIES[name][0]))

    def total(self, name: str) -> float | None:
        """The one number of a share or a count; None where nothing was measured."""
        if measure(name).kind == "share":
            part, whole = self.shares.get(name, (0.0, 0.0))
            return part / whole if whole else None
        causes = self.counts.get(name)
        return None if causes is None else float(causes.total())

    def merge(self, other: Measures) -> None:
        """Add all that ``other`` has measured."""
        for name, values in other.values.items():
            self.values.setdefault(name, Distribution()).merge(values)
        for name, (part, whole) in other.shares.items():
            before, total = self.shares.get(name, (0.0, 0.0))
            self.shares[name] = (before + part, total + whole)
        for name, causes in other.counts.items():
            mine = self.counts.setdefault(name, Counter())
            for cause, number in causes.items():
                _add(mine, cause, number)
        for name, series in other.series.items():
            self._series(name).merge(series)

    def to_json(self) -> dict[str, Any]:
        """All of it, for a file or another process."""
        return {
            "warm_up": self.warm_up,
            "values": {name: item.to_json() for name, item in sorted(self.values.items())},
            "shares": {name: list(item) for name, item in sorted(self.shares.items())},
            "counts": {name: dict(sorted(item.items())) for name, item in sorted(self.counts.items())},
            "series": {name: item.to_json() for name, item in sorted(self.series.items())},
        }

    @classmethod
    def from_json(cls, data: Mapping[str, Any]) -> Measures:
        """The opposite of ``to_json``."""
        found = cls(data["warm_up"])
        found.values = {name: Distribution.from_json(item) for name, item in data["values"].items()}
        found.shares = {name: (part, whole) for name, (part, whole) in data["shares"].items()}
        found.counts = {name: Counter(item) for name, item in data["counts"].items()}
        found.series = {name: Series.from_json(item) for name, item in data["series"].items()}
        return found


def _add(causes: Counter[str], cause: str, number: int) -> None:
    causes[cause if cause in causes or len(causes) < MAX_CAUSES else OTHER] += number


def merged(parts: Iterable[Measures]) -> Measures:
    """All of them together, in a new one."""
    found = Measures()
    for number, part in enumerate(parts):
        found.warm_up = part.warm_up if number == 0 else min(found.warm_up, part.warm_up)
        found.merge(part)
    return found
