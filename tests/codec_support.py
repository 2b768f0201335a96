"""Pictures and sound through real codecs, on a link that loses packets."""

from __future__ import annotations

import random
from collections.abc import Iterable, Iterator
from fractions import Fraction
from typing import Any

import av
import numpy as np
from av import AudioFrame, VideoFrame
from av.video.codeccontext import VideoCodecContext
from numpy.typing import NDArray

from bot.media.sound import FRAME_SAMPLES, SAMPLE_RATE

#: As in a call: what does not fit the bit rate is left out.
_REALTIME = {
    "deadline": "realtime",
    "lag-in-frames": "0",
    "error-resilient": "default",
    "drop-threshold": "60",
    "qmin": "2",
    "qmax": "56",
}
_ENCODERS: dict[str, tuple[str, dict[str, str]]] = {
    "vp8": ("libvpx", {**_REALTIME, "cpu-used": "-6"}),
    "vp9": ("libvpx-vp9", {**_REALTIME, "cpu-used": "7"}),
    "h264": ("libx264", {"preset": "veryfast", "tune": "zerolatency", "profile": "baseline"}),
}
#: Of FFmpeg's decoder of H264: without it pictures with lost ones before them are held back.
_H264_DECODER = {"flags": "low_delay"}


def encoded(codec: str, frames: Iterable[VideoFrame], bit_rate: int, *, gop: int = 90) -> list[tuple[int, bytes]]:
    """``frames`` (all of one size, 30 a second) as a sender encodes them: a packet for each that is not left out.

    Each with the number of its frame.
    """
    name, options = _ENCODERS[codec]
    encoder: VideoCodecContext | None = None
    packets: list[tuple[int, bytes]] = []
    for index, frame in enumerate(frames):
        if encoder is None:
            encoder = _video_encoder(name, options, frame, bit_rate, gop)
        frame.pts, frame.time_base = index, Fraction(1, 30)
        packets += [(index, bytes(packet)) for packet in encoder.encode(frame)]
    return packets


def _video_encoder(
    name: str, options: dict[str, str], frame: VideoFrame, bit_rate: int, gop: int
) -> VideoCodecContext:
    encoder = av.CodecContext.create(name, "w")
    assert isinstance(encoder, VideoCodecContext)
    encoder.width, encoder.height, encoder.pix_fmt = frame.width, frame.height, "yuv420p"
    encoder.bit_rate, encoder.gop_size, encoder.thread_count = bit_rate, gop, 1
    encoder.framerate, encoder.time_base = Fraction(30), Fraction(1, 30)
    encoder.options = options | dict.fromkeys(("minrate", "maxrate", "bufsize"), str(bit_rate))
    return encoder


def decoded(codec: str, packets: Iterable[tuple[int, bytes]]) -> Iterator[tuple[int, VideoFrame]]:
    """What a decoder makes of the packets, with the number of the frame that was sent last.

    A decoder that can't go on shows nothing until it can, as in a call.
    """
    decoder: Any = av.CodecContext.create({"vp8": "libvpx", "vp9": "libvpx-vp9"}.get(codec, codec), "r")
    if codec == "h264":
        decoder.options = dict(_H264_DECODER)
    for number, packet in packets:
        try:
            frames = decoder.decode(av.Packet(packet))
        except av.FFmpegError:
            continue
        for frame in frames:
            yield number, frame


def lossy(packets: Iterable[tuple[int, bytes]], share: float, seed: int) -> list[tuple[int, bytes]]:
    """The packets without a ``share`` of them."""
    rng = random.Random(seed)
    return [packet for packet in packets if rng.random() >= share]


def torn(packets: Iterable[tuple[int, bytes]], share: float, seed: int) -> list[tuple[int, bytes]]:
    """The packets with a ``share`` of them cut short: what came of a picture is given to the decoder."""
    rng = random.Random(seed)
    return [
        (number, packet[: rng.randrange(len(packet) // 4, len(packet))] if rng.random() < share else packet)
        for number, packet in packets
    ]


def opus_encoded(frames: Iterable[bytes], bit_rate: int = 24_000, application: str = "voip") -> list[bytes]:
    """20 ms frames of mono s16 as opus."""
    encoder: Any = av.CodecContext.create("libopus", "w")
    encoder.sample_rate, encoder.layout, encoder.format = SAMPLE_RATE, "mono", "s16"
    encoder.bit_rate, encoder.time_base = bit_rate, Fraction(1, SAMPLE_RATE)
    encoder.options = {"application": application, "vbr": "constrained", "frame_duration": "20"}
    packets = []
    for index, samples in enumerate(frames):
        frame = AudioFrame(format="s16", layout="mono", samples=FRAME_SAMPLES)
        frame.planes[0].update(samples)
        frame.sample_rate, frame.pts = SAMPLE_RATE, index * FRAME_SAMPLES
        frame.time_base = Fraction(1, SAMPLE_RATE)
        packets += [bytes(packet) for packet in encoder.encode(frame)]
    return packets


def opus_decoded(packets: Iterable[bytes | None]) -> Iterator[NDArray[np.int16]]:
    """Each packet's samples, mono; those of a lost one (None) are silent."""
    decoder: Any = av.CodecContext.create("libopus", "r")
    decoder.sample_rate, decoder.layout, decoder.format = SAMPLE_RATE, "mono", "s16"
    for packet in packets:
        if packet is None:
            yield np.zeros(FRAME_SAMPLES, np.int16)
            continue
        frames = decoder.decode(av.Packet(packet))
        yield np.concatenate([frame.to_ndarray().reshape(-1) for frame in frames])
