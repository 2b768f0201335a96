"""The bridge channel over the colibri WebSocket, the only one of older deployments."""

from __future__ import annotations

import asyncio
import json
import ssl

import aiohttp
import structlog

from bot.bridge.channel import MAX_MESSAGE_BYTES, Message, MessageSink, deliver
from bot.errors import BridgeChannelError

log = structlog.get_logger(__name__)

#: Messages that wait for a slow connection; a channel that is further behind is given up.
OUTBOX = 1000
#: Seconds between two WebSocket pings (RFC 6455 section 5.5.2): a half-open socket is found.
HEARTBEAT = 20.0


class WebSocketBridgeChannel:
    """One channel at the offer's ``<web-socket url>``. ``open`` can be called again after a loss."""

    name = "websocket"

    def __init__(self, url: str, on_message: MessageSink, *, tls: ssl.SSLContext | bool = True) -> None:
        self._url = url
        self._on_message = on_message
        self._tls = tls
        self._http: aiohttp.ClientSession | None = None
        self._ws: aiohttp.ClientWebSocketResponse | None = None
        self._outbox: asyncio.Queue[str] = asyncio.Queue(OUTBOX)
        self._tasks: tuple[asyncio.Task[None], ...] = ()
        self._closed = asyncio.Event()

    def __repr__(self) -> str:
        return f"<WebSocketBridgeChannel {'open' if self._ws is not None else 'closed'}>"

    async def open(self, timeout: float) -> None:
        """Connect within ``timeout`` s. Raises BridgeChannelError, with what the bridge or its proxy answered."""
        await self._drop()
        self._http = self._http or aiohttp.ClientSession()
        try:
            async with asyncio.timeout(timeout):
                self._ws = await self._http.ws_connect(
                    self._url, ssl=self._tls, heartbeat=HEARTBEAT, max_msg_size=4 * MAX_MESSAGE_BYTES
                )
        except aiohttp.WSServerHandshakeError as error:
            hint = "is /colibri-ws proxied, and the session still known to the bridge?"
            raise BridgeChannelError(f"The bridge channel was answered with {error.status}", hint=hint) from error
        except (aiohttp.ClientError, OSError, TimeoutError) as error:
            raise BridgeChannelError(
                f"The bridge channel can't be opened: {error or type(error).__name__}"
            ) from error
        self._closed.clear()
        self._outbox = asyncio.Queue(OUTBOX)
        self._tasks = (
            asyncio.create_task(self._read(self._ws), name="bridge channel reader"),
            asyncio.create_task(self._write(self._ws, self._outbox), name="bridge channel writer"),
        )

    async def wait_closed(self) -> None:
        """Return when the channel is gone."""
        await self._closed.wait()

    def send(self, message: Message) -> None:
        """Send one message; while the channel is closed it is dropped with a log line."""
        if self._ws is None or self._closed.is_set():
            log.warning(
                "The bridge channel is not open", event_name="channel_not_open", what=message["colibriClass"]
            )
            return
        try:
            self._outbox.put_nowait(json.dumps(message))
        except asyncio.QueueFull:
            self._closed.set()

    async def close(self) -> None:
        """End the channel; may be called twice."""
        await self._drop()
        http, self._http = self._http, None
        if http is not None:
            await http.close()

    async def _drop(self) -> None:
        self._closed.set()
        tasks, self._tasks = self._tasks, ()
        for task in tasks:
            task.cancel()
        if tasks:
            await asyncio.wait(tasks)
        ws, self._ws = self._ws, None
        if ws is not None:
            await ws.close()

    async def _read(self, ws: aiohttp.ClientWebSocketResponse) -> None:
        try:
            async for frame in ws:
                if frame.type in (aiohttp.WSMsgType.TEXT, aiohttp.WSMsgType.BINARY):
                    deliver(frame.data, self._on_message)
        finally:
            self._closed.set()

    async def _write(self, ws: aiohttp.ClientWebSocketResponse, outbox: asyncio.Queue[str]) -> None:
        try:
            while True:
                await ws.send_str(await outbox.get())
        except (aiohttp.ClientError, OSError):
            self._closed.set()
