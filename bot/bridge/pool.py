"""The threads that decode, one pool for a process, and the memory that decoding may take."""

from __future__ import annotations

import asyncio
import os
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from threading import Lock
from typing import TypeVar

#: Threads of the process at most; a 640x360 VP8 frame takes half a millisecond of one.
MAX_THREADS = 8
#: Most pixels of a picture that is decoded, a screen of 5120x2880: twenty bytes can claim 268 million.
MAX_PIXELS = 5120 * 2880
#: Pixels of the pictures of all streams together, 128 of 1280x720. A decoder keeps up to ten pictures of its
#: stream, at one and a half bytes a pixel.
POOL_PIXELS = 8 * MAX_PIXELS
#: Bytes of the encoded frames of all streams that wait for a thread.
POOL_BYTES = 128 * 1024 * 1024

_Result = TypeVar("_Result")


class Budget:
    """So much of something for all who take of it, from any thread."""

    def __init__(self, limit: int) -> None:
        self.limit = limit
        self.used = 0
        self._lock = Lock()

    def __repr__(self) -> str:
        return f"<Budget {self.used} of {self.limit}>"

    def take(self, count: int) -> bool:
        """Take ``count`` where so much is left."""
        with self._lock:
            if self.used + count > self.limit:
                return False
            self.used += count
            return True

    def give(self, count: int) -> None:
        """Give back what was taken."""
        with self._lock:
            self.used -= count


class DecodePool:
    """Threads for whoever has joined; they end with the last that leaves.

    Its queue is first come, first served and not bounded itself: each stream has one turn of a few frames in it at
    most, so that all streams get the same share and none waits for more than a turn of each other.
    """

    def __init__(
        self, threads: int | None = None, *, pixels: int = POOL_PIXELS, waiting: int = POOL_BYTES
    ) -> None:
        self.threads = threads or min(MAX_THREADS, _cores())
        self.pixels = Budget(pixels)
        self.waiting = Budget(waiting)
        self._users = 0
        self._executor: ThreadPoolExecutor | None = None
        self._lock = Lock()

    def __repr__(self) -> str:
        return f"<DecodePool {self.threads} threads {self._users} users {self.pixels!r} {self.waiting!r}>"

    def join(self) -> None:
        """Begin to use the pool."""
        with self._lock:
            self._users += 1

    def leave(self) -> None:
        """End using it; nothing that was begun by ``run`` may be open."""
        with self._lock:
            self._users -= 1
            if self._users or self._executor is None:
                return
            executor, self._executor = self._executor, None
        executor.shutdown(wait=False)  # its threads have nothing left to do

    def run(self, function: Callable[..., _Result], *args: object) -> asyncio.Future[_Result]:
        """Call ``function`` in a thread when its turn comes; the result comes to the running loop."""
        with self._lock:
            if self._executor is None:
                self._executor = ThreadPoolExecutor(self.threads, thread_name_prefix="decode")
            return asyncio.get_running_loop().run_in_executor(self._executor, function, *args)


def _cores() -> int:
    """Cores that this process may use."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


#: The pool of this process.
POOL = DecodePool()
