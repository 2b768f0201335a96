"""Numbers with units: read as operators write them, shown as people read them."""

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bot.load import units


@pytest.mark.parametrize(
    ("text", "seconds"),
    [
        (90, 90),
        (0.25, 0.25),
        ("90", 90),
        ("90s", 90),
        ("250ms", 0.25),
        ("1h30m", 5400),
        ("2 min", 120),
        ("1m 30 s", 90),
    ],
)
def test_times(text: object, seconds: float) -> None:
    assert units.duration(text) == pytest.approx(seconds)


@pytest.mark.parametrize("text", ["", "soon", "3 years", "-3s", "1h30x", True, None, [1], math.inf, math.nan])
def test_what_is_no_time(text: object) -> None:
    with pytest.raises(ValueError, match=r"time|unit|number"):
        units.duration(text)


@pytest.mark.parametrize(
    ("text", "bits"),
    [(64_000, 64_000), ("2Mbit/s", 2e6), ("500 kbps", 5e5), ("1.5gbit/s", 1.5e9), ("10bit/s", 10)],
)
def test_bit_rates(text: object, bits: float) -> None:
    assert units.bitrate(text) == bits


@pytest.mark.parametrize(("text", "share"), [(0.02, 0.02), ("2%", 0.02), ("2 %", 0.02), ("0.5", 0.5), (1, 1)])
def test_shares(text: object, share: float) -> None:
    assert units.fraction(text) == pytest.approx(share)


@pytest.mark.parametrize("wrong", [False, "x%", "2Mbyte", {}])
def test_what_is_no_bit_rate_and_no_share(wrong: object) -> None:
    with pytest.raises(ValueError, match="a bit rate such as"):
        units.bitrate(wrong)
    with pytest.raises(ValueError, match="a share such as"):
        units.fraction(wrong)


@pytest.mark.parametrize(
    ("value", "unit", "text"),
    [
        (0.245, "s", "245 ms"),
        (3.2, "s", "3.2 s"),
        (125, "s", "2 min 5 s"),
        (3661, "s", "1 h 1 min 1 s"),
        (0.01, "ratio", "1 %"),
        (0.99996, "ratio", "99.996 %"),
        (0.999_999_9, "ratio", "99.999 %"),
        (1.0, "ratio", "100 %"),
        (2_500_000, "bit/s", "2.5 Mbit/s"),
        (2.5e9, "bit/s", "2.5 Gbit/s"),
        (1000, "bit/s", "1 kbit/s"),
        (12, "bit/s", "12 bit/s"),
        (25, "fps", "25 fps"),
        (3, "", "3"),
    ],
)
def test_shown(value: float, unit: str, text: str) -> None:
    assert units.show(value, unit) == text


@given(st.floats(min_value=0.001, max_value=86_400))
def test_a_time_that_is_shown_is_read_again(value: float) -> None:
    assert units.duration(units.show_seconds(value)) == pytest.approx(value, rel=0.006)
