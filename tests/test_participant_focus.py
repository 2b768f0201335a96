"""A focus that is away where only it may create rooms: waiting outside is a state, not an error."""

import asyncio
from typing import Any

import pytest

from bot import events
from bot.embedded.config import EmbeddedConfig
from bot.embedded.server import EmbeddedServer
from bot.errors import RoomRestrictedError
from bot.participant import conference
from bot.participant.conference import FOCUS_MOMENT, FOCUS_PATIENCE
from bot.participant.config import expand
from bot.participant.participant import Participant
from bot.settings import load
from bot.xmpp.focus import ConferenceAnswer, ask_focus
from bot.xmpp.room import Room
from tests.test_participant_prosody import Seen


class Patience:
    """A sleep that ends when the test says so."""

    def __init__(self) -> None:
        self.asked: asyncio.Queue[float] = asyncio.Queue()
        self.over = asyncio.Event()

    async def __call__(self, seconds: float) -> None:
        self.asked.put_nowait(seconds)
        await self.over.wait()
        self.over.clear()


def restricted() -> EmbeddedServer:
    return EmbeddedServer(port=0, focus=False, config=EmbeddedConfig(restrict_room_creation=True))


def outside(server: EmbeddedServer, seen: Seen, patience: Patience) -> Participant:
    return Participant(expand(load(ws_url=server.url))[0], emit=seen, sleep=patience)


async def test_it_stands_outside_until_the_focus_has_made_the_room() -> None:
    server, seen, patience = restricted(), Seen(), Patience()
    await server.start()
    one = outside(server, seen, patience)
    task = asyncio.create_task(one.run())
    assert await asyncio.wait_for(patience.asked.get(), 10) == FOCUS_PATIENCE
    assert (str(one.state), one.in_room) == ("waiting_for_focus", False)
    server.core.focus_attached = True
    patience.over.set()
    await seen.wait("local_tracks_created")
    assert (str(one.state), one.in_room) == ("waiting_for_peers", True)
    assert seen.names().count("focus_unavailable") == 1
    assert "connection_attempt_failed" not in seen.names()
    one.stop()
    await asyncio.wait_for(task, 10)
    await server.stop()


async def test_stopped_outside_it_leaves_nothing_behind() -> None:
    server, seen, patience = restricted(), Seen(), Patience()
    await server.start()
    one = outside(server, seen, patience)
    task = asyncio.create_task(one.run())
    await asyncio.wait_for(patience.asked.get(), 10)
    one.stop()
    await asyncio.wait_for(task, 5)
    assert seen.names()[-1] == "left"
    await server.stop()


async def test_a_connection_lost_outside_is_one_failed_attempt() -> None:
    server, seen, patience = restricted(), Seen(), Patience()
    await server.start()
    one = outside(server, seen, patience)
    task = asyncio.create_task(one.run())
    await asyncio.wait_for(patience.asked.get(), 10)
    server.drop_connections()
    failed = await seen.wait("connection_attempt_failed")
    assert isinstance(failed, events.AttemptFailed)
    assert failed.cause.startswith("The connection was lost")
    assert failed.delay == 1.0
    one.stop()
    await asyncio.wait_for(task, 5)
    await server.stop()


async def test_a_room_that_stays_closed_though_the_focus_answered_is_final(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    server, seen = restricted(), Seen()
    await server.start()
    server.core.focus_attached = True
    monkeypatch.setattr(server.core.muc, "is_service", lambda _: False)
    one = outside(server, seen, Patience())
    with pytest.raises(RoomRestrictedError, match="Room creation is restricted"):
        await asyncio.wait_for(one.run(), 10)
    assert "removed_from_room" not in seen.names()
    assert seen.names().count("join_failed") == 1
    await server.stop()


async def test_a_focus_that_is_on_its_way_is_asked_again_soon(monkeypatch: pytest.MonkeyPatch) -> None:
    """Two who ask at the same moment: the second hears that the focus is not ready yet."""
    server, seen, patience = restricted(), Seen(), Patience()
    await server.start()
    server.core.focus_attached = True
    answers = [ConferenceAnswer(ready=False, focus_jid="focus@auth.meet.jitsi/focus")]

    async def first_not_ready(*words: Any, **more: Any) -> ConferenceAnswer:
        return answers.pop() if answers else await ask_focus(*words, **more)

    monkeypatch.setattr(conference, "ask_focus", first_not_ready)
    one = outside(server, seen, patience)
    task = asyncio.create_task(one.run())
    assert await asyncio.wait_for(patience.asked.get(), 10) == FOCUS_MOMENT
    patience.over.set()
    await seen.wait("local_tracks_created")
    assert "focus_unavailable" not in seen.names()
    one.stop()
    await asyncio.wait_for(task, 10)
    await server.stop()


async def test_a_connection_lost_while_the_room_is_entered_is_known_at_once(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    server, seen, patience = EmbeddedServer(port=0), Seen(), Patience()
    await server.start()
    entering = asyncio.Event()

    async def never(*_: object, **__: object) -> None:
        entering.set()
        await asyncio.Event().wait()

    monkeypatch.setattr(Room, "join", never)
    one = outside(server, seen, patience)
    task = asyncio.create_task(one.run())
    await asyncio.wait_for(entering.wait(), 10)
    server.drop_connections()
    assert await asyncio.wait_for(patience.asked.get(), 5) == 1.0
    assert seen.names().count("connection_attempt_failed") == 1
    one.stop()
    await asyncio.wait_for(task, 5)
    await server.stop()
