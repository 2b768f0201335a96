"""Runs recorders: signals, the duration, the embedded server where asked for; and repairs what was left before."""

from __future__ import annotations

import asyncio
from collections.abc import Iterable, Sequence

from bot import events, logs
from bot.errors import BotError
from bot.participant.config import expand
from bot.participant.participant import Participant
from bot.recording.options import RecordOptions
from bot.recording.service import RecordingService, recover_all
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
    for out in {options.out for options in rooms.values()}:
        for done in await asyncio.to_thread(recover_all, out):
            recovered = events.RecordingRecovered(
                room=done.room, participant="", folder=str(done.folder), files=done.recovered
            )
            logs.log_event(recovered)
    async with RecordingService(settings, next(iter(rooms.values())), emit=logs.log_event) as service:
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


def _outcome(service: RecordingService) -> Outcome:
    """The worst of all. Raises what is no fault of a room."""
    for error in service.errors():
        if not isinstance(error, BotError):
            raise error
    failed = [info for info in service.list() if info.state == "failed"]
    if any(not info.seconds for info in failed):
        return Outcome.NOT_JOINED
    return Outcome.LOST if failed else Outcome.FINE


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
