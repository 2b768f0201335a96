"""Pictures of a clip on the wire: numbers that go on whatever happens, key frames, retransmissions, layers."""

from __future__ import annotations

import random
from itertools import pairwise

import pytest
from aiortc.codecs.vpx import VpxPayloadDescriptor
from hypothesis import given, settings
from hypothesis import strategies as st

from bot.bridge import rtcp, rtp
from bot.clips.model import Clip
from bot.engine.headers import SendParameters
from bot.engine.send import ClipSender
from bot.engine.streams import BURST, PictureStream, StreamPosition
from tests.send_support import LAYERS, UNIX, VIDEO, Far, World, pictures


def key_frame_times(far: Far, ssrc: int, clip_index: int = 0, *, layers: bool = False) -> list[float]:
    """When key frames began: the packets whose payload begins like one of the clip's."""
    layer = (pictures(LAYERS) if layers else pictures()).layers[clip_index]
    heads = {frame.payloads[0][6:30] for variant in layer.variants for frame in variant if frame.key}
    return [when for data, header, when in far.of(ssrc) if rtp.payload(data, header)[6:30] in heads]


def assert_continuous(far: Far, ssrc: int) -> None:
    """Sequence numbers, picture ids, TL0PICIDX, time stamps and markers of one stream, over all that it sent."""
    found = far.of(ssrc)
    for (_, before, _), (_, after, _) in pairwise(found):
        assert after.sequence == (before.sequence + 1) & 0xFFFF
        assert before.marker == (after.timestamp != before.timestamp)
    frames: dict[int, tuple[int, int, bool, float]] = {}
    for data, header, when in found:
        descriptor, _ = VpxPayloadDescriptor.parse(rtp.payload(data, header))
        assert descriptor.picture_id is not None
        assert descriptor.tl0picidx is not None
        assert descriptor.partition_start == (header.timestamp not in frames)
        assert descriptor.tid is not None
        numbers = descriptor.picture_id, descriptor.tl0picidx, descriptor.tid[0] == 0
        assert frames.setdefault(header.timestamp, (*numbers, when))[:3] == numbers
    for (stamp, (picture, tl0, _, when)), (later, (next_picture, next_tl0, base, next_when)) in pairwise(
        frames.items()
    ):
        assert next_picture == (picture + 1) % 32_768
        assert next_tl0 == (tl0 + base) % 256
        ticks = (later - stamp) & 0xFFFFFFFF
        assert 0 < ticks / 90_000 < next_when - when + 0.01
        assert ticks / 90_000 > next_when - when - 0.01


def test_a_clip_in_a_loop_keeps_the_time_of_the_wall_clock() -> None:
    world = World()
    world.sender(pictures(), phase=0.7)
    world.run(6.5)
    assert_continuous(world.far, 10)
    layer = pictures().layers[0]
    frames = {frame.payloads[0][6:30]: frame for variant in layer.variants for frame in variant}
    for data, header, when in world.far.of(10):
        frame = frames.get(rtp.payload(data, header)[6:30])
        if frame is not None:
            assert 0 <= (when + UNIX + 0.7 - frame.timestamp / 90_000) % 2.0 < world.tick + 0.001


@settings(max_examples=40)
@given(
    st.lists(
        st.tuples(
            st.floats(0.01, 0.9),
            st.sampled_from(
                ["mute", "unmute", "key", "key", "180", "360", "720", "0", "allow1", "allow3", "stall"]
            ),
        ),
        max_size=12,
    ),
    st.floats(0, 2),
    st.integers(0, 1000),
)
def test_numbers_go_on_over_mutes_layers_variants_and_stalls(
    steps: list[tuple[float, str]], phase: float, seed: int
) -> None:
    world = World()
    sender = world.sender(pictures(LAYERS), phase=phase, seed=seed)
    # Near their ends, so that they wrap.
    for stream in sender.streams:
        stream._sequence, stream._picture_id, stream._tl0 = 0xFFF0, 0x7FF8, 0xFA
    for seconds, step in steps:
        world.run(seconds)
        apply(world, sender, step)
    world.run(1.0)
    for ssrc in (10, 20, 30):
        assert_continuous(world.far, ssrc)
    assert_key_frames_together(world)
    numbers = [rtp.transport_sequence(data, header, 5) for data, header, _ in world.far.packets]
    assert numbers == [number & 0xFFFF for number in range(len(numbers))]


def assert_key_frames_together(world: World) -> None:
    """Whenever a layer has a key frame all that are sent have theirs, the highest one first."""
    times = {ssrc: key_frame_times(world.far, ssrc, at, layers=True) for at, ssrc in enumerate((10, 20, 30))}
    seen = {ssrc: [(when, header.timestamp) for _, header, when in world.far.of(ssrc)] for ssrc in times}
    for ssrc, found in times.items():
        for other in {10, 20, 30} - {ssrc}:
            for when in found:
                stamps = {stamp for at, stamp in seen[other] if abs(at - when) < world.tick / 2}
                assert not stamps or when in times[other]
    first: dict[float, int] = {}
    for _, header, when in world.far.packets:
        if header.ssrc in times and when in times[header.ssrc]:
            first.setdefault(when, header.ssrc)
    for when, ssrc in first.items():
        assert ssrc == max(number for number, found in times.items() if when in found)


def apply(world: World, sender: ClipSender, step: str) -> None:
    if step in ("mute", "unmute"):
        sender.muted = step == "mute"
    elif step == "key":
        for ssrc in (10, 20, 30, 99):
            sender.request_key_frame(ssrc)
    elif step.startswith("allow"):
        sender.layers_allowed = int(step[5:])
    elif step == "stall":
        world.now += 0.4
    else:
        sender.max_height = int(step)


@given(st.floats(0, 2), st.floats(1.0, 3.0))
def test_a_key_frame_comes_within_half_a_second(phase: float, asked: float) -> None:
    world = World()
    sender = world.sender(pictures(), phase=phase)
    world.run(asked)
    before = world.now
    sender.request_key_frame(10)
    world.run(0.55)
    assert any(0 < when - before <= 0.5 + 2 * world.tick for when in key_frame_times(world.far, 10))
    assert_continuous(world.far, 10)


def test_a_key_frame_on_request_comes_of_the_other_variant() -> None:
    """Without a request key frames are a second apart, at the seconds of the clip."""
    world = World()
    sender = world.sender(pictures())
    world.run(2.1)
    sender.request_key_frame(10)
    world.run(0.9)
    times = [round(when - 1000.0, 1) for when in key_frame_times(world.far, 10)]
    assert times == [0.0, 1.0, 2.0, 2.5]


@given(st.floats(0, 2), st.floats(0.1, 1.5))
def test_what_was_paused_begins_with_a_key_frame(phase: float, pause: float) -> None:
    world = World()
    sender = world.sender(pictures(), phase=phase)
    world.run(1.0)
    sender.paused = True
    count = len(world.far.packets)
    world.run(pause)
    assert len(world.far.packets) == count
    assert sender.sender_reports(world.now) == []
    sender.paused = False
    resumed = world.now
    world.run(0.6)
    _, _, first = world.far.of(10)[count]
    assert first in key_frame_times(world.far, 10)
    assert first - resumed < 0.52


def test_frames_that_are_too_late_are_left_out_up_to_a_key_frame() -> None:
    world = World()
    sender = world.sender(pictures())
    world.run(1.2)
    count = len(world.far.packets)
    world.now += 0.3
    world.run(0.6)
    assert sender.counts().skipped >= 8
    assert world.schedule.skips == 1
    _, _, first = world.far.packets[count]
    assert first in key_frame_times(world.far, 10)


def test_a_lost_packet_comes_again_as_it_was() -> None:
    world = World()
    sender = world.sender(pictures())
    world.run(2.0)
    originals = world.far.of(10)[-20:]
    sender.nack(10, [header.sequence for _, header, _ in originals])
    repaired = world.far.of(11)
    assert len(repaired) == 20
    for (data, header, _), (original, first, _) in zip(repaired, originals, strict=True):
        assert header.payload_type == 96
        found = rtp.unwrap_rtx(data, header, payload_type=100, ssrc=10)
        assert found is not None
        again = rtp.parse_header(found)
        assert again == first
        assert rtp.payload(found, again) == rtp.payload(original, first)
        assert rtp.transport_sequence(data, header, 5) is not None
    assert [header.sequence for _, header, _ in repaired] == [
        (repaired[0][1].sequence + number) & 0xFFFF for number in range(20)
    ]
    counts = sender.counts()
    assert (counts.retransmitted, counts.unanswered) == (20, 0)
    assert counts.retransmitted_octets == sum(len(data) - header.length for data, header, _ in repaired)


def test_a_packet_is_sent_again_once_a_round_trip() -> None:
    world = World()
    sender = world.sender(pictures())
    world.run(1.5)
    sequence = world.far.of(10)[-1][1].sequence
    sender.round_trip = 0.05
    for _ in range(3):
        sender.nack(10, [sequence])
    assert len(world.far.of(11)) == 1
    assert sender.counts().unanswered == 2
    world.now += 0.051
    sender.nack(10, [sequence])
    assert len(world.far.of(11)) == 2


def test_a_flood_of_requests_is_not_answered_with_a_flood() -> None:
    world = World()
    sender = world.sender(pictures())
    sender.round_trip = 0.0
    world.run(1.5)
    sequences = [header.sequence for _, header, _ in world.far.of(10)]
    for _ in range(50):
        sender.nack(10, sequences)
    octets = sum(len(data) for data, _, _ in world.far.of(11))
    assert 8 * octets <= sender.rates[0] * 1.01
    assert sender.counts().unanswered > 1000


def test_what_can_not_be_repaired_is_not() -> None:
    world = World()
    sender = world.sender(pictures(), parameters=SendParameters(100, abs_send_time=3, transport_cc=5))
    world.run(1.5)
    sender.nack(10, [world.far.of(10)[-1][1].sequence])
    sender.nack(4711, [1])
    assert not world.far.of(11)
    other = World().sender(pictures())
    other.nack(10, [5])
    assert other.counts().unanswered == 1


@pytest.mark.parametrize(
    ("height", "layers"), [(None, 3), (0, 0), (90, 1), (180, 1), (359, 1), (360, 2), (719, 2), (720, 3), (2160, 3)]
)
def test_the_layers_that_the_room_asks_for_are_sent(height: int | None, layers: int) -> None:
    world = World()
    sender = world.sender(pictures(LAYERS), start=False)
    sender.max_height = height
    assert sender.layers_active == 0
    sender.start(world.schedule)
    world.run(1.2)
    assert {header.ssrc for _, header, _ in world.far.packets} == {10, 20, 30}.intersection(range(10 * layers + 1))
    assert sender.layers_active == sender.layers_wanted == layers
    assert sender.bitrate == sum(sender.rates[:layers])
    sender.stop()
    sender.stop()
    assert len(world.schedule) == 0


def test_the_highest_layer_goes_first_whatever_happened_to_it() -> None:
    world = World()
    sender = world.sender(pictures(LAYERS))
    world.run(1.2)
    for height in (0, 720):
        sender.max_height = height
        world.run(0.3)
    world.far.packets.clear()
    world.run(1.5)
    firsts: dict[float, int] = {}
    for _, header, when in world.far.packets:
        firsts.setdefault(when, header.ssrc)
    starts = {when for _, _, when in world.far.of(10)}
    assert len(starts) >= 40
    assert {firsts[when] for when in starts} == {30}


@given(st.floats(0.3, 2.5), st.booleans())
def test_a_layer_that_nobody_wants_ends_where_the_others_have_a_key_frame(asked: float, back: bool) -> None:
    """Videobridge forwards it until then. One that the link is too small for ends at once."""
    world = World()
    sender = world.sender(pictures(LAYERS))
    world.run(asked)
    start = world.now
    sender.max_height = 180
    if back:
        world.run(0.01)
        sender.max_height = 720
    world.run(1.0)
    left = {ssrc: [when for _, _, when in world.far.of(ssrc)][-1] - start for ssrc in (10, 20, 30)}
    if back:
        assert min(left.values()) > 0.9
    else:
        key = next(when for when in key_frame_times(world.far, 10, layers=True) if when > start + 1e-6) - start
        assert max(left[20], left[30]) < key < 0.52
        assert min(left[20], left[30]) > key - 0.04
        assert left[10] > 0.9
    sender.max_height, sender.layers_allowed = 720, 1
    count = len(world.far.of(30))
    world.run(0.3)
    assert len(world.far.of(30)) == count
    assert_continuous(world.far, 10)


def test_long_frames_are_spread() -> None:
    world = World()
    sender = world.sender(pictures(((720, 6_000_000),)))
    world.run(2.0)
    longest = max(frame.count for frame in sender.streams[0].layer.variants[0])
    assert longest > 2 * BURST
    assert max(world.far.batches) <= max(BURST, -(-longest // 4))
    assert_continuous(world.far, 10)
    late = [when for data, header, when in world.far.of(10) if header.marker]
    assert len(late) >= 45


def test_extensions_say_when_a_packet_was_sent() -> None:
    world = World()
    world.sender(pictures())
    world.run(1.2)
    data, header, when = world.far.packets[-1]
    value = rtp.extension(data, header, 3)
    assert value is not None
    assert int.from_bytes(value, "big") / 2**18 == pytest.approx((when + UNIX + 2_208_988_800) % 64, abs=1e-4)


@given(st.sampled_from([None, 1, 14, 15, 200]), st.sampled_from([None, 2, 13, 16, 255]), st.integers(0, 0x7F))
def test_ids_are_those_of_the_offer(send_time: int | None, number: int | None, payload_type: int) -> None:
    """Above 14 they need the two-byte form (RFC 8285)."""
    world = World()
    world.sender(pictures(), parameters=SendParameters(payload_type, abs_send_time=send_time, transport_cc=number))
    world.run(1.2)
    for data, header, _ in world.far.packets:
        found = {ext_id: end - start for ext_id, start, end in rtp.extensions(data, header)}
        assert found == {ext_id: size for ext_id, size in ((send_time, 3), (number, 2)) if ext_id is not None}
        assert header.payload_type == payload_type
    assert world.far.packets


def test_sender_reports_tell_the_time_of_what_is_sent() -> None:
    world = World()
    sender = world.sender(pictures(LAYERS), phase=0.3)
    assert sender.sender_reports(world.now) == []
    world.run(1.3)
    reports = sender.sender_reports(world.now)
    assert [report.ssrc for report in reports] == [10, 20, 30]
    for report in reports:
        packets = world.far.of(report.ssrc)
        assert report.packets == len(packets)
        assert report.octets == sum(len(data) - header.length for data, header, _ in packets)
        assert report.ntp / 2**32 == pytest.approx(world.wall() + 2_208_988_800, abs=1e-3)
        _, header, when = packets[-1]
        ticks = (report.timestamp - header.timestamp) & 0xFFFFFFFF
        assert ticks / 90_000 == pytest.approx(world.now - when, abs=0.02)
        assert rtcp.parse(rtcp.sender_report(report)) == [report]


def test_another_sender_goes_on_with_the_same_numbers() -> None:
    world = World()
    first = world.sender(pictures())
    world.run(1.7)
    first.stop()
    second = ClipSender(
        pictures(),
        ssrcs=[(10, 11)],
        parameters=VIDEO,
        path=world.far,
        uplink=world.uplink,
        phase=0.0,
        positions=first.positions(),
        clock=world.clock,
        wall=world.wall,
    )
    second.start(world.schedule)
    world.run(1.0)
    assert_continuous(world.far, 10)


def test_another_clip_goes_on_with_the_same_numbers() -> None:
    """Its loop is longer and elsewhere: the time stamps are those of the time all the same."""
    world = World()
    first = world.sender(pictures(), phase=0.3)
    world.run(1.7)
    first.stop()
    second = ClipSender(
        pictures(seconds=3),
        ssrcs=[(10, 11)],
        parameters=VIDEO,
        path=world.far,
        uplink=world.uplink,
        phase=2.1,
        positions=first.positions(),
        clock=world.clock,
        wall=world.wall,
    )
    second.start(world.schedule)
    world.run(1.5)
    assert_continuous(world.far, 10)


@pytest.mark.parametrize("clip", [pictures(), pictures(LAYERS)], ids=["one layer", "three"])
def test_its_state_can_be_read_back(clip: Clip) -> None:
    sender = World().sender(clip, start=False)
    assert not sender.probe(1e6, 0.0)
    assert (sender.muted, sender.paused, sender.max_height, sender.layers_allowed) == (
        False,
        False,
        None,
        len(clip.layers),
    )
    sender.muted = sender.paused = True
    sender.max_height = 180
    assert (sender.muted, sender.paused, sender.max_height) == (True, True, 180)
    lowest = sender.streams[0]
    assert isinstance(lowest, PictureStream)
    assert lowest.latest(1000) == []


def test_numbers_begin_where_srtp_can_follow() -> None:
    """RFC 3711 section 3.3.1: who joins near the wrap may guess another roll-over counter than the sender has."""
    chosen = [StreamPosition.choose(random.Random(seed)) for seed in range(200)]
    assert all(0 < item.sequence < 0x8000 and 0 < item.rtx_sequence < 0x8000 for item in chosen)
    assert len({item.offset for item in chosen}) == 200


def test_the_layers_and_their_ssrcs_must_be_as_many() -> None:
    with pytest.raises(ValueError, match="3 layers, not the 1"):
        ClipSender(
            pictures(LAYERS), ssrcs=[(1, 2)], parameters=VIDEO, path=Far(float), uplink=World().uplink, phase=0
        )


def test_what_it_is_can_be_read() -> None:
    world = World()
    sender = world.sender(pictures())
    world.run(1.0)
    assert "1 of 1 layers" in repr(sender)
    assert "PictureStream 10 on" in repr(sender.streams[0])
    assert repr(world.uplink) == "<Uplink unknown loss 0 % queue 0 ms>"
