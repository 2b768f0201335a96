"""The forwarding bridge: transports of the endpoints, their channels, and the packets between them."""

from __future__ import annotations

import asyncio
import hmac
import json
import secrets
import time
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import replace

import structlog
from aiohttp import WSMsgType, web

from bot.bridge.channel import Message, SctpBridgeChannel, parse_message
from bot.bridge.receive import ReceiveStatistics
from bot.bridge.receiver import MediaFeedback
from bot.bridge.rtp import audio_level
from bot.bridge.transport import MediaTransport
from bot.embedded.forward import Forwarder, Packets
from bot.embedded.hub import ChannelHub, Messages
from bot.embedded.offer import AUDIO_LEVEL_ID, CLOCK_RATES, TRANSPORT_CC_ID, Features
from bot.embedded.owner import Tasks
from bot.embedded.speaker import SpeakerDetector
from bot.jingle.model import SourceMap, Transport

log = structlog.get_logger(__name__)

#: Packets that wait for a receiver; older ones are dropped beyond it.
QUEUE = 1000
CONNECT_TIMEOUT = 30.0
#: Longest message on a channel's WebSocket.
MAX_MESSAGE_BYTES = 256 * 1024
#: What is told as the estimate of the way to a receiver, in bit/s: on loopback nothing is measured.
BANDWIDTH = 10_000_000
_OPUS = 111


class Endpoint:
    """The bridge's side of one participant."""

    def __init__(self, name: str, sid: str, features: Features, addresses: Sequence[str], own_ssrc: int) -> None:
        self.name = name
        self.sid = sid
        self.features = features
        self.password = secrets.token_urlsafe(18)
        self.transport = MediaTransport("bridge", addresses=addresses)
        self.statistics = ReceiveStatistics()
        self.feedback = MediaFeedback(
            self.transport.send,
            self.statistics,
            ssrc=own_ssrc,
            cname="embedded-bridge",
            transport_cc_ids=dict.fromkeys(CLOCK_RATES, TRANSPORT_CC_ID) if features.transport_cc else {},
        )
        self.sctp: SctpBridgeChannel | None = None
        self.sctp_open = False
        self.web_socket: web.WebSocketResponse | None = None
        self.outbox: asyncio.Queue[str] = asyncio.Queue(QUEUE)
        self._packets: asyncio.Queue[bytes] = asyncio.Queue(QUEUE)
        self.tasks = Tasks()
        #: Packets dropped because the receiver's queue was full.
        self.dropped = 0

    def put(self, data: bytes) -> None:
        """Send a packet after those before it; the oldest gives way when there are too many."""
        if self._packets.full():
            self._packets.get_nowait()
            self.dropped += 1
        self._packets.put_nowait(data)

    async def send_packets(self) -> None:
        """Send what is put, for ever."""
        while True:
            await self.transport.send(await self._packets.get())

    def say(self, message: Message) -> None:
        """Send a message on the channel there is, the WebSocket first."""
        if self.web_socket is not None:
            if not self.outbox.full():
                self.outbox.put_nowait(json.dumps(message, separators=(",", ":")))
        elif self.sctp is not None and self.sctp_open:
            self.sctp.send(message)

    async def close(self) -> None:
        """Close channels and transport."""
        await self.tasks.close()
        await self.feedback.close()
        if self.web_socket is not None:
            await self.web_socket.close()
        if self.sctp is not None:
            await self.sctp.close()
        await self.transport.close()


class Conference:
    """The endpoints of one room."""

    def __init__(self, own_ssrc: int) -> None:
        self.id = secrets.token_hex(8)
        self.own_ssrc = own_ssrc
        self.endpoints: dict[str, Endpoint] = {}
        self.hub = ChannelHub()
        self.forwarder = Forwarder(own_ssrc, self.hub.height)
        self.speaker = SpeakerDetector()

    def deliver(self, packets: Packets) -> None:
        """Hand packets to their receivers."""
        for name, data in packets:
            if (endpoint := self.endpoints.get(name)) is not None:
                endpoint.put(data)

    def say(self, messages: Messages) -> None:
        """Hand messages to their receivers."""
        for name, message in messages:
            if (endpoint := self.endpoints.get(name)) is not None:
                endpoint.say(message)


class Bridge:
    """All conferences. ``addresses`` are what ICE offers; ``on_lost(room, endpoint, sid)`` hears of lost ones.

    ``base_url`` (``ws://host:port``) is where clients reach :meth:`handle_web_socket`.
    """

    def __init__(
        self,
        addresses: Sequence[str] = ("127.0.0.1",),
        *,
        base_url: str = "",
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self.base_url = base_url
        self.conferences: dict[str, Conference] = {}
        self.on_lost: Callable[[str, str, str], None] = lambda _room, _endpoint, _sid: None
        self._addresses = tuple(addresses)
        self._clock = clock
        #: Endpoints that are not among those of ``conferences`` any more, and not yet closed.
        self._closing: set[asyncio.Future[None]] = set()

    # --- orders of the focus -------------------------------------------------------------------------------

    async def open(
        self, room: str, name: str, sid: str, features: Features, bridge_sources: SourceMap
    ) -> Transport:
        """Open our side of an endpoint's transport. Raises IceFailedError where there is no address."""
        await self._discard(room, name)
        own_ssrc = bridge_sources.video.sources[0].ssrc
        conference = self.conferences.setdefault(room, Conference(own_ssrc))
        endpoint = Endpoint(name, sid, features, self._addresses, conference.own_ssrc)
        conference.endpoints[name] = endpoint
        conference.hub.add(name, rewriting=features.rewriting)
        transport = await endpoint.transport.gather()
        path = f"/colibri-ws/embedded/{conference.id}/{name}?pwd={endpoint.password}"
        return replace(transport, web_socket_url=self.base_url + path if self.base_url else None)

    async def connect(self, room: str, name: str, sid: str, remote: Transport) -> None:
        """Connect to the endpoint's side and let its packets flow. Raises IceFailedError or DtlsFailedError."""
        found = self._find(room, name, sid)
        if found is None:
            return
        conference, endpoint = found
        endpoint.transport.dtls.on_rtp = lambda data: self._rtp(conference, endpoint, data)
        endpoint.transport.dtls.on_rtcp = lambda data: self._rtcp(conference, endpoint, data)
        if endpoint.features.sctp:
            endpoint.sctp = SctpBridgeChannel(
                endpoint.transport.dtls, lambda message: conference.say(conference.hub.feed(name, message))
            )
        await endpoint.transport.connect(remote, CONNECT_TIMEOUT)
        if endpoint.sctp is not None:
            await endpoint.sctp.accept()
            endpoint.tasks.spawn(self._sctp_opens(conference, endpoint), f"channel {name}")
        endpoint.feedback.start()
        endpoint.tasks.spawn(endpoint.send_packets(), f"packets {name}")
        endpoint.tasks.spawn(self._watch(room, endpoint), f"watch {name}")
        endpoint.tasks.spawn(self._statistics(conference, endpoint), f"statistics {name}")
        conference.deliver(conference.forwarder.add(name, self._clock()))

    def set_sources(self, room: str, name: str, sources: SourceMap) -> None:
        """Take these as what the endpoint sends."""
        conference = self.conferences.get(room)
        if conference is not None and name in conference.endpoints:
            conference.forwarder.set_sources(name, sources)
            conference.say(conference.hub.set_sources(name, sources))

    async def close_endpoint(self, room: str, name: str, sid: str) -> None:
        """Close an endpoint; nothing happens where it has a newer session by now."""
        if self._find(room, name, sid) is not None:
            await self._discard(room, name)

    async def close(self) -> None:
        """Close everything; may be called twice."""
        for room, conference in list(self.conferences.items()):
            for name in list(conference.endpoints):
                await self._discard(room, name)
        await asyncio.gather(*self._closing)

    def _find(self, room: str, name: str, sid: str) -> tuple[Conference, Endpoint] | None:
        conference = self.conferences.get(room)
        endpoint = conference.endpoints.get(name) if conference is not None else None
        if conference is None or endpoint is None or endpoint.sid != sid:
            return None
        return conference, endpoint

    async def _discard(self, room: str, name: str) -> None:
        conference = self.conferences.get(room)
        endpoint = conference.endpoints.pop(name, None) if conference is not None else None
        if conference is None or endpoint is None:
            return
        conference.forwarder.remove(name)
        conference.speaker.remove(name)
        conference.say(conference.hub.remove(name))
        if not conference.endpoints:
            self.conferences.pop(room, None)
        # Whoever is cancelled here leaves nothing half closed: it goes on, and ``close`` waits for it.
        closing = asyncio.ensure_future(endpoint.close())
        self._closing.add(closing)
        closing.add_done_callback(self._closing.discard)
        await asyncio.shield(closing)

    # --- packets -------------------------------------------------------------------------------------------

    def _rtp(self, conference: Conference, sender: Endpoint, data: bytes) -> None:
        now = self._clock()
        payload_type = data[1] & 0x7F
        sender.statistics.feed(data, now, CLOCK_RATES.get(payload_type, 90_000))
        sender.feedback.rtp(data)
        header = conference.forwarder.header(sender.name, data)
        if header is None:
            return
        conference.deliver(conference.forwarder.forward_rtp(sender.name, data, header, now))
        level = audio_level(data, header, AUDIO_LEVEL_ID) if payload_type == _OPUS else None
        if level is not None and conference.speaker.feed(sender.name, level, now):
            conference.say(conference.hub.speaker(sender.name))

    def _rtcp(self, conference: Conference, sender: Endpoint, data: bytes) -> None:
        sender.feedback.rtcp(data)
        conference.deliver(conference.forwarder.forward_rtcp(sender.name, data, self._clock()))

    async def _watch(self, room: str, endpoint: Endpoint) -> None:
        await endpoint.transport.wait_closed()
        self.on_lost(room, endpoint.name, endpoint.sid)

    # --- channels ------------------------------------------------------------------------------------------

    async def _sctp_opens(self, conference: Conference, endpoint: Endpoint) -> None:
        assert endpoint.sctp is not None
        await endpoint.sctp.wait_open()
        endpoint.sctp_open = True
        if endpoint.web_socket is None:
            conference.say(conference.hub.opened(endpoint.name, self._clock(), web_socket=False))

    async def _statistics(self, conference: Conference, endpoint: Endpoint) -> None:
        """Once a second is often enough: the messages go every ten."""
        while True:
            await asyncio.sleep(1.0)
            conference.say(conference.hub.statistics(endpoint.name, self._clock(), BANDWIDTH))

    async def handle_web_socket(self, request: web.Request) -> web.StreamResponse:
        """``/colibri-ws/{server}/{conference}/{endpoint}?pwd=…``: 403 where the password is not right."""
        found = self._authorized(request)
        if found is None:
            return web.Response(status=403, text="unknown endpoint, or wrong pwd\n")
        if request.headers.get("Upgrade", "").lower() != "websocket":
            return web.Response(status=400, text="the bridge channel is a WebSocket\n")
        conference, endpoint = found
        socket = web.WebSocketResponse(max_msg_size=MAX_MESSAGE_BYTES)
        await socket.prepare(request)
        old, endpoint.web_socket = endpoint.web_socket, socket
        if old is not None:
            await old.close()
        writer = asyncio.create_task(_write(socket, endpoint.outbox), name=f"colibri {endpoint.name}")
        try:
            conference.say(conference.hub.opened(endpoint.name, self._clock(), web_socket=True))
            await _read(socket, lambda message: conference.say(conference.hub.feed(endpoint.name, message)))
        finally:
            if endpoint.web_socket is socket:
                endpoint.web_socket = None
                if not endpoint.sctp_open and conference.endpoints.get(endpoint.name) is endpoint:
                    conference.say(conference.hub.closed(endpoint.name))
            writer.cancel()
            await asyncio.wait([writer])
        return socket

    def _authorized(self, request: web.Request) -> tuple[Conference, Endpoint] | None:
        wanted = request.match_info["conference"], request.match_info["endpoint"]
        for conference in self.conferences.values():
            endpoint = conference.endpoints.get(wanted[1])
            if conference.id == wanted[0] and endpoint is not None:
                right = hmac.compare_digest(request.query.get("pwd", "").encode(), endpoint.password.encode())
                return (conference, endpoint) if right else None
        return None


async def _write(socket: web.WebSocketResponse, outbox: asyncio.Queue[str]) -> None:
    with suppress(ConnectionError):  # the reader hears of it, too
        while True:
            await socket.send_str(await outbox.get())


async def _read(socket: web.WebSocketResponse, take: Callable[[Message], object]) -> None:
    async for frame in socket:
        if frame.type is not WSMsgType.TEXT:  # binary, or too long: aiohttp has closed with 1009
            cause = str(socket.exception() or "binary frame")
            log.warning("A channel frame was refused", event_name="embedded_frame_refused", cause=cause)
            break
        message = parse_message(frame.data)
        if message is None:
            log.warning("A broken channel message was ignored", event_name="embedded_message_ignored")
        else:
            take(message)
