"""The media session of one participant: transport, senders, statistics of what comes."""

from __future__ import annotations

import random
import secrets
import ssl
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from aiortc import RTCRtpSender
from aiortc.mediastreams import MediaStreamTrack
from aiortc.rtcrtpparameters import (
    RTCRtcpParameters,
    RTCRtpCodecParameters,
    RTCRtpHeaderExtensionParameters,
    RTCRtpSendParameters,
)

from bot.bridge._aiortc import make_sender, sent_by
from bot.bridge.channel import BridgeChannel, Kind, MessageSink, SctpBridgeChannel, pick_channel
from bot.bridge.payloads import VIDEO_CLOCK, payload_formats
from bot.bridge.receive import ReceiveStatistics
from bot.bridge.receiver import MediaFeedback
from bot.bridge.transport import MediaTransport
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

_SENT_EXTENSIONS = (EXT_AUDIO_LEVEL, EXT_ABS_SEND_TIME, EXT_TRANSPORT_CC)


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

    def sources(self, endpoint: str, kinds: Sequence[str]) -> SourceMap:
        """Our sources and groups for the focus; ``kinds`` of audio and video that are published."""
        audio = Source(self.audio, f"{endpoint}-a0", msid=f"{endpoint}-audio-0-1 audio{self.audio}")
        msid = f"{endpoint}-video-0-1 video{self.video}"
        video = [
            Source(ssrc, f"{endpoint}-v0", msid=msid, video_type="camera") for ssrc in (self.video, self.video_rtx)
        ]
        return SourceMap(
            audio=MediaSources((audio,)) if "audio" in kinds else MediaSources(),
            video=MediaSources(tuple(video), (SourceGroup("FID", (self.video, self.video_rtx)),))
            if "video" in kinds
            else MediaSources(),
        )


class MediaSession:
    """One accepted offer. ``gather``, then the accept is sent by the caller, then ``connect`` with our tracks.

    ``channel`` is the wanted kind of bridge channel (see ``pick_channel``), ``tls`` what its WebSocket is verified
    with.
    """

    def __init__(
        self,
        offer: Jingle,
        *,
        addresses: Sequence[str] = (),
        on_phase: Callable[[str], None] = lambda _: None,
        on_message: MessageSink = lambda _: None,
        channel: str = "auto",
        tls: ssl.SSLContext | bool = True,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._offer = offer
        self._on_phase = on_phase
        self._clock = clock
        self._remote = bundle_transport(offer)
        self._formats = payload_formats(offer)
        # One name for all that a participant sends (RFC 3550 section 6.5.1), random (RFC 7022 section 4.2).
        self._cname = secrets.token_urlsafe(12)
        self.transport = MediaTransport("client", addresses=addresses, on_phase=on_phase)
        self.transport.dtls.on_rtp = self._received
        self.transport.dtls.on_rtcp = self._received_rtcp
        self.received = ReceiveStatistics()
        self.ssrcs = OwnSsrcs.choose()
        self.feedback = MediaFeedback(
            self.transport.send,
            self.received,
            ssrc=self.ssrcs.audio,
            cname=self._cname,
            transport_cc_ids={
                item.id: item.transport_cc for item in self._formats.values() if item.transport_cc is not None
            },
            clock=clock,
        )
        self._senders: list[RTCRtpSender] = []
        #: The bridge channel, where one is offered that is wanted; the caller opens it after ``connect``.
        self.channel = self._make_channel(pick_channel(self._remote, channel), on_message, tls)

    def __repr__(self) -> str:
        return f"<MediaSession {self.transport!r} sent {self.sent[0]} received {self.received.packets}>"

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
        counts = [sent_by(sender) for sender in self._senders]
        return sum(packets for packets, _ in counts), sum(octets for _, octets in counts)

    async def gather(self) -> Transport:
        """Our side of the transport."""
        return await self.transport.gather()

    async def connect(self, tracks: Sequence[MediaStreamTrack], *, video_codec: str, timeout: float) -> None:
        """Connect and publish ``tracks``. Raises a MediaError."""
        await self.transport.connect(self._remote, timeout)
        self.feedback.start()
        for track in tracks:
            await self._publish(track, "opus" if track.kind == "audio" else video_codec)

    async def wait_ended(self) -> None:
        """Return when the transport is gone."""
        await self.transport.wait_closed()

    async def close(self) -> None:
        """Stop sending and close the transport; may be called twice."""
        senders, self._senders = self._senders, []
        try:
            await self.feedback.close()
            for sender in senders:
                await sender.stop()
            if self.channel is not None:
                await self.channel.close()
        finally:
            await self.transport.close()

    async def _publish(self, track: MediaStreamTrack, codec: str) -> None:
        media: Media = "audio" if track.kind == "audio" else "video"
        content = self._offer.content(media)
        if content is None:
            return
        offered = content.payload_type(codec)
        if offered is None:
            raise UnsupportedMediaError(f"the offer's {media} has no {codec}", hint="JITSI_VIDEO_CODEC")
        ssrc = self.ssrcs.audio if media == "audio" else self.ssrcs.video
        sender = make_sender(track, self.transport.dtls, ssrc, self.ssrcs.video_rtx, self.transport.sequence)
        self._senders.append(sender)
        await sender.send(_send_parameters(content, offered, self._cname))
        if len(self._senders) == 1:
            self._on_phase("first_packet_out")

    def _received(self, data: bytes) -> None:
        if not self.received.packets:
            self._on_phase("first_packet_in")
        known = self._formats.get(data[1] & 0x7F)
        self.received.feed(data, self._clock(), known.clock_rate if known else VIDEO_CLOCK)
        self.feedback.rtp(data)

    def _received_rtcp(self, data: bytes) -> None:
        self.feedback.rtcp(data)


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
