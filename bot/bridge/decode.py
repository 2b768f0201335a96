"""Decoding on request: frames from the packets of a stream by aiortc's decoders, in a few threads of a session."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from math import inf
from typing import Literal

import av
import structlog
from aiortc.codecs import get_decoder
from aiortc.codecs.base import Decoder
from aiortc.codecs.h264 import H264Decoder, H264PayloadDescriptor
from aiortc.codecs.vpx import Vp8Decoder, VpxPayloadDescriptor
from aiortc.jitterbuffer import JitterFrame
from aiortc.rtcrtpparameters import RTCRtpCodecParameters
from av import AudioFrame, VideoFrame

from bot.bridge.frames import EncodedFrame, FrameAssembler, Piece
from bot.bridge.nack import MAX_AGE
from bot.bridge.payloads import PayloadFormat
from bot.bridge.rtp import RtpError, RtpHeader, is_padding_only, payload
from bot.jingle.model import Media

log = structlog.get_logger(__name__)

Decode = Literal["none", "audio", "video", "all"]
DecodedFrame = VideoFrame | AudioFrame

#: Threads of one session; a 640x360 VP8 frame takes half a millisecond of one.
THREADS = 2
#: Streams of one session that are decoded at the same time; others are only counted.
MAX_DECODED = 64
#: Streams that are known not to be decoded; whoever is beyond is asked about with each packet.
MAX_REFUSED = 4096
#: Encoded frames of one stream that wait for a thread: two seconds of video, one of sound.
QUEUE = 60
#: How long a hole in a stream is waited for (seconds): what NACK repairs comes within the first.
VIDEO_PATIENCE = MAX_AGE
PLAIN_PATIENCE = 0.1
#: Most pixels of a picture that is decoded, a screen of 5120x2880: twenty bytes can claim 268 million.
MAX_PIXELS = 5120 * 2880

_CODECS: dict[tuple[str, str], str] = {
    ("audio", "opus"): "opus",
    ("audio", "pcmu"): "PCMU",
    ("audio", "pcma"): "PCMA",
    ("audio", "g722"): "G722",
    ("video", "vp8"): "VP8",
    ("video", "h264"): "H264",
}


class DecodedStream:
    """What was decoded of one stream. ``last`` is the newest frame, ``dropped`` were not decoded in time."""

    def __init__(self, ssrc: int, format_: PayloadFormat) -> None:
        self.ssrc = ssrc
        self.media: Media = format_.media
        self.codec = format_.codec
        self.frames = 0
        self.last: DecodedFrame | None = None
        #: Encoded frames that were thrown away because decoding, or the receiver of frames, could not keep up.
        self.dropped = 0
        #: Encoded frames that the decoder could not read.
        self.errors = 0

    def __repr__(self) -> str:
        return f"<DecodedStream {self.ssrc} {self.codec} frames {self.frames} dropped {self.dropped}>"

    @property
    def size(self) -> tuple[int, int] | None:
        """Width and height of the newest picture in pixels."""
        return (self.last.width, self.last.height) if isinstance(self.last, VideoFrame) else None


OnFrame = Callable[[DecodedStream, DecodedFrame], None]


def decodable(format_: PayloadFormat) -> bool:
    """Whether there is a decoder for this payload type."""
    return (format_.media, format_.codec) in _CODECS


def make_decoder(format_: PayloadFormat) -> Decoder:
    """The decoder of a codec that is ``decodable``."""
    name = _CODECS[format_.media, format_.codec]
    decoder = get_decoder(RTCRtpCodecParameters(mimeType=f"{format_.media}/{name}", clockRate=format_.clock_rate))
    if isinstance(decoder, H264Decoder):
        decoder.codec.options = {"max_pixels": str(MAX_PIXELS)}
    return decoder


def vp8_pixels(frame: bytes) -> int:
    """Pixels of the picture that a VP8 key frame begins (RFC 7741 section 4.3); 0 for any other frame."""
    if len(frame) < 10 or frame[0] & 1:
        return 0
    width, height = (int.from_bytes(frame[at : at + 2], "little") & 0x3FFF for at in (6, 8))
    return width * height


def unpack(codec: str, header: RtpHeader, data: bytes) -> Piece:
    """The payload of a packet without its packetisation (RFC 7741, RFC 6184). Raises ValueError where broken."""
    body = payload(data, header)
    starts_key = False
    if codec == "vp8" and body:
        descriptor, body = VpxPayloadDescriptor.parse(body)
        starts_key = bool(descriptor.partition_start and not descriptor.partition_id and body and not body[0] & 1)
    elif codec == "h264" and body:
        starts_key = _starts_h264_key(body)
        _, body = H264PayloadDescriptor.parse(body)
    return Piece(header.timestamp, header.marker, body, starts_key)


def _starts_h264_key(body: bytes) -> bool:
    """A sequence parameter set or the start of an IDR picture, also in a STAP-A or FU-A (RFC 6184 section 5)."""
    kind = body[0] & 0x1F
    if kind == 24 and len(body) > 3:
        kind = body[3] & 0x1F
    elif kind == 28 and len(body) > 1 and body[1] & 0x80:
        kind = body[1] & 0x1F
    return kind in (5, 7)


def _decode(decoder: Decoder, batch: list[EncodedFrame]) -> tuple[list[DecodedFrame], int]:
    """Decode ``batch`` in a thread; returns the frames and how many could not be read."""
    frames: list[DecodedFrame] = []
    errors = 0
    for item in batch:
        if isinstance(decoder, Vp8Decoder) and vp8_pixels(item.data) > MAX_PIXELS:
            errors += 1  # libvpx takes the memory before it could be asked not to
            continue
        try:
            decoded = decoder.decode(JitterFrame(data=item.data, timestamp=item.timestamp))
            frames += [frame for frame in decoded if isinstance(frame, (VideoFrame, AudioFrame))]
        except (av.FFmpegError, ValueError):
            errors += 1
    return frames, errors


class _Job:
    """One stream being decoded: its frames wait here while a thread has its decoder."""

    def __init__(self, ssrc: int, format_: PayloadFormat) -> None:
        patience = VIDEO_PATIENCE if format_.nack else PLAIN_PATIENCE
        self.format = format_
        self.stream = DecodedStream(ssrc, format_)
        self.assembler = FrameAssembler(video=format_.media == "video", patience=patience)
        self.decoder = make_decoder(format_)
        self.waiting: deque[EncodedFrame] = deque()
        self.busy = False


class Decoders:
    """All streams of a session that are decoded. ``packet`` is called from the loop; frames come there, too.

    ``need_key_frame(ssrc, needed)`` hears when a stream can't go on without one, and when it came; ``wake`` when
    there is a new deadline.
    """

    def __init__(
        self,
        decode: Decode,
        *,
        on_frame: OnFrame | None = None,
        need_key_frame: Callable[[int, bool], None] = lambda _ssrc, _needed: None,
        wake: Callable[[], None] = lambda: None,
    ) -> None:
        self._kinds = {"none": (), "all": ("audio", "video")}.get(decode, (decode,))
        self._on_frame = on_frame
        self._need_key_frame = need_key_frame
        self._wake = wake
        self._jobs: dict[int, _Job] = {}
        self._refused: set[int] = set()
        self._running: set[asyncio.Future[tuple[list[DecodedFrame], int]]] = set()
        self._pool: ThreadPoolExecutor | None = None
        self._closed = False

    def __repr__(self) -> str:
        return f"<Decoders {len(self._jobs)} streams>"

    @property
    def active(self) -> bool:
        """Whether anything is decoded at all."""
        return bool(self._kinds)

    def get(self, ssrc: int) -> DecodedStream | None:
        """What was decoded of ``ssrc``, None when it is not being decoded."""
        job = self._jobs.get(ssrc)
        return job.stream if job else None

    def wants(self, ssrc: int) -> bool:
        """Whether packets of ``ssrc`` have to be unprotected for ``packet``; True until one was taken of it.

        It answers for SSRCs with media, not for those of retransmissions. The answer may change with each
        ``packet``, ``expire`` and ``forget``.
        """
        return self.active and not self._closed and ssrc not in self._refused

    def packet(self, format_: PayloadFormat, header: RtpHeader, data: bytes, now: float) -> None:
        """Take one packet of a media stream, repaired ones and those with padding only included."""
        if format_.media not in self._kinds or self._closed:
            if len(self._refused) < MAX_REFUSED:
                self._refused.add(header.ssrc)
            return
        job = self._jobs.get(header.ssrc)
        # A probe for bandwidth begins no stream and changes no codec, whatever its payload type says.
        if not is_padding_only(data, header) and (job is None or job.format.codec != format_.codec):
            job = self._open(header.ssrc, format_)
        if job is None:
            return
        try:
            piece = unpack(job.format.codec, header, data)
        except (RtpError, ValueError):
            self._unreadable(job, 1)
            return
        waited = job.assembler.next_deadline()
        self._frames(job, job.assembler.feed(header.sequence, piece, now))
        if job.assembler.next_deadline() < waited:
            self._wake()

    def expire(self, now: float) -> None:
        """Go on behind holes that were waited for long enough."""
        for job in self._jobs.values():
            if job.assembler.next_deadline() <= now:
                self._frames(job, job.assembler.expire(now))

    def next_deadline(self) -> float:
        """When ``expire`` is to be called."""
        return min((job.assembler.next_deadline() for job in self._jobs.values()), default=inf)

    def forget(self, ssrc: int) -> None:
        """End the decoding of ``ssrc``; its next packet begins anew."""
        if self._jobs.pop(ssrc, None) is not None:
            self._need_key_frame(ssrc, False)
        self._refused.discard(ssrc)

    async def close(self) -> None:
        """Wait for the threads to end; may be called twice."""
        self._closed = True
        pool, self._pool = self._pool, None
        if self._running:
            await asyncio.wait(self._running)
        if pool is not None:
            pool.shutdown(wait=False)  # its threads have nothing left to do

    def _open(self, ssrc: int, format_: PayloadFormat) -> _Job | None:
        self._jobs.pop(ssrc, None)
        if ssrc in self._refused:
            return None
        if not decodable(format_) or len(self._jobs) >= MAX_DECODED:
            why = "there are too many already" if decodable(format_) else f"no decoder for {format_.codec}"
            log.warning("A stream is not decoded", event_name="stream_not_decoded", ssrc=ssrc, cause=why)
            if len(self._refused) < MAX_REFUSED:
                self._refused.add(ssrc)
            return None
        job = self._jobs[ssrc] = _Job(ssrc, format_)
        if job.assembler.needs_key_frame:
            self._need_key_frame(ssrc, True)
        return job

    def _frames(self, job: _Job, frames: list[EncodedFrame]) -> None:
        self._need_key_frame(job.stream.ssrc, job.assembler.needs_key_frame)
        if not frames:
            return
        job.waiting.extend(frames)
        if len(job.waiting) > QUEUE:
            self._drop(job)
        if job.waiting and not job.busy:
            self._start(job)

    def _drop(self, job: _Job) -> None:
        """Too much is waiting: pictures go on with a key frame, sound with the newest."""
        kept = QUEUE // 2 if job.stream.media == "audio" else 0
        while len(job.waiting) > kept:
            job.waiting.popleft()
            job.stream.dropped += 1
        job.assembler.restart()
        self._need_key_frame(job.stream.ssrc, job.assembler.needs_key_frame)

    def _start(self, job: _Job) -> None:
        if self._pool is None:
            self._pool = ThreadPoolExecutor(THREADS, thread_name_prefix="decode")
        batch = list(job.waiting)
        job.waiting.clear()
        job.busy = True
        running = asyncio.get_running_loop().run_in_executor(self._pool, _decode, job.decoder, batch)
        self._running.add(running)
        running.add_done_callback(lambda done: self._decoded(job, done))

    def _decoded(self, job: _Job, done: asyncio.Future[tuple[list[DecodedFrame], int]]) -> None:
        job.busy = False
        self._running.discard(done)
        if done.cancelled() or self._closed:
            return
        frames, errors = done.result()
        if errors and not job.assembler.needs_key_frame and job.stream.media == "video":
            job.assembler.restart()
            self._need_key_frame(job.stream.ssrc, True)
        self._unreadable(job, errors)
        for frame in frames:
            self._deliver(job.stream, frame)
        if job.waiting:
            self._start(job)

    @staticmethod
    def _unreadable(job: _Job, count: int) -> None:
        """Count what could not be decoded; the first of a stream is told, the others are statistics."""
        if count and not job.stream.errors:
            log.warning(
                "A frame could not be decoded",
                event_name="frame_unreadable",
                ssrc=job.stream.ssrc,
                codec=job.stream.codec,
            )
        job.stream.errors += count

    def _deliver(self, stream: DecodedStream, frame: DecodedFrame) -> None:
        stream.frames += 1
        stream.last = frame
        if self._on_frame is None:
            return
        try:
            self._on_frame(stream, frame)
        except Exception:
            # A broken receiver of frames never touches the call.
            log.exception("A receiver of frames failed", event_name="frame_receiver_failed", ssrc=stream.ssrc)
