"""The focus at a real Prosody: an external component (XEP-0114) with the same focus and bridge behind it."""

from __future__ import annotations

import asyncio
import hashlib
from collections.abc import Callable, Sequence
from dataclasses import replace
from types import TracebackType
from typing import Any, Self
from xml.etree import ElementTree as ET
from xml.sax.saxutils import quoteattr

import structlog
from aiohttp import web

from bot.embedded.bridge import Bridge
from bot.embedded.orders import FocusConfig
from bot.embedded.server import check_loopback
from bot.embedded.service import FocusService
from bot.embedded.stanza import NS_CLIENT, NS_STREAM, serialize
from bot.errors import AuthenticationError, ConnectionFailedError, ProtocolError

log = structlog.get_logger(__name__)

NS_COMPONENT = "jabber:component:accept"
_ERROR = f"{{{NS_STREAM}}}error"
#: A stanza beyond it ends the connection (characters of one stanza's text are not known before its end).
_DOCTYPE = b"<!DOCTYPE"
MAX_STANZA_BYTES = 4 * 1024 * 1024


class ComponentParser:
    """The server's side of a component stream: ``feed(data) -> elements``. Pure.

    The first element is the stream header, without children; then come whole stanzas, in ``jabber:client``.
    """

    def __init__(self) -> None:
        self._parser: Any = ET.XMLPullParser(("start", "end"))
        self._depth = 0
        self._root: ET.Element | None = None
        self._since_stanza = 0
        #: What a document type that is cut in two may begin in.
        self._end = b""

    def feed(self, data: bytes) -> list[ET.Element]:
        """Take bytes; raises ProtocolError on broken XML, a document type or a stanza without end."""
        self._since_stanza += len(data)
        if self._since_stanza > MAX_STANZA_BYTES:
            raise ProtocolError(f"A stanza of the component stream has more than {MAX_STANZA_BYTES} bytes")
        if _DOCTYPE in self._end + data:
            raise ProtocolError("The component stream holds a document type")
        self._end = (self._end + data)[-len(_DOCTYPE) :]
        found: list[ET.Element] = []
        try:
            self._parser.feed(data)
            # Expat puts off what was cut in two until more comes; where it does, Python can tell it not to.
            getattr(self._parser, "flush", lambda: None)()
            for event in self._parser.read_events():
                if isinstance(event[1], ET.Element):
                    found += self._event(str(event[0]), event[1])
        except ET.ParseError as error:
            raise ProtocolError(f"The component stream is not well-formed: {error}") from None
        return found

    def _event(self, event: str, element: ET.Element) -> list[ET.Element]:
        self._depth += 1 if event == "start" else -1
        if event == "start" and self._depth == 1:
            self._root = element
            return [ET.Element(element.tag, element.attrib)]
        if event == "end" and self._depth == 1 and self._root is not None:
            self._root.remove(element)
            self._since_stanza = 0
            return [renamed(element, NS_COMPONENT, NS_CLIENT)]
        return []


def renamed(element: ET.Element, old: str, new: str) -> ET.Element:
    """A copy of ``element`` with names of the namespace ``old`` in ``new``."""
    prefix = f"{{{old}}}"
    tag = f"{{{new}}}{element.tag[len(prefix) :]}" if element.tag.startswith(prefix) else element.tag
    copy = ET.Element(tag, element.attrib)
    copy.text, copy.tail = element.text, element.tail
    copy.extend(renamed(child, old, new) for child in element)
    return copy


def _conditions(error: ET.Element) -> str:
    return ", ".join(child.tag.rpartition("}")[2] for child in error)


class ComponentPort:
    """One component connection. ``connect`` returns when Prosody has taken the handshake."""

    def __init__(self, host: str, port: int, domain: str, secret: str) -> None:
        self._host = host
        self._port = port
        self._domain = domain
        self._secret = secret
        self._writer: asyncio.StreamWriter | None = None
        self._reading: asyncio.Task[None] | None = None
        self._ended = asyncio.Event()

    async def connect(self, on_stanza: Callable[[ET.Element], None], timeout: float = 10.0) -> None:
        """Connect and log in. Raises ConnectionFailedError, AuthenticationError or ProtocolError."""
        try:
            async with asyncio.timeout(timeout):
                reader, self._writer = await asyncio.open_connection(self._host, self._port)
                parser = ComponentParser()
                rest = await self._log_in(reader, self._writer, parser)
        except (OSError, TimeoutError) as error:
            await self.close()
            message = f"Can't reach Prosody's component port {self._host}:{self._port}: {error!r}"
            raise ConnectionFailedError(message) from error
        except BaseException:
            await self.close()
            raise
        for stanza in rest:
            on_stanza(stanza)
        self._reading = asyncio.create_task(self._read(reader, parser, on_stanza), name="component reader")

    async def _log_in(
        self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, parser: ComponentParser
    ) -> list[ET.Element]:
        """Stream header and handshake (XEP-0114 section 3); returns stanzas that came with the last answer."""
        writer.write(
            f"<?xml version='1.0'?><stream:stream xmlns={quoteattr(NS_COMPONENT)} "
            f"xmlns:stream={quoteattr(NS_STREAM)} to={quoteattr(self._domain)}>".encode()
        )
        waiting: list[ET.Element] = []
        while data := await reader.read(65_536):
            waiting += parser.feed(data)
            while waiting:
                element = waiting.pop(0)
                if element.tag == f"{{{NS_STREAM}}}stream":
                    writer.write(f"<handshake>{self._digest(element.get('id', ''))}</handshake>".encode())
                elif element.tag == f"{{{NS_CLIENT}}}handshake":
                    return waiting
                elif element.tag == _ERROR:
                    message = f"Prosody refused the component {self._domain}: {_conditions(element)}"
                    raise AuthenticationError(message)
        raise ConnectionFailedError(f"Prosody closed the connection of the component {self._domain}")

    def _digest(self, stream_id: str) -> str:
        return hashlib.sha1((stream_id + self._secret).encode(), usedforsecurity=False).hexdigest()

    async def _read(
        self, reader: asyncio.StreamReader, parser: ComponentParser, on_stanza: Callable[[ET.Element], None]
    ) -> None:
        cause = "Prosody closed it"
        try:
            while data := await reader.read(65_536):
                for stanza in parser.feed(data):
                    if stanza.tag == _ERROR:
                        cause = _conditions(stanza)
                    else:
                        on_stanza(stanza)
        except (OSError, ProtocolError) as error:
            cause = str(error)
        finally:
            self._ended.set()
        log.warning("Component connection lost", event_name="component_lost", domain=self._domain, cause=cause)

    def send(self, stanza: ET.Element) -> None:
        """Send one stanza; after the end of the connection it is dropped."""
        if self._writer is not None and not self._writer.is_closing():
            self._writer.write(serialize(renamed(stanza, NS_CLIENT, NS_COMPONENT), NS_COMPONENT).encode())

    async def wait_closed(self) -> None:
        """Return when Prosody has closed the connection, or it was lost."""
        await self._ended.wait()

    async def close(self) -> None:
        """End the stream; may be called twice."""
        writer, self._writer = self._writer, None
        reading, self._reading = self._reading, None
        if writer is not None:
            if not writer.is_closing():
                writer.write(b"</stream:stream>")
            writer.close()
        if reading is not None:
            reading.cancel()
            await asyncio.wait([reading])
        self._ended.set()


class AttachedFocus:
    """Focus and bridge for a deployment that has a Prosody of its own: ``async with AttachedFocus(…)``.

    ``colibri_url`` is the base (``ws://host:port``) under which clients reach the bridge's WebSocket; without one
    it is the bridge's own port on loopback (``colibri_port``, 0 for a free one).
    """

    def __init__(
        self,
        port: ComponentPort,
        config: FocusConfig,
        *,
        addresses: Sequence[str] = ("127.0.0.1",),
        colibri_host: str = "127.0.0.1",
        colibri_port: int = 0,
        colibri_url: str | None = None,
    ) -> None:
        check_loopback(colibri_host)
        self.port = port
        self.bridge = Bridge(addresses)
        self.service = FocusService(config, self.bridge, port)
        self._address = colibri_host, colibri_port
        self._url = colibri_url
        self._runner: web.AppRunner | None = None

    async def start(self) -> None:
        """Open the bridge's WebSocket port and connect to Prosody; the errors are ComponentPort's."""
        application = web.Application()
        application.router.add_get("/colibri-ws/{server}/{conference}/{endpoint}", self.bridge.handle_web_socket)
        self._runner = web.AppRunner(application, access_log=None, shutdown_timeout=1.0)
        await self._runner.setup()
        try:
            await web.TCPSite(self._runner, *self._address).start()
            host, port = self._runner.addresses[0][:2]
            self.bridge.base_url = self._url or f"ws://{host}:{port}"
            await self.port.connect(self.service.feed)
        except BaseException:
            await self.stop()
            raise

    async def stop(self) -> None:
        """Leave the rooms and close everything; may be called twice."""
        await self.service.stop()
        await self.port.close()
        runner, self._runner = self._runner, None
        if runner is not None:
            await runner.cleanup()

    async def __aenter__(self) -> Self:
        await self.start()
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.stop()


def component_focus_config(domain: str, config: FocusConfig | None = None) -> FocusConfig:
    """The focus's configuration as the component ``domain``: its addresses are of that domain."""
    return replace(config or FocusConfig(), jid=f"focus@{domain}/focus")
