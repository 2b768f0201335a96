"""The embedded server with our own participants: rooms, focus, forwarding bridge, resumption. No browser here."""

import asyncio
from collections.abc import AsyncIterator

import aiohttp
import pytest
import pytest_asyncio

from bot import events
from bot.embedded.server import EmbeddedServer
from bot.errors import ConfigurationError
from bot.participant.participant import Participant
from tests.test_participant_media import received
from tests.test_participant_prosody import Seen, participant


@pytest_asyncio.fixture
async def server() -> AsyncIterator[EmbeddedServer]:
    found = EmbeddedServer(port=0)
    await found.start()
    yield found
    await found.stop()


def bot(server: EmbeddedServer, seen: Seen, name: str) -> Participant:
    return participant(server.url, seen, name=name, ice_addresses="127.0.0.1")


async def test_two_bots_have_each_others_media_and_lose_nothing(server: EmbeddedServer) -> None:
    seen, other = Seen(), Seen()
    one, two = bot(server, seen, "one"), bot(server, other, "two")
    tasks = [asyncio.create_task(one.run()), asyncio.create_task(two.run())]
    connected = await seen.wait("media_connected")
    assert isinstance(connected, events.MediaConnected)
    assert connected.channel == "sctp"
    await received(one, 150)
    await received(two, 150)
    assert one.conference is not None
    assert one.conference.media is not None
    streams = one.conference.media.received.streams.values()
    assert sorted(stream.payload_type for stream in streams) == [100, 111]
    assert all(stream.lost == 0 for stream in streams)
    assert two.conference is not None
    far = two.conference.room.own.partition("/")[2]
    named = {event.source for event in seen.events if isinstance(event, events.RemoteSourceAdded)}
    assert {f"{far}-a0", f"{far}-v0"} <= named
    one.stop()
    two.stop()
    await asyncio.wait_for(asyncio.gather(*tasks), 15)
    assert "join_failed" not in seen.names() + other.names()


async def test_a_bot_alone_waits_and_its_lost_connection_is_resumed(server: EmbeddedServer) -> None:
    seen = Seen()
    one = bot(server, seen, "one")
    task = asyncio.create_task(one.run())
    await seen.wait("local_tracks_created")
    assert str(one.state) == "waiting_for_peers"
    server.drop_connections()
    recovered = await seen.wait("connection_recovered")
    assert isinstance(recovered, events.ConnectionRecovered)
    assert recovered.how == "resumed"
    one.stop()
    await asyncio.wait_for(task, 15)


async def test_its_page_says_what_it_is(server: EmbeddedServer) -> None:
    address = server.url.replace("ws://", "http://")
    async with aiohttp.ClientSession() as session, session.get(address) as answer:
        assert answer.status == 200
        assert "loopback only" in await answer.text()


@pytest.mark.parametrize("host", ["0.0.0.0", "192.0.2.1", "example.com"])
async def test_other_addresses_than_loopback_are_refused(host: str) -> None:
    with pytest.raises(ConfigurationError, match="loopback"):
        EmbeddedServer(host)
