"""What goes to whom in one room: RTP to everybody else, RTCP to whom it concerns. Pure, on unencrypted packets.

SSRCs stay as they are. Only the transport-wide sequence number is the receiver's own
(draft-holmer-rmcat-transport-wide-cc-extensions-01 section 2: one counter per transport).
"""

from __future__ import annotations

from bot.bridge import rtcp
from bot.bridge.rtp import RtpError, RtpHeader, parse_header, set_transport_sequence, transport_sequence
from bot.embedded.offer import TRANSPORT_CC_ID, ssrcs, strip_simulcast
from bot.jingle.model import SourceMap

#: A key frame of one sender is asked for no more often than this (seconds).
KEYFRAME_INTERVAL = 0.2

Packets = list[tuple[str, bytes]]


class Forwarder:
    """Receivers and senders by endpoint id. Packets come and go as ``(endpoint, packet)``."""

    def __init__(self, own_ssrc: int) -> None:
        self._own_ssrc = own_ssrc
        self._sequences: dict[str, int] = {}
        self._sources: dict[str, SourceMap] = {}
        self._owner: dict[int, str] = {}
        self._asked: dict[int, float] = {}
        #: Packets that were no RTP or RTCP, or of sources that nobody announced.
        self.ignored = 0

    def add(self, endpoint: str, now: float) -> Packets:
        """Let a connected endpoint receive; returns the key frame requests that this takes."""
        self._sequences.setdefault(endpoint, 0)
        requests: Packets = []
        for owner in self._sources:
            if owner != endpoint:
                requests += self._ask_all(owner, now)
        return requests

    def remove(self, endpoint: str) -> None:
        """Forget an endpoint and its sources."""
        self._sequences.pop(endpoint, None)
        self.set_sources(endpoint, SourceMap())

    def set_sources(self, endpoint: str, sources: SourceMap) -> None:
        """Take these as what the endpoint may send."""
        self._owner = {ssrc: owner for ssrc, owner in self._owner.items() if owner != endpoint}
        self._sources.pop(endpoint, None)
        if sources:
            kept = strip_simulcast(sources)
            self._sources[endpoint] = kept
            self._owner.update(dict.fromkeys(ssrcs(kept), endpoint))
        self._asked = {ssrc: at for ssrc, at in self._asked.items() if ssrc in self._owner}

    def header(self, sender: str, data: bytes) -> RtpHeader | None:
        """Header of a packet that is to be forwarded; None for what is broken or not the sender's own."""
        try:
            header = parse_header(data)
        except RtpError:
            header = None
        if header is None or self._owner.get(header.ssrc) != sender:
            self.ignored += 1
            return None
        return header

    def forward_rtp(self, sender: str, data: bytes, header: RtpHeader) -> Packets:
        """The packet for each other endpoint, with that one's transport-wide sequence number."""
        numbered = transport_sequence(data, header, TRANSPORT_CC_ID) is not None
        packets: Packets = []
        for receiver, sequence in self._sequences.items():
            if receiver == sender:
                continue
            if numbered:
                self._sequences[receiver] = (sequence + 1) & 0xFFFF
                packets.append((receiver, set_transport_sequence(data, header, TRANSPORT_CC_ID, sequence)))
            else:
                packets.append((receiver, data))
        return packets

    def forward_rtcp(self, sender: str, data: bytes, now: float) -> Packets:
        """Sender reports to everybody else, requests to the sender of the media; the rest ends here."""
        try:
            found = rtcp.parse(data)
        except rtcp.RtcpError:
            self.ignored += 1
            return []
        packets: Packets = []
        for packet in found:
            if isinstance(packet, rtcp.SenderReport):
                packets += self._sender_report(sender, packet)
            elif isinstance(packet, rtcp.Feedback):
                packets += self._feedback(packet, now)
        return packets

    def _sender_report(self, sender: str, report: rtcp.SenderReport) -> Packets:
        if self._owner.get(report.ssrc) != sender:
            return []
        bare = rtcp.SenderReport(report.ssrc, report.ntp, report.timestamp, report.packets, report.octets)
        text = rtcp.sender_report(bare) + rtcp.sdes(report.ssrc, sender)
        return [(receiver, text) for receiver in self._sequences if receiver != sender]

    def _feedback(self, packet: rtcp.Feedback, now: float) -> Packets:
        packets: Packets = []
        for ssrc in rtcp.keyframe_requests(packet):
            packets += self._ask(ssrc, now)
        if packet.kind == rtcp.RTPFB and packet.fmt == rtcp.FMT_NACK:
            owner = self._owner.get(packet.media_ssrc)
            lost = rtcp.nacked(packet)
            if owner is not None and lost:
                packets.append((owner, rtcp.nack(packet.sender_ssrc, packet.media_ssrc, lost)))
        return packets

    def _ask(self, ssrc: int, now: float) -> Packets:
        owner = self._owner.get(ssrc)
        if owner is None or now - self._asked.get(ssrc, -KEYFRAME_INTERVAL) < KEYFRAME_INTERVAL:
            return []
        self._asked[ssrc] = now
        return [(owner, rtcp.pli(self._own_ssrc, ssrc))]

    def _ask_all(self, owner: str, now: float) -> Packets:
        repairs = {g.ssrcs[1] for g in self._sources[owner].video.groups if g.semantics == "FID"}
        packets: Packets = []
        for source in self._sources[owner].video.sources:
            if source.ssrc not in repairs:
                packets += self._ask(source.ssrc, now)
        return packets
