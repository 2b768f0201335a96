"""The bot process beside a Locust worker: participants join and leave as its users say, without gevent."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable
from dataclasses import replace

from bot import events, logs
from bot.errors import BotError
from bot.load import seating
from bot.load.crew import Crew, configs_of, link_of
from bot.load.locust.orders import Gone, Order, Told
from bot.load.locust.seats import Seats
from bot.load.machine import raise_file_limit
from bot.load.messages import Begin, Prepare, Ready, Share, Stop
from bot.load.timetable import Action, Seat
from bot.load.worker import progress, report
from bot.participant.own import check_media
from bot.service.child import Parent, attended
from bot.service.loops import run as run_loop

#: What a user of Locust hears of its participant; the rest is in the measures.
_TOLD = (
    events.ConferenceJoined,
    events.JoinFailed,
    events.MediaConnected,
    events.MediaFailed,
    events.RemovedFromRoom,
    events.ConnectionRecovered,
    events.MediaRecovered,
)


class GuidedCrew(Crew):
    """A crew that comes and goes by orders, not by the timetable; its seats are without end.

    The first who comes decodes, and after it the next: who that is is not known before.
    """

    def __init__(self, share: Share, clock: Callable[[], float], tell: Callable[[object], None]) -> None:
        super().__init__(share, clock)
        self._orders: asyncio.Queue[Order | None] = asyncio.Queue()
        self._tell = tell
        self._endless = Seats(self._seats_of_all.seats)
        self._observers = seating.observers(self._seats_of_all.seats)
        self._sampled.clear()

    def order(self, order: Order | None) -> None:
        """Take an order; None is the last one."""
        self._orders.put_nowait(order)

    async def _act(self, group: asyncio.TaskGroup) -> None:
        while (order := await self._orders.get()) is not None:
            if order.what == "join":
                self._expect(order.seat)
            self._do(Action(self._clock(), order.seat, order.what), group)

    def _expect(self, number: int) -> None:
        """Know the seat ``number``, and let it decode where nobody present does."""
        if number not in self._seats:
            seat, place = self._endless.seat(number), self._endless.place(number)
            self._seats[number] = seat
            if link := link_of(seat, self._share.scenario.seed):
                self.links[number] = link
            self.collector.add(number, seat.room, seat.name, observer=place in self._observers)
        if self._share.decode != "none" and not self._sampled & self._present.keys():
            self._sampled = {number}

    async def _live(self, seat: Seat, before: asyncio.Task[None] | None) -> None:
        try:
            await super()._live(seat, before)
        finally:
            self._tell(Gone(seat.index))

    def _event(self, seat: int, event: events.Event) -> None:
        super()._event(seat, event)
        if isinstance(event, _TOLD):
            self._tell(Told(seat, event))


async def work() -> None:
    """Do what the worker says until it says stop, or is gone."""
    parent = await Parent.connect()
    try:
        await _work(parent)
    except EOFError:
        pass  # nobody is there to begin, or to hear of it
    finally:
        await parent.close()


async def _work(parent: Parent) -> None:
    order = await parent.receive()
    assert isinstance(order, Prepare)
    logs.configure(order.log_level, order.log_format)
    raise_file_limit()
    zero = time.monotonic()
    try:
        crew = GuidedCrew(_share(order.share), lambda: time.monotonic() - zero, parent.send)
        await asyncio.to_thread(check_media, list(configs_of(order.share).values()))
        use = await crew.prepare()
    except BotError as error:
        parent.send(Ready(str(error)))
        return
    try:
        parent.send(Ready())
        begin = await parent.receive()
        if isinstance(begin, Begin):
            zero = time.monotonic() + begin.at - time.time()
            await _run(parent, crew)
    finally:
        await use.close()


def _share(share: Share) -> Share:
    """The share as its participants need it. Raises ConfigurationError where settings and scenario don't fit."""
    settings = seating.prepare(share.settings, share.scenario)
    return replace(share, settings=settings, decode=seating.decode_of(settings, share.scenario.parsed_thresholds))


async def _run(parent: Parent, crew: GuidedCrew) -> None:
    try:
        await attended(crew.run(), _obey(parent, crew), report(parent, crew))
    finally:
        parent.send(progress(crew, last=True))


async def _obey(parent: Parent, crew: GuidedCrew) -> None:
    async for order in parent.orders(Stop):
        crew.order(order)
    crew.stop()
    crew.order(None)


def main() -> None:
    """What the process runs."""
    run_loop(work())
