"""The decoder of one stream, called in a thread: sound by aiortc's, pictures by FFmpeg's; bounded in memory."""

from __future__ import annotations

from fractions import Fraction
from typing import NamedTuple

import av
from aiortc.codecs import get_decoder
from aiortc.jitterbuffer import JitterFrame
from aiortc.rtcrtpparameters import RTCRtpCodecParameters
from av import AudioFrame, VideoFrame
from av.video.codeccontext import VideoCodecContext

from bot.bridge import av1, pool, vp9
from bot.bridge.frames import EncodedFrame
from bot.bridge.payloads import VIDEO_CLOCK, PayloadFormat
from bot.bridge.pool import Budget

DecodedFrame = VideoFrame | AudioFrame

#: aiortc's names; RED (RFC 2198) is opus in Jitsi.
_SOUND = {"opus": "opus", "red": "opus", "pcmu": "PCMU", "pcma": "PCMA", "g722": "G722"}
#: FFmpeg's names. libvpx for VP8, as aiortc takes it; FFmpeg's own for VP9, which minds ``max_pixels`` in time.
_PICTURES = {"vp8": "libvpx", "h264": "h264", "vp9": "vp9", "av1": "libdav1d"}

_TIME_BASE = Fraction(1, VIDEO_CLOCK)


class MemoryLimitError(Exception):
    """The pictures of all streams would take more memory than they may."""


class Decoded(NamedTuple):
    """What came of some encoded frames; ``refused`` ones would have taken too much memory."""

    frames: list[DecodedFrame]
    errors: int
    refused: int


def decodable(format_: PayloadFormat) -> bool:
    """Whether there is a decoder for this payload type."""
    return decoder_of(format_) is not None


def decoder_of(format_: PayloadFormat) -> str | None:
    """The name of the decoder for a payload type, None where there is none."""
    if format_.media == "audio":
        return _SOUND.get(format_.codec)
    name = _PICTURES.get(format_.codec)
    return name if name in av.codecs_available else None


def vp8_pixels(frame: bytes) -> int:
    """Pixels of the picture that a VP8 key frame begins (RFC 7741 section 4.3); 0 for any other frame."""
    if len(frame) < 10 or frame[0] & 1:
        return 0
    width, height = (int.from_bytes(frame[at : at + 2], "little") & 0x3FFF for at in (6, 8))
    return width * height


class SoundDecoder:
    """Sound of one stream."""

    def __init__(self, format_: PayloadFormat) -> None:
        mime_type = f"audio/{_SOUND[format_.codec]}"
        self._decoder = get_decoder(RTCRtpCodecParameters(mimeType=mime_type, clockRate=format_.clock_rate))

    def decode(self, item: EncodedFrame) -> list[DecodedFrame]:
        """The frames of one packet. Raises FFmpegError or ValueError."""
        found = self._decoder.decode(JitterFrame(data=item.data, timestamp=item.timestamp))
        return [frame for frame in found if isinstance(frame, AudioFrame)]

    def close(self) -> None:
        """There is nothing to give back."""


class PictureDecoder:
    """Pictures of one stream. Their pixels are taken from ``budget`` as long as the decoder holds them."""

    def __init__(self, format_: PayloadFormat, budget: Budget) -> None:
        self._codec = format_.codec
        self._name = _PICTURES[format_.codec]
        self._budget = budget
        self._taken = 0
        self._context = self._open()

    def _open(self) -> VideoCodecContext:
        context = av.CodecContext.create(self._name, "r")
        assert isinstance(context, VideoCodecContext)
        context.thread_count = 1  # FFmpeg would start as many threads as there are cores, for each stream
        context.options = {"max_pixels": str(pool.MAX_PIXELS)}
        return context

    def decode(self, item: EncodedFrame) -> list[DecodedFrame]:
        """The picture of a frame, if it has one to show. Raises FFmpegError, ValueError or MemoryLimitError."""
        if self._codec == "vp8" and (pixels := vp8_pixels(item.data)):
            if pixels > pool.MAX_PIXELS:
                raise ValueError(f"picture of {pixels} pixels")  # libvpx would take the memory without a question
            self._take(pixels)
        shown: list[VideoFrame] = []
        for data in self._units(item):
            packet = av.Packet(data)
            packet.pts, packet.time_base = item.timestamp, _TIME_BASE
            shown = self._context.decode(packet) or shown
        if shown:
            self._take(shown[-1].width * shown[-1].height)
        return list(shown[-1:])  # the lower layers of a picture are not what is looked at

    def _units(self, item: EncodedFrame) -> list[bytes]:
        if self._codec == "vp9":
            return vp9.layer_frames(item.data, item.starts)
        return [av1.temporal_unit(item.data, item.starts)] if self._codec == "av1" else [item.data]

    def _take(self, pixels: int) -> None:
        """Hold so many pixels from now on; a decoder that may not is emptied."""
        if pixels <= self._taken:
            self._budget.give(self._taken - pixels)
        elif not self._budget.take(pixels - self._taken):
            self.close()
            self._context = self._open()
            raise MemoryLimitError
        self._taken = pixels

    def close(self) -> None:
        """Give back what was taken; may be called twice."""
        self._budget.give(self._taken)
        self._taken = 0


FrameDecoder = SoundDecoder | PictureDecoder


def make_decoder(format_: PayloadFormat, budget: Budget) -> FrameDecoder:
    """The decoder of a codec that is ``decodable``."""
    return SoundDecoder(format_) if format_.media == "audio" else PictureDecoder(format_, budget)


def decode_batch(decoder: FrameDecoder, batch: list[EncodedFrame]) -> Decoded:
    """Decode ``batch``; runs in a thread."""
    frames: list[DecodedFrame] = []
    errors = refused = 0
    for item in batch:
        try:
            frames += decoder.decode(item)
        except (av.FFmpegError, ValueError):
            errors += 1
        except MemoryLimitError:
            refused += 1
    return Decoded(frames, errors, refused)
