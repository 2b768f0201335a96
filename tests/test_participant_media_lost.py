"""A bridge that never answers: requests for another session within the focus's limits, then a new join."""

import asyncio
import time
from collections.abc import Awaitable, Callable

import pytest

from bot import events
from bot.embedded.server import EmbeddedServer
from bot.participant.config import expand
from bot.participant.participant import Participant
from bot.participant.restarts import MIN_INTERVAL
from bot.settings import load
from tests.bridge_support import until
from tests.test_participant_prosody import Seen


class Hurried:
    """A clock that jumps ahead wherever somebody sleeps."""

    def __init__(self) -> None:
        self._ahead = 0.0
        self.slept: list[float] = []

    def __call__(self) -> float:
        return time.monotonic() + self._ahead

    async def sleep(self, seconds: float) -> None:
        self.slept.append(seconds)
        self._ahead += seconds
        await asyncio.sleep(0)


async def _nothing(*_: object) -> None:
    """A bridge that takes the order to connect and never does."""


async def test_three_requests_in_a_row_and_then_a_new_join(monkeypatch: pytest.MonkeyPatch) -> None:
    clock = Hurried()
    server = EmbeddedServer(port=0, clock=clock)
    await server.start()
    connect: Callable[..., Awaitable[None]] = server.bridge.connect
    monkeypatch.setattr(server.bridge, "connect", _nothing)
    seen = Seen()
    settings = load(ws_url=server.url, ice_addresses="127.0.0.1", media_timeout=0.3, bots=2)
    one, two = (
        Participant(config, emit=sink, sleep=clock.sleep, clock=clock)
        for config, sink in zip(expand(settings), (seen, Seen()), strict=True)
    )
    tasks = [asyncio.create_task(one.run()), asyncio.create_task(two.run())]
    degraded = await seen.wait("connection_degraded")
    assert isinstance(degraded, events.ConnectionDegraded)
    assert degraded.cause.startswith("No media session after 3 requests: ICE did not connect")
    failed = [event for event in seen.events if isinstance(event, events.MediaFailed)]
    assert [event.code for event in failed] == ["ice_failed"] * 4
    assert any(MIN_INTERVAL - 2 < seconds <= MIN_INTERVAL for seconds in clock.slept)
    monkeypatch.setattr(server.bridge, "connect", connect)
    recovered = await seen.wait("connection_recovered")
    assert isinstance(recovered, events.ConnectionRecovered)
    assert recovered.how == "rejoined"
    await seen.wait("media_connected")
    one.stop()
    two.stop()
    await asyncio.wait_for(asyncio.gather(*tasks), 15)
    await server.stop()


@pytest.mark.parametrize("engine", ["shared", "aiortc"])
async def test_a_transport_that_closes_is_followed_by_another_session_of_the_same_sources(engine: str) -> None:
    """Its end is seen at both sides at once, and only the participant acts on it."""
    server = EmbeddedServer(port=0)
    await server.start()
    seen = Seen()
    settings = load(
        ws_url=server.url, ice_addresses="127.0.0.1", use_turn="off", media_engine=engine, video="none", bots=2
    )
    one, two = (
        Participant(config, emit=sink) for config, sink in zip(expand(settings), (seen, Seen()), strict=True)
    )
    tasks = [asyncio.create_task(one.run()), asyncio.create_task(two.run())]
    await seen.wait("media_connected")
    await until(lambda: any(stream.packets for stream in one.streams))
    assert one.conference is not None
    assert one.conference.media is not None
    names, first = one.own.source_info, one.conference.media.id
    await one.conference.media.transport.close()
    recovered = await seen.wait("media_recovered")
    assert isinstance(recovered, events.MediaRecovered)
    assert recovered.seconds > 0
    assert [event.code for event in seen.events if isinstance(event, events.MediaFailed)] == ["media_failed"]
    assert one.conference.media.id != first
    assert one.own.source_info == names
    for who, task in zip((one, two), tasks, strict=True):
        who.stop()
        await asyncio.wait_for(task, 15)
    await server.stop()
