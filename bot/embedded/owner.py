"""Owners of what runs beside: tasks that end with their owner, and an alarm for the pure cores' deadlines."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine

import structlog

log = structlog.get_logger(__name__)


class Tasks:
    """Tasks that belong together. An error in one is logged, and ends no other."""

    def __init__(self) -> None:
        self._tasks: set[asyncio.Task[None]] = set()
        self._closed = False

    def spawn(self, work: Coroutine[object, object, None], name: str) -> asyncio.Task[None] | None:
        """Run ``work`` beside; None, and not run, once closed."""
        if self._closed:
            work.close()
            return None
        task = asyncio.create_task(work, name=name)
        self._tasks.add(task)
        task.add_done_callback(self._done)
        return task

    def _done(self, task: asyncio.Task[None]) -> None:
        self._tasks.discard(task)
        if not task.cancelled() and (error := task.exception()) is not None:
            log.error("A task failed", event_name="embedded_task_failed", task=task.get_name(), exc_info=error)

    async def close(self) -> None:
        """Cancel all and wait until they have ended; may be called twice."""
        self._closed = True
        tasks = [task for task in self._tasks if task is not asyncio.current_task()]
        for task in tasks:
            task.cancel()
        if tasks:
            await asyncio.wait(tasks)


class Alarm:
    """Calls ``tick`` when ``next_deadline`` says so; ``arm`` after every change. Deadlines are of ``clock``."""

    def __init__(
        self,
        next_deadline: Callable[[], float | None],
        tick: Callable[[], None],
        clock: Callable[[], float],
    ) -> None:
        self._next_deadline = next_deadline
        self._tick = tick
        self._clock = clock
        self._handle: asyncio.TimerHandle | None = None

    def arm(self) -> None:
        """Set the timer for the next deadline, if there is one."""
        self.cancel()
        deadline = self._next_deadline()
        if deadline is not None:
            delay = max(0.0, deadline - self._clock())
            self._handle = asyncio.get_running_loop().call_later(delay, self._ring)

    def _ring(self) -> None:
        self._handle = None
        self._tick()
        self.arm()

    def cancel(self) -> None:
        """Stop the timer."""
        if self._handle is not None:
            self._handle.cancel()
            self._handle = None
