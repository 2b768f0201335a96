"""Numbers with their spread. Pure."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Figure:
    """A measured number, and the lowest and highest that the repetitions gave."""

    value: float
    low: float
    high: float

    @classmethod
    def of(cls, values: Iterable[float]) -> Figure:
        """The mean of repetitions. Raises ValueError without any."""
        found = tuple(values)
        if not found:
            raise ValueError("no repetition")
        return cls(math.fsum(found) / len(found), min(found), max(found))

    def scaled(self, factor: float) -> Figure:
        """So many times as much; ``factor`` is not negative."""
        return Figure(self.value * factor, self.low * factor, self.high * factor)

    def inverse(self) -> Figure:
        """How often this fits into one."""
        return Figure(1 / self.value, 1 / self.high, 1 / self.low)

    def over(self, other: Figure) -> Figure:
        """The quotient, with the widest spread that the two allow."""
        return Figure(self.value / other.value, self.low / other.high, self.high / other.low)

    def plus(self, other: Figure) -> Figure:
        """The sum."""
        return Figure(self.value + other.value, self.low + other.low, self.high + other.high)


def percentile(values: Sequence[float], share: float) -> float:
    """The value that ``share`` (0 to 1) of all do not exceed. Raises ValueError without any."""
    if not values:
        raise ValueError("no value")
    return sorted(values)[max(0, math.ceil(share * len(values)) - 1)]


@dataclass(frozen=True, slots=True)
class Target:
    """What a number is wanted to be."""

    bound: float
    at_most: bool = False

    def met(self, value: float) -> bool:
        """Whether ``value`` is as wanted."""
        return value <= self.bound if self.at_most else value >= self.bound

    def __str__(self) -> str:
        return f"{'≤' if self.at_most else '≥'} {self.bound:g}"
