"""The colibri WebSocket against a scripted bridge, and a participant that uses it in the embedded server."""

import asyncio
from collections.abc import AsyncIterator

import pytest
import pytest_asyncio
from aiohttp import WSMsgType, web

from bot import events
from bot.bridge.channel import Message, pick_channel
from bot.bridge.websocket import OUTBOX, WebSocketBridgeChannel
from bot.embedded.server import EmbeddedServer
from bot.errors import BridgeChannelError
from bot.jingle.model import SctpMap, Transport
from tests.prosody import free_port
from tests.test_embedded_server import bot
from tests.test_participant_prosody import Seen, participant

HELLO = {"colibriClass": "ServerHello"}


class ScriptedBridge:
    """Greets, keeps what it is sent, and answers ``refuse`` with that status."""

    def __init__(self) -> None:
        self.got: asyncio.Queue[str] = asyncio.Queue()
        self.refuse: int | None = None
        self.sockets: list[web.WebSocketResponse] = []
        self.url = ""

    async def handle(self, request: web.Request) -> web.StreamResponse:
        if self.refuse is not None:
            return web.Response(status=self.refuse)
        socket = web.WebSocketResponse()
        await socket.prepare(request)
        self.sockets.append(socket)
        await socket.send_str("broken")
        await socket.send_json({"colibriClass": "Breaker"})
        await socket.send_json(HELLO)
        async for message in socket:
            if message.type is WSMsgType.TEXT:
                self.got.put_nowait(message.data)
        return socket


@pytest_asyncio.fixture
async def bridge() -> AsyncIterator[ScriptedBridge]:
    found = ScriptedBridge()
    application = web.Application()
    application.router.add_get("/colibri-ws", found.handle)
    runner = web.AppRunner(application, access_log=None, shutdown_timeout=1.0)
    await runner.setup()
    port = free_port()
    await web.TCPSite(runner, "127.0.0.1", port).start()
    found.url = f"ws://127.0.0.1:{port}/colibri-ws?pwd=x"
    yield found
    for socket in found.sockets:
        await socket.close()
    await runner.cleanup()


async def test_messages_go_both_ways_and_a_broken_one_ends_nothing(bridge: ScriptedBridge) -> None:
    received: asyncio.Queue[Message] = asyncio.Queue()

    def sink(message: Message) -> None:
        if message["colibriClass"] == "Breaker":
            raise ValueError("a receiver that breaks")
        received.put_nowait(message)

    channel = WebSocketBridgeChannel(bridge.url, sink)
    channel.send({"colibriClass": "TooEarly"})
    await channel.open(5)
    assert await asyncio.wait_for(received.get(), 5) == HELLO
    channel.send({"colibriClass": "EndpointStats"})
    assert await asyncio.wait_for(bridge.got.get(), 5) == '{"colibriClass": "EndpointStats"}'
    assert repr(channel) == "<WebSocketBridgeChannel open>"
    await bridge.sockets[0].close()
    await asyncio.wait_for(channel.wait_closed(), 5)
    await channel.open(5)
    assert await asyncio.wait_for(received.get(), 5) == HELLO
    await channel.close()
    await channel.close()
    assert repr(channel) == "<WebSocketBridgeChannel closed>"


async def test_a_refusal_says_what_the_bridge_answered(bridge: ScriptedBridge) -> None:
    bridge.refuse = 403
    channel = WebSocketBridgeChannel(bridge.url, lambda _: None)
    with pytest.raises(BridgeChannelError, match=r"403 .*colibri-ws"):
        await channel.open(5)
    await channel.close()


async def test_nobody_there_is_said() -> None:
    channel = WebSocketBridgeChannel(f"ws://127.0.0.1:{free_port()}/", lambda _: None)
    with pytest.raises(BridgeChannelError, match="can't be opened"):
        await channel.open(5)
    await channel.close()


async def test_a_channel_that_is_far_behind_is_given_up(bridge: ScriptedBridge) -> None:
    channel = WebSocketBridgeChannel(bridge.url, lambda _: None)
    await channel.open(5)
    for _ in range(OUTBOX + 1):
        channel.send({"colibriClass": "EndpointStats"})
    await asyncio.wait_for(channel.wait_closed(), 5)
    await channel.close()


@pytest.mark.parametrize(
    ("wanted", "both", "sctp", "websocket"),
    [
        ("auto", "sctp", "sctp", "websocket"),
        ("sctp", "sctp", "sctp", None),
        ("websocket", "websocket", None, "websocket"),
        ("none", None, None, None),
    ],
)
def test_the_kind_is_what_is_wanted_of_what_is_offered(
    wanted: str, both: str | None, sctp: str | None, websocket: str | None
) -> None:
    url = "wss://meet.example.com/colibri-ws/1"
    assert pick_channel(Transport(sctp=SctpMap(), web_socket_url=url), wanted) == both
    assert pick_channel(Transport(sctp=SctpMap()), wanted) == sctp
    assert pick_channel(Transport(web_socket_url=url), wanted) == websocket
    assert pick_channel(Transport(), wanted) is None


async def test_a_participant_keeps_its_websocket_channel() -> None:
    server = EmbeddedServer(port=0)
    await server.start()
    seen, other = Seen(), Seen()
    one = participant(server.url, seen, ice_addresses="127.0.0.1", bridge_channel="websocket", name="one")
    two = bot(server, other, "two")
    tasks = [asyncio.create_task(one.run()), asyncio.create_task(two.run())]
    connected = await seen.wait("media_connected")
    assert isinstance(connected, events.MediaConnected)
    assert connected.channel == "websocket"
    await seen.wait("dominant_speaker_changed")
    (conference,) = server.bridge.conferences.values()
    (socket,) = [item.web_socket for item in conference.endpoints.values() if item.web_socket is not None]
    await socket.close()
    await seen.wait("bridge_channel_degraded")
    recovered = await seen.wait("bridge_channel_recovered")
    assert isinstance(recovered, events.BridgeChannelRecovered)
    assert "media_failed" not in seen.names()
    one.stop()
    two.stop()
    await asyncio.wait_for(asyncio.gather(*tasks), 15)
    await server.stop()
