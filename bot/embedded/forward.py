"""What goes to whom in one room: RTP to everybody else, RTCP to whom it concerns. Pure, on unencrypted packets.

SSRCs stay as they are, but of a simulcast sender each receiver gets one layer, on the SSRCs of the first one. The
transport-wide sequence number is the receiver's own (draft-holmer-rmcat-transport-wide-cc-extensions-01 section 2:
one counter per transport).
"""

from __future__ import annotations

from collections.abc import Callable

from bot.bridge import rtcp
from bot.bridge.rtp import RtpError, RtpHeader, parse_header, set_transport_sequence, transport_sequence
from bot.embedded.offer import TRANSPORT_CC_ID, VP8_ID, ssrcs
from bot.embedded.simulcast import HEIGHTS, Projection, Simulcast, simulcasts
from bot.jingle.model import SourceMap

#: A key frame of one sender is asked for no more often than this (seconds).
KEYFRAME_INTERVAL = 0.2

Packets = list[tuple[str, bytes]]


#: Tells the height in pixels that a receiver asks of the source of an owner: receiver, owner, source name.
HeightOf = Callable[[str, str, str], int]


class Forwarder:
    """Receivers and senders by endpoint id. Packets come and go as ``(endpoint, packet)``.

    ``height_of`` tells which layer of a simulcast sender a receiver gets.
    """

    def __init__(
        self, own_ssrc: int, height_of: HeightOf = lambda _receiver, _owner, _source: HEIGHTS[-1]
    ) -> None:
        self._own_ssrc = own_ssrc
        self._height_of = height_of
        self._layered: dict[int, Simulcast] = {}
        self._projections: dict[tuple[str, str, str], Projection] = {}
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
        self._projections = {key: item for key, item in self._projections.items() if key[0] != endpoint}
        self.set_sources(endpoint, SourceMap())

    def set_sources(self, endpoint: str, sources: SourceMap) -> None:
        """Take these as what the endpoint may send."""
        self._owner = {ssrc: owner for ssrc, owner in self._owner.items() if owner != endpoint}
        self._sources.pop(endpoint, None)
        if sources:
            self._sources[endpoint] = sources
            self._owner.update(dict.fromkeys(ssrcs(sources), endpoint))
        layered = {ssrc: item for ssrc, item in self._layered.items() if ssrc in self._owner}
        for item in simulcasts(sources.video):
            layered.update(dict.fromkeys((*item.ssrcs, *filter(None, item.repairs)), item))
        self._layered = layered
        known = set(layered.values())
        self._projections = {key: item for key, item in self._projections.items() if item.source in known}
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

    def forward_rtp(self, sender: str, data: bytes, header: RtpHeader, now: float = 0.0) -> Packets:
        """The packet for each other endpoint, with that one's transport-wide sequence number.

        Of a simulcast layer, those who get it; and a request for a key frame where a receiver waits for one.
        """
        layered = self._layered.get(header.ssrc)
        numbered = transport_sequence(data, header, TRANSPORT_CC_ID) is not None
        packets: Packets = []
        for receiver in list(self._sequences):
            if receiver == sender:
                continue
            seen: bytes | None = data
            if layered is not None:
                projection = self._projection(receiver, sender, layered)
                seen = self._projected(projection, data, header, now)
                if not projection.is_settled(now):
                    packets += self._ask(projection.wanted(now), now)
            if seen is not None:
                packets.append((receiver, self._numbered(receiver, seen, header) if numbered else seen))
        return packets

    def _numbered(self, receiver: str, data: bytes, header: RtpHeader) -> bytes:
        sequence = self._sequences[receiver]
        self._sequences[receiver] = (sequence + 1) & 0xFFFF
        return set_transport_sequence(data, header, TRANSPORT_CC_ID, sequence)

    def _projection(self, receiver: str, owner: str, source: Simulcast) -> Projection:
        key = receiver, owner, source.name
        found = self._projections.get(key)
        if found is None:
            found = self._projections[key] = Projection(source)
        found.limit(self._height_of(*key))
        return found

    @staticmethod
    def _projected(projection: Projection, data: bytes, header: RtpHeader, now: float) -> bytes | None:
        try:
            if header.ssrc in projection.source.repairs:
                return projection.rtx(data, header)
            return projection.rtp(data, header, now, vp8=header.payload_type == VP8_ID)
        except ValueError:  # a descriptor that is cut short, or padding that does not fit
            return None

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
                packets += self._feedback(sender, packet, now)
        return packets

    def _sender_report(self, sender: str, report: rtcp.SenderReport) -> Packets:
        if self._owner.get(report.ssrc) != sender:
            return []
        bare = rtcp.SenderReport(report.ssrc, report.ntp, report.timestamp, report.packets, report.octets)
        layered = self._layered.get(report.ssrc)
        packets: Packets = []
        for receiver in self._sequences:
            seen: rtcp.SenderReport | None = bare
            if layered is not None and receiver != sender:
                seen = self._projection(receiver, sender, layered).report(bare)
            if receiver != sender and seen is not None:
                packets.append((receiver, rtcp.sender_report(seen) + rtcp.sdes(seen.ssrc, sender)))
        return packets

    def _feedback(self, receiver: str, packet: rtcp.Feedback, now: float) -> Packets:
        packets: Packets = []
        for ssrc in rtcp.keyframe_requests(packet):
            owner, layered = self._owner.get(ssrc), self._layered.get(ssrc)
            if owner is not None and layered is not None:
                ssrc = self._projection(receiver, owner, layered).wanted(now)  # noqa: PLW2901 -- the layer's
            packets += self._ask(ssrc, now)
        if packet.kind == rtcp.RTPFB and packet.fmt == rtcp.FMT_NACK:
            owner, layered = self._owner.get(packet.media_ssrc), self._layered.get(packet.media_ssrc)
            ssrc, lost = packet.media_ssrc, rtcp.nacked(packet)
            if owner is not None and layered is not None:
                ssrc, lost = self._projection(receiver, owner, layered).nacked(lost)
            if owner is not None and lost:
                packets.append((owner, rtcp.nack(packet.sender_ssrc, ssrc, lost)))
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
