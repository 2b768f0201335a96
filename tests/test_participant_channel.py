"""The keeper of a bridge channel, with a scripted channel and an injected clock."""

import asyncio
import random

import pytest

from bot.bridge.channel import Message
from bot.errors import BridgeChannelError
from bot.participant.channel import MAX_PAUSE, ChannelKeeper
from bot.participant.retry import REAL_STAY, RejoinPause


class ScriptedChannel:
    """Opens or fails as told; ``lose`` closes it."""

    def __init__(self, name: str, script: list[bool]) -> None:
        self.name = name
        self._script = script
        self._closed = asyncio.Event()
        self.opened = asyncio.Event()

    async def open(self, timeout: float) -> None:
        assert timeout == 7.0
        if not self._script.pop(0):
            raise BridgeChannelError("refused with 403")
        self._closed.clear()
        self.opened.set()

    def lose(self) -> None:
        self.opened.clear()
        self._closed.set()

    async def wait_closed(self) -> None:
        await self._closed.wait()

    def send(self, message: Message) -> None:
        raise AssertionError(f"the keeper sends nothing itself: {message}")

    async def close(self) -> None:
        self.lose()


class Certain(random.Random):
    """Chance that always says a half."""

    def random(self) -> float:
        return 0.5


class Keeping:
    """A keeper at work: what it said, how long it slept, on a clock that only its sleeps move."""

    def __init__(self, channel: ScriptedChannel) -> None:
        self.said: list[object] = []
        self.slept: list[float] = []
        self.now = 0.0
        self.keeper = ChannelKeeper(
            channel,
            on_open=self.said.append,
            on_lost=self.said.append,
            timeout=7.0,
            sleep=self._sleep,
            clock=lambda: self.now,
            pause=RejoinPause(Certain()),
        )

    async def _sleep(self, seconds: float) -> None:
        self.slept.append(seconds)
        self.now += seconds
        await asyncio.sleep(0)


async def ended(task: asyncio.Task[None]) -> None:
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task


async def test_a_lost_websocket_is_opened_again_with_growing_pauses_and_tells_how_long_it_was_away() -> None:
    channel = ScriptedChannel("websocket", [True, False, False, True])
    keeping = Keeping(channel)
    task = asyncio.create_task(keeping.keeper.run())
    await channel.opened.wait()
    await asyncio.sleep(0)
    keeping.now += REAL_STAY
    channel.lose()
    await channel.opened.wait()
    await ended(task)
    assert keeping.said == [0.0, "the bridge closed it, or the connection was lost", 3.0]
    assert keeping.slept == [1.0, 2.0]


async def test_a_bridge_that_closes_each_channel_at_once_is_given_ever_more_time() -> None:
    channel = ScriptedChannel("websocket", [True] * 9)
    keeping = Keeping(channel)
    task = asyncio.create_task(keeping.keeper.run())
    for _ in range(8):
        await channel.opened.wait()
        await asyncio.sleep(0)
        channel.lose()
    await channel.opened.wait()
    await ended(task)
    assert keeping.slept == [0.5, 0.75, 1.5, 3.0, 6.0, 12.0, 22.5, 22.5]


async def test_a_first_try_that_fails_is_told_once() -> None:
    channel = ScriptedChannel("websocket", [False] * 8 + [True])
    keeping = Keeping(channel)
    task = asyncio.create_task(keeping.keeper.run())
    await channel.opened.wait()
    await asyncio.sleep(0)
    await ended(task)
    assert keeping.said[0] == "refused with 403"
    assert len(keeping.said) == 2
    assert keeping.slept == [1.0, 2.0, 4.0, 8.0, 16.0, MAX_PAUSE, MAX_PAUSE, MAX_PAUSE]


@pytest.mark.parametrize("script", [[True], [False]])
async def test_an_sctp_channel_has_one_life(script: list[bool]) -> None:
    opens = script[0]
    channel = ScriptedChannel("sctp", script)
    keeping = Keeping(channel)
    task = asyncio.create_task(keeping.keeper.run())
    if opens:
        await channel.opened.wait()
        channel.lose()
    await asyncio.wait_for(task, 5)
    assert len(keeping.said) == (2 if opens else 1)
    assert keeping.slept == []
