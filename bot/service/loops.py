"""The event loop of a process."""

from __future__ import annotations

import asyncio
import gc
from collections.abc import Coroutine
from typing import Any, TypeVar

from bot.engine.calm import calm

try:
    import uvloop
except ImportError:  # not made for this platform
    uvloop = None  # type: ignore[assignment]

T = TypeVar("T")


def run(work: Coroutine[Any, Any, T]) -> T:
    """Run ``work`` to its end on uvloop where there is one, else on asyncio's own loop.

    What the imports made stays for ever: collections need not look at it (a third of the pauses of the pacer).
    """
    gc.collect()
    gc.freeze()
    calm.enabled = True
    with asyncio.Runner(loop_factory=uvloop.new_event_loop if uvloop is not None else None) as runner:
        return runner.run(work)
