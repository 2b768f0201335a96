"""Thresholds: what they say, what is wrong with them, and that without data nothing is reached."""

import operator

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bot.load.catalogue import MEASURES
from bot.load.measures import Measures
from bot.load.thresholds import State, broken, evaluate, evaluate_all, parse


def measured(*joins: float) -> Measures:
    found = Measures()
    for value in joins:
        found.value("join", value, at=0)
    return found


@pytest.mark.parametrize(
    ("text", "name", "function", "comparison", "limit"),
    [
        ("p95(join) < 3s", "join", "p95", "<", 3),
        ("loss < 1%", "loss", "", "<", 0.01),
        ("success > 99.5%", "success", "", ">", 0.995),
        ("p95(e2e_delay)<400ms", "e2e_delay", "p95", "<", 0.4),
        ("p99( join.ice )  <=  0.5", "join.ice", "p99", "<=", 0.5),
        ("p99.9(loss) < 5 %", "loss", "p99.9", "<", 0.05),
        ("avg(bitrate.video) >= 500kbit/s", "bitrate.video", "avg", ">=", 500_000),
        ("failures == 0", "failures", "", "==", 0),
        ("count(join) != 3", "join", "count", "!=", 3),
        ("min(fps) > 20", "fps", "min", ">", 20),
        ("max(height) >= 360p", "height", "max", ">=", 360),
        ("p100(join) < 1m", "join", "p100", "<", 60),
    ],
)
def test_expressions(text: str, name: str, function: str, comparison: str, limit: float) -> None:
    found = parse(text)
    assert (found.measure.name, found.function, found.comparison) == (name, function, comparison)
    assert found.limit == pytest.approx(limit)
    assert parse(str(found)).limit == found.limit


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("", "is no threshold such as"),
        ("join", "is no threshold such as"),
        ("p95(join < 3s", "is no threshold such as"),
        ("p95(joim) < 3s", "unknown measure 'joim', did you mean 'join'"),
        ("p95(ice) < 3s", "did you mean 'join.ice'"),
        ("xyzzy < 3", "known are join, "),
        ("join < 3s", r"say p95\(join\)"),
        ("p95(success) > 1%", "say success alone"),
        ("median(join) < 3s", "unknown function 'median'; known are p50"),
        ("p101(join) < 3s", "unknown function 'p101'"),
        ("p95(join) < 3%", "unknown unit '%'"),
        ("p95(join) < soon", "is not a time such as"),
        ("loss < 3s", "unknown unit 's'"),
        ("loss < 3", "is more than all"),
        ("loss < 300%", "is more than all"),
        ("failures < 3s", "unknown unit 's'"),
        ("count(join) < 3s", "unknown unit 's'"),
        ("p95(join) < " + "9" * 400, "too large"),
    ],
)
def test_what_is_wrong_is_said(text: str, said: str) -> None:
    with pytest.raises(ValueError, match=said):
        parse(text)


def test_met_missed_and_without_data() -> None:
    thresholds = [parse("max(join) < 3s"), parse("max(join) < 1s"), parse("p95(rtt) < 1s"), parse("loss < 1%")]
    verdicts = evaluate_all(thresholds, measured(0.5, 2))
    assert [verdict.state for verdict in verdicts] == [State.MET, State.MISSED, State.NO_DATA, State.NO_DATA]
    assert [verdict.met for verdict in verdicts] == [True, False, False, False]
    assert verdicts[1].reason == "measured 2 s"
    assert verdicts[2].reason == "nothing was measured of rtt"
    assert [verdict.threshold.text for verdict in broken(thresholds, measured(0.5, 2))] == ["max(join) < 1s"]


def test_counts_and_averages() -> None:
    found = measured(1, 3)
    assert evaluate(parse("count(join) == 2"), found).reason == "measured 2"
    assert evaluate(parse("avg(join) <= 2s"), found).met
    assert evaluate(parse("min(join) >= 1s"), found).met
    assert evaluate(parse("p50(join) >= 0.99s"), found).met


@given(
    st.lists(st.floats(0.001, 100), min_size=1, max_size=30),
    st.floats(0.001, 100),
    st.sampled_from(["<", "<=", ">", ">="]),
)
def test_the_largest_value_decides_of_max(values: list[float], limit: float, comparison: str) -> None:
    names = {"<": operator.lt, "<=": operator.le, ">": operator.gt, ">=": operator.ge}
    threshold = parse(f"max(join) {comparison} {limit:.6f}s")
    assert evaluate(threshold, measured(*values)).met == names[comparison](max(values), float(f"{limit:.6f}"))


@given(st.text(max_size=40))
def test_whatever_is_written_is_read_or_refused_with_a_reason(text: str) -> None:
    try:
        found = parse(text)
    except ValueError:
        return
    assert parse(found.text).limit == found.limit


@pytest.mark.parametrize("name", MEASURES)
def test_every_measure_can_be_a_threshold(name: str) -> None:
    item = MEASURES[name]
    text = name if item.has_total else f"p95({name})"
    assert parse(f"{text} < 1").measure is item
    assert item.text
