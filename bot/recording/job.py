"""Runs recorders: signals, the duration, the embedded server where asked for; and repairs what was left before."""

from __future__ import annotations

import asyncio
from collections.abc import Iterable, Sequence
from pathlib import Path

from bot import logs
from bot.errors import BotError
from bot.participant.config import expand
from bot.participant.participant import Participant
from bot.recording.delivery import finished, mark, undelivered
from bot.recording.destinations import deliverer_of
from bot.recording.options import RecordOptions
from bot.recording.service import RecordingService
from bot.service.runner import Outcome, catch_signals, embedded_server, embedded_settings
from bot.settings import Settings


def chosen_rooms(settings: Settings, options: RecordOptions, named: Sequence[str]) -> dict[str, RecordOptions]:
    """The rooms to record, with what counts for each: those that are named, else the file's, else the setting."""
    if named:
        return dict.fromkeys(named, options)
    return {spec.room: options.of_room(spec) for spec in options.rooms} or {settings.room: options}


async def record(settings: Settings, rooms: dict[str, RecordOptions]) -> Outcome:
    """Record rooms to their ends; what a crash left in their folders before is repaired first.

    Raises ConfigurationError where a recorder can't be started.
    """
    service = RecordingService(settings, next(iter(rooms.values())), emit=logs.log_event)
    async with service:
        await service.resume(*{options.out for options in rooms.values()})
        release = catch_signals(service.stop_all)
        loop = asyncio.get_running_loop()
        timer = loop.call_later(settings.duration, service.stop_all, "duration") if settings.duration else None
        try:
            for room, options in rooms.items():
                service.start(room, options=options)
            await service.wait()
        finally:
            release()
            if timer is not None:
                timer.cancel()
    return _outcome(service)


async def deliver(options: RecordOptions, root: Path) -> Outcome:
    """Deliver all recordings in ``root`` that have ended, whether that was wanted when they were made or not."""
    deliverer = deliverer_of(options, logs.log_event)
    try:
        for folder in finished(root):
            mark(folder)
        for folder in undelivered(root):
            deliverer.add(folder)
        await deliverer.drain(options.deliver_for)
    finally:
        await deliverer.close()
    return Outcome.LOST if deliverer.left else Outcome.FINE


def _outcome(service: RecordingService) -> Outcome:
    """The worst of all. Raises what is no fault of a room."""
    for error in service.errors():
        if not isinstance(error, BotError):
            raise error
    failed = [info for info in service.list() if info.state == "failed"]
    if any(not info.seconds for info in failed):
        return Outcome.NOT_JOINED
    return Outcome.LOST if failed or not service.delivered else Outcome.FINE


async def record_embedded(settings: Settings, rooms: dict[str, RecordOptions]) -> Outcome:
    """The same in an embedded server, with bots in each room that there is something to record of."""
    async with embedded_server(settings.embedded_port) as server:
        settings = embedded_settings(settings, server)
        crew = [config for room in rooms for config in expand(_bots(settings, room))]
        bots = [Participant(config, emit=lambda _: None) for config in crew]
        running = [asyncio.create_task(bot.run(), name=f"bot {bot.config.name}") for bot in bots]
        try:
            return await record(settings, rooms)
        finally:
            await _leave(bots, running)


def _bots(settings: Settings, room: str) -> Settings:
    return settings.model_copy(update={"name": "bot", "participants": (), "room": room})


async def _leave(bots: Iterable[Participant], running: Iterable[asyncio.Task[None]]) -> None:
    for bot in bots:
        bot.stop()
    await asyncio.gather(*running, return_exceptions=True)
