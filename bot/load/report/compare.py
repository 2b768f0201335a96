"""What got better or worse from one run to another. Pure.

A change counts when it is sure and large enough to matter:

- sure: the 95 % intervals of both don't overlap. Of a percentile it is that of its rank (order statistics), of a
  share Wilson's, of a number of events per minute that of Poisson's distribution.
- large enough: 5 % of the value or more, and of a share 0.1 points or more. Percentiles are within 1 %.

Packets are lost together and participants share a server, so values are less independent than these intervals
suppose: two runs with the same servers show what changes by itself.
"""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import asdict, dataclass
from enum import StrEnum
from typing import Any

from bot.load import units
from bot.load.catalogue import MEASURES, Measure
from bot.load.distribution import Interval, share_interval
from bot.load.report.model import Report

#: Least change that matters: as a share of the value, and in points of a share.
LEAST_CHANGE, LEAST_POINTS = 0.05, 0.001
#: What of many values is compared.
QUANTILES = (0.5, 0.95, 0.99)
_Z = 1.96


class Change(StrEnum):
    """How a number has changed."""

    BETTER = "better"
    WORSE = "worse"
    SAME = "same"
    TOO_FEW = "too few values"
    ONLY_ONE = "in one run only"


@dataclass(frozen=True, slots=True)
class Difference:
    """One number of both runs."""

    name: str
    unit: str
    before: float | None
    after: float | None
    change: Change

    @property
    def relative(self) -> float | None:
        """By what share of before it changed; None where before was nothing."""
        if self.before is None or self.after is None or not self.before:
            return None
        return self.after / self.before - 1


@dataclass(frozen=True, slots=True)
class Comparison:
    """All numbers of both runs, and what makes the two hard to compare."""

    differences: tuple[Difference, ...]
    warnings: tuple[str, ...]

    def of(self, change: Change) -> list[Difference]:
        """Those that changed this way."""
        return [item for item in self.differences if item.change is change]

    def as_json(self) -> dict[str, Any]:
        """For programs."""
        rows = [{**asdict(item), "relative": item.relative} for item in self.differences]
        return {"warnings": list(self.warnings), "differences": rows}


def compare(before: Report, after: Report) -> Comparison:
    """Compare ``after`` with ``before``."""
    differences = [item for measure in MEASURES.values() for item in _differences(measure, before, after)]
    return Comparison(tuple(differences), tuple(_warnings(before, after)))


def _warnings(before: Report, after: Report) -> Iterable[str]:
    ignored = {"name", "description", "thresholds", "room_prefix", "seed"}
    keys = sorted((before.scenario.keys() | after.scenario.keys()) - ignored)
    changed = [key for key in keys if before.scenario.get(key) != after.scenario.get(key)]
    if changed:
        yield f"the scenarios differ in {', '.join(changed)}"
    for name, report in (("first", before), ("second", after)):
        if report.client.limited:
            yield f"the client was the bottleneck of the {name} run: {'; '.join(report.client.reasons)}"
        if report.ended != "duration":
            yield f"the {name} run ended early ({report.ended})"


def _differences(measure: Measure, before: Report, after: Report) -> Iterable[Difference]:
    if measure.kind == "share":
        yield from _shares(measure, before, after)
    if measure.kind == "count":
        yield from _counts(measure, before, after)
    if measure.has_values:
        yield from _quantiles(measure, before, after)


def _quantiles(measure: Measure, before: Report, after: Report) -> Iterable[Difference]:
    one, two = (report.measured.values.get(measure.name) for report in (before, after))
    for share in QUANTILES:
        values = [item.quantile(share) if item else None for item in (one, two)]
        intervals = [item.interval(share) if item else None for item in (one, two)]
        yield from _difference(measure, f"p{share * 100:g}({measure.name})", values, intervals)


def _shares(measure: Measure, before: Report, after: Report) -> Iterable[Difference]:
    values = [report.measured.total(measure.name) for report in (before, after)]
    intervals = [share_interval(*report.measured.shares.get(measure.name, (0, 0))) for report in (before, after)]
    yield from _difference(measure, measure.name, values, intervals)


def _counts(measure: Measure, before: Report, after: Report) -> Iterable[Difference]:
    """Per minute that counted, so that runs of different lengths can be compared."""
    values, intervals = [], []
    for report in (before, after):
        number = report.measured.total(measure.name)
        minutes = max(report.seconds - report.measured.warm_up, 1.0) / 60
        values.append(None if number is None else number / minutes)
        intervals.append(None if number is None else _poisson(number, minutes))
    yield from _difference(measure, f"{measure.name} per minute", values, intervals)


def _poisson(number: float, minutes: float) -> Interval:
    """Where the mean of a Poisson distribution is that gave ``number`` (variance-stabilised: Anscombe, 1948)."""
    root = math.sqrt(number + 3 / 8)
    low = max(0.0, root - _Z / 2) ** 2 - 3 / 8
    return Interval(max(0.0, low) / minutes, ((root + _Z / 2) ** 2 - 3 / 8) / minutes)


def _difference(
    measure: Measure, name: str, values: list[float | None], intervals: list[Interval | None]
) -> Iterable[Difference]:
    one, two = values
    if one is None and two is None:
        return
    yield Difference(name, measure.unit, one, two, _change(measure, (one, two), intervals))


def _change(
    measure: Measure, values: tuple[float | None, float | None], intervals: list[Interval | None]
) -> Change:
    one, two = values
    if one is None or two is None:
        return Change.ONLY_ONE
    first, second = intervals
    if first is None or second is None:
        return Change.TOO_FEW
    if first.overlaps(second) or not _matters(measure, one, two):
        return Change.SAME
    return Change.BETTER if (two < one) == (measure.better == "lower") else Change.WORSE


def _matters(measure: Measure, one: float, two: float) -> bool:
    # Of shares near 1 the missing part is what changes: success from 99 to 98 % is twice the failures.
    base = 1 - one if measure.kind == "share" and measure.better == "higher" else one
    least = LEAST_POINTS if measure.unit == "ratio" else 0.0
    return abs(two - one) >= max(LEAST_CHANGE * abs(base), least)


# --- as text ------------------------------------------------------------------------------------------------


def as_text(comparison: Comparison, *, everything: bool = False) -> str:
    """What changed, or ``everything``, in lines for people."""
    lines = [f"warning: {text}" for text in comparison.warnings]
    for change in Change:
        found = comparison.of(change)
        if found and (everything or change in {Change.BETTER, Change.WORSE}):
            lines += [f"{change}:", *map(_line, found)]
    rest = len(comparison.of(Change.SAME))
    lines.append(f"{rest} of {len(comparison.differences)} numbers are the same")
    return "\n".join(lines) + "\n"


def _line(item: Difference) -> str:
    before, after = (
        "nothing" if value is None else units.show(value, item.unit) for value in (item.before, item.after)
    )
    relative = "" if item.relative is None else f"  {item.relative:+.0%}"
    return f"  {item.name:<26} {before:>12} -> {after:<12}{relative}".rstrip()
