"""One stream out of three layers: numbers that go on, key frames first, and the way back for NACK and RTX."""

from __future__ import annotations

import itertools
from collections.abc import Iterable

from aiortc.codecs.vpx import VpxPayloadDescriptor
from hypothesis import given
from hypothesis import strategies as st

from bot.bridge import rtcp, rtp
from bot.embedded.forward import Forwarder
from bot.embedded.offer import VP8_ID
from bot.embedded.simulcast import Projection, Simulcast, simulcasts
from bot.jingle.model import MediaSources, Source, SourceGroup, SourceMap

SSRCS, REPAIRS = (11, 12, 13), (21, 22, 23)
GROUPS = (SourceGroup("SIM", SSRCS), *(SourceGroup("FID", pair) for pair in zip(SSRCS, REPAIRS, strict=True)))
VIDEO = MediaSources(tuple(Source(ssrc, "one-v0") for ssrc in (*SSRCS, *REPAIRS)), GROUPS)
SOURCE = Simulcast("one-v0", SSRCS, REPAIRS)


class Layer:
    """An encoder that makes frames of two packets."""

    def __init__(self, at: int) -> None:
        self.ssrc, self.repair = SSRCS[at], REPAIRS[at]
        self.sequence, self.stamp, self.picture, self.tl0 = 65_530 + at, 2**32 - 7000 + at, 32_760 + at, 250 + at
        self.sent: dict[int, bytes] = {}

    def frame(self, *, key: bool) -> list[bytes]:
        self.stamp, self.picture, self.tl0 = self.stamp + 3000, self.picture + 1 & 0x7FFF, self.tl0 + 1 & 0xFF
        packets = []
        for part in range(2):
            descriptor = VpxPayloadDescriptor(1 - part, 0, self.picture, self.tl0, (0, 0))
            body = bytes(descriptor) + bytes((0 if key and not part else 1, self.ssrc)) + b"picture"
            packets.append(
                rtp.build(
                    payload_type=VP8_ID,
                    sequence=self.sequence,
                    timestamp=self.stamp,
                    ssrc=self.ssrc,
                    body=body,
                    marker=part == 1,
                )
            )
            self.sent[self.sequence & 0xFFFF] = packets[-1]
            self.sequence += 1
        return packets

    def repaired(self, sequence: int) -> bytes:
        packet = self.sent[sequence]
        return rtp.wrap_rtx(packet, rtp.parse_header(packet), payload_type=96, sequence=9, ssrc=self.repair)


def through(projection: Projection, packets: Iterable[bytes], now: float) -> list[bytes]:
    found = [projection.rtp(data, rtp.parse_header(data), now, vp8=True) for data in packets]
    return [data for data in found if data is not None]


def descriptor_of(data: bytes) -> VpxPayloadDescriptor:
    return VpxPayloadDescriptor.parse(data[rtp.parse_header(data).length :])[0]


def layer_of(data: bytes) -> int:
    rest = VpxPayloadDescriptor.parse(data[rtp.parse_header(data).length :])[1]
    return SSRCS.index(rest[1])


def check_continuous(out: list[bytes]) -> None:
    """What a receiver must see: one stream of one encoder."""
    for before, after in itertools.pairwise(out):
        a, b = rtp.parse_header(before), rtp.parse_header(after)
        assert b.ssrc == SSRCS[0]
        assert b.sequence == (a.sequence + 1) & 0xFFFF
        first, second = descriptor_of(before), descriptor_of(after)
        assert first.picture_id is not None
        assert second.picture_id is not None
        assert first.tl0picidx is not None
        new = int(a.marker)
        assert second.picture_id == (first.picture_id + new) & 0x7FFF
        assert second.tl0picidx == (first.tl0picidx + new) & 0xFF
        passed = (b.timestamp - a.timestamp) & 0xFFFFFFFF
        assert (0 < passed < 90_000) if new else passed == 0


def test_the_groups_say_what_is_simulcast() -> None:
    assert simulcasts(VIDEO) == [SOURCE]
    bare = MediaSources((Source(1), Source(2)), (SourceGroup("SIM", (1, 2)),))
    assert simulcasts(bare) == [Simulcast("", (1, 2), (0, 0))]


steps = st.lists(
    st.tuples(st.sampled_from([0, 180, 360, 720]), st.sets(st.integers(0, 2), min_size=1)), max_size=12
)


@given(steps)
def test_whatever_layers_come_and_go_the_stream_goes_on(turns: list[tuple[int, set[int]]]) -> None:
    layers = [Layer(at) for at in range(3)]
    projection = Projection(SOURCE)
    out: list[bytes] = []
    now = 0.0
    for height, alive in turns:
        projection.limit(height)
        for step in range(40):
            now += 0.033
            asked = projection.wanted(now)
            for at in sorted(alive):
                key = SSRCS[at] == asked and not projection.is_settled(now) and step % 4 == 3
                out += through(projection, layers[at].frame(key=key), now)
        allowed = max({180: 0, 360: 1, 720: 2}.get(height, 0), min(alive))
        assert layer_of(out[-1]) == max(at for at in alive if at <= allowed)
        assert projection.is_settled(now)
    check_continuous(out)
    for data in out[:1]:
        assert not VpxPayloadDescriptor.parse(data[12:])[1][0] & 1


def test_what_is_missed_is_asked_of_the_layer_and_comes_back_under_the_known_number() -> None:
    low, high = Layer(0), Layer(2)
    projection = Projection(SOURCE)
    assert projection.nacked([1]) == (SSRCS[0], [])
    out = through(projection, low.frame(key=True), 0.0)
    out += through(projection, high.frame(key=True), 0.1)
    out += through(projection, high.frame(key=False), 0.2)
    check_continuous(out)
    lost = rtp.parse_header(out[3])
    before = [rtp.parse_header(data).sequence for data in out[:2]]
    ssrc, numbers = projection.nacked([*before, lost.sequence])
    assert (ssrc, len(numbers)) == (SSRCS[2], 1)  # the layer before is gone
    packet = high.repaired(numbers[0])
    repaired = projection.rtx(packet, rtp.parse_header(packet))
    assert repaired is not None
    assert rtp.unwrap_rtx(repaired, rtp.parse_header(repaired), payload_type=VP8_ID, ssrc=SSRCS[0]) == out[3]
    assert rtp.parse_header(repaired).ssrc == REPAIRS[0]
    old = low.repaired(65_530)
    assert projection.rtx(old, rtp.parse_header(old)) is None
    report = rtcp.SenderReport(SSRCS[2], 1 << 40, rtp.parse_header(high.sent[numbers[0]]).timestamp, 4, 400)
    told = projection.report(report)
    assert told is not None
    assert (told.ssrc, told.timestamp) == (SSRCS[0], lost.timestamp)
    assert projection.report(rtcp.SenderReport(SSRCS[0], 1, 1, 1, 1)) is None


def test_late_packets_of_the_turn_before_and_probes_do_not_pass() -> None:
    low, high = Layer(0), Layer(2)
    projection = Projection(SOURCE)
    first = low.frame(key=True)
    through(projection, first[:1], 0.0)
    through(projection, high.frame(key=True), 0.1)
    projection.limit(180)
    late, again = first[1:], low.frame(key=True)
    assert through(projection, again, 0.2)
    assert through(projection, late, 0.2) == []
    probe = rtp.build(payload_type=VP8_ID, sequence=1, timestamp=1, ssrc=SSRCS[0], padding=100)
    assert through(projection, [probe], 0.2) == []


def test_other_codecs_go_on_the_first_layer() -> None:
    projection = Projection(SOURCE)
    found = [
        projection.rtp(data, rtp.parse_header(data), 0.0, vp8=False)
        for data in (rtp.build(payload_type=107, sequence=1, timestamp=1, ssrc=ssrc, body=b"x") for ssrc in SSRCS)
    ]
    assert [data is not None for data in found] == [True, False, False]


def test_each_receiver_of_a_room_gets_the_layer_that_he_asked_for() -> None:
    heights = {"two": 720, "three": 180}
    forwarder = Forwarder(0xABCD, lambda receiver, _owner, _source: heights[receiver])
    forwarder.set_sources("one", SourceMap(video=VIDEO))
    for name in ("one", "two", "three"):
        forwarder.add(name, 0.0)
    layers = [Layer(at) for at in range(3)]
    got: dict[str, list[bytes]] = {"one": [], "two": [], "three": []}
    for step in range(60):
        now = step * 0.033
        keys = {rtcp.keyframe_requests(item)[0] for data in got["one"] for item in _feedback(data)}
        got["one"].clear()
        for layer in layers:
            for data in layer.frame(key=layer.ssrc in keys):
                header = forwarder.header("one", data)
                assert header is not None
                for name, packet in forwarder.forward_rtp("one", data, header, now):
                    got[name].append(packet)
    assert {layer_of(data) for data in got["two"][-20:]} == {2}
    assert {layer_of(data) for data in got["three"][-20:]} == {0}
    check_continuous(got["two"])
    check_continuous(got["three"])
    # A receiver's request for a key frame, and what he misses, go to his layer.
    [(sender, data)] = forwarder.forward_rtcp("two", rtcp.pli(5, SSRCS[0]), 60.0)[:1]
    assert sender == "one"
    [item] = _feedback(data)
    assert rtcp.keyframe_requests(item) == (SSRCS[0],)  # nothing was sent for long: the first one is tried
    last = rtp.parse_header(got["two"][-1]).sequence
    [(sender, data)] = forwarder.forward_rtcp("two", rtcp.nack(5, SSRCS[0], [last]), 60.0)
    [item] = _feedback(data)
    assert (sender, item.media_ssrc) == ("one", SSRCS[2])
    reports = forwarder.forward_rtcp("one", rtcp.sender_report(rtcp.SenderReport(SSRCS[2], 1, 2, 3, 4)), 60.0)
    assert [name for name, _ in reports] == ["two"]


def _feedback(data: bytes) -> list[rtcp.Feedback]:
    return [item for item in rtcp.parse(data) if isinstance(item, rtcp.Feedback)]


def test_a_descriptor_that_is_cut_short_is_dropped() -> None:
    forwarder = Forwarder(0xABCD)
    forwarder.set_sources("one", SourceMap(video=VIDEO))
    forwarder.add("two", 0.0)
    data = rtp.build(payload_type=VP8_ID, sequence=1, timestamp=1, ssrc=SSRCS[0], body=b"\x90")
    header = forwarder.header("one", data)
    assert header is not None
    assert all(name == "one" for name, _ in forwarder.forward_rtp("one", data, header, 0.0))
