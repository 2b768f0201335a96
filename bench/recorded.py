"""Media that is encoded once, when a process begins: a test pattern and a voice, in a loop of four seconds."""

from __future__ import annotations

from dataclasses import dataclass
from fractions import Fraction
from functools import lru_cache
from typing import Any

import av
from aiortc.codecs.opus import OpusEncoder
from aiortc.codecs.vpx import Vp8Encoder
from av import VideoFrame
from av.codec.context import CodecContext
from av.video.codeccontext import VideoCodecContext
from av.video.frame import PictureType

from bot.clips.spec import VideoSpec
from bot.media.clipsource import picture_source
from bot.media.synthetic import VIDEO_TIME_BASE, SyntheticAudioTrack

WIDTH, HEIGHT, FPS, BITRATE = 640, 360, 30, 500_000
SECONDS = 4
VIDEO_TICKS, AUDIO_TICKS = 90_000 // FPS, 960
AUDIO_FPS = 50
#: -dBov in the audio packets (RFC 6464).
LEVEL = 20


@dataclass(frozen=True, slots=True)
class Recorded:
    """Encoded frames of the loop, and the pictures' RTP payloads (RFC 7741)."""

    video: tuple[bytes, ...]
    audio: tuple[bytes, ...]
    payloads: tuple[tuple[bytes, ...], ...]

    @property
    def packets_per_second(self) -> float:
        """RTP packets of both in a second."""
        return (sum(map(len, self.payloads)) + len(self.audio)) / SECONDS


@lru_cache(maxsize=1)
def record() -> Recorded:
    """Encode the loop: VP8 with a key frame each second, and opus."""
    video = _video()
    packer = Vp8Encoder()
    payloads = tuple(tuple(packer.pack(_packet(data, number))[0]) for number, data in enumerate(video))
    return Recorded(video, _audio(), payloads)


def _packet(data: bytes, number: int) -> av.Packet[Any]:
    packet: av.Packet[Any] = av.Packet(data)
    packet.pts = number * VIDEO_TICKS
    packet.time_base = VIDEO_TIME_BASE
    return packet


def pictures(seconds: int) -> list[VideoFrame]:
    """The pictures of the pattern that clips are made of, as hard to encode as those."""
    return [frames[0] for frames in picture_source(VideoSpec(duration=Fraction(seconds))).pictures()]


def _video() -> tuple[bytes, ...]:
    encoder = _encoder()
    found = []
    for number, frame in enumerate(pictures(SECONDS)):
        frame.pts, frame.time_base = number * VIDEO_TICKS, VIDEO_TIME_BASE
        if number % FPS == 0:
            frame.pict_type = PictureType.I
        found.append(b"".join(bytes(packet) for packet in encoder.encode(frame)))
    return tuple(found)


def _encoder() -> VideoCodecContext:
    """VP8 as aiortc sets it up (constant bit rate, real time)."""
    encoder = CodecContext.create("libvpx", "w")
    assert isinstance(encoder, VideoCodecContext)
    encoder.width, encoder.height, encoder.pix_fmt = WIDTH, HEIGHT, "yuv420p"
    encoder.bit_rate = BITRATE
    encoder.gop_size = FPS
    encoder.thread_count = 1
    rate = str(BITRATE)
    encoder.options = {
        "bufsize": rate,
        "minrate": rate,
        "maxrate": rate,
        "cpu-used": "-6",
        "deadline": "realtime",
        "lag-in-frames": "0",
    }
    return encoder


def _audio() -> tuple[bytes, ...]:
    track, encoder = SyntheticAudioTrack("recorded"), OpusEncoder()
    found: list[bytes] = []
    number = 0
    while len(found) < SECONDS * AUDIO_FPS:
        found += encoder.encode(track.render(number))[0]
        number += 1
    return tuple(found)
