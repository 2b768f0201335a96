"""Sound of a clip on the wire: talk and silence, levels, the marker, redundancy."""

from __future__ import annotations

from fractions import Fraction
from itertools import pairwise

import av
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from bot.bridge import rtp
from bot.clips.model import Clip, ClipFrame, ClipLayer
from bot.engine.headers import SendParameters, redundant
from bot.engine.streams import OPUS_SILENCE
from tests.send_support import UNIX, Far, World, sound

RED = SendParameters(111, red=112, audio_level=1, transport_cc=5)


class Turns:
    """Talks in the given spans of Unix time."""

    def __init__(self, *spans: tuple[float, float]) -> None:
        self.spans = spans

    def is_talking(self, t: float) -> bool:
        return any(start <= t < stop for start, stop in self.spans)


def levels(far: Far) -> list[tuple[bool, int]]:
    """Voice activity and level of each packet (RFC 6464 section 3)."""
    found = []
    for data, header, _ in far.packets:
        value = rtp.extension(data, header, 1)
        assert value is not None
        assert len(value) == 1
        found.append((value[0] > 127, value[0] & 127))
    return found


def assert_timed(far: Far) -> None:
    """Sequence numbers without a hole, time stamps that follow the time of sending."""
    for (_, before, sent), (_, after, later) in pairwise(far.packets):
        assert after.sequence == (before.sequence + 1) & 0xFFFF
        ticks = (after.timestamp - before.timestamp) & 0xFFFFFFFF
        assert ticks > 0
        assert ticks % 960 == 0
        assert ticks / 48_000 == pytest.approx(later - sent, abs=0.01)


def test_each_frame_has_its_level() -> None:
    world = World()
    world.sender(sound())
    world.run(4.5)
    assert len(world.far.packets) == pytest.approx(225, abs=2)
    assert_timed(world.far)
    frames = {frame.payloads[0]: frame.level for frame in sound().layers[0].variants[0]}
    for (data, header, _), (voice, level) in zip(world.far.packets, levels(world.far), strict=True):
        assert level == frames[rtp.payload(data, header)]
        assert voice == (level < 60)
    assert [header.marker for _, header, _ in world.far.packets] == [True] + [False] * (len(world.far.packets) - 1)


def test_silence_is_left_out_but_for_a_frame_each_400_ms() -> None:
    world = World()
    begin = 1000.0 + UNIX
    sender = world.sender(sound(), speech=Turns((begin + 1, begin + 2), (begin + 4, begin + 5)))
    world.run(6.0)
    assert_timed(world.far)
    silent = [when - 1000 for data, header, when in world.far.packets if rtp.payload(data, header) == OPUS_SILENCE]
    expected = [0, 0.4, 0.8, 2, 2.4, 2.8, 3.2, 3.6, 5, 5.4, 5.8]
    assert silent == pytest.approx(expected, abs=0.01)
    talk = [when - 1000 for data, header, when in world.far.packets if rtp.payload(data, header) != OPUS_SILENCE]
    assert len(talk) == 100
    spurts = [when - 1000 for _, header, when in world.far.packets if header.marker]
    assert spurts == pytest.approx([1, 4], abs=0.01)
    for (data, header, _), (voice, level) in zip(world.far.packets, levels(world.far), strict=True):
        if rtp.payload(data, header) == OPUS_SILENCE:
            assert (voice, level) == (False, 127)
    counts = sender.counts()
    assert counts.packets == counts.frames == 111
    assert counts.left_out == pytest.approx(300 - 111, abs=1)


@given(
    st.lists(
        st.tuples(st.floats(0.02, 0.7), st.sampled_from(["mute", "unmute", "stall", "talk", "hush"])), max_size=8
    )
)
def test_numbers_go_on_over_mutes_silence_and_stalls(steps: list[tuple[float, str]]) -> None:
    world = World()

    class Switched:
        on = True

        def is_talking(self, t: float) -> bool:
            return self.on

    speech = Switched()
    sender = world.sender(sound(), speech=speech)
    for seconds, step in steps:
        world.run(seconds)
        match step:
            case "stall":
                world.now += 0.25
            case "mute" | "unmute":
                sender.muted = step == "mute"
            case _:
                speech.on = step == "talk"
    sender.muted = False
    speech.on = True
    world.far.batches.clear()
    world.run(0.2)
    assert world.far.batches
    assert_timed(world.far)
    for (before, first, _), (after, second, _) in pairwise(world.far.packets):
        gap = (second.timestamp - first.timestamp) & 0xFFFFFFFF
        talks = rtp.payload(after, second) != OPUS_SILENCE
        if second.marker:
            assert talks
        if gap == 960 and talks and rtp.payload(before, first) == OPUS_SILENCE:
            assert second.marker


def test_what_is_muted_is_silence_and_begins_with_a_talk_spurt() -> None:
    world = World()
    sender = world.sender(sound())
    world.run(0.5)
    sender.muted = True
    count = len(world.far.packets)
    world.run(0.9)
    silence = [rtp.payload(data, header) for data, header, _ in world.far.packets[count:]]
    assert silence == [OPUS_SILENCE] * 3  # one each 400 ms
    sender.muted = False
    count += 3
    sender.request_key_frame(10)
    sender.nack(10, [1])
    world.run(0.5)
    assert [header.marker for _, header, _ in world.far.packets[count:]] == [True] + [False] * 24


def test_opus_decodes_the_silence_of_dtx_to_silence() -> None:
    codec = av.CodecContext.create("libopus", "r")
    codec.open()
    frames = [frame for _ in range(5) for frame in codec.decode(av.Packet(OPUS_SILENCE))]
    assert sum(frame.samples for frame in frames) >= 4 * 960
    assert all(not np.any(frame.to_ndarray()) for frame in frames)


def read_red(payload: bytes) -> list[tuple[int, int, bytes]]:
    """Payload type, offset and data of each block (RFC 2198 section 3)."""
    heads, at = [], 0
    while payload[at] & 0x80:
        word = int.from_bytes(payload[at : at + 4], "big")
        heads.append((word >> 24 & 0x7F, word >> 10 & 0x3FFF, word & 0x3FF))
        at += 4
    last, at = payload[at], at + 1
    blocks = []
    for payload_type, offset, size in heads:
        blocks.append((payload_type, offset, payload[at : at + size]))
        at += size
    return [*blocks, (last, 0, payload[at:])]


def test_each_packet_repeats_the_frame_before() -> None:
    world = World()
    begin = 1000.0 + UNIX
    sender = world.sender(sound(), parameters=RED, speech=Turns((begin, begin + 0.5), (begin + 1.1, begin + 9)))
    world.run(2.5)
    assert {header.payload_type for _, header, _ in world.far.packets} == {112}
    read = [(read_red(rtp.payload(data, header)), header) for data, header, _ in world.far.packets]
    assert [len(blocks) for blocks, _ in read[:3]] == [1, 2, 2]
    for (before, earlier), (blocks, header) in pairwise(read):
        gap = (header.timestamp - earlier.timestamp) & 0xFFFFFFFF
        assert blocks[-1][0] == 111
        if gap >= 1 << 14:
            assert len(blocks) == 1
        else:
            assert blocks[0] == (111, gap, before[-1][2])
    assert any(len(blocks) == 1 for blocks, _ in read[1:])
    frames = {frame.payloads[0] for frame in sound().layers[0].variants[0]} | {OPUS_SILENCE}
    assert {blocks[-1][2] for blocks, _ in read} <= frames
    assert sender.counts().octets == sum(len(data) - header.length for data, header, _ in world.far.packets)


@given(st.binary(min_size=1, max_size=50), st.none() | st.binary(max_size=1100), st.integers(-5, 20_000))
def test_what_the_fields_of_red_can_not_say_is_left_out(
    primary: bytes, previous: bytes | None, offset: int
) -> None:
    blocks = read_red(redundant(primary, 111, previous, offset))
    assert blocks[-1] == (111, 0, primary)
    fits = previous is not None and 0 < offset < 16_384 and len(previous) < 1024
    assert blocks[:-1] == ([(111, offset, previous)] if fits else [])


def test_sound_that_is_too_late_is_left_out() -> None:
    world = World()
    sender = world.sender(sound())
    world.run(0.5)
    world.now += 0.5
    world.run(0.5)
    assert_timed(world.far)
    assert sender.counts().skipped == pytest.approx(25, abs=2)


def test_sound_without_a_level_is_said_to_be_silent() -> None:
    frames = (ClipFrame(0, True, (b"x",)), ClipFrame(960, True, (b"y",), 5))
    clip = Clip("audio", "opus", 48_000, Fraction(1, 25), (ClipLayer(0, 0, Fraction(50), 1, (frames,)),), "", "")
    world = World()
    world.sender(clip)
    world.run(0.5)
    assert set(levels(world.far)) == {(False, 127), (True, 5)}
