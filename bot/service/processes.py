"""The participants of a run spread over several processes: one core each, one view of them all."""

from __future__ import annotations

import asyncio
import os
from collections.abc import Iterable, Sequence

import structlog

from bot import events, logs
from bot.bridge.streams import RemoteStream
from bot.participant.config import ParticipantConfig
from bot.participant.participant import Traffic
from bot.participant.states import State
from bot.service.child import ChildProcess
from bot.service.worker import Happened, Start, Stop, View, Views

log = structlog.get_logger(__name__)

WORKER = "bot.service.worker"
_NOTHING = View(State.IDLE, in_room=False, traffic=Traffic(session=None), streams=())


def cores() -> int:
    """Cores that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def number_of_processes(wanted: int, participants: int) -> int:
    """How many to start for so many participants; ``wanted`` 0 is one for each core."""
    return max(1, min(wanted or cores(), participants))


class RemoteParticipant:
    """A participant of another process, as it was last told."""

    def __init__(self, config: ParticipantConfig) -> None:
        self.config = config
        self.view = _NOTHING

    def __repr__(self) -> str:
        return f"<RemoteParticipant {self.config.name} in {self.config.room}: {self.state}>"

    @property
    def state(self) -> State:
        """Where it stands."""
        return self.view.state

    @property
    def in_room(self) -> bool:
        """Whether the room has it among its occupants."""
        return self.view.in_room

    @property
    def traffic(self) -> Traffic:
        """What its present media session has moved."""
        return self.view.traffic

    @property
    def streams(self) -> tuple[RemoteStream, ...]:
        """What it receives of each remote source."""
        return self.view.streams

    def sample(self) -> tuple[Traffic, tuple[RemoteStream, ...]]:
        """``traffic`` and ``streams`` of one moment."""
        return self.view.traffic, self.view.streams


class ProcessPool:
    """Runs participants as :class:`bot.service.supervisor.Supervisor` does, in ``count`` processes.

    A process that dies takes its participants with it, and no others: each is reported as failed. With ``restart``
    it is started anew after ``cool_down`` seconds.
    """

    def __init__(
        self,
        configs: Iterable[ParticipantConfig],
        emit: events.EventSink,
        *,
        count: int,
        restart: bool,
        cool_down: float,
        interval: float,
        log_level: str = "info",
        log_format: logs.LogFormat = "json",
    ) -> None:
        self.participants: Sequence[RemoteParticipant] = tuple(RemoteParticipant(config) for config in configs)
        self._shares = [self.participants[start::count] for start in range(count)]
        self._emit = emit
        self._restart = restart
        self._cool_down = cool_down
        self._interval = interval
        self._log_level = log_level
        self._log_format: logs.LogFormat = log_format
        self._children: set[ChildProcess] = set()
        self._stopping = asyncio.Event()

    def __repr__(self) -> str:
        return f"<ProcessPool of {len(self._shares)} with {self.expected} participants, {self.in_room} in rooms>"

    @property
    def expected(self) -> int:
        """How many participants there shall be."""
        return len(self.participants)

    @property
    def in_room(self) -> int:
        """How many are visible in their rooms."""
        return sum(item.in_room for item in self.participants)

    @property
    def ready(self) -> bool:
        """Whether every participant stands in its room."""
        return self.in_room == self.expected > 0

    @property
    def pids(self) -> list[int]:
        """The ids of the processes that run."""
        return sorted(child.pid for child in self._children if child.pid is not None)

    def stop(self) -> None:
        """Ask all participants to leave; ``run`` returns when they have."""
        self._stopping.set()
        for child in self._children:
            child.send(Stop())

    async def run(self) -> None:
        """Run all processes until each has ended."""
        async with asyncio.TaskGroup() as group:
            for share in self._shares:
                group.create_task(self._keep(share), name="process")

    async def _keep(self, share: Sequence[RemoteParticipant]) -> None:
        while not self._stopping.is_set():
            code = await self._once(share)
            if code == 0:
                return
            self._died(share, code)
            if not self._restart:
                return
            try:
                async with asyncio.timeout(self._cool_down):
                    await self._stopping.wait()
            except TimeoutError:
                pass

    async def _once(self, share: Sequence[RemoteParticipant]) -> int:
        child = ChildProcess(WORKER, lambda message: self._take(share, message))
        await child.start()
        self._children.add(child)
        try:
            child.send(
                Start(
                    tuple(item.config for item in share),
                    self._restart,
                    self._cool_down,
                    self._interval,
                    self._log_level,
                    self._log_format,
                )
            )
            if self._stopping.is_set():
                child.send(Stop())
            return await child.run()
        finally:
            self._children.discard(child)

    def _take(self, share: Sequence[RemoteParticipant], message: object) -> None:
        match message:
            case Happened(event):
                self._emit(event)
            case Views(of):
                for index, view in of.items():
                    share[index].view = view
            case _:
                log.error("A process said what nobody understands", event_name="process_message_unknown")

    def _died(self, share: Sequence[RemoteParticipant], code: int) -> None:
        how = f"signal {-code}" if code < 0 else f"exit code {code}"
        cause = f"its process died ({how})"
        for item in share:
            room, name = item.config.room, item.config.name
            if item.in_room:
                self._emit(events.RemovedFromRoom(room=room, participant=name, code="process_died", cause=cause))
            elif item.state not in (State.LEFT, State.FAILED):
                self._emit(
                    events.JoinFailed(room=room, participant=name, code="process_died", cause=cause, attempts=0)
                )
            item.view = View(State.FAILED, in_room=False, traffic=item.traffic, streams=())
