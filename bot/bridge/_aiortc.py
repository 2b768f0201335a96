"""The one place that touches what aiortc and aioice keep to themselves; a test tells when an upgrade moves it."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from aiortc import RTCCertificate, RTCDtlsTransport, RTCIceGatherer, RTCIceTransport, RTCRtpSender
from aiortc.mediastreams import MediaStreamTrack
from aiortc.rtp import AnyRtcpPacket, HeaderExtensions, HeaderExtensionsMap, RtcpSrPacket

#: Hears of our sender reports: SSRC and NTP time in 1/2³² s.
OnSenderReport = Callable[[int, int], None]


def make_gatherer(addresses: Sequence[str]) -> RTCIceGatherer:
    """A gatherer that asks no STUN server and offers ``addresses``, loopback too; empty means all but loopback."""
    gatherer = RTCIceGatherer(iceServers=[])
    if addresses:
        connection = gatherer._connection
        gather = connection.get_component_candidates
        chosen = list(addresses)

        async def only_chosen(component: int, addresses: list[str], timeout: int = 5) -> Any:
            del addresses  # aioice's own choice
            return await gather(component, chosen, timeout)

        connection.get_component_candidates = only_chosen  # type: ignore[method-assign]
    return gatherer


def set_controlling(transport: RTCIceTransport, *, controlling: bool) -> None:
    """Set the ICE role (RFC 8445 section 6.1.1): the bridge is controlling, the client controlled."""
    transport._connection.ice_controlling = controlling


class TappedDtlsTransport(RTCDtlsTransport):
    """A DTLS transport that shows every RTP and RTCP packet, decrypted, to ``on_rtp`` and ``on_rtcp``."""

    def __init__(self, transport: RTCIceTransport, certificate: RTCCertificate) -> None:
        super().__init__(transport, [certificate])
        self.on_rtp: Callable[[bytes], None] | None = None
        self.on_rtcp: Callable[[bytes], None] | None = None

    async def _handle_rtp_data(self, data: bytes, arrival_time_ms: int) -> None:
        if self.on_rtp is not None:
            self.on_rtp(data)
        if self._rtp_router.receivers:
            await super()._handle_rtp_data(data, arrival_time_ms)

    async def _handle_rtcp_data(self, data: bytes) -> None:
        if self.on_rtcp is not None:
            self.on_rtcp(data)
        await super()._handle_rtcp_data(data)

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

    def take(self) -> int:
        """The next number, modulo 65536."""
        value, self._next = self._next, (self._next + 1) & 0xFFFF
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
    """A sender that tells of the sender reports it sends."""

    on_report: OnSenderReport | None = None

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
) -> RTCRtpSender:
    """A sender with SSRCs of our choice and transport-wide sequence numbers."""
    sender = ReportingSender(track, transport)
    sender.on_report = on_report
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
