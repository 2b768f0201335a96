"""Numbers with units, as operators write them: ``"90s"``, ``"2Mbit/s"``, ``"1 %"``. Pure.

Plain numbers are seconds, bit/s and fractions. Errors are ValueErrors that say what would be right.
"""

from __future__ import annotations

import math
import re
from collections.abc import Mapping
from typing import Annotated

from pydantic import BeforeValidator, Field

SECONDS: Mapping[str, float] = {"ms": 1e-3, "s": 1.0, "m": 60.0, "min": 60.0, "h": 3600.0}
RATES: Mapping[str, float] = {
    "bit/s": 1.0,
    "bps": 1.0,
    "kbit/s": 1e3,
    "kbps": 1e3,
    "mbit/s": 1e6,
    "mbps": 1e6,
    "gbit/s": 1e9,
    "gbps": 1e9,
}
PERCENT: Mapping[str, float] = {"%": 0.01}
_NUMBER = r"[0-9]+(?:\.[0-9]+)?"
_QUANTITY = re.compile(rf"\s*({_NUMBER})\s*([a-zA-Z%/]*)\s*")
_CLOCK = re.compile(rf"(?:\s*{_NUMBER}\s*[a-zA-Z]+)+\s*")
_PART = re.compile(rf"({_NUMBER})\s*([a-zA-Z]+)")


def quantity(text: str, units: Mapping[str, float], what: str) -> float:
    """One number and its unit out of ``units``; a number alone is in the base unit."""
    found = _QUANTITY.fullmatch(text)
    if found is None:
        raise ValueError(f"{text!r} is not {what}")
    number, unit = found.groups()
    if unit and unit.lower() not in units:
        raise ValueError(f"unknown unit {unit!r} in {text!r}; {what} is written in {', '.join(units)}")
    return float(number) * (units[unit.lower()] if unit else 1.0)


def _plain(value: object) -> float | None:
    """A number that TOML gave as one; true and false are none, and neither are inf and nan."""
    if isinstance(value, bool) or not isinstance(value, int | float):
        return None
    if not math.isfinite(value):
        raise ValueError(f"{value} is no number to work with")
    return float(value)


def duration(value: object) -> float:
    """Seconds, or a text such as ``90s``, ``1h30m``, ``250ms``."""
    what = "a time such as 90 (seconds), '90s', '250ms' or '1h30m'"
    if (number := _plain(value)) is not None:
        return number
    if not isinstance(value, str):
        raise ValueError(f"{value!r} is not {what}")  # noqa: TRY004 -- pydantic makes its errors of ValueErrors
    if _CLOCK.fullmatch(value):
        return sum(quantity(part.group(), SECONDS, what) for part in _PART.finditer(value))
    return quantity(value, SECONDS, what)


def bitrate(value: object) -> float:
    """Bit/s, or a text such as ``2Mbit/s``."""
    return _quantity(value, RATES, "a bit rate such as 2000000 (bit/s) or '2Mbit/s'")


def fraction(value: object) -> float:
    """0 to 1, or a text such as ``2%``."""
    return _quantity(value, PERCENT, "a share such as 0.02 or '2%'")


def _quantity(value: object, units: Mapping[str, float], what: str) -> float:
    if (number := _plain(value)) is not None:
        return number
    if not isinstance(value, str):
        raise ValueError(f"{value!r} is not {what}")  # noqa: TRY004 -- pydantic makes its errors of ValueErrors
    return quantity(value, units, what)


Duration = Annotated[float, BeforeValidator(duration)]
Bitrate = Annotated[float, BeforeValidator(bitrate)]
Fraction = Annotated[float, BeforeValidator(fraction), Field(ge=0, le=1)]


# --- the other way: for people ------------------------------------------------------------------------------


_PREFIXES = ((1e9, "G"), (1e6, "M"), (1e3, "k"))


def three(value: float) -> str:
    """Three digits, never with an exponent, six decimals at most."""
    text = f"{float(f'{value:.3g}'):f}"
    return text.rstrip("0").rstrip(".")


def scale(largest: float, unit: str) -> tuple[float, str]:
    """What to divide values up to ``largest`` by, and the unit that they are in then: one for a whole axis."""
    if unit == "s":
        return (1e-3, "ms") if largest < 1 else (1.0, "s")
    if unit == "ratio":
        return 0.01, "%"
    if unit == "bit/s":
        found = [(factor, f"{prefix}bit/s") for factor, prefix in _PREFIXES if largest >= factor]
        return (found or [(1.0, unit)])[0]
    return 1.0, unit


def show_seconds(value: float) -> str:
    """``245 ms``, ``3.2 s``, ``2 min 5 s``."""
    if value < 1:
        return f"{three(value * 1000)} ms"
    if value < 120:
        return f"{three(value)} s"
    minutes, seconds = divmod(round(value), 60)
    hours, minutes = divmod(minutes, 60)
    parts = ((hours, "h"), (minutes, "min"), (seconds, "s"))
    return " ".join(f"{number} {unit}" for number, unit in parts if number)


def show_scaled(value: float, unit: str) -> str:
    """With a prefix of the SI, three digits: ``2.5 Mbit/s``."""
    for factor, prefix in _PREFIXES:
        if abs(value) >= factor:
            return f"{three(value / factor)} {prefix}{unit}"
    return f"{three(value)} {unit}"


def show_percent(value: float) -> str:
    """A share in percent, with three digits; what is not quite all or nothing does not look so."""
    percent = value * 100
    if 99.5 <= percent < 100:
        return f"{math.floor(percent * 1000) / 1000:g} %"
    return f"{three(percent)} %"


def show(value: float, unit: str) -> str:
    """``value`` in its unit, for people: ``s``, ``bit/s``, ``ratio``, or any other that is only written behind."""
    if unit == "s":
        return show_seconds(value)
    if unit == "ratio":
        return show_percent(value)
    if unit == "bit/s":
        return show_scaled(value, unit)
    if unit:
        return f"{three(value)} {unit}"
    return f"{value:.0f}" if value == round(value) else three(value)
