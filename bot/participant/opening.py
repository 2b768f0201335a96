"""Who asks for a room first asks alone.

Jicofo (August 2026) answers a request that comes while it creates the conference as if the asker had to be made
a visitor, and then makes one of the first, too: a meeting of visitors only, in which nobody gets media. So those
of one process wait until the first request for their room is answered; then all ask at once.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from typing import TypeVar

T = TypeVar("T")
#: Deployment and room.
Key = tuple[str, str]
_FIRST: dict[Key, asyncio.Future[None]] = {}


async def after_the_first(
    key: Key, ask: Callable[[], Awaitable[T]], *, first: dict[Key, asyncio.Future[None]] = _FIRST
) -> T:
    """``ask``, but not while the first one to ask for ``key`` has no answer, whatever that is."""
    waited_for = first.get(key)
    if waited_for is not None:
        await asyncio.wait({waited_for})
        return await ask()
    answered = first[key] = asyncio.get_running_loop().create_future()
    try:
        return await ask()
    finally:
        del first[key]
        answered.set_result(None)
