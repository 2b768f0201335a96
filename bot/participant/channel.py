"""Keeps one bridge channel open while its media session lasts."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable

from tenacity import AsyncRetrying, RetryCallState, retry_if_exception_type, wait_exponential

from bot.bridge.channel import BridgeChannel
from bot.errors import BridgeChannelError
from bot.participant.retry import REAL_STAY, RejoinPause, Sleep

#: Longest pause in seconds between two tries; media flows meanwhile, so there is no last one.
MAX_PAUSE = 30.0


class ChannelKeeper:
    """Opens ``channel``, and again after a loss. ``run`` lasts until it is cancelled.

    ``on_open(seconds)`` hears how long it was away (0 the first time) and is the place to greet the bridge;
    ``on_lost(cause)`` hears of each loss, and of a first try that failed, once. What lived shortly is opened again
    after a ``pause``: a bridge that closes each channel soon must not be asked all the time.
    """

    def __init__(
        self,
        channel: BridgeChannel,
        *,
        on_open: Callable[[float], None],
        on_lost: Callable[[str], None],
        timeout: float,
        sleep: Sleep = asyncio.sleep,
        clock: Callable[[], float] = time.monotonic,
        pause: RejoinPause | None = None,
    ) -> None:
        self._pause = pause or RejoinPause()
        self._channel = channel
        self._on_open = on_open
        self._on_lost = on_lost
        self._timeout = timeout
        self._sleep = sleep
        self._clock = clock
        self._lost_at: float | None = None

    async def run(self) -> None:
        """Keep it open. An SCTP association has one life, that of its DTLS session: it is not opened again."""
        again = self._channel.name != "sctp"
        try:
            while True:
                await self._open(again=again)
                opened = self._clock()
                await self._channel.wait_closed()
                self._lost("the bridge closed it, or the connection was lost")
                if not again:
                    return
                pause = self._pause.after(lived := self._clock() - opened)
                if lived < REAL_STAY:
                    await self._sleep(pause)
        except BridgeChannelError as error:
            self._lost(str(error))

    async def _open(self, *, again: bool) -> None:
        if again:
            async for attempt in self._policy():
                with attempt:
                    await self._channel.open(self._timeout)
        else:
            await self._channel.open(self._timeout)
        away = 0.0 if self._lost_at is None else self._clock() - self._lost_at
        self._lost_at = None
        self._on_open(away)

    def _policy(self) -> AsyncRetrying:
        def report(state: RetryCallState) -> None:
            if self._lost_at is None and state.outcome is not None:
                self._lost(str(state.outcome.exception()))

        return AsyncRetrying(
            wait=wait_exponential(multiplier=1, max=MAX_PAUSE),
            retry=retry_if_exception_type(BridgeChannelError),
            before_sleep=report,
            sleep=self._sleep,
            reraise=True,
        )

    def _lost(self, cause: str) -> None:
        self._lost_at = self._clock()
        self._on_lost(cause)
