"""People in rooms of Debian's Prosody: what each of them sees of what the others do."""

import asyncio
import xml.etree.ElementTree as ET
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from typing import Any, TypeVar

import pytest

from bot.errors import (
    ActionRefusedError,
    BannedError,
    ConnectionFailedError,
    KickedError,
    LobbyDeniedError,
    LobbyTimeoutError,
    MembersOnlyError,
    RoomDestroyedError,
    RoomPasswordError,
)
from bot.xmpp import features, owner
from bot.xmpp.connection import XmppConfig, XmppConnection
from bot.xmpp.lobby import Admitted, Knocked, KnockEnded, Lobby, LobbyDesk
from bot.xmpp.meeting import Meeting
from bot.xmpp.messages import ChatReceived, ConfigurationChanged
from bot.xmpp.occupants import OccupantChanged, OccupantJoined, SelfChanged, SelfLeft
from bot.xmpp.presence import RoomPresence
from bot.xmpp.room import Room
from bot.xmpp.services import NoSuchServiceError
from tests.bridge_support import until as holds
from tests.prosody import Stack

pytestmark = pytest.mark.prosody
ROOM, LOBBY = "salon@muc.meet.jitsi", "salon@lobby.meet.jitsi"
T = TypeVar("T")


class Person:
    """Somebody with a connection, and what he has seen."""

    def __init__(self, url: str, name: str) -> None:
        self.connection = XmppConnection(XmppConfig(url=url, domain="meet.jitsi", room="salon"))
        caps = features.caps_element(features.features(sctp=True))
        self.presence = RoomPresence(nick=name, stats_id=name, caps=caps, codecs=("vp8",), email=f"{name}@d")
        self.seen: list[Any] = []
        self._changed = asyncio.Event()

    async def connect(self) -> None:
        await self.connection.connect()
        self.room = Room(self.connection, ROOM, on_event=self.note)
        self.meeting = Meeting(self.connection, self.room, "meet.jitsi", on_event=self.note)

    @property
    def id(self) -> str:
        return self.connection.endpoint_id

    def note(self, event: object) -> None:
        self.seen.append(event)
        self._changed.set()

    async def join(self, password: str | None = None) -> None:
        await self.room.join(self.presence, password=password, timeout=10)

    async def sees(self, kind: type[T], wanted: Callable[[T], bool] = lambda _: True) -> T:
        """The first event of a kind that is wanted."""
        async with asyncio.timeout(10):
            while True:
                for event in self.seen:
                    if isinstance(event, kind) and wanted(event):
                        return event
                await self._change()

    async def _change(self) -> None:
        self._changed.clear()
        await self._changed.wait()

    async def moderates(self) -> None:
        """Wait until the room has made us owner."""
        async with asyncio.timeout(10):
            while self.room.occupants.me is None or not self.room.occupants.me.moderator:
                await self._change()

    async def close(self) -> None:
        self.room.close()
        self.meeting.close()
        await self.connection.close()


@asynccontextmanager
async def people(stack: Stack, *names: str) -> AsyncIterator[list[Person]]:
    found = [Person(stack.url, name) for name in names]
    try:
        for person in found:
            await person.connect()
        yield found
    finally:
        for person in found:
            await person.close()


async def refused(work: Awaitable[object], said: str) -> None:
    with pytest.raises(ActionRefusedError, match=said):
        await work


async def test_chat_and_presence(stack: Stack) -> None:
    async with people(stack, "alice", "bob") as (alice, bob):
        await alice.join()
        await bob.join()
        arrived = await alice.sees(OccupantJoined)
        assert (arrived.occupant.nick, arrived.occupant.email) == ("bob", "bob@d")
        bob.room.send_chat("hello all")
        bob.room.send_chat("only you", to=alice.id)
        alice.room.send_chat("back", to=bob.id)
        private = await alice.sees(ChatReceived, lambda chat: chat.private)
        assert (private.endpoint, private.text) == (bob.id, "only you")
        public = await alice.sees(ChatReceived, lambda chat: not chat.private)
        assert public.text == "hello all"
        await bob.sees(ChatReceived, lambda chat: chat.text == "back")
        assert "hello all" not in [event.text for event in bob.seen if isinstance(event, ChatReceived)]

        bob.room.update(nick="Bobby", raised_hand=1_700_000_000_000, avatar_url="https://h/b.png")
        changed = await alice.sees(OccupantChanged)
        assert changed.previous.raised_hand is None
        now = changed.occupant
        assert (now.nick, now.raised_hand, now.avatar_url) == ("Bobby", 1_700_000_000_000, "https://h/b.png")
        bob.room.update(nick="Bobby")  # nothing new: nobody hears of it
        bob.room.update(raised_hand=0)
        lowered = await alice.sees(OccupantChanged, lambda event: event.occupant.raised_hand is None)
        assert lowered.occupant.nick == "Bobby"
        assert sum(isinstance(event, OccupantChanged) for event in alice.seen) == 2


async def test_a_password_is_set_asked_for_and_taken_away(stack: Stack) -> None:
    async with people(stack, "alice", "bob", "carol") as (alice, bob, carol):
        with pytest.raises(RuntimeError, match="after the join"):
            alice.room.update(nick="early")
        await alice.join()
        await alice.moderates()
        await alice.meeting.lock("geheim")
        await alice.sees(ConfigurationChanged)
        assert (await alice.meeting.info()).locked
        for password in (None, "wrong"):
            with pytest.raises(RoomPasswordError, match="JITSI_ROOM_PASSWORD"):
                await bob.join(password)
        await bob.join("geheim")
        await refused(bob.meeting.lock(None), "forbidden")
        await alice.meeting.lock(None)
        assert not (await alice.meeting.info()).locked
        await carol.join()


async def test_rights_given_and_people_put_out(stack: Stack) -> None:
    async with people(stack, "alice", "bob", "carol") as (alice, bob, carol):
        await alice.join()
        await bob.join()
        await carol.join()
        await alice.moderates()
        await alice.sees(OccupantJoined)
        await alice.meeting.grant_moderator(bob.id)
        mine = await bob.sees(SelfChanged, lambda event: event.occupant.moderator)
        assert not mine.previous.moderator
        await bob.meeting.kick(carol.id, "noise")
        left = await carol.sees(SelfLeft)
        assert isinstance(left.error, KickedError)
        assert str(left.error) == f"Kicked by bob ({bob.id}): noise"
        await refused(alice.meeting.kick(carol.id), "Refused was kicking")
        await refused(alice.meeting.ban(carol.id), "is not in the room")
        await refused(alice.meeting.mute(bob.id, "audio"), "muting")  # no focus here that could
        with pytest.raises(NoSuchServiceError, match="av_moderation"):
            await alice.meeting.set_av_moderation("audio", enabled=True)


async def test_who_is_banned_does_not_come_back(stack: Stack) -> None:
    async with people(stack, "alice", "bob") as (alice, bob):
        await alice.join()
        await bob.join()
        await alice.moderates()
        await alice.sees(OccupantJoined)
        await alice.meeting.ban(bob.id)
        assert isinstance((await bob.sees(SelfLeft)).error, BannedError)
        with pytest.raises(BannedError):
            await bob.join()


@asynccontextmanager
async def at_the_door(stack: Stack) -> AsyncIterator[tuple[Person, LobbyDesk, Person]]:
    """Alice keeps the door of a members-only room; Bob stands outside."""
    async with people(stack, "alice", "bob") as (alice, bob):
        await alice.join()
        await alice.moderates()
        await alice.meeting.set_lobby(enabled=True)
        assert (await alice.meeting.info()).members_only
        desk = LobbyDesk(alice.connection, LOBBY, alice.room, on_event=alice.note)
        await desk.open(alice.presence)
        with pytest.raises(MembersOnlyError):
            await bob.join()
        try:
            yield alice, desk, bob
        finally:
            await desk.close()


async def knock(person: Person, timeout: float = 10) -> Admitted:
    lobby = Lobby(person.connection, LOBBY, ROOM)
    try:
        return await lobby.knock(
            person.presence, on_waiting=lambda: person.note("waiting"), join_timeout=10, timeout=timeout
        )
    finally:
        await lobby.leave()


async def test_who_is_admitted_from_the_lobby_comes_in(stack: Stack) -> None:
    async with at_the_door(stack) as (alice, desk, bob):
        task = asyncio.create_task(knock(bob))
        knocked = await alice.sees(Knocked)
        assert (knocked.occupant.endpoint, knocked.occupant.nick) == (bob.id, "bob")
        # The e-mail address comes in a second presence.
        await holds(lambda: [item.email for item in desk.waiting] == ["bob@d"])
        assert [item.endpoint for item in desk.waiting] == [bob.id]
        desk.admit(bob.id)
        assert await asyncio.wait_for(task, 10) == Admitted(None)
        await bob.join()
        await alice.sees(KnockEnded)
        assert bob.seen[0] == "waiting"
        with pytest.raises(ActionRefusedError, match="does not wait"):
            desk.admit(bob.id)


async def test_who_is_denied_hears_by_whom(stack: Stack) -> None:
    async with at_the_door(stack) as (alice, desk, bob):
        task = asyncio.create_task(knock(bob))
        await alice.sees(Knocked)
        await desk.deny(bob.id)
        with pytest.raises(LobbyDeniedError, match=f"Not admitted to {ROOM}: Kicked by alice"):
            await asyncio.wait_for(task, 10)
        assert desk.waiting == ()
        with pytest.raises(ActionRefusedError, match="does not wait"):
            await desk.deny(bob.id)


async def test_nobody_opens(stack: Stack) -> None:
    async with at_the_door(stack) as (_, _, bob):
        with pytest.raises(LobbyTimeoutError, match=r"within 0\.2 s"):
            await knock(bob, timeout=0.2)


@pytest.mark.parametrize("alternative", [ROOM, None])
async def test_a_lobby_that_is_closed_lets_in_or_ends(stack: Stack, alternative: str | None) -> None:
    """Prosody's module names the main room when the lobby is switched off, and none when the meeting ends."""
    async with at_the_door(stack) as (alice, _, bob):
        task = asyncio.create_task(knock(bob))
        await alice.sees(Knocked)
        query = ET.Element(f"{{{owner.NS_OWNER}}}query")
        ET.SubElement(query, f"{{{owner.NS_OWNER}}}destroy", {"jid": alternative} if alternative else {})
        await alice.connection.iq("set", LOBBY, query)
        if alternative:
            assert await asyncio.wait_for(task, 10) == Admitted(None)
        else:
            with pytest.raises(RoomDestroyedError):
                await asyncio.wait_for(task, 10)


async def test_a_connection_lost_in_the_lobby_is_no_verdict(stack: Stack) -> None:
    async with at_the_door(stack) as (alice, _, bob):
        task = asyncio.create_task(knock(bob))
        await alice.sees(Knocked)
        await stack.stop_nginx()
        with pytest.raises(ConnectionFailedError, match="lost"):
            await asyncio.wait_for(task, 10)
