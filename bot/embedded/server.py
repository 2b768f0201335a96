"""The embedded Jitsi on loopback, for tests and first runs: XMPP WebSocket, rooms, focus and bridge."""

from __future__ import annotations

import asyncio
import ipaddress
import time
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from xml.etree import ElementTree as ET

import structlog
from aiohttp import WSCloseCode, WSMsgType, web

from bot.embedded.bridge import Bridge
from bot.embedded.config import EmbeddedConfig
from bot.embedded.core import Close, Failed, Output, ToFocus, Write, XmppCore
from bot.embedded.orders import FocusConfig
from bot.embedded.owner import Alarm
from bot.embedded.service import FocusService
from bot.embedded.visitors import SUB_DOMAIN
from bot.errors import ConfigurationError

log = structlog.get_logger(__name__)

#: Frames, and characters of them, that wait for a slow client; beyond it the connection is given up.
OUTBOX, OUTBOX_SIZE = 5000, 16 * 1024 * 1024
_PAGE = """<!doctype html>
<title>jitsi-bot embedded server</title>
<h1>jitsi-bot embedded server</h1>
<p>A small Jitsi in one process for first runs and tests: XMPP over WebSocket at <code>/xmpp-websocket</code>,
rooms, a focus and a forwarding bridge. It listens on loopback only, keeps nothing, and is no server for real
meetings.</p>
"""
_WEBSOCKET_PAGE = "<h1>WebSocket</h1><p>Point an XMPP WebSocket client (sub-protocol xmpp) here.</p>"
_NO_BOSH = "BOSH is not supported by the embedded server: use the WebSocket at /xmpp-websocket\n"


def check_loopback(host: str) -> None:
    """Raise ConfigurationError unless ``host`` is a loopback address."""
    try:
        loopback = host == "localhost" or ipaddress.ip_address(host).is_loopback
    except ValueError:
        loopback = False
    if not loopback:
        raise ConfigurationError(
            f"The embedded server listens on loopback only, not on {host}", hint="host = 127.0.0.1"
        )


class _Client:
    """One XMPP WebSocket: frames wait in ``outbox`` until the writer has sent them; None ends it."""

    def __init__(self, socket: web.WebSocketResponse, transport: asyncio.Transport | None) -> None:
        self.socket = socket
        self._transport = transport
        self.outbox: asyncio.Queue[str | None] = asyncio.Queue(OUTBOX)
        self._size = 0
        self._overflowed = False

    def put(self, frame: str | None) -> None:
        """Send a frame after those before it; when too many wait, the connection is given up."""
        size = self._size + len(frame or "")
        if not self.outbox.full() and size <= OUTBOX_SIZE:
            self._size = size
            self.outbox.put_nowait(frame)
        elif not self._overflowed:
            self._overflowed = True
            log.warning("A client does not read", event_name="embedded_client_slow", frames=self.outbox.qsize())
            self.cut()

    def cut(self) -> None:
        """Drop the TCP connection without a closing handshake."""
        if self._transport is not None:
            self._transport.abort()

    async def write(self) -> None:
        """Send what is put, until the end."""
        with suppress(ConnectionError):  # the reader hears of it, too
            while (frame := await self.outbox.get()) is not None:
                await self.socket.send_str(frame)
                self._size -= len(frame)
            await self.socket.close(code=WSCloseCode.OK)


class EmbeddedServer:
    """``await start()``, then clients connect to ``url``; ``await stop()`` ends everything.

    ``port`` 0 takes a free one. ``addresses`` are what the bridge's ICE offers. ``static`` are directories served
    by path (a test's web page has to be of the same origin). ``clock`` is monotonic, in seconds.
    """

    def __init__(
        self,
        host: str = "127.0.0.1",
        port: int = 8000,
        *,
        config: EmbeddedConfig | None = None,
        addresses: Sequence[str] = ("127.0.0.1",),
        static: Mapping[str, Path] | None = None,
        focus: bool = True,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        check_loopback(host)
        self.host = host
        self.port = port
        self.config = config or EmbeddedConfig()
        self.core = XmppCore(self.config)
        self.bridge = Bridge(addresses, clock=clock)
        self.service = FocusService(focus_config(self.config), self.bridge, self, clock=clock)
        self.core.focus_attached = focus
        self._static = dict(static or {})
        self._clock = clock
        self._clients: dict[int, _Client] = {}
        self._alarm = Alarm(self.core.next_deadline, self._tick, clock)
        self._pending: deque[Output] = deque()
        self._dispatching = False
        self._runner: web.AppRunner | None = None

    @property
    def url(self) -> str:
        """Address for clients, without a path."""
        host = f"[{self.host}]" if ":" in self.host else self.host
        return f"ws://{host}:{self.port}"

    # --- life ----------------------------------------------------------------------------------------------

    async def start(self) -> None:
        """Listen. Raises ConfigurationError where the port is taken."""
        runner = web.AppRunner(self._application(), access_log=None, shutdown_timeout=1.0)
        await runner.setup()
        site = web.TCPSite(runner, self.host, self.port)
        try:
            await site.start()
        except OSError as error:
            await runner.cleanup()
            message = f"The embedded server can't listen on {self.host}:{self.port}: {error.strerror}"
            raise ConfigurationError(message, hint="another port, or 0 for a free one") from error
        self._runner = runner
        self.port = runner.addresses[0][1]
        self.bridge.base_url = self.url
        log.info("Embedded server is listening", event_name="embedded_started", url=self.url)

    async def stop(self) -> None:
        """Close everything; may be called twice."""
        runner, self._runner = self._runner, None
        await self.service.stop()
        self._alarm.cancel()
        for client in list(self._clients.values()):
            await client.socket.close(code=WSCloseCode.GOING_AWAY)
        if runner is not None:
            await runner.cleanup()
        self._alarm.cancel()

    def drop_connections(self) -> None:
        """Cut every XMPP WebSocket without a closing handshake, as a proxy that is reloaded does."""
        for client in list(self._clients.values()):
            client.cut()

    def _application(self) -> web.Application:
        application = web.Application()
        application.router.add_get("/", _page)
        application.router.add_get("/xmpp-websocket", self._xmpp)
        application.router.add_route("*", "/http-bind", _no_bosh)
        application.router.add_get("/colibri-ws/{server}/{conference}/{endpoint}", self.bridge.handle_web_socket)
        for prefix, directory in self._static.items():
            application.router.add_static(prefix, directory)
        return application

    # --- stanzas -------------------------------------------------------------------------------------------

    def send(self, stanza: ET.Element) -> None:
        """Route a stanza of the focus (its port into this server)."""
        self._dispatch(self.core.send(stanza))

    def _tick(self) -> None:
        self._dispatch(self.core.tick(self._clock()))

    def _dispatch(self, outputs: list[Output]) -> None:
        """Do what the core says, in its order, even where the focus answers in between."""
        self._pending.extend(outputs)
        if self._dispatching:
            return
        self._dispatching = True
        try:
            while self._pending:
                self._do(self._pending.popleft())
        finally:
            self._dispatching = False
        self._alarm.arm()

    def _do(self, output: Output) -> None:
        match output:
            case Write(connection, text):
                if (client := self._clients.get(connection)) is not None:
                    client.put(text)
            case Close(connection):
                if (client := self._clients.get(connection)) is not None:
                    client.put(None)
            case ToFocus(stanza):
                self.service.feed(stanza)
            case Failed(_, condition, text):
                log.warning(
                    "A stream failed", event_name="embedded_stream_failed", condition=condition, cause=text
                )

    # --- the WebSocket -------------------------------------------------------------------------------------

    async def _xmpp(self, request: web.Request) -> web.StreamResponse:
        if request.headers.get("Upgrade", "").lower() != "websocket":
            return web.Response(text=_WEBSOCKET_PAGE, content_type="text/html")
        protocols = [name.strip() for name in request.headers.get("Sec-WebSocket-Protocol", "").split(",")]
        if "xmpp" not in protocols:
            return web.Response(status=400, text="the WebSocket sub-protocol must be xmpp (RFC 7395)\n")
        socket = web.WebSocketResponse(protocols=("xmpp",), max_msg_size=self.config.max_frame_bytes)
        await socket.prepare(request)
        connection = self.core.connect(request.query.get("vnode"), request.query.get("customusername", ""))
        client = self._clients[connection] = _Client(socket, request.transport)
        writer = asyncio.create_task(client.write(), name=f"xmpp writer {connection}")
        try:
            await self._read(connection, socket)
        finally:
            self._clients.pop(connection, None)
            self._dispatch(self.core.lost(connection, self._clock()))
            writer.cancel()
            await asyncio.wait([writer])
        return socket

    async def _read(self, connection: int, socket: web.WebSocketResponse) -> None:
        async for message in socket:
            if message.type is WSMsgType.TEXT:
                self._dispatch(self.core.feed(connection, message.data))
            else:  # binary, or more than max_frame_bytes, after which aiohttp has closed with 1009
                cause = str(socket.exception() or "binary frame")
                log.warning("A frame was refused", event_name="embedded_frame_refused", cause=cause)
                break


async def _page(_request: web.Request) -> web.Response:
    return web.Response(text=_PAGE, content_type="text/html")


async def _no_bosh(_request: web.Request) -> web.Response:
    return web.Response(status=501, text=_NO_BOSH)


def focus_config(config: EmbeddedConfig) -> FocusConfig:
    """The focus's part of the embedded server's configuration."""
    return FocusConfig(
        jid=config.focus_jid,
        muc_domain=config.muc_domain,
        min_participants=config.min_participants,
        single_participant_timeout=config.single_participant_timeout,
        owner_delay=config.owner_delay,
        disco_timeout=config.disco_timeout,
        empty_room_timeout=config.empty_room_timeout,
        max_participants=config.max_participants,
        node_muc_domains=config.node_muc_domains,
        visitors_component=f"{SUB_DOMAIN}.{config.domain}",
    )
