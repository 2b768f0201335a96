"""Comparing reports: what changed for sure and enough to matter, and nothing else."""

import json
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from typer.testing import CliRunner

from bot.cli import app
from bot.load.measures import Measures
from bot.load.report import files
from bot.load.report.compare import Change, Comparison, as_text, compare
from bot.load.report.model import Report
from bot.load.scenario import Scenario
from tests.load_support import measures, report

cli = CliRunner()
PLAIN = Scenario()


def changes(before: Measures, after: Measures) -> dict[str, Change]:
    return {item.name: item.change for item in both(before, after).differences}


def both(before: Measures, after: Measures) -> Comparison:
    return compare(report(measured=before, scenario=PLAIN), report(measured=after, scenario=PLAIN))


def joins(good: int, number: int, seconds: float = 1.0) -> Measures:
    found = Measures()
    found.share("success", good, number, at=0)
    found.value("join", seconds, at=0, count=number)
    return found


def failures(number: int) -> Measures:
    found = Measures()
    found.count("failures", 0, "ice_failed", number)
    return found


def test_a_report_is_as_good_as_itself() -> None:
    found = changes(measures(), measures())
    assert set(found.values()) == {Change.SAME, Change.TOO_FEW}
    assert found["p99(join)"] is Change.TOO_FEW, "366 joins say little of the slowest of a hundred"


def test_another_draw_of_the_same_is_the_same() -> None:
    for seed in range(2, 6):
        found = changes(measures(seed=1), measures(seed=seed))
        assert found["p50(join)"] is Change.SAME
        assert found["p95(join)"] is Change.SAME


def test_slower_is_worse_and_back_is_better() -> None:
    slow = measures(slower=1.5, seed=2)
    assert changes(measures(), slow)["p50(join)"] is Change.WORSE
    assert changes(slow, measures())["p50(join)"] is Change.BETTER
    assert changes(measures(), measures(lossy=2))["loss"] is Change.WORSE


def test_shares_near_one_are_judged_by_what_is_missing() -> None:
    assert changes(joins(9990, 10_000), joins(9800, 10_000))["success"] is Change.WORSE
    assert changes(joins(9800, 10_000), joins(9990, 10_000))["success"] is Change.BETTER
    assert changes(joins(99, 100), joins(97, 100))["success"] is Change.SAME, "that is chance"
    assert changes(joins(999_990, 10**6), joins(999_900, 10**6))["success"] is Change.SAME, "sure, and nothing"


def test_a_small_change_does_not_matter_however_sure() -> None:
    assert changes(joins(1, 1000, 1.0), joins(1, 1000, 1.03))["p95(join)"] is Change.SAME
    assert changes(joins(1, 1000, 1.0), joins(1, 1000, 1.10))["p95(join)"] is Change.WORSE


def test_counts_are_per_minute() -> None:
    assert changes(failures(2), failures(40))["failures per minute"] is Change.WORSE
    assert changes(failures(2), failures(4))["failures per minute"] is Change.SAME
    (found,) = both(failures(3), failures(6)).differences
    assert (found.before, found.after, found.relative) == (1, 2, 1)


def test_what_one_run_alone_has() -> None:
    found = both(failures(3), Measures()).differences[0]
    assert (found.change, found.after, found.relative) == (Change.ONLY_ONE, None, None)
    assert both(failures(0), failures(3)).differences[0].relative is None
    assert both(Measures(), Measures()).differences == ()


@settings(max_examples=40)
@given(st.integers(0, 200), st.integers(1, 200), st.integers(0, 200), st.integers(1, 200))
def test_the_other_way_round_is_the_opposite(good: int, number: int, other: int, others: int) -> None:
    one, two = joins(min(good, number), number), joins(min(other, others), others)
    opposite = {Change.BETTER: Change.WORSE, Change.WORSE: Change.BETTER}
    there, back = changes(one, two)["success"], changes(two, one)["success"]
    # What is 5 % of one may be less of the other: then it is the same one way, but never better both ways.
    assert back in {opposite.get(there, there), Change.SAME} or there is Change.SAME


def test_what_makes_runs_hard_to_compare_is_said() -> None:
    limited = report(limited=("a core was used by 97 %",), scenario=Scenario(participants=9, seed=5))
    early = report(scenario=PLAIN).model_copy(update={"ended": "interrupted"})
    assert compare(limited, early).warnings == (
        "the scenarios differ in participants",
        "the client was the bottleneck of the first run: a core was used by 97 %",
        "the second run ended early (interrupted)",
    )


def test_the_text() -> None:
    text = as_text(both(measures(), measures(slower=2, lossy=0.2)))
    assert "worse:\n  p50(join) " in text
    assert "better:\n  loss " in text
    assert "too few values:" not in text
    everything = as_text(both(measures(), failures(1)), everything=True)
    assert "in one run only:" in everything
    assert "nothing" in everything


# --- the command --------------------------------------------------------------------------------------------


@pytest.fixture
def paths(tmp_path: Path) -> tuple[str, str]:
    def write(name: str, found: Report) -> str:
        files.write(found, tmp_path / name)
        return str(tmp_path / name)

    return write("a", report(measured=measures())), write("b", report(measured=measures(slower=2)))


def test_the_command(paths: tuple[str, str]) -> None:
    result = cli.invoke(app, ["report", "compare", *paths])
    assert result.exit_code == 0
    assert "p50(join)" in result.output
    assert cli.invoke(app, ["report", "compare", *paths, "--fail-on-worse"]).exit_code == 99
    assert cli.invoke(app, ["report", "compare", *reversed(paths), "--fail-on-worse"]).exit_code == 0


def test_the_command_for_programs(paths: tuple[str, str]) -> None:
    found = json.loads(cli.invoke(app, ["report", "compare", *paths, "--json"]).output)
    first = found["differences"][0]
    assert (first["name"], first["change"], first["unit"]) == ("p50(join)", "worse", "s")
    assert first["relative"] == pytest.approx(1, abs=0.05)
