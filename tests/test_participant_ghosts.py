"""Whoever is cancelled on the way into a room, at whatever step, leaves nobody behind there."""

import asyncio

import pytest

from bot import events
from bot.embedded.server import EmbeddedServer
from bot.participant.config import expand
from bot.participant.entrance import MAIN
from bot.participant.participant import Participant
from bot.settings import load
from bot.xmpp.connection import XmppConnection
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


async def test_who_is_stopped_in_the_moment_that_he_is_in_leaves_cleanly() -> None:
    server = EmbeddedServer(port=0)
    await server.start()
    seen: list[events.Event] = []

    def emit(event: events.Event) -> None:
        seen.append(event)
        if isinstance(event, events.TracksCreated):
            one.stop()

    one = Participant(expand(load(ws_url=server.url, ice_addresses="127.0.0.1"))[0], emit=emit)
    await asyncio.wait_for(one.run(), 10)
    [left] = [event for event in seen if isinstance(event, events.Left)]
    assert left.clean
    assert not endpoints(server)
    await server.stop()


@pytest.mark.parametrize("engine", ["shared", "aiortc"])
async def test_who_is_stopped_while_his_media_comes_up_leaves_without_an_error(engine: str) -> None:
    """At every step of it; what comes up while the room is left is nobody's concern."""
    server = EmbeddedServer(port=0)
    await server.start()
    settings = load(ws_url=server.url, ice_addresses="127.0.0.1", media_engine=engine)
    other = Participant(expand(settings)[0], emit=lambda _: None)
    staying = asyncio.create_task(other.run())
    await until(lambda: other.in_room)
    for turns in range(0, 120, 8):
        seen: list[str] = []
        negotiating = asyncio.Event()

        def emit(event: events.Event, seen: list[str] = seen, negotiating: asyncio.Event = negotiating) -> None:
            seen.append(event.state if isinstance(event, events.StateChanged) else event.name)
            if "negotiating" in seen:
                negotiating.set()

        one = Participant(expand(settings)[0], emit=emit)
        task = asyncio.create_task(one.run())
        await asyncio.wait_for(negotiating.wait(), 10)
        for _ in range(turns):
            await asyncio.sleep(0)
        one.stop()
        await asyncio.wait_for(task, 10)
        assert seen[-2:] == ["left", "left"], seen
        assert "media_failed" not in seen
    other.stop()
    await asyncio.wait_for(staying, 10)
    await server.stop()


@pytest.mark.parametrize("turns", range(1, 9))
async def test_a_connection_whose_close_is_cancelled_is_closed_all_the_same(turns: int) -> None:
    """What is left open, a task or a socket, fails the test by its guards."""
    server = EmbeddedServer(port=0)
    await server.start()
    connection = XmppConnection(MAIN.xmpp(expand(load(ws_url=server.url))[0]))
    await connection.connect()
    closing = asyncio.create_task(connection.close())
    for _ in range(turns):
        await asyncio.sleep(0)
    closing.cancel()
    await asyncio.wait_for(asyncio.wait({closing}), 10)
    assert not connection._socket.is_open
    await server.stop()
