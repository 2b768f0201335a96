"""Transport-wide-cc feedback: what was recorded is what the other end reads."""

import struct

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bot.bridge import rtcp, twcc

#: Half a tick of 250 µs, and room for floating point.
NEAR = 0.000_13


def read(data: bytes) -> twcc.TransportFeedback:
    (packet,) = rtcp.parse(data)
    assert isinstance(packet, rtcp.Feedback)
    return twcc.parse_feedback(packet)


def reported(packets: list[bytes]) -> list[tuple[int, float | None]]:
    return [item for data in packets for item in read(data).packets]


def fci(data: bytes) -> bytes:
    (packet,) = rtcp.parse(data)
    assert isinstance(packet, rtcp.Feedback)
    return packet.fci


def test_the_bytes_of_a_packet_by_hand() -> None:
    """Section 3.1: three packets 1 ms apart from 64 ms on, then a hole of one, then one 100 ms later."""
    recorder = twcc.ArrivalRecorder()
    for sequence, arrival in ((10, 0.064), (11, 0.065), (12, 0.066), (14, 0.166)):
        recorder.record(sequence, arrival)
    (data,) = recorder.build(1, 2, 0.2)
    head = struct.pack("!HHL", 10, 5, 1 << 8)
    vector = struct.pack("!H", 0xC000 | 0b01_01_01_00_10 << 4)
    assert fci(data) == head + vector + bytes([0, 4, 4]) + struct.pack("!h", 400) + b"\0"


def test_a_long_run_is_one_chunk() -> None:
    recorder = twcc.ArrivalRecorder()
    for sequence in range(700):
        recorder.record(sequence, 1.0 + sequence / 1000)
    (data,) = recorder.build(1, 2, 2.0)
    assert struct.unpack_from("!H", fci(data), 8) == (1 << 13 | 700,)
    assert read(data).sender_ssrc == 1
    assert read(data).media_ssrc == 2


@given(
    st.integers(0, 0xFFFF),
    st.floats(0, 1000),
    st.lists(st.tuples(st.integers(0, 300), st.floats(0, 0.09)), min_size=1, max_size=200),
)
def test_what_was_recorded_is_read(start: int, begin: float, packets: list[tuple[int, float]]) -> None:
    """In any order, with holes, duplicates and numbers that wrap."""
    recorder = twcc.ArrivalRecorder()
    came: dict[int, float] = {}
    for offset, after in [(0, 0.0), *packets]:
        recorder.record((start + offset) & 0xFFFF, begin + after)
        came.setdefault((start + offset) & 0xFFFF, begin + after)
    found = reported(recorder.build(1, 2, begin + 0.1))
    last = max(offset for offset, _ in [(0, 0.0), *packets])
    assert [sequence for sequence, _ in found] == [(start + at) & 0xFFFF for at in range(last + 1)]
    for sequence, arrival in found:
        assert (arrival is None) == (sequence not in came)
        assert arrival is None or abs(arrival - came[sequence]) < NEAR


def test_each_packet_goes_on_where_the_one_before_ended() -> None:
    recorder = twcc.ArrivalRecorder()
    recorder.record(5, 1.0)
    first = recorder.build(1, 2, 1.1)
    recorder.record(8, 1.15)
    second = recorder.build(1, 2, 1.2)
    assert [sequence for sequence, _ in reported(first)] == [5]
    assert [(sequence, arrival is None) for sequence, arrival in reported(second)] == [
        (6, True),
        (7, True),
        (8, False),
    ]
    assert [read(data).number for data in first + second] == [0, 1]
    assert recorder.build(1, 2, 1.3) == []


def test_nothing_came_nothing_is_sent() -> None:
    assert twcc.ArrivalRecorder().build(1, 2, 1.0) == []


def test_a_late_packet_is_reported_with_those_after_it() -> None:
    recorder = twcc.ArrivalRecorder()
    for sequence, arrival in ((1, 1.0), (3, 1.02)):
        recorder.record(sequence, arrival)
    recorder.build(1, 2, 1.1)
    recorder.record(2, 1.15)
    recorder.record(4, 1.16)
    found = reported(recorder.build(1, 2, 1.2))
    assert [sequence for sequence, _ in found] == [2, 3, 4]
    assert all(arrival is not None for _, arrival in found)


def test_a_pause_too_long_for_a_delta_begins_another_packet() -> None:
    recorder = twcc.ArrivalRecorder()
    recorder.record(1, 1.0)
    recorder.record(2, 20.0)
    packets = recorder.build(1, 2, 20.1)
    assert len(packets) == 2
    arrivals = [arrival for _, arrival in reported(packets)]
    assert arrivals == pytest.approx([1.0, 20.0], abs=NEAR)


def test_a_counter_that_starts_anew_is_no_loss() -> None:
    recorder = twcc.ArrivalRecorder()
    recorder.record(1, 1.0)
    recorder.record(30_000, 1.01)
    assert [sequence for sequence, _ in reported(recorder.build(1, 2, 1.1))] == [30_000]


def test_memory_is_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(twcc, "MAX_PENDING", 3)
    recorder = twcc.ArrivalRecorder()
    for sequence in range(5):
        recorder.record(sequence, 1.0)
    assert recorder.overflow == 2
    assert len(reported(recorder.build(1, 2, 1.1))) == 3


def test_a_full_recorder_is_empty_again_when_its_packets_are_old(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(twcc, "MAX_PENDING", 3)
    recorder = twcc.ArrivalRecorder()
    for sequence in range(3):
        recorder.record(sequence, 1.0)
    recorder.build(1, 2, 1.1)
    recorder.record(3, 1.2)
    assert (recorder.overflow, recorder.build(1, 2, 1.6)) == (1, [])
    recorder.record(4, 1.65)
    found = reported(recorder.build(1, 2, 1.7))
    assert [(sequence, arrival is None) for sequence, arrival in found] == [(3, True), (4, False)]


def test_a_packet_that_is_later_than_what_is_remembered() -> None:
    recorder = twcc.ArrivalRecorder()
    recorder.record(0, 1.0)
    recorder.record(4000, 1.0)
    recorder.build(1, 2, 2.0)  # both are reported, and forgotten
    recorder.record(1, 2.0)
    assert reported(recorder.build(1, 2, 2.1))[0] == (1, 2.0)
    recorder.record(4001, 2.15)
    ((sequence, arrival),) = reported(recorder.build(1, 2, 2.2))
    assert sequence == 4001
    assert arrival == pytest.approx(2.15, abs=NEAR)


def test_a_vector_of_one_bit_symbols_by_hand() -> None:
    body = struct.pack("!HHL", 0xFFFE, 4, 0) + struct.pack("!H", 0x9000) + b"\4\0"
    (packet,) = rtcp.parse(rtcp.feedback(rtcp.RTPFB, 15, 1, 2, body))
    assert isinstance(packet, rtcp.Feedback)
    assert twcc.parse_feedback(packet).packets == ((0xFFFE, None), (0xFFFF, 0.001), (0, None), (1, None))


@pytest.mark.parametrize(
    "packet",
    [
        rtcp.Feedback(rtcp.PSFB, 15, 1, 2),
        rtcp.Feedback(rtcp.RTPFB, 1, 1, 2),
        rtcp.Feedback(rtcp.RTPFB, 15, 1, 2, b"\0" * 4),
        rtcp.Feedback(rtcp.RTPFB, 15, 1, 2, struct.pack("!HHL", 0, 9, 0)),
        rtcp.Feedback(rtcp.RTPFB, 15, 1, 2, struct.pack("!HHLH", 0, 9, 0, 1 << 13 | 9)),
    ],
)
def test_broken_feedback_is_refused(packet: rtcp.Feedback) -> None:
    with pytest.raises(rtcp.RtcpError):
        twcc.parse_feedback(packet)


@given(st.binary(max_size=60))
def test_garbage_raises_nothing_else(data: bytes) -> None:
    try:
        found = twcc.parse_feedback(rtcp.Feedback(rtcp.RTPFB, 15, 1, 2, data))
    except rtcp.RtcpError:
        return
    assert len(found.packets) == struct.unpack_from("!H", data, 2)[0]


def fed(*packets: tuple[int, float | None]) -> twcc.TransportFeedback:
    return twcc.TransportFeedback(1, 2, 0, packets)


def test_the_sender_counts_what_arrived() -> None:
    counter = twcc.FeedbackCounter()
    counter.feed(fed((0xFFFF, 1.0), (0, None), (1, 1.1)))
    assert (counter.acked, counter.lost) == (2, 1)
    counter.feed(fed((0, 1.2), (1, 1.1), (2, None)))
    assert (counter.acked, counter.lost) == (3, 1)


def test_the_sender_forgets_old_losses(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(twcc, "MAX_GAP", 1)
    counter = twcc.FeedbackCounter()
    counter.feed(fed((1, None), (2, None)))
    counter.feed(fed((1, 1.0)))
    assert (counter.acked, counter.lost) == (0, 2)


def test_feedback_after_a_long_stall_fits_datagrams() -> None:
    recorder, counter = twcc.ArrivalRecorder(), twcc.FeedbackCounter()
    came = [number for number in range(6000) if number % 3]
    for number in came:
        recorder.record(number, 1.0 + number * 0.07 if number > 5900 else 1.0)
    packets = recorder.build(1, 2, 2.0)
    assert len(packets) > 3
    assert max(len(data) for data in packets) < 1200
    for data in packets:
        (packet,) = rtcp.parse(data)
        assert isinstance(packet, rtcp.Feedback)
        counter.feed(twcc.parse_feedback(packet))
    assert counter.acked == len(came)
