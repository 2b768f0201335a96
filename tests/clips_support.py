"""The other end of a clip: payloads back to encoded frames by what RFCs say, and to pictures by real decoders."""

from __future__ import annotations

import math
import struct
from collections.abc import Iterable, Iterator, Sequence
from typing import Any

import av
import numpy as np
from aiortc.codecs import get_decoder
from aiortc.jitterbuffer import JitterFrame
from aiortc.rtcrtpparameters import RTCRtpCodecParameters
from numpy.typing import NDArray

from bot.bridge.decoder import PictureDecoder
from bot.bridge.depacketize import unpack
from bot.bridge.frames import FrameAssembler
from bot.bridge.payloads import PayloadFormat
from bot.bridge.pool import Budget
from bot.bridge.rtp import parse_header
from bot.clips.av1 import read_leb128
from bot.clips.model import Clip, ClipFrame

Luma = NDArray[np.uint8]


def packet(payload: bytes, *, marker: bool = False) -> bytes:
    """An RTP packet around a payload."""
    return struct.pack("!BBHLL", 0x80, 96 | (0x80 if marker else 0), 7, 1000, 1234) + payload


def unpack_vp9(payloads: Sequence[bytes]) -> bytes:
    """A frame of its payloads (RFC 9628 section 4.2). Raises AssertionError where their fields are wrong."""
    frame = b""
    for number, payload in enumerate(payloads):
        flags = payload[0]
        assert flags & 0xB1 == 0xA1, "picture id, layer indices, non-flexible, no upper layer"
        assert bool(flags & 0x08) == (number == 0)
        assert bool(flags & 0x04) == (number == len(payloads) - 1)
        assert payload[1] & 0x80
        at = 5
        if flags & 0x02:
            assert number == 0
            assert not flags & 0x40
            at += vp9_structure(payload[at:])[1]
        frame += payload[at:]
    return frame


def vp9_structure(data: bytes) -> tuple[tuple[int, int], int]:
    """Size of the picture that a scalability structure of one layer tells, and its length."""
    assert data[0] == 0x18
    width, height, pictures, first, distance = struct.unpack_from("!HHBBB", data, 1)
    assert (pictures, first, distance) == (1, 0x04, 1)
    return (width, height), 8


def unpack_av1(payloads: Sequence[bytes]) -> list[bytes]:
    """The OBUs of a temporal unit of its payloads (AV1's payload format, section 4)."""
    done: list[bytes] = []
    for number, payload in enumerate(payloads):
        assert payload[0] & 0x37 == 0, "W is 0, and reserved bits"
        assert bool(payload[0] & 0x08) <= (number == 0)
        parts, at = [], 1
        while at < len(payload):
            size, at = read_leb128(payload, at)
            parts.append(payload[at : at + size])
            at += size
        assert at == len(payload)
        if payload[0] & 0x80:
            done[-1] += parts.pop(0)
        done += parts
        assert bool(payload[0] & 0x40) <= (number < len(payloads) - 1)
    return done


def with_sizes(units: Iterable[bytes]) -> bytes:
    """OBUs in low overhead format, as decoders take them."""
    stream = b"\x12\x00"
    for unit in units:
        assert not unit[0] & 0x02
        body, size = unit[1:], bytearray()
        left = len(body)
        while left > 0x7F:
            size.append(left & 0x7F | 0x80)
            left >>= 7
        size.append(left)
        stream += bytes((unit[0] | 0x02,)) + bytes(size) + body
    return stream


def depacketised(codec: str, payloads: Sequence[bytes]) -> bytes:
    """An encoded frame of its payloads: by the receiving side's own parser where it has one."""
    if codec in ("vp8", "h264"):
        data = [packet(payload) for payload in payloads]
        return b"".join(unpack(codec, parse_header(item), item).data for item in data)
    if codec == "vp9":
        return unpack_vp9(payloads)
    if codec == "av1":
        return with_sizes(unpack_av1(payloads))
    (only,) = payloads
    return only


class Pictures:
    """A real decoder of a video codec, fed with a clip's frames."""

    def __init__(self, codec: str) -> None:
        self._codec = codec
        self._decoder: Any = None
        if codec in ("vp8", "h264"):
            self._decoder = get_decoder(RTCRtpCodecParameters(mimeType=f"video/{codec.upper()}", clockRate=90000))
        else:
            self._context: Any = av.CodecContext.create({"vp9": "vp9", "av1": "libdav1d"}[codec], "r")
            self._context.thread_count = 1

    def decode(self, frame: ClipFrame) -> list[Luma]:
        """The luma planes of what comes out for ``frame``."""
        data = depacketised(self._codec, frame.payloads)
        if self._decoder is not None:
            found = self._decoder.decode(JitterFrame(data=data, timestamp=frame.timestamp))
        else:
            found = self._context.decode(av.Packet(data))
        return [luma_of(item) for item in found]

    def flush(self) -> list[Luma]:
        """What the decoder still holds."""
        return [] if self._decoder is not None else [luma_of(item) for item in self._context.decode(None)]


def decoded(codec: str, frames: Iterable[ClipFrame]) -> list[Luma]:
    """All pictures of ``frames``."""
    pictures = Pictures(codec)
    found = [luma for frame in frames for luma in pictures.decode(frame)]
    return found + pictures.flush()


def luma_of(frame: Any) -> Luma:
    """The rows and columns of a picture's luma."""
    plane = frame.planes[0]
    rows = np.frombuffer(bytes(plane), np.uint8).reshape(-1, plane.line_size)
    return rows[: frame.height, : frame.width]


def psnr(one: Luma, other: Luma) -> float:
    """Peak signal-to-noise ratio in dB."""
    error = float(np.mean(np.square(one.astype(np.float64) - other.astype(np.float64))))
    return math.inf if error == 0 else 10 * math.log10(255**2 / error)


class Receiver:
    """The receiving half of the project: packets in, pictures out, by the place of their frame in the clip."""

    def __init__(self, codec: str) -> None:
        known = PayloadFormat(id=96, media="video", codec=codec, clock_rate=90000)
        self._codec = codec
        self._decoder = PictureDecoder(known, Budget(10_000_000))
        self.assembler = FrameAssembler(video=True, patience=0.1)

    def take(self, sequence: int, payload: bytes, *, timestamp: int, marker: bool, now: float) -> list[Luma]:
        """The pictures that are complete with this packet."""
        second = 96 | (0x80 if marker else 0)
        data = struct.pack("!BBHLL", 0x80, second, sequence & 0xFFFF, timestamp, 1234) + payload
        piece = unpack(self._codec, parse_header(data), data)
        found = self.assembler.feed(sequence & 0xFFFF, piece, now) + self.assembler.expire(now)
        return [luma_of(shown) for item in found for shown in self._decoder.decode(item)]


def heard(frames: Iterable[ClipFrame]) -> NDArray[np.int16]:
    """The sound of opus frames: samples of the first channel."""
    decoder = av.CodecContext.create("libopus", "r")
    decoder.options = {}
    resampler = av.AudioResampler("s16", "mono", 48000)
    pieces = [
        out.to_ndarray()[0]
        for frame in frames
        for item in decoder.decode(av.Packet(frame.payloads[0]))
        if isinstance(item, av.AudioFrame)
        for out in resampler.resample(item)
    ]
    return np.concatenate(pieces)


def bitrate(clip: Clip, layer: int, variant: int = 0) -> float:
    """Bits a second of a layer's payloads."""
    frames = clip.layers[layer].variants[variant]
    return sum(frame.size for frame in frames) * 8 / float(clip.duration)


def switched(clip: Clip, layer: int, rounds: int, every: int) -> Iterator[tuple[int, ClipFrame]]:
    """Frame numbers and frames of a sender that goes to the other variant at its next key frame, over and over."""
    variants = clip.layers[layer].variants
    current, since = 0, 0
    for number in range(rounds * len(variants[0])):
        place = number % len(variants[0])
        other = (current + 1) % len(variants)
        since += 1
        if since > every and variants[other][place].key:
            current, since = other, 0
        yield place, variants[current][place]
