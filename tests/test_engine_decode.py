"""Encoded pictures and sound through a sender: what arrives, lost and repaired, decodes to what was encoded."""

from __future__ import annotations

import random
from fractions import Fraction
from functools import cache

import av
import numpy as np
import pytest
from aiortc.codecs.vpx import Vp8Decoder
from aiortc.jitterbuffer import JitterFrame

from bot.bridge import rtp
from bot.bridge.depacketize import unpack
from bot.bridge.frames import EncodedFrame, FrameAssembler
from bot.clips.model import Clip, ClipFrame, ClipLayer
from bot.clips.packets import payloads_of
from bot.engine.send import ClipSender
from tests.clips_support import luma_of, psnr
from tests.send_support import World

FPS, SECONDS, WIDTH, HEIGHT = 30, 2, 320, 180


def drawn(number: int) -> av.VideoFrame:
    """A bright bar that goes right, on a slope of grey."""
    image = np.tile(np.linspace(40, 120, HEIGHT, dtype=np.uint8)[:, None], (1, WIDTH))
    image[:, 5 * number % (WIDTH - 20) :][:, :20] = 220
    return av.VideoFrame.from_ndarray(np.repeat(image[:, :, None], 3, axis=2), format="rgb24")


@cache
def encoded() -> Clip:
    """Two variants of the same two seconds of VP8, their key frames half a second apart."""
    variants = []
    for shift in (0, FPS // 2):
        codec = av.VideoCodecContext.create("libvpx", "w")
        codec.width, codec.height, codec.pix_fmt, codec.bit_rate = WIDTH, HEIGHT, "yuv420p", 400_000
        codec.time_base, codec.framerate = Fraction(1, FPS), Fraction(FPS)
        codec.options = {"deadline": "realtime", "cpu-used": "8", "lag-in-frames": "0", "auto-alt-ref": "0"}
        frames = []
        for number in range(FPS * SECONDS):
            picture = drawn(number).reformat(format="yuv420p")
            picture.pts = number
            key = number == 0 or number % FPS == shift
            picture.pict_type = av.video.frame.PictureType.I if key else av.video.frame.PictureType.NONE
            (packet,) = codec.encode(picture)
            assert packet.is_keyframe == key
            frames.append(ClipFrame(number * 3000, key, payloads_of("vp8", bytes(packet), key=key)))
        variants.append(tuple(frames))
    layer = ClipLayer(WIDTH, HEIGHT, Fraction(FPS), 400_000, tuple(variants))
    return Clip("video", "vp8", 90_000, Fraction(SECONDS), (layer,), "encoded", "a bar")


def pictures_of(packets: list[bytes]) -> list[tuple[int, np.ndarray[tuple[int, ...], np.dtype[np.uint8]]]]:
    """Number in the clip and picture of each frame that a receiver decodes, without a break from the first on."""
    assembler, decoder = FrameAssembler(video=True, patience=1.0), Vp8Decoder()
    frames: list[EncodedFrame] = []
    for data in packets:
        header = rtp.parse_header(data)
        frames += assembler.feed(header.sequence, unpack("vp8", header, data), 0.0)
    assert assembler.skipped == 0
    found = []
    for frame in frames:
        (picture,) = decoder.decode(JitterFrame(frame.data, frame.timestamp))
        found.append((frame.timestamp, luma_of(picture)))
    return found


def assert_right(packets: list[bytes], world: World, sender: ClipSender, least: int, phase: float = 0.0) -> None:
    found = pictures_of(packets)
    assert len(found) >= least
    now = int(world.wall() * 90_000)
    for stamp, luma in found:
        ticks = now - ((sender.positions()[10].offset + now - stamp) & 0xFFFFFFFF)
        number = round((ticks + phase * 90_000) / 3000) % (FPS * SECONDS)
        assert psnr(luma, luma_of(drawn(number).reformat(format="yuv420p"))) > 28


def test_pictures_are_right_over_loops_and_key_frames_on_request() -> None:
    world = World()
    sender = world.sender(encoded(), phase=0.4)
    for _ in range(7):
        world.run(0.83)
        sender.request_key_frame(10)
    assert_right([data for data, _, _ in world.far.of(10)], world, sender, 150, 0.4)


def test_pictures_are_right_after_a_pause() -> None:
    world = World()
    sender = world.sender(encoded())
    for paused in (False, True, False, True, False):
        sender.paused = paused
        world.run(1.3)
    assert_right([data for data, _, _ in world.far.of(10)], world, sender, 80)


@pytest.mark.parametrize("seed", [1, 2])
def test_pictures_are_right_after_loss_is_repaired(seed: int) -> None:
    """A twentieth is lost, also of what is sent again; the receiver asks each 100 ms."""
    world, rng = World(), random.Random(seed)
    sender = world.sender(encoded())
    sender.round_trip = 0.05
    arrived: dict[int, bytes] = {}
    missing: set[int] = set()
    seen = 0
    for _ in range(60):
        world.run(0.1)
        for data, header, _ in world.far.packets[seen:]:
            lost = rng.random() < 0.05
            original = data
            if header.ssrc == 11:
                again = rtp.unwrap_rtx(data, header, payload_type=100, ssrc=10)
                assert again is not None
                original = again
            sequence = rtp.parse_header(original).sequence
            if lost:
                missing.add(sequence)
            else:
                missing.discard(sequence)
                arrived.setdefault(sequence, original)
        seen = len(world.far.packets)
        sender.nack(10, sorted(missing))
    world.run(0.1)
    assert sender.counts().retransmitted > 10
    assert sender.counts().unanswered == 0
    first = world.far.of(10)[0][1].sequence
    last = max((number - first) & 0xFFFF for number in arrived) - 30  # the newest are still being asked for
    ordered = [arrived[(first + number) & 0xFFFF] for number in range(last)]
    assert_right(ordered, world, sender, 150)
