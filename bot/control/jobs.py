"""Jobs of the daemon: recordings, load runs, probes. Each has an id, a task, and an end."""

from __future__ import annotations

import asyncio
import time
from abc import ABC, abstractmethod
from collections.abc import Callable
from enum import StrEnum
from typing import Generic, TypeVar

import structlog

from bot.control.limits import Seat
from bot.control.model import Body
from bot.control.problems import conflict, not_found
from bot.errors import BotError

log = structlog.get_logger(__name__)


class JobState(StrEnum):
    """How far a job is."""

    RUNNING = "running"
    STOPPING = "stopping"
    DONE = "done"
    FAILED = "failed"


class Job(ABC):
    """Something that runs until its end, or until it is told to stop. Times are Unix seconds."""

    def __init__(self, name: str, spec: Body, *, wall: Callable[[], float] = time.time) -> None:
        self.id = name
        self.spec = spec
        self.state = JobState.RUNNING
        self.began = wall()
        self.ended: float | None = None
        self.error: tuple[str, str] | None = None
        self._wall = wall

    def __repr__(self) -> str:
        return f"<{type(self).__name__} {self.id}: {self.state}>"

    @property
    def over(self) -> bool:
        """Whether it has ended."""
        return self.state in {JobState.DONE, JobState.FAILED}

    @abstractmethod
    async def work(self) -> None:
        """Do it. Raises BotError for what keeps it from being done."""

    @abstractmethod
    def halt(self) -> None:
        """Let ``work`` come to its end."""

    def stop(self) -> None:
        """End it; what has ended stays as it is."""
        if self.state is JobState.RUNNING:
            self.state = JobState.STOPPING
            self.halt()

    async def run(self) -> None:
        """Do it, and keep how it ended: nothing of its failure touches others."""
        try:
            await self.work()
        except BotError as error:
            self._failed(error.code, str(error))
        except Exception as error:
            log.exception("A job failed", event_name="job_failed", job=self.id)
            self._failed("internal", type(error).__name__)
        except asyncio.CancelledError:
            self._failed("cancelled", "it did not end in time")
            raise
        else:
            self.state = JobState.DONE
        finally:
            self.ended = self._wall()

    def _failed(self, code: str, cause: str) -> None:
        self.state, self.error = JobState.FAILED, (code, cause)


J = TypeVar("J", bound=Job)


class Book(Generic[J]):
    """The jobs of one kind by id, and their tasks. ``kind`` is what a refusal calls them."""

    def __init__(self, kind: str) -> None:
        self._kind = kind
        self._jobs: dict[str, J] = {}
        self._tasks: dict[str, asyncio.Task[None]] = {}

    def __repr__(self) -> str:
        return f"<Book of {len(self._jobs)} {self._kind}s>"

    @property
    def jobs(self) -> tuple[J, ...]:
        """All of them, the oldest first."""
        return tuple(self._jobs.values())

    def known(self, name: str, spec: Body) -> J | None:
        """The job of this id that is already there. Raises RequestError where it is another one."""
        found = self._jobs.get(name)
        if found is not None and found.spec != spec:
            raise conflict("exists", f"the {self._kind} {name} exists, and is another one")
        return found

    def get(self, name: str) -> J:
        """The job of this id. Raises RequestError."""
        if name not in self._jobs:
            raise not_found(f"{self._kind} {name}")
        return self._jobs[name]

    def __contains__(self, name: str) -> bool:
        return name in self._jobs

    def start(self, job: J, seat: Seat) -> J:
        """Let it run; its seats are free when it has ended."""
        self._jobs[job.id] = job
        task = self._tasks[job.id] = asyncio.create_task(job.run(), name=f"{self._kind} {job.id}")
        task.add_done_callback(lambda _: seat.free())
        return job

    def forget(self, name: str) -> None:
        """Forget a job that has ended; its files stay. Raises RequestError for one that runs."""
        if not self.get(name).over:
            raise conflict("running", f"the {self._kind} {name} has not ended")
        del self._jobs[name], self._tasks[name]

    async def close(self, timeout: float) -> bool:
        """Stop all within ``timeout`` seconds, end what has not stopped; whether all have in time."""
        for job in self.jobs:
            job.stop()
        tasks = set(self._tasks.values())
        if not tasks:
            return True
        _, late = await asyncio.wait(tasks, timeout=timeout)
        for task in late:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        return not late
