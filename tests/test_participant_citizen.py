"""What participants do and hear among others, in rooms of the embedded server."""

import asyncio
import json
import xml.etree.ElementTree as ET
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import Any, Literal, TypeVar

import pytest

from bot import events
from bot.embedded.config import EmbeddedConfig, RoomPolicy
from bot.embedded.server import EmbeddedServer
from bot.errors import BotError, LobbyDeniedError, LobbyTimeoutError, OwnSourceError
from bot.participant.citizen import Citizen
from bot.participant.config import expand
from bot.participant.participant import Participant
from bot.settings import load
from bot.xmpp.moderation import mute_request
from tests.test_participant_prosody import Seen

T = TypeVar("T", bound=events.Event)


class Somebody:
    """A running participant and what it has told."""

    def __init__(self, server: EmbeddedServer, name: str, **more: Any) -> None:
        self.seen = Seen()
        values = {"room": "salon", "name": name, "ice_addresses": "127.0.0.1"} | more
        self.me = Participant(expand(load(ws_url=server.url, **values))[0], emit=self.seen)
        self.task: asyncio.Task[None] | None = None

    def start(self) -> None:
        self.task = asyncio.create_task(self.me.run())

    @property
    def citizen(self) -> Citizen:
        assert self.me.conference is not None
        return self.me.conference.citizen

    @property
    def id(self) -> str:
        assert self.me.conference is not None
        return self.me.conference.room.own.partition("/")[2]

    async def hears(self, kind: type[T], wanted: Callable[[T], bool] = lambda _: True) -> T:
        async with asyncio.timeout(20):
            while True:
                found = next(
                    (event for event in self.seen.events if isinstance(event, kind) and wanted(event)), None
                )
                if found is not None:
                    return found
                await self.seen.changed()

    async def ends(self) -> BaseException | None:
        self.me.stop()
        assert self.task is not None
        await asyncio.wait({self.task}, timeout=20)
        return self.task.exception()

    def gets(self, server: EmbeddedServer, stanza: str) -> None:
        """Let the server send him something."""
        server.send(ET.fromstring(stanza))


@asynccontextmanager
async def meeting(
    *names: str, policy: RoomPolicy | None = None, **more: Any
) -> AsyncIterator[tuple[EmbeddedServer, list[Somebody]]]:
    """A server, and people in its room one after the other; the first one moderates."""
    server = EmbeddedServer(port=0, config=EmbeddedConfig(rooms={"salon": policy or RoomPolicy()}))
    await server.start()
    people = [Somebody(server, name, **more) for name in names]
    try:
        for number, person in enumerate(people):
            person.start()
            await person.hears(events.TracksCreated)
            if number == 0:
                await person.hears(events.RoleChanged, lambda event: event.own and event.role == "moderator")
        yield server, people
    finally:
        for person in people:
            await person.ends()
        await server.stop()


async def test_chat_names_and_hands() -> None:
    async with meeting("alice", "bob", email="x@d", avatar_url="https://h/a.png") as (_, (alice, bob)):
        await alice.hears(events.ParticipantJoined)
        bob.citizen.send_chat("hello all")
        bob.citizen.send_chat("only you", alice.id)
        private = await alice.hears(events.ChatMessageReceived, lambda event: event.private)
        assert (private.endpoint, private.nick, private.body) == (bob.id, "bob", "only you")
        assert private.message == f"bob ({bob.id}) wrote a message of 8 characters"
        public = await alice.hears(events.ChatMessageReceived, lambda event: not event.private)
        assert (public.body, public.stamp) == ("hello all", None)
        bob.citizen.raise_hand()
        assert (await alice.hears(events.HandChanged)).raised
        bob.citizen.raise_hand(raised=False)
        await alice.hears(events.HandChanged, lambda event: not event.raised)
        bob.citizen.set_name("Bobby")
        changed = await alice.hears(events.ParticipantChanged)
        assert (changed.nick, changed.email, changed.avatar_url) == ("Bobby", "x@d", "https://h/a.png")


async def test_rights_that_are_given() -> None:
    async with meeting("alice", "bob") as (_, (alice, bob)):
        await alice.hears(events.ParticipantJoined)
        assert (alice.citizen.moderator, bob.citizen.moderator) == (True, False)
        await alice.citizen.meeting.grant_moderator(bob.id)
        mine = await bob.hears(events.RoleChanged, lambda event: event.own)
        assert mine.role == "moderator"
        his = await alice.hears(events.RoleChanged, lambda event: not event.own)
        assert his.endpoint == bob.id
        assert repr(bob.citizen) == "<Citizen of salon@muc.meet.jitsi>"


def component(sender: str, to: str, **data: Any) -> str:
    payload = json.dumps(data).replace('"', "&quot;")
    return (
        f"<message xmlns='jabber:client' from='{sender}' to='{to}'>"
        f"<json-message xmlns='http://jitsi.org/jitmeet'>{payload}</json-message></message>"
    )


def av(to: str, **data: Any) -> str:
    return component("avmoderation.meet.jitsi", to, type="av_moderation", room="salon@muc.meet.jitsi", **data)


def jid(person: Somebody) -> str:
    assert person.me.conference is not None
    return person.me.conference._connection.jid


@pytest.mark.parametrize(("medium", "other"), [("audio", "video"), ("video", "audio")])
async def test_mutes_and_av_moderation_are_obeyed(
    medium: Literal["audio", "video"], other: Literal["audio", "video"]
) -> None:
    async with meeting("alice", "bob") as (server, (alice, bob)):
        await alice.hears(events.ParticipantJoined)
        order = mute_request("x", medium)
        order.set("actor", f"salon@muc.meet.jitsi/{alice.id}")
        iq = ET.Element(
            "{jabber:client}iq", {"type": "set", "id": "m1", "from": "salon@muc.meet.jitsi/focus", "to": jid(bob)}
        )
        iq.append(order)
        bob.gets(server, ET.tostring(iq, encoding="unicode"))
        muted = await bob.hears(events.MutedByModerator)
        assert (muted.media, muted.endpoint, muted.nick) == (medium, alice.id, "alice")
        assert (await bob.hears(events.LocalMuteChanged)).muted
        bob.gets(server, av(jid(bob), enabled=True, mediaType=medium, actor=f"salon@muc.meet.jitsi/{alice.id}"))
        assert (await bob.hears(events.AvModerationChanged)).enabled
        with pytest.raises(OwnSourceError, match="AV moderation"):
            bob.me.own.unmute(medium)
        bob.me.own.unmute(other)
        bob.gets(server, av(jid(bob), approved=True, mediaType=medium))
        await bob.hears(events.UnmuteApproved)
        assert [source.label[0] for source in bob.me.own.sources if source.muted] == [medium[0]]
        bob.me.own.unmute(medium)
        assert not any(source.muted for source in bob.me.own.sources)
        bob.gets(server, av(jid(bob), removed=True, mediaType=medium))
        await bob.hears(events.UnmuteRejected)


async def test_a_mute_of_somebody_else_than_the_focus_is_refused() -> None:
    async with meeting("alice", "bob") as (_, (alice, bob)):
        assert alice.me.conference is not None
        await alice.hears(events.ParticipantJoined)
        room = "salon@muc.meet.jitsi"
        with pytest.raises(BotError, match="only the focus mutes"):
            await alice.me.conference._connection.iq("set", f"{room}/{bob.id}", mute_request("x", "audio"))
        assert bob.me.own.sources[0].muted is False


async def test_the_policy_to_start_muted_is_for_those_who_come() -> None:
    async with meeting("alice") as (server, (alice,)):
        policy = component(
            "metadata.meet.jitsi", jid(alice), type="room_metadata", metadata={"startMuted": {"audio": True}}
        )
        alice.gets(server, policy)
        changed = await alice.hears(events.StartMutedChanged)
        assert (changed.audio, changed.video) == (True, False)
        assert not alice.me.own.sources[0].muted
        alice.citizen._room.occupants._self = None  # as before the room has admitted us
        alice.citizen._start_muted(audio=False, video=True)
        assert [source.muted for source in alice.me.own.sources] == [False, True]


CLOSED = RoomPolicy(members_only=True)


@asynccontextmanager
async def at_the_door(**more: Any) -> AsyncIterator[tuple[Somebody, Somebody]]:
    """Alice, who keeps the lobby, and Bob, who is not started yet."""
    async with meeting("alice") as (server, (alice,)):
        await alice.citizen.meeting.set_lobby(enabled=True)
        bob = Somebody(server, "bob", **more)
        try:
            yield alice, bob
        finally:
            if bob.task is not None:
                await bob.ends()


async def test_admitted_from_the_lobby() -> None:
    async with at_the_door() as (alice, bob):
        desk = await alice.citizen.keep_lobby()
        assert await alice.citizen.keep_lobby() is desk
        bob.start()
        knocked = await alice.hears(events.LobbyKnocked)
        assert knocked.nick == "bob"
        assert (await bob.hears(events.LobbyWaiting)).timeout == 600.0
        assert (str(bob.me.state), bob.me.in_room) == ("waiting_in_lobby", False)
        desk.admit(knocked.endpoint)
        await bob.hears(events.LobbyAdmitted)
        await bob.hears(events.ConferenceJoined)
        assert bob.me.in_room
        await alice.hears(events.LobbyKnockEnded)


async def test_denied_and_left_waiting_are_final() -> None:
    async with at_the_door() as (alice, bob):
        desk = await alice.citizen.keep_lobby()
        bob.start()
        await desk.deny((await alice.hears(events.LobbyKnocked)).endpoint)
        failed = await bob.hears(events.JoinFailed)
        assert (failed.code, failed.attempts) == ("lobby_denied", 1)
        assert isinstance(await bob.ends(), LobbyDeniedError)
    async with at_the_door(lobby_timeout=0.1) as (_, bob):
        bob.start()
        assert (await bob.hears(events.JoinFailed)).code == "lobby_timeout"
        assert isinstance(await bob.ends(), LobbyTimeoutError)


async def test_a_closed_lobby_lets_all_in_and_there_is_none_to_keep() -> None:
    async with at_the_door() as (alice, bob):
        bob.start()
        await bob.hears(events.LobbyWaiting)
        await alice.citizen.meeting.set_lobby(enabled=False)
        await bob.hears(events.ConferenceJoined)
        with pytest.raises(BotError, match="no lobby"):
            await alice.citizen.keep_lobby()


async def test_stopped_in_the_lobby_it_goes() -> None:
    async with at_the_door() as (alice, bob):
        await alice.citizen.keep_lobby()
        bob.start()
        await bob.hears(events.LobbyWaiting)
        assert await bob.ends() is None
        await alice.hears(events.LobbyKnockEnded)
        assert bob.seen.names()[-1] == "left"


async def test_moved_to_another_room_and_back() -> None:
    corner = "corner@muc.meet.jitsi"
    async with meeting("alice", "bob") as (server, (alice, bob)):
        await alice.hears(events.ParticipantJoined)
        rooms = {"a": {"jid": corner, "name": "corner"}}
        update = {"event": "features/breakout-rooms/update", "rooms": rooms, "type": "breakout_rooms"}
        bob.gets(server, component("breakout.meet.jitsi", jid(bob), **update))
        assert (await bob.hears(events.BreakoutRoomsChanged)).rooms == {corner: "corner"}
        move = {"event": "features/breakout-rooms/move-to-room", "roomJid": corner, "type": "breakout_rooms"}
        before = jid(bob)
        bob.citizen.set_name("Bobby")
        bob.citizen.raise_hand()
        await alice.hears(events.HandChanged)
        bob.gets(server, component("breakout.meet.jitsi", before, **move))
        moved = await bob.hears(events.MovedToRoom)
        assert moved.address == corner
        await alice.hears(events.ParticipantLeft)
        assert bob.me.conference is not None
        assert bob.me.conference.room.jid == corner
        bob.me.move_to_room()
        await bob.hears(events.MovedToRoom, lambda event: event.address == "salon@muc.meet.jitsi")
        async with asyncio.timeout(10):
            while alice.seen.names().count("participant_joined") < 2:
                await alice.seen.changed()
        assert jid(bob) == before
        assert alice.me.conference is not None
        [again] = alice.me.conference.room.occupants.others
        assert (again.nick, again.raised_hand is not None) == ("Bobby", True)
        assert "connection_degraded" not in bob.seen.names()


async def test_a_room_that_cannot_be_entered_leads_back_to_the_first() -> None:
    async with meeting("alice", "bob") as (_, (alice, bob)):
        await alice.hears(events.ParticipantJoined)
        bob.me.move_to_room("nowhere@lobby.meet.jitsi")
        recovered = await bob.hears(events.ConnectionRecovered)
        assert recovered.how == "rejoined"
        assert "moved_to_room" not in bob.seen.names()
        assert bob.me.conference is not None
        assert bob.me.conference.room.jid == "salon@muc.meet.jitsi"
