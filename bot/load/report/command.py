"""``jitsi-bot report``: what a run left behind, shown and compared."""

from __future__ import annotations

import json
import sys
from enum import StrEnum
from pathlib import Path
from typing import Annotated

import typer

from bot.errors import BotError
from bot.load.report import compare as comparing
from bot.load.report import files, page, texts
from bot.load.report.model import EXIT_MISSED, Report
from bot.terminal import fail

app = typer.Typer(name="report", help="Show and compare the reports of load runs.", no_args_is_help=True)
Path_ = Annotated[Path, typer.Argument(help="A report.json, or the directory that holds it")]


class Form(StrEnum):
    """How a report is shown."""

    MARKDOWN = "markdown"
    HTML = "html"
    JUNIT = "junit"


def _read(path: Path) -> Report:
    try:
        return files.read(path)
    except BotError as error:
        fail(error)


@app.command()
def show(
    path: Path_,
    form: Annotated[Form, typer.Option("--format", help="What it is turned into")] = Form.MARKDOWN,
) -> None:
    """Print a report; its exit code is that of the run."""
    report = _read(path)
    if form is Form.MARKDOWN:
        sys.stdout.write(texts.markdown(report))
    elif form is Form.HTML:
        sys.stdout.write(page.render(report))
    else:
        sys.stdout.write(texts.junit(report).decode() + "\n")
    raise typer.Exit(report.exit_code)


@app.command()
def compare(
    before: Path_,
    after: Path_,
    everything: Annotated[bool, typer.Option("--all", help="Also what is the same, or can't be compared")] = False,
    as_json: Annotated[bool, typer.Option("--json", help="All of it as JSON")] = False,
    fail_on_worse: Annotated[
        bool, typer.Option("--fail-on-worse", help="Exit code 99 where something is worse")
    ] = False,
) -> None:
    """Print what got better or worse from BEFORE to AFTER: what changed by 5 % or more, and surely."""
    found = comparing.compare(_read(before), _read(after))
    if as_json:
        sys.stdout.write(json.dumps(found.as_json(), indent=2) + "\n")
    else:
        sys.stdout.write(comparing.as_text(found, everything=everything))
    if fail_on_worse and found.of(comparing.Change.WORSE):
        raise typer.Exit(EXIT_MISSED)


@app.command()
def schema() -> None:
    """Print the JSON schema of report.json."""
    sys.stdout.write(json.dumps(Report.model_json_schema(), indent=2) + "\n")
