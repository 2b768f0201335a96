"""Starts the processes of a case, and brings back what the one under test measured."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import replace
from typing import Any

from bench.messages import Failed, Job, JoinJob, JoinMeasured, Listening, Measured
from bot.service.child import ChildProcess

#: Seconds that a case may take.
CASE_TIMEOUT = 60.0


class CaseError(RuntimeError):
    """A case that gave no number."""


class _Child:
    """One process, and the first message of each kind that is waited for."""

    def __init__(self, module: str) -> None:
        self._heard: asyncio.Queue[Any] = asyncio.Queue()
        self.process = ChildProcess(module, self._heard.put_nowait)
        self.module = module

    async def run(self) -> None:
        """Until it ends."""
        code = await self.process.run()
        self._heard.put_nowait(Failed(reason=f"{self.module} ended with code {code}"))

    async def hear(self, *kinds: type) -> Any:
        """The next message of one of ``kinds``. Raises CaseError when it failed."""
        while True:
            message = await self._heard.get()
            if isinstance(message, kinds):
                return message
            if isinstance(message, Failed):
                raise CaseError(message.reason)


@asynccontextmanager
async def child(module: str) -> AsyncIterator[_Child]:
    """A process that runs ``module`` while the context lasts."""
    found = _Child(module)
    await found.process.start()
    running = asyncio.create_task(found.run(), name=module)
    try:
        yield found
    finally:
        running.cancel()
        await asyncio.wait([running])


async def _measure(job: Job) -> Measured:
    """One process under test with a peer of its own. Raises CaseError."""
    async with child("bench.peer") as peer:
        listening: Listening = await peer.hear(Listening)
        async with child("bench.under_test") as subject:
            subject.process.send(replace(job, peers=(listening.path,)))
            measured: Measured = await subject.hear(Measured)
            return measured


async def run_job(job: Job, processes: int) -> tuple[Measured, ...]:
    """Run ``job`` in so many processes at once. Raises CaseError."""
    jobs = [replace(job, prefix=f"{number:x}") for number in range(processes)]
    try:
        async with asyncio.timeout(CASE_TIMEOUT):
            return tuple(await asyncio.gather(*map(_measure, jobs)))
    except TimeoutError:
        raise CaseError(f"nothing came within {CASE_TIMEOUT:g} s") from None


async def run_joins(job: JoinJob) -> JoinMeasured:
    """Let participants join an embedded server in another process. Raises CaseError."""
    try:
        async with asyncio.timeout(CASE_TIMEOUT), child("bench.server") as server:
            listening: Listening = await server.hear(Listening)
            async with child("bench.under_test") as subject:
                subject.process.send(replace(job, url=listening.path))
                measured: JoinMeasured = await subject.hear(JoinMeasured)
                return measured
    except TimeoutError:
        raise CaseError(f"nothing came within {CASE_TIMEOUT:g} s") from None
