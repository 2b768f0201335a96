"""``jitsi-bot record``, ``jitsi-bot record compose`` and ``jitsi-bot record recover``."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Annotated, Any, cast, get_args

import typer
from rich.markup import escape

from bot import logs
from bot.errors import BotError, ConfigurationError
from bot.flags import setting
from bot.recording import job, voices
from bot.recording.compose_command import compose_recording
from bot.recording.compose_plan import Format, Layout
from bot.recording.delivery import finished
from bot.recording.options import JOB, RecordOptions, load_options
from bot.recording.recover import InUseError, Recovery, locked
from bot.recording.service import recover_all
from bot.service import loops
from bot.service.runner import EXIT_CODES
from bot.settings import environment_name, load
from bot.terminal import EXIT_INTERRUPTED, fail
from bot.xmpp.address import xmpp_websocket_url

app = typer.Typer(help="Record a meeting: every source of every participant in files of its own.")


def _option(field: str) -> Any:
    """A flag of the same name as the option, with its twin in the environment."""
    item = RecordOptions.model_fields[field]
    variable = environment_name(f"{JOB}_{field}")
    flag = f"--{field.replace('_', '-')}"
    default = f" [default: {item.default}]" if item.default is not None else ""
    return typer.Option(
        f"{flag}/--no-{field.replace('_', '-')}" if item.annotation is bool else flag,
        help=escape(f"{item.description}{default} [env: {variable}]"),
        show_default=False,
    )


@app.callback(invoke_without_command=True)
def record(
    context: typer.Context,
    config: Annotated[
        Path | None,
        typer.Option("--config", "-c", help=escape("TOML file [env: JITSI_CONFIG]"), envvar="JITSI_CONFIG"),
    ] = None,
    url: Annotated[str | None, setting("ws_url", "--url")] = None,
    room: Annotated[list[str] | None, setting("room", "--room")] = None,
    name: Annotated[str | None, setting("name", "--name")] = None,
    duration: Annotated[float | None, setting("duration", "--duration")] = None,
    log_level: Annotated[str | None, setting("log_level", "--log-level")] = None,
    log_format: Annotated[str | None, setting("log_format", "--log-format")] = None,
    embedded_port: Annotated[int | None, setting("embedded_port", "--embedded-port")] = None,
    embedded: Annotated[
        bool, typer.Option("--embedded", help="Start an embedded Jitsi on loopback with two bots, and record them")
    ] = False,
    out: Annotated[Path | None, _option("out")] = None,
    start: Annotated[str | None, _option("start")] = None,
    end: Annotated[str | None, _option("end")] = None,
    standby: Annotated[bool | None, _option("standby")] = None,
    chat_commands: Annotated[bool | None, _option("chat_commands")] = None,
    max_height: Annotated[int | None, _option("max_height")] = None,
    audio_only: Annotated[bool | None, _option("audio_only")] = None,
    announcement: Annotated[str | None, _option("announcement")] = None,
    alone: Annotated[float | None, _option("alone")] = None,
    no_media: Annotated[float | None, _option("no_media")] = None,
    all_muted: Annotated[float | None, _option("all_muted")] = None,
    max_length: Annotated[float | None, _option("max_length")] = None,
    disk_soft: Annotated[int | None, _option("disk_soft")] = None,
    disk_hard: Annotated[int | None, _option("disk_hard")] = None,
    rotate_after: Annotated[float | None, _option("rotate_after")] = None,
    rotate_size: Annotated[int | None, _option("rotate_size")] = None,
    audio: Annotated[str | None, _option("audio")] = None,
    deliver_folder: Annotated[Path | None, _option("deliver_folder")] = None,
    s3_bucket: Annotated[str | None, _option("s3_bucket")] = None,
    s3_prefix: Annotated[str | None, _option("s3_prefix")] = None,
    s3_endpoint: Annotated[str | None, _option("s3_endpoint")] = None,
    hook_command: Annotated[str | None, _option("hook_command")] = None,
    webhook_url: Annotated[str | None, _option("webhook_url")] = None,
    deliver_for: Annotated[float | None, _option("deliver_for")] = None,
    remove_delivered: Annotated[bool | None, _option("remove_delivered")] = None,
    live: Annotated[bool | None, _option("live")] = None,
    live_layout: Annotated[Layout | None, _option("live_layout")] = None,
    live_format: Annotated[Format | None, _option("live_format")] = None,
    live_height: Annotated[int | None, _option("live_height")] = None,
) -> None:
    """Join the rooms (one --room for each), say that they are recorded, and record them to their ends."""
    if context.invoked_subcommand is not None:
        return
    given = {key: value for key, value in locals().items() if key in RecordOptions.model_fields}
    if embedded and url:
        fail(ConfigurationError("--embedded and --url exclude each other", hint="one server at a time"))
    try:
        settings = load(
            config,
            ws_url=url,
            room=room[0] if room else None,
            name=name,
            duration=duration,
            log_level=log_level,
            log_format=log_format,
            embedded_port=embedded_port,
        )
        rooms = job.chosen_rooms(settings, load_options(config, **given), room or ())
        for chosen in () if embedded else rooms:
            xmpp_websocket_url(settings.ws_url, chosen)
    except BotError as error:
        fail(error)
    logs.configure(settings.log_level, settings.log_format)
    work = job.record_embedded if embedded else job.record
    try:
        outcome = loops.run(work(settings, rooms))
    except ConfigurationError as error:
        fail(error)
    except KeyboardInterrupt:
        raise typer.Exit(EXIT_INTERRUPTED) from None
    raise typer.Exit(EXIT_CODES[outcome])


app.command("compose")(compose_recording)


@app.command()
def recover(
    folder: Annotated[
        Path, typer.Argument(help="A recording, or the folder of many", exists=True, file_okay=False)
    ],
) -> None:
    """Make recordings whole whose recorder was killed; what was finished, or is being made, stays as it is."""
    done = recover_all(folder)
    for item in done:
        sys.stdout.write(_line(item))
    if not done:
        sys.stdout.write("nothing to recover\n")


@app.command()
def audio(
    folder: Annotated[
        Path, typer.Argument(help="A recording, or the folder of many", exists=True, file_okay=False)
    ],
    format_: Annotated[str, typer.Option("--format", help="wav or flac")] = "wav",
) -> None:
    """Make one file of each voice for transcription: 16 kHz, one channel, silence where nothing was recorded."""
    if format_ not in get_args(voices.Format):
        fail(ConfigurationError(f"--format is {' or '.join(get_args(voices.Format))}, not {format_}"))
    for item in finished(folder):
        try:
            with locked(item):
                made = voices.add(item, cast("voices.Format", format_))
        except InUseError as error:
            fail(ConfigurationError(str(error)))
        sys.stdout.write(f"{item}: {', '.join(made) or 'nobody was heard'}\n")


@app.command()
def deliver(
    folder: Annotated[
        Path, typer.Argument(help="A recording, or the folder of many", exists=True, file_okay=False)
    ],
    config: Annotated[
        Path | None,
        typer.Option("--config", "-c", help=escape("TOML file [env: JITSI_CONFIG]"), envvar="JITSI_CONFIG"),
    ] = None,
) -> None:
    """Deliver recordings that have ended and were not yet, as the settings say; those of before were, too."""
    try:
        options = load_options(config)
        settings = load(config)
        if not options.delivers:
            fail(ConfigurationError("record: no setting says where recordings are delivered to"))
        logs.configure(settings.log_level, settings.log_format)
        outcome = loops.run(job.deliver(options, folder))
    except ConfigurationError as error:
        fail(error)
    except KeyboardInterrupt:
        raise typer.Exit(EXIT_INTERRUPTED) from None
    raise typer.Exit(EXIT_CODES[outcome])


def _line(found: Recovery) -> str:
    seconds = sum(item.dropped for item in found.files.values())
    text = f"{found.folder}: {found.recovered} of {len(found.files)} files recovered, {seconds} bytes cut off\n"
    return text + "".join(f"  {name}: {why}\n" for name, why in found.unreadable.items())
