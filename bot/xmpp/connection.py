"""XMPP over WebSocket (RFC 7395): login, bind, resume, and the stanzas of one stream.

aiohttp carries the frames (``websocket``), slixmpp does SASL, bind and stream management (``stream``). Who calls
``connect`` and ``resume`` owns the retries.
"""

from __future__ import annotations

import asyncio
import re
import secrets
import time
import xml.etree.ElementTree as ET
from collections.abc import Callable, Coroutine
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar
from urllib.parse import urlsplit

import structlog
from slixmpp.exceptions import IqError, IqTimeout
from slixmpp.jid import InvalidJID
from slixmpp.stanza import Iq
from slixmpp.xmlstream.handler import Callback

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
from bot.xmpp.stanza_errors import IqTimeoutError, StanzaError
from bot.xmpp.stream import ROSTER, RequestMatcher, Stream, Transport
from bot.xmpp.token import TokenSource, refused_token
from bot.xmpp.websocket import ConnectionLost, FrameSocket, ssl_context

__all__ = ["ConnectionLost", "IqRequest", "XmppConfig", "XmppConnection", "ssl_context"]

log = structlog.get_logger(__name__)
T = TypeVar("T")

#: A whole endpoint id: eight characters that a room nick may have.
_ENDPOINT = re.compile(r"[a-zA-Z0-9][a-zA-Z0-9_]{7}")
PING = "{urn:xmpp:ping}ping"
#: What slixmpp says of the progress of a stream.
_PROGRESS = (
    "auth_success",
    "failed_auth",
    "failed_all_auth",
    "stream_negotiated",
    "session_resumed",
    "sm_failed",
    "stream_error",
)


@dataclass(frozen=True, slots=True)
class XmppConfig:
    """Where and as whom to connect. Times in seconds; ``max_frame_bytes`` bounds what one frame may hold."""

    url: str
    domain: str
    room: str = ""
    username: str | None = None
    password: str | None = None
    token: TokenSource | None = None
    ca_file: Path | None = None
    phase_timeout: float = 10.0
    ping_interval: float = 10.0
    ping_timeout: float = 15.0
    max_frame_bytes: int = 4 * 1024 * 1024


@dataclass(frozen=True, slots=True)
class IqRequest:
    """An IQ that asks something of us."""

    kind: str
    sender: str
    id: str
    payload: ET.Element


IqHandler = Callable[[IqRequest], ET.Element | None]
StanzaCallback = Callable[[ET.Element], None]
#: Ends what was asked for; may be called twice.
Stop = Callable[[], None]


class XmppConnection:
    """One XMPP stream over WebSockets. ``on_phase`` hears ``websocket``, ``sasl``, ``bind`` when done."""

    def __init__(self, config: XmppConfig, *, on_phase: Callable[[str], None] = lambda _: None) -> None:
        self._config = config
        self._on_phase = on_phase
        self._socket = FrameSocket(
            max_frame_bytes=config.max_frame_bytes,
            ca_file=config.ca_file,
            on_frame=self._received,
            on_lost=self._socket_lost,
        )
        self._stream: Stream | None = None
        self._iq_handlers: dict[str, IqHandler] = {PING: lambda _: None}
        self._on_presence: list[StanzaCallback] = []
        self._on_message: list[StanzaCallback] = []
        self._endpoint_id = ""
        self._token: str | None = None

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
    def token(self) -> str | None:
        """The token of the present login; the focus wants to see it, too."""
        return self._token

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
        url = self._address()
        if config.password and url.startswith("ws://") and not is_loopback(urlsplit(url).hostname):
            raise TlsError("A password is not sent over plain ws://", hint="use wss:// in JITSI_WS_URL")
        name = f"{config.username}@{config.domain}" if config.username else config.domain
        self._stream = Stream(name, config.password or "", self._socket.write)
        self._stream.register_handler(Callback("jitsi requests", RequestMatcher(ROSTER), self._answer))  # type: ignore[arg-type]
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
        previd = str(self._stream.plugin["xep_0198"].sm_id)
        await self._socket.end()
        try:
            await self._open(self._address(previd), resume=True)
        except BaseException:
            await self._socket.end()
            raise

    def _address(self, previd: str | None = None) -> str:
        """The address with the token of now: one that was good at the first connect may be over."""
        config = self._config
        self._token = config.token() if config.token is not None else None
        return xmpp_websocket_url(config.url, config.room, self._token, previd)

    async def _open(self, url: str, *, resume: bool) -> None:
        await self._limited(self._socket.open(url), "the WebSocket to open")
        self._on_phase("websocket")
        stream = self._stream
        if stream is None:
            raise RuntimeError("closed while opening")
        progress: asyncio.Queue[tuple[str, Any]] = asyncio.Queue()
        sinks = {name: (lambda data, name=name: progress.put_nowait((name, data))) for name in _PROGRESS}
        for name, sink in sinks.items():
            stream.add_event_handler(name, sink)
        try:
            self._socket.start()
            stream.begin(Transport(self._socket.tls, self._socket.abort))
            await self._limited(self._negotiate(progress, "auth_success", resume=resume), "the login")
            self._on_phase("sasl")
            last = "session_resumed" if resume else "stream_negotiated"
            await self._limited(self._negotiate(progress, last, resume=resume), "the stream")
            self._on_phase("bind")
            self._socket.spawn(self._keep_pinging())
        finally:
            for name, sink in sinks.items():
                stream.del_event_handler(name, sink)

    async def _negotiate(self, progress: asyncio.Queue[tuple[str, Any]], last: str, *, resume: bool) -> None:
        """Wait for the event ``last``; a refusal or the loss of the connection raises."""
        said = ""
        while True:
            name, data = await self._next_event(progress)
            if name == last:
                return
            if name == "failed_auth":
                said = str(data["text"] or data["condition"])
            if name == "failed_all_auth":
                raise self._refused_login(said)
            if name in ("sm_failed", "stream_negotiated") and resume:
                raise ResumeRefusedError("The server does not know the stream any more")
            if name == "stream_error":
                raise ProtocolError(f"The server ended the stream: {data['condition']} {data['text']}".rstrip())

    def _refused_login(self, said: str) -> AuthenticationError:
        if self._token is not None and self._config.token is not None and not self._config.username:
            return refused_token(self._token, self._config.token, said, time.time())
        return AuthenticationError(
            f"The server refused the login{f': {said}' if said else ''}",
            hint="JITSI_USERNAME and JITSI_PASSWORD, JITSI_TOKEN, or JITSI_ANONYMOUS_DOMAIN for guests",
        )

    async def _next_event(self, progress: asyncio.Queue[tuple[str, Any]]) -> tuple[str, Any]:
        event = asyncio.ensure_future(progress.get())
        try:
            return await self.unless_lost(event)
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

    def _received(self, text: str) -> None:
        try:
            element = framing.parse_frame(text, max_chars=self._config.max_frame_bytes)
        except framing.FrameError as error:
            self._pass_over(text, error)
            return
        if element.tag == framing.CLOSE or self._stream is None:
            self._socket.abort()
            return
        self._feed(self._stream, element)
        if element.tag == f"{{{framing.NS_CLIENT}}}presence":
            self._tell(self._on_presence, element)
        elif element.tag == f"{{{framing.NS_CLIENT}}}message":
            self._tell(self._on_message, element)

    def _feed(self, stream: Stream, element: ET.Element) -> None:
        try:
            stream.feed(element)
        except Exception:
            # An address that is none, and whatever else slixmpp does not take.
            log.exception("A stanza could not be handled", event_name="stanza_failed", tag=element.tag)

    def _pass_over(self, text: str, error: framing.FrameError) -> None:
        """Ignore a frame; a stanza is counted all the same, and a request answered (RFC 6120 section 8.3)."""
        head = framing.sniff_stanza(text)
        log.warning(
            "A broken frame was ignored",
            event_name="frame_ignored",
            cause=str(error),
            stanza=head.name if head is not None else None,
        )
        if head is None or self._stream is None:
            return
        self._stream.pass_over()
        if head.name == "iq" and head.attributes.get("type") in ("get", "set"):
            kept = {"to": head.attributes.get("from", ""), "id": head.attributes.get("id", "")}
            reply = ET.Element(
                f"{{{framing.NS_CLIENT}}}iq", {"type": "error"} | {k: v for k, v in kept.items() if v}
            )
            reply.append(StanzaError(error.condition, str(error), kind="modify").to_xml())
            self.send(reply)

    def _tell(self, callbacks: list[StanzaCallback], element: ET.Element) -> None:
        for callback in tuple(callbacks):
            try:
                callback(element)
            except Exception:
                # One odd stanza must not end the stream for all that follow.
                log.exception("A stanza could not be handled", event_name="stanza_failed", tag=element.tag)

    def _socket_lost(self, _: ConnectionLost) -> None:
        if self._stream is not None:
            self._stream.connection_lost(None)

    async def _keep_pinging(self) -> None:
        """XEP-0199: a half-open socket is found within ``ping_interval`` + ``ping_timeout``."""
        while True:
            await asyncio.sleep(self._config.ping_interval)
            try:
                await self.iq("get", self._config.domain, ET.Element(PING), self._config.ping_timeout)
            except IqTimeoutError:
                self._socket.set_lost(ConnectionLost("no answer to a ping"))
                return
            except BotError:
                continue  # an error is an answer: the server is there

    # --- stanzas ---

    async def wait_lost(self) -> ConnectionLost:
        """Return when the WebSocket is gone without our asking."""
        return await asyncio.shield(self._socket.lost)

    async def unless_lost(self, wanted: asyncio.Future[T]) -> T:
        """Wait for ``wanted``, which stays the caller's. Raises ConnectionFailedError when the connection goes."""
        lost = self._socket.lost
        waiting: set[asyncio.Future[Any]] = {wanted, lost}
        await asyncio.wait(waiting, return_when=asyncio.FIRST_COMPLETED)
        if wanted.done():
            return wanted.result()
        raise ConnectionFailedError(f"The connection was lost: {lost.result().reason}")

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
        self._socket.spawn(self._ask(to, payload))

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

    def on_presence(self, callback: StanzaCallback) -> Stop:
        """Tell ``callback`` of each presence, until the returned function is called."""
        return _add(self._on_presence, callback)

    def on_message(self, callback: StanzaCallback) -> Stop:
        """Tell ``callback`` of each message, until the returned function is called."""
        return _add(self._on_message, callback)

    def _answer(self, iq: Iq) -> None:
        try:
            sender, reply = str(iq["from"]), iq.reply(clear=True)  # type: ignore[no-untyped-call]
        except InvalidJID as error:
            log.warning("A request from nowhere was ignored", event_name="request_ignored", cause=str(error))
            return
        try:
            result = self._result(iq, sender)
        except StanzaError as error:
            _log_refusal(sender, error)
            reply["type"] = "error"
            reply.append(error.to_xml())
        else:
            if result is not None:
                reply.append(result)
        reply.send()

    def _result(self, iq: Iq, sender: str) -> ET.Element | None:
        """The payload of the answer to a request. Raises StanzaError."""
        payloads = list(iq.xml)
        if len(payloads) != 1:
            raise StanzaError("bad-request", "A request has exactly one payload", kind="modify")
        handler = self._iq_handlers.get(payloads[0].tag)
        if handler is None:
            raise StanzaError("service-unavailable")
        try:
            return handler(IqRequest(str(iq["type"]), sender, str(iq["id"]), payloads[0]))
        except StanzaError:
            raise
        except Exception as error:
            raise StanzaError("internal-server-error", kind="wait") from error

    # --- the end ---

    async def close(self, timeout: float = 2.0) -> None:
        """Close the stream and the WebSocket; may be called twice. Cancelled, it leaves nothing open, either."""
        stream, self._stream = self._stream, None
        try:
            if stream is not None:
                await self._socket.say_goodbye(timeout)
        finally:
            try:
                await self._socket.close()  # first: nothing that comes begins anything new
            finally:
                if stream is not None:
                    await stream.finish()


def _log_refusal(sender: str, error: StanzaError) -> None:
    """One line for each refused request; that some namespace is unknown to us is nobody's fault."""
    tell = log.debug if error.condition == "service-unavailable" else log.warning
    ours = error.condition == "internal-server-error"
    tell(
        "A request was answered with an error",
        event_name="request_answered_with_error",
        sender=sender,
        condition=error.condition,
        cause=error.text,
        exc_info=error.__cause__ if ours else None,
    )


def _add(callbacks: list[StanzaCallback], callback: StanzaCallback) -> Stop:
    callbacks.append(callback)

    def remove() -> None:
        if callback in callbacks:
            callbacks.remove(callback)

    return remove


def _endpoint_id(local: str, *, anonymous: bool) -> str:
    """The first part of an anonymous JID, as Jitsi's logins give it; otherwise a random id.

    Accounts may have several sessions, and stock Prosody's anonymous names can have a dash anywhere: what is left
    before it can be a single character, which another participant may have, too.
    """
    first = local.partition("-")[0][:8]
    return first if anonymous and _ENDPOINT.fullmatch(first) else secrets.token_hex(4)
