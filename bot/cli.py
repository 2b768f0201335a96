"""The command line: ``jitsi-bot run``, ``serve``, ``load``, ``report``, ``probe`` and others."""

from __future__ import annotations

import json
import sys
from collections.abc import Coroutine
from pathlib import Path
from typing import Annotated, Any, TypeVar

import structlog
import typer
from rich.console import Console
from rich.markup import escape

from bot import __version__, logs
from bot.control import command as control_command
from bot.control import daemon as control_daemon
from bot.control import options as api_options
from bot.control.options import ApiSettings
from bot.errors import ConfigurationError, WrongAddressError
from bot.flags import setting
from bot.load import command as load_command
from bot.load.report import command as report_command
from bot.monitor import command as monitor_command
from bot.monitor import watch_command
from bot.participant.config import expand
from bot.participant.own import check_media
from bot.recording import command as record_command
from bot.service import loops, runner
from bot.service.runner import EXIT_CODES
from bot.settings import Settings, load
from bot.terminal import EXIT_INTERRUPTED, EXIT_USAGE, fail, warn
from bot.xmpp.address import xmpp_websocket_url
from bot.xmpp.visitors import node_url

T = TypeVar("T")

app = typer.Typer(
    name="jitsi-bot",
    help="A Jitsi Meet participant without a browser.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
)
app.command("load")(load_command.load)
app.add_typer(record_command.app, name="record")
app.add_typer(report_command.app)
app.command("probe")(monitor_command.probe)
app.command("watch")(watch_command.watch)
app.command("serve-api")(control_command.serve_api)


Config = Annotated[
    Path | None,
    typer.Option(
        "--config", "-c", help=escape("TOML file [env: JITSI_CONFIG]"), envvar="JITSI_CONFIG", show_envvar=False
    ),
]
Url = Annotated[str | None, setting("ws_url", "--url")]
Room = Annotated[str | None, setting("room", "--room")]
Name = Annotated[str | None, setting("name", "--name")]
Bots = Annotated[int | None, setting("bots", "--bots")]
Duration = Annotated[float | None, setting("duration", "--duration")]
LogLevel = Annotated[str | None, setting("log_level", "--log-level")]
LogFormat = Annotated[str | None, setting("log_format", "--log-format")]
EmbeddedPort = Annotated[int | None, setting("embedded_port", "--embedded-port", "--port")]
Processes = Annotated[str | None, setting("processes", "--processes")]
HttpPort = Annotated[int | None, setting("http_port", "--http-port")]


def _load(config: Path | None, **flags: Any) -> Settings:
    try:
        return load(config, **flags)
    except ConfigurationError as error:
        fail(error)


def _check_address(settings: Settings) -> None:
    """Refuse an address that can't be Jitsi's before anything is started."""
    addresses = {"ws_url": settings.ws_url}
    if settings.visitor_node_url is not None:
        addresses["visitor_node_url"] = node_url(settings.visitor_node_url, "v0")
    for name, url in addresses.items():
        try:
            xmpp_websocket_url(url, settings.room)
        except WrongAddressError as error:
            fail(ConfigurationError(f"{name}: {error.message}", hint=error.hint), EXIT_USAGE)


def _unused(settings: Settings) -> str:
    """A warning of settings that are given in vain; empty where there are none."""
    names = " and ".join(settings.unused)
    return f"{names}: not used, since [[participants]] has its own" if names else ""


@app.callback()
def _main() -> None:
    """A Jitsi Meet participant without a browser."""


@app.command()
def run(
    config: Config = None,
    url: Url = None,
    room: Room = None,
    name: Name = None,
    bots: Bots = None,
    duration: Duration = None,
    log_level: LogLevel = None,
    log_format: LogFormat = None,
    http_port: HttpPort = None,
    processes: Processes = None,
    embedded: Annotated[
        bool,
        typer.Option("--embedded", help="Start an embedded Jitsi on loopback and join that: two bots, no set-up"),
    ] = False,
    embedded_port: EmbeddedPort = None,
    daemon: Annotated[
        bool, typer.Option("--daemon", help="Stay up when a join fails: begin anew after the cool-down")
    ] = False,
) -> None:
    """Join the room (or the rooms of the TOML file) and stay until stopped or until --duration is over."""
    if embedded and url:
        fail(ConfigurationError("--embedded and --url exclude each other", hint="one server at a time"))
    flags = {
        "ws_url": url,
        "room": room,
        "name": name,
        "bots": bots,
        "duration": duration,
        "log_level": log_level,
        "log_format": log_format,
        "http_port": http_port,
        "processes": processes,
        "embedded_port": embedded_port,
    }
    settings = _load(config, **flags)
    if not embedded:
        _check_address(settings)
    console = Console(stderr=True) if sys.stderr.isatty() and settings.log_format != "json" else None
    if daemon and settings.processes == 1:

        def read() -> tuple[Settings, ApiSettings]:
            found = load(config, **flags)
            if not embedded:
                xmpp_websocket_url(found.ws_url, found.room)
            return found, api_options.load(config)

        _run(settings, control_daemon.run_daemon(read, embedded=embedded, config=config, console=console))
        return
    run_them = runner.run_embedded if embedded else runner.run_participants
    raise typer.Exit(EXIT_CODES[_run(settings, run_them(settings, daemon=daemon, console=console))])


@app.command()
def serve(
    config: Config = None,
    embedded_port: EmbeddedPort = None,
    duration: Duration = None,
    log_level: LogLevel = None,
    log_format: LogFormat = None,
) -> None:
    """Start the embedded Jitsi alone, on loopback: for first runs and tests, no server for real meetings."""
    settings = _load(
        config, embedded_port=embedded_port, duration=duration, log_level=log_level, log_format=log_format
    )
    _run(settings, runner.serve(settings))


def _run(settings: Settings, work: Coroutine[Any, Any, T]) -> T:
    logs.configure(settings.log_level, settings.log_format)
    if unused := _unused(settings):
        structlog.get_logger(__name__).warning(unused, event_name="settings_unused")
    try:
        return loops.run(work)
    except ConfigurationError as error:
        fail(error)
    except KeyboardInterrupt:
        raise typer.Exit(EXIT_INTERRUPTED) from None


@app.command(name="check-config")
def check_config(config: Config = None) -> None:
    """Print the effective settings, without secrets, or say what is wrong with them."""
    settings = _load(config)
    _check_address(settings)
    try:
        check_media(expand(settings))
    except ConfigurationError as error:
        fail(error)
    if unused := _unused(settings):
        warn(unused)
    sys.stdout.write(json.dumps(settings.public(), indent=2) + "\n")


@app.command()
def version() -> None:
    """Print the version."""
    sys.stdout.write(f"jitsi-bot {__version__}\n")


def main() -> None:
    """Entry point of ``jitsi-bot`` and ``python -m bot``."""
    app()
