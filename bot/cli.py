"""The command line: ``jitsi-bot run``, ``jitsi-bot check-config``."""

from __future__ import annotations

import asyncio
import json
import signal
import sys
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Annotated, Any, NoReturn

import typer
from rich.console import Console

from bot import __version__, events, logs
from bot.errors import BotError, ConfigurationError
from bot.participant.config import ParticipantConfig, expand
from bot.participant.participant import Participant
from bot.service.http import HealthServer
from bot.service.metrics import Metrics
from bot.service.supervisor import Supervisor
from bot.settings import Settings, environment_name, load

EXIT_OK, EXIT_USAGE, EXIT_NOT_JOINED = 0, 2, 3

app = typer.Typer(
    name="jitsi-bot",
    help="A Jitsi Meet participant without a browser.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
)
errors = Console(stderr=True, soft_wrap=True)


def _option(field: str, *names: str) -> Any:
    """A flag with its environment twin and its description, both from the setting."""
    description = Settings.model_fields[field].description
    return typer.Option(*names, help=f"{description} [env: {environment_name(field)}]", show_default=False)


Config = Annotated[
    Path | None, typer.Option("--config", "-c", help="TOML file [env: JITSI_CONFIG]", envvar="JITSI_CONFIG")
]
Url = Annotated[str | None, _option("ws_url", "--url")]
Room = Annotated[str | None, _option("room", "--room")]
Name = Annotated[str | None, _option("name", "--name")]
Bots = Annotated[int | None, _option("bots", "--bots")]
Duration = Annotated[float | None, _option("duration", "--duration")]
LogLevel = Annotated[str | None, _option("log_level", "--log-level")]
LogFormat = Annotated[str | None, _option("log_format", "--log-format")]
HttpPort = Annotated[int | None, _option("http_port", "--http-port")]


def _load(config: Path | None, **flags: Any) -> Settings:
    try:
        return load(config, **flags)
    except ConfigurationError as error:
        _fail(error, EXIT_USAGE)


def _fail(error: BotError, code: int) -> NoReturn:
    errors.print(f"[bold red]error:[/] {error}", highlight=False)
    raise typer.Exit(code)


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
    daemon: Annotated[
        bool, typer.Option("--daemon", help="Stay up when a join fails: begin anew after the cool-down")
    ] = False,
) -> None:
    """Join the room (or the rooms of the TOML file) and stay until stopped or until --duration is over."""
    settings = _load(
        config,
        ws_url=url,
        room=room,
        name=name,
        bots=bots,
        duration=duration,
        log_level=log_level,
        log_format=log_format,
        http_port=http_port,
    )
    logs.configure(settings.log_level, settings.log_format)
    try:
        code = asyncio.run(serve(settings, daemon=daemon))
    except ConfigurationError as error:
        _fail(error, EXIT_USAGE)
    except KeyboardInterrupt:
        code = 130
    raise typer.Exit(code)


@app.command(name="check-config")
def check_config(config: Config = None) -> None:
    """Print the effective settings, without secrets, or say what is wrong with them."""
    settings = _load(config)
    sys.stdout.write(json.dumps(settings.public(), indent=2) + "\n")


@app.command()
def version() -> None:
    """Print the version."""
    sys.stdout.write(f"jitsi-bot {__version__}\n")


async def serve(settings: Settings, *, daemon: bool) -> int:
    """Run the participants of ``settings`` to their end; returns the exit code.

    SIGTERM and SIGINT make them leave; a second one ends the process at once.
    """
    metrics = Metrics()

    def emit(event: events.Event) -> None:
        logs.log_event(event)
        metrics.on_event(event)

    supervisor = Supervisor(expand(settings), _participant, emit, restart=daemon, cool_down=settings.cool_down)
    server = HealthServer(settings.http_host, settings.http_port, ready=lambda: supervisor.ready, metrics=metrics)
    if daemon:
        await server.start()
    with_signals = _catch_signals(supervisor)
    timer = _stop_after(settings.duration, supervisor)
    try:
        await supervisor.run()
    finally:
        timer()
        with_signals()
        await server.stop()
    return EXIT_NOT_JOINED if supervisor.errors else EXIT_OK


def _participant(config: ParticipantConfig, emit: events.EventSink) -> Participant:
    return Participant(config, emit=emit)


def _stop_after(seconds: float, supervisor: Supervisor) -> Callable[[], None]:
    if not seconds:
        return lambda: None
    return asyncio.get_running_loop().call_later(seconds, supervisor.stop).cancel


def _catch_signals(supervisor: Supervisor) -> Callable[[], None]:
    """The first signal stops, the second one falls back to what the system does: it ends the process."""
    loop = asyncio.get_running_loop()
    caught = (signal.SIGTERM, signal.SIGINT)

    def release() -> None:
        for item in caught:
            with suppress(ValueError, RuntimeError, NotImplementedError):
                loop.remove_signal_handler(item)

    def first() -> None:
        release()
        signal.signal(signal.SIGINT, signal.SIG_DFL)
        supervisor.stop()

    for item in caught:
        with suppress(ValueError, RuntimeError, NotImplementedError):
            loop.add_signal_handler(item, first)
    return release


def main() -> None:
    """Entry point of ``jitsi-bot`` and ``python -m bot``."""
    app()
