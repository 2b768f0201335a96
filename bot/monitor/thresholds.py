"""What a call has to reach: ``delay < 400ms`` or, with a limit to warn at before, ``delay < 400ms, 1s``. Pure."""

from __future__ import annotations

import math
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Literal

from bot.monitor.model import Measures, Severity

Unit = Literal["s", "", "d"]
_FACTORS: Mapping[Unit, Mapping[str, float]] = {
    "s": {"s": 1.0, "ms": 0.001, "": 1.0},
    "": {"%": 0.01, "": 1.0},
    "d": {"d": 1.0, "h": 1 / 24, "": 1.0},
}
_EXAMPLE: Mapping[Unit, str] = {"s": "400ms or 1.5s", "": "2% or 0.02", "d": "14d"}


@dataclass(frozen=True, slots=True)
class Measure:
    """Something that is measured: ``worse`` says on which side of a limit it is bad."""

    name: str
    unit: Unit
    worse: Literal["above", "below"]
    text: str


#: All measures, in the order of reports.
MEASURES: Mapping[str, Measure] = {
    item.name: item
    for item in (
        Measure("join", "s", "above", "From the start to the room, the slowest bot"),
        Measure("connect", "s", "above", "From the focus's offer to media, the slowest bot"),
        Measure("delay", "s", "above", "From camera to screen and from microphone to ear, 95th percentile"),
        Measure("loss", "", "above", "Packets that never came, on the worst path"),
        Measure("frozen", "", "above", "Share of the time in which the picture stood still (webrtc-stats)"),
        Measure("frames", "", "below", "Share of the pictures that were sent which was seen"),
        Measure("lip_sync", "s", "above", "Sound against picture, either way, median"),
        Measure("round_trip", "s", "above", "To the bridge and back"),
        Measure("certificate", "d", "below", "Days until the server's certificate ends"),
    )
}
#: What holds unless another limit is given for the same measure.
DEFAULTS = (
    "join < 5s, 10s",
    "connect < 5s, 10s",
    "delay < 400ms, 1s",
    "loss < 2%, 10%",
    "frozen < 5%, 20%",
    "frames > 80%, 50%",
    "lip_sync < 100ms, 250ms",
    "certificate > 14d, 3d",
)
_EXPRESSION = re.compile(r"\s*([a-z_]+)\s*([<>])\s*([^,<>]+?)\s*(?:,\s*([^,<>]+?)\s*)?")
_QUANTITY = re.compile(r"([0-9]+(?:\.[0-9]+)?)\s*([a-z%]*)")


@dataclass(frozen=True, slots=True)
class Threshold:
    """A limit to warn at and one that is critical; in the base unit, the same where one is given."""

    measure: Measure
    warning: float
    critical: float

    def judge(self, value: float) -> Severity:
        """How bad ``value`` is. A limit itself is missed: ``delay < 1s`` is what is asked for."""
        sign = 1 if self.measure.worse == "above" else -1
        if sign * value >= sign * self.critical:
            return Severity.CRITICAL
        return Severity.WARNING if sign * value >= sign * self.warning else Severity.OK


@dataclass(frozen=True, slots=True)
class Breach:
    """A threshold that was missed by ``value``."""

    threshold: Threshold
    value: float
    severity: Severity

    @property
    def text(self) -> str:
        """For people."""
        measure = self.threshold.measure
        limit = self.threshold.critical if self.severity is Severity.CRITICAL else self.threshold.warning
        side = "not below" if measure.worse == "above" else "not above"
        return f"{measure.name} {show(self.value, measure.unit)} is {side} {show(limit, measure.unit)}"


def parse(text: str) -> Threshold:
    """Read ``MEASURE < WARNING[, CRITICAL]``. Raises ValueError, which says what would be right."""
    found = _EXPRESSION.fullmatch(text)
    if found is None:
        raise ValueError(f"{text!r} is no threshold such as 'delay < 400ms' or 'loss < 2%, 10%'")
    measure = MEASURES.get(found[1])
    if measure is None:
        raise ValueError(f"unknown measure {found[1]!r}; known are {', '.join(MEASURES)}")
    sign = "<" if measure.worse == "above" else ">"
    if found[2] != sign:
        raise ValueError(f"{measure.name} is better {'low' if sign == '<' else 'high'}: say {measure.name} {sign}")
    warning = _quantity(found[3], measure)
    critical = _quantity(found[4], measure) if found[4] else warning
    if (critical < warning) if sign == "<" else (critical > warning):
        raise ValueError(f"{text!r}: the limit to warn at comes first, then the critical one")
    return Threshold(measure, warning, critical)


def _quantity(text: str, measure: Measure) -> float:
    found = _QUANTITY.fullmatch(text)
    factor = _FACTORS[measure.unit].get(found[2]) if found else None
    if found is None or factor is None or not math.isfinite(value := float(found[1]) * factor):
        raise ValueError(f"{text!r} is no limit for {measure.name}: say {_EXAMPLE[measure.unit]}")
    return value


def effective(given: Iterable[str]) -> tuple[Threshold, ...]:
    """``given`` before the defaults: one threshold for each measure that has any. Raises ValueError."""
    found = {item.measure.name: item for item in map(parse, (*DEFAULTS, *given))}
    return tuple(found[name] for name in MEASURES if name in found)


def breaches(thresholds: Iterable[Threshold], measures: Measures) -> list[Breach]:
    """Those that were missed, the worst first. What was not measured is not missed: diagnosis tells why."""
    found = []
    for item in thresholds:
        value = measures.get(item.measure.name)
        if value is not None and (severity := item.judge(value)) is not Severity.OK:
            found.append(Breach(item, value, severity))
    return sorted(found, key=lambda item: -item.severity)


def show(value: float, unit: Unit) -> str:
    """For people."""
    if unit == "":
        return f"{100 * value:.1f} %"
    if unit == "d":
        return f"{value:.1f} days"
    return f"{1000 * value:.0f} ms" if abs(value) < 1 else f"{value:.2f} s"
