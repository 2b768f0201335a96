"""What a join costs: whole participants, signalling included, and the server in another process."""

from __future__ import annotations

import asyncio
import time

from bench.messages import JoinJob, JoinMeasured
from bot import events
from bot.participant.config import ParticipantConfig, expand
from bot.participant.participant import Participant
from bot.settings import load

_TIMEOUT = 60.0
#: Seconds between two joins: a ramp, not a crowd.
_PAUSE = 0.1


class _Connected:
    """When each participant was connected. An event sink for all of them."""

    def __init__(self, expected: int) -> None:
        self.times: list[float] = []
        self._expected = expected
        self.all = asyncio.Event()

    def on_event(self, event: events.Event) -> None:
        if isinstance(event, events.MediaConnected):
            self.times.append(time.monotonic())
            if len(self.times) == self._expected:
                self.all.set()


def join_configs(job: JoinJob) -> list[ParticipantConfig]:
    """The participants, ``room_size`` to a room, and before them those of one more room."""
    configs: list[ParticipantConfig] = []
    while (left := job.participants + job.room_size - len(configs)) > 0:
        settings = load(
            None,
            ws_url=job.url,
            room=f"bench-{len(configs)}",
            bots=min(job.room_size, left),
            ice_addresses=("127.0.0.1",),
            media_engine="shared",
        )
        configs += expand(settings)
    return configs


async def measure_joins(job: JoinJob) -> JoinMeasured:
    """Join all, one after another; raises a BotError, or TimeoutError where they don't all connect.

    The first room is not counted: what is made once for a process (clips, imports) is there then.
    """
    first, rest = _Connected(job.room_size), _Connected(job.participants)
    participants = [
        Participant(config, emit=(first if number < job.room_size else rest).on_event)
        for number, config in enumerate(join_configs(job))
    ]
    async with asyncio.timeout(_TIMEOUT), asyncio.TaskGroup() as group:
        await _enter(group, participants[: job.room_size], first)
        before = await _steady(job.room_size, job.steady)
        began, cpu = time.monotonic(), time.process_time()
        await _enter(group, participants[job.room_size :], rest)
        ended, spent = time.monotonic(), time.process_time() - cpu
        steady = await _steady(len(participants), job.steady)
        for participant in participants:
            participant.stop()
    return JoinMeasured(
        participants=job.participants,
        seconds=ended - began,
        cpu=spent - before * job.room_size * (ended - began),
        stood=sum(ended - at for at in rest.times),
        steady=steady,
    )


async def _enter(group: asyncio.TaskGroup, participants: list[Participant], connected: _Connected) -> None:
    for participant in participants:
        group.create_task(participant.run(), name="participant")
        await asyncio.sleep(_PAUSE)
    await connected.all.wait()


async def _steady(participants: int, seconds: float) -> float:
    """The share of a core that each of those takes for standing in the room."""
    await asyncio.sleep(seconds / 4)  # what joining left over
    began, cpu = time.monotonic(), time.process_time()
    await asyncio.sleep(seconds)
    return (time.process_time() - cpu) / (time.monotonic() - began) / participants
