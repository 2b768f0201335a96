"""``jitsi-bot watch``: how a meeting is, for people and for programs."""

from __future__ import annotations

import json
import sys
from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import asdict
from functools import partial
from pathlib import Path
from typing import Annotated, Any, Self

import typer
from rich.console import Console
from rich.live import Live

from bot import events, logs, settings
from bot.errors import BotError, ConfigurationError
from bot.flags import job_setting, setting
from bot.monitor import meeting_report, watch_settings, watcher
from bot.monitor.meeting import MeetingSeen, ParticipantSeen
from bot.monitor.watch_settings import JOB, WatchSettings
from bot.service import loops
from bot.service.runner import EXIT_CODES, Outcome
from bot.settings import Settings
from bot.terminal import EXIT_INTERRUPTED, fail
from bot.xmpp.address import xmpp_websocket_url

_flag = partial(job_setting, WatchSettings, JOB)


def watch(
    config: Annotated[
        Path | None, typer.Option("--config", "-c", help="TOML file", envvar="JITSI_CONFIG", show_envvar=False)
    ] = None,
    url: Annotated[str | None, setting("ws_url", "--url")] = None,
    room: Annotated[str | None, setting("room", "--room")] = None,
    name: Annotated[str | None, setting("name", "--name")] = None,
    embedded: Annotated[
        bool, typer.Option("--embedded", help="Start an embedded Jitsi on loopback with two bots, and watch them")
    ] = False,
    form: Annotated[
        str, typer.Option("--format", help="What is printed: auto (a table on a terminal), text or json")
    ] = "auto",
    interval: Annotated[float | None, _flag("interval")] = None,
    height: Annotated[int | None, _flag("height")] = None,
    threshold: Annotated[list[str] | None, _flag("thresholds", "--threshold")] = None,
    duration: Annotated[float | None, setting("duration", "--duration")] = None,
    http_port: Annotated[int | None, setting("http_port", "--http-port")] = None,
    embedded_port: Annotated[int | None, setting("embedded_port", "--embedded-port")] = None,
    log_level: Annotated[str | None, setting("log_level", "--log-level")] = None,
    log_format: Annotated[str | None, setting("log_format", "--log-format")] = None,
) -> None:
    """Watch a meeting: how everybody is heard and seen, by the packets that come, without decoding any.

    The monitor is seen in the room by its name, and sends nothing. Exit code 0 when told to end, 2 usage or
    configuration, 3 could not join, 4 lost. With --http-port, or the setting, it serves /metrics.
    """
    try:
        if form not in ("auto", "text", "json"):
            raise ConfigurationError(f"--format is auto, text or json, not {form!r}")
        if embedded and url:
            raise ConfigurationError("--embedded and --url exclude each other", hint="one server at a time")
        thresholds = tuple(threshold) if threshold else None
        options = watch_settings.load(config, interval=interval, height=height, thresholds=thresholds)
        program = settings.load(
            config,
            ws_url=url,
            room=room,
            name=name,
            duration=duration,
            http_port=http_port,
            embedded_port=embedded_port,
            log_level=log_level,
            log_format=log_format,
        )
        if not embedded:
            xmpp_websocket_url(program.ws_url, program.room)
        outcome = _run(program, options, form, embedded=embedded)
    except BotError as error:
        fail(error)
    except KeyboardInterrupt:
        raise typer.Exit(EXIT_INTERRUPTED) from None
    raise typer.Exit(EXIT_CODES[outcome])


def _run(program: Settings, options: WatchSettings, form: str, *, embedded: bool) -> Outcome:
    logs.configure(program.log_level, program.log_format)
    work = watcher.watch_embedded if embedded else watcher.watch
    with Printed(form) as out:
        serve = "http_port" in program.model_fields_set
        return loops.run(work(program, options, out, serve=serve))


class Printed:
    """Where reports and changes go: JSON and text to the standard output, the table to its terminal."""

    def __init__(self, form: str) -> None:
        self._json = form == "json"
        self._stack = ExitStack()
        self._live: Live | None = None
        if form == "auto" and sys.stdout.isatty():
            self._live = Live(console=Console(), auto_refresh=False)

    def __enter__(self) -> Self:
        if self._live is not None:
            self._stack.enter_context(self._live)
        return self

    def __exit__(self, *_: object) -> None:
        self._stack.close()

    def report(self, seen: MeetingSeen) -> None:
        """Show a report."""
        if self._live is not None:
            self._live.update(meeting_report.table(seen), refresh=True)
        elif self._json:
            self._line({"type": "statistics", **seen.as_dict()})
        else:
            self._write(meeting_report.lines(seen))

    def event(self, event: events.Event) -> None:
        """Log it; a change is shown where programs read, too."""
        logs.log_event(event)
        if self._json and isinstance(event, watcher.CHANGES):
            self._line({"type": "change", "event_name": event.name, **event.as_dict(), "message": event.message})

    def ended(self, people: Sequence[ParticipantSeen]) -> None:
        """Show what the whole stay was."""
        if self._json:
            self._line({"type": "summary", "participants": [asdict(item) for item in people]})
        else:
            self._stack.close()  # below the table
            self._write(meeting_report.summary(people))

    def _line(self, item: dict[str, Any]) -> None:
        self._write(json.dumps(item, separators=(",", ":"), default=str) + "\n")

    def _write(self, text: str) -> None:
        sys.stdout.write(text)
        sys.stdout.flush()
