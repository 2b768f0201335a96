"""A child process with a share of a load run, started by ``run``: it says each second what was measured since."""

from __future__ import annotations

import asyncio
import time

from bot import logs
from bot.errors import BotError
from bot.load.crew import Crew
from bot.load.messages import Begin, Prepare, Progress, Ready, Stop
from bot.service.child import Parent, attended
from bot.service.loops import run as run_loop

#: Seconds between two reports.
INTERVAL = 1.0


async def work() -> None:
    """Run what the parent says until it is over, the parent says stop, or is gone."""
    parent = await Parent.connect()
    order = await parent.receive()
    assert isinstance(order, Prepare)
    logs.configure(order.log_level, order.log_format)
    try:
        await _work(parent, order)
    except EOFError:
        pass  # nobody is there to begin, or to hear of it
    finally:
        await parent.close()


async def _work(parent: Parent, order: Prepare) -> None:
    zero = time.monotonic()

    def clock() -> float:
        return time.monotonic() - zero

    crew = Crew(order.share, clock)
    try:
        use = await crew.prepare()
    except BotError as error:
        parent.send(Ready(str(error)))
        return
    try:
        parent.send(Ready())
        begin = await parent.receive()
        if not isinstance(begin, Begin):
            return  # stopped before it began
        zero = time.monotonic() + begin.at - time.time()
        await _run(parent, crew)
    finally:
        await use.close()


async def _run(parent: Parent, crew: Crew) -> None:
    try:
        await attended(crew.run(), _obey(parent, crew), report(parent, crew))
    finally:
        parent.send(progress(crew, last=True))


async def _obey(parent: Parent, crew: Crew) -> None:
    async for _ in parent.orders(Stop):
        pass
    crew.stop()


async def report(parent: Parent, crew: Crew) -> None:
    """Say each second what was measured, until cancelled."""
    while True:
        await asyncio.sleep(INTERVAL)
        parent.send(progress(crew))


def progress(crew: Crew, *, last: bool = False) -> Progress:
    """What there is to say of a crew."""
    measures, tally = crew.collector.take()
    return Progress(measures, tally, crew.states, crew.in_room, crew.cpu, tuple(crew.worst()), last)


def main() -> None:
    """What the process runs."""
    run_loop(work())
