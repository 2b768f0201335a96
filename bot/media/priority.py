"""Keeps encoders from taking the machine for themselves."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

_THREADS = Path("/proc/self/task")


@contextmanager
def ordinary_priority() -> Iterator[None]:
    """Take back the real-time priority that a library gives to its threads, and to the one that calls it.

    As root SVT-AV1 makes them all SCHED_FIFO with 99, before everything else on the machine; what is started from
    such a thread inherits it (sched(7)). Nothing happens where the caller had such a priority before.
    """
    if not hasattr(os, "sched_getscheduler") or os.sched_getscheduler(0) != os.SCHED_OTHER:
        yield
        return
    try:
        yield
    finally:
        for thread in _THREADS.iterdir() if _THREADS.is_dir() else ():
            with suppress(OSError):  # it has ended meanwhile
                if os.sched_getscheduler(int(thread.name)) == os.SCHED_FIFO:
                    os.sched_setscheduler(int(thread.name), os.SCHED_OTHER, os.sched_param(0))
