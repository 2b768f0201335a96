"""Participants with media: Debian's Prosody and nginx, a focus and a forwarding bridge attached to them."""

import asyncio
from collections.abc import AsyncIterator

import pytest
import pytest_asyncio

from bot import events
from bot.participant.participant import Participant
from tests.focus import Focus
from tests.prosody import Stack
from tests.test_participant_prosody import Seen, participant

pytestmark = pytest.mark.prosody


@pytest_asyncio.fixture
async def focus(stack: Stack) -> AsyncIterator[Focus]:
    found = Focus(stack.component, "jitsi-bot@muc.meet.jitsi")
    await found.start()
    yield found
    await found.stop()


async def received(bot: Participant, count: int) -> None:
    """Wait until ``bot`` has received ``count`` packets."""
    async with asyncio.timeout(20):
        while True:
            media = bot.conference.media if bot.conference else None
            if media is not None and media.received.packets >= count:
                return
            await asyncio.sleep(0.02)


async def test_two_bots_publish_and_receive_each_other(stack: Stack, focus: Focus) -> None:
    seen, other = Seen(), Seen()
    one = participant(stack.url, seen, name="one", ice_addresses="127.0.0.1")
    two = participant(stack.url, other, name="two", ice_addresses="127.0.0.1")
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
    for leg in focus.legs.values():
        assert leg.accept is not None
        names = {source.name for source in (*leg.accept.sources.audio.sources, *leg.accept.sources.video.sources)}
        assert names == {f"{leg.endpoint}-a0", f"{leg.endpoint}-v0"}
    for leg, watched in (
        (leg, seen if leg.endpoint in str(one.conference.room.own) else other) for leg in focus.legs.values()
    ):
        wanted = await asyncio.wait_for(leg.messages.get(), 10)
        assert wanted["colibriClass"] == "ReceiverVideoConstraints"
        assert wanted["defaultConstraints"] == {"maxHeight": 360}
        leg.channel.send({"colibriClass": "DominantSpeakerEndpointChangeEvent", "dominantSpeakerEndpoint": "abc"})
        speaker = await watched.wait("dominant_speaker_changed")
        assert speaker.as_dict()["endpoint"] == "abc"
        before = watched.names().count("remote_source_added")
        entry = {"source": "abc-v0", "owner": "abc", "ssrc": 5}
        leg.channel.send({"colibriClass": "VideoSourcesMap", "mappedSources": [entry, "broken"]})
        added = await watched.wait("remote_source_added", before + 1)
        assert (added.as_dict()["source"], added.as_dict()["ssrc"]) == ("abc-v0", 5)
    me = one.conference.room.occupants.me
    assert me is not None
    assert set(me.sources) == {f"{me.endpoint}-a0", f"{me.endpoint}-v0"}
    one.stop()
    two.stop()
    await asyncio.wait_for(asyncio.gather(*tasks), 10)
    assert focus.errors == []


async def test_a_session_taken_away_and_given_again(stack: Stack, focus: Focus) -> None:
    seen = Seen()
    one = participant(stack.url, seen, ice_addresses="127.0.0.1")
    task = asyncio.create_task(one.run())
    await seen.wait("media_connected")
    (endpoint,) = focus.legs
    focus.take_away(endpoint)
    await seen.wait("media_ended")
    assert str(one.state) == "waiting_for_peers"
    focus.offer_again(endpoint)
    await seen.wait("media_connected", 2)
    assert str(one.state) == "active"
    one.stop()
    await asyncio.wait_for(task, 10)


async def test_media_goes_on_while_the_bridge_is_gone_a_new_session_is_asked_for(
    stack: Stack, focus: Focus
) -> None:
    seen = Seen()
    one = participant(stack.url, seen, ice_addresses="127.0.0.1")
    task = asyncio.create_task(one.run())
    await seen.wait("media_connected")
    (leg,) = focus.legs.values()
    await leg.close()
    failed = await seen.wait("media_failed")
    assert isinstance(failed, events.MediaFailed)
    async with asyncio.timeout(10):
        while not (await focus.stanzas.get()).startswith("session-terminate"):
            pass
    focus.offer_again(leg.endpoint)
    await seen.wait("media_connected", 2)
    one.stop()
    await asyncio.wait_for(task, 10)
