"""The process whose CPU time is measured: participants with their media. The bridge is in other processes."""

from __future__ import annotations

import asyncio
import logging
import os
import re
import sys
import time
import traceback
import xml.etree.ElementTree as ET
from contextlib import suppress
from pathlib import Path

import structlog

from bench.carriers import Carrier, engine_clips, make_carrier
from bench.joining import measure_joins
from bench.link import PeerLink
from bench.messages import Accept, Failed, FarView, Job, Joined, JoinJob, Look, Measured, Open, Window
from bench.peer import allow_many_sockets, come_first
from bot.clips.model import Clip
from bot.engine.pacer import running_pacer
from bot.jingle.codec import build_jingle, parse_jingle
from bot.jingle.model import Action, Content, Jingle
from bot.service.child import Parent
from bot.service.loops import run

#: Participants that connect at the same time.
JOINING = 8


async def measure(job: Job, parent: Parent) -> Measured:
    """Let the participants join, then measure window by window. Raises PeerError or a BotError."""
    links = [await PeerLink.connect(path) for path in job.peers]
    began, cpu = time.monotonic(), time.process_time()
    carriers = await _join_all(job, links)
    joined = Joined(seconds=time.monotonic() - began, cpu=time.process_time() - cpu)
    parent.send(joined)
    await asyncio.sleep(job.warm_up)
    running_pacer().lateness.reset()
    await _look(links)
    windows = [await _window(job, carriers, links) for _ in range(job.windows)]
    return Measured(
        windows=tuple(windows),
        memory=memory(),
        join_seconds=joined.seconds,
        join_cpu=joined.cpu,
        notes=notes(),
    )


async def _join_all(job: Job, links: list[PeerLink]) -> list[Carrier]:
    gate = asyncio.Semaphore(JOINING)
    clips = await engine_clips(job)

    async def one(number: int) -> Carrier:
        async with gate:
            return await _join(job, clips, number, links[number % len(links)])

    return list(await asyncio.gather(*(one(number) for number in range(job.participants))))


async def _join(job: Job, clips: tuple[Clip, ...], number: int, link: PeerLink) -> Carrier:
    endpoint = f"{job.prefix}{number:07x}"
    sampled = job.publish and number < job.sampled
    text: str = await link.ask(Open(endpoint=endpoint, streams=job.streams, sampled=sampled))
    carrier = make_carrier(job, parse_jingle(ET.fromstring(text)), endpoint, clips)  # noqa: S314 -- from our own peer
    accept = Accept(endpoint=endpoint, jingle=await _answer(endpoint, carrier))
    await asyncio.gather(link.ask(accept), carrier.connect())
    return carrier


async def _answer(endpoint: str, carrier: Carrier) -> str:
    """The part of a session-accept that the peer looks at."""
    transport = await carrier.gather()
    contents = (Content("audio", "audio", transport=transport), Content("video", "video", transport=transport))
    answer = Jingle(
        Action.SESSION_ACCEPT, endpoint, contents=contents, bundle=("audio", "video"), sources=carrier.sources
    )
    return ET.tostring(build_jingle(answer), encoding="unicode")


async def _look(links: list[PeerLink]) -> tuple[FarView, ...]:
    return tuple(await asyncio.gather(*(link.ask(Look()) for link in links)))


async def _window(job: Job, carriers: list[Carrier], links: list[PeerLink]) -> Window:
    before = _counts(carriers)
    began, cpu = time.monotonic(), time.process_time()
    await asyncio.sleep(job.window)
    spent, seconds = time.process_time() - cpu, time.monotonic() - began
    sent, received, decoded = (now - then for now, then in zip(_counts(carriers), before, strict=True))
    far = await _look(links)
    return Window(seconds=seconds, cpu=spent, sent=sent, received=received, decoded=decoded, far=far)


def _counts(carriers: list[Carrier]) -> tuple[int, int, int]:
    return (
        sum(item.sent for item in carriers),
        sum(item.received for item in carriers),
        sum(item.decoded for item in carriers),
    )


def memory() -> int:
    """Bytes of this process: proportional set size, so that what is shared with others counts in part."""
    found = re.search(
        r"^Pss:\s+(\d+) kB", Path("/proc/self/smaps_rollup").read_text(encoding="ascii"), re.MULTILINE
    )
    if found is None:
        raise OSError("the kernel tells no proportional set size")
    return int(found[1]) * 1024


def notes() -> dict[str, float]:
    """What the engine's pacer tells of itself, and the priority that the process has (-20 goes first)."""
    pacer = running_pacer()
    late = pacer.lateness
    return {
        "pacer_late_p50_ms": late.percentile(0.5) * 1000 if late.count else 0.0,
        "pacer_late_p99_ms": late.percentile(0.99) * 1000 if late.count else 0.0,
        "pacer_skips": pacer.skips,
        "pacer_faults": pacer.faults,
        "priority": os.getpriority(os.PRIO_PROCESS, 0),
    }


async def _work(job: Job | JoinJob, parent: Parent) -> None:
    try:
        parent.send(await (measure_joins(job) if isinstance(job, JoinJob) else measure(job, parent)))
    except Exception as error:  # noqa: BLE001 -- whoever started us tells it
        parent.send(Failed(reason="".join(traceback.format_exception(error))))


async def _main() -> None:
    parent = await Parent.connect()
    job: Job | JoinJob = await parent.receive()
    working = asyncio.create_task(_work(job, parent), name="work")
    with suppress(EOFError):
        await parent.receive()  # whoever started us ends us
    working.cancel()
    # What is still open goes with the process: closing hundreds of sessions, and waiting for the threads of
    # aiortc's decoders, would measure nothing.
    os._exit(0)


def main() -> None:
    """Do one job and wait for the end."""
    structlog.configure(
        logger_factory=structlog.PrintLoggerFactory(sys.stderr),
        wrapper_class=structlog.make_filtering_bound_logger(logging.WARNING),
    )
    allow_many_sockets()
    come_first()
    run(_main())
