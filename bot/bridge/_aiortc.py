"""The one place that touches what aiortc and aioice keep to themselves; a test tells when an upgrade moves it."""

from __future__ import annotations

import asyncio
import math
import ssl
from collections.abc import Awaitable, Callable, Sequence
from contextlib import suppress
from contextvars import ContextVar
from typing import NamedTuple

import aioice.ice
import aioice.stun
import aiortc.rtcrtpsender
import aiortc.rtp
import numpy as np
import pylibsrtp
import structlog
from aiortc import RTCCertificate, RTCDtlsTransport, RTCIceGatherer, RTCIceTransport, RTCRtpSender
from aiortc.mediastreams import MediaStreamError, MediaStreamTrack
from aiortc.rtcdtlstransport import State
from aiortc.rtcrtpparameters import RTCRtpCodecParameters
from aiortc.rtcrtpsender import RTCEncodedFrame
from aiortc.rtp import AnyRtcpPacket, HeaderExtensions, HeaderExtensionsMap, RtcpSrPacket
from av import AudioFrame

from bot.bridge import rtcp, rtp
from bot.turn import TurnServer

log = structlog.get_logger(__name__)

#: Hears of our sender reports: SSRC and NTP time in 1/2³² s.
OnSenderReport = Callable[[int, int], None]
#: Opens a UDP socket at an address of the host for what receives its datagrams. Raises OSError.
OpenSocket = Callable[[asyncio.DatagramProtocol, str], Awaitable[asyncio.DatagramTransport]]
#: A packet of aiortc's senders would begin with these numbers: sequence number and RTP time stamp.
_first_numbers: ContextVar[tuple[int, int] | None] = ContextVar("first_numbers", default=None)
#: Faults of one transport that are logged; all are counted.
_LOGGED_FAULTS = 10
#: Seconds to wait for a TURN server: beside other candidates, and where there is no other way.
TURN_TIMEOUT, TURN_TIMEOUT_ALONE = 2.0, 5.0
#: Seconds after a frame that could not be encoded: a track that gives nothing else must not fill the loop.
_FAILURE_PAUSE = 0.02
_FULL_SCALE = 32_767.0
_SILENCE = -127

# A vanished peer is found after four checks in vain, within 18 to 26 s. aioice waits for six, up to 39 s; consent
# lasts 30 s at most (RFC 7675 section 5.1).
aioice.ice.CONSENT_FAILURES = 4


def audio_level(frame: AudioFrame) -> int:
    """Level of a 16-bit frame in dBov, -127 to 0 (RFC 6465 appendix A), over the samples of all its channels."""
    samples = np.frombuffer(bytes(frame.planes[0]), np.int16)[: frame.samples * len(frame.layout.channels)]
    level = math.sqrt(float(np.mean(np.square(samples, dtype=np.float64)))) / _FULL_SCALE if samples.size else 0.0
    return max(_SILENCE, min(0, round(20 * math.log10(level)))) if level > 0 else _SILENCE


def _first_sequence() -> int:
    numbers = _first_numbers.get()
    return int(_random_sequence()) if numbers is None else numbers[0]


def _first_stamp() -> int:
    numbers = _first_numbers.get()
    return int(_random_stamp()) if numbers is None else numbers[1]


_sender_module = vars(aiortc.rtcrtpsender)
_random_sequence, _random_stamp = _sender_module["random_sequence_number"], _sender_module["random32"]
_sender_module |= {"random_sequence_number": _first_sequence, "random32": _first_stamp}
# aiortc's own divides the energy of two channels by the samples of one, 3 dB too loud, in a loop of Python.
aiortc.rtp.compute_audio_level_dbov = audio_level


class Gatherer(RTCIceGatherer):
    """A gatherer that asks no server but the TURN server that it is given as ``turn``.

    ``addresses`` are the hosts to offer, loopback too; empty means all but loopback. ``relay_only`` offers none of
    them. ``open_socket`` opens their sockets, asyncio's datagram endpoints if None. aioice would not say why a
    TURN server gave no candidate.
    """

    def __init__(
        self,
        addresses: Sequence[str] = (),
        *,
        relay_only: bool = False,
        tls: ssl.SSLContext | bool = True,
        open_socket: OpenSocket | None = None,
    ) -> None:
        super().__init__(iceServers=[])
        self._open_socket = open_socket
        self._chosen = tuple(addresses)
        #: The server to ask.
        self.turn: TurnServer | None = None
        self._relay_only = relay_only
        self._tls = tls
        #: Why the TURN server gave no candidate, None where it did, or was not asked.
        self.turn_error: str | None = None
        self._gather_hosts = self._connection.get_component_candidates
        self._connection.get_component_candidates = self._gather_all  # type: ignore[method-assign]

    async def release(self) -> None:
        """Close what is open; may be called at any time, and again."""
        await self._connection.close()

    async def _gather_all(self, component: int, addresses: list[str], timeout: int = 5) -> list[aioice.Candidate]:
        hosts = [] if self._relay_only else list(self._chosen) or addresses
        if self._open_socket is None:
            found = await self._gather_hosts(component, hosts, timeout)
        else:
            found = [item for host in hosts if (item := await self._host(component, host, self._open_socket))]
        if self.turn is not None:
            limit = TURN_TIMEOUT_ALONE if self._relay_only else TURN_TIMEOUT
            try:
                async with asyncio.timeout(limit):
                    found.append(await self._gather_relayed(component, self.turn))
            except TimeoutError:
                self.turn_error = f"{self.turn} did not answer within {limit:g} s"
            except (OSError, aioice.stun.TransactionError) as error:
                self.turn_error = f"{self.turn}: {error}"
        return found

    async def _host(self, component: int, host: str, open_socket: OpenSocket) -> aioice.Candidate | None:
        """The candidate of one address, None where nothing can be bound to it."""
        protocol = aioice.ice.StunProtocol(self._connection)
        try:
            transport = await open_socket(protocol, host)
        except OSError as error:
            log.info("No socket at an address", event_name="host_address_unusable", address=host, cause=str(error))
            return None
        address, port, *_ = transport.get_extra_info("sockname")
        protocol.local_candidate = aioice.Candidate(
            foundation=aioice.candidate.candidate_foundation("host", "udp", address),
            component=component,
            transport="udp",
            priority=aioice.candidate.candidate_priority(component, "host"),
            host=address,
            port=port,
            type="host",
        )
        self._connection._protocols.append(protocol)
        return protocol.local_candidate

    async def _gather_relayed(self, component: int, turn: TurnServer) -> aioice.Candidate:
        candidate, protocol = await aioice.ice.relayed_candidate(
            component=component,
            hide_related_address=self._relay_only,
            protocol_factory=lambda: aioice.ice.StunProtocol(self._connection),
            turn_server=(turn.host, turn.port),
            turn_username=turn.username,
            turn_password=turn.password,
            turn_ssl=self._tls if turn.tls else None,  # type: ignore[arg-type]  # what asyncio takes is taken
            turn_transport=turn.transport,
        )
        _end_soon(protocol)
        self._connection._protocols.append(protocol)
        return candidate


def _end_soon(protocol: aioice.ice.StunProtocol) -> None:
    """Wait a second, at most, for the TURN server to take the end of the allocation; aioice waits for 63 s."""
    inner = protocol.transport._TurnTransport__inner_protocol  # type: ignore[attr-defined]
    delete = inner.delete

    async def bounded() -> None:
        with suppress(TimeoutError):
            async with asyncio.timeout(1.0):
                await delete()  # closes the socket, whatever happens

    inner.delete = bounded


def set_controlling(transport: RTCIceTransport, *, controlling: bool) -> None:
    """Set the ICE role (RFC 8445 section 6.1.1): the bridge is controlling, the client controlled."""
    transport._connection.ice_controlling = controlling


class Route(NamedTuple):
    """Where the media of a connected transport goes: the socket, or what stands for it, and the remote address."""

    transport: asyncio.DatagramTransport
    remote: tuple[str, int]
    outgoing: pylibsrtp.Session
    incoming: pylibsrtp.Session


class LastingIceTransport(RTCIceTransport):
    """An ICE transport that no refused datagram ends."""

    def __init__(self, gatherer: RTCIceGatherer) -> None:
        super().__init__(gatherer)
        #: Datagrams that the system did not take (no route, refused, filtered); a lost peer is found by consent.
        self.unsent = 0
        self._send = self._send_on

    async def _send_on(self, data: bytes) -> None:
        try:
            await self._connection.send(data)
        except OSError as error:
            if type(error) is ConnectionError:
                raise  # aioice's own: there is no connection any more
            self.unsent += 1


class TappedDtlsTransport(RTCDtlsTransport):
    """A DTLS transport that shows every RTP and RTCP packet, decrypted, to ``on_rtp`` and ``on_rtcp``.

    What a packet or its receivers do wrong ends that packet and not the transport. RTP is taken where the socket
    is read; aiortc's way through a queue and a task costs as much again.
    """

    def __init__(self, transport: RTCIceTransport, certificate: RTCCertificate) -> None:
        super().__init__(transport, [certificate])
        self.on_rtp: Callable[[bytes], None] | None = None
        self.on_rtcp: Callable[[bytes], None] | None = None
        #: Datagrams whose handling failed.
        self.faults = 0
        #: RTP packets that SRTP refused: replayed or not authentic (RFC 3711 section 3.3).
        self.refused = 0
        self._intra_requests: dict[int, tuple[int, int]] = {}
        self._routing: set[asyncio.Task[None]] = set()
        self._enqueue = transport._connection.data_received
        transport._connection.data_received = self._datagram  # type: ignore[method-assign]

    def _datagram(self, data: bytes, component: int) -> None:
        if self._state is State.CONNECTED and rtp.is_rtp_or_rtcp(data) and not rtp.is_rtcp(data):
            try:
                self._take_rtp(self._rx_srtp.unprotect(data))
            except pylibsrtp.Error:
                self.refused += 1
            except Exception:
                if self._is_told():
                    log.exception("A packet could not be handled", event_name="datagram_failed")
        elif data:  # RTCDtlsTransport looks at the first byte
            self._enqueue(data, component)

    async def _recv_next(self) -> None:
        try:
            await super()._recv_next()
        except ConnectionError:
            raise
        except Exception:
            if self._is_told():
                log.exception("A datagram could not be handled", event_name="datagram_failed")
            await asyncio.sleep(0)  # whatever it is, the loop goes on

    def _is_told(self) -> bool:
        """Count a fault; whether it is among the first, which are logged."""
        self.faults += 1
        return self.faults <= _LOGGED_FAULTS

    def route(self) -> Route:
        """The path of media. Raises ConnectionError before there is one."""
        pair = self.transport._connection._nominated.get(1)
        if pair is None or self._state is not State.CONNECTED:
            raise ConnectionError("The transport is not connected")
        return Route(pair.protocol.transport, pair.remote_addr, self._tx_srtp, self._rx_srtp)

    def take_rtcp(self, data: bytes) -> None:
        """Take RTCP that was received and decrypted elsewhere."""
        if self.on_rtcp is not None:
            self.on_rtcp(data)
        if self._rtp_router.senders:
            self._take_intra_requests(data)
            task = asyncio.ensure_future(super()._handle_rtcp_data(data))
            self._routing.add(task)
            task.add_done_callback(self._routing.discard)

    async def _handle_rtp_data(self, data: bytes, arrival_time_ms: int) -> None:
        del arrival_time_ms  # no RTCRtpReceiver is ever registered: it would send feedback of its own
        self._take_rtp(data)

    def _take_rtp(self, data: bytes) -> None:
        if self.on_rtp is not None:
            self.on_rtp(data)

    async def _handle_rtcp_data(self, data: bytes) -> None:
        if self.on_rtcp is not None:
            self.on_rtcp(data)
        self._take_intra_requests(data)
        await super()._handle_rtcp_data(data)

    def _take_intra_requests(self, data: bytes) -> None:
        """Full intra requests (RFC 5104 section 4.3.1): aiortc looks for our SSRC where it is always 0."""
        try:
            packets = rtcp.parse(data)
        except rtcp.RtcpError:
            return
        for packet in packets:
            if isinstance(packet, rtcp.Feedback):
                for ssrc, number in rtcp.intra_requests(packet):
                    self._intra_request(ssrc, (packet.sender_ssrc, number))

    def _intra_request(self, ssrc: int, request: tuple[int, int]) -> None:
        sender = self._rtp_router.senders.get(ssrc)
        if isinstance(sender, RTCRtpSender) and self._intra_requests.get(ssrc) != request:
            self._intra_requests[ssrc] = request  # the same number again is a repetition
            sender._send_keyframe()

    def take_role(self, *, server: bool) -> None:
        """Take the DTLS role that signalling agreed on, whatever the ICE role is."""
        self._set_role("server" if server else "client")

    async def send_packet(self, data: bytes) -> None:
        """Send one RTP or RTCP packet, not yet encrypted."""
        await self._send_rtp(data)


class TransportSequence:
    """The counter of transport-wide sequence numbers: one for all that a transport sends."""

    def __init__(self) -> None:
        self._next = 0

    def take(self, count: int = 1) -> int:
        """The first of the next ``count`` numbers, modulo 65536."""
        value, self._next = self._next, (self._next + count) & 0xFFFF
        return value


class TransportCcMap(HeaderExtensionsMap):
    """Header extensions with a transport-wide sequence number in every packet, retransmissions included.

    draft-holmer-rmcat-transport-wide-cc-extensions-01 section 2: each packet sent takes the next number.
    """

    def __init__(self, sequence: TransportSequence) -> None:
        super().__init__()
        self._sequence = sequence

    def set(self, values: HeaderExtensions) -> tuple[int, bytes]:
        """Write the extensions of one packet."""
        values.transport_sequence_number = self._sequence.take()
        return super().set(values)


class ReportingSender(RTCRtpSender):
    """A sender that tells of the sender reports it sends, and that can change its codec in the middle.

    A track with a ``stamp`` says by it what RTP time stamp the frame has that it gave last. ``first`` are the
    sequence number and the RTP time stamp to begin with, where the stream went on under another sender before.
    """

    on_report: OnSenderReport | None = None
    #: Hears of the first frame in a row that could not be encoded.
    on_failure: Callable[[Exception], None] | None = None
    first: tuple[int, int] | None = None
    _failing = False
    _next_codec: tuple[RTCRtpCodecParameters, int | None] | None = None

    def switch_codec(self, codec: RTCRtpCodecParameters, rtx_payload_type: int | None) -> None:
        """Encode with another codec from the next frame on; sequence numbers and time stamps go on."""
        self._next_codec = codec, rtx_payload_type

    async def _run_rtp(self, codec: RTCRtpCodecParameters) -> None:
        _first_numbers.set(self.first)  # the task has a context of its own
        await super()._run_rtp(codec)

    async def _next_encoded_frame(self, codec: RTCRtpCodecParameters) -> RTCEncodedFrame | None:
        if self._next_codec is not None:
            (chosen, rtx), self._next_codec = self._next_codec, None
            # aiortc's loop takes the payload type of each packet from this same object.
            vars(codec).update(vars(chosen))
            self._RTCRtpSender__encoder = None
            self._RTCRtpSender__rtx_payload_type = rtx
            self._RTCRtpSender__rtp_history.clear()  # type: ignore[attr-defined] # they would get the new type
        try:
            encoded = await super()._next_encoded_frame(codec)
        except (ConnectionError, MediaStreamError):
            raise
        except Exception as error:  # noqa: BLE001 -- told by on_failure; aiortc would end the sender
            await self._encoding_failed(error)
            return None
        self._failing = self._failing and encoded is None
        stamp = getattr(self.track, "stamp", None)
        if encoded is not None and isinstance(stamp, int):
            # FFmpeg's Opus encoder holds back 6.5 ms: after a gap it tells the time of the packet before that.
            encoded.timestamp = stamp
        return encoded

    async def _encoding_failed(self, error: Exception) -> None:
        """Leave the frame out, and begin anew with the next one: another encoder, a key frame."""
        self._RTCRtpSender__encoder = None
        if not self._failing and self.on_failure is not None:
            self.on_failure(error)
        self._failing = True
        await asyncio.sleep(_FAILURE_PAUSE)

    async def _send_rtcp(self, packets: list[AnyRtcpPacket]) -> None:
        for packet in packets:
            if isinstance(packet, RtcpSrPacket) and self.on_report is not None:
                self.on_report(packet.ssrc, packet.sender_info.ntp_timestamp)
        await super()._send_rtcp(packets)


def make_sender(
    track: MediaStreamTrack,
    transport: RTCDtlsTransport,
    ssrc: int,
    rtx_ssrc: int,
    sequence: TransportSequence,
    *,
    on_report: OnSenderReport | None = None,
    on_failure: Callable[[Exception], None] | None = None,
    first: tuple[int, int] | None = None,
) -> ReportingSender:
    """A sender with SSRCs of our choice and transport-wide sequence numbers; ``first`` as in ReportingSender."""
    sender = ReportingSender(track, transport)
    sender.on_report = on_report
    sender.on_failure = on_failure
    sender.first = first
    sender._ssrc = ssrc
    sender._rtx_ssrc = rtx_ssrc
    sender._RTCRtpSender__rtp_header_extensions_map = TransportCcMap(sequence)  # type: ignore[attr-defined]
    return sender


def sent_by(sender: RTCRtpSender) -> tuple[int, int]:
    """Packets and payload bytes that ``sender`` has sent."""
    return (
        sender._RTCRtpSender__packet_count,  # type: ignore[attr-defined]
        sender._RTCRtpSender__octet_count,  # type: ignore[attr-defined]
    )


def force_key_frame(sender: RTCRtpSender) -> None:
    """Let the next frame that ``sender`` encodes be a key frame."""
    sender._send_keyframe()
