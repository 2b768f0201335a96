"""Whoever is cancelled on the way into a room, at whatever step, leaves nobody behind there."""

import asyncio

import pytest

from bot.embedded.server import EmbeddedServer
from bot.participant.config import expand
from bot.participant.participant import Participant
from bot.settings import load
from tests.bridge_support import until


def endpoints(server: EmbeddedServer) -> list[str]:
    """Everybody but the focus, in all rooms."""
    return [nick for room in server.core.muc.rooms.values() for nick in room.occupants if nick != "focus"]


@pytest.mark.parametrize("stop", [False, True], ids=["cancelled", "stopped"])
async def test_nobody_is_left_in_the_room_whenever_the_join_is_cut_short(*, stop: bool) -> None:
    server = EmbeddedServer(port=0)
    await server.start()
    config = expand(load(ws_url=server.url, ice_addresses="127.0.0.1"))[0]
    joined = 0
    for turns in range(0, 240, 6):
        states: list[str] = []
        one = Participant(config, emit=lambda event, states=states: states.append(event.name))  # type: ignore[misc]
        task = asyncio.create_task(one.run())
        for _ in range(turns):
            await asyncio.sleep(0)
        if stop:
            one.stop()
        else:
            task.cancel()
        await asyncio.wait_for(asyncio.wait({task}), 10)
        assert task.cancelled() != stop
        await until(lambda: not endpoints(server) and not server.core.sessions)  # none waits to be resumed, either
        joined += "conference_joined" in states
    # Some were cut short before they were in, some after: both ends of the way are covered.
    assert 0 < joined < 40
    await server.stop()
