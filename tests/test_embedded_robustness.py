"""The embedded server's sockets and tasks: bad input costs one log line, the proper end, and bounded memory."""

from __future__ import annotations

import asyncio
import random
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import aiohttp
import pytest
import pytest_asyncio
from structlog.testing import capture_logs

from bot.embedded import server as server_module
from bot.embedded.bridge import QUEUE, Bridge, Endpoint
from bot.embedded.config import EmbeddedConfig
from bot.embedded.offer import Features, bridge_sources
from bot.embedded.owner import Alarm, Tasks
from bot.embedded.server import EmbeddedServer, focus_config
from bot.embedded.service import FocusService
from bot.embedded.stanza import parse_frame
from bot.errors import ConfigurationError, DtlsFailedError, IceFailedError
from bot.jingle.model import MediaSources, Source, SourceMap, Transport
from tests.embedded_support import AUTH, BIND, ENABLE, OPEN, condition
from tests.jingle_support import own_transport
from tests.test_embedded_focus import Stage, two_in_a_call

PING = '<iq type="get" id="{}" to="meet.jitsi" xmlns="jabber:client"><ping xmlns="urn:xmpp:ping"/></iq>'
CONFIG = EmbeddedConfig(max_frame_bytes=10_000)


@pytest_asyncio.fixture
async def server() -> AsyncIterator[EmbeddedServer]:
    found = EmbeddedServer(port=0, config=CONFIG)
    await found.start()
    yield found
    await found.stop()


@pytest_asyncio.fixture
async def http() -> AsyncIterator[aiohttp.ClientSession]:
    async with aiohttp.ClientSession() as session:
        yield session


@asynccontextmanager
async def websocket(
    http: aiohttp.ClientSession, server: EmbeddedServer
) -> AsyncIterator[aiohttp.ClientWebSocketResponse]:
    async with http.ws_connect(f"{server.url}/xmpp-websocket", protocols=("xmpp",)) as socket:
        yield socket


async def until(true: Callable[[], bool]) -> None:
    async with asyncio.timeout(10):
        while not true():  # noqa: ASYNC110 - of states that nobody announces
            await asyncio.sleep(0.01)


async def way_in(socket: aiohttp.ClientWebSocketResponse) -> None:
    for frame, answers in ((OPEN, 2), (AUTH, 1), (OPEN, 2), (BIND, 1), (ENABLE, 1)):
        await socket.send_str(frame)
        for _ in range(answers):
            await socket.receive_str(timeout=5)


async def lives(socket: aiohttp.ClientWebSocketResponse) -> bool:
    """Whether a ping over it is answered."""
    await socket.send_str(PING.format("p"))
    return "result" in await socket.receive_str(timeout=5)


def names(logs: list[Any]) -> list[str]:
    return [line["event_name"] for line in logs]


# --- the XMPP WebSocket -------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("frame", "name", "cause"),
    [
        ("<presence><x></presence>", "embedded_stream_failed", "not well-formed"),
        ("<a>" * 500 + "</a>" * 500, "embedded_stream_failed", "inside each other"),
        ("<message><body>" + "x" * 20_000, "embedded_frame_refused", "10000"),
        (b"\x00\x01", "embedded_frame_refused", "binary"),
    ],
)
async def test_bad_frames_end_their_own_stream_with_one_log_line(
    server: EmbeddedServer, http: aiohttp.ClientSession, frame: str | bytes, name: str, cause: str
) -> None:
    async with websocket(http, server) as good, websocket(http, server) as bad:
        await way_in(good)
        await way_in(bad)
        with capture_logs() as logs:
            await (bad.send_str(frame) if isinstance(frame, str) else bad.send_bytes(frame))
            while (await bad.receive(timeout=5)).type is aiohttp.WSMsgType.TEXT:
                pass
            assert bad.closed
            assert await lives(good)
        assert names(logs) == [name]
        assert cause in logs[0]["cause"]
        await until(lambda: len(server._clients) == 1)


async def test_a_hundred_bad_clients_leave_nothing_behind(
    server: EmbeddedServer, http: aiohttp.ClientSession
) -> None:
    async def bad() -> None:
        async with websocket(http, server) as socket:
            await socket.send_str("<broken")
            while not socket.closed:
                await socket.receive(timeout=5)

    with capture_logs() as logs:
        await asyncio.gather(*(bad() for _ in range(100)))
        await until(lambda: not server._clients)
    assert names(logs) == ["embedded_stream_failed"] * 100
    assert server.core._connections == {}
    assert server.core.sessions == ()


async def test_a_client_that_does_not_read_is_given_up_with_one_log_line(
    server: EmbeddedServer, http: aiohttp.ClientSession, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(server_module, "OUTBOX", 20)
    async with websocket(http, server) as socket:
        await way_in(socket)
        [jid] = server.core.sessions
        with capture_logs() as logs:
            for number in range(100):
                server.send(parse_frame(f'<message from="meet.jitsi" to="{jid}" id="m{number}"/>'))
            await until(lambda: not server._clients)
        assert names(logs) == ["embedded_client_slow"]
        # It may come back: what it missed waits with its session.
        assert server.core.sessions == (jid,)


async def test_a_client_that_does_not_read_long_stanzas_is_given_up_sooner(
    server: EmbeddedServer, http: aiohttp.ClientSession, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with websocket(http, server) as socket:
        await way_in(socket)
        [jid] = server.core.sessions
        monkeypatch.setattr(server_module, "OUTBOX_SIZE", 1000)
        for _ in range(3):
            server.send(parse_frame(f'<message from="meet.jitsi" to="{jid}"><body>{"x" * 800}</body></message>'))
            assert "x" * 800 in await socket.receive_str(timeout=5)
        with capture_logs() as logs:
            for _ in range(2):
                server.send(
                    parse_frame(f'<message from="meet.jitsi" to="{jid}"><body>{"x" * 800}</body></message>')
                )
            await until(lambda: not server._clients)
        assert names(logs) == ["embedded_client_slow"]


async def test_a_request_that_the_focus_refuses_is_one_log_line(
    server: EmbeddedServer, http: aiohttp.ClientSession
) -> None:
    async with websocket(http, server) as socket:
        await way_in(socket)
        with capture_logs() as logs:
            await socket.send_str(
                '<iq type="set" id="c" to="focus.meet.jitsi" xmlns="jabber:client">'
                '<conference xmlns="http://jitsi.org/protocol/focus" room="nowhere"/></iq>'
            )
            answer = parse_frame(await socket.receive_str(timeout=5))
    assert condition(answer) == ("modify", "bad-request")
    assert names(logs) == ["embedded_request_refused"]
    assert logs[0]["condition"] == "bad-request"
    assert "must be a room" in logs[0]["cause"]


# --- around it ----------------------------------------------------------------------------------------------


async def test_what_is_no_xmpp_web_socket(server: EmbeddedServer, http: aiohttp.ClientSession) -> None:
    address = server.url.replace("ws://", "http://")
    async with http.get(f"{address}/xmpp-websocket") as answer:
        assert "sub-protocol xmpp" in await answer.text()
    async with http.post(f"{address}/http-bind") as answer:
        assert answer.status == 501
    with pytest.raises(aiohttp.WSServerHandshakeError, match="400"):
        await http.ws_connect(f"{server.url}/xmpp-websocket", protocols=("other",))


async def test_a_port_that_is_taken_is_a_configuration_error(server: EmbeddedServer) -> None:
    with pytest.raises(ConfigurationError, match=f"can't listen on 127.0.0.1:{server.port}"):
        await EmbeddedServer(port=server.port).start()


async def test_static_files_are_served_beside_it(tmp_path: Path, http: aiohttp.ClientSession) -> None:
    (tmp_path / "a.txt").write_text("hello")
    found = EmbeddedServer(port=0, static={"/files": tmp_path})
    await found.start()
    try:
        async with http.get(f"http://127.0.0.1:{found.port}/files/a.txt") as answer:
            assert await answer.text() == "hello"
    finally:
        await found.stop()


def test_an_address_of_ipv6_is_in_brackets() -> None:
    async def url() -> str:
        return EmbeddedServer("::1", 8000).url

    assert asyncio.run(url()) == "ws://[::1]:8000"


def test_the_focus_is_told_of_the_whole_configuration() -> None:
    config = EmbeddedConfig(min_participants=1, owner_delay=2.0, auth_domain="a.example", muc_domain="m.example")
    found = focus_config(config)
    assert (found.jid, found.muc_domain) == ("focus@a.example/focus", "m.example")
    assert (found.min_participants, found.owner_delay) == (1, 2.0)


async def test_a_server_that_stops_says_goodbye(http: aiohttp.ClientSession) -> None:
    found = EmbeddedServer(port=0)
    await found.start()
    async with websocket(http, found) as socket:
        await way_in(socket)
        _, message = await asyncio.gather(found.stop(), socket.receive(timeout=5))
        assert (message.type, message.data) == (aiohttp.WSMsgType.CLOSE, aiohttp.WSCloseCode.GOING_AWAY)
    await found.stop()


async def test_a_session_not_resumed_in_time_ends_by_the_clock(http: aiohttp.ClientSession) -> None:
    found = EmbeddedServer(port=0, config=EmbeddedConfig(resume_timeout=0.05))
    await found.start()
    try:
        async with websocket(http, found) as socket:
            await way_in(socket)
            found.drop_connections()
            await until(lambda: not found._clients)
            await until(lambda: found.core.sessions == ())
    finally:
        await found.stop()


# --- the bridge's WebSocket ---------------------------------------------------------------------------------


@asynccontextmanager
async def channel(
    http: aiohttp.ClientSession, server: EmbeddedServer, name: str = "one"
) -> AsyncIterator[aiohttp.ClientWebSocketResponse]:
    features = Features(rewriting=True)
    transport = await server.bridge.open("room", name, f"sid-{name}", features, bridge_sources(random.Random(1)))
    assert transport.web_socket_url is not None
    async with http.ws_connect(transport.web_socket_url) as socket:
        assert (await socket.receive_json(timeout=5))["colibriClass"] == "ServerHello"
        assert (await socket.receive_json(timeout=5))["colibriClass"] == "ForwardedSources"
        yield socket


@pytest.mark.parametrize("text", ["", "nonsense", "[]", "{}", '{"colibriClass": 1}', "[" * 50_000])
async def test_broken_json_is_one_log_line_and_the_channel_lives(
    server: EmbeddedServer, http: aiohttp.ClientSession, text: str
) -> None:
    async with channel(http, server) as socket:
        with capture_logs() as logs:
            await socket.send_str(text)
            await socket.send_str('{"colibriClass": "SomethingNew", "x": [1, 2]}')
            await socket.send_str('{"colibriClass": "ReceiverVideoConstraints", "lastN": {}, "constraints": 7}')
            await socket.send_str('{"colibriClass": "ClientHello"}')
            assert (await socket.receive_json(timeout=5)) == {"colibriClass": "ServerHello"}
    assert names(logs) == ["embedded_message_ignored"]


@pytest.mark.parametrize("data", ['{"colibriClass":"' + "x" * 300_000, b"{}"])
async def test_a_frame_that_is_too_long_or_binary_ends_the_channel_with_one_log_line(
    server: EmbeddedServer, http: aiohttp.ClientSession, data: str | bytes
) -> None:
    async with channel(http, server) as socket:
        with capture_logs() as logs:
            await (socket.send_str(data) if isinstance(data, str) else socket.send_bytes(data))
            await socket.receive(timeout=5)
            assert socket.closed
        assert names(logs) == ["embedded_frame_refused"]
        endpoint = server.bridge.conferences["room"].endpoints["one"]
        await until(lambda: endpoint.web_socket is None)


async def test_a_second_channel_takes_the_place_of_the_first(
    server: EmbeddedServer, http: aiohttp.ClientSession
) -> None:
    async with channel(http, server) as first:
        endpoint = server.bridge.conferences["room"].endpoints["one"]
        conference = server.bridge.conferences["room"].id
        url = f"{server.url}/colibri-ws/embedded/{conference}/one?pwd={endpoint.password}"
        async with http.ws_connect(url) as second:
            assert (await first.receive(timeout=5)).type is aiohttp.WSMsgType.CLOSE
            assert (await second.receive_json(timeout=5))["colibriClass"] == "ServerHello"
            assert endpoint.web_socket is not None


async def test_without_the_password_there_is_no_channel(
    server: EmbeddedServer, http: aiohttp.ClientSession
) -> None:
    async with channel(http, server):
        conference = server.bridge.conferences["room"].id
        base = f"http://127.0.0.1:{server.port}/colibri-ws/embedded"
        password = server.bridge.conferences["room"].endpoints["one"].password
        for path, status in (
            (f"{conference}/one?pwd=wrong", 403),
            (f"{conference}/one", 403),
            (f"{conference}/two?pwd={password}", 403),
            (f"other/one?pwd={password}", 403),
            (f"{conference}/one?pwd={password}", 400),
        ):
            async with http.get(f"{base}/{path}") as answer:
                assert answer.status == status


# --- the bridge and the service -----------------------------------------------------------------------------


async def test_a_receiver_that_is_too_slow_loses_the_oldest_packets() -> None:
    endpoint = Endpoint("one", "s", Features(), ("127.0.0.1",), 1)
    for number in range(QUEUE + 3):
        endpoint.put(number.to_bytes(2, "big"))
    assert endpoint.dropped == 3
    assert endpoint._packets.qsize() == QUEUE
    assert endpoint._packets.get_nowait() == b"\x00\x03"
    await endpoint.close()


async def test_what_is_said_to_a_channel_that_is_not_open_is_dropped() -> None:
    endpoint = Endpoint("one", "s", Features(sctp=True), ("127.0.0.1",), 1)
    endpoint.say({"colibriClass": "ServerHello"})
    assert endpoint.outbox.empty()
    await endpoint.close()


async def test_orders_for_endpoints_that_are_gone_change_nothing() -> None:
    bridge = Bridge()
    await bridge.connect("room", "one", "sid", own_transport())
    bridge.set_sources("room", "one", SourceMap())
    await bridge.close_endpoint("room", "one", "sid")
    assert bridge.conferences == {}


@pytest.mark.parametrize("turns", range(1, 6))
async def test_an_endpoint_whose_close_is_cancelled_is_closed_with_the_bridge(
    turns: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    bridge = Bridge(("127.0.0.1",))
    await bridge.open("room", "one", "sid", Features(), bridge_sources(random.Random(1)))
    endpoint = bridge.conferences["room"].endpoints["one"]
    quick = endpoint.feedback.close

    async def slow() -> None:
        await asyncio.sleep(0.05)
        await quick()

    monkeypatch.setattr(endpoint.feedback, "close", slow)
    closing = asyncio.create_task(bridge.close_endpoint("room", "one", "sid"))
    for _ in range(turns):
        await asyncio.sleep(0)
    closing.cancel()
    await asyncio.gather(closing, return_exceptions=True)
    await bridge.close()
    assert bridge.conferences == {}
    assert endpoint.transport._closing is not None
    assert endpoint.transport._closing.done()


class Port:
    """Keeps what the focus sends."""

    def __init__(self) -> None:
        self.sent: list[Any] = []

    def send(self, stanza: Any) -> None:
        self.sent.append(stanza)


def service(bridge: Bridge, stage: Stage) -> tuple[FocusService, Port]:
    """A service that leads what ``stage`` has begun."""
    port = Port()
    found = FocusService(stage.config, bridge, port, clock=lambda: stage.now)
    found.focus = stage.focus
    return found, port


@pytest.mark.parametrize("step", ["open", "connect"])
async def test_a_bridge_that_fails_is_one_log_line_and_ends_what_was_not_offered(
    step: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    stage = Stage()
    stage.enter("one")
    bridge = Bridge()

    async def opens(*_: object) -> Transport:
        if step == "open":
            raise IceFailedError("no address")
        return own_transport()

    async def connects(*_: object) -> None:
        raise DtlsFailedError("no handshake")

    monkeypatch.setattr(bridge, "open", opens)
    monkeypatch.setattr(bridge, "connect", connects)
    found, port = service(bridge, stage)
    with capture_logs() as logs:
        found._do(stage.enter("two"))
        await until(lambda: len(port.sent) >= 3 or (step == "open" and len(logs) == 2))
        if step == "connect":
            found._do(stage.accept("one"))
            await until(lambda: bool(logs))
    assert set(names(logs)) == {"embedded_media_failed"}
    assert (stage.member("one").sid is None) == (step == "open")
    await found.stop()


async def test_five_hundred_sources_are_one_log_line_and_the_proper_error() -> None:
    stage = two_in_a_call()
    found, port = service(Bridge(), stage)
    many = SourceMap(video=MediaSources(tuple(Source(number, f"one-v{number}") for number in range(100, 600))))
    with capture_logs() as logs:
        found._do(stage.jingle("one", "source-add", many))
    assert condition(port.sent[0]) == ("modify", "bad-request")
    assert len(stage.member("one").sources.video.sources) == 2
    assert [(line["event_name"], line["condition"]) for line in logs] == [
        ("embedded_request_refused", "bad-request")
    ]
    with capture_logs() as logs:
        found._do(stage.jingle("one", "session-dance"))
    assert [(line["event_name"], line["condition"]) for line in logs] == [
        ("embedded_request_refused", "feature-not-implemented")
    ]
    await found.stop()


async def test_a_lost_transport_leaves_the_session_to_its_participant() -> None:
    stage = two_in_a_call()
    bridge = Bridge()
    found, port = service(bridge, stage)
    sid = stage.member("one").sid
    bridge.on_lost("room@muc.meet.jitsi", "one", sid or "")
    assert port.sent == []
    assert stage.member("one").sid == sid
    await found.stop()


# --- owners of tasks ----------------------------------------------------------------------------------------


async def test_a_task_that_fails_is_logged_and_ends_no_other() -> None:
    tasks, done = Tasks(), asyncio.Event()

    async def fails() -> None:
        raise RuntimeError("broken")

    async def works() -> None:
        done.set()

    with capture_logs() as logs:
        tasks.spawn(fails(), "bad")
        tasks.spawn(works(), "good")
        await asyncio.wait_for(done.wait(), 5)
        await tasks.close()
    assert names(logs) == ["embedded_task_failed"]
    assert logs[0]["task"] == "bad"


async def test_nothing_runs_after_the_close() -> None:
    tasks = Tasks()
    await tasks.close()

    async def never() -> None:
        raise AssertionError

    assert tasks.spawn(never(), "late") is None


async def test_an_alarm_rings_when_its_deadline_has_come_and_not_when_cancelled() -> None:
    loop = asyncio.get_running_loop()
    rung = asyncio.Event()
    deadlines: list[float | None] = [loop.time(), None]

    def ring() -> None:
        deadlines.pop(0)
        rung.set()

    alarm = Alarm(lambda: deadlines[0], ring, loop.time)
    alarm.arm()
    await asyncio.wait_for(rung.wait(), 5)
    rung.clear()
    deadlines.insert(0, loop.time() + 0.01)
    alarm.arm()
    alarm.cancel()
    with pytest.raises(TimeoutError):
        await asyncio.wait_for(rung.wait(), 0.1)
