from __future__ import annotations

from fractions import Fraction

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bot.media.pacing import Pacer, Slot


def test_the_first_frame_is_due_at_once() -> None:
    assert Pacer(Fraction(30)).next(1000.0) == Slot(0, 1000.0)


def test_no_drift_over_a_day() -> None:
    pacer = Pacer(Fraction(30))
    slot = pacer.next(5.0)
    for _ in range(30 * 60):  # a minute in which each wait ends 3 ms late
        slot = pacer.next(slot.due + 0.003)
    assert slot == Slot(1800, 65.0)
    late = pacer.next(5.0 + 86400.0)
    assert late.index == 86400 * 30
    assert late.due == pytest.approx(86405.0, abs=1e-9)


def test_who_is_late_skips_and_does_not_burst() -> None:
    pacer = Pacer(Fraction(10))
    pacer.next(0.0)
    assert pacer.next(0.55) == Slot(5, 0.5)
    assert pacer.next(0.55) == Slot(6, 0.6)
    assert pacer.skipped == 4


def test_a_little_late_skips_nothing() -> None:
    pacer = Pacer(Fraction(10))
    pacer.next(0.0)
    assert pacer.next(0.19) == Slot(1, 0.1)
    assert pacer.skipped == 0


def test_patience_makes_up_for_that_many_frames() -> None:
    pacer = Pacer(Fraction(50), patience=3)
    pacer.next(0.0)
    assert [pacer.next(0.081).index for _ in range(5)] == [1, 2, 3, 4, 5]
    assert pacer.next(0.3).index == 15
    assert pacer.skipped == 9


def test_uneven_rates_stay_exact() -> None:
    pacer = Pacer(Fraction(30000, 1001))
    slot = pacer.next(0.0)
    for _ in range(30000):
        slot = pacer.next(slot.due)
    assert slot.due == pytest.approx(1001.0, abs=1e-9)
    assert pacer.skipped == 0


@given(
    st.lists(st.floats(min_value=0, max_value=3), min_size=1, max_size=60),
    st.integers(min_value=1, max_value=120),
    st.integers(min_value=0, max_value=4),
)
def test_any_delays(delays: list[float], rate: int, patience: int) -> None:
    """Frames only go forward, none is early, none is older than patience allows, and the count adds up."""
    pacer = Pacer(Fraction(rate), patience=patience)
    now, indexes = 50.0, []
    for delay in delays:
        now += delay
        slot = pacer.next(now)
        assert slot.due >= now - (patience + 1) / rate - 1e-9
        indexes.append(slot.index)
        now = max(now, slot.due)
    assert indexes == sorted(set(indexes))
    assert indexes[-1] + 1 == len(indexes) + pacer.skipped


@pytest.mark.parametrize(("rate", "patience", "named"), [(0, 0, "rate"), (-1, 0, "rate"), (1, -1, "patience")])
def test_nonsense_is_refused(rate: int, patience: int, named: str) -> None:
    with pytest.raises(ValueError, match=named):
        Pacer(Fraction(rate), patience=patience)


def test_repr_tells_where_it_is() -> None:
    pacer = Pacer(Fraction(30))
    pacer.next(0.0)
    pacer.next(1.0)
    assert repr(pacer) == "<Pacer 30/s next=31 skipped=29>"
