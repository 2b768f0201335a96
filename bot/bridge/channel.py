"""The bridge channel: JSON objects with ``colibriClass``, both ways; here over SCTP (RFC 8831, 8832)."""

from __future__ import annotations

import asyncio
import json
import math
from collections.abc import Callable, Mapping
from typing import Any, Literal, Protocol

import structlog
from aiortc import (
    RTCDataChannel,
    RTCDataChannelParameters,
    RTCDtlsTransport,
    RTCSctpCapabilities,
    RTCSctpTransport,
)

from bot.errors import BridgeChannelError
from bot.jingle.model import Transport

log = structlog.get_logger(__name__)

LABEL = "JVB data channel"
PROTOCOL = "http://jitsi.org/protocols/colibri"
MAX_MESSAGE_BYTES = 65_536

Message = Mapping[str, Any]
MessageSink = Callable[[Message], None]
Kind = Literal["sctp", "websocket"]


class BridgeChannel(Protocol):
    """What both kinds of channel do. Each well-formed message of the bridge goes to the sink it was made with."""

    @property
    def name(self) -> str:
        """``sctp`` or ``websocket``."""
        ...

    async def open(self, timeout: float) -> None:
        """Open it within ``timeout`` seconds. Raises BridgeChannelError."""
        ...

    async def wait_closed(self) -> None:
        """Return when it is gone."""
        ...

    def send(self, message: Message) -> None:
        """Send one message; what can't be sent is dropped with a log line."""
        ...

    async def close(self) -> None:
        """End it; may be called twice."""
        ...


def pick_channel(offered: Transport, wanted: str) -> Kind | None:
    """The kind to use of those that are offered; ``wanted`` is ``auto``, one kind, or ``none``.

    SCTP first: current deployments have no other, and where both are offered it needs no further connection.
    """
    if offered.sctp is not None and wanted in ("auto", "sctp"):
        return "sctp"
    return "websocket" if offered.web_socket_url and wanted in ("auto", "websocket") else None


class SctpBridgeChannel:
    """One channel, opened by the client as web clients do. ``on_message`` gets each well-formed message."""

    name = "sctp"

    def __init__(self, dtls: RTCDtlsTransport, on_message: MessageSink, *, port: int = 5000) -> None:
        self._sctp = RTCSctpTransport(dtls, port)
        self._port = port
        self._on_message = on_message
        self._channel: RTCDataChannel | None = None
        self._open = asyncio.Event()
        self._closed = asyncio.Event()

    def __repr__(self) -> str:
        return f"<SctpBridgeChannel {self._channel.readyState if self._channel else 'new'}>"

    async def open(self, timeout: float) -> None:
        """Start the association and open the channel. Raises BridgeChannelError; an association has one life."""
        if self._channel is not None:
            raise BridgeChannelError("The SCTP association of the bridge channel is gone")
        await self._sctp.start(RTCSctpCapabilities(maxMessageSize=MAX_MESSAGE_BYTES), self._port)
        self._take(RTCDataChannel(self._sctp, RTCDataChannelParameters(label=LABEL, protocol=PROTOCOL)))
        try:
            async with asyncio.timeout(timeout):
                await self._open.wait()
        except TimeoutError:
            raise BridgeChannelError(f"The bridge did not open its SCTP channel within {timeout:g} s") from None

    async def accept(self) -> None:
        """The bridge's end: start the association and take the channel that the client opens."""
        self._sctp.on("datachannel", self._take)
        await self._sctp.start(RTCSctpCapabilities(maxMessageSize=MAX_MESSAGE_BYTES), self._port)

    async def wait_open(self) -> None:
        """Return when messages can be sent."""
        await self._open.wait()

    async def wait_closed(self) -> None:
        """Return when the channel is gone."""
        await self._closed.wait()

    def send(self, message: Message) -> None:
        """Send one message; before the channel is open, and after its end, it is dropped with a log line."""
        if self._channel is None or self._channel.readyState != "open":
            log.warning(
                "The bridge channel is not open", event_name="channel_not_open", what=message["colibriClass"]
            )
            return
        text = json.dumps(message)
        if len(text) > MAX_MESSAGE_BYTES:  # ASCII: characters are bytes
            log.warning("A bridge message is too large", event_name="bridge_message_too_large", size=len(text))
            return
        self._channel.send(text)

    async def close(self) -> None:
        """End the association; may be called twice."""
        self._closed.set()
        await self._sctp.stop()

    def _take(self, channel: RTCDataChannel) -> None:
        self._channel = channel
        channel.on("message", lambda data: deliver(data, self._on_message))
        channel.on("open", self._open.set)
        channel.on("close", self._closed.set)
        if channel.readyState == "open":
            self._open.set()


def deliver(data: str | bytes, sink: MessageSink) -> None:
    """Hand one message to ``sink``; what is broken, or breaks the sink, ends no channel."""
    message = parse_message(data)
    if message is None:
        log.warning("A broken bridge message was ignored", event_name="bridge_message_ignored", size=len(data))
        return
    try:
        sink(message)
    except Exception:
        log.exception(
            "A bridge message could not be handled",
            event_name="bridge_message_failed",
            what=message["colibriClass"],
        )


def parse_message(data: str | bytes) -> Message | None:
    """Read one message; None for what is no JSON object with a ``colibriClass``."""
    try:
        message = json.loads(data, parse_constant=_refused, parse_float=_finite)
    except (ValueError, RecursionError):
        return None
    if not isinstance(message, dict) or not isinstance(message.get("colibriClass"), str):
        return None
    return message


def _refused(constant: str) -> float:
    """NaN and Infinity are no JSON (RFC 8259 section 6), though Python reads them."""
    raise ValueError(f"{constant} is no JSON")


def _finite(text: str) -> float:
    value = float(text)
    if not math.isfinite(value):
        raise ValueError("a number is too large")
    return value
