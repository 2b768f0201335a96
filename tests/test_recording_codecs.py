"""What files say of encoded streams, against real encoders and decoders."""

from fractions import Fraction
from functools import cache
from math import inf
from pathlib import Path

import pytest
from av import VideoFrame

from bot.bridge.frames import EncodedFrame
from bot.bridge.payloads import PayloadFormat
from bot.bridge.rtp import build, parse_header
from bot.clips.av1 import leb128
from bot.clips.model import Clip, ClipFrame
from bot.clips.spec import LayerSpec, VideoCodec, VideoSpec
from bot.media.clipencode import encode_video
from bot.media.clipsource import picture_source
from bot.recording.codecs import BitReader, format_of, stored
from bot.recording.depacket import LAYERS_PATIENCE, Depacketizer, Layers, Received, redundant
from bot.recording.matroska import Muxer, TrackFormat, suffix_of
from tests.recording_support import STARTED, decoded, pictures, read, sound, write

CODECS: list[VideoCodec] = ["vp8", "vp9", "h264", "av1"]
FPS = 15


@cache
def clip(codec: VideoCodec) -> Clip:
    """Two seconds of 160x90."""
    spec = VideoSpec(codec=codec, layers=(LayerSpec(160, 90, 150_000),), fps=FPS, duration=Fraction(2))
    return encode_video(spec, picture_source(spec), "digest", lambda _: None)


def packets_of(frames: tuple[ClipFrame, ...], first: int = 65_530) -> list[bytes]:
    """RTP packets of a clip's frames."""
    found: list[bytes] = []
    for frame in frames:
        for number, payload in enumerate(frame.payloads):
            sequence = (first + len(found)) & 0xFFFF
            marker = number == len(frame.payloads) - 1
            found.append(
                build(
                    payload_type=100,
                    sequence=sequence,
                    timestamp=frame.timestamp,
                    ssrc=1,
                    body=payload,
                    marker=marker,
                )
            )
    return found


def format_(codec: str, *, nack: bool = True) -> PayloadFormat:
    media = "audio" if codec in ("opus", "red") else "video"
    return PayloadFormat(100, media, codec, 48_000 if media == "audio" else 90_000, nack=nack)  # type: ignore[arg-type]


def received(stream: Depacketizer, packets: list[bytes], now: float = 0.0) -> list[Received]:
    return [item for data in packets for item in stream.feed(parse_header(data), data, now)]


@pytest.mark.parametrize("codec", CODECS)
def test_each_codec_goes_from_packets_to_a_file_that_players_decode(tmp_path: Path, codec: VideoCodec) -> None:
    stream = Depacketizer(format_(codec))
    frames = received(stream, packets_of(clip(codec).layers[0].variants[0])) + stream.expire(1.0)
    assert len(frames) == 2 * FPS
    assert not any(lost for _, lost in frames)
    track = format_of(codec, frames[0].frame)
    assert (track.width, track.height) == (160, 90)
    path = tmp_path / f"a{suffix_of([track])}"
    write(
        path,
        Muxer([track], started=STARTED),
        [(1, frame.timestamp // 90, stored(codec, frame), frame.key) for frame, _ in frames],
    )
    shown = decoded(path)
    assert len(shown) == 2 * FPS
    assert {(item.width, item.height) for item in shown if isinstance(item, VideoFrame)} == {(160, 90)}
    assert read(path).packets[0][2]
    assert sum(key for _, _, key in read(path).packets) == sum(item.key for item, _ in frames) >= 2


def test_h264_of_another_profile_and_a_cropped_size() -> None:
    data = pictures("h264", 2, width=98, height=62)[0]
    track = format_of("h264", EncodedFrame(data, 0, key=True))
    assert (track.width, track.height) == (98, 62)
    assert track.private[0] == 1
    units = stored("h264", EncodedFrame(data, 0, key=True))
    assert int.from_bytes(units[:4], "big") <= len(units) - 4


def test_the_layers_of_vp9_get_an_index_and_the_size_of_the_highest() -> None:
    key = pictures("vp9", 1, width=96, height=64)[0]
    low = pictures("vp9", 1, width=48, height=32)[0]
    frame = EncodedFrame(low + key, 0, key=True, starts=(0, len(low)))
    assert format_of("vp9", frame) == TrackFormat("vp9", 96, 64)
    data = stored("vp9", frame)
    mark = data[-1]
    assert mark >> 5 == 0b110
    assert mark & 7 == 1
    width = (mark >> 3 & 3) + 1
    sizes = data[-1 - 2 * width : -1]
    assert data[-2 - 2 * width] == mark
    assert [int.from_bytes(sizes[:width], "little"), int.from_bytes(sizes[width:], "little")] == [
        len(low),
        len(key),
    ]


def layer(timestamp: int, data: bytes, *, key: bool = False, lost: bool = False) -> Received:
    return Received(EncodedFrame(data, timestamp, key=key, starts=(0,)), lost)


def test_layers_that_are_each_marked_as_the_last_are_one_picture() -> None:
    layers, now = Layers(), 0.0
    assert layers.next_deadline() == inf
    assert layers.feed([layer(9, b"low", key=True, lost=True)], now) == []
    assert layers.feed([layer(9, b"middle"), layer(9, b"high")], now) == []
    [(frame, lost)] = layers.feed([layer(12, b"next")], now + 0.05)
    assert frame == EncodedFrame(b"lowmiddlehigh", 9, key=True, starts=(0, 3, 9))
    assert lost
    assert layers.next_deadline() == 0.05 + LAYERS_PATIENCE
    assert layers.expire(0.1) == []
    assert layers.expire(0.25 + 0.01) == [layer(12, b"next")]
    assert layers.expire(9.0) == []
    assert layers.feed([layer(15, b"a"), layer(18, b"b")], 1.0) == [layer(15, b"a")]


#: The sequence header of a web client's AV1 with three spatial and three temporal layers (L3T3_KEY, 1280x720).
SVC_HEADER = bytes.fromhex("0087072b8195c04a60e530329809441ca20651012d4cffb3c01a0080")


def svc_picture(*spatial: int) -> EncodedFrame:
    """A key picture of these layers in one payload: OBUs with extension headers, each behind its size."""
    obus = [bytes((1 << 3,)) + SVC_HEADER, *(bytes((6 << 3 | 4, number << 3, 7)) for number in spatial)]
    body = b"".join(leb128(len(item)) + item for item in obus)
    return EncodedFrame(bytes((0x08,)) + body, 0, key=True, starts=(0,))


@pytest.mark.parametrize(("spatial", "layers"), [((0,), 1), ((0, 1), 3), ((0, 1, 2), 7)])
def test_av1_waits_for_no_layer_that_is_not_there(spatial: tuple[int, ...], layers: int) -> None:
    data = stored("av1", svc_picture(*spatial))
    changed = SVC_HEADER[:1] + bytes((0x80 | layers,)) + SVC_HEADER[2:]
    assert data[2 : 2 + len(SVC_HEADER)] == changed
    assert len(data) == 2 + len(SVC_HEADER) + 4 * len(spatial)
    track = format_of("av1", svc_picture(*spatial))
    assert (track.width, track.height) == (1280, 720)
    assert track.private.endswith(changed)  # another file begins where there are others


def test_sound_is_opus_whatever_it_is_wrapped_in() -> None:
    frame = EncodedFrame(sound(1)[0], 0, key=True)
    assert format_of("red", frame) == format_of("opus", frame) == TrackFormat("opus")
    assert stored("red", frame) == frame.data


@pytest.mark.parametrize("codec", [*CODECS, "theora"])
@pytest.mark.parametrize("data", [b"", b"\0", b"\x09" * 9, b"\xff" * 40, b"\0\0\1\x67\0\0\1\x68"])
def test_broken_key_frames_are_refused(codec: str, data: bytes) -> None:
    with pytest.raises((ValueError, IndexError)) as caught:
        format_of(codec, EncodedFrame(data, 0, key=True, starts=(0,) if data else ()))
    assert isinstance(caught.value, ValueError), "an IndexError is no answer"


def test_numbers_of_h264() -> None:
    reader = BitReader(bytes([0b1_010_011_0, 0b0100_0010, 0b1_0000000]))
    assert [reader.exp_golomb() for _ in range(4)] == [0, 1, 2, 3]
    assert reader.signed_exp_golomb() == -2
    with pytest.raises(ValueError, match="ends inside"):
        reader.exp_golomb()


# --- loss ------------------------------------------------------------------------------------------------


def test_a_hole_that_is_repaired_costs_nothing() -> None:
    packets = packets_of(clip("vp8").layers[0].variants[0])
    stream = Depacketizer(format_("vp8"))
    late = packets.pop(5)
    frames = received(stream, packets[:20])
    frames += received(stream, [late], 0.2)
    frames += received(stream, packets[20:], 0.3)
    assert len(frames) == 2 * FPS
    assert not any(lost for _, lost in frames)
    assert stream.skipped == 0


def test_after_a_hole_that_nothing_repairs_pictures_go_on_with_a_key_frame_that_is_marked() -> None:
    frames_sent = clip("vp8").layers[0].variants[0]
    packets = packets_of(frames_sent)
    del packets[len([None for frame in frames_sent[:3] for _ in frame.payloads])]
    stream = Depacketizer(format_("vp8"))
    first = received(stream, packets)
    assert len(first) == 3
    assert stream.expire(stream.next_deadline() - 0.01) == []
    assert not stream.needs_key_frame
    rest = stream.expire(stream.next_deadline())
    assert rest[0].frame.key
    assert rest[0].lost
    assert [item.lost for item in rest[1:]] == [False] * (len(rest) - 1)
    assert rest[0].frame.timestamp == next(item.timestamp for item in frames_sent[3:] if item.key)
    assert stream.skipped == 1


def test_lost_sound_is_left_out_and_marked() -> None:
    data = [
        build(payload_type=100, sequence=number, timestamp=960 * number, ssrc=1, body=bytes((number + 1,)))
        for number in range(6)
    ]
    stream = Depacketizer(format_("opus", nack=False))
    frames = received(stream, data[:2] + data[3:])
    frames += stream.expire(stream.next_deadline())
    assert [(item.frame.timestamp // 960, item.lost) for item in frames] == [
        (0, False),
        (1, False),
        (3, True),
        (4, False),
        (5, False),
    ]


def red(number: int, *, depth: int = 1) -> bytes:
    """A RED packet of opus with the ``depth`` frames before it."""
    older = range(number - depth, number)
    heads = b"".join(bytes((0x80 | 111,)) + (960 * (number - item) << 10 | 1).to_bytes(3, "big") for item in older)
    body = heads + bytes((111,)) + bytes(range(number - depth, number + 1))
    return build(payload_type=100, sequence=number, timestamp=960 * number, ssrc=1, body=body)


def test_redundant_sound_fills_holes() -> None:
    stream = Depacketizer(format_("red", nack=False))
    frames = received(stream, [red(number, depth=2) for number in (10, 11, 14, 15, 17)])
    assert [item.frame.data for item in frames] == [bytes((number,)) for number in range(10, 18)]
    assert [item.frame.timestamp for item in frames] == [960 * number for number in range(10, 18)]
    assert not any(item.lost for item in frames)


def test_broken_redundancy_is_counted() -> None:
    stream = Depacketizer(format_("red", nack=False))
    received(stream, [red(10)])
    broken = build(payload_type=100, sequence=14, timestamp=0, ssrc=1, body=b"\xef\x00\x03\xff\x6f")
    assert received(stream, [broken]) == []
    assert stream.unreadable == 1
    with pytest.raises(ValueError, match="do not fit"):
        list(redundant(parse_header(broken), broken[12:]))
