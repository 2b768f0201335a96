"""The one owner of retries: tenacity policies. Nothing below this folder tries again by itself."""

from __future__ import annotations

import random
from collections.abc import Awaitable, Callable
from dataclasses import dataclass

from tenacity import (
    AsyncRetrying,
    RetryCallState,
    retry_if_exception,
    stop_after_attempt,
    stop_before_delay,
    wait_exponential,
)

from bot.errors import BotError, RateLimitedError, ResumeRefusedError

Sleep = Callable[[float], Awaitable[None]]
OnFailure = Callable[[int, BaseException, float | None], None]


@dataclass(frozen=True, slots=True)
class RetrySettings:
    """``retries`` after the first try, the first after ``base`` seconds, each next after twice as long."""

    retries: int = 3
    base: float = 1.0
    #: Share of each delay that is added at random, so that many bots don't come back at once (0 to 1).
    jitter: float = 0.0
    #: Longest single delay in seconds.
    maximum: float = 30.0


def is_retryable(error: BaseException) -> bool:
    """Whether the same attempt may succeed later without anybody changing anything."""
    return isinstance(error, BotError) and error.retryable


def join_policy(
    settings: RetrySettings, *, sleep: Sleep, on_failure: OnFailure, rng: random.Random | None = None
) -> AsyncRetrying:
    """First try + ``settings.retries``: after 1, 2, 4 s by default. The last error is raised as it was.

    ``on_failure(attempt, error, delay)`` is called for each failed attempt, ``delay`` None for the last one.
    A server that says that it limits rates is given twice the time.
    """
    source = rng or random.Random()
    exponential = wait_exponential(multiplier=settings.base, max=settings.maximum)

    def wait(state: RetryCallState) -> float:
        delay = exponential(state)
        error = state.outcome.exception() if state.outcome else None
        if isinstance(error, RateLimitedError):
            delay *= 2
        return delay * (1 + settings.jitter * source.random())

    def report(state: RetryCallState) -> None:
        error = state.outcome.exception() if state.outcome else None
        if error is not None and isinstance(error, Exception):
            on_failure(state.attempt_number, error, state.upcoming_sleep)

    return AsyncRetrying(
        stop=stop_after_attempt(1 + settings.retries),
        wait=wait,
        retry=retry_if_exception(is_retryable),
        before_sleep=report,
        sleep=sleep,
        reraise=True,
    )


def resume_policy(*, within: float, sleep: Sleep, on_failure: OnFailure) -> AsyncRetrying:
    """Tries of XEP-0198 resumption: 0.5, 1, 2, 4, 4 … s apart, as long as the server keeps the stream.

    ``within`` is that time in seconds (``max`` of ``<enabled/>``, XEP-0198 section 5).
    """

    def report(state: RetryCallState) -> None:
        error = state.outcome.exception() if state.outcome else None
        if error is not None:
            on_failure(state.attempt_number, error, state.upcoming_sleep)

    return AsyncRetrying(
        stop=stop_before_delay(within),
        wait=wait_exponential(multiplier=0.5, max=4),
        # A refusal is the server's last word on this stream: only a full join helps.
        retry=retry_if_exception(lambda error: is_retryable(error) and not isinstance(error, ResumeRefusedError)),
        before_sleep=report,
        sleep=sleep,
        reraise=True,
    )


#: A stay of so many seconds was a real one: the next loss begins a new row.
REAL_STAY = 60.0
#: Longest pause in seconds before the room is joined anew.
LONGEST_PAUSE = 30.0


class RejoinPause:
    """How long to wait before a full join that follows a lost stay. Pure but for ``rng``.

    The first one comes within a second, at random: after a restart of the server all its participants come, and
    not all at once. A server that ends each stay soon is given 1, 2, 4 … 30 s, each of them half at random.
    """

    def __init__(self, rng: random.Random | None = None) -> None:
        self._rng = rng or random.Random()
        self._short = 0

    def after(self, stay: float) -> float:
        """The pause in seconds after a stay of ``stay`` seconds."""
        self._short = 0 if stay >= REAL_STAY else self._short + 1
        if self._short <= 1:
            return self._rng.random()
        limit = min(LONGEST_PAUSE, 2.0 ** (self._short - 2))
        return limit * (1 + self._rng.random()) / 2
