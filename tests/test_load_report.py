"""Reports: what a run leaves behind, in every form, with any text of a server in it."""

import json
import re
from pathlib import Path
from xml.etree import ElementTree as ET

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pydantic import ValidationError
from typer.testing import CliRunner

from bot.cli import app
from bot.errors import ConfigurationError
from bot.load.measures import Measures
from bot.load.report import files, page, texts, view
from bot.load.report.charts import Chart, Line, clock, nice_seconds, nice_ticks, thinned
from bot.load.report.model import Failure, Moment, Participants, Report, exit_code
from bot.load.scenario import Scenario
from tests.load_support import SECONDS, eventful, measures, report

ROOT = Path(__file__).parents[1]
cli = CliRunner()
FORMS = ["junit.xml", "report.html", "report.json", "summary.md"]


# --- the model ----------------------------------------------------------------------------------------------


def test_the_documented_schema_is_that_of_the_model() -> None:
    documented = json.loads((ROOT / "docs" / "report.schema.json").read_text())
    assert documented == Report.model_json_schema()
    assert json.loads(cli.invoke(app, ["report", "schema"]).output) == documented


def test_a_report_survives_its_file(tmp_path: Path) -> None:
    found = eventful()
    written = files.write(found, tmp_path / "new" / "out")
    assert sorted(path.name for path in written) == sorted(
        path.name for path in (tmp_path / "new" / "out").iterdir()
    )
    assert sorted(path.name for path in written) == FORMS
    assert files.read(tmp_path / "new" / "out") == found
    again = files.read(tmp_path / "new" / "out" / "report.json")
    assert again.measured.to_json() == measures().to_json()
    assert again.summary["join"].p95 == pytest.approx(measures().values["join"].quantile(0.95))


@pytest.mark.parametrize(
    ("joined", "slower", "code"), [(400, 1.0, 99), (0, 1.0, 3)], ids=["a threshold without data", "nobody joined"]
)
def test_exit_codes_of_runs(joined: int, slower: float, code: int) -> None:
    found = report(joined=joined, measured=measures(slower=slower))
    assert found.exit_code == code
    assert not found.passed


def test_exit_code_0_needs_every_threshold_met() -> None:
    fine = report(scenario=Scenario(thresholds=("p95(join) < 10s",)))
    assert (fine.exit_code, fine.passed, view.verdict(fine)) == (0, True, "All thresholds met")
    assert exit_code(Participants(planned=5, tried=0, joined=0, peak=0), ()) == 0, "ended before anybody tried"


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"schema_version": 2}, "no report of version 1, but of 2"),
        ({"measures": {}}, "measures can't be read"),
        ({"measures": {"values": 1}}, "measures can't be read"),
        ({"seconds": -1}, "seconds: Input should be greater"),
    ],
)
def test_what_is_no_report(tmp_path: Path, change: dict[str, object], said: str) -> None:
    data = json.loads(eventful().model_dump_json()) | change
    (tmp_path / "report.json").write_text(json.dumps(data))
    with pytest.raises(ConfigurationError, match=said):
        files.read(tmp_path)


def test_files_that_are_none(tmp_path: Path) -> None:
    with pytest.raises(ConfigurationError, match="cannot read"):
        files.read(tmp_path / "nothing.json")
    (tmp_path / "x.json").write_text("{")
    with pytest.raises(ConfigurationError, match="is no report"):
        files.read(tmp_path / "x.json")
    (tmp_path / "x.json").write_text("[]")
    with pytest.raises(ConfigurationError, match="is no report"):
        files.read(tmp_path / "x.json")


def test_naive_times_are_refused() -> None:
    data = json.loads(eventful().model_dump_json()) | {"started": "2026-03-05T14:30:00"}
    with pytest.raises(ValidationError, match="timezone"):
        Report.model_validate(data)


# --- JUnit and Markdown -------------------------------------------------------------------------------------


def test_junit_has_a_case_for_each_threshold() -> None:
    (suite,) = ET.fromstring(texts.junit(eventful()))
    cases = {case.get("name"): case for case in suite.iter("testcase")}
    assert list(cases) == [
        "somebody could join",
        "success > 99%",
        "p95(join) < 3s",
        "p95(join.media) < 5s",
        "loss < 1%",
    ]
    failed = {name: case[0].attrib for name, case in cases.items() if len(case)}
    assert failed == {"p95(join.media) < 5s": {"message": "nothing was measured of join.media", "type": "no data"}}
    assert (suite.get("tests"), suite.get("failures"), suite.get("time")) == ("5", "1", "180.0")
    properties = {item.get("name"): item.get("value") for item in suite.iter("property")}
    assert properties["version of jvb"] == "2.3"


def test_junit_says_that_nobody_could_join() -> None:
    (suite,) = ET.fromstring(texts.junit(report(joined=0)))
    first = next(suite.iter("testcase"))
    assert first[0].get("message") == "0 of 400 joins succeeded"


def test_the_summary_says_what_matters() -> None:
    text = texts.markdown(eventful())
    for line in (
        "## many-small-rooms: 1 of 4 thresholds missed",
        "**The client was the bottleneck**: the event loop was late by 180 ms at p99; a core was used by 97 %",
        "- 100.2 s: 40 participants lost wss://meet.example.com (1006)",
        "| `p95(join.media) < 5s` | no data | nothing was measured of join.media |",
        r"| rate_limited | 7 | rate limit | 429 &lt;Too many> \| requests |",
    ):
        assert line in text.splitlines()


def test_an_early_end_is_said() -> None:
    early = eventful().model_copy(update={"ended": "interrupted"})
    assert "The run ended early: interrupted." in texts.markdown(early)
    assert "ended early: interrupted" in page.render(early)


# --- the page -----------------------------------------------------------------------------------------------


def test_the_page_shows_every_part_and_fetches_nothing() -> None:
    text = page.render(eventful())
    for part in (
        "Thresholds",
        "Failures",
        "What happened",
        "Over time",
        "Phases of joining",
        "Percentiles",
        "Configuration",
    ):
        assert f"<h2>{part}</h2>" in text
    assert "429 &lt;Too many&gt; | requests" in text
    assert text.count("<svg") == 2 * 8
    assert not re.search(r"<(script|link|img|iframe)|\ssrc=|\shref=|url\(|@import", text)
    assert "version of prosody" in text


def test_a_run_without_anything_has_a_page_too() -> None:
    empty = report(scenario=Scenario(), measured=Measures(), joined=0)
    text = page.render(empty)
    assert "Nobody could join" in text
    assert "<h2>Over time</h2>" not in text
    assert texts.markdown(empty).startswith("## Load run: Nobody could join")
    assert "Finished; no thresholds were set" in page.render(report(scenario=Scenario()))


HOSTILE = st.text(alphabet=st.characters(exclude_categories=()), max_size=30)


def test_texts_that_no_file_can_hold_are_replaced(tmp_path: Path) -> None:
    found = report(moments=(Moment(at=1, what="x", text="lone \ud800 surrogate"),))
    files.write(found, tmp_path)
    assert files.read(tmp_path).moments[0].text == "lone ? surrogate"


@settings(max_examples=30)
@given(HOSTILE, HOSTILE)
def test_texts_of_a_server_break_no_form(cause: str, example: str) -> None:
    failures = (Failure(cause=cause, count=1, example=example),)
    moments = (Moment(at=1, what=cause, text=f"<script>{example}</script>"),)
    found = report(failures=failures, moments=moments, measured=measures(joins=10))
    text = page.render(found)
    assert text.count("<script") == 0
    ET.fromstring(texts.junit(found))
    rows = [line for line in texts.markdown(found).splitlines() if "| unknown |" in line]
    assert len(rows) == 1
    assert len(re.findall(r"(?<!\\)\|", rows[0])) == 5


def test_what_was_not_measured_is_told_apart_from_0() -> None:
    measured = measures()
    measured.count("freezes", 20, number=0)
    known, unknown = report(measured=measured), report()
    assert not {"freezes", "freeze"} & set(view.unmeasured(known))
    assert {"freezes", "freeze"} <= set(view.unmeasured(unknown))
    assert "height" in view.unmeasured(known)
    line = next(line for line in texts.markdown(unknown).splitlines() if line.startswith("Not measured: "))
    assert {"freezes", "height", "lip_sync"} <= set(line.removeprefix("Not measured: ").split(", "))
    assert "<h2>Not measured</h2>" in page.render(unknown)


@pytest.mark.parametrize(
    ("values", "whose"),
    [
        ({"shaping": {"loss": 0.02}}, "everybody"),
        ({"groups": [{"name": "far", "participants": 1, "shaping": {"delay": 0.1}}]}, "group far"),
        (
            {
                "shaping": {"loss": 0.02},
                "groups": [{"name": "far", "participants": 1, "shaping": {"delay": 0.1}}],
            },
            "group far and all others",
        ),
        ({"shaping": {"loss": 0.02}, "groups": [{"name": "near", "participants": 1}]}, "everybody"),
    ],
)
def test_a_network_that_the_scenario_made_worse_is_told(values: dict[str, object], whose: str) -> None:
    found = report(scenario=Scenario.model_validate(values))
    said = f"The scenario made the network of {whose} worse: loss and delay are not the server's alone"
    assert f"\n{said}.\n" in texts.markdown(found)
    assert said.replace("'", "&#39;") in page.render(found)
    assert view.shaped(report()) == ""


def test_lost_participants_are_on_a_card() -> None:
    found = report()
    people = found.participants.model_copy(update={"lost": 3})
    assert ("lost", "3") in view.cards(found.model_copy(update={"participants": people}))


def test_the_configuration_is_what_is_not_the_default() -> None:
    scenario = Scenario.model_validate(
        {"participants": 9, "simulcast": False, "duration": 90.5, "groups": [{"name": "a", "participants": 2}]}
    )
    found = dict(view.configuration(report(scenario=scenario)))
    assert found["simulcast"] == "no"
    assert found["duration"] == "90.5"
    assert found["groups"] == "name a, participants 2"
    assert "height" not in found


# --- charts -------------------------------------------------------------------------------------------------


@given(st.floats(1e-6, 1e12))
def test_ticks_are_few_and_reach_the_largest_value(largest: float) -> None:
    ticks = nice_ticks(largest)
    assert 3 <= len(ticks) <= 7
    assert ticks[0] == 0
    assert ticks[-1] >= largest * 0.999
    assert ticks[-2] < largest


def test_scales() -> None:
    assert nice_ticks(0) == [0, 1]
    assert nice_ticks(40) == [0, 10, 20, 30, 40]
    assert [clock(at) for at in (5, 65, 3605)] == ["0:05", "1:05", "1:00:05"]
    assert nice_seconds(180, 6) == 30
    assert nice_seconds(10**6, 5) == 28_800


def test_long_lines_are_thinned_and_keep_their_gaps() -> None:
    assert thinned([1, 3, None, None, 5, None, 7], 2) == [2, None, 5, 7]
    line = Line("x", [float(at % 7) for at in range(5000)])
    svg = Chart("Delay", "s", [line], 5000).svg(590, 220)
    assert svg.count("L") < 320


def test_a_gap_is_a_gap_and_a_single_value_a_dot() -> None:
    svg = Chart("A <b>", "", [Line("x", [1, None, 2, 2])], 4).svg(100, 100)
    path = re.search(r'd="([^"]*)"', svg)
    assert path is not None
    assert path[1].count("M") == 2
    assert "A &lt;b&gt; over time" in svg
    assert ET.fromstring(svg).tag == "svg"


def test_shades_of_the_warm_up_end_with_the_run() -> None:
    svg = Chart("x", "", [Line("x", [1.0])], 10, 60, "warm-up").svg(590, 220)
    shade = ET.fromstring(svg).find("rect")
    assert shade is not None
    assert float(shade.attrib["x"]) + float(shade.attrib["width"]) <= 590


# --- commands -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("form", "begins"), [("markdown", "## many"), ("html", "<!DOCTYPE html>"), ("junit", "<testsuites")]
)
def test_a_report_is_shown_with_the_exit_code_of_its_run(tmp_path: Path, form: str, begins: str) -> None:
    files.write(eventful(), tmp_path)
    result = cli.invoke(app, ["report", "show", str(tmp_path), "--format", form])
    assert result.exit_code == 99
    assert begins in result.output[:80]


def test_no_report_is_exit_2(tmp_path: Path) -> None:
    result = cli.invoke(app, ["report", "show", str(tmp_path)])
    assert result.exit_code == 2
    assert "cannot read" in result.output
    assert SECONDS == 180
