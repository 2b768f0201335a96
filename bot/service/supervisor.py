"""Keeps participants alive: a cycle that ends without success is begun anew after a cool-down."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Iterable
from typing import Generic, Protocol, TypeVar

from bot.errors import BotError
from bot.events import CoolDown, EventSink
from bot.participant.config import ParticipantConfig

Sleep = Callable[[float], Awaitable[None]]


class Runnable(Protocol):
    """The part of a participant that the supervisor needs."""

    @property
    def in_room(self) -> bool:
        """Whether the participant is in its room."""
        ...

    async def run(self) -> None:
        """Live until ``stop``; raises BotError on a final failure."""
        ...

    def stop(self) -> None:
        """Leave."""
        ...


R = TypeVar("R", bound=Runnable)


class Supervisor(Generic[R]):
    """Runs every participant in a task of its own.

    ``restart`` False (one-shot commands): the first error of a participant ends it, and ``errors`` keeps it.
    ``restart`` True (the daemon): after ``cool_down`` seconds a new cycle begins, whatever the error was, since
    what no retry of this minute can mend (a password, a certificate) may be mended in the next hour.
    """

    def __init__(
        self,
        configs: Iterable[ParticipantConfig],
        factory: Callable[[ParticipantConfig, EventSink], R],
        emit: EventSink,
        *,
        restart: bool,
        cool_down: float,
        sleep: Sleep = asyncio.sleep,
    ) -> None:
        self._configs = tuple(configs)
        self._factory = factory
        self._emit = emit
        self._restart = restart
        self._cool_down = cool_down
        self._sleep = sleep
        self._stopping = asyncio.Event()
        self._current: dict[int, R] = {}
        #: The last error of each participant that failed, by its index.
        self.errors: dict[int, BotError] = {}

    def __repr__(self) -> str:
        return f"<Supervisor of {len(self._configs)} participants, {self.in_room} in their rooms>"

    @property
    def participants(self) -> tuple[R, ...]:
        """The participants of now."""
        return tuple(self._current[index] for index in sorted(self._current))

    @property
    def current(self) -> dict[int, R]:
        """The participants of now, by the place of their configuration."""
        return dict(self._current)

    @property
    def expected(self) -> int:
        """How many participants there shall be."""
        return len(self._configs)

    @property
    def in_room(self) -> int:
        """How many are visible in their rooms."""
        return sum(item.in_room for item in self._current.values())

    @property
    def ready(self) -> bool:
        """Whether every participant stands in its room. Waiting for peers or for the focus is ready."""
        return self.in_room == self.expected > 0

    def stop(self) -> None:
        """Ask all participants to leave; ``run`` returns when they have."""
        self._stopping.set()
        for item in self._current.values():
            item.stop()

    async def run(self) -> None:
        """Run all participants until each has ended."""
        async with asyncio.TaskGroup() as group:
            for index, config in enumerate(self._configs):
                group.create_task(self._keep(index, config), name=f"participant {config.name}")

    async def _keep(self, index: int, config: ParticipantConfig) -> None:
        while not self._stopping.is_set():
            self._current[index] = participant = self._factory(config, self._emit)
            try:
                await participant.run()
            except BotError as error:
                self.errors[index] = error
            else:
                self.errors.pop(index, None)
                return
            if not self._restart:
                return
            self._emit(CoolDown(room=config.room, participant=config.name, delay=self._cool_down))
            await self._rest()

    async def _rest(self) -> None:
        """Wait for the cool-down to pass or for ``stop``."""
        rest = asyncio.ensure_future(self._sleep(self._cool_down))
        stop = asyncio.ensure_future(self._stopping.wait())
        try:
            await asyncio.wait({rest, stop}, return_when=asyncio.FIRST_COMPLETED)
        finally:
            for task in (rest, stop):
                task.cancel()
            await asyncio.gather(rest, stop, return_exceptions=True)
