"""XMPP over WebSocket (RFC 7395): aiohttp carries the frames, slixmpp does SASL, bind and stream management.

slixmpp's own ways to connect and reconnect are not used: who calls ``connect`` and ``resume`` owns the retries.
"""

from __future__ import annotations

import asyncio
import re
import secrets
import ssl
import xml.etree.ElementTree as ET
from collections.abc import Callable, Coroutine
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import aiohttp
import structlog
from slixmpp.clientxmpp import ClientXMPP
from slixmpp.exceptions import IqError, IqTimeout
from slixmpp.stanza import Iq, StreamFeatures
from slixmpp.xmlstream import ElementBase
from slixmpp.xmlstream.handler import Callback
from slixmpp.xmlstream.matcher.base import MatcherBase

from bot.errors import (
    AuthenticationError,
    BotError,
    ConnectionFailedError,
    ConnectTimeoutError,
    ProtocolError,
    ResumeRefusedError,
    TlsError,
)
from bot.xmpp import framing
from bot.xmpp.address import is_loopback, xmpp_websocket_url
from bot.xmpp.failures import from_connect_error
from bot.xmpp.stanza_errors import IqTimeoutError, StanzaError

log = structlog.get_logger(__name__)

#: A whole endpoint id: eight characters that a room nick may have.
_ENDPOINT = re.compile(r"[a-zA-Z0-9][a-zA-Z0-9_]{7}")
_BARE_STANZA = re.compile(r"^<(iq|message|presence)\b(?![^>]*\sxmlns=)")
PING = "{urn:xmpp:ping}ping"


@dataclass(frozen=True, slots=True)
class XmppConfig:
    """Where and as whom to connect. Times in seconds; ``max_frame_bytes`` bounds what one frame may hold."""

    url: str
    domain: str
    room: str = ""
    username: str | None = None
    password: str | None = None
    token: str | None = None
    ca_file: Path | None = None
    phase_timeout: float = 10.0
    ping_interval: float = 10.0
    ping_timeout: float = 15.0
    max_frame_bytes: int = 4 * 1024 * 1024


@dataclass(frozen=True, slots=True)
class ConnectionLost:
    """How the connection went away: ``code`` is RFC 6455's close code, None where there was none.

    ``resumable`` False: the stream is of no more use, whatever the server says (XEP-0198).
    """

    reason: str
    code: int | None = None
    resumable: bool = True


@dataclass(frozen=True, slots=True)
class IqRequest:
    """An IQ that asks something of us."""

    kind: str
    sender: str
    id: str
    payload: ET.Element


IqHandler = Callable[[IqRequest], ET.Element | None]
StanzaCallback = Callable[[ET.Element], None]


class _Transport(asyncio.Transport):
    """What slixmpp takes for its asyncio transport."""

    def __init__(self, ssl_object: object | None, on_close: Callable[[], None]) -> None:
        super().__init__()
        self._ssl_object = ssl_object
        self._on_close = on_close

    def get_extra_info(self, name: str, default: Any = None) -> Any:
        """Only the TLS object is known; without a certificate to show slixmpp must not ask for one."""
        return self._ssl_object if name == "socket" else (None if name == "ssl_object" else default)

    def close(self) -> None:
        """Close the WebSocket."""
        self._on_close()

    abort = close


class _Matcher(MatcherBase):
    """Requests whose payload somebody registered for."""

    def match(self, stanza: object) -> bool:
        """Whether ``stanza`` is such a request."""
        if not isinstance(stanza, Iq) or stanza["type"] not in ("get", "set"):
            return False
        child = next(iter(stanza.xml), None)
        return child is not None and child.tag in self._criteria


class _Stream(ClientXMPP):
    """slixmpp's client with RFC 7395 in place of the stream header and footer."""

    def __init__(self, jid: str, password: str, write: Callable[[str], None]) -> None:
        super().__init__(jid, password, sasl_mech="PLAIN" if password else "ANONYMOUS")
        self._write = write
        self._negotiations: set[asyncio.Task[Any] | None] = set()
        self.roster.auto_authorize = False
        self.roster.auto_subscribe = False
        self.register_plugin("xep_0198")
        #: What Jitsi's Prosody says; a server that says nothing is taken for one.
        self.resume_seconds = 60.0
        self.add_event_handler("sm_enabled", self._note_resume_time)

    def _note_resume_time(self, enabled: ElementBase) -> None:
        with suppress(ValueError):
            self.resume_seconds = float(enabled.xml.get("max", ""))

    def send_raw(self, data: str | bytes) -> None:
        """Write one frame."""
        text = data.decode() if isinstance(data, bytes) else data
        if text == self.stream_header:
            text = framing.open_frame(self.boundjid.host)
        elif text == self.stream_footer:
            text = framing.close_frame()
        # slixmpp leaves the stream's default namespace out; a frame stands alone (RFC 7395 section 3.3.3).
        self._write(_BARE_STANZA.sub(r'<\1 xmlns="jabber:client"', text, count=1))

    def begin(self, transport: _Transport) -> None:
        """Open the stream over a new WebSocket."""
        if self._run_out_filters is None or self._run_out_filters.done():
            self._run_out_filters = asyncio.ensure_future(self.run_filters())
        self.event_when_connected = "connected"
        self.connection_made(transport)

    def feed(self, element: ET.Element) -> None:
        """Handle one received element."""
        if element.tag == framing.OPEN:
            self.start_stream_handler(element)  # type: ignore[no-untyped-call]
        else:
            self._spawn_event(element)

    def disconnect(self, *_: object, **__: object) -> asyncio.Future[None]:
        """Leave the ending to the owner of the connection: slixmpp would start tasks of its own for it."""
        done: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        done.set_result(None)
        return done

    async def _handle_stream_features(self, features: StreamFeatures) -> bool | None:
        """Negotiate, in a task that slixmpp starts and forgets: kept here so that it can be ended."""
        self._negotiations.add(task := asyncio.current_task())
        try:
            return await super()._handle_stream_features(features)
        finally:
            self._negotiations.discard(task)

    async def finish(self) -> None:
        """End slixmpp's own tasks."""
        outgoing, self._run_out_filters = self._run_out_filters, None
        tasks = [task for task in (outgoing, *self._negotiations) if task is not None]
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)


class XmppConnection:
    """One XMPP stream over WebSockets. ``on_phase`` hears ``websocket``, ``sasl``, ``bind`` when done."""

    def __init__(self, config: XmppConfig, *, on_phase: Callable[[str], None] = lambda _: None) -> None:
        self._config = config
        self._on_phase = on_phase
        self._http: aiohttp.ClientSession | None = None
        self._ws: aiohttp.ClientWebSocketResponse | None = None
        self._stream: _Stream | None = None
        self._tasks: list[asyncio.Task[None]] = []
        self._outgoing: asyncio.Queue[str] = asyncio.Queue(10_000)
        self._lost: asyncio.Future[ConnectionLost] | None = None
        self._iq_handlers: dict[str, IqHandler] = {PING: lambda _: None}
        self._on_presence: list[StanzaCallback] = []
        self._on_message: list[StanzaCallback] = []
        self._endpoint_id = ""

    def __repr__(self) -> str:
        return f"<XmppConnection {self.jid or 'not bound'}>"

    @property
    def jid(self) -> str:
        """The full JID that the server bound; empty before."""
        return str(self._stream.boundjid) if self._stream is not None and self._endpoint_id else ""

    @property
    def endpoint_id(self) -> str:
        """The participant's id everywhere: the first part of the bound JID's local part."""
        return self._endpoint_id

    @property
    def resumable(self) -> bool:
        """Whether the server offered to resume the stream (XEP-0198)."""
        return self._stream is not None and bool(self._stream.plugin["xep_0198"].sm_id)

    @property
    def resume_seconds(self) -> float:
        """How long the server keeps a lost stream: ``max`` of its ``<enabled/>`` (XEP-0198 section 5)."""
        return self._stream.resume_seconds if self._stream is not None else 0.0

    # --- connecting ---

    async def connect(self) -> None:
        """Open, log in, bind. Raises an error of ``bot.errors`` and leaves nothing behind."""
        config = self._config
        url = xmpp_websocket_url(config.url, config.room, config.token)
        if config.password and url.startswith("ws://") and not is_loopback(urlsplit(url).hostname):
            raise TlsError("A password is not sent over plain ws://", hint="use wss:// in JITSI_WS_URL")
        name = f"{config.username}@{config.domain}" if config.username else config.domain
        self._stream = _Stream(name, config.password or "", self._write)
        self._stream.register_handler(Callback("jitsi requests", _Matcher(self._iq_handlers), self._answer))  # type: ignore[arg-type]
        mechanisms = self._stream.plugin["feature_mechanisms"]
        mechanisms.config["unencrypted_plain"] = True  # decided above
        try:
            await self._open(url, resume=False)
            self._endpoint_id = _endpoint_id(self._stream.boundjid.local or "", anonymous=not config.username)
        except BaseException:
            await self.close()
            raise

    async def resume(self) -> None:
        """Open a new WebSocket and resume the stream on it (XEP-0198 section 5).

        Raises ResumeRefusedError when the server does not know the stream any more, or a connection error.
        """
        if self._stream is None or not self.resumable:
            raise ResumeRefusedError("the stream can't be resumed")
        config = self._config
        previd = str(self._stream.plugin["xep_0198"].sm_id)
        await self._end_socket()
        try:
            await self._open(xmpp_websocket_url(config.url, config.room, config.token, previd), resume=True)
        except BaseException:
            await self._end_socket()
            raise

    async def _open(self, url: str, *, resume: bool) -> None:
        await self._limited(self._open_websocket(url), "the WebSocket to open")
        self._on_phase("websocket")
        stream, ws = self._stream, self._ws
        if stream is None or ws is None:
            raise RuntimeError("closed while opening")
        self._lost = asyncio.get_running_loop().create_future()
        progress: asyncio.Queue[tuple[str, Any]] = asyncio.Queue()
        names = (
            "auth_success",
            "failed_all_auth",
            "stream_negotiated",
            "session_resumed",
            "sm_failed",
            "stream_error",
        )
        sinks = {name: (lambda data, name=name: progress.put_nowait((name, data))) for name in names}
        for name, sink in sinks.items():
            stream.add_event_handler(name, sink)
        try:
            self._spawn(self._read(ws), self._send(ws))
            stream.begin(_Transport(ws.get_extra_info("ssl_object"), self._abort_socket))
            await self._limited(self._negotiate(progress, "auth_success", resume=resume), "the login")
            self._on_phase("sasl")
            last = "session_resumed" if resume else "stream_negotiated"
            await self._limited(self._negotiate(progress, last, resume=resume), "the stream")
            self._on_phase("bind")
            self._spawn(self._keep_pinging())
        finally:
            for name, sink in sinks.items():
                stream.del_event_handler(name, sink)

    async def _open_websocket(self, url: str) -> None:
        if self._http is None:
            self._http = aiohttp.ClientSession()
        try:
            self._ws = await self._http.ws_connect(
                url,
                protocols=("xmpp",),
                max_msg_size=self._config.max_frame_bytes,
                ssl=ssl_context(self._config.ca_file),
                autoping=True,
            )
        except (aiohttp.ClientError, OSError) as error:
            raise from_connect_error(error, url) from error

    async def _negotiate(self, progress: asyncio.Queue[tuple[str, Any]], last: str, *, resume: bool) -> None:
        """Wait for the event ``last``; a refusal or the loss of the connection raises."""
        while True:
            name, data = await self._next_event(progress)
            if name == last:
                return
            if name == "failed_all_auth":
                raise AuthenticationError(
                    "The server refused the login",
                    hint="JITSI_USERNAME and JITSI_PASSWORD, JITSI_TOKEN, or JITSI_ANONYMOUS_DOMAIN for guests",
                )
            if name in ("sm_failed", "stream_negotiated") and resume:
                raise ResumeRefusedError("The server does not know the stream any more")
            if name == "stream_error":
                raise ProtocolError(f"The server ended the stream: {data['condition']} {data['text']}".rstrip())

    async def _next_event(self, progress: asyncio.Queue[tuple[str, Any]]) -> tuple[str, Any]:
        if self._lost is None:
            raise RuntimeError("no connection")
        event = asyncio.ensure_future(progress.get())
        try:
            waiting: set[asyncio.Future[Any]] = {event, self._lost}
            await asyncio.wait(waiting, return_when=asyncio.FIRST_COMPLETED)
            if event.done():
                return event.result()
            raise ConnectionFailedError(f"The connection was lost: {self._lost.result().reason}")
        finally:
            event.cancel()

    async def _limited(self, work: Coroutine[Any, Any, None], what: str) -> None:
        try:
            async with asyncio.timeout(self._config.phase_timeout):
                await work
        except TimeoutError:
            seconds = self._config.phase_timeout
            raise ConnectTimeoutError(f"No answer within {seconds:g} s while waiting for {what}") from None

    # --- frames ---

    def _write(self, text: str) -> None:
        try:
            self._outgoing.put_nowait(text)
        except asyncio.QueueFull:
            self._set_lost(ConnectionLost("the server does not take what we send"))

    async def _send(self, ws: aiohttp.ClientWebSocketResponse) -> None:
        while True:
            text = await self._outgoing.get()
            try:
                await ws.send_str(text)
            except (aiohttp.ClientError, OSError) as error:
                self._set_lost(ConnectionLost(str(error) or type(error).__name__))
                return

    async def _read(self, ws: aiohttp.ClientWebSocketResponse) -> None:
        async for message in ws:
            if message.type is not aiohttp.WSMsgType.TEXT:
                log.warning("A frame that is no text was ignored", event_name="frame_ignored")
                continue
            self._received(message.data)
        error = ws.exception()
        reason = str(error) if error else f"WebSocket closed with code {ws.close_code}"
        self._set_lost(ConnectionLost(reason, ws.close_code))

    def _received(self, text: str) -> None:
        try:
            element = framing.parse_frame(text)
        except framing.FrameError as error:
            log.warning("A broken frame was ignored", event_name="frame_ignored", cause=str(error))
            return
        if element.tag == framing.CLOSE or self._stream is None:
            self._abort_socket()
            return
        self._stream.feed(element)
        if element.tag == f"{{{framing.NS_CLIENT}}}presence":
            self._tell(self._on_presence, element)
        elif element.tag == f"{{{framing.NS_CLIENT}}}message":
            self._tell(self._on_message, element)

    def _tell(self, callbacks: list[StanzaCallback], element: ET.Element) -> None:
        for callback in tuple(callbacks):
            try:
                callback(element)
            except Exception:
                # One odd stanza must not end the stream for all that follow.
                log.exception("A stanza could not be handled", event_name="stanza_failed", tag=element.tag)

    def _set_lost(self, lost: ConnectionLost) -> None:
        if self._lost is not None and not self._lost.done():
            self._lost.set_result(lost)
            if self._stream is not None:
                self._stream.connection_lost(None)

    def _abort_socket(self) -> None:
        if self._ws is not None and not self._ws.closed:
            self._spawn(_close(self._ws))

    async def _keep_pinging(self) -> None:
        """XEP-0199: a half-open socket is found within ``ping_interval`` + ``ping_timeout``."""
        while True:
            await asyncio.sleep(self._config.ping_interval)
            try:
                await self.iq("get", self._config.domain, ET.Element(PING), self._config.ping_timeout)
            except IqTimeoutError:
                self._set_lost(ConnectionLost("no answer to a ping"))
                return
            except BotError:
                continue  # an error is an answer: the server is there

    # --- stanzas ---

    async def wait_lost(self) -> ConnectionLost:
        """Return when the WebSocket is gone without our asking."""
        if self._lost is None:
            raise RuntimeError("not connected")
        return await asyncio.shield(self._lost)

    async def iq(self, kind: str, to: str, payload: ET.Element, timeout: float = 15.0) -> ET.Element | None:
        """Ask, and return the payload of the result. Raises StanzaError or IqTimeoutError."""
        if self._stream is None:
            raise ConnectionFailedError("not connected")
        request = self._stream.Iq(stype=kind, sto=to)
        request.append(payload)
        try:
            result = await request.send(timeout=timeout)  # type: ignore[no-untyped-call]
        except IqTimeout:
            raise IqTimeoutError(f"No answer from {to} to {payload.tag} within {timeout:g} s") from None
        except IqError as error:
            raise StanzaError.from_iq(error.iq.xml) from None
        return next(iter(result.xml), None)

    def ask(self, to: str, payload: ET.Element) -> None:
        """Send an IQ of type set whose answer changes nothing: an error is logged."""
        self._spawn(self._ask(to, payload))

    async def _ask(self, to: str, payload: ET.Element) -> None:
        try:
            await self.iq("set", to, payload)
        except BotError as error:
            log.info("A request was refused", event_name="request_refused", to=to, cause=str(error))

    def send(self, stanza: ET.Element) -> None:
        """Send a presence or message; stream management counts it."""
        if self._stream is None:
            raise ConnectionFailedError("not connected")
        self._stream.send(self._stream._build_stanza(stanza))

    def on_iq(self, tag: str, handler: IqHandler) -> None:
        """Let ``handler`` answer requests with payload ``tag``: it returns the payload or raises StanzaError."""
        self._iq_handlers[tag] = handler

    def on_presence(self, callback: StanzaCallback) -> None:
        """Tell ``callback`` of each presence."""
        self._on_presence.append(callback)

    def on_message(self, callback: StanzaCallback) -> None:
        """Tell ``callback`` of each message."""
        self._on_message.append(callback)

    def _answer(self, iq: Iq) -> None:
        payload = next(iter(iq.xml))
        request = IqRequest(str(iq["type"]), str(iq["from"]), str(iq["id"]), payload)
        reply = iq.reply(clear=True)  # type: ignore[no-untyped-call]
        try:
            result = self._iq_handlers[payload.tag](request)
        except StanzaError as error:
            reply["type"] = "error"
            reply.append(error.to_xml())
        else:
            if result is not None:
                reply.append(result)
        reply.send()

    # --- the end ---

    async def close(self, timeout: float = 2.0) -> None:
        """Close the stream and the WebSocket; may be called twice."""
        stream, self._stream = self._stream, None
        if stream is not None:
            if self._ws is not None and not self._ws.closed and self._lost is not None and not self._lost.done():
                with suppress(aiohttp.ClientError, OSError, TimeoutError):
                    await self._say_goodbye(self._ws, timeout)
            await stream.finish()
        await self._end_socket()
        http, self._http = self._http, None
        if http is not None:
            await http.close()

    async def _say_goodbye(self, ws: aiohttp.ClientWebSocketResponse, timeout: float) -> None:
        """Send what still waits, then ``<close/>``: the server then ends the session at once."""
        async with asyncio.timeout(timeout):
            while not self._outgoing.empty():
                await ws.send_str(self._outgoing.get_nowait())
            await ws.send_str(framing.close_frame())

    async def _end_socket(self) -> None:
        tasks, self._tasks = self._tasks, []
        current = asyncio.current_task()
        for task in tasks:
            if task is not current:
                task.cancel()
        await asyncio.gather(*(task for task in tasks if task is not current), return_exceptions=True)
        while not self._outgoing.empty():
            self._outgoing.get_nowait()
        ws, self._ws = self._ws, None
        if ws is not None:
            await _close(ws)

    def _spawn(self, *works: Coroutine[Any, Any, None]) -> None:
        self._tasks = [task for task in self._tasks if not task.done()]
        self._tasks += [asyncio.ensure_future(work) for work in works]


async def _close(ws: aiohttp.ClientWebSocketResponse) -> None:
    with suppress(aiohttp.ClientError, OSError, TimeoutError):
        async with asyncio.timeout(1.0):
            await ws.close()


def ssl_context(ca_file: Path | None) -> ssl.SSLContext | bool:
    """What aiohttp verifies servers with: the system's CAs, or those of ``ca_file``. Raises TlsError."""
    if ca_file is None:
        return True
    try:
        return ssl.create_default_context(cafile=str(ca_file))
    except (OSError, ssl.SSLError) as error:
        raise TlsError(f"{ca_file} holds no usable certificates: {error}", hint="JITSI_CA_FILE") from error


def _endpoint_id(local: str, *, anonymous: bool) -> str:
    """The first part of an anonymous JID, as Jitsi's logins give it; otherwise a random id.

    Accounts may have several sessions, and stock Prosody's anonymous names can have a dash anywhere: what is left
    before it can be a single character, which another participant may have, too.
    """
    first = local.partition("-")[0][:8]
    return first if anonymous and _ENDPOINT.fullmatch(first) else secrets.token_hex(4)
