"""Starts a load run as a command does: signals, terminal, ``/metrics``, embedded server, files of the report."""

from __future__ import annotations

import sys
from collections.abc import Callable
from contextlib import AsyncExitStack
from dataclasses import dataclass
from pathlib import Path

import structlog
from rich.console import Console

from bot import logs
from bot.errors import ConfigurationError
from bot.load.carry import exit_code, search, verdict
from bot.load.exporter import Exporter
from bot.load.machine import raise_file_limit
from bot.load.plan import Plan
from bot.load.report import files
from bot.load.report.model import Report
from bot.load.run import Job, LoadRun
from bot.load.scenario import Scenario
from bot.load.seating import check_warm_up
from bot.load.view import LineView, TerminalView
from bot.service import loops
from bot.service.http import HealthServer
from bot.service.runner import catch_signals, embedded_server, embedded_settings
from bot.settings import Settings

log = structlog.get_logger(__name__)
Watching = TerminalView | LineView


@dataclass(frozen=True, slots=True)
class How:
    """What is around the run: the embedded server or not, and where its reports go."""

    embedded: bool = False
    out: Path | None = None


def start(plan: Plan, settings: Settings, how: How) -> Report:
    """Run it in an event loop of its own. Raises ConfigurationError for what can't be begun."""
    settings = _prepared(plan, settings, how)
    report = loops.run(_run(plan, settings, how))
    if how.out is not None:
        files.write(report, how.out)
    return report


def start_search(
    plan: Plan, settings: Settings, how: How, plan_of: Callable[[Scenario, Settings], Plan]
) -> tuple[str, int]:
    """Look for the size that is carried; gives what was found as a text, and the exit code.

    The reports of all sizes are in ``out``, each in a directory of its own. Raises ConfigurationError.
    """
    settings = _prepared(plan, settings, how)

    async def one(scenario: Scenario) -> Report:
        report = await _run(plan_of(scenario, settings), settings, how)
        if how.out is not None:
            files.write(report, how.out / f"{scenario.total}-participants")
        return report

    def say(text: str) -> None:
        sys.stderr.write(text + "\n")

    found, report = loops.run(search(plan.scenario, one, say))
    return verdict(plan.scenario, found), exit_code(found, report)


def _prepared(plan: Plan, settings: Settings, how: How) -> Settings:
    """See that it can be begun, and set the process up."""
    if not plan.fits:
        raise ConfigurationError(
            f"this machine can't carry it: {plan.problems[0].text}", hint="--dry-run prints the whole plan"
        )
    check_warm_up(plan.scenario)
    if how.out is not None:
        files.check_writable(how.out, "--out")
    if "log_level" not in settings.model_fields_set:
        settings = settings.model_copy(update={"log_level": "warning"})  # the view tells what is normal
    logs.configure(settings.log_level, settings.log_format)
    raise_file_limit()
    return settings


async def _run(plan: Plan, settings: Settings, how: How) -> Report:
    async with AsyncExitStack() as stack:
        if how.embedded:
            server = await stack.enter_async_context(embedded_server(settings.embedded_port))
            settings = embedded_settings(settings, server)
        watching = _view(settings)
        stack.enter_context(watching)
        run = LoadRun(Job(plan, settings, _log_format(settings)), watching)
        stack.callback(catch_signals(run.stop))
        await _serve(stack, settings, run)
        return await run.run()


async def _serve(stack: AsyncExitStack, settings: Settings, run: LoadRun) -> None:
    """Show ``/metrics`` while it runs; where nobody chose the port, a taken one is no reason not to run."""
    server = HealthServer(
        settings.http_host,
        settings.http_port,
        ready=lambda: run.at > 0,
        metrics=Exporter(run.standing, lambda: run.at),
    )
    try:
        await server.start()
    except ConfigurationError as error:
        if "http_port" in settings.model_fields_set:
            raise
        log.warning("No /metrics", event_name="load_metrics_unavailable", cause=str(error))
        return
    stack.push_async_callback(server.stop)


def _view(settings: Settings) -> Watching:
    if settings.log_format == "json" or not sys.stderr.isatty():
        return LineView()
    return TerminalView(Console(stderr=True))


def _log_format(settings: Settings) -> logs.LogFormat:
    """Processes write to a pipe: whether there is a terminal behind it is known here."""
    as_json = settings.log_format == "json" or (settings.log_format == "auto" and not sys.stderr.isatty())
    return "json" if as_json else "console"
