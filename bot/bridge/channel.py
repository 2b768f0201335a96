"""The bridge channel over SCTP (RFC 8831, 8832): JSON objects with ``colibriClass``, both ways."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Callable, Mapping
from typing import Any

import structlog
from aiortc import (
    RTCDataChannel,
    RTCDataChannelParameters,
    RTCDtlsTransport,
    RTCSctpCapabilities,
    RTCSctpTransport,
)

log = structlog.get_logger(__name__)

LABEL = "JVB data channel"
PROTOCOL = "http://jitsi.org/protocols/colibri"
MAX_MESSAGE_BYTES = 65_536

Message = Mapping[str, Any]


class SctpBridgeChannel:
    """One channel, opened by the client as web clients do. ``on_message`` gets each well-formed message."""

    name = "sctp"

    def __init__(self, dtls: RTCDtlsTransport, on_message: Callable[[Message], None], *, port: int = 5000) -> None:
        self._sctp = RTCSctpTransport(dtls, port)
        self._port = port
        self._on_message = on_message
        self._channel: RTCDataChannel | None = None
        self._open = asyncio.Event()

    def __repr__(self) -> str:
        return f"<SctpBridgeChannel {self._channel.readyState if self._channel else 'new'}>"

    async def start(self) -> None:
        """Start the association and open the channel; ``wait_open`` tells when it is open."""
        await self._sctp.start(RTCSctpCapabilities(maxMessageSize=MAX_MESSAGE_BYTES), self._port)
        self._take(RTCDataChannel(self._sctp, RTCDataChannelParameters(label=LABEL, protocol=PROTOCOL)))

    async def accept(self) -> None:
        """The bridge's end: start the association and take the channel that the client opens."""
        self._sctp.on("datachannel", self._take)
        await self._sctp.start(RTCSctpCapabilities(maxMessageSize=MAX_MESSAGE_BYTES), self._port)

    async def wait_open(self) -> None:
        """Return when messages can be sent."""
        await self._open.wait()

    def send(self, message: Message) -> None:
        """Send one message; before the channel is open, and after its end, it is dropped with a log line."""
        if self._channel is None or self._channel.readyState != "open":
            log.warning(
                "The bridge channel is not open", event_name="channel_not_open", what=message["colibriClass"]
            )
            return
        self._channel.send(json.dumps(message))

    async def close(self) -> None:
        """End the association; may be called twice."""
        await self._sctp.stop()

    def _take(self, channel: RTCDataChannel) -> None:
        self._channel = channel
        channel.on("message", self._received)
        channel.on("open", self._open.set)
        if channel.readyState == "open":
            self._open.set()

    def _received(self, data: str | bytes) -> None:
        message = parse_message(data)
        if message is None:
            log.warning("A broken bridge message was ignored", event_name="bridge_message_ignored", size=len(data))
            return
        self._on_message(message)


def parse_message(data: str | bytes) -> Message | None:
    """Read one message; None for what is no JSON object with a ``colibriClass``."""
    try:
        message = json.loads(data)
    except (ValueError, RecursionError):
        return None
    if not isinstance(message, dict) or not isinstance(message.get("colibriClass"), str):
        return None
    return message


def receiver_constraints(*, max_height: int, last_n: int) -> Message:
    """What we want to receive: up to ``last_n`` video sources (-1 all), each up to ``max_height`` pixels tall."""
    return {
        "colibriClass": "ReceiverVideoConstraints",
        "lastN": last_n,
        "assumedBandwidthBps": -1,
        "defaultConstraints": {"maxHeight": max_height},
    }


def mapped_sources(message: Message) -> list[tuple[str, str, int]]:
    """Name, owner and SSRC of each source of a VideoSourcesMap or AudioSourcesMap; broken ones are left out."""
    entries = message.get("mappedSources")
    return [
        (str(entry.get("source", "")), str(entry.get("owner", "")), int(entry["ssrc"]))
        for entry in (entries if isinstance(entries, list) else ())
        if isinstance(entry, dict) and isinstance(entry.get("ssrc"), int) and entry["ssrc"] > 0
    ]
