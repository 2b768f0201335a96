"""The keep-alive URL that Jitsi's web clients poll (``websocketKeepAliveUrl``): it keeps sticky sessions alive."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from pathlib import Path

import aiohttp

from bot.xmpp.websocket import ssl_context

_TIMEOUT = aiohttp.ClientTimeout(total=10)


async def keep_alive(
    url: str | None,
    interval: float,
    on_failure: Callable[[str], None],
    *,
    ca_file: Path | None = None,
    sleep: Callable[[float], Awaitable[None]] = asyncio.sleep,
) -> None:
    """Ask for ``url`` every ``interval`` seconds until cancelled; without a URL, return at once.

    A failure is told to ``on_failure`` and changes nothing else: the call never depends on it.
    """
    if url is None:
        return
    verify = ssl_context(ca_file)
    async with aiohttp.ClientSession(timeout=_TIMEOUT) as session:
        while True:
            await sleep(interval)
            try:
                async with session.get(url, ssl=verify) as answer:
                    if answer.status >= 400:
                        on_failure(f"HTTP {answer.status}")
            except (aiohttp.ClientError, OSError, TimeoutError, ValueError) as error:
                on_failure(str(error) or type(error).__name__)
