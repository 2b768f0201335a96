"""The report for CI: JUnit XML, and a summary in Markdown. Pure."""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from datetime import UTC

from junitparser import Failure, JUnitXml, TestCase, TestSuite

from bot.load.report import view
from bot.load.report.model import EXIT_NOBODY, Report, ThresholdResult

_NOT_XML = re.compile("[^\t\n\r\x20-\ud7ff\ue000-\ufffd\U00010000-\U0010ffff]")


def junit(report: Report) -> bytes:
    """Each threshold is a test case, and so is that somebody could join."""
    suite = TestSuite(f"jitsi-bot load {report.name}".strip())
    # The schema of JUnit knows no time zones.
    suite.timestamp = report.started.astimezone(UTC).strftime("%Y-%m-%dT%H:%M:%S")
    for name, value in view.configuration(report):
        suite.add_property(_clean(name), _clean(value))
    suite.add_testcase(_joined(report))
    for item in report.thresholds:
        suite.add_testcase(_case(report, item))
    suite.time = report.seconds
    xml = JUnitXml("jitsi-bot load")
    xml.add_testsuite(suite)
    text: bytes = xml.tostring()  # type: ignore[no-untyped-call]
    return text


def _joined(report: Report) -> TestCase:
    people = report.participants
    text = f"{people.joined} of {people.tried} joins succeeded"
    return _test(report, "somebody could join", text if report.exit_code == EXIT_NOBODY else "", "nobody joined")


def _case(report: Report, item: ThresholdResult) -> TestCase:
    return _test(report, item.expression, "" if item.met else item.reason, item.state)


def _test(report: Report, name: str, failure: str, kind: str) -> TestCase:
    case = TestCase(_clean(name), classname=_clean(report.name or "load"))
    case.time = report.seconds
    if failure:
        case.result = [Failure(_clean(failure), kind)]
    return case


def _clean(text: str) -> str:
    """Without what XML 1.0 can't hold (section 2.2): servers' texts are in it."""
    return _NOT_XML.sub("", text)


def markdown(report: Report) -> str:
    """A summary for a CI job's page."""
    lines = [f"## {_md(report.name or 'Load run')}: {view.verdict(report)}", ""]
    lines += _notes(report)
    lines += _table(("", ""), view.cards(report))
    if report.thresholds:
        rows = [(f"`{item.expression}`", item.state, item.reason) for item in report.thresholds]
        lines += _table(("threshold", "result", "measured"), rows)
    if report.failures:
        failures = [(item.cause, str(item.count), item.whose, item.example) for item in report.failures]
        lines += _table(("failures by cause", "count", "whose limit", "example"), failures)
    if percentiles := [(row.name, *row.cells, row.count) for row in view.rows(report)]:
        lines += ["<details><summary>Percentiles</summary>", ""]
        lines += _table(("measure", *view.COLUMNS, "values"), percentiles)
        lines += ["</details>", ""]
    if unmeasured := view.unmeasured(report):
        lines += [f"Not measured: {', '.join(unmeasured)}", ""]
    return "\n".join(lines).rstrip() + "\n"


def _notes(report: Report) -> Iterable[str]:
    if report.client.limited:
        yield f"**The client was the bottleneck**: {_md('; '.join(report.client.reasons))}"
        yield ""
    if text := view.ending(report):
        yield f"The run {text}."
        yield ""
    if text := view.shaped(report):
        yield f"{_md(text)}."
        yield ""
    for moment in report.moments:
        yield f"- {moment.at:.1f} s: {_md(moment.text)}"
    if report.moments:
        yield ""


def _table(head: Sequence[str], rows: Iterable[Sequence[str]]) -> list[str]:
    lines = [head, ["---"] * len(head), *[[_md(cell) for cell in row] for row in rows]]
    return [*(f"| {' | '.join(line)} |" for line in lines), ""]


def _md(text: str) -> str:
    """One line, in which nothing of a table or of HTML begins."""
    return " ".join(text.split()).replace("|", "\\|").replace("<", "&lt;") if not text.startswith("`") else text
