"""What a run has to reach: ``p95(join) < 3s``, ``loss < 1%``, ``success > 99.5%``. Pure.

A measure with many values needs a function, one that is a single number takes none:

    [FUNCTION(] MEASURE [)]  <  <=  >  >=  ==  !=  NUMBER [UNIT]

Functions are ``pNN`` (``p50``, ``p99.9``), ``avg``, ``min``, ``max`` and ``count``. Percentiles are those of
:mod:`bot.load.distribution`: within 1 %.
"""

from __future__ import annotations

import math
import operator
import re
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from enum import StrEnum

from bot.load import units
from bot.load.catalogue import Measure, Unit, measure
from bot.load.distribution import Distribution
from bot.load.measures import Measures

_OPERATORS: Mapping[str, Callable[[float, float], bool]] = {
    "<": operator.lt,
    "<=": operator.le,
    ">": operator.gt,
    ">=": operator.ge,
    "==": operator.eq,
    "!=": operator.ne,
}
_EXPRESSION = re.compile(
    r"\s*(?:(?P<function>[a-zA-Z][\w.]*)\s*\(\s*(?P<inner>[\w.]+)\s*\)|(?P<plain>[a-zA-Z_][\w.]*))"
    r"\s*(?P<operator><=|>=|==|!=|<|>)\s*(?P<limit>.*?)\s*"
)
_PERCENTILE = re.compile(r"p(\d{1,2}(?:\.\d{1,4})?|100)")
_UNITS: Mapping[Unit, Mapping[str, float]] = {
    "s": units.SECONDS,
    "bit/s": units.RATES,
    "ratio": units.PERCENT,
    "fps": {"fps": 1.0},
    "px": {"px": 1.0, "p": 1.0},
    "": {},
}
_EXAMPLES: Mapping[Unit, str] = {
    "s": "a time such as 3s or 400ms",
    "bit/s": "a bit rate such as 500kbit/s",
    "ratio": "a share such as 1% or 0.01",
    "fps": "a frame rate such as 25",
    "px": "a height such as 360",
    "": "a number",
}
_FUNCTIONS: Mapping[str, Callable[[Distribution], float | None]] = {
    "avg": lambda values: values.mean,
    "min": lambda values: values.quantile(0),
    "max": lambda values: values.quantile(1),
    "count": lambda values: float(values.count),
}


class State(StrEnum):
    """How a threshold came out. One without data is not met, and says so."""

    MET = "met"
    MISSED = "missed"
    NO_DATA = "no data"


@dataclass(frozen=True, slots=True)
class Threshold:
    """One expression. ``limit`` is in the base unit; ``function`` is empty where the measure is one number."""

    text: str
    measure: Measure
    function: str
    comparison: str
    limit: float

    def __str__(self) -> str:
        return self.text

    @property
    def unit(self) -> str:
        """The unit of the value that is compared."""
        return "" if self.function == "count" else self.measure.unit


@dataclass(frozen=True, slots=True)
class Verdict:
    """How one threshold came out, with the value that was compared."""

    threshold: Threshold
    state: State
    value: float | None

    @property
    def met(self) -> bool:
        """Whether the run reached it."""
        return self.state is State.MET

    @property
    def reason(self) -> str:
        """For people: what was measured."""
        if self.value is None:
            return f"nothing was measured of {self.threshold.measure.name}"
        return f"measured {units.show(self.value, self.threshold.unit)}"


def parse(text: str) -> Threshold:
    """Read an expression. Raises ValueError, which says what is wrong and what would be right."""
    found = _EXPRESSION.fullmatch(text)
    if found is None:
        raise ValueError(f"{text!r} is no threshold such as 'p95(join) < 3s' or 'loss < 1%'")
    item = measure(found["inner"] or found["plain"])
    function = _function(found["function"], item)
    limit = _limit(found["limit"], "" if function == "count" else item.unit)
    return Threshold(" ".join(text.split()), item, function, found["operator"], limit)


def _function(name: str | None, item: Measure) -> str:
    if name is None:
        if not item.has_total:
            raise ValueError(
                f"{item.name} has many values: say p95({item.name}), avg({item.name}) or max({item.name})"
            )
        return ""
    if not item.has_values:
        raise ValueError(f"{item.name} is one number and takes no function: say {item.name} alone")
    if name not in _FUNCTIONS and not _PERCENTILE.fullmatch(name):
        raise ValueError(
            f"unknown function {name!r}; known are p50, p95, p99.9 and the like, {', '.join(_FUNCTIONS)}"
        )
    return name


def _limit(text: str, unit: Unit) -> float:
    limit = units.quantity(text, _UNITS[unit], _EXAMPLES[unit])
    if not math.isfinite(limit):
        raise ValueError(f"{text!r} is too large")
    if unit == "ratio" and limit > 1:
        raise ValueError(f"{text!r} is more than all: {_EXAMPLES[unit]}")
    return limit


def evaluate(threshold: Threshold, measures: Measures) -> Verdict:
    """Compare with what was measured."""
    value = _value(threshold, measures)
    if value is None:
        return Verdict(threshold, State.NO_DATA, None)
    met = _OPERATORS[threshold.comparison](value, threshold.limit)
    return Verdict(threshold, State.MET if met else State.MISSED, value)


def evaluate_all(thresholds: Iterable[Threshold], measures: Measures) -> list[Verdict]:
    """Each of them, in their order."""
    return [evaluate(item, measures) for item in thresholds]


def broken(thresholds: Iterable[Threshold], measures: Measures) -> list[Verdict]:
    """Those that are missed already, for runs that end at the first one; without data they are not."""
    return [item for item in evaluate_all(thresholds, measures) if item.state is State.MISSED]


def _value(threshold: Threshold, measures: Measures) -> float | None:
    if not threshold.function:
        return measures.total(threshold.measure.name)
    values = measures.values.get(threshold.measure.name)
    if values is None:
        return None
    if threshold.function in _FUNCTIONS:
        return _FUNCTIONS[threshold.function](values)
    return values.quantile(float(threshold.function[1:]) / 100)
