"""Every codec from packets to pictures; the depacketisation of VP9, AV1 and RED by their documents' rules."""

from collections.abc import Iterable
from fractions import Fraction
from itertools import pairwise

import av
import numpy as np
import pytest
from av import VideoFrame
from av.video.codeccontext import VideoCodecContext
from hypothesis import given
from hypothesis import strategies as st

from bot.bridge import av1, pool, rtp, vp9
from bot.bridge.decoder import PictureDecoder, SoundDecoder, decodable, decode_batch, make_decoder
from bot.bridge.depacketize import unpack
from bot.bridge.frames import EncodedFrame, FrameAssembler
from bot.bridge.payloads import PayloadFormat
from bot.bridge.pool import Budget
from bot.bridge.rtp import RtpError
from bot.clips.av1 import read_leb128
from bot.clips.packets import payloads_of
from bot.media.priority import ordinary_priority
from tests.conftest import DATA

SIZE = (320, 180)
Packets = list[list[bytes]]


def shade(number: int) -> int:
    return 40 + 20 * number


def encoded(name: str, count: int, options: dict[str, str], size: tuple[int, int] = SIZE) -> list[bytes]:
    """Pictures of one grey each, with noise in a corner so that there is something to send."""
    context = av.CodecContext.create(name, "w")
    assert isinstance(context, VideoCodecContext)
    context.width, context.height, context.pix_fmt = *size, "yuv420p"
    context.time_base, context.framerate, context.thread_count = Fraction(1, 90_000), Fraction(30), 1
    context.gop_size = 1000
    context.options = options
    with ordinary_priority():
        context.open()
    noise = np.random.default_rng(1)
    found: list[bytes] = []
    for number in range(count):
        picture = np.full((size[1] * 3 // 2, size[0]), shade(number), np.uint8)
        picture[size[1] :] = 128
        picture[: size[1] // 4, : size[0] // 4] = noise.integers(0, 256, (size[1] // 4, size[0] // 4))
        frame = VideoFrame.from_ndarray(picture, format="yuv420p")
        frame.pts, frame.time_base = number * 3000, Fraction(1, 90_000)
        found += [bytes(packet) for packet in context.encode(frame)]
    return found + [bytes(packet) for packet in context.encode(None)]


def vp9_pictures(count: int, size: tuple[int, int] = SIZE) -> list[bytes]:
    return encoded("libvpx-vp9", count, {"deadline": "realtime", "cpu-used": "8", "lag-in-frames": "0"}, size)


def av1_pictures(count: int) -> list[bytes]:
    options = {"preset": "12", "crf": "20", "svtav1-params": "pred-struct=1:lookahead=0"}
    return encoded("libsvtav1", count, options)


def cut(data: bytes, size: int = 1000) -> list[bytes]:
    return [data[at : at + size] for at in range(0, len(data), size)]


def vp9_payloads(data: bytes, *, key: bool, layer: int | None = None, last: bool = True) -> list[bytes]:
    """RFC 9628 section 4.2, non-flexible mode, 15-bit picture id; with a layer, its indices and TL0PICIDX."""
    found = []
    for at, part in enumerate(parts := cut(data)):
        begins, ends = at == 0, at == len(parts) - 1
        first = 0x80 | (not key) << 6 | (layer is not None) << 5 | begins << 3 | ends << 2
        indices = b"" if layer is None else bytes((layer << 1 | bool(layer), 7))
        found.append(bytes((first, 0x81, 0x02)) + indices + part)
    return found


def obus(unit: bytes) -> list[bytes]:
    """The OBUs of a temporal unit without their sizes, as section 5 of the RTP specification wants them."""
    found: list[bytes] = []
    at = 0
    while at < len(unit):
        head = 2 if unit[at] & 4 else 1
        assert unit[at] & 2
        size, start = read_leb128(unit, at + head)
        found.append(bytes((unit[at] & ~2,)) + unit[at + 1 : at + head] + unit[start : start + size])
        at = start + size
    return found


def av1_payloads(unit: bytes, *, key: bool, size: int = 300) -> list[bytes]:
    """One OBU element a packet (W = 1), fragments marked by Z and Y (section 4.4)."""
    found: list[bytes] = []
    for obu in obus(unit):
        parts = cut(obu, size)
        for at, part in enumerate(parts):
            head = (at > 0) << 7 | (at < len(parts) - 1) << 6 | 1 << 4 | (key and not found) << 3
            found.append(bytes((head,)) + part)
    return found


def frames_of(known: PayloadFormat, packets: Packets, lost: Iterable[int] = ()) -> list[EncodedFrame]:
    """Through RTP, depacketisation and assembly; ``lost`` are indices of packets that never come."""
    assembler, sequence, found = FrameAssembler(video=known.media == "video", patience=0.1), 0, []
    for number, payloads in enumerate(packets):
        for at, body in enumerate(payloads):
            sequence += 1
            if sequence - 1 in lost:
                continue
            data = rtp.build(
                payload_type=known.id,
                sequence=sequence,
                timestamp=number * 3000,
                ssrc=7,
                body=body,
                marker=at == len(payloads) - 1,
            )
            piece = unpack(known.codec, rtp.parse_header(data), data)
            found += assembler.feed(sequence & 0xFFFF, piece, float(sequence))
            found += assembler.expire(float(sequence))
    return found


def shades(known: PayloadFormat, frames: list[EncodedFrame]) -> list[int]:
    """How light the lower right of each decoded picture is."""
    decoder = make_decoder(known, Budget(pool.POOL_PIXELS))
    result = decode_batch(decoder, frames)
    decoder.close()
    assert (result.errors, result.refused) == (0, 0)
    found = []
    for frame in result.frames:
        assert isinstance(frame, VideoFrame)
        found.append(int(frame.to_ndarray()[frame.height // 2 : frame.height, frame.width // 2 :].mean().round()))
    return found


VP9 = PayloadFormat(101, "video", "vp9", 90_000)
AV1 = PayloadFormat(41, "video", "av1", 90_000)


def test_vp9_from_packets_to_pictures() -> None:
    pictures = vp9_pictures(8)
    packets = [vp9_payloads(data, key=not at) for at, data in enumerate(pictures)]
    assert any(len(payloads) > 1 for payloads in packets)
    frames = frames_of(VP9, packets)
    assert [(frame.data, frame.key) for frame in frames] == [(data, not at) for at, data in enumerate(pictures)]
    assert np.allclose(shades(VP9, frames), [shade(at) for at in range(8)], atol=2)


def test_av1_from_packets_to_pictures() -> None:
    packets = [av1_payloads(unit, key=not at) for at, unit in enumerate(av1_pictures(8))]
    assert any(len(payloads) > 3 for payloads in packets)
    frames = frames_of(AV1, packets)
    assert [frame.key for frame in frames] == [True] + 7 * [False]
    assert np.allclose(shades(AV1, frames), [shade(at) for at in range(8)], atol=2)


def pictures(codec: str, count: int) -> list[bytes]:
    match codec:
        case "vp9":
            return vp9_pictures(count)
        case "av1":
            return av1_pictures(count)
        case "vp8":
            return encoded("libvpx", count, {"deadline": "realtime", "cpu-used": "8", "lag-in-frames": "0"})
    return encoded("libx264", count, {"preset": "ultrafast", "tune": "zerolatency", "profile": "baseline"})


@pytest.mark.parametrize("codec", ["vp8", "vp9", "h264", "av1"])
def test_what_clips_are_packed_into_is_what_comes_out(codec: str) -> None:
    known = PayloadFormat(100, "video", codec, 90_000)
    made = pictures(codec, 6)
    packets = [list(payloads_of(codec, data, key=not at, size=SIZE)) for at, data in enumerate(made)]
    assert any(len(payloads) > 1 for payloads in packets)
    assert np.allclose(shades(known, frames_of(known, packets)), [shade(at) for at in range(6)], atol=3)


@pytest.mark.parametrize("codec", ["vp9", "av1"])
def test_what_a_web_client_sent_through_videobridge(codec: str) -> None:
    """Chromium's packets of a moving picture: VP9 in flexible mode, its key picture of two layers; AV1 fragments.

    The bridge went up to the second layer of VP9 in the second picture, when it had ended the first layer there.
    """
    known = PayloadFormat(100, "video", codec, 90_000)
    assembler, frames = FrameAssembler(video=True, patience=0.1), list[EncodedFrame]()
    for line in (DATA / "packets" / f"web-client-{codec}.txt").read_text().split():
        data = bytes.fromhex(line)
        header = rtp.parse_header(data)
        frames += assembler.feed(header.sequence, unpack(codec, header, data), 0.0)
    assert [frame.key for frame in frames] == [True] + 11 * [False]
    if codec == "vp9":
        assert [len(vp9.layer_frames(frame.data, frame.starts)) for frame in frames] == [2] + 11 * [1]
    decoder = make_decoder(known, Budget(pool.POOL_PIXELS))
    result = decode_batch(decoder, frames)
    decoder.close()
    assert (result.errors, result.refused, len(result.frames)) == (0, 0, 12)
    heights = [item.height for item in result.frames if isinstance(item, VideoFrame)]
    assert heights == [360, 180 if codec == "vp9" else 360] + 10 * [360]
    lights = [item.to_ndarray()[:360].astype(float) for item in result.frames[2:]]
    assert all(picture.std() > 5 for picture in lights)
    assert all(np.abs(one - two).max() > 20 for one, two in pairwise(lights))


@pytest.mark.parametrize("codec", ["vp9", "av1"])
def test_after_a_loss_pictures_go_on_with_a_key_frame(codec: str) -> None:
    if codec == "vp9":
        known, made = VP9, [vp9_pictures(5), vp9_pictures(5)]
        packets = [vp9_payloads(data, key=not at) for run in made for at, data in enumerate(run)]
    else:
        known, made = AV1, [av1_pictures(5), av1_pictures(5)]
        packets = [av1_payloads(data, key=not at) for run in made for at, data in enumerate(run)]
    lost = sum(len(payloads) for payloads in packets[:2])
    found = shades(known, frames_of(known, packets, [lost]))
    assert np.allclose(found, [shade(at) for at in (0, 1, 0, 1, 2, 3, 4)], atol=2)


def test_of_the_spatial_layers_of_a_vp9_picture_the_highest_is_shown() -> None:
    """Two layers in one picture: what is looked at is one frame, of the size of the last."""
    low, high = vp9_pictures(1, (160, 90))[0], vp9_pictures(1)[0]
    payloads = [*vp9_payloads(low, key=True, layer=0), *vp9_payloads(high, key=True, layer=1)]
    (frame,) = frames_of(VP9, [payloads])
    assert vp9.layer_frames(frame.data, frame.starts) == [low, high]
    result = decode_batch(make_decoder(VP9, Budget(pool.POOL_PIXELS)), [frame])
    assert [(item.width, item.height) for item in result.frames if isinstance(item, VideoFrame)] == [SIZE]


@pytest.mark.parametrize(
    ("body", "length", "starts_key"),
    [
        ("0c", 1, True),  # nothing but begin and end
        ("8c05", 2, True),  # 7-bit picture id
        ("8c8105", 3, True),
        ("cc8105", 3, False),  # inter-picture predicted
        ("848105", 3, False),  # not its begin
        ("ac81050209", 5, False),  # second spatial layer
        ("ac81050009", 5, True),
        ("bc810500", 4, True),  # flexible mode has no TL0PICIDX
        ("d8810503" + "04", 5, False),  # two reference indices
        ("0a00", 2, True),  # scalability structure of nothing
        ("0a30" + "014000b4028001680", 10, True),  # two layers with their sizes
        ("0a0802" + "04" + "01" + "08" + "0102", 8, True),  # a group of two pictures, one and two references
    ],
)
def test_vp9_descriptors(body: str, length: int, starts_key: bool) -> None:
    data = bytes.fromhex(body + "0" * (len(body) % 2))
    found = vp9.parse_descriptor(data + b"payload")
    assert (found.length, found.starts_key) == (length, starts_key)
    for shorter in range(length):
        with pytest.raises(ValueError, match="truncated"):
            vp9.parse_descriptor(data[:shorter])


def test_vp9_with_four_reference_indices_is_broken() -> None:
    with pytest.raises(ValueError, match="more than three"):
        vp9.parse_descriptor(b"\x58\x03\x03\x03\x04")


def test_av1_elements_with_lengths_and_without() -> None:
    """The examples of the specification's section 4.4: W = 0 gives a length to each, W = 2 to all but the last."""
    one, two = b"\x30ab", b"\x34\x08cde"
    sized = b"\x32\x02ab" + b"\x36\x08\x03cde"
    for body in (b"\x00\x03" + one + b"\x05" + two, b"\x20\x03" + one + two):
        assert av1.temporal_unit(body, (0,)) == sized
    assert av1.temporal_unit(b"\x20\x02\x12\x00" + sized[:4], (0,)) == sized[:4]  # a delimiter; a size of its own
    parts = [b"\x50" + two[:3], b"\x90" + two[3:]]
    assert av1.temporal_unit(b"".join(parts), (0, 4)) == sized[4:]


@pytest.mark.parametrize(
    ("payloads", "said"),
    [
        ([b"\x90ab"], "fit together"),
        ([b"\x50ab"], "missing"),
        ([b"\x50ab", b"\x10cd"], "fit together"),
        ([b"\x20\x09ab"], "does not fit"),
        ([b"\x20\x02ab"], "fewer"),
        ([b"\x10"], "fewer"),
        ([b"\x00\xff\xff"], "broken"),
    ],
)
def test_broken_av1_payloads(payloads: list[bytes], said: str) -> None:
    starts = tuple(len(b"".join(payloads[:at])) for at in range(len(payloads)))
    with pytest.raises(ValueError, match=said):
        av1.temporal_unit(b"".join(payloads), starts)


@given(st.lists(st.binary(min_size=1, max_size=40), min_size=1, max_size=4))
def test_any_bytes_are_av1_or_a_value_error(payloads: list[bytes]) -> None:
    starts = tuple(len(b"".join(payloads[:at])) for at in range(len(payloads)))
    try:
        unit = av1.temporal_unit(b"".join(payloads), starts)
    except ValueError:
        return
    assert len(unit) <= sum(map(len, payloads)) + 3 * sum(map(len, payloads))


def test_red_gives_its_newest_block() -> None:
    """RFC 2198 section 3: four bytes for each older block, one for the newest."""

    def unpacked(body: bytes) -> bytes:
        data = rtp.build(payload_type=112, sequence=1, timestamp=0, ssrc=7, body=body)
        return unpack("red", rtp.parse_header(data), data).data

    assert unpacked(b"\x6fnew") == b"new"
    assert unpacked(b"\xef\x0f\x00\x03\x6foldnew") == b"new"
    assert unpacked(b"\xef\x1e\x00\x02\xef\x0f\x00\x03\x6f" + b"ooOLDnew") == b"new"
    for broken in (b"\xef\x0f\x00\x09\x6fold", b"\xef\x0f", b"\xef"):
        with pytest.raises(ValueError, match="RED"):
            unpacked(broken)


@pytest.mark.parametrize("known", [VP9, AV1])
def test_a_picture_beyond_the_limit_is_an_error(known: PayloadFormat, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(pool, "MAX_PIXELS", SIZE[0] * SIZE[1] - 1)
    data = vp9_pictures(1)[0] if known is VP9 else None
    packets = [vp9_payloads(data, key=True) if data else av1_payloads(av1_pictures(1)[0], key=True)]
    result = decode_batch(make_decoder(known, Budget(pool.POOL_PIXELS)), frames_of(known, packets))
    assert (result.frames, result.errors) == ([], 1)


def test_pictures_of_all_streams_share_a_budget() -> None:
    """The second stream has no room; it has when the first is closed."""
    budget = Budget(SIZE[0] * SIZE[1] * 3 // 2)
    frames = frames_of(VP9, [vp9_payloads(data, key=not at) for at, data in enumerate(vp9_pictures(2))])
    first, second = PictureDecoder(VP9, budget), PictureDecoder(VP9, budget)
    assert [decode_batch(item, frames[:1])[1:] for item in (first, second)] == [(0, 0), (0, 1)]
    assert budget.used == SIZE[0] * SIZE[1]
    first.close()
    first.close()
    assert budget.used == 0
    assert decode_batch(second, frames)[1:] == (0, 0)
    smaller = frames_of(VP9, [vp9_payloads(vp9_pictures(1, (160, 90))[0], key=True)])
    decode_batch(second, smaller)
    assert repr(budget) == f"<Budget {160 * 90} of {SIZE[0] * SIZE[1] * 3 // 2}>"


def test_decoders_start_no_threads_of_their_own() -> None:
    for codec in ("vp8", "h264", "vp9", "av1"):
        known = PayloadFormat(1, "video", codec, 90_000)
        decoder = make_decoder(known, Budget(1))
        assert isinstance(decoder, PictureDecoder)
        assert decoder._context.thread_count == 1


def test_codecs_that_can_not_be_decoded() -> None:
    assert not decodable(PayloadFormat(49, "video", "h265", 90_000))
    assert not decodable(PayloadFormat(111, "video", "opus", 48_000))
    assert not decodable(PayloadFormat(100, "audio", "vp8", 90_000))
    decoder = make_decoder(PayloadFormat(112, "audio", "red", 48_000), Budget(0))
    assert isinstance(decoder, SoundDecoder)
    decoder.close()


def test_padding_that_can_not_be_is_an_error() -> None:
    data = bytearray(rtp.build(payload_type=101, sequence=1, timestamp=0, ssrc=7, body=b"x", padding=4))
    data[-1] = 0
    with pytest.raises(RtpError):
        unpack("vp9", rtp.parse_header(bytes(data)), bytes(data))
