"""A child process with a share of the participants, started by ``processes``."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass

from bot import logs
from bot.bridge.streams import RemoteStream
from bot.events import Event
from bot.participant.config import ParticipantConfig
from bot.participant.participant import Participant, Traffic
from bot.participant.states import State
from bot.service.child import Parent, attended
from bot.service.loops import run as run_loop
from bot.service.supervisor import Supervisor


@dataclass(frozen=True, slots=True)
class Start:
    """What a worker is to run; ``interval`` is the time between two reports in seconds, 0 is none."""

    configs: tuple[ParticipantConfig, ...]
    restart: bool
    cool_down: float
    interval: float
    log_level: str
    log_format: logs.LogFormat


@dataclass(frozen=True, slots=True)
class Stop:
    """Everybody is to leave."""


@dataclass(frozen=True, slots=True)
class Happened:
    """A participant reports an event."""

    event: Event


@dataclass(frozen=True, slots=True)
class View:
    """Where one participant stands."""

    state: State
    in_room: bool
    traffic: Traffic
    streams: tuple[RemoteStream, ...]


@dataclass(frozen=True, slots=True)
class Views:
    """Where the participants of a worker stand, by their place in ``Start.configs``."""

    of: dict[int, View]


def view(participant: Participant) -> View:
    """Where ``participant`` stands now."""
    return View(participant.state, participant.in_room, *participant.sample())


async def work() -> None:
    """Run what the parent says until it says stop, or is gone."""
    parent = await Parent.connect()
    start = await parent.receive()
    assert isinstance(start, Start)
    logs.configure(start.log_level, start.log_format)
    supervisor = Supervisor(
        start.configs,
        lambda config, emit: Participant(config, emit=emit),
        lambda event: parent.send(Happened(event)),
        restart=start.restart,
        cool_down=start.cool_down,
    )
    try:
        await attended(supervisor.run(), _obey(parent, supervisor), _tell(parent, supervisor, start.interval))
    finally:
        parent.send(_views(supervisor))
        await parent.close()


async def _obey(parent: Parent, supervisor: Supervisor[Participant]) -> None:
    async for _ in parent.orders(Stop):
        pass
    supervisor.stop()


async def _tell(parent: Parent, supervisor: Supervisor[Participant], interval: float) -> None:
    seen: dict[int, bool] = {}
    elapsed = 0.0
    while True:
        await asyncio.sleep(_STEP)
        elapsed += _STEP
        now = {index: item.in_room for index, item in supervisor.current.items()}
        if now != seen or (interval and elapsed >= interval):
            seen, elapsed = now, 0.0
            parent.offer(_views(supervisor))


#: Who stands in a room is told within this time (seconds): readiness hangs on it.
_STEP = 0.25


def _views(supervisor: Supervisor[Participant]) -> Views:
    return Views({index: view(item) for index, item in supervisor.current.items()})


def main() -> None:
    """What the process runs."""
    run_loop(work())
