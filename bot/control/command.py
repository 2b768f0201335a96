"""``jitsi-bot serve-api``."""

from __future__ import annotations

import json
import sys
from functools import partial
from pathlib import Path
from typing import Annotated

import typer

from bot import logs, settings
from bot.control import daemon, options
from bot.control.openapi import document
from bot.control.options import JOB, ApiSettings
from bot.control.server import OPERATIONS
from bot.errors import BotError, ConfigurationError
from bot.flags import job_setting, setting
from bot.service import loops
from bot.settings import Settings
from bot.terminal import EXIT_INTERRUPTED, fail
from bot.xmpp.address import xmpp_websocket_url

_flag = partial(job_setting, ApiSettings, JOB)


def serve_api(
    config: Annotated[
        Path | None, typer.Option("--config", "-c", help="TOML file", envvar="JITSI_CONFIG", show_envvar=False)
    ] = None,
    url: Annotated[str | None, setting("ws_url", "--url")] = None,
    room: Annotated[str | None, setting("room", "--room")] = None,
    bots: Annotated[int | None, setting("bots", "--bots")] = None,
    http_host: Annotated[str | None, setting("http_host", "--http-host", "--host")] = None,
    http_port: Annotated[int | None, setting("http_port", "--http-port", "--port")] = None,
    duration: Annotated[float | None, setting("duration", "--duration")] = None,
    embedded: Annotated[
        bool, typer.Option("--embedded", help="Start an embedded Jitsi on loopback, for the bots to meet in")
    ] = False,
    embedded_port: Annotated[int | None, setting("embedded_port", "--embedded-port")] = None,
    max_participants: Annotated[int | None, _flag("max_participants")] = None,
    media_dir: Annotated[Path | None, _flag("media_dir")] = None,
    recordings_dir: Annotated[Path | None, _flag("recordings_dir")] = None,
    reports_dir: Annotated[Path | None, _flag("reports_dir")] = None,
    drain_timeout: Annotated[float | None, _flag("drain_timeout")] = None,
    log_level: Annotated[str | None, setting("log_level", "--log-level")] = None,
    log_format: Annotated[str | None, setting("log_format", "--log-format")] = None,
    openapi: Annotated[bool, typer.Option("--openapi", help="Print the OpenAPI document, and end")] = False,
) -> None:
    """Serve the HTTP API: create, watch, change and stop participants. Ctrl-C or SIGTERM lets all leave and ends.

    Tokens come from JITSI_API_READ_TOKENS and JITSI_API_OPERATE_TOKENS, or the files that …_FILE names.
    """
    if openapi:
        sys.stdout.write(json.dumps(document(OPERATIONS), indent=2) + "\n")
        return
    flags = {
        "ws_url": url,
        "room": room,
        "bots": bots,
        "http_host": http_host,
        "http_port": http_port,
        "duration": duration,
        "embedded_port": embedded_port,
        "log_level": log_level,
        "log_format": log_format,
    }
    own = {
        "max_participants": max_participants,
        "media_dir": media_dir,
        "recordings_dir": recordings_dir,
        "reports_dir": reports_dir,
        "drain_timeout": drain_timeout,
    }

    def read() -> tuple[Settings, ApiSettings]:
        program = settings.load(config, **flags)
        if not embedded:
            xmpp_websocket_url(program.ws_url, program.room)
        return program, options.load(config, **own)

    try:
        if embedded and url:
            raise ConfigurationError("--embedded and --url exclude each other", hint="one server at a time")
        program, _ = read()
        logs.configure(program.log_level, program.log_format)
        loops.run(daemon.serve(read, embedded=embedded, config=config))
    except BotError as error:
        fail(error)
    except KeyboardInterrupt:
        raise typer.Exit(EXIT_INTERRUPTED) from None
