"""Every codec's packets as its clip has them, with the running fields set; ids as a real offer has them."""

from __future__ import annotations

import random
from collections.abc import Callable
from dataclasses import replace
from fractions import Fraction

import pytest

from bot.bridge import rtp
from bot.clips.av1 import dependency_descriptor
from bot.clips.descriptor import patch_of
from bot.clips.model import Clip, ClipFrame, ClipLayer
from bot.clips.packets import payloads_of
from bot.engine.headers import SendParameters, send_parameters
from bot.errors import UnsupportedMediaError
from bot.jingle.model import Content, HeaderExtension, Jingle, PayloadType, Transport
from tests.bridge_support import recorded_offer
from tests.send_support import World

EVERYTHING = SendParameters(41, rtx=42, abs_send_time=3, transport_cc=5, dependency_descriptor=11)


def av1_frame(data: bytes) -> bytes:
    """An OBU that says its size (a frame, AV1 section 5.3)."""
    size = len(data)
    return bytes((0x32, size & 0x7F | 0x80, size >> 7)) + data


FRAMES: dict[str, Callable[[bytes], bytes]] = {
    "vp8": bytes,
    "vp9": bytes,
    "h264": lambda data: b"\0\0\0\1\x65" + data.replace(b"\0", b"\1"),
    "av1": av1_frame,
}


def clip_of(codec: str) -> Clip:
    rng = random.Random(codec)
    variants = []
    for shift in (0, 5):
        frames = []
        for number in range(20):
            key = number % 10 == shift or not number
            data = FRAMES[codec](rng.randbytes(5000 if key else 700 + 100 * number))
            frames.append(ClipFrame(3000 * number, key, payloads_of(codec, data, key=key, size=(640, 360))))
        variants.append(tuple(frames))
    layer = ClipLayer(640, 360, Fraction(30), 500_000, tuple(variants))
    return Clip("video", codec, 90_000, Fraction(2, 3), (layer,), codec, codec)


def expected(clip: Clip, number: int, picture: int, tl0: int) -> list[list[bytes]]:
    """The payloads of the frame ``number`` in each variant as they go out."""
    patch = patch_of(clip.codec)
    return [
        [payload if patch is None else patch(payload, picture, tl0) for payload in frames[number].payloads]
        for frames in clip.layers[0].variants
    ]


@pytest.mark.parametrize("codec", FRAMES)
@pytest.mark.parametrize("numbered", [True, False])
def test_payloads_are_those_of_the_clip_with_running_fields(codec: str, numbered: bool) -> None:
    clip, world = clip_of(codec), World()
    parameters = EVERYTHING if numbered else replace(EVERYTHING, transport_cc=None)
    sender = world.sender(clip, parameters=parameters)
    picture, tl0 = sender.positions()[10][2:4]
    for _ in range(5):
        world.run(0.53)
        sender.request_key_frame(10)
    frames: dict[int, list[bytes]] = {}
    for data, header, _ in world.far.of(10):
        frames.setdefault(header.timestamp, []).append(rtp.payload(data, header))
        assert (rtp.transport_sequence(data, header, 5) is None) == (not numbered)
    assert len(frames) > 60
    first = next(iter(frames))
    start = next(number for number in range(20) if frames[first] in expected(clip, number, picture, tl0))
    for at, (stamp, payloads) in enumerate(frames.items()):
        number = (start + ((stamp - first) & 0xFFFFFFFF) // 3000) % 20
        assert payloads in expected(clip, number, (picture + at) % 32_768, (tl0 + at) % 256)


def test_only_the_lowest_temporal_layer_is_counted() -> None:
    """TL0PICIDX of another is that of the frame that it builds on (RFC 7741 section 4.2)."""
    clip, world = clip_of("vp8"), World()

    def lifted(number: int, frame: ClipFrame) -> ClipFrame:
        upper = number % 2 and not frame.key
        payloads = [payload[:5] + b"\x40" + payload[6:] if upper else payload for payload in frame.payloads]
        return replace(frame, payloads=tuple(payloads))

    variants = [[lifted(*item) for item in enumerate(frames)] for frames in clip.layers[0].variants]
    layer = replace(clip.layers[0], variants=tuple(tuple(frames) for frames in variants))
    sender = world.sender(replace(clip, layers=(layer,)), parameters=EVERYTHING)
    expected_tl0 = sender.positions()[10].tl0 - 1
    for _ in range(4):
        world.run(0.43)
        sender.request_key_frame(10)
    seen = set()
    stamp = None
    for data, header, _ in world.far.of(10):
        payload = rtp.payload(data, header)
        if header.timestamp != stamp:
            stamp = header.timestamp
            expected_tl0 += payload[5] == 0
        assert payload[4] == expected_tl0 % 256
        seen.add(payload[5])
    assert seen == {0, 0x40}


def test_packets_of_av1_are_described() -> None:
    """Frame numbers go on over loops and key frames on request, in 16 bits."""
    clip, world = clip_of("av1"), World()
    sender = world.sender(clip, parameters=EVERYTHING)
    sender.streams[0]._picture_id = 0xFFF0
    for _ in range(4):
        world.run(0.43)
        sender.request_key_frame(10)
    keys = {frame.payloads for frames in clip.layers[0].variants for frame in frames if frame.key}
    frames: dict[int, list[tuple[bytes | None, bytes]]] = {}
    for data, header, _ in world.far.of(10):
        packet = rtp.extension(data, header, 11), rtp.payload(data, header)
        frames.setdefault(header.timestamp, []).append(packet)
        assert (rtp.extension(data, header, 3) or b"")[2:]
    for at, packets in enumerate(frames.values()):
        key = tuple(payload for _, payload in packets) in keys
        assert [found for found, _ in packets] == [
            dependency_descriptor(
                0xFFF0 + at, first=not number, last=number == len(packets) - 1, key=key, size=(640, 360)
            )
            for number in range(len(packets))
        ]
    originals = world.far.of(10)[-15:]
    sender.nack(10, [header.sequence for _, header, _ in originals])
    for (data, header, _), (original, before, _) in zip(world.far.of(11), originals, strict=True):
        again = rtp.unwrap_rtx(data, header, payload_type=41, ssrc=10)
        assert again is not None
        found = rtp.parse_header(again)
        assert found == before
        assert rtp.extension(again, found, 11) == rtp.extension(original, before, 11)
        assert rtp.payload(again, found) == rtp.payload(original, before)


def contents() -> tuple[Content, Content]:
    offer: Jingle = recorded_offer(Transport())
    audio, video = offer.content("audio"), offer.content("video")
    assert audio is not None
    assert video is not None
    return audio, video


def test_ids_come_from_the_offer() -> None:
    audio, video = contents()
    found = send_parameters(video, "vp8")
    assert found.payload_type == 100
    assert found.rtx == 96
    assert found.audio_level is None
    assert found.transport_cc == video.extension_id(
        "http://www.ietf.org/id/draft-holmer-rmcat-transport-wide-cc-extensions-01"
    )
    assert found.dependency_descriptor is None
    heard = send_parameters(audio, "opus", red=True)
    assert (heard.payload_type, heard.rtx, heard.audio_level) == (111, None, 1)


def test_red_is_sent_only_where_it_is_offered_and_wanted() -> None:
    audio, _ = contents()
    plain = replace(audio, payload_types=tuple(item for item in audio.payload_types if item.name != "red"))
    offered = replace(plain, payload_types=(*plain.payload_types, PayloadType(63, "red", 48_000, 2)))
    assert send_parameters(plain, "opus", red=True).red is None
    assert send_parameters(offered, "opus", red=True).red == 63
    assert send_parameters(offered, "opus").red is None


def test_a_codec_that_is_not_offered_is_an_error() -> None:
    audio, video = contents()
    with pytest.raises(UnsupportedMediaError, match=r"the offer's video has no h265 \(JITSI_VIDEO_CODEC\)"):
        send_parameters(video, "h265")
    with pytest.raises(UnsupportedMediaError, match=r"the offer's audio has no pcmu$"):
        send_parameters(audio, "pcmu")


def test_av1_needs_its_descriptor() -> None:
    _, video = contents()
    uri = "https://aomediacodec.github.io/av1-rtp-spec/#dependency-descriptor-rtp-header-extension"
    without = replace(
        video,
        payload_types=(*video.payload_types, PayloadType(41, "AV1", 90_000)),
        header_extensions=tuple(item for item in video.header_extensions if item.uri != uri),
    )
    with pytest.raises(UnsupportedMediaError, match="no dependency descriptor for AV1"):
        send_parameters(without, "av1")
    with_it = replace(without, header_extensions=(*without.header_extensions, HeaderExtension(11, uri)))
    assert send_parameters(with_it, "av1").dependency_descriptor == 11
