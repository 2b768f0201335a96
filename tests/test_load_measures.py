"""Measures: quantiles within 1 %, the same however they were spread over processes, and back from JSON."""

import json
import math
from collections.abc import Callable

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bot.load.distribution import ACCURACY, Distribution, Interval, share_interval
from bot.load.measures import MAX_CAUSES, OTHER, Measures, merged
from bot.load.series import MAX_BUCKETS, Series

VALUES = st.lists(st.floats(-1e6, 1e6).filter(lambda value: value == 0 or abs(value) > 1e-6), max_size=80)


def distribution(values: list[float]) -> Distribution:
    found = Distribution()
    for value in values:
        found.record(value)
    return found


@given(VALUES.filter(bool), st.floats(0, 1))
def test_a_quantile_is_within_one_percent_of_a_value_of_its_rank(values: list[float], share: float) -> None:
    ordered = sorted(values)
    rank = share * (len(ordered) - 1)
    near = {ordered[math.floor(rank)], ordered[math.ceil(rank)]}
    found = distribution(values).quantile(share)
    assert found is not None
    assert any(found == pytest.approx(value, rel=ACCURACY * 1.01, abs=1e-9) for value in near)


@given(VALUES, VALUES)
def test_merged_is_as_if_recorded_in_one(one: list[float], two: list[float]) -> None:
    together, first = distribution(one + two), distribution(one)
    first.merge(distribution(two))
    mine, theirs = first.to_json(), together.to_json()
    assert mine.pop("sum") == pytest.approx(theirs.pop("sum"), abs=1e-3)
    assert mine == theirs


@given(VALUES)
def test_a_distribution_survives_json(values: list[float]) -> None:
    found = distribution(values)
    again = Distribution.from_json(json.loads(json.dumps(found.to_json())))
    assert again.to_json() == found.to_json()
    assert again.quantile(0.9) == found.quantile(0.9)
    assert again.mean == found.mean


def test_of_nothing_nothing_is_known() -> None:
    empty = Distribution()
    assert (empty.quantile(0.5), empty.mean, empty.interval(0.5)) == (None, None, None)
    assert repr(empty) == "<Distribution of 0>"


@pytest.mark.parametrize("value", [math.nan, math.inf, -math.inf])
def test_what_is_no_number_is_refused(value: float) -> None:
    with pytest.raises(ValueError, match="can't be measured"):
        Distribution().record(value)


def test_a_quantile_beyond_all_is_refused() -> None:
    with pytest.raises(ValueError, match="between 0 and 1"):
        Distribution().quantile(1.5)


def test_another_accuracy_and_impossible_buckets_are_refused() -> None:
    data = distribution([1.0]).to_json()
    with pytest.raises(ValueError, match="accuracy"):
        Distribution.from_json({**data, "accuracy": 0.5})
    with pytest.raises(ValueError, match="bucket"):
        Distribution.from_json({**data, "positive": {"999999999": 1}})


def test_the_interval_of_a_quantile_narrows_with_more_values() -> None:
    few, many = distribution([float(n) for n in range(1, 31)]), distribution([n / 100 for n in range(1, 3001)])
    wide, narrow = few.interval(0.5), many.interval(0.5)
    assert wide is not None
    assert narrow is not None
    assert wide.low < narrow.low < 15 < narrow.high < wide.high
    assert few.interval(0.95) is None, "of 30 values nobody knows the 95th percentile"


def test_the_interval_of_a_share() -> None:
    assert share_interval(0, 0) is None
    found = share_interval(99, 100)
    assert found is not None
    assert found.low == pytest.approx(0.9455, abs=1e-3)  # Wilson's, by hand
    assert found.high == pytest.approx(0.9982, abs=1e-3)
    assert Interval(1, 2).overlaps(Interval(2, 3))
    assert not Interval(1, 2).overlaps(Interval(2.1, 3))


# --- over time ----------------------------------------------------------------------------------------------


def series(kind: str, points: list[tuple[float, float]]) -> Series:
    found = Series(kind)  # type: ignore[arg-type]
    for value, at in points:
        found.record(value, at)
    return found


def test_sums_means_and_levels() -> None:
    points = [(1.0, 0.2), (3.0, 0.9), (4.0, 2.5)]
    assert series("sum", points).values() == [4, 0, 4]
    assert series("mean", points).values() == [2, None, 4]
    assert series("level", points).values(5) == [3, 3, 4, 4, 4]
    assert series("level", [(1.0, 1.5)]).values() == [None, 1]
    assert Series("sum").values() == []


def test_a_run_of_more_than_a_day_keeps_its_first_one_and_nothing_is_before_the_start() -> None:
    found = series("sum", [(1.0, MAX_BUCKETS + 5), (2.0, -3.0)])
    assert found.values() == [2]
    assert repr(found) == "<Series of sum, 1 buckets>"


POINTS = st.lists(st.tuples(st.integers(0, 9).map(float), st.integers(0, 12).map(float)), max_size=12)


@given(POINTS, POINTS, POINTS, st.sampled_from(["sum", "mean", "level"]))
def test_the_order_of_merging_does_not_matter(
    one: list[tuple[float, float]], two: list[tuple[float, float]], three: list[tuple[float, float]], kind: str
) -> None:
    first, second = series(kind, one), series(kind, two)
    first.merge(series(kind, two))
    first.merge(series(kind, three))
    second.merge(series(kind, three))
    second.merge(series(kind, one))
    assert [value or 0 for value in first.values(13)] == pytest.approx([value or 0 for value in second.values(13)])


@given(POINTS, POINTS)
def test_levels_of_two_processes_add_up_at_each_time(
    one: list[tuple[float, float]], two: list[tuple[float, float]]
) -> None:
    expected = [
        (mine or 0) + (other or 0)
        for mine, other in zip(series("level", one).values(13), series("level", two).values(13), strict=True)
    ]
    found = series("level", one)
    found.merge(series("level", two))
    assert [value or 0 for value in found.values(13)] == expected


@given(POINTS, st.sampled_from(["sum", "mean", "level"]))
def test_a_series_survives_json(points: list[tuple[float, float]], kind: str) -> None:
    found = series(kind, points)
    assert Series.from_json(json.loads(json.dumps(found.to_json()))).to_json() == found.to_json()


def test_what_does_not_fit_is_refused() -> None:
    with pytest.raises(ValueError, match="kind"):
        Series("sum").merge(Series("level"))
    with pytest.raises(ValueError, match="steps"):
        Series.from_json({"kind": "sum", "step": 5, "buckets": []})


# --- all together -------------------------------------------------------------------------------------------


def filled(warm_up: float = 0.0) -> Measures:
    found = Measures(warm_up)
    found.value("join", 1.5, at=3)
    found.share("success", 9, 10, at=3)
    found.count("failures", 3, "ice_failed", 2)
    found.over_time("joins", 1, at=3)
    return found


def test_what_was_measured_is_found() -> None:
    found = filled()
    assert found.values["join"].max == 1.5
    assert found.total("success") == 0.9
    assert found.total("failures") == 2
    assert found.series["joins"].values() == [0, 0, 0, 1]
    assert repr(found) == "<Measures: failures, join, success>"


def test_nothing_measured_is_not_nothing_happened() -> None:
    assert [Measures().total(name) for name in ("success", "failures")] == [None, None]
    found = Measures()
    found.count("failures", 0, number=0)
    assert "failures" in found.counts
    assert found.counts["failures"].total() == found.total("failures") == 0


def test_the_warm_up_does_not_count_but_is_seen_over_time() -> None:
    found = filled(warm_up=5)
    assert (found.values, found.shares, found.counts) == ({}, {}, {})
    assert found.series["joins"].end == 4


@pytest.mark.parametrize(
    ("call", "said"),
    [
        (lambda measures: measures.value("success", 1, at=0), "one number"),
        (lambda measures: measures.share("join", 1, 1, at=0), "not a share"),
        (lambda measures: measures.count("loss", 0), "not a count"),
        (lambda measures: measures.value("jion", 1, at=0), "did you mean 'join'"),
        (lambda measures: measures.over_time("jions", 1, at=0), "unknown series"),
    ],
)
def test_measures_are_not_mixed_up(call: Callable[[Measures], None], said: str) -> None:
    with pytest.raises(ValueError, match=said):
        call(Measures())


def test_processes_are_merged_and_come_from_json() -> None:
    parts = [Measures.from_json(json.loads(json.dumps(filled(warm_up=1).to_json()))) for _ in range(3)]
    found = merged(parts)
    assert found.values["join"].count == 3
    assert list(found.shares["success"]) == [27, 30]
    assert found.counts["failures"]["ice_failed"] == 6
    assert found.series["joins"].values() == [0, 0, 0, 3]
    assert found.warm_up == 1
    assert merged([]).to_json() == Measures().to_json()


def test_causes_are_bounded() -> None:
    found = Measures()
    for number in range(MAX_CAUSES * 2):
        found.count("failures", 0, f"cause {number}")
    other = Measures()
    other.count("failures", 0, "one more")
    found.merge(other)
    assert len(found.counts["failures"]) == MAX_CAUSES + 1
    assert found.counts["failures"][OTHER] == MAX_CAUSES + 1
    assert found.total("failures") == MAX_CAUSES * 2 + 1
