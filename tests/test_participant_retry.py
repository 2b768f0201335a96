"""Retries by an injected clock: first try + 3 after 1, 2, 4 s; final errors at once."""

import random

import pytest

from bot.errors import (
    ConnectionRefusedByHostError,
    RateLimitedError,
    ResumeRefusedError,
    TlsError,
)
from bot.participant.retry import (
    LONGEST_PAUSE,
    REAL_STAY,
    RejoinPause,
    RetrySettings,
    join_policy,
    resume_policy,
)


class Clock:
    """A clock that nobody waits for."""

    def __init__(self) -> None:
        self.slept: list[float] = []
        self.failures: list[tuple[int, str, float | None]] = []

    async def sleep(self, seconds: float) -> None:
        self.slept.append(seconds)

    def on_failure(self, attempt: int, error: BaseException, delay: float | None) -> None:
        self.failures.append((attempt, str(error), delay))


async def test_three_retries_after_1_2_and_4_seconds_then_the_error_itself() -> None:
    clock, tries = Clock(), 0
    with pytest.raises(ConnectionRefusedByHostError, match="no 4"):
        async for attempt in join_policy(RetrySettings(), sleep=clock.sleep, on_failure=clock.on_failure):
            with attempt:
                tries += 1
                raise ConnectionRefusedByHostError(f"no {tries}")
    assert tries == 4
    assert clock.slept == [1.0, 2.0, 4.0]
    assert clock.failures == [(1, "no 1", 1.0), (2, "no 2", 2.0), (3, "no 3", 4.0)]


async def test_success_ends_the_retries() -> None:
    clock, tries = Clock(), 0
    async for attempt in join_policy(RetrySettings(), sleep=clock.sleep, on_failure=clock.on_failure):
        with attempt:
            tries += 1
            if tries < 3:
                raise ConnectionRefusedByHostError("not yet")
    assert (tries, clock.slept) == (3, [1.0, 2.0])


@pytest.mark.parametrize("error", [TlsError("untrusted"), ValueError("a defect")])
async def test_what_no_retry_can_mend_is_final_at_once(error: Exception) -> None:
    clock = Clock()
    with pytest.raises(type(error)):
        async for attempt in join_policy(RetrySettings(), sleep=clock.sleep, on_failure=clock.on_failure):
            with attempt:
                raise error
    assert clock.slept == []
    assert clock.failures == []


async def test_rate_limits_double_the_delay_and_jitter_spreads_it() -> None:
    clock = Clock()
    settings = RetrySettings(retries=2, base=2.0, jitter=0.5)
    with pytest.raises(RateLimitedError):
        async for attempt in join_policy(
            settings, sleep=clock.sleep, on_failure=clock.on_failure, rng=random.Random(1)
        ):
            with attempt:
                raise RateLimitedError("slow down")
    assert 4.0 <= clock.slept[0] <= 6.0
    assert 8.0 <= clock.slept[1] <= 12.0


async def test_a_refused_resume_is_not_tried_again_but_a_lost_one_is() -> None:
    clock, tries = Clock(), 0
    with pytest.raises(ResumeRefusedError):
        async for attempt in resume_policy(within=60, sleep=clock.sleep, on_failure=clock.on_failure):
            with attempt:
                tries += 1
                if tries < 3:
                    raise ConnectionRefusedByHostError("proxy is down")
                raise ResumeRefusedError("item-not-found")
    assert clock.slept == [0.5, 1.0]
    assert [failure[0] for failure in clock.failures] == [1, 2]


def test_the_way_back_is_spread_and_a_server_that_ends_each_stay_is_given_time() -> None:
    pause = RejoinPause(random.Random(1))
    assert 0 <= pause.after(3600.0) < 1
    short = [pause.after(0.5) for _ in range(9)]
    assert 0 <= pause.after(REAL_STAY) < 1
    limits = [1.0, 2.0, 4.0, 8.0, 16.0, LONGEST_PAUSE, LONGEST_PAUSE, LONGEST_PAUSE]
    assert 0 <= short[0] < 1
    assert all(limit / 2 <= found <= limit for limit, found in zip(limits, short[1:], strict=True))


def test_many_who_come_back_do_not_come_at_once() -> None:
    first = sorted(RejoinPause(random.Random(seed)).after(100.0) for seed in range(100))
    assert first[10] < 0.3
    assert first[-10] > 0.7
