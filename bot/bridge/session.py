"""The media session of one participant: transport, senders, statistics of what comes."""

from __future__ import annotations

import random
import secrets
import ssl
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass

from aiortc.mediastreams import MediaStreamTrack
from aiortc.rtcrtpparameters import (
    RTCRtcpParameters,
    RTCRtpCodecParameters,
    RTCRtpHeaderExtensionParameters,
    RTCRtpSendParameters,
)

from bot.bridge import rtcp
from bot.bridge._aiortc import OpenSocket, ReportingSender, force_key_frame, make_sender, sent_by
from bot.bridge.channel import BridgeChannel, Kind, MessageSink, SctpBridgeChannel, pick_channel
from bot.bridge.decode import Decode, DecodedStream, OnFrame
from bot.bridge.inbound import Inbound, InboundMedia, InboundStatistics
from bot.bridge.payloads import PayloadFormat, payload_formats
from bot.bridge.receiver import MediaFeedback
from bot.bridge.roundtrip import RoundTrips
from bot.bridge.rtp import RtpError, parse_header
from bot.bridge.streams import NamedSource, RemoteStream, jingle_names
from bot.bridge.tap import MediaTap
from bot.bridge.transport import MediaTransport
from bot.bridge.twcc import FeedbackCounter, TransportFeedback, parse_feedback
from bot.bridge.websocket import WebSocketBridgeChannel
from bot.errors import UnsupportedMediaError
from bot.jingle.answer import bundle_transport
from bot.jingle.model import (
    EXT_ABS_SEND_TIME,
    EXT_AUDIO_LEVEL,
    EXT_TRANSPORT_CC,
    Content,
    Jingle,
    Media,
    MediaSources,
    PayloadType,
    Source,
    SourceGroup,
    SourceMap,
    Transport,
)
from bot.turn import TurnServer

_MEDIA: tuple[Media, ...] = ("audio", "video")

_SENT_EXTENSIONS = (EXT_AUDIO_LEVEL, EXT_ABS_SEND_TIME, EXT_TRANSPORT_CC)


@dataclass(frozen=True, slots=True)
class OwnSource:
    """A source that we publish: its Jitsi name, and its SSRCs in one session; ``rtx`` is None for sound.

    With simulcast ``ssrc`` and ``rtx`` are those of the lowest layer, ``higher`` the pairs of the others.
    """

    name: str
    media: Media
    ssrc: int
    rtx: int | None = None
    video_type: str | None = None
    higher: tuple[tuple[int, int], ...] = ()

    @property
    def layers(self) -> tuple[tuple[int, int | None], ...]:
        """SSRC and RTX SSRC of each layer, the lowest first."""
        return ((self.ssrc, self.rtx), *self.higher)

    @property
    def sources(self) -> SourceMap:
        """What the focus is told of it: what is not a desktop is a camera, to all who ask."""
        # One for all SSRCs of a source, and nobody else's: Jicofo refuses the others.
        msid = f"{self.name} {self.ssrc:x}"
        video_type = self.video_type if self.video_type != "camera" else None
        primary = tuple(ssrc for ssrc, _ in self.layers)
        pairs = tuple((ssrc, rtx) for ssrc, rtx in self.layers if rtx is not None)
        ssrcs = (*primary, *(rtx for _, rtx in pairs))
        sources = tuple(Source(ssrc, self.name, msid=msid, video_type=video_type) for ssrc in ssrcs)
        simulcast = (SourceGroup("SIM", primary),) if self.higher else ()
        found = MediaSources(sources, (*simulcast, *(SourceGroup("FID", pair) for pair in pairs)))
        return SourceMap(audio=found) if self.media == "audio" else SourceMap(video=found)


@dataclass(frozen=True, slots=True)
class OwnSsrcs:
    """The SSRCs that a participant publishes with; new ones for each session, the names stay."""

    audio: int
    video: int
    video_rtx: int

    @classmethod
    def choose(cls, rng: random.Random | None = None) -> OwnSsrcs:
        """Three different numbers (RFC 3550 section 8.1)."""
        return cls(*(rng or random.Random()).sample(range(1, 2**32), 3))

    def source(
        self, endpoint: str, label: str, video_type: str = "camera", *, fresh: bool = False, layers: int = 1
    ) -> OwnSource:
        """The source called ``endpoint-label``; ``a0`` and ``v0`` have these SSRCs, any other has new ones.

        ``fresh`` gives these new ones, too: a stream that ended can't begin anew under its SSRC, as SRTP takes
        numbers that were there before for replayed ones (RFC 3711 section 3.3.2). More than one of ``layers`` is
        simulcast.
        """
        name, known = f"{endpoint}-{label}", {self.audio, self.video, self.video_rtx}
        if label.startswith("a"):
            return OwnSource(name, "audio", self.audio if label == "a0" and not fresh else _other(known))
        first = (self.video, self.video_rtx) if label == "v0" and not fresh else _others(known)
        higher = tuple(_others(known) for _ in range(layers - 1))
        return OwnSource(name, "video", *first, video_type, higher)

    def sources(self, endpoint: str, kinds: Sequence[str]) -> SourceMap:
        """The first source of each of ``kinds`` (audio, video), for the focus."""
        found = SourceMap()
        for kind in kinds:
            found = found.merged(self.source(endpoint, f"{kind[0]}0").sources)
        return found


def _other(known: set[int]) -> int:
    """An SSRC that is not ``known``, and is from now on."""
    found = next(ssrc for ssrc in iter(lambda: random.randrange(1, 2**32), 0) if ssrc not in known)
    known.add(found)
    return found


def _others(known: set[int]) -> tuple[int, int]:
    return _other(known), _other(known)


@dataclass(frozen=True, slots=True, kw_only=True)
class MediaTotals:
    """Running totals of a session: bytes of media each way, packets and their loss, the round trip in seconds."""

    audio_sent: int = 0
    video_sent: int = 0
    audio_received: int = 0
    video_received: int = 0
    #: Of our packets, as the bridge's transport-wide-cc feedback says.
    sent_acked: int = 0
    sent_lost: int = 0
    received: int = 0
    received_lost: int = 0
    #: Frames that were decoded, and those that were dropped because decoding could not keep up.
    decoded: int = 0
    decode_dropped: int = 0
    round_trip: float | None = None


class MediaSession:
    """One accepted offer. ``gather``, then the accept is sent by the caller, then ``connect`` with our tracks.

    ``ssrcs`` are those of a session that goes on elsewhere; else new ones are chosen.
    ``relay_only`` is as in :class:`MediaTransport`, ``channel`` is the wanted kind of bridge channel (see
    ``pick_channel``), ``tls`` what its WebSocket and the TURN server are verified with. ``decode`` says what of
    all that comes is decoded; ``on_frame`` hears of each frame, in the event loop. ``tap`` sees all packets.
    ``on_encoding_failed`` hears which of our tracks could not be encoded, and why; the next frame is tried anew.
    """

    def __init__(
        self,
        offer: Jingle,
        *,
        addresses: Sequence[str] = (),
        relay_only: bool = False,
        on_phase: Callable[[str], None] = lambda _: None,
        on_encoding_failed: Callable[[OwnSource, str], None] = lambda *_: None,
        on_message: MessageSink = lambda _: None,
        channel: str = "auto",
        tls: ssl.SSLContext | bool = True,
        decode: Decode = "none",
        on_frame: OnFrame | None = None,
        clock: Callable[[], float] = time.monotonic,
        ssrcs: OwnSsrcs | None = None,
        open_socket: OpenSocket | None = None,
        tap: MediaTap | None = None,
    ) -> None:
        self._offer = offer
        self._tap = tap
        self._on_phase = on_phase
        self._on_encoding_failed = on_encoding_failed
        self._clock = clock
        self._remote = bundle_transport(offer)
        formats = payload_formats(offer)
        # One name for all that a participant sends (RFC 3550 section 6.5.1), random (RFC 7022 section 4.2).
        self._cname = secrets.token_urlsafe(12)
        self.transport = MediaTransport(
            "client",
            addresses=addresses,
            relay_only=relay_only,
            tls=tls,
            on_phase=on_phase,
            open_socket=open_socket,
        )
        self.transport.dtls.on_rtp = self._received
        self.transport.dtls.on_rtcp = self._received_rtcp
        self.ssrcs = ssrcs or OwnSsrcs.choose()
        self._round_trips = RoundTrips()
        self._arrivals = FeedbackCounter()
        self.inbound = self._make_inbound(formats, decode, on_frame)
        self.feedback = MediaFeedback(
            self.transport.send,
            self.received,
            ssrc=self.ssrcs.audio,
            cname=self._cname,
            transport_cc_ids={
                item.id: item.transport_cc for item in formats.values() if item.transport_cc is not None
            },
            clock=clock,
            requests=self.inbound,
        )
        self.name_sources(offer.sources)
        self._senders: dict[str, ReportingSender] = {}
        #: Packets and payload bytes of senders that were stopped.
        self._sent_before: dict[Media, tuple[int, int]] = dict.fromkeys(_MEDIA, (0, 0))
        #: The bridge channel, where one is offered that is wanted; the caller opens it after ``connect``.
        self.channel = self._make_channel(pick_channel(self._remote, channel), on_message, tls)

    def __repr__(self) -> str:
        return f"<MediaSession {self.transport!r} sent {self.sent[0]} received {self.received.packets}>"

    def _make_inbound(
        self, formats: Mapping[int, PayloadFormat], decode: Decode, on_frame: OnFrame | None
    ) -> Inbound:
        """What counts, repairs and decodes what comes."""
        return InboundMedia(
            formats,
            ssrc=self.ssrcs.audio,
            started=self._clock(),
            decode=decode,
            on_frame=on_frame,
            wake=self._chase,
            round_trip=lambda: self._round_trips.value,
            tap=self._tap,
        )

    def _make_channel(
        self, kind: Kind | None, on_message: MessageSink, tls: ssl.SSLContext | bool
    ) -> BridgeChannel | None:
        if kind == "sctp" and self._remote.sctp is not None:
            return SctpBridgeChannel(self.transport.dtls, on_message, port=self._remote.sctp.number)
        if kind == "websocket" and self._remote.web_socket_url:
            return WebSocketBridgeChannel(self._remote.web_socket_url, on_message, tls=tls)
        return None

    @property
    def id(self) -> str:
        """The session's id in Jingle (``sid``)."""
        return self._offer.sid

    @property
    def sent(self) -> tuple[int, int]:
        """Packets and payload bytes sent so far, retransmissions left out."""
        counts = [self._sent_of(media) for media in _MEDIA]
        return sum(packets for packets, _ in counts), sum(octets for _, octets in counts)

    def _sent_of(self, media: Media) -> tuple[int, int]:
        now = [sent_by(sender) for sender in self._senders.values() if sender.kind == media]
        counts = [self._sent_before[media], *now]
        return sum(packets for packets, _ in counts), sum(octets for _, octets in counts)

    @property
    def silence(self) -> float | None:
        """Seconds since the last RTP packet came, None before the first."""
        return None if self.received.last is None else self._clock() - self.received.last

    def totals(self) -> MediaTotals:
        """What went each way so far."""
        octets, decoded = self.inbound.bytes, self.inbound.decoders.totals
        return MediaTotals(
            audio_sent=self._sent_of("audio")[1],
            video_sent=self._sent_of("video")[1],
            audio_received=octets["audio"],
            video_received=octets["video"],
            sent_acked=self._arrivals.acked,
            sent_lost=self._arrivals.lost,
            received=self.received.packets,
            received_lost=sum(stream.missing for stream in self.snapshot()),
            decoded=decoded.frames,
            decode_dropped=decoded.dropped,
            round_trip=self.round_trip,
        )

    @property
    def received(self) -> InboundStatistics:
        """Statistics of every SSRC, RTX and unknown payload types included."""
        return self.inbound.statistics

    @property
    def round_trip(self) -> float | None:
        """Round-trip time to the bridge in seconds, from its reports about our streams; None before the first."""
        return self._round_trips.value

    def name_sources(self, sources: SourceMap) -> None:
        """Take the sources of a session-initiate or source-add."""
        self.inbound.name(jingle_names(sources))

    def map_sources(self, sources: Iterable[NamedSource]) -> None:
        """Take what a map of the bridge says, which puts sources on SSRCs as it likes."""
        self.inbound.name(sources)

    def forget_source(self, ssrc: int) -> None:
        """Drop a source that was removed, or whose owner left."""
        self.inbound.forget([ssrc])

    def snapshot(self, now: float | None = None) -> tuple[RemoteStream, ...]:
        """What was received of each remote source until ``now`` (on the session's clock; None is now)."""
        return self.inbound.snapshot(self._clock() if now is None else now)

    def decoded(self, key: int | str) -> DecodedStream | None:
        """What was decoded of an SSRC or a source name; None when it is not being decoded."""
        return self.inbound.decoded(key)

    async def gather(self, turn: TurnServer | None = None) -> Transport:
        """Our side of the transport, with a candidate of ``turn`` where there is one."""
        return await self.transport.gather(turn)

    async def connect(
        self, tracks: Sequence[MediaStreamTrack] = (), *, video_codec: str = "vp8", timeout: float
    ) -> None:
        """Connect, and publish ``tracks`` as the first sources of their kinds. Raises a MediaError."""
        await self.transport.connect(self._remote, timeout)
        self._connected()
        for track in tracks:
            source = self.ssrcs.source("", f"{track.kind[0]}0")
            await self.publish(source, track, "opus" if track.kind == "audio" else video_codec)

    def _connected(self) -> None:
        """Begin to tell the bridge what comes."""
        self.feedback.start()

    async def publish(self, source: OwnSource, track: MediaStreamTrack, codec: str) -> None:
        """Send ``track`` as ``source``; nothing happens where its kind is not offered.

        The sender stops the track at its end. Raises UnsupportedMediaError.
        """
        content = self._offer.content(source.media)
        if content is None:
            return
        offered = _payload_type(content, codec)
        sender = make_sender(
            track,
            self.transport.dtls,
            source.ssrc,
            source.rtx or 0,
            self.transport.sequence,
            on_report=lambda sent, ntp: self._round_trips.sent(sent, ntp, self._clock()),
            on_failure=lambda error: self._on_encoding_failed(source, repr(error)),
            first=self._continued(source),
        )
        first = not self._senders
        self._senders[source.name] = sender
        await sender.send(_send_parameters(content, offered, self._cname))
        if first:
            self._on_phase("first_packet_out")

    def _continued(self, source: OwnSource) -> tuple[int, int] | None:
        """The sequence number and time stamp that a stream goes on with, None where it is new."""
        del source
        return None

    async def unpublish(self, name: str) -> None:
        """Stop sending a source (RTCP BYE, RFC 3550 section 6.6); nothing happens where it is not sent."""
        if (sender := self._senders.get(name)) is not None:
            await sender.stop()
            self._retire(name)

    def switch_codec(self, name: str, codec: str) -> None:
        """Send a picture with another offered codec from its next frame on. Raises UnsupportedMediaError."""
        content, sender = self._offer.content("video"), self._senders.get(name)
        if content is None or sender is None:
            return
        offered = _payload_type(content, codec)
        rtx = content.rtx_for(offered.id)
        sender.switch_codec(_codec(content, offered), rtx.id if rtx is not None else None)

    def request_key_frame(self, name: str) -> None:
        """Let the next frame of a source be a key frame."""
        if (sender := self._senders.get(name)) is not None:
            force_key_frame(sender)

    def _retire(self, name: str) -> None:
        if (sender := self._senders.pop(name, None)) is None:
            return  # stopped by another call meanwhile
        media: Media = "audio" if sender.kind == "audio" else "video"
        packets, octets = sent_by(sender)
        before = self._sent_before[media]
        self._sent_before[media] = (before[0] + packets, before[1] + octets)

    async def add_candidates(self, remote: Transport) -> None:
        """Take candidates that came after the offer (XEP-0176 section 5.7)."""
        await self.transport.add_candidates(remote)

    async def wait_ended(self) -> None:
        """Return when the transport is gone."""
        await self.transport.wait_closed()

    async def close(self) -> None:
        """Stop sending and close the transport; may be called twice, also after a call that was cancelled."""
        try:
            await self.feedback.close()
            await self.inbound.decoders.close()
            if self._tap is not None:
                self._tap.closed()
            for name, sender in list(self._senders.items()):
                await sender.stop()
                self._retire(name)
            if self.channel is not None:
                await self.channel.close()
        finally:
            await self.transport.close()

    def _received(self, data: bytes) -> None:
        try:
            header = parse_header(data)
        except RtpError:
            self.inbound.statistics.ignored += 1
            return
        now = self._clock()
        self.feedback.arrived(data, header, now)
        if self.received.last is None:
            self._on_phase("first_packet_in")
        self.inbound.packet(data, header, now)

    def _chase(self) -> None:
        self.feedback.chase()

    def _received_rtcp(self, data: bytes) -> None:
        now = self._clock()
        for packet in self._read_rtcp(data, now):
            self._round_trips.feed(packet, now)
            if isinstance(packet, rtcp.Feedback):
                self._take_feedback(packet, now)
            elif self._tap is not None and isinstance(packet, rtcp.SenderReport):
                self._tap.report(packet, now)

    def _read_rtcp(self, data: bytes, now: float) -> list[rtcp.Packet]:
        del now  # MediaFeedback has the same clock
        return self.feedback.rtcp(data)

    def _take_feedback(self, packet: rtcp.Feedback, now: float) -> None:
        """Take what the bridge says of what we send."""
        if (packet.kind, packet.fmt) == (rtcp.RTPFB, rtcp.FMT_TRANSPORT_CC):
            try:
                self._take_arrivals(parse_feedback(packet), now)
            except rtcp.RtcpError:
                self.feedback.malformed += 1

    def _take_arrivals(self, feedback: TransportFeedback, now: float) -> None:
        del now
        self._arrivals.feed(feedback)


def _payload_type(content: Content, codec: str) -> PayloadType:
    offered = content.payload_type(codec)
    if offered is None:
        raise UnsupportedMediaError(f"the offer's {content.media} has no {codec}", hint="JITSI_VIDEO_CODEC")
    return offered


def _send_parameters(content: Content, offered: PayloadType, cname: str) -> RTCRtpSendParameters:
    """Aiortc's parameters with the ids of the offer, never of habit."""
    codecs = [_codec(content, offered)]
    rtx = content.rtx_for(offered.id)
    if rtx is not None:
        codecs.append(_codec(content, rtx))
    return RTCRtpSendParameters(
        codecs=codecs,
        headerExtensions=[
            RTCRtpHeaderExtensionParameters(id=item.id, uri=item.uri)
            for item in content.header_extensions
            if item.uri in _SENT_EXTENSIONS
        ],
        rtcp=RTCRtcpParameters(cname=cname, mux=True),
    )


def _codec(content: Content, item: PayloadType) -> RTCRtpCodecParameters:
    return RTCRtpCodecParameters(
        mimeType=f"{content.media}/{item.name}",
        clockRate=item.clockrate,
        channels=item.channels if content.media == "audio" else None,
        payloadType=item.id,
        parameters={"apt": item.apt} if item.apt is not None else {},
    )
