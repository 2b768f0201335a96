"""Receive statistics from headers alone, with simulated time."""

import pytest
from aiortc.rtp import RtpPacket
from hypothesis import given
from hypothesis import strategies as st

from bot.bridge import rtp
from bot.bridge.receive import MAX_STREAMS, ReceiveStatistics


def packet(sequence: int, timestamp: int = 0, *, ssrc: int = 1, marker: int = 0) -> bytes:
    found = RtpPacket(payload_type=100, marker=marker, sequence_number=sequence & 0xFFFF, timestamp=timestamp)
    found.ssrc = ssrc
    found.payload = b"x" * 10
    return found.serialize()


def test_loss_reordering_and_first_frame() -> None:
    statistics = ReceiveStatistics()
    for number, sequence in enumerate([65534, 65535, 1, 0, 3]):
        statistics.feed(packet(sequence, marker=int(sequence == 1)), float(number), 90_000)
    stream = statistics.streams[1]
    assert (stream.packets, stream.expected, stream.lost, stream.reordered) == (5, 6, 1, 1)
    assert (stream.first, stream.first_frame, stream.last) == (0.0, 2.0, 4.0)
    assert (statistics.packets, stream.bytes, statistics.bytes) == (5, 110, 110)


def test_jitter_is_zero_on_a_steady_clock_and_grows_with_delay() -> None:
    statistics = ReceiveStatistics()
    for number in range(50):
        statistics.feed(packet(number, number * 3000), number / 30, 90_000)
    assert statistics.streams[1].jitter < 1
    statistics.feed(packet(50, 50 * 3000), 50 / 30 + 0.016, 90_000)
    assert 89 < statistics.streams[1].jitter < 91  # 16 ms of 90 kHz, a sixteenth of it


def test_a_wrapped_timestamp_is_no_jitter() -> None:
    statistics = ReceiveStatistics()
    statistics.feed(packet(1, 2**32 - 1500), 1.0, 90_000)
    statistics.feed(packet(2, 1500), 1.0 + 3000 / 90_000, 90_000)
    assert statistics.streams[1].jitter == 0.0


def test_what_is_no_rtp_is_ignored_and_memory_is_bounded() -> None:
    statistics = ReceiveStatistics()
    assert statistics.feed(b"\x80", 0.0, 90_000) is None
    for ssrc in range(1, MAX_STREAMS + 1):
        statistics.feed(packet(1, ssrc=ssrc), 0.0, 90_000)
    assert statistics.feed(packet(1, ssrc=MAX_STREAMS + 7), 0.0, 90_000) is None
    assert statistics.ignored == 2
    # Whether somebody is silent is looked for once a second at most.
    assert statistics.feed(packet(1, ssrc=MAX_STREAMS + 8), 0.5, 90_000) is None
    assert statistics.ignored == 3
    assert len(statistics.streams) == MAX_STREAMS


@given(st.lists(st.integers(0, 0xFFFF), min_size=1, max_size=50))
def test_loss_is_never_negative(sequences: list[int]) -> None:
    statistics = ReceiveStatistics()
    for number, sequence in enumerate(sequences):
        statistics.feed(packet(sequence), float(number), 90_000)
    stream = statistics.streams[1]
    assert stream.lost >= 0
    assert stream.packets == len(sequences)


def test_padding_only_packets_are_no_media() -> None:
    statistics = ReceiveStatistics()
    statistics.feed(packet(1), 0.0, 90_000)
    probe = rtp.build(payload_type=100, sequence=2, timestamp=0, ssrc=1, marker=True, padding=200)
    statistics.feed(probe, 0.1, 90_000)
    statistics.feed(rtp.build(payload_type=100, sequence=3, timestamp=0, ssrc=1, marker=True), 0.2, 90_000)
    stream = statistics.streams[1]
    assert (stream.packets, stream.padding, stream.bytes, stream.frames, stream.lost) == (3, 2, 22, 0, 0)
    assert stream.first_frame is None
    assert statistics.bytes == 22 + len(probe) + 12


def test_every_packet_of_sound_is_a_frame() -> None:
    statistics = ReceiveStatistics()
    for number in range(3):
        data = packet(number)
        statistics.count(rtp.parse_header(data), len(data), 1.0 + number, 48_000, each_a_frame=True)
    stream = statistics.streams[1]
    assert (stream.frames, stream.first_frame) == (3, 1.0)


def test_bitrate_is_that_of_the_last_second() -> None:
    statistics = ReceiveStatistics()
    for number in range(100):  # 22 bytes every 20 ms
        statistics.feed(packet(number), number * 0.02, 90_000)
    stream = statistics.streams[1]
    assert stream.bitrate(2.0) == pytest.approx(50 * 22 * 8)
    assert stream.bitrate(2.5) == pytest.approx(50 * 22 * 8 * 0.6)
    assert stream.bitrate(3.3) == 0.0
    statistics.feed(packet(100), 100.0, 90_000)
    assert stream.bitrate(100.3) == pytest.approx(22 * 8)


def test_jitter_in_seconds() -> None:
    statistics = ReceiveStatistics()
    statistics.feed(packet(0, 0), 0.0, 90_000)
    statistics.feed(packet(1, 0), 0.016, 90_000)
    assert statistics.streams[1].jitter_seconds == pytest.approx(0.001)


@pytest.mark.parametrize("anew", [20_000, 60_000])
def test_a_sender_that_begins_anew_has_lost_nothing_more(anew: int) -> None:
    statistics = ReceiveStatistics()
    for sequence in (30_000, 30_001, 30_003, anew, anew + 1, anew + 2, anew + 4):
        statistics.feed(packet(sequence), 0.0, 90_000)
    stream = statistics.streams[1]
    assert (stream.packets, stream.lost, stream.expected, stream.highest) == (7, 2, 9, anew + 4)


def test_one_stray_packet_changes_nothing() -> None:
    statistics = ReceiveStatistics()
    for sequence in (1, 2, 40_000, 3, 4):
        statistics.feed(packet(sequence), 0.0, 90_000)
    stream = statistics.streams[1]
    assert (stream.lost, stream.reordered, stream.highest) == (0, 0, 4)
