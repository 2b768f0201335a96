"""What happened in each second of a run, mergeable between processes. Pure."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any, Literal

#: Seconds that one bucket covers.
STEP = 1.0
#: Sums add up within a second; of means the average counts, over all values; a level holds until it changes.
Kind = Literal["sum", "mean", "level"]
#: A day of seconds: a longer run keeps its first day.
MAX_BUCKETS = 86_400


class Series:
    """One line of a chart. Times are seconds since the start of the run, the same for all processes."""

    def __init__(self, kind: Kind) -> None:
        self.kind: Kind = kind
        #: By second: the sum or level, and of how many values it is.
        self._buckets: dict[int, tuple[float, int]] = {}

    def __repr__(self) -> str:
        return f"<Series of {self.kind}, {len(self._buckets)} buckets>"

    def record(self, value: float, at: float) -> None:
        """Note ``value`` at ``at``; what is before the start counts to the first second."""
        index = max(0, int(at / STEP))
        if index >= MAX_BUCKETS:
            return
        before, count = (0.0, 0) if self.kind == "level" else self._buckets.get(index, (0.0, 0))
        self._buckets[index] = (before + value, count + 1)

    @property
    def end(self) -> int:
        """Buckets up to the last one with something in it."""
        return max(self._buckets, default=-1) + 1

    def values(self, length: int | None = None) -> list[float | None]:
        """One value a second, from the start; None where a mean has none.

        A level holds from when it was first told; a sum of nothing is 0.
        """
        length = self.end if length is None else length
        if self.kind == "level":
            return _held(self._buckets, range(length))
        if self.kind == "sum":
            return [self._buckets.get(index, (0.0, 0))[0] for index in range(length)]
        return [_mean(self._buckets.get(index)) for index in range(length)]

    def merge(self, other: Series) -> None:
        """Add what another process has noted: levels add up, too, from then on when each is known."""
        if self.kind != other.kind:
            raise ValueError(f"a series of kind {other.kind} can't be added to one of kind {self.kind}")
        keys = sorted(self._buckets.keys() | other._buckets.keys())
        if self.kind == "level":
            pairs = zip(_held(self._buckets, keys), _held(other._buckets, keys), strict=True)
            sums = [(one or 0.0) + (two or 0.0) for one, two in pairs]
            self._buckets = {key: (value, 1) for key, value in zip(keys, sums, strict=True)}
            return
        for key, (value, count) in other._buckets.items():
            before, number = self._buckets.get(key, (0.0, 0))
            self._buckets[key] = (before + value, number + count)

    def to_json(self) -> dict[str, Any]:
        """All of it, for a file or another process."""
        rows = [[key, *self._buckets[key]] for key in sorted(self._buckets)]
        return {"kind": self.kind, "step": STEP, "buckets": rows}

    @classmethod
    def from_json(cls, data: Mapping[str, Any]) -> Series:
        """The opposite of ``to_json``."""
        if data["step"] != STEP:
            raise ValueError(f"series with steps of {data['step']} s can't be read, only of {STEP} s")
        found = cls(data["kind"])
        found._buckets = {int(key): (float(value), int(count)) for key, value, count in data["buckets"]}
        return found


def _held(buckets: Mapping[int, tuple[float, int]], at: Iterable[int]) -> list[float | None]:
    """The level at each of the ascending times ``at``: the last one told until then."""
    told = sorted(buckets)
    found: list[float | None] = []
    level: float | None = None
    place = 0
    for index in at:
        while place < len(told) and told[place] <= index:
            level = buckets[told[place]][0]
            place += 1
        found.append(level)
    return found


def _mean(bucket: tuple[float, int] | None) -> float | None:
    return bucket[0] / bucket[1] if bucket else None
