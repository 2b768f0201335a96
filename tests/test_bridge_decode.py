"""Decoding what is received, through real codecs; bounded, in threads, with lost packets asked for again."""

import asyncio
import threading
from fractions import Fraction
from typing import Any

import numpy as np
import pytest
from aiortc.codecs.h264 import H264Encoder
from aiortc.codecs.opus import OpusEncoder
from aiortc.codecs.vpx import Vp8Encoder
from av import AudioFrame, VideoFrame
from structlog.testing import capture_logs

from bot.bridge import decode, decoder, depacketize, pool, rtcp, rtp
from bot.bridge.decode import QUEUE, Decode, DecodedStream, Decoders
from bot.bridge.decoder import DecodedFrame
from bot.bridge.payloads import PayloadFormat
from bot.bridge.session import MediaSession
from bot.jingle.model import Jingle
from bot.media.synthetic import SyntheticAudioTrack, SyntheticVideoTrack
from tests.bridge_support import LOOPBACK, call, losing, until

VP8 = PayloadFormat(100, "video", "vp8", 90_000, nack=True)
H264 = PayloadFormat(107, "video", "h264", 90_000)
OPUS = PayloadFormat(111, "audio", "opus", 48_000)
H265 = PayloadFormat(49, "video", "h265", 90_000)


class Seen:
    """What comes out of a session's decoders."""

    def __init__(self) -> None:
        self.pictures: list[bytes] = []
        self.levels: list[float] = []
        self.sizes: set[tuple[int, int]] = set()

    def __call__(self, stream: DecodedStream, frame: DecodedFrame) -> None:
        if isinstance(frame, VideoFrame):
            self.sizes.add((frame.width, frame.height))
            self.pictures.append(bytes(frame.planes[0])[::97])
        else:
            self.levels.append(float(np.abs(frame.to_ndarray()).mean()))

    @property
    def changes(self) -> int:
        return sum(a != b for a, b in zip(self.pictures, self.pictures[1:], strict=False))

    def receiver(self, offer: Jingle) -> MediaSession:
        return MediaSession(offer, addresses=LOOPBACK, decode="all", on_frame=self)


@pytest.mark.parametrize("codec", ["vp8", "h264"])
async def test_a_bot_sees_and_hears_another(codec: str) -> None:
    seen = Seen()
    tracks = [SyntheticAudioTrack("a"), SyntheticVideoTrack("room", "a")]
    async with call(tracks, seen.receiver, codec=codec) as (_, receiver, _):
        await until(lambda: len(seen.pictures) >= 30 and len(seen.levels) >= 50)
        picture, sound = receiver.decoded("a-v0"), receiver.decoded("a-a0")
        assert picture is not None
        assert sound is not None
        assert (picture.size, sound.size) == ((640, 360), None)
        assert (picture.errors, picture.dropped, sound.errors, sound.dropped) == (0, 0, 0, 0)
        assert isinstance(picture.last, VideoFrame)
        assert isinstance(sound.last, AudioFrame)
        assert picture.frames >= 30
        streams = {stream.source: stream for stream in receiver.snapshot()}
        assert {name: stream.codec for name, stream in streams.items()} == {"a-a0": "opus", "a-v0": codec}
        assert streams["a-v0"].frames >= 30
        assert receiver.totals().decoded == picture.frames + sound.frames
        assert receiver.totals().decode_dropped == 0
        assert all(0 < (stream.first_frame or 0) < 10 for stream in streams.values())
        assert all(stream.bitrate > 0 for stream in streams.values())
        assert all(stream.jitter < 0.2 for stream in streams.values())
    assert seen.sizes == {(640, 360)}
    assert seen.changes >= 25
    assert max(seen.levels) > 100
    await until(lambda: not [thread for thread in threading.enumerate() if thread.name.startswith("decode")])


async def test_lost_packets_come_again_by_rtx() -> None:
    seen = Seen()
    async with call([SyntheticVideoTrack("room", "a")], seen.receiver, loses=losing(0.05)) as (_, receiver, relay):
        await until(lambda: relay.lost >= 10 and len(seen.pictures) >= 100)
        await asyncio.sleep(0.3)
        (stream,) = receiver.snapshot()
        picture = receiver.decoded("a-v0")
    assert picture is not None
    assert stream.lost >= 5
    assert stream.repaired >= 0.8 * stream.lost
    assert stream.rtx >= stream.repaired
    assert picture.errors == 0
    assert picture.frames >= 0.9 * stream.frames
    assert seen.changes >= 90
    assert any(is_nack(data) for data in relay.from_receiver)


def is_nack(data: bytes) -> bool:
    return any(
        isinstance(packet, rtcp.Feedback) and (packet.kind, packet.fmt) == (rtcp.RTPFB, rtcp.FMT_NACK)
        for packet in rtcp.parse(data)
    )


async def test_a_stream_that_is_joined_late_begins_with_a_key_frame_that_was_asked_for() -> None:
    """The first packets never come: a PLI reaches the sender, whose key frame starts the picture."""
    seen, dropped = Seen(), iter(range(10**9))
    async with call([SyntheticVideoTrack("room", "a")], seen.receiver, loses=lambda _: next(dropped) < 40) as (
        _,
        receiver,
        relay,
    ):
        await until(lambda: len(seen.pictures) >= 10)
        assert any(
            isinstance(packet, rtcp.Feedback) and rtcp.keyframe_requests(packet)
            for data in relay.from_receiver
            for packet in rtcp.parse(data)
        )
        (stream,) = receiver.snapshot()
    assert stream.missing == 0


class Bench:
    """Decoders fed by an encoder, without a network; the clock is set by hand."""

    def __init__(self, kinds: Decode = "all", on_frame: Any = None) -> None:
        self.needed: list[tuple[int, bool]] = []
        self.woken = 0
        self.decoders = Decoders(
            kinds, on_frame=on_frame, need_key_frame=lambda *what: self.needed.append(what), wake=self._wake
        )
        self.now = 5.0

    def _wake(self) -> None:
        self.woken += 1

    def feed(self, fmt: PayloadFormat, sequence: int, body: bytes, *, ssrc: int = 7, stamp: int = 0) -> None:
        data = rtp.build(
            payload_type=fmt.id, sequence=sequence, timestamp=stamp, ssrc=ssrc, body=body, marker=True
        )
        self.decoders.packet(fmt, rtp.parse_header(data), data, self.now)


def sound(count: int) -> list[bytes]:
    """``count`` packets of opus."""
    encoder, packets = OpusEncoder(), []
    for number in range(count + 2):
        frame = AudioFrame(format="s16", layout="stereo", samples=960)
        frame.planes[0].update(np.full(1920, 1000 * (number % 2), np.int16).tobytes())
        frame.sample_rate, frame.pts, frame.time_base = 48_000, number * 960, Fraction(1, 48_000)
        packets += encoder.encode(frame)[0]
    return packets[:count]


def pictures(encoder: Vp8Encoder | H264Encoder, count: int) -> list[list[bytes]]:
    """``count`` frames as the payloads of their packets."""
    found = []
    for number in range(count):
        frame = VideoFrame(64, 48, "yuv420p")
        for plane in frame.planes:
            plane.update(bytes([number]) * plane.buffer_size)
        frame.pts, frame.time_base = number * 3000, Fraction(1, 90_000)
        found.append(encoder.encode(frame)[0])
    return found


async def test_h264_is_decoded_from_its_parameter_sets_on() -> None:
    bench, sequence = Bench("video"), 0
    for number, payloads in enumerate(pictures(H264Encoder(), 5)):
        for at, body in enumerate(payloads):
            data = rtp.build(
                payload_type=107,
                sequence=sequence,
                timestamp=number * 3000,
                ssrc=7,
                body=body,
                marker=at == len(payloads) - 1,
            )
            bench.decoders.packet(H264, rtp.parse_header(data), data, 5.0)
            sequence += 1
    found = bench.decoders.get(7)
    assert found is not None
    await until(lambda: found.frames >= 4)
    assert (found.size, found.errors) == ((64, 48), 0)
    await bench.decoders.close()


@pytest.mark.parametrize(("kinds", "wanted"), [("none", 0), ("audio", 1), ("video", 0)])
async def test_only_what_was_asked_for_is_decoded(kinds: Decode, wanted: int) -> None:
    bench = Bench(kinds)
    assert bench.decoders.active == (kinds != "none")
    bench.feed(OPUS, 1, sound(1)[0])
    found = bench.decoders.get(7)
    assert (found is not None) == bool(wanted)
    if found is not None:
        await until(lambda: found.frames == 1)
        assert repr(found) == "<DecodedStream 7 opus frames 1 dropped 0>"
    await bench.decoders.close()
    bench.feed(OPUS, 2, b"x", ssrc=8)
    assert bench.decoders.get(8) is None


async def test_only_what_is_decoded_needs_to_be_unprotected() -> None:
    bench = Bench("audio")
    assert all(bench.decoders.wants(ssrc) for ssrc in (7, 8, 9))  # nobody knows yet what they are
    bench.feed(OPUS, 1, sound(1)[0])
    bench.feed(VP8, 1, b"x", ssrc=8)
    assert [bench.decoders.wants(ssrc) for ssrc in (7, 8, 9)] == [True, False, True]
    bench.decoders.forget(8)
    assert bench.decoders.wants(8)
    await bench.decoders.close()
    assert not bench.decoders.wants(7)
    assert not Bench("none").decoders.wants(7)


async def test_holes_in_sound_are_skipped_in_time() -> None:
    bench, packets = Bench(), sound(4)
    bench.feed(OPUS, 1, packets[0])
    bench.feed(OPUS, 3, packets[2], stamp=1920)
    assert bench.woken == 1
    deadline = bench.decoders.next_deadline()
    bench.decoders.expire(deadline - 0.001)
    bench.decoders.expire(deadline)
    found = bench.decoders.get(7)
    assert found is not None
    await until(lambda: found.frames == 2)
    await bench.decoders.close()


async def test_what_has_no_decoder_is_said_once_and_counted_only() -> None:
    bench = Bench()
    with capture_logs() as lines:
        bench.feed(H265, 1, b"x")
        bench.feed(H265, 2, b"x")
    assert [line["cause"] for line in lines] == ["no decoder for h265"]
    assert bench.decoders.get(7) is None
    assert bench.needed == []
    bench.decoders.forget(7)
    bench.feed(OPUS, 3, sound(1)[0])
    assert bench.decoders.get(7) is not None
    await bench.decoders.close()


async def test_probes_begin_no_stream_and_change_no_codec() -> None:
    """Videobridge sends them with the payload types of codecs that nobody uses, too."""

    def probe(format_: PayloadFormat, sequence: int) -> None:
        data = rtp.build(payload_type=format_.id, sequence=sequence, timestamp=0, ssrc=7, padding=255)
        bench.decoders.packet(format_, rtp.parse_header(data), data, 5.0)

    bench = Bench()
    with capture_logs() as lines:
        probe(H265, 1)
        probe(VP8, 2)
    assert lines == []
    assert bench.decoders.get(7) is None
    assert bench.needed == []
    (key,), (second,) = pictures(Vp8Encoder(), 2)
    bench.feed(VP8, 3, key, stamp=3000)
    found = bench.decoders.get(7)
    with capture_logs() as lines:
        probe(H265, 4)
        bench.feed(VP8, 5, second, stamp=6000)
    assert lines == []
    assert bench.decoders.get(7) is found
    assert found is not None
    await until(lambda: found.frames == 2)
    assert found.errors == 0
    await bench.decoders.close()


async def test_what_was_decoded_of_another_source_is_forgotten() -> None:
    bench = Bench()
    bench.feed(OPUS, 1, sound(1)[0])
    before = bench.decoders.get(7)
    bench.decoders.forget(7)
    assert bench.decoders.get(7) is None
    assert bench.needed[-1] == (7, False)
    bench.feed(OPUS, 50, sound(1)[0])
    found = bench.decoders.get(7)
    assert found is not None
    assert found is not before
    await until(lambda: found.frames == 1)
    await bench.decoders.close()


async def test_the_number_of_decoded_streams_is_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(decode, "MAX_DECODED", 2)
    bench = Bench()
    for ssrc in (1, 2, 3):
        bench.feed(OPUS, 1, sound(1)[0], ssrc=ssrc)
    assert [bench.decoders.get(ssrc) is not None for ssrc in (1, 2, 3)] == [True, True, False]
    await bench.decoders.close()


async def test_frames_that_nobody_decodes_in_time_are_dropped_and_counted() -> None:
    """No turn of the loop in between: the first batch is in a thread, the rest waits."""
    bench = Bench()
    (key,), *_ = pictures(Vp8Encoder(), 1)
    for number in range(QUEUE + 2):
        bench.feed(VP8, number, key, stamp=number * 3000)
    picture = bench.decoders.get(7)
    assert picture is not None
    assert picture.dropped == QUEUE + 1
    assert bench.needed[-1] == (7, True)
    packets = sound(1)
    for number in range(QUEUE + 2):
        bench.feed(OPUS, number, packets[0], ssrc=8, stamp=number * 960)
    heard = bench.decoders.get(8)
    assert heard is not None
    assert heard.dropped == QUEUE + 1 - QUEUE // 2
    await until(lambda: heard.frames == 1 + QUEUE // 2)
    assert heard.frames + heard.dropped == QUEUE + 2
    await bench.decoders.close()


async def test_broken_packets_and_frames_are_counted_and_a_key_frame_asked_for() -> None:
    bench = Bench()
    bench.feed(VP8, 1, b"\x90")
    found = bench.decoders.get(7)
    assert found is not None
    assert found.errors == 1
    bench.feed(VP8, 1, b"\x10\x00" + b"\xff" * 3, stamp=3000)  # says that it is a key frame
    await until(lambda: found.errors == 2)
    assert bench.needed[-1] == (7, True)
    bench.feed(VP8, 2, b"\x10\x01", stamp=6000)
    (key,), *_ = pictures(Vp8Encoder(), 1)
    bench.feed(VP8, 3, key, stamp=9000)
    await until(lambda: found.frames == 1)
    assert bench.needed[-1] == (7, False)
    await bench.decoders.close()


async def test_what_can_not_be_decoded_is_told_once_for_each_stream() -> None:
    bench = Bench()
    with capture_logs() as lines:
        for number in range(5):
            bench.feed(VP8, number, b"\x90", stamp=3000 * number)
    assert [(line["event_name"], line["ssrc"], line["codec"]) for line in lines] == [
        ("frame_unreadable", 7, "vp8")
    ]
    found = bench.decoders.get(7)
    assert found is not None
    assert found.errors == 5
    await bench.decoders.close()


async def test_a_picture_beyond_the_limit_takes_no_memory(monkeypatch: pytest.MonkeyPatch) -> None:
    """Twenty bytes are enough to say that a picture has 16383x16383 pixels."""
    bench = Bench()
    huge = b"\x10" + bytes.fromhex("1002009d012a") + b"\xff\x3f\xff\x3f" + bytes(20)
    bench.feed(VP8, 1, huge, stamp=3000)
    found = bench.decoders.get(7)
    assert found is not None
    await until(lambda: found.errors == 1)
    assert found.last is None
    monkeypatch.setattr(pool, "MAX_PIXELS", 64 * 48 - 1)
    for fmt, encoder, ssrc in ((VP8, Vp8Encoder(), 8), (H264, H264Encoder(), 9)):
        (packets,) = pictures(encoder, 1)
        for number, body in enumerate(packets):
            bench.feed(fmt, number, body, ssrc=ssrc, stamp=0)
    await until(lambda: all(stream is not None and stream.errors for stream in map(bench.decoders.get, (8, 9))))
    assert [stream.frames for stream in map(bench.decoders.get, (8, 9)) if stream] == [0, 0]
    await bench.decoders.close()


class Room(Bench):
    """Pictures and sounds of several endpoints (SSRCs 10 and 11 of the first, 20 and 21 of the second …)."""

    def __init__(self, kinds: Decode, **more: Any) -> None:
        super().__init__(kinds)
        self.decoders = Decoders(
            kinds,
            need_key_frame=lambda *what: self.needed.append(what),
            wake=self._wake,
            endpoint_of=lambda ssrc: str(ssrc // 10),
            **more,
        )
        self._key = pictures(Vp8Encoder(), 1)[0][0]
        self._sound = sound(1)[0]
        self._sequence = 0

    def packets(self, *ssrcs: int) -> None:
        """One packet of each, as far as it is wanted."""
        self._sequence += 1
        for ssrc in ssrcs:
            if self.decoders.wants(ssrc):
                if ssrc % 10:
                    self.feed(OPUS, self._sequence, self._sound, ssrc=ssrc, stamp=960 * self._sequence)
                else:
                    self.feed(VP8, self._sequence, self._key, ssrc=ssrc, stamp=3000 * self._sequence)

    def wanted(self, *ssrcs: int) -> list[int]:
        return [ssrc for ssrc in ssrcs if self.decoders.wants(ssrc)]

    def passes(self, seconds: float) -> None:
        self.now += seconds
        self.decoders.expire(self.now)


THREE = (10, 11, 20, 21, 30, 31)


async def test_a_sample_is_decoded_and_then_another() -> None:
    room = Room("sample:2")
    room.packets(*THREE)
    assert room.wanted(*THREE) == [10, 11]
    for _ in range(3):
        room.passes(2.5)
        room.packets(*THREE)
    before = room.decoders.get(10)
    assert before is not None
    await until(lambda: before.frames == 4)
    room.needed.clear()
    assert room.decoders.next_deadline() == pytest.approx(15.0)
    room.passes(2.5)
    assert room.decoders.get(10) is None
    assert (20, True) in room.needed or (30, True) in room.needed  # asked for before its next packet comes
    assert room.decoders.totals.frames >= 4  # what ended is counted, too
    seen = set()
    for _ in range(6):
        for _ in range(4):
            room.packets(*THREE)
            room.passes(2.5)
        seen.add(tuple(room.wanted(*THREE)))
    assert {(10, 11), (20, 21), (30, 31)} <= seen
    await room.decoders.close()


async def test_a_sampled_stream_that_is_silent_makes_room() -> None:
    room = Room("sample:1")
    room.packets(10, 20, 30)
    assert room.wanted(10, 20, 30) == [10]
    assert room.decoders.next_deadline() == room.now + decode.SILENCE
    room.passes(decode.SILENCE)
    assert room.decoders.get(20) is not None
    assert room.wanted(10, 20, 30) == [10, 20]  # the first is looked at when it comes again
    room.packets(10)
    assert room.wanted(10, 20, 30) == [20]
    room.decoders.forget(20)
    assert room.decoders.get(30) is not None
    await room.decoders.close()


async def test_all_that_waits_takes_the_place_of_what_is_gone(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(decode, "MAX_DECODED", 2)
    room = Room("all")
    with capture_logs() as lines:
        room.packets(10, 11, 20, 21)
    assert [line["cause"] for line in lines] == ["there are too many already"]
    assert (room.wanted(10, 11, 20, 21), room.decoders.next_deadline()) == ([10, 11], float("inf"))
    room.passes(1000)
    assert room.wanted(10, 11, 20, 21) == [10, 11]
    room.decoders.forget(10, 11)
    assert room.wanted(20, 21) == [20, 21]
    await room.decoders.close()


async def test_a_flood_of_streams_that_nobody_decodes_is_one_line(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(decode, "MAX_KNOWN", 50)
    bench = Bench()
    with capture_logs() as lines:
        for ssrc in range(200):
            bench.feed(H265, 1, b"x", ssrc=ssrc)
        for ssrc in range(1000, 1200):
            bench.feed(OPUS, 1, b"x", ssrc=ssrc)
    assert [line["cause"] for line in lines] == ["no decoder for h265", "there are too many already"]
    assert (len(bench.decoders._refused), len(bench.decoders._formats), len(bench.decoders._jobs)) == (50, 50, 50)
    await bench.decoders.close()


async def test_lines_about_broken_frames_are_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    bench = Bench()
    with capture_logs() as lines:
        for ssrc in range(decode.MAX_LINES + 9):
            bench.feed(VP8, 1, b"\x90", ssrc=ssrc)
    assert len(lines) == decode.MAX_LINES
    assert bench.decoders.totals.errors == decode.MAX_LINES + 9
    await bench.decoders.close()


async def test_all_sessions_of_a_process_share_its_threads() -> None:
    shared = pool.DecodePool(1)
    rooms = [Room("all", pool=shared) for _ in range(3)]
    for room in rooms:
        room.packets(10, 11)
    assert repr(shared).startswith("<DecodePool 1 threads 3 users <Budget ")
    await until(lambda: all(room.decoders.totals.frames == 2 for room in rooms))
    assert len({thread.name for thread in threading.enumerate() if thread.name.startswith("decode")}) == 1
    assert shared.pixels.used == 3 * 64 * 48
    for room in rooms:
        await room.decoders.close()
        await room.decoders.close()
    assert (shared.pixels.used, shared.waiting.used) == (0, 0)
    await until(lambda: not [thread for thread in threading.enumerate() if thread.name.startswith("decode")])


async def test_a_stream_that_lags_behind_leaves_the_others_their_turns() -> None:
    """One thread, and a stream with 60 frames at once: another's frame has not to wait for all of them."""
    order: list[int] = []
    bench = Bench(on_frame=lambda stream, _: order.append(stream.ssrc))
    bench.decoders._pool = pool.DecodePool(1)
    (key,), *_ = pictures(Vp8Encoder(), 1)
    for number in range(60):
        bench.feed(VP8, number, key, ssrc=1, stamp=3000 * number)
    bench.feed(VP8, 1, key, ssrc=2)
    await until(lambda: len(order) == 61)
    assert order.index(2) <= 2 * decode.TURN
    await bench.decoders.close()


async def test_the_memory_of_what_waits_is_that_of_the_process() -> None:
    shared = pool.DecodePool(1, waiting=10)
    room = Room("all", pool=shared)
    room.packets(10)
    found = room.decoders.get(10)
    assert found is not None
    assert found.dropped == 1
    assert room.needed[-1] == (10, True)
    await room.decoders.close()
    assert shared.waiting.used == 0


async def test_pictures_for_which_there_is_no_memory_are_dropped() -> None:
    room = Room("all", pool=pool.DecodePool(1, pixels=64 * 48))
    room.packets(10)
    first = room.decoders.get(10)
    assert first is not None
    await until(lambda: first.frames == 1)
    room.packets(20)
    second = room.decoders.get(20)
    assert second is not None
    await until(lambda: second.dropped == 1)
    assert room.needed[-1] == (20, True)
    room.decoders.forget(10)
    room.packets(20)
    await until(lambda: second.frames == 1)
    await room.decoders.close()


async def test_what_is_forgotten_while_a_thread_has_it_is_not_told() -> None:
    seen: list[int] = []
    bench = Bench(on_frame=lambda stream, _: seen.append(stream.ssrc))
    bench.feed(OPUS, 1, sound(1)[0])
    bench.decoders.forget(7)
    bench.feed(OPUS, 1, sound(1)[0], ssrc=8)
    await until(lambda: bool(seen))
    await bench.decoders.close()
    assert seen == [8]


async def test_red_and_opus_are_one_stream() -> None:
    red = PayloadFormat(112, "audio", "red", 48_000)
    bench, packets = Bench(), sound(2)
    bench.feed(OPUS, 1, packets[0])
    found = bench.decoders.get(7)
    bench.feed(red, 2, b"\x6f" + packets[1], stamp=960)
    assert found is not None
    assert bench.decoders.get(7) is found
    await until(lambda: found.frames == 2)
    assert found.errors == 0
    bench.feed(VP8, 3, b"x")  # another codec on the SSRC begins anew
    assert bench.decoders.get(7) is not found
    bench.feed(H265, 4, b"x")
    assert bench.decoders.get(7) is None
    assert not bench.decoders.wants(7)
    await bench.decoders.close()


@pytest.mark.parametrize("said", ["sample", "sample:0", "sample:65", "sample:-1", "some"])
def test_what_can_not_be_meant_is_refused(said: str) -> None:
    with pytest.raises(ValueError, match="decode="):
        Decoders(said)


def test_a_codec_of_the_wrong_kind_has_no_decoder() -> None:
    assert not decoder.decodable(PayloadFormat(111, "video", "opus", 48_000))
    assert not decoder.decodable(PayloadFormat(100, "audio", "vp8", 90_000))


async def test_a_receiver_of_frames_that_fails_changes_nothing() -> None:
    calls = []

    def broken(stream: DecodedStream, frame: DecodedFrame) -> None:
        calls.append(stream.ssrc)
        raise RuntimeError("no")

    bench = Bench(on_frame=broken)
    for number, body in enumerate(sound(2)):
        bench.feed(OPUS, number, body, stamp=960 * number)
    found = bench.decoders.get(7)
    assert found is not None
    await until(lambda: found.frames == 2)
    assert calls == [7, 7]
    await bench.decoders.close()


async def test_closing_waits_for_the_threads() -> None:
    bench = Bench()
    bench.feed(OPUS, 1, sound(1)[0])
    await bench.decoders.close()
    found = bench.decoders.get(7)
    assert found is not None
    assert found.frames == 0
    await bench.decoders.close()
    assert repr(bench.decoders) == "<Decoders 1 streams>"


@pytest.mark.parametrize(
    ("body", "key"),
    [
        (b"\x67abc", True),
        (b"\x65abc", True),
        (b"\x18\x00\x04\x67abc", True),
        (b"\x7c\x85abc", True),
        (b"\x7c\x05abc", False),
        (b"\x61abc", False),
        (b"\x18\x00\x04\x61abc", False),
    ],
)
def test_key_frames_of_h264(body: bytes, key: bool) -> None:
    data = rtp.build(payload_type=107, sequence=1, timestamp=0, ssrc=1, body=body)
    assert depacketize.unpack("h264", rtp.parse_header(data), data).starts_key == key
