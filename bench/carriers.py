"""The ways that a participant's media is carried, each behind the same few verbs."""

from __future__ import annotations

import asyncio
import secrets
from contextlib import suppress
from fractions import Fraction
from functools import lru_cache
from typing import Any, Protocol

import av
from aiortc import RTCDtlsTransport, RTCRtpReceiver
from aiortc.mediastreams import MediaStreamError, MediaStreamTrack
from aiortc.rtcrtpparameters import (
    RTCRtpCodecParameters,
    RTCRtpDecodingParameters,
    RTCRtpHeaderExtensionParameters,
    RTCRtpReceiveParameters,
)
from aiortc.rtcrtpreceiver import RemoteStreamTrack
from av import VideoFrame

from bench.messages import Job
from bench.recorded import AUDIO_FPS, AUDIO_TICKS, FPS, VIDEO_TICKS, pictures, record
from bot.bridge.session import MediaSession
from bot.bridge.transport import MediaTransport, process_certificate
from bot.clips.model import Clip
from bot.clips.spec import SoundSpec, VideoSpec
from bot.embedded.offer import BRIDGE
from bot.engine.session import SharedSession
from bot.jingle.answer import bundle_transport
from bot.jingle.model import Content, Jingle, Media, SourceMap, Transport
from bot.media.clips import ClipLibrary
from bot.media.pacing import Pacer
from bot.media.synthetic import (
    AUDIO_TIME_BASE,
    VIDEO_TIME_BASE,
    PacedTrack,
    SyntheticAudioTrack,
)

ADDRESSES = ("127.0.0.1",)
TIMEOUT = 30.0


class Carrier(Protocol):
    """One participant's media."""

    async def gather(self) -> Transport:
        """Our side of the transport."""
        ...

    @property
    def sources(self) -> SourceMap:
        """What it publishes."""
        ...

    async def connect(self) -> None:
        """Connect, and publish if it publishes."""
        ...

    @property
    def sent(self) -> int:
        """RTP packets sent, by its own count."""
        ...

    @property
    def received(self) -> int:
        """RTP packets received, by its own count."""
        ...

    @property
    def decoded(self) -> int:
        """Frames decoded."""
        ...

    async def close(self) -> None:
        """End it."""
        ...


class PacketTrack(PacedTrack):
    """Encoded frames for aiortc's sender, which then only packs them."""

    def __init__(self, kind: Media) -> None:
        video = kind == "video"
        super().__init__(Pacer(Fraction(FPS if video else AUDIO_FPS)), None)
        self.kind = kind
        self._ticks = VIDEO_TICKS if video else AUDIO_TICKS
        time_base = VIDEO_TIME_BASE if video else AUDIO_TIME_BASE
        self._packets = [av.Packet(data) for data in (record().video if video else record().audio)]
        for packet in self._packets:
            packet.time_base = time_base

    async def recv(self) -> av.Packet[Any]:
        """The next frame, when it is due."""
        slot = await self.next_slot()
        packet = self._packets[slot.index % len(self._packets)]
        packet.pts = slot.index * self._ticks
        return packet


class FrameTrack(PacedTrack):
    """Two seconds of pictures that were drawn before, in a loop: what is paid for is encoding."""

    kind = "video"

    def __init__(self) -> None:
        super().__init__(Pacer(Fraction(FPS)), None)
        # Frames of its own: their time is set while threads still encode those of others.
        self._frames = [VideoFrame.from_ndarray(item.to_ndarray(), item.format.name) for item in _drawn()]

    async def recv(self) -> VideoFrame:
        """The next picture, when it is due."""
        slot = await self.next_slot()
        frame = self._frames[slot.index % len(self._frames)]
        frame.pts, frame.time_base = slot.index * VIDEO_TICKS, VIDEO_TIME_BASE
        return frame


@lru_cache(maxsize=1)
def _drawn() -> list[VideoFrame]:
    return pictures(2)


def _encoding_tracks(name: str) -> list[MediaStreamTrack]:
    return [FrameTrack(), SyntheticAudioTrack(name)]


def _packet_tracks() -> list[MediaStreamTrack]:
    return [PacketTrack("video"), PacketTrack("audio")]


class AiortcCarrier:
    """The media session that has aiortc's senders."""

    def __init__(self, offer: Jingle, endpoint: str, tracks: list[MediaStreamTrack]) -> None:
        self._session = MediaSession(offer, addresses=ADDRESSES)
        self._endpoint = endpoint
        self._tracks = tracks

    async def gather(self) -> Transport:
        """Our side of the transport."""
        return await self._session.gather()

    @property
    def sources(self) -> SourceMap:
        """What it publishes."""
        return self._session.ssrcs.sources(self._endpoint, [track.kind for track in self._tracks])

    async def connect(self) -> None:
        """Connect and publish."""
        await self._session.connect(self._tracks, timeout=TIMEOUT)

    @property
    def sent(self) -> int:
        """Packets sent."""
        return self._session.sent[0]

    @property
    def received(self) -> int:
        """Packets received."""
        return self._session.received.packets

    @property
    def decoded(self) -> int:
        """Nothing is decoded."""
        return 0

    async def close(self) -> None:
        """End it."""
        await self._session.close()


class _PlainTransport(MediaTransport):
    """A transport whose DTLS is aiortc's own, which hands RTP to aiortc's receivers."""

    def __init__(self) -> None:
        super().__init__("client", addresses=ADDRESSES)
        self.plain = RTCDtlsTransport(self._ice, [process_certificate()])
        self.dtls = self.plain  # type: ignore[assignment] # the other one never connects and so takes nothing


class AiortcReceiver:
    """aiortc's receivers, one for each stream, over its own DTLS transport: every frame is decoded."""

    def __init__(self, offer: Jingle) -> None:
        self._offer = offer
        self._transport = _PlainTransport()
        self._receivers: list[RTCRtpReceiver] = []
        self._reading: list[asyncio.Task[None]] = []
        self._decoded = 0

    async def gather(self) -> Transport:
        """Our side of the transport."""
        return await self._transport.gather()

    @property
    def sources(self) -> SourceMap:
        """It publishes nothing."""
        return SourceMap()

    async def connect(self) -> None:
        """Connect, and decode all that comes."""
        await self._transport.connect(bundle_transport(self._offer), TIMEOUT)
        for media, found in (("audio", self._offer.sources.audio), ("video", self._offer.sources.video)):
            content = self._offer.content("audio" if media == "audio" else "video")
            repairs = {group.ssrcs[1] for group in found.groups}
            for source in found.sources:
                if content is not None and source.owner != BRIDGE and source.ssrc not in repairs:
                    await self._receive(content, source.ssrc)

    async def _receive(self, content: Content, ssrc: int) -> None:
        receiver = RTCRtpReceiver(content.media, self._transport.plain)
        receiver._track = RemoteStreamTrack(content.media)  # as RTCPeerConnection does
        receiver._set_rtcp_ssrc(secrets.randbelow(1 << 32))
        await receiver.receive(_receive_parameters(content, ssrc))
        self._receivers.append(receiver)
        self._reading.append(asyncio.create_task(self._read(receiver.track), name="read"))

    async def _read(self, track: MediaStreamTrack) -> None:
        with suppress(MediaStreamError):
            while True:
                await track.recv()
                self._decoded += track.kind == "video"

    @property
    def sent(self) -> int:
        """It publishes nothing."""
        return 0

    @property
    def received(self) -> int:
        """Packets received, by the count of its transport."""
        statistics = self._transport.plain._get_stats()
        return sum(int(item.packetsReceived) for item in statistics.values())

    @property
    def decoded(self) -> int:
        """Pictures decoded."""
        return self._decoded

    async def close(self) -> None:
        """End it."""
        for receiver in self._receivers:
            await receiver.stop()
        for task in self._reading:
            task.cancel()
        await asyncio.gather(*self._reading, return_exceptions=True)
        await self._transport.close()


def _receive_parameters(content: Content, ssrc: int) -> RTCRtpReceiveParameters:
    codec = content.payload_type("opus" if content.media == "audio" else "vp8")
    assert codec is not None
    return RTCRtpReceiveParameters(
        codecs=[
            RTCRtpCodecParameters(
                mimeType=f"{content.media}/{codec.name}",
                clockRate=codec.clockrate,
                channels=codec.channels if content.media == "audio" else None,
                payloadType=codec.id,
            )
        ],
        headerExtensions=[
            RTCRtpHeaderExtensionParameters(item.id, item.uri) for item in content.header_extensions
        ],
        encodings=[RTCRtpDecodingParameters(ssrc=ssrc, payloadType=codec.id)],
    )


class EngineCarrier:
    """The shared engine; ``clips`` are what is published, a picture and a sound."""

    def __init__(self, offer: Jingle, endpoint: str, clips: tuple[Clip, ...]) -> None:
        self._session = SharedSession(offer, addresses=ADDRESSES, endpoint=endpoint)
        self._endpoint = endpoint
        self._clips = clips

    async def gather(self) -> Transport:
        """Our side of the transport."""
        return await self._session.gather()

    @property
    def sources(self) -> SourceMap:
        """What it publishes."""
        return self._session.ssrcs.sources(self._endpoint, [clip.media for clip in self._clips])

    async def connect(self) -> None:
        """Connect and publish."""
        await self._session.connect([], timeout=TIMEOUT)
        for clip in self._clips:
            source = self._session.ssrcs.source(self._endpoint, f"{clip.media[0]}0")
            self._session.publish_clip(source, clip)

    @property
    def sent(self) -> int:
        """Packets sent."""
        return self._session.sent[0]

    @property
    def received(self) -> int:
        """Packets received."""
        return self._session.received.packets

    @property
    def decoded(self) -> int:
        """Nothing is decoded."""
        return 0

    async def close(self) -> None:
        """End it."""
        await self._session.close()


async def engine_clips(job: Job) -> tuple[Clip, ...]:
    """What participants of the engine publish, encoded once: a picture, and somebody who never stops talking."""
    if job.way != "engine" or not job.publish:
        return ()
    library = ClipLibrary()
    return await library.get(VideoSpec()), await library.get(SoundSpec())


def make_carrier(job: Job, offer: Jingle, endpoint: str, clips: tuple[Clip, ...]) -> Carrier:
    """What ``job`` measures, for one participant."""
    match job.way:
        case "engine":
            return EngineCarrier(offer, endpoint, clips)
        case "aiortc-encoding":
            return AiortcCarrier(offer, endpoint, _encoding_tracks(endpoint))
        case "aiortc-packets":
            return AiortcCarrier(offer, endpoint, _packet_tracks())
        case "aiortc-receiving":
            return AiortcReceiver(offer)
