"""Writes the pages of the reference out of the code: ``python -m docs.pages`` (``make reference``).

``tests/test_docs.py`` holds that what is committed is what this makes.
"""

from __future__ import annotations

import ast
import inspect
import re
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import MISSING, fields
from pathlib import Path
from typing import Any, NamedTuple

import typer
from prometheus_client import CollectorRegistry
from pydantic import BaseModel

from bot import events
from bot.cli import app
from bot.control.options import ApiSettings
from bot.load import files
from bot.load.exporter import Exporter
from bot.load.standing import Standing
from bot.monitor.meeting_metrics import MeetingMetrics
from bot.monitor.metrics import ProbeMetrics
from bot.monitor.settings import ProbeSettings
from bot.monitor.watch_settings import WatchSettings
from bot.recording.options import RecordOptions
from bot.service.metrics import Metrics
from bot.settings import Settings, environment_name

FOLDER = Path(__file__).parent
PACKAGE = FOLDER.parent / "bot"
NOTE = "<!-- Made from the code by `make reference`: edits here are lost. -->\n"
METRICS = """# Metrics

Prometheus collects them from `/metrics` at `http_host` and `http_port`. Units are base units; no participant is
a label, so that their number does not grow with the rooms. Histograms have `_bucket`, `_sum` and `_count`.
Dashboards for Grafana are in `config/grafana`, alert rules in `config/prometheus`."""
LOGS = """# Logs and events

Lines go to the standard error: JSON where that is no terminal (`log_format`), from `log_level` on. Tokens and
passwords in addresses are masked. Each line has

| field | what it is |
| --- | --- |
| `timestamp` | UTC, ISO 8601 |
| `level` | `debug`, `info`, `warning` or `error` |
| `event` | the text for people |
| `event_name` | the stable name |

## Events of a participant

They are the same in logs, in `jitsi_bot_events_total`, in the HTTP API and for Python programs (`bot.events`).
Each has `room`, `participant`, `attempt` (of connecting, from 1) and `seconds` (since the start of the phase
that it ends or belongs to). A field with ? is left out where it is not known.
"""
SETTINGS_INTRO = """# Settings

Flag, then environment, then TOML file (`--config`, `JITSI_CONFIG`), then default. Secrets can come from a file
named by the variable with `_FILE` at its end. `jitsi-bot check-config` prints what counts, without secrets."""
COMMANDS = """# Commands

Exit codes: 0 fine, 1 internal, 2 usage or configuration, 3 could not join, 4 lost during the run, 99 a
threshold was missed, 130 and 143 ended by a signal."""
LEVELS = ("debug", "info", "warning", "error", "exception")


def table(*columns: str, rows: Iterable[Iterable[str]]) -> str:
    """A table of Markdown."""
    lines = [columns, ["---"] * len(columns), *rows]
    return "\n".join(f"| {' | '.join(str(cell).replace('|', chr(92) + '|') for cell in line)} |" for line in lines)


def code(text: object) -> str:
    """As code; nothing for nothing."""
    return f"`{text}`" if text not in (None, "", ()) else ""


# --- metrics -------------------------------------------------------------------------------------------------


class Metric(NamedTuple):
    """What ``/metrics`` has."""

    name: str
    kind: str
    labels: tuple[str, ...]
    text: str


def metrics_of(registry: CollectorRegistry) -> Iterator[Metric]:
    """All of a registry; labels stand in the collectors, since what was never counted has no sample."""
    for collector in registry._collector_to_names:
        described: Callable[[], Iterable[Any]] = getattr(collector, "describe", collector.collect)
        for family in described():
            labels: Iterable[str] = getattr(collector, "_labelnames", getattr(family, "_labelnames", ()))
            suffix = "_total" if family.type == "counter" else ""
            yield Metric(f"{family.name}{suffix}", family.type, tuple(labels), family.documentation)


def registries() -> dict[str, CollectorRegistry]:
    """Whose ``/metrics`` has what."""
    load = Exporter(Standing(files.load(None)), lambda: 0.0)
    return {
        "jitsi-bot run --daemon, jitsi-bot serve-api": Metrics().registry,
        "jitsi-bot probe --every S": ProbeMetrics().registry,
        "jitsi-bot watch --http-port N": MeetingMetrics().registry,
        "jitsi-bot load": load._registry,
    }


def metrics_page() -> str:
    """docs/metrics.md."""
    parts = [NOTE, METRICS]
    for command, registry in registries().items():
        rows = (
            (code(m.name), m.kind, ", ".join(map(code, m.labels)), m.text) for m in sorted(metrics_of(registry))
        )
        parts.append(f"\n## `{command}`\n\n{table('metric', 'kind', 'labels', 'what it is', rows=rows)}")
    return "\n".join(parts) + "\n"


# --- logs ----------------------------------------------------------------------------------------------------


class Line(NamedTuple):
    """A log line that is no event of a participant."""

    name: str
    level: str
    text: str
    fields: tuple[str, ...]


def lines_of(source: str) -> Iterator[Line]:
    """Calls of a logger with an ``event_name``, as they stand in the source."""
    for node in ast.walk(ast.parse(source)):
        if not isinstance(node, ast.Call):
            continue
        given = {item.arg: item.value for item in node.keywords if item.arg}
        name = given.pop("event_name", None)
        if not isinstance(name, ast.Constant):
            continue
        level = node.func.attr if isinstance(node.func, ast.Attribute) else "info"
        text = node.args[0].value if node.args and isinstance(node.args[0], ast.Constant) else ""
        given.pop("exc_info", None)
        yield Line(
            str(name.value),
            level.replace("exception", "error") if level in LEVELS else "info",
            str(text),
            tuple(given),
        )


def log_lines() -> list[Line]:
    """Those of the whole program, once each."""
    found = {line for file in PACKAGE.rglob("*.py") for line in lines_of(file.read_text(encoding="utf-8"))}
    return sorted(found)


def first(text: str | None) -> str:
    """The first paragraph of a docstring, in one line."""
    return " ".join(inspect.cleandoc(text or "").partition("\n\n")[0].split()).replace("``", "`")


def own_fields(kind: type[events.Event]) -> Iterator[str]:
    """What an event says beside who and when; with ``?`` what may be missing."""
    common = {item.name for item in fields(events.Event)}
    for item in fields(kind):
        if item.name not in common:
            optional = item.default is None and item.default is not MISSING
            yield f"`{item.name}`{'?' if optional else ''}"


def logs_page() -> str:
    """docs/logs.md."""
    of_events = (
        (code(kind.name), kind.level, code(kind.text), ", ".join(own_fields(kind)), first(kind.__doc__))
        for kind in sorted(events.all_event_types(), key=lambda kind: kind.name)
    )
    others = ((code(line.name), line.level, line.text, ", ".join(map(code, line.fields))) for line in log_lines())
    return "\n".join(
        (
            NOTE,
            LOGS,
            table("event_name", "level", "text", "fields", "what it says", rows=of_events),
            "\n## Other lines\n",
            table("event_name", "level", "text", "fields", rows=others),
            "",
        )
    )


# --- settings and commands -----------------------------------------------------------------------------------

#: Settings by the table of the TOML file that they stand in; "" is the file itself.
SETTINGS: Mapping[str, type[BaseModel]] = {
    "": Settings,
    "probe": ProbeSettings,
    "watch": WatchSettings,
    "record": RecordOptions,
    "api": ApiSettings,
}


def setting_rows(job: str, model: type[BaseModel]) -> Iterator[tuple[str, str, str, str]]:
    """Name, variable, default, what it is."""
    for name, field in model.model_fields.items():
        default = field.get_default(call_default_factory=False)
        shown = str(default).lower() if isinstance(default, bool) else default
        shown = ",".join(map(str, shown)) if isinstance(shown, tuple) else shown
        yield (
            code(name),
            code(environment_name(f"{job}_{name}" if job else name)),
            code(shown),
            field.description or "",
        )


def settings_page() -> str:
    """docs/settings.md."""
    parts = [NOTE, SETTINGS_INTRO]
    for job, model in SETTINGS.items():
        title = f"`[{job}]` of the TOML file" if job else "Of the program"
        rows = table("setting", "environment", "default", "what it is", rows=setting_rows(job, model))
        parts.append(f"\n## {title}\n\n{rows}")
    return "\n".join(parts) + "\n"


def commands(group: Any, path: tuple[str, ...] = ()) -> Iterator[tuple[str, Any]]:
    """Every command that does something, with the words that call it."""
    below = getattr(group, "commands", {})
    if not below or getattr(group, "invoke_without_command", False):
        yield " ".join(("jitsi-bot", *path)), group
    for name, item in below.items():
        yield from commands(item, (*path, name))


def flag_rows(command: Any) -> Iterator[tuple[str, str]]:
    """Flags and arguments, and what they are."""
    for item in command.params:
        names = [*item.opts, *item.secondary_opts]
        shown = (
            ", ".join(map(code, names))
            if item.param_type_name == "option"
            else code(item.metavar or item.name.upper())
        )
        text = (item.help or "").replace("\\[", "[")
        if "--help" not in names:
            yield shown, text


def commands_page() -> str:
    """docs/commands.md."""
    parts = [NOTE, COMMANDS]
    for name, command in commands(typer.main.get_command(app)):
        rows = list(flag_rows(command))
        parts.append(f"\n## `{name}`\n\n{first(command.help)}\n")
        if rows:
            parts.append(table("flag", "what it is", rows=rows))
    return re.sub(r"\n{3,}", "\n\n", "\n".join(parts)) + "\n"


PAGES: Mapping[str, Callable[[], str]] = {
    "metrics.md": metrics_page,
    "logs.md": logs_page,
    "settings.md": settings_page,
    "commands.md": commands_page,
}


def main() -> None:
    """Write all pages."""
    for name, page in PAGES.items():
        (FOLDER / name).write_text(page(), encoding="utf-8")


if __name__ == "__main__":
    main()
