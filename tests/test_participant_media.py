"""Participants with media: Debian's Prosody and nginx, with our focus and bridge as a component of it."""

import asyncio
from collections.abc import AsyncIterator, Callable
from xml.etree import ElementTree as ET

import pytest
import pytest_asyncio
from structlog.testing import capture_logs

from bot import events
from bot.embedded.bridge import Endpoint
from bot.embedded.component import AttachedFocus, ComponentPort, component_focus_config
from bot.embedded.orders import FocusConfig
from bot.participant.participant import Participant
from tests.prosody import Stack
from tests.test_participant_prosody import Seen, participant

pytestmark = pytest.mark.prosody

ROOM = "jitsi-bot@muc.meet.jitsi"


class Focus(AttachedFocus):
    """The focus and bridge at Prosody; keeps the stanza errors that it was answered with."""

    def __init__(self, port: int) -> None:
        config = FocusConfig(single_participant_timeout=0.3)
        domain = "focus.meet.jitsi"
        super().__init__(
            ComponentPort("127.0.0.1", port, domain, "secret"), component_focus_config(domain, config)
        )
        self.errors: list[str] = []
        take = self.service.feed

        def feed(stanza: ET.Element) -> None:
            if stanza.get("type") == "error":
                self.errors.append(ET.tostring(stanza, encoding="unicode"))
            take(stanza)

        self.service.feed = feed  # type: ignore[method-assign]

    @property
    def endpoints(self) -> dict[str, Endpoint]:
        """The bridge's sides by endpoint id."""
        return self.bridge.conferences[ROOM].endpoints


@pytest_asyncio.fixture
async def focus(stack: Stack) -> AsyncIterator[Focus]:
    async with Focus(stack.component) as found:
        yield found


def bot(stack: Stack, seen: Seen, name: str = "bot", channel: str = "sctp") -> Participant:
    return participant(stack.url, seen, name=name, ice_addresses="127.0.0.1", bridge_channel=channel)


async def until(true: Callable[[], bool]) -> None:
    """Wait until ``true()``."""
    async with asyncio.timeout(20):
        while not true():  # noqa: ASYNC110 - of states that nobody announces
            await asyncio.sleep(0.02)


async def received(bot: Participant, count: int) -> None:
    """Wait until ``bot`` has received ``count`` packets."""

    def enough() -> bool:
        media = bot.conference.media if bot.conference else None
        return media is not None and media.received.packets >= count

    await until(enough)


def endpoint_of(bot: Participant) -> str:
    """The id of ``bot`` in the room and on the bridge."""
    assert bot.conference is not None
    return bot.conference.room.own.partition("/")[2]


async def stop(*running: tuple[Participant, asyncio.Task[None]]) -> None:
    """Stop participants one after the other: the focus still talks to one who goes while it looks elsewhere."""
    for who, task in running:
        who.stop()
        await asyncio.wait_for(task, 10)


async def test_two_bots_publish_and_receive_each_other(stack: Stack, focus: Focus) -> None:
    seen, other = Seen(), Seen()
    one, two = bot(stack, seen, "one"), bot(stack, other, "two")
    tasks = [asyncio.create_task(one.run()), asyncio.create_task(two.run())]
    connected = await seen.wait("media_connected")
    assert isinstance(connected, events.MediaConnected)
    assert set(connected.phases) == {"offer", "ice", "dtls"}
    await other.wait("media_connected")
    assert str(one.state) == str(two.state) == "active"
    await received(one, 100)
    await received(two, 100)
    assert one.conference is not None
    assert one.conference.media is not None
    streams = one.conference.media.received.streams.values()
    assert sorted(stream.payload_type for stream in streams) == [100, 111]
    assert all(stream.lost == 0 for stream in streams)
    assert all(stream.first_frame is not None for stream in streams)
    assert one.conference.media.sent[0] > 50
    members = focus.service.focus.conferences[ROOM].members
    assert set(members) == set(focus.endpoints) == {endpoint_of(one), endpoint_of(two)}
    for name, member in members.items():
        names = {source.name for source in (*member.sources.audio.sources, *member.sources.video.sources)}
        assert names == {f"{name}-a0", f"{name}-v0"}
    await channel_messages(focus, endpoint_of(one), seen)
    await channel_messages(focus, endpoint_of(two), other)
    me = one.conference.room.occupants.me
    assert me is not None
    assert set(me.sources) == {f"{me.endpoint}-a0", f"{me.endpoint}-v0"}
    assert {member.affiliation for member in members.values()} == {"owner", "none"}
    assert focus.errors == []  # later ones tell that somebody has left while he was spoken to
    await stop((one, tasks[0]), (two, tasks[1]))


async def channel_messages(focus: Focus, name: str, watched: Seen) -> None:
    """The channel of one endpoint, both ways."""
    endpoint = focus.endpoints[name]
    await until(lambda: endpoint.sctp_open)
    assert endpoint.web_socket is None
    hub = focus.bridge.conferences[ROOM].hub
    await until(lambda: hub._endpoints[name].constraints is not None)
    wanted = hub._endpoints[name].constraints
    assert wanted is not None
    assert wanted["colibriClass"] == "ReceiverVideoConstraints"
    assert wanted["defaultConstraints"] == {"maxHeight": 360}
    endpoint.say({"colibriClass": "DominantSpeakerEndpointChangeEvent", "dominantSpeakerEndpoint": "abc"})
    await until(lambda: "abc" in told(watched, "dominant_speaker_changed", "endpoint"))
    entry = {"source": "abc-v0", "owner": "abc", "ssrc": 5}
    endpoint.say({"colibriClass": "VideoSourcesMap", "mappedSources": [entry, "broken"]})
    await until(lambda: "abc-v0" in told(watched, "remote_source_added", "source"))
    assert 5 in told(watched, "remote_source_added", "ssrc")


def told(seen: Seen, name: str, field: str) -> list[object]:
    """One field of all events called ``name``."""
    return [event.as_dict()[field] for event in seen.events if event.name == name]


async def test_the_channel_over_the_web_socket_hears_who_speaks(stack: Stack, focus: Focus) -> None:
    seen, other = Seen(), Seen()
    one, two = bot(stack, seen, "one", "websocket"), bot(stack, other, "two")
    tasks = [asyncio.create_task(one.run()), asyncio.create_task(two.run())]
    await seen.wait("dominant_speaker_changed")
    assert focus.endpoints[endpoint_of(one)].web_socket is not None
    far = endpoint_of(two)
    await until(lambda: {f"{far}-a0", f"{far}-v0"} <= set(told(seen, "remote_source_added", "source")))
    assert focus.errors == []  # later ones tell that somebody has left while he was spoken to
    await stop((one, tasks[0]), (two, tasks[1]))


async def test_a_session_taken_away_and_given_again(stack: Stack, focus: Focus) -> None:
    seen, other = Seen(), Seen()
    one, two, three = bot(stack, seen), bot(stack, other, "two"), bot(stack, Seen(), "three")
    task, leaving = asyncio.create_task(one.run()), asyncio.create_task(two.run())
    await seen.wait("media_connected")
    await other.wait("media_connected")
    await other.wait("remote_source_added", 2)  # the focus has nothing more to say to him
    await stop((two, leaving))
    await seen.wait("media_ended")
    assert str(one.state) == "waiting_for_peers"
    assert list(focus.service.focus.conferences[ROOM].members) == [endpoint_of(one)]
    coming = asyncio.create_task(three.run())
    await seen.wait("media_connected", 2)
    assert str(one.state) == "active"
    assert "media_failed" not in seen.names()
    # The one who has left may have been spoken to in that moment: the room says so.
    assert [error for error in focus.errors if "Recipient not in room" not in error] == []
    await stop((one, task), (three, coming))
    await until(lambda: not focus.service.focus.conferences)


async def test_media_goes_on_while_the_bridge_is_gone_a_new_session_is_asked_for(
    stack: Stack, focus: Focus
) -> None:
    seen = Seen()
    one, two = bot(stack, seen), bot(stack, Seen(), "two")
    tasks = [asyncio.create_task(one.run()), asyncio.create_task(two.run())]
    await seen.wait("media_connected")
    await received(two, 1)
    name = endpoint_of(one)
    before = focus.endpoints[name]
    await before.close()
    failed = await seen.wait("media_failed")
    assert isinstance(failed, events.MediaFailed)
    await seen.wait("media_connected", 2)
    assert len(focus.service.focus.conferences[ROOM].members[name].restarts) == 1
    assert focus.endpoints[name].sid != before.sid
    assert focus.errors == []  # later ones tell that somebody has left while he was spoken to
    await stop((one, tasks[0]), (two, tasks[1]))


async def test_a_prosody_that_stops_ends_the_component(stack: Stack, focus: Focus) -> None:
    with capture_logs() as logs:
        await stack.stop()
        await asyncio.wait_for(focus.port.wait_closed(), 10)
        await asyncio.sleep(0)
    assert [line["domain"] for line in logs if line["event_name"] == "component_lost"] == ["focus.meet.jitsi"]
