"""Runs recorders: signals, the duration, the embedded server where asked for; and repairs what was left before."""

from __future__ import annotations

import asyncio
from collections.abc import Iterable
from pathlib import Path

import structlog

from bot import events, logs
from bot.errors import BotError
from bot.participant.config import ParticipantConfig, expand
from bot.participant.participant import Participant
from bot.recording import poster
from bot.recording.options import RecordOptions
from bot.recording.recorder import Recorder
from bot.recording.recover import InUseError, Recovery, locked, recover, unfinished
from bot.service.runner import Outcome, catch_signals, embedded_server, embedded_settings
from bot.settings import Settings

log = structlog.get_logger(__name__)

#: What a recorder is called in the room where no name is given: everybody sees what it does.
NAME = "Recorder"


def recorder_config(settings: Settings) -> ParticipantConfig:
    """The participant of a recorder: it publishes nothing and decodes nothing."""
    changes: dict[str, object] = {
        "audio": "none",
        "video": "none",
        "bots": 1,
        "participants": (),
        "decode": "none",
    }
    if "name" not in settings.model_fields_set:
        changes["name"] = NAME
    return expand(settings.model_copy(update=changes | {"receive_audio": True}))[0]


def recover_all(root: Path) -> list[Recovery]:
    """Repair every unfinished recording in ``root`` that nobody makes now."""
    found = []
    for folder in unfinished(root):
        try:
            found.append(recover(folder))
            with locked(folder):
                poster.add(folder)
        except InUseError:
            log.info("A recording is being made", event_name="recording_in_use", folder=str(folder))
        except OSError as error:
            log.warning(
                "A recording can't be recovered",
                event_name="recovery_failed",
                folder=str(folder),
                cause=error.strerror,
            )
    return found


async def record(settings: Settings, options: RecordOptions) -> Outcome:
    """Record the room of ``settings`` to the end; what a crash left in the folder before is repaired first."""
    config = recorder_config(settings)
    for done in await asyncio.to_thread(recover_all, options.out):
        logs.log_event(
            events.RecordingRecovered(
                room=config.room, participant=config.name, folder=str(done.folder), files=done.recovered
            )
        )
    recorder = Recorder(config, options, emit=logs.log_event)
    release = catch_signals(recorder.stop)
    loop = asyncio.get_running_loop()
    timer = loop.call_later(settings.duration, recorder.stop, "duration") if settings.duration else None
    try:
        await recorder.run()
    except BotError:
        return Outcome.LOST if recorder.session.manifest.duration else Outcome.NOT_JOINED
    finally:
        release()
        if timer is not None:
            timer.cancel()
    return Outcome.FINE


async def record_embedded(settings: Settings, options: RecordOptions) -> Outcome:
    """The same in an embedded server, with bots that there is something to record of."""
    async with embedded_server(settings.embedded_port) as server:
        settings = embedded_settings(settings, server)
        bots = [Participant(config, emit=lambda _: None) for config in expand(_bots(settings))]
        running = [asyncio.create_task(bot.run(), name=f"bot {bot.config.name}") for bot in bots]
        try:
            return await record(settings, options)
        finally:
            await _leave(bots, running)


def _bots(settings: Settings) -> Settings:
    return settings.model_copy(update={"name": "bot", "participants": ()})


async def _leave(bots: Iterable[Participant], running: Iterable[asyncio.Task[None]]) -> None:
    for bot in bots:
        bot.stop()
    await asyncio.gather(*running, return_exceptions=True)
