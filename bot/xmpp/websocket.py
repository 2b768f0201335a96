"""The WebSocket under the stream: whole frames in, whole frames out, and how it was lost."""

from __future__ import annotations

import asyncio
import ssl
from collections.abc import Callable, Coroutine
from contextlib import suppress
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any

import aiohttp
import structlog

from bot.errors import TlsError
from bot.xmpp import framing
from bot.xmpp.failures import from_connect_error

log = structlog.get_logger(__name__)

#: Frames of up to so many times the limit are read and refused, and the connection stays. Beyond, it is lost.
HARD_LIMIT = 4
#: Frames that may wait for a server that does not take them.
MAX_WAITING = 10_000


@dataclass(frozen=True, slots=True)
class ConnectionLost:
    """How the connection went away: ``code`` is RFC 6455's close code, None where there was none.

    ``resumable`` False: the stream is of no more use, whatever the server says (XEP-0198).
    """

    reason: str
    code: int | None = None
    resumable: bool = True


class FrameSocket:
    """One WebSocket at a time, and its tasks. ``on_frame`` gets each text frame, ``on_lost`` its end, once."""

    def __init__(
        self,
        *,
        max_frame_bytes: int,
        ca_file: Path | None,
        on_frame: Callable[[str], None],
        on_lost: Callable[[ConnectionLost], None],
    ) -> None:
        self._max_frame_bytes = max_frame_bytes
        self._ca_file = ca_file
        self._on_frame = on_frame
        self._on_lost = on_lost
        self._http: aiohttp.ClientSession | None = None
        self._ws: aiohttp.ClientWebSocketResponse | None = None
        self._tasks: list[asyncio.Task[None]] = []
        self._outgoing: asyncio.Queue[str] = asyncio.Queue(MAX_WAITING)
        self._lost: asyncio.Future[ConnectionLost] | None = None

    def __repr__(self) -> str:
        return f"<FrameSocket {'open' if self.is_open else 'closed'}>"

    @property
    def is_open(self) -> bool:
        """Whether frames can be sent."""
        ws, lost = self._ws, self._lost
        return ws is not None and not ws.closed and lost is not None and not lost.done()

    @property
    def lost(self) -> asyncio.Future[ConnectionLost]:
        """Done when the present WebSocket is gone without our asking."""
        if self._lost is None:
            raise RuntimeError("not connected")
        return self._lost

    @property
    def tls(self) -> object | None:
        """The TLS object of the present WebSocket."""
        return self._ws.get_extra_info("ssl_object") if self._ws is not None else None

    async def open(self, url: str) -> None:
        """Open the WebSocket (RFC 7395 section 3.1). Raises an error of ``bot.errors``."""
        if self._http is None:
            self._http = aiohttp.ClientSession()
        try:
            self._ws = await self._http.ws_connect(
                url,
                protocols=("xmpp",),
                max_msg_size=HARD_LIMIT * self._max_frame_bytes,
                ssl=ssl_context(self._ca_file),
                autoping=True,
            )
        except (aiohttp.ClientError, OSError) as error:
            raise from_connect_error(error, url) from error
        self._lost = asyncio.get_running_loop().create_future()

    def start(self) -> None:
        """Begin to read and to send."""
        if self._ws is None:
            raise RuntimeError("closed while opening")
        self.spawn(self._read(self._ws), self._send(self._ws))

    def write(self, text: str) -> None:
        """Send a frame when the server takes it; one that takes none is lost."""
        try:
            self._outgoing.put_nowait(text)
        except asyncio.QueueFull:
            self.set_lost(ConnectionLost("the server does not take what we send"))

    def spawn(self, *works: Coroutine[Any, Any, None]) -> None:
        """Run ``works`` as long as the present WebSocket, at most."""
        self._tasks = [task for task in self._tasks if not task.done()]
        self._tasks += [asyncio.ensure_future(work) for work in works]

    def set_lost(self, lost: ConnectionLost) -> None:
        """Take the WebSocket as gone."""
        if self._lost is not None and not self._lost.done():
            self._lost.set_result(lost)
            self._on_lost(lost)

    def abort(self) -> None:
        """Close the WebSocket; its end is then told as a loss."""
        if self._ws is not None and not self._ws.closed:
            self.spawn(_close(self._ws))

    async def say_goodbye(self, timeout: float) -> None:
        """Send what still waits, then ``<close/>``: the server then ends the session at once."""
        if self._ws is None or not self.is_open:
            return
        with suppress(aiohttp.ClientError, OSError, TimeoutError):
            async with asyncio.timeout(timeout):
                while not self._outgoing.empty():
                    await self._ws.send_str(self._outgoing.get_nowait())
                await self._ws.send_str(framing.close_frame())

    async def end(self) -> None:
        """End the present WebSocket and its tasks; another one may be opened."""
        tasks, self._tasks = self._tasks, []
        current = asyncio.current_task()
        for task in tasks:
            if task is not current:
                task.cancel()
        try:
            await asyncio.gather(*(task for task in tasks if task is not current), return_exceptions=True)
        finally:
            while not self._outgoing.empty():
                self._outgoing.get_nowait()
            ws, self._ws = self._ws, None
            if ws is not None:
                await _close(ws)

    async def close(self) -> None:
        """End everything; may be called twice. Cancelled, it leaves nothing open, either."""
        try:
            await self.end()
        finally:
            http, self._http = self._http, None
            if http is not None:
                await http.close()

    async def _send(self, ws: aiohttp.ClientWebSocketResponse) -> None:
        while True:
            text = await self._outgoing.get()
            try:
                await ws.send_str(text)
            except (aiohttp.ClientError, OSError) as error:
                self.set_lost(ConnectionLost(str(error) or type(error).__name__))
                return

    async def _read(self, ws: aiohttp.ClientWebSocketResponse) -> None:
        error = ws.exception()
        async for message in ws:
            if message.type is aiohttp.WSMsgType.ERROR:
                error = message.data
                break
            if message.type is not aiohttp.WSMsgType.TEXT:
                log.warning("A frame that is no text was ignored", event_name="frame_ignored")
                continue
            self._on_frame(message.data)
        error = error or ws.exception()
        reason = str(error) if error else f"WebSocket closed with code {ws.close_code}"
        # A frame beyond all limits would come again with the resumed stream, and again.
        too_big = isinstance(error, aiohttp.WebSocketError) and error.code == aiohttp.WSCloseCode.MESSAGE_TOO_BIG
        self.set_lost(ConnectionLost(reason, ws.close_code, resumable=not too_big))


async def _close(ws: aiohttp.ClientWebSocketResponse) -> None:
    with suppress(aiohttp.ClientError, OSError, TimeoutError):
        async with asyncio.timeout(1.0):
            await ws.close()


@lru_cache(maxsize=8)
def _context(ca_file: Path, _changed: int) -> ssl.SSLContext:
    """One for all participants: to read the certificates takes longer than a handshake."""
    return ssl.create_default_context(cafile=str(ca_file))


def ssl_context(ca_file: Path | None) -> ssl.SSLContext | bool:
    """What aiohttp verifies servers with: the system's CAs, or those of ``ca_file``. Raises TlsError."""
    if ca_file is None:
        return True
    try:
        return _context(ca_file, ca_file.stat().st_mtime_ns)
    except (OSError, ssl.SSLError) as error:
        raise TlsError(f"{ca_file} holds no usable certificates: {error}", hint="JITSI_CA_FILE") from error
