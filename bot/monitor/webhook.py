"""Tells a URL of each change of state: signed, in order, tried again, and never in the way of the probe."""

from __future__ import annotations

import asyncio
import json
import time
from collections.abc import Awaitable, Callable

import aiohttp
import structlog
from tenacity import AsyncRetrying, retry_if_exception_type, stop_after_attempt, wait_exponential

from bot.monitor.changes import Change
from bot.service.signing import may_succeed_later, signed_headers

log = structlog.get_logger(__name__)

#: Changes that wait for a receiver that is down; the oldest give way beyond it.
WAITING = 100
ATTEMPTS = 6
TIMEOUT = 10.0


class _NotTakenError(Exception):
    """The receiver did not answer with 2xx, and may do so later."""


class WebHook:
    """Sends changes to ``url``, one by one. ``start``, then ``tell``; ``close`` waits for the last ones."""

    def __init__(
        self,
        url: str,
        secret: str | None = None,
        *,
        sleep: Callable[[float], Awaitable[None]] = asyncio.sleep,
        wall: Callable[[], float] = time.time,
    ) -> None:
        self._url = url
        self._secret = secret
        self._sleep = sleep
        self._wall = wall
        self._queue: asyncio.Queue[Change] = asyncio.Queue(WAITING)
        self._task: asyncio.Task[None] | None = None

    def start(self) -> None:
        """Begin to send."""
        self._task = asyncio.create_task(self._run(), name="web-hook")

    def tell(self, change: Change) -> None:
        """Send ``change`` after those before it."""
        if self._queue.full():
            self._queue.get_nowait()
            self._queue.task_done()
            log.warning("A change was not told: too many wait", event_name="webhook_dropped")
        self._queue.put_nowait(change)

    async def close(self, timeout: float = 5.0) -> None:
        """Send what waits, ``timeout`` seconds at most; may be called twice."""
        task, self._task = self._task, None
        if task is None:
            return
        waiting = asyncio.ensure_future(self._queue.join())
        await asyncio.wait({waiting, task}, timeout=timeout, return_when=asyncio.FIRST_COMPLETED)
        for item in (waiting, task):
            item.cancel()
        await asyncio.gather(waiting, task, return_exceptions=True)

    async def _run(self) -> None:
        async with aiohttp.ClientSession(timeout=aiohttp.ClientTimeout(total=TIMEOUT)) as http:
            while True:
                change = await self._queue.get()
                try:
                    await self._send(http, change)
                except (_NotTakenError, aiohttp.ClientError, OSError, TimeoutError) as error:
                    cause = str(error) or type(error).__name__
                    log.warning("The web-hook was not told", event_name="webhook_failed", cause=cause)
                finally:
                    self._queue.task_done()

    async def _send(self, http: aiohttp.ClientSession, change: Change) -> None:
        content = change.as_dict()
        body = json.dumps(content, separators=(",", ":")).encode()
        async for attempt in AsyncRetrying(
            stop=stop_after_attempt(ATTEMPTS),
            wait=wait_exponential(multiplier=1.0, max=30.0),
            retry=retry_if_exception_type((_NotTakenError, aiohttp.ClientError, OSError, TimeoutError)),
            sleep=self._sleep,
            reraise=True,
        ):
            with attempt:
                await self._post(http, body, str(content["id"]))

    async def _post(self, http: aiohttp.ClientSession, body: bytes, identity: str) -> None:
        headers = signed_headers(body, identity, self._secret, self._wall())
        async with http.post(self._url, data=body, headers=headers, allow_redirects=False) as response:
            if may_succeed_later(response.status):
                raise _NotTakenError(f"HTTP {response.status}")
            if response.status >= 300:  # what is refused once is refused again
                log.warning("The web-hook refuses", event_name="webhook_refused", status=response.status)
