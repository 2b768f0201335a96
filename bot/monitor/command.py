"""``jitsi-bot probe``: the check of a deployment, for people, CI, Nagios, and on a schedule."""

from __future__ import annotations

import sys
from functools import partial
from pathlib import Path
from typing import Annotated, Literal

import typer

from bot import logs, settings
from bot.errors import BotError, ConfigurationError
from bot.flags import job_setting, setting
from bot.monitor import report, schedule
from bot.monitor import settings as options
from bot.monitor.model import ProbeResult, Severity
from bot.monitor.settings import JOB, ProbeSettings
from bot.service import loops
from bot.settings import Settings
from bot.terminal import EXIT_INTERRUPTED, fail
from bot.xmpp.address import xmpp_websocket_url

Form = Literal["text", "json", "nagios"]


_flag = partial(job_setting, ProbeSettings, JOB)


def probe(
    config: Annotated[
        Path | None, typer.Option("--config", "-c", help="TOML file", envvar="JITSI_CONFIG", show_envvar=False)
    ] = None,
    url: Annotated[str | None, setting("ws_url", "--url")] = None,
    embedded: Annotated[bool, typer.Option("--embedded", help="Start an embedded Jitsi and probe that")] = False,
    form: Annotated[str, typer.Option("--format", help="What is printed: text, json or nagios")] = "text",
    bots: Annotated[int | None, _flag("bots")] = None,
    duration: Annotated[float | None, _flag("duration")] = None,
    timeout: Annotated[float | None, _flag("timeout")] = None,
    every: Annotated[float | None, _flag("every")] = None,
    threshold: Annotated[list[str] | None, _flag("thresholds", "--threshold")] = None,
    relay: Annotated[str | None, _flag("relay")] = None,
    region: Annotated[list[str] | None, _flag("regions", "--region")] = None,
    room_prefix: Annotated[str | None, _flag("room_prefix")] = None,
    webhook_url: Annotated[str | None, _flag("webhook_url")] = None,
    webhook_after: Annotated[int | None, _flag("webhook_after")] = None,
    history_file: Annotated[Path | None, _flag("history_file")] = None,
    history: Annotated[int | None, _flag("history")] = None,
    http_port: Annotated[int | None, setting("http_port", "--http-port")] = None,
    embedded_port: Annotated[int | None, setting("embedded_port", "--embedded-port")] = None,
    log_level: Annotated[str | None, setting("log_level", "--log-level")] = None,
    log_format: Annotated[str | None, setting("log_format", "--log-format")] = None,
) -> None:
    """Let bots join a room of their own, see and hear each other, and say where it broke if it did.

    Exit code 0 fine, 1 internal, 2 usage or configuration, 3 no call is possible, 99 a call is, and something is
    missed. With --format nagios 0 fine, 1 warning, 2 critical, 3 unknown. With --every it ends with 0 when told.
    """
    nagios = form == "nagios"
    try:
        if form not in ("text", "json", "nagios"):
            raise ConfigurationError(f"--format is text, json or nagios, not {form!r}")
        if embedded and url:
            raise ConfigurationError("--embedded and --url exclude each other", hint="one server at a time")
        found = options.load(
            config,
            bots=bots,
            duration=duration,
            timeout=timeout,
            every=every,
            thresholds=tuple(threshold) if threshold else None,
            relay=relay,
            regions=tuple(region) if region else None,
            room_prefix=room_prefix,
            webhook_url=webhook_url,
            webhook_after=webhook_after,
            history_file=history_file,
            history=history,
        )
        program = settings.load(
            config,
            ws_url=url,
            http_port=http_port,
            embedded_port=embedded_port,
            log_level=log_level,
            log_format=log_format,
        )
        if not embedded:
            xmpp_websocket_url(program.ws_url, found.room_prefix)
        code = _run(program, found, form, embedded=embedded)
    except BotError as error:
        if nagios:  # a plug-in's word goes to its output, and what can't be checked is unknown
            sys.stdout.write(f"JITSI UNKNOWN - {error}\n")
            raise typer.Exit(int(Severity.UNKNOWN)) from None
        fail(error)
    raise typer.Exit(code)


def _run(program: Settings, found: ProbeSettings, form: str, *, embedded: bool) -> int:
    quiet = not found.every and "log_level" not in program.model_fields_set
    logs.configure("error" if quiet else program.log_level, program.log_format)
    code = 1

    def show(result: ProbeResult) -> None:
        nonlocal code
        code = report.exit_code(result, form)
        sys.stdout.write(_text(result, found, form))
        sys.stdout.flush()

    try:
        loops.run(schedule.probe(program, found, show, embedded=embedded))
    except KeyboardInterrupt:
        return EXIT_INTERRUPTED
    return 0 if found.every else code


def _text(result: ProbeResult, found: ProbeSettings, form: str) -> str:
    if form == "json":
        return report.as_json(result) + "\n"
    if form == "nagios":
        return report.as_nagios(result, found.limits) + "\n"
    return report.as_text(result)
