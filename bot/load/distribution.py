"""Many values in little memory: quantiles within 1 %, mergeable between processes and machines. Pure.

A DDSketch (C. Masson, J. E. Rim, H. K. Lee, VLDB 2019) and not an HdrHistogram: it needs no range beforehand, its
error is relative at any size, and it is pure Python (hdrhistogram has no wheels for arm64).
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from typing import Any, NamedTuple

from ddsketch.ddsketch import BaseDDSketch
from ddsketch.mapping import LogarithmicMapping
from ddsketch.store import DenseStore

#: Largest relative error of a quantile. Two sketches merge only where it is the same.
ACCURACY = 0.01
#: That of the largest float is 35 489; a store has room for all keys up to its largest.
_MAX_KEY = 36_000
#: 95 % of a normal distribution lie within so many standard deviations.
_Z = 1.96


class Interval(NamedTuple):
    """Where a number surely is, with 95 % confidence."""

    low: float
    high: float

    def overlaps(self, other: Interval) -> bool:
        """Whether both can be the same number."""
        return self.low <= other.high and other.low <= self.high


class Distribution:
    """Values of one measure. Count, mean, minimum and maximum are exact; quantiles are within 1 %."""

    def __init__(self) -> None:
        self._positive = DenseStore()
        self._negative = DenseStore()
        self._zeros = 0
        self._view: BaseDDSketch | None = None
        self._mapping = LogarithmicMapping(ACCURACY)
        self.count = 0
        self.sum = 0.0
        self.min = math.inf
        self.max = -math.inf

    def __repr__(self) -> str:
        return f"<Distribution of {self.count}>"

    @property
    def mean(self) -> float | None:
        """The average; None without values."""
        return self.sum / self.count if self.count else None

    def record(self, value: float, count: int = 1) -> None:
        """Add ``value``, ``count`` times. Raises ValueError for what is no finite number."""
        if not math.isfinite(value):
            raise ValueError(f"{value} can't be measured")
        self._add(value, count)
        self.count += count
        self.sum += value * count
        self.min = min(self.min, value)
        self.max = max(self.max, value)
        self._view = None

    def _add(self, value: float, count: int) -> None:
        if value > self._mapping.min_possible:
            self._positive.add(self._mapping.key(value), count)
        elif value < -self._mapping.min_possible:
            self._negative.add(self._mapping.key(-value), count)
        else:
            self._zeros += count

    def quantile(self, share: float) -> float | None:
        """The value that ``share`` (0 to 1) of all values don't exceed; None without values."""
        if not 0 <= share <= 1:
            raise ValueError(f"a quantile is between 0 and 1, not {share}")
        if not self.count:
            return None
        if share in {0, 1}:
            return self.max if share else self.min
        found = self._sketch.get_quantile_value(share)
        assert found is not None  # the sketch holds what is counted
        return min(max(found, self.min), self.max)

    def interval(self, share: float) -> Interval | None:
        """Where the quantile of all that could have been measured surely is; None where values are too few.

        The ranks around it that a binomial distribution gives (order statistics, no assumption of a shape); too
        few are those where these ranks lie outside.
        """
        spread = _Z * math.sqrt(self.count * share * (1 - share))
        ranks = (self.count * share - spread, self.count * share + spread)
        if not self.count or ranks[0] < 1 or ranks[1] > self.count:
            return None
        low, high = (self.quantile(rank / self.count) for rank in ranks)
        assert low is not None
        assert high is not None
        return Interval(low, high)

    @property
    def _sketch(self) -> BaseDDSketch:
        if self._view is None:
            self._view = BaseDDSketch(self._mapping, self._positive, self._negative, float(self._zeros))
        return self._view

    def merge(self, other: Distribution) -> None:
        """Add all values of ``other``."""
        self._positive.merge(other._positive)
        self._negative.merge(other._negative)
        self._zeros += other._zeros
        self.count += other.count
        self.sum += other.sum
        self.min = min(self.min, other.min)
        self.max = max(self.max, other.max)
        self._view = None

    def buckets(self) -> Iterator[tuple[float, int]]:
        """The values within 1 %, each with how often it came, in no order."""
        if self._zeros:
            yield 0.0, self._zeros
        for store, sign in ((self._positive, 1), (self._negative, -1)):
            for key, count in _buckets(store).items():
                yield min(max(sign * self._mapping.value(int(key)), self.min), self.max), count

    def to_json(self) -> dict[str, Any]:
        """All of it, for a file or another process; keys of buckets are texts, as JSON has them."""
        return {
            "accuracy": ACCURACY,
            "count": self.count,
            "sum": self.sum,
            "min": self.min if self.count else None,
            "max": self.max if self.count else None,
            "zeros": self._zeros,
            "positive": _buckets(self._positive),
            "negative": _buckets(self._negative),
        }

    @classmethod
    def from_json(cls, data: Mapping[str, Any]) -> Distribution:
        """The opposite of ``to_json``. Raises ValueError where it was made with another accuracy."""
        if data["accuracy"] != ACCURACY:
            raise ValueError(f"histograms of accuracy {data['accuracy']} can't be read, only of {ACCURACY}")
        found = cls()
        found.count, found.sum, found._zeros = data["count"], data["sum"], data["zeros"]
        found.min = math.inf if data["min"] is None else data["min"]
        found.max = -math.inf if data["max"] is None else data["max"]
        for store, name in ((found._positive, "positive"), (found._negative, "negative")):
            for key, count in data[name].items():
                if abs(int(key)) > _MAX_KEY:
                    raise ValueError(f"bucket {key} is beyond every number")
                store.add(int(key), count)
        return found


def _buckets(store: DenseStore) -> dict[str, int]:
    return {str(index + store.offset): int(count) for index, count in enumerate(store.bins) if count}


def share_interval(part: float, total: float) -> Interval | None:
    """Where a share surely is (E. B. Wilson's interval); None of nothing."""
    if total <= 0:
        return None
    share, z2 = part / total, _Z * _Z
    middle = (share + z2 / (2 * total)) / (1 + z2 / total)
    spread = _Z / (1 + z2 / total) * math.sqrt(share * (1 - share) / total + z2 / (4 * total * total))
    return Interval(middle - spread, middle + spread)
