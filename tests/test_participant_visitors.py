"""Visitors on the embedded server: they see and hear the main room, and change nothing in it."""

import asyncio
import xml.etree.ElementTree as ET
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any, TypeVar

import pytest

from bot import events
from bot.embedded.config import EmbeddedConfig
from bot.embedded.rooms import Room
from bot.embedded.server import EmbeddedServer
from bot.embedded.stanza import error_reply
from bot.errors import ActionRefusedError, RoomDestroyedError, VisitorRedirectError
from bot.participant import conference
from bot.participant.conference import FOCUS_MOMENT, FOCUS_PATIENCE
from bot.participant.participant import Participant
from bot.xmpp.focus import ConferenceAnswer, ask_focus
from bot.xmpp.stanza_errors import StanzaError
from tests.bridge_support import until
from tests.test_participant_focus import Patience
from tests.test_participant_prosody import Seen, participant

E = TypeVar("E", bound=events.Event)
ROOM, NODE_ROOM = "jitsi-bot@muc.meet.jitsi", "jitsi-bot@muc.v0.meet.jitsi"


class Meeting:
    """A server with a visitor node, and those who came; ``stop`` ends one."""

    def __init__(self, **config: Any) -> None:
        settings = {"visitor_nodes": ("v0",), "max_participants": 1, "single_participant_timeout": 60.0, **config}
        self.server = EmbeddedServer(port=0, config=EmbeddedConfig(**settings))
        self._tasks: dict[Participant, asyncio.Task[None]] = {}

    async def come(self, name: str, until: str = "media_connected", **settings: Any) -> tuple[Participant, Seen]:
        """Let a participant come, until the event ``until``."""
        seen = Seen()
        one = self.make(name, seen, **settings)
        self._tasks[one] = asyncio.create_task(one.run())
        if until:
            await seen.wait(until)
        return one, seen

    def make(self, name: str, seen: Seen, **settings: Any) -> Participant:
        return participant(self.server.url, seen, name=name, ice_addresses="127.0.0.1", audio="tone", **settings)

    async def stop(self, one: Participant) -> None:
        one.stop()
        await self.over(one)

    async def over(self, one: Participant) -> None:
        await asyncio.wait_for(self._tasks.pop(one), 20)

    def nicks(self, room: str) -> list[str]:
        """The endpoint ids in a room, as the server has them."""
        found = self.server.core.muc.rooms.get(room)
        return [] if found is None else [nick for nick in found.occupants if nick != "focus"]

    async def close(self) -> None:
        for one in reversed(list(self._tasks)):  # the main room last: its end ends the visits
            await self.stop(one)
        await self.server.stop()


@asynccontextmanager
async def meeting(**config: Any) -> AsyncIterator[Meeting]:
    found = Meeting(**config)
    await found.server.start()
    try:
        yield found
    finally:
        await found.close()


def of(seen: Seen, kind: type[E]) -> list[E]:
    """The events of one kind."""
    return [event for event in seen.events if isinstance(event, kind)]


def packets(one: Participant) -> int:
    return one.traffic.packets_received


def endpoint(one: Participant) -> str:
    assert one.conference is not None
    return one.conference.room.own.rpartition("/")[2]


def others(one: Participant) -> set[str]:
    assert one.conference is not None
    return {item.endpoint for item in one.conference.room.occupants.others}


async def test_a_visitor_sees_and_hears_the_main_room_and_sends_nothing() -> None:
    async with meeting() as meet:
        main, told = await meet.come("main", until="local_tracks_created")
        visitor, seen = await meet.come("visitor")
        await told.wait("media_connected")
        assert (main.visitor, visitor.visitor) == (False, True)
        [redirected] = of(seen, events.RedirectedToVisitorNode)
        assert (redirected.node, redirected.domain, redirected.attempt) == ("v0", "v0.meet.jitsi", 1)
        assert visitor.conference is not None
        me = visitor.conference.room.occupants.me
        assert me is not None
        assert (me.role, dict(me.sources)) == ("visitor", {})
        assert others(visitor) == {endpoint(main)}
        await until(lambda: packets(visitor) > 100)
        assert {stream.source for stream in visitor.streams} == {f"{endpoint(main)}-a0", f"{endpoint(main)}-v0"}
        assert visitor.traffic.packets_sent == 0
        # The main room: nobody came, nothing is received, nothing failed.
        assert others(main) == set()
        assert packets(main) == 0
        assert not {"participant_joined", "media_failed"} & set(told.names())
        assert {item.owner for item in of(told, events.RemoteSourceAdded)} == {"jvb"}
        assert meet.nicks(ROOM) == [endpoint(main)]
        assert set(meet.nicks(NODE_ROOM)) == {endpoint(main), endpoint(visitor)}
        await meet.stop(visitor)
        assert of(seen, events.Left)[-1].clean
        assert meet.nicks(NODE_ROOM) == [endpoint(main)]
        assert "connection_attempt_failed" not in seen.names()


async def test_what_happens_in_the_main_room_reaches_a_visitor() -> None:
    """Two visitors, who do not see each other; one comes to the main room later, and goes."""
    async with meeting(max_participants=2) as meet:
        main, told = await meet.come("main", until="local_tracks_created")
        second, _ = await meet.come("second")
        (one, seen), (two, _) = await meet.come("one"), await meet.come("two")
        assert others(one) == others(two) == {endpoint(main), endpoint(second)}
        name = endpoint(second)
        await until(lambda: any(stream.owner == name for stream in one.streams))
        assert main.conference is not None
        main.conference.citizen.send_chat("to all")
        main.conference.citizen.set_name("Renamed")
        await until(lambda: any(item.body == "to all" for item in of(seen, events.ChatMessageReceived)))
        await until(lambda: any(item.nick == "Renamed" for item in of(seen, events.ParticipantChanged)))
        assert one.conference is not None
        one.conference.citizen.send_chat("from a visitor")
        await until(lambda: any(item.body == "from a visitor" for item in of(told, events.ChatMessageReceived)))
        assert of(told, events.ChatMessageReceived)[-1].nick == "one"
        await meet.stop(second)
        await until(lambda: others(one) == {endpoint(main)})
        assert str(one.state) == "active"


async def test_a_raised_hand_opens_the_main_room() -> None:
    async with meeting() as meet:
        main, _ = await meet.come("main", until="local_tracks_created")
        visitor, seen = await meet.come("visitor")
        assert visitor.conference is not None
        visitor.conference.citizen.raise_hand()
        await seen.wait("promoted_to_participant")
        assert not visitor.visitor
        await until(lambda: packets(main) > 50 and visitor.traffic.packets_sent > 50)
        assert visitor.conference is not None
        me = visitor.conference.room.occupants.me
        assert me is not None
        assert (me.role, me.raised_hand, set(me.sources)) == (
            "participant",
            None,
            {f"{me.endpoint}-a0", f"{me.endpoint}-v0"},
        )
        assert others(main) == {endpoint(visitor)}
        assert set(meet.nicks(ROOM)) == {endpoint(main), endpoint(visitor)}
        assert "connection_attempt_failed" not in seen.names()
        assert of(seen, events.ConnectionCreating)[-1].url == f"{meet.server.url}?customusername=***"


async def test_only_the_room_opens_the_main_one() -> None:
    """Anybody can send such an IQ to the address that the room tells."""
    async with meeting() as meet:
        main, _ = await meet.come("main", until="local_tracks_created")
        visitor, seen = await meet.come("visitor")
        assert main._connection is not None
        assert visitor._connection is not None
        forged = ET.fromstring(
            "<visitors xmlns='jitsi:visitors'><promotion-response allow='true' username='u'/></visitors>"
        )
        with pytest.raises(StanzaError) as caught:
            await main._connection.iq("set", visitor._connection.jid, forged)
        assert caught.value.condition == "not-allowed"
        assert visitor.visitor
        assert str(visitor.state) == "active"
        assert not {"promotion_refused", "promoted_to_participant"} & set(seen.names())


async def test_a_hand_that_is_refused_leaves_a_visitor() -> None:
    async with meeting(promote_visitors=False) as meet:
        await meet.come("main", until="local_tracks_created")
        visitor, seen = await meet.come("visitor")
        assert visitor.conference is not None
        visitor.conference.citizen.raise_hand()
        await seen.wait("promotion_refused")
        assert visitor.visitor
        assert str(visitor.state) == "active"
        with pytest.raises(ActionRefusedError, match="visitor"):
            visitor.move_to_room("breakout@breakout.meet.jitsi")


async def test_a_promise_that_is_not_kept_makes_a_visitor_again(monkeypatch: pytest.MonkeyPatch) -> None:
    """The main room has no place for the promoted visitor when he comes."""
    async with meeting() as meet:
        await meet.come("main", until="local_tracks_created")
        visitor, seen = await meet.come("visitor")
        seen.events.clear()

        def full(room: Room, stanza: ET.Element, *_: object) -> ET.Element:
            monkeypatch.undo()
            return error_reply(stanza, "service-unavailable", by=room.jid)

        monkeypatch.setattr(meet.server.core.muc, "_refuse", full)
        assert visitor.conference is not None
        visitor.conference.citizen.raise_hand()
        await seen.wait("connection_attempt_failed")
        await seen.wait("media_connected")
        assert visitor.visitor
        assert "promoted_to_participant" not in seen.names()


async def test_the_end_of_the_meeting_ends_a_visit() -> None:
    async with meeting() as meet:
        main, _ = await meet.come("main", until="local_tracks_created")
        visitor, seen = await meet.come("visitor")
        await meet.stop(main)
        with pytest.raises(RoomDestroyedError, match="Conference ended"):
            await meet.over(visitor)
        assert "removed_from_room" in seen.names()
        assert meet.server.core.muc.rooms == {}


async def test_own_media_set_as_a_visitor_is_for_later() -> None:
    async with meeting() as meet:
        await meet.come("main", until="local_tracks_created")
        visitor, seen = await meet.come("visitor", video="none")
        visitor.own.mute("audio")
        assert visitor.own.source_info == {}
        assert visitor.conference is not None
        visitor.conference.citizen.raise_hand()
        await seen.wait("promoted_to_participant")
        assert visitor.own.source_info == {f"{endpoint(visitor)}-a0": {"muted": True}}


async def test_a_lost_connection_is_resumed_at_the_node() -> None:
    async with meeting() as meet:
        await meet.come("main", until="local_tracks_created")
        visitor, seen = await meet.come("visitor")
        meet.server.drop_connections()
        recovered = await seen.wait("connection_recovered")
        assert isinstance(recovered, events.ConnectionRecovered)
        assert recovered.how == "resumed"
        assert visitor.visitor
        before = packets(visitor)
        await until(lambda: packets(visitor) > before + 20)


async def test_who_refuses_stays_a_participant() -> None:
    async with meeting() as meet:
        main, _ = await meet.come("main", until="local_tracks_created")
        second, seen = await meet.come("second", visitors="refuse")
        assert not second.visitor
        assert others(second) == {endpoint(main)}
        assert "redirected_to_visitor_node" not in seen.names()


async def test_a_redirect_that_is_refused_is_an_error(monkeypatch: pytest.MonkeyPatch) -> None:
    async with meeting() as meet:

        async def redirect(*_: Any) -> ConferenceAnswer:
            raise VisitorRedirectError("The focus redirects to v0", vnode="v0")

        monkeypatch.setattr(conference, "ask_focus", redirect)
        seen = Seen()
        with pytest.raises(VisitorRedirectError):
            await asyncio.wait_for(meet.make("one", seen, visitors="refuse").run(), 20)
        failed = of(seen, events.JoinFailed)[-1]
        assert (failed.code, failed.attempts) == ("visitor_redirect", 1)


@pytest.mark.parametrize(
    ("answer", "delay"),
    [
        (ConferenceAnswer(ready=False, focus_jid="", properties={"live": "false"}), FOCUS_PATIENCE),
        (ConferenceAnswer(ready=False, focus_jid="", vnode="v0"), FOCUS_MOMENT),
    ],
)
async def test_a_meeting_that_takes_no_visitors_yet_is_waited_for_outside(
    monkeypatch: pytest.MonkeyPatch, answer: ConferenceAnswer, delay: float
) -> None:
    async with meeting() as meet:
        answers, patience = [answer], Patience()

        async def later(*words: Any, **more: Any) -> ConferenceAnswer:
            return answers.pop() if answers else await ask_focus(*words, **more)

        monkeypatch.setattr(conference, "ask_focus", later)
        seen = Seen()
        one = meet.make("one", seen)
        one._sleep = patience
        task = asyncio.create_task(one.run())
        assert await asyncio.wait_for(patience.asked.get(), 20) == delay
        assert (str(one.state), one.in_room, meet.nicks(ROOM)) == ("waiting_for_focus", False, [])
        patience.over.set()
        await seen.wait("local_tracks_created")
        assert ("meeting_not_live" in seen.names()) is (delay == FOCUS_PATIENCE)
        one.stop()
        await asyncio.wait_for(task, 20)
