"""Participants of today in dialogues that were recorded with the real servers."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any
from xml.etree import ElementTree as ET

import pytest

from bot import events
from bot.errors import KickedError
from bot.jingle.model import EXT_DEPENDENCY_DESCRIPTOR
from bot.participant.participant import Participant
from bot.xmpp import features
from bot.xmpp.occupants import OccupantChanged, OccupantTable
from tests.bridge_support import until
from tests.embedded_support import condition
from tests.recordings import channel_parts, dialogue
from tests.replay import (
    END,
    Inbox,
    Management,
    ReplayError,
    ReplayServer,
    channel_differences,
    differences,
    is_ping,
)
from tests.test_participant_prosody import Seen, participant

#: What a participant says otherwise than when the dialogues were recorded, and why: lines of ``differences`` and
#: ``channel_differences``. Whoever changes what is said adds them, until the dialogues are recorded anew.
SINCE: dict[str, str] = {
    "+property name=visitors-version value=1": "redirects to visitor nodes are followed, and the focus must know",
    **dict.fromkeys(
        (
            "-extmap-allow-mixed",
            "-rtp-hdrext id=1 uri=urn:ietf:params:rtp-hdrext:ssrc-audio-level",
            "-rtp-hdrext id=3 uri=http://www.webrtc.org/experiments/rtp-hdrext/abs-send-time",
            "-rtp-hdrext id=5 uri=http://www.ietf.org/id/draft-holmer-rmcat-transport-wide-cc-extensions-01",
            f"-rtp-hdrext id=11 uri={EXT_DEPENDENCY_DESCRIPTOR}",
        ),
        "an answer fits in one piece of a proxy, with simulcast, too, and Jicofo does not read these",
    ),
}

#: States of a participant who comes into a room where somebody is, and leaves it.
IN_COMPANY = ["connecting", "joining", "waiting_for_peers", "negotiating", "active", "leaving", "left"]


class Call:
    """A participant and the server that replays a dialogue to it."""

    def __init__(self, server: ReplayServer, room: str, channel: str = "", **more: Any) -> None:
        self.server = server
        self.channel = channel
        self.seen = Seen()
        # The recorded pings came by the clock; here the clock has not the time for one.
        server.heard = self._heard
        # The dialogues were recorded before participants asked for TURN servers.
        given = {
            "name": "bot",
            "ping_interval": 600,
            "ice_addresses": "127.0.0.1",
            "use_turn": "off",
            "fps": 10,
        } | more
        self.participant: Participant = participant(server.url, self.seen, room=room, **given)
        self.task = asyncio.create_task(self.participant.run())

    def states(self) -> list[str]:
        """Its states, in their order."""
        return [event.state for event in self.seen.events if isinstance(event, events.StateChanged)]

    def of(self, kind: type[events.Event]) -> list[Any]:
        """Its events of one kind."""
        return [event for event in self.seen.events if isinstance(event, kind)]

    async def _heard(self) -> None:
        def ends() -> int:
            return len([event for event in self.of(events.DominantSpeakerChanged) if event.endpoint == END])

        await until(lambda: ends() == len(self.server.legs))

    async def until_leaving(self) -> None:
        """Return when all is over but the leave, and the client has seen all of it."""
        await self.server.waits_for("presence", "unavailable")
        await self.server.counted()

    async def leave(self) -> None:
        """Leave, as was done in the recording."""
        await self.until_leaving()
        self.participant.stop()
        await asyncio.wait_for(self.task, 10)

    def check(self) -> None:
        """Everything that was recorded of the client was said, alike, and nothing else."""
        unheard = [ET.tostring(element, encoding="unicode") for element in self.server.extra]
        assert unheard == [], "said, but not in the recording"
        assert differences(self.server.pairs) - SINCE.keys() == set(), "if it is meant, SINCE has to say why"
        for leg in self.server.legs:
            assert channel_differences(leg.pairs) - SINCE.keys() == set(), "if it is meant, SINCE has to say why"
            assert leg.pairs or not self.channel


@asynccontextmanager
async def call(room: str, *recordings: str, channel: str | None = None, **more: Any) -> AsyncIterator[Call]:
    """A call in ``room``; its participant is ended with it, whatever happens, and what it said is checked."""
    channel = f"bot-{room}-bridge" if channel is None else channel
    async with ReplayServer(*(recordings or (f"bot-{room}",)), channel=channel or None) as server:
        found = Call(server, room, channel, **more)
        try:
            yield found
        finally:
            found.task.cancel()
            await asyncio.gather(found.task, return_exceptions=True)
    found.check()


async def test_into_a_room_where_somebody_is() -> None:
    async with call("pair") as one:
        await one.leave()
        assert one.states() == IN_COMPANY
        [joined] = one.of(events.ConferenceJoined)
        assert (joined.occupants, joined.versions) == (2, {"focus": "1.1.SNAPSHOT"})
        [connected] = one.of(events.MediaConnected)
        assert connected.channel == "sctp"
        [left] = one.of(events.Left)
        assert left.clean
        [other] = others("bot-pair")
        assert [event.endpoint for event in one.of(events.ParticipantJoined)] == [other]
        assert {
            (event.source, event.owner) for event in one.of(events.RemoteSourceAdded) if event.owner == other
        } == {
            (f"{other}-a0", other),
            (f"{other}-v0", other),
        }
        speakers = [event.endpoint for event in one.of(events.DominantSpeakerChanged)]
        assert speakers == [*recorded_speakers("bot-pair-bridge"), END]
        assert set(speakers) <= {other, joined.endpoint, END}
        assert one.server.legs[0].pairs
        assert one.server.management.received == recorded_stanzas("bot-pair")


def others(name: str) -> list[str]:
    """The endpoints that the client of a dialogue met, in the order of their coming."""
    [own] = {
        frame.element.get("to", "")
        for frame in dialogue(name)
        if frame.sent and "/" in frame.element.get("to", "") and frame.element.tag.endswith("}presence")
    }
    room, _, nick = own.partition("/")
    senders = (frame.element.get("from", "") for frame in dialogue(name) if not frame.sent)
    met = dict.fromkeys(sender.partition("/")[2] for sender in senders if sender.startswith(f"{room}/"))
    return [endpoint for endpoint in met if endpoint not in {nick, "focus"}]


def recorded_speakers(name: str) -> list[str]:
    """Whom the bridge named in the one session of a recording."""
    [part] = channel_parts(name)
    return [message["dominantSpeakerEndpoint"] for _, message in part if "dominantSpeakerEndpoint" in message]


def recorded_stanzas(name: str) -> int:
    """Stanzas of the client that stream management counts, less pings."""
    sent = [frame.element for frame in dialogue(name) if frame.sent]
    stanzas = [element for element in sent if element.tag.startswith("{jabber:client}")]
    return len([element for element in stanzas if not is_ping(element)]) - 1  # bind comes before it


def test_whoever_mutes_and_unmutes_is_seen_to() -> None:
    [other] = others("bot-pair")
    received = [frame.element for frame in dialogue("bot-pair") if not frame.sent]
    own = next(jid for element in received if (jid := element.findtext("{*}bind/{*}jid")))
    table = OccupantTable(own[:8])
    presences = [element for element in received if element.tag == "{jabber:client}presence"]
    changes = [
        event for element in presences for event in table.feed(element) if isinstance(event, OccupantChanged)
    ]
    shown = [event.occupant.sources for event in changes if event.occupant.endpoint == other]
    assert [sources[f"{other}-v0"] for sources in shown] == [{"muted": muted} for muted in (False, True, False)]
    assert [sources[f"{other}-a0"] for sources in shown] == [{"muted": False}] * 3


async def test_alone_is_waiting_and_the_session_comes_and_goes() -> None:
    async with call("alone") as one:
        await one.leave()
        session = ["waiting_for_peers", "negotiating", "active"]
        assert one.states() == ["connecting", "joining", *session, *session, "leaving", "left"]
        assert [event.cause for event in one.of(events.MediaEnded)] == ["expired"]
        assert one.of(events.MediaFailed) == []
        assert len(one.of(events.MediaConnected)) == 2
        gone, back = (event.endpoint for event in one.of(events.ParticipantJoined))
        assert [event.endpoint for event in one.of(events.ParticipantLeft)] == [gone]
        removed = {event.source for event in one.of(events.RemoteSourceRemoved)}
        assert {f"{gone}-a0", f"{gone}-v0"} <= removed
        assert not any(source.startswith(back) for source in removed)


async def test_kicked_is_the_end_with_who_and_why() -> None:
    async with call("kicked") as one:
        with pytest.raises(KickedError):
            await asyncio.wait_for(one.task, 20)
        assert one.states() == [*IN_COMPANY[:-2], "failed"]
        [removed] = one.of(events.RemovedFromRoom)
        assert removed.code == "kicked"
        assert removed.cause.startswith("Kicked by ")
        assert others("bot-kicked")[0] in removed.cause
        assert removed.cause.endswith(": bye")
        assert one.of(events.JoinFailed) == []
        assert len(one.of(events.ConferenceJoined)) == 1


async def test_a_lost_stream_is_resumed_without_a_second_join() -> None:
    async with call("resumed", "bot-resumed-1", "bot-resumed-2") as one:
        await one.seen.wait("connection_recovered")
        await one.leave()
        assert one.states() == [*IN_COMPANY[:-2], "resuming", "active", "leaving", "left"]
        [recovered] = one.of(events.ConnectionRecovered)
        assert recovered.how == "resumed"
        for once in (events.ConferenceJoined, events.MediaConnected, events.ConnectionEstablished):
            assert len(one.of(once)) == 1
        assert one.of(events.MediaEnded) == one.of(events.MediaFailed) == []
        joins = [
            sent for _, sent in one.server.pairs if sent.find("{http://jabber.org/protocol/muc}x") is not None
        ]
        assert len(joins) == 1


async def test_the_bridge_channel_over_a_web_socket() -> None:
    async with call("websocket", bridge_channel="websocket") as one:
        await one.leave()
        assert one.states() == IN_COMPANY
        [connected] = one.of(events.MediaConnected)
        assert connected.channel == "websocket"
        assert one.of(events.BridgeChannelDegraded) == []


@pytest.mark.parametrize(("recording", "ready"), [("bot-race-1", "true"), ("bot-race-2", "false")])
async def test_two_that_start_at_once(recording: str, ready: str) -> None:
    """The one whom the focus told that it is not ready yet goes in, too: the room is there, or soon."""
    frames = [frame.element for frame in dialogue(recording)]
    _, answer = (element[0] for element in frames if element.find("{*}conference") is not None)
    assert answer.get("ready") == ready
    name = next(text for element in frames if (text := element.findtext("{*}stats-id")))
    async with call("race", recording, channel="", name=name) as one:
        await one.leave()
        assert [state for state in one.states() if state != "waiting_for_focus"] == IN_COMPANY
        assert one.of(events.FocusUnavailable) == one.of(events.AttemptFailed) == []


async def test_a_third_one_comes_and_goes() -> None:
    async with call("three") as one:
        await one.leave()
        assert one.states() == IN_COMPANY
        first, third = (event.endpoint for event in one.of(events.ParticipantJoined))
        assert [event.endpoint for event in one.of(events.ParticipantLeft)] == [third]
        added = {event.source for event in one.of(events.RemoteSourceAdded)}
        assert {f"{who}-{kind}0" for who in (first, third) for kind in "av"} <= added
        removed = {event.source for event in one.of(events.RemoteSourceRemoved)}
        assert {f"{third}-a0", f"{third}-v0"} <= removed


REWRITING, JSON_SOURCES = "http://jitsi.org/ssrc-rewriting-1", "http://jitsi.org/json-encoded-sources"


@pytest.mark.parametrize(
    ("room", "without", "channel"),
    [("sources", {REWRITING}, "sctp"), ("elements", {REWRITING, JSON_SOURCES}, "websocket")],
)
async def test_sources_that_come_and_go(
    room: str, without: set[str], channel: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Without SSRC rewriting the focus tells of sources; of those of one who left, his leaving does."""
    kept = tuple(feature for feature in features.BASE_FEATURES if feature not in without)
    monkeypatch.setattr(features, "BASE_FEATURES", kept)
    async with call(room, bridge_channel=channel) as one:
        await one.leave()
        assert one.states() == IN_COMPANY
        _, other = (event.endpoint for event in one.of(events.ParticipantJoined))
        changes = [
            (type(event), event.source)
            for event in one.seen.events
            if isinstance(event, events.RemoteSourceAdded | events.RemoteSourceRemoved) and event.owner == other
        ]
        audio, video = f"{other}-a0", f"{other}-v0"
        added, removed = events.RemoteSourceAdded, events.RemoteSourceRemoved
        # Published, withdrawn, published again, and gone with its owner.
        assert [change for change in changes if change[1] == video] == [(added, video), (removed, video)] * 2
        assert [change for change in changes if change[1] == audio] == [(added, audio), (removed, audio)]


async def test_it_answers_what_it_is_asked() -> None:
    async with call("pair") as one:
        await one.until_leaving()
        answer = await one.server.ask("get", ET.Element("{urn:xmpp:ping}ping"), "meet.jitsi")
        assert (answer.get("type"), answer.get("to"), len(answer)) == ("result", "meet.jitsi", 0)
        caps = next(element.find("{*}c") for element, _ in one.server.pairs if element.find("{*}c") is not None)
        assert caps is not None
        node = f"{caps.get('node')}#{caps.get('ver')}"
        answer = await one.server.ask(
            "get", ET.Element(features.DISCO_INFO, node=node), "pair@muc.meet.jitsi/focus"
        )
        assert (answer.get("type"), answer[0].get("node")) == ("result", node)
        told = tuple(feature.get("var", "") for feature in answer.findall(".//{*}feature"))
        assert features.caps_hash(told) == caps.get("ver")
        answer = await one.server.ask("set", ET.Element("{urn:x}unknown"), "pair@muc.meet.jitsi/focus")
        assert condition(answer) == ("cancel", "service-unavailable")  # RFC 6120 section 8.4
        await one.server.counted()
        await one.leave()


async def test_pings_are_sent_and_answered() -> None:
    async with call("pair", ping_interval=0.05) as one:
        await until(lambda: one.server.pings > 1)
        await one.leave()


# --- the replay itself --------------------------------------------------------------------------------------


async def test_a_client_that_goes_before_its_time_fails_the_replay() -> None:
    with pytest.raises(ReplayError, match="the client went"):
        async with ReplayServer("bot-pair", channel="bot-pair-bridge") as server:
            found = Call(server, "pair")
            await found.seen.wait("conference_joined")
            found.task.cancel()
            await asyncio.gather(found.task, return_exceptions=True)
            await server.waits_for("never")


async def test_a_difference_is_seen() -> None:
    with pytest.raises(AssertionError, match="somebody else"):
        async with call("pair", name="somebody else") as one:
            await one.leave()


def test_a_counter_that_runs_ahead_is_seen() -> None:
    management = Management()
    management.sent = 3
    management.acknowledge(ET.Element("a", h="3"))
    for wrong in ("4", "2"):
        with pytest.raises(ReplayError, match=f"acknowledged {wrong}"):
            management.acknowledge(ET.Element("a", h=wrong))


async def test_frames_are_taken_in_any_order() -> None:
    inbox: Inbox[int] = Inbox()
    for number in (1, 2, 3):
        inbox.put(number)
    assert [await inbox.take(lambda item, wanted=wanted: item == wanted, wanted) for wanted in (3, 1)] == [3, 1]  # type: ignore[misc]
    assert inbox.waiting == [2]
