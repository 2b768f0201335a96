"""What of a report people look at first: cards, charts, tables, as texts. Pure."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from bot.load import units
from bot.load.catalogue import MEASURES
from bot.load.measures import SERIES
from bot.load.report.charts import Chart, Line
from bot.load.report.model import EXIT_NOBODY, Report, Values
from bot.load.scenario import Scenario

_JOIN = "join."
#: How long each was, and how many there were.
_LENGTHS = {"freeze": "freezes", "reconnect": "reconnects"}


@dataclass(frozen=True, slots=True)
class Bar:
    """A phase of joining: median and 95th percentile as texts, and as shares of the longest one."""

    name: str
    text: str
    p50: str
    p95: str
    median: float
    slow: float


def verdict(report: Report) -> str:
    """One sentence on how it came out."""
    if report.exit_code == EXIT_NOBODY:
        return "Nobody could join"
    missed = [item for item in report.thresholds if not item.met]
    if missed:
        return f"{len(missed)} of {len(report.thresholds)} thresholds missed"
    return "All thresholds met" if report.thresholds else "Finished; no thresholds were set"


def ending(report: Report) -> str:
    """Why the run ended, where that was not the plan."""
    return {
        "duration": "",
        "threshold": "ended early: a threshold was missed",
        "interrupted": "ended early: interrupted",
        "failed": "ended early by an error",
    }[report.ended]


def shaped(report: Report) -> str:
    """Whose network the scenario made worse, so that nobody takes that for the server's; empty for nobody's."""
    groups = report.scenario.get("groups", ())
    whose = [f"group {group['name']}" for group in groups if group.get("shaping")]
    if report.scenario.get("shaping"):
        whose.append("all others" if whose else "everybody")
    if not whose:
        return ""
    return (
        f"The scenario made the network of {' and '.join(whose)} worse: loss and delay are not the server's alone"
    )


def cards(report: Report) -> list[tuple[str, str]]:
    """The numbers that say most, those that were measured."""
    people = report.participants
    found = [
        ("participants", f"{people.peak} of {people.planned}"),
        ("joins", f"{people.joined} of {people.tried}"),
        *((name, text) for name, text in _key_numbers(report) if text),
        ("length", units.show_seconds(report.seconds)),
    ]
    if people.lost:
        found.append(("lost", str(people.lost)))
    return found


def _key_numbers(report: Report) -> Iterable[tuple[str, str]]:
    yield "join, p95", _p95(report, "join")
    yield "packet loss", _total(report, "loss")
    yield "round trip, p95", _p95(report, "rtt")
    yield "end to end, p95", _p95(report, "e2e_delay")
    for name, series in (("received, peak", "bits_received"), ("sent, peak", "bits_sent")):
        values = [value for value in _points(report, series) if value is not None]
        yield name, units.show(max(values), "bit/s") if values else ""


def _p95(report: Report, name: str) -> str:
    values = report.summary.get(name)
    return units.show(values.p95, values.unit) if values else ""


def _total(report: Report, name: str) -> str:
    value = report.totals.get(name)
    return "" if value is None else units.show(value, MEASURES[name].unit)


# --- charts -------------------------------------------------------------------------------------------------


def charts(report: Report) -> list[Chart]:
    """Those that have something to show."""
    warm_up = report.measured.warm_up

    def chart(title: str, unit: str, *lines: tuple[str, Sequence[float | None]]) -> Chart | None:
        found = [line for label, points in lines if (line := Line(label, points)).known]
        seconds = max(report.seconds, 1.0)
        return Chart(title, unit, found, seconds, warm_up, "warm-up, does not count") if found else None

    def of(name: str) -> Sequence[float | None]:
        return _points(report, name)

    found = [
        chart("Participants", "", ("in the room", of("participants")), ("joining", of("joining"))),
        chart("Joins and failures per second", "", ("joins", of("joins")), ("failures", of("failures"))),
        chart("Bit rate", "bit/s", ("received", of("bits_received")), ("sent", of("bits_sent"))),
        chart("Packet loss", "ratio", ("lost on the way to us", _loss(report))),
        chart("Delay", "s", ("end to end", of("e2e_delay")), ("round trip", of("rtt")), ("jitter", of("jitter"))),
        chart("Frame rate", "fps", ("of received pictures", of("fps"))),
        chart("Reconnects per second", "", ("reconnects", of("reconnects"))),
        chart("Cores that the client uses", "", ("all processes", of("client_cpu"))),
        chart("Lag of the client's event loop", "s", ("average", of("client_loop_lag"))),
    ]
    return [item for item in found if item is not None]


def _points(report: Report, name: str) -> Sequence[float | None]:
    """A series in its unit, one value a second: sums are rates then."""
    assert name in SERIES
    series = report.measured.series.get(name)
    return series.values(math.ceil(report.seconds)) if series else []


def _loss(report: Report) -> list[float | None]:
    lost, received = _points(report, "packets_lost"), _points(report, "packets_received")
    pairs = zip(lost, received, strict=False)
    return [(gone or 0) / whole if (whole := (gone or 0) + (came or 0)) else None for gone, came in pairs]


# --- tables -------------------------------------------------------------------------------------------------


def phases(report: Report) -> list[Bar]:
    """How long each phase of joining took, in the order of joining."""
    found = [
        (name, report.summary[name]) for name in MEASURES if name.startswith(_JOIN) and name in report.summary
    ]
    longest = max((values.p95 for _, values in found), default=0.0) or 1.0
    return [
        Bar(
            name=name.removeprefix(_JOIN).replace("_", " "),
            text=MEASURES[name].text,
            p50=units.show_seconds(values.p50),
            p95=units.show_seconds(values.p95),
            median=100 * values.p50 / longest,
            slow=100 * values.p95 / longest,
        )
        for name, values in found
    ]


@dataclass(frozen=True, slots=True)
class Row:
    """A measure with many values, as texts."""

    name: str
    text: str
    count: str
    cells: Sequence[str]


COLUMNS = ("p50", "p90", "p95", "p99", "max")


def rows(report: Report) -> list[Row]:
    """All measures with many values, in the order of the catalogue."""
    return [_row(name, report.summary[name]) for name in MEASURES if name in report.summary]


def _row(name: str, values: Values) -> Row:
    cells = [units.show(getattr(values, column), values.unit) for column in COLUMNS]
    return Row(name, MEASURES[name].text, f"{values.count:,}", cells)


def totals(report: Report) -> list[tuple[str, str, str]]:
    """Name, value and meaning of the measures that are one number."""
    return [(name, _total(report, name), MEASURES[name].text) for name in MEASURES if name in report.totals]


def unmeasured(report: Report) -> list[str]:
    """Measures of which nothing is known: something else than 0, or than the length of what never was."""
    known = report.summary.keys() | report.totals.keys()
    known |= {length for length, number in _LENGTHS.items() if number in report.totals}
    return [name for name in MEASURES if name not in known]


def configuration(report: Report) -> list[tuple[str, str]]:
    """What of the scenario is not as it is by default, then the server and the client."""
    client = report.client
    return [
        *_differences(report.scenario),
        ("server", report.server.url),
        *((f"version of {name}", version) for name, version in sorted(report.server.versions.items())),
        (
            "client",
            ", ".join(filter(None, (f"{client.processes} processes on {client.cores} cores", client.system))),
        ),
        ("program", f"{report.program}{f', Python {client.python}' if client.python else ''}"),
    ]


def _differences(scenario: Mapping[str, Any]) -> Iterable[tuple[str, str]]:
    defaults = Scenario().model_dump(mode="json")
    for key, value in scenario.items():
        if key not in {"name", "description", "thresholds"} and value != defaults.get(key):
            yield key, _shown(value)


def _shown(value: Any) -> str:
    if isinstance(value, Mapping):
        return ", ".join(f"{key} {_shown(item)}" for key, item in value.items() if item is not None)
    if isinstance(value, list):
        return "; ".join(map(_shown, value))
    if isinstance(value, bool):
        return "yes" if value else "no"
    return f"{value:g}" if isinstance(value, float) else str(value)
