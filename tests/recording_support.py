"""Encoded streams as senders make them, and what players read of the files that they end in."""

from __future__ import annotations

from datetime import UTC, datetime
from functools import cache
from pathlib import Path
from typing import NamedTuple

import av
import numpy as np
from av import AudioFrame, VideoFrame
from av.audio.codeccontext import AudioCodecContext
from av.container import InputContainer

from bot.recording.matroska import Muxer, TrackFormat, write_ending
from tests.codec_support import encoded

STARTED = datetime(2026, 1, 2, 3, 4, 5, 678000, tzinfo=UTC)


class Read(NamedTuple):
    """What PyAV reads of a file: milliseconds, bytes and key of each packet, and the duration in ms."""

    packets: list[tuple[int, bytes, bool]]
    duration: int | None
    codecs: list[str]

    @property
    def times(self) -> list[int]:
        return [when for when, _, _ in self.packets]


def read(path: Path) -> Read:
    """All packets of a file."""
    with av.open(str(path)) as container:
        assert isinstance(container, InputContainer)
        packets = [
            (packet.pts, bytes(packet), packet.is_keyframe)
            for packet in container.demux()
            if packet.pts is not None
        ]
        codecs = [stream.codec_context.name for stream in container.streams]
        duration = container.duration
    return Read(packets, None if duration is None else round(duration / 1000), codecs)


def decoded(path: Path) -> list[av.VideoFrame | av.AudioFrame]:
    """All frames of a file; raises what FFmpeg does of a frame that can't be decoded."""
    with av.open(str(path)) as container:
        assert isinstance(container, InputContainer)
        return [
            frame
            for packet in container.demux()
            for frame in packet.decode()
            if isinstance(frame, VideoFrame | AudioFrame)
        ]


@cache
def pictures(
    codec: str, count: int = 90, *, width: int = 96, height: int = 64, gop: int = 15, plain: bool = False
) -> tuple[bytes, ...]:
    """Encoded frames, a key frame each ``gop``; ``plain`` ones are grey and small."""
    rng = np.random.default_rng(1)
    base = rng.integers(0, 1 if plain else 255, (height, width, 3), np.uint8)
    frames = [VideoFrame.from_ndarray(np.roll(base, number, axis=1), format="rgb24") for number in range(count)]
    found = encoded(codec, [frame.reformat(format="yuv420p") for frame in frames], 400_000, gop=gop)
    assert len(found) == count
    return tuple(data for _, data in found)


@cache
def sound(count: int = 100) -> tuple[bytes, ...]:
    """Opus frames of 20 ms."""
    encoder = av.CodecContext.create("libopus", "w")
    assert isinstance(encoder, AudioCodecContext)
    encoder.sample_rate, encoder.format, encoder.layout = 48_000, "s16", "stereo"
    found = []
    for number in range(count + 5):
        wave = np.sin(np.arange(960) / 20 + number) * 8000
        frame = AudioFrame.from_ndarray(np.repeat(wave, 2).astype(np.int16).reshape(1, -1), layout="stereo")
        frame.sample_rate, frame.pts = 48_000, number * 960
        found += [bytes(packet) for packet in encoder.encode(frame)]
    return tuple(found[:count])


def write(path: Path, muxer: Muxer, frames: list[tuple[int, int, bytes, bool]], *, end: bool = True) -> list[int]:
    """A file of ``frames`` (track, ms, data, key); returns where each of its clusters ends, the head first."""
    ends = [len(muxer.header)]
    with path.open("w+b") as file:
        file.write(muxer.header)
        for track, when, data, key in frames:
            if cluster := muxer.add(track, when, data, key=key):
                file.write(cluster)
                ends.append(file.tell())
        file.write(muxer.flush())
        ends.append(file.tell())
        if end:
            write_ending(file, muxer.size, muxer.ending())
    assert muxer.size == ends[-1]
    return ends


def vp8_and_opus(seconds: int = 3) -> tuple[Muxer, list[tuple[int, int, bytes, bool]]]:
    """A muxer, and pictures and sound for it in the order of their times."""
    muxer = Muxer([TrackFormat("vp8", 96, 64), TrackFormat("opus")], started=STARTED, title="Füchse & Co")
    frames = [
        (1, number * 1000 // 30, data, number % 15 == 0)
        for number, data in enumerate(pictures("vp8", 30 * seconds))
    ]
    frames += [(2, number * 20, data, True) for number, data in enumerate(sound(50 * seconds))]
    return muxer, sorted(frames, key=lambda item: item[1])
