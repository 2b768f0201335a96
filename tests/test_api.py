"""The participant for Python programs, in rooms of the embedded server."""

import asyncio
import xml.etree.ElementTree as ET
from collections.abc import AsyncIterator, Mapping
from typing import Any

import pytest
import pytest_asyncio
from av import AudioFrame, VideoFrame

from bot import events
from bot.api import BACKLOG, Participant
from bot.embedded.config import EmbeddedConfig, RoomPolicy
from bot.embedded.server import EmbeddedServer
from bot.errors import (
    BridgeMessageError,
    ConfigurationError,
    ConnectionRefusedByHostError,
    RoomDestroyedError,
    RoomError,
    RoomPasswordError,
)
from bot.media.synthetic import SyntheticVideoTrack
from tests.bridge_support import until as holds
from tests.prosody import free_port

DESTROY = """<iq xmlns="jabber:client" type="set" id="1"
from="focus@auth.meet.jitsi/focus" to="room@muc.meet.jitsi">
<query xmlns="http://jabber.org/protocol/muc#owner"><destroy><reason>over</reason></destroy></query></iq>"""


@pytest_asyncio.fixture
async def server() -> AsyncIterator[EmbeddedServer]:
    found = EmbeddedServer(port=0, config=EmbeddedConfig(rooms={"closed": RoomPolicy(password="x")}))
    await found.start()
    yield found
    await found.stop()


def someone(server: EmbeddedServer, room: str = "room", **settings: Any) -> Participant:
    return Participant(server.url, room, ice_addresses="127.0.0.1", **settings)


async def until(me: Participant, kind: type[events.Event], count: int = 1) -> list[events.Event]:
    """The events up to the ``count``-th of ``kind``."""
    found: list[events.Event] = []
    async with asyncio.timeout(20):
        async for event in me.events():
            found.append(event)
            if sum(isinstance(item, kind) for item in found) == count:
                return found
    raise AssertionError(f"no {kind.name}")


async def test_it_joins_hears_and_sees_another_and_leaves(server: EmbeddedServer) -> None:
    async with someone(server, name="one", decode="all") as one, someone(server, name="two") as two:
        assert [item.nick for item in one.others.values()] == ["two"]
        before = await until(one, events.RemoteSourceAdded, 4)  # two of the bridge, two of the other
        assert "connection_creating" in [event.name for event in before]
        async with asyncio.timeout(20):
            while len(one.tracks) < 2:
                await until(one, events.RemoteSourceAdded)
            video = await one.tracks[f"{two.endpoint}-v0"].recv()
            audio = await one.tracks[f"{two.endpoint}-a0"].recv()
        assert isinstance(video, VideoFrame)
        assert (video.width, video.height) == (640, 360)
        assert isinstance(audio, AudioFrame)
        assert repr(one) == "<Participant one in room: active>"
        assert {item.source for item in one.streams} >= {f"{two.endpoint}-v0", f"{two.endpoint}-a0"}
        track = one.tracks[f"{two.endpoint}-a0"]
    assert track.readyState == "ended"
    assert one.endpoint == ""
    assert dict(one.others) == {}


async def test_layouts_sources_and_messages_over_the_bridge(server: EmbeddedServer) -> None:
    one, two = someone(server, name="one"), someone(server, name="two", video="none")
    two.set_layout(mode="audio-only")  # holds for whatever stays come
    async with one, two:
        one.set_layout(mode="stage", height=720)
        await until(one, events.DominantSpeakerChanged)
        await until(two, events.MediaConnected)
        await holds(lambda: f"{two.endpoint}-a0" in one.sources)
        source = one.sources[f"{two.endpoint}-a0"]
        assert (source.endpoint, source.media, source.muted) == (two.endpoint, "audio", False)
        hub = next(iter(server.bridge.conferences.values())).hub

        def wanted(who: Participant) -> Mapping[str, Any]:
            return hub._endpoints[who.endpoint].constraints or {}

        await holds(lambda: wanted(one).get("onStageSources") == [f"{two.endpoint}-v0"])
        await holds(lambda: wanted(two).get("lastN") == 0)
        one.subscribe_audio(exclude=[f"{two.endpoint}-a0"])
        one.send_endpoint_message({"n": 1}, two.endpoint)
        heard = (await until(two, events.EndpointMessageReceived))[-1]
        assert isinstance(heard, events.EndpointMessageReceived)
        assert (heard.endpoint, heard.payload) == (one.endpoint, {"n": 1})
    with pytest.raises(BridgeMessageError, match="no media session"):
        one.send_endpoint_message({})
    assert one.sources == {}


async def test_who_can_not_join_hears_why(server: EmbeddedServer) -> None:
    with pytest.raises(RoomPasswordError, match="JITSI_ROOM_PASSWORD"):
        async with someone(server, "closed"):
            pass
    with pytest.raises(ConnectionRefusedByHostError):
        async with Participant(f"ws://127.0.0.1:{free_port()}", "room", retries=0):
            pass
    with pytest.raises(ConfigurationError, match="did you mean 'room_password'"):
        Participant(server.url, "room", room_passwort="x")


async def test_a_join_that_is_cancelled_leaves_nobody_behind() -> None:
    connected = asyncio.Event()

    gone = asyncio.Event()

    async def say_nothing(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        connected.set()
        while await reader.read(4096):
            pass
        writer.close()
        gone.set()

    port = free_port()
    silent = await asyncio.start_server(say_nothing, "127.0.0.1", port)

    async def join() -> None:
        async with Participant(f"ws://127.0.0.1:{port}", "room"):
            raise AssertionError("nobody is there")

    task = asyncio.create_task(join())
    await asyncio.wait_for(connected.wait(), 5)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    await asyncio.wait_for(gone.wait(), 5)
    silent.close()
    await silent.wait_closed()


async def test_a_stay_that_is_ended_says_so(server: EmbeddedServer) -> None:
    async with someone(server, name="one") as one:
        server.send(ET.fromstring(DESTROY))
        with pytest.raises(RoomDestroyedError):
            await asyncio.wait_for(one.wait_left(), 5)
        with pytest.raises(RoomDestroyedError):
            await until(one, events.Left)


async def test_events_end_with_the_stay(server: EmbeddedServer) -> None:
    heard: list[str] = []

    async def listen(me: Participant) -> None:
        heard.extend([event.name async for event in me.events()])

    async with someone(server, name="one") as one:
        listener = asyncio.create_task(listen(one))
        await asyncio.sleep(0)
    await asyncio.wait_for(listener, 5)
    assert heard.index("connection_creating") < heard.index("conference_joined") < heard.index("left")


async def test_a_reader_that_is_slow_loses_the_oldest(server: EmbeddedServer) -> None:
    async with someone(server, name="one") as one:
        for number in range(BACKLOG + 10):
            one._on_event(events.CoolDown(room="room", participant="one", delay=float(number)))
        first = await anext(aiter(one.events()))
        assert isinstance(first, events.CoolDown)
        assert first.delay == 10.0


async def test_what_it_publishes_is_its_own_to_change(server: EmbeddedServer) -> None:
    me = someone(server, name="one")
    me.own.mute("audio")
    desk = SyntheticVideoTrack("room", "desk", 160, 90)
    async with me as one, someone(server, name="two") as two:
        assert await one.own.add_source(desk) == "v1"
        wanted = {"a0": True, "v0": False, "v1": False}
        async with asyncio.timeout(20):
            while True:
                shown = {name[-2:]: info for name, info in two.others[one.endpoint].sources.items()}
                if {name: info["muted"] for name, info in shown.items()} == wanted:  # type: ignore[index]
                    break
                await asyncio.sleep(0.02)
        await until(two, events.RemoteSourceAdded, 5)
    assert desk.readyState == "live"
    desk.stop()


async def test_who_is_in_no_room_can_not_speak_there(server: EmbeddedServer) -> None:
    me = someone(server)
    with pytest.raises(RoomError, match="in no room"):
        me.room.raise_hand()
    async with me:
        me.room.raise_hand()
        me.room.set_name("another")
    with pytest.raises(RoomError):
        me.room.send_chat("gone")
