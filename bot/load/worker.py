"""A child process with a share of a load run, started by ``run``: it says each second what was measured since."""

from __future__ import annotations

import asyncio
import time

from bot import logs
from bot.errors import BotError
from bot.load.crew import Crew
from bot.load.messages import Begin, Prepare, Progress, Ready, Stop
from bot.service.child import Parent
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
    asides = [
        asyncio.create_task(_obey(parent, crew), name="orders"),
        asyncio.create_task(_tell(parent, crew), name="reports"),
    ]
    try:
        await crew.run()
    finally:
        for task in asides:
            task.cancel()
        await asyncio.gather(*asides, return_exceptions=True)
        parent.send(progress(crew, last=True))


async def _obey(parent: Parent, crew: Crew) -> None:
    try:
        while not isinstance(await parent.receive(), Stop):
            pass
    except EOFError:
        pass  # nobody is there to say stop any more
    crew.stop()


async def _tell(parent: Parent, crew: Crew) -> None:
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
