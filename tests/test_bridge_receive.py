"""Receive statistics from headers alone, with simulated time."""

from aiortc.rtp import RtpPacket
from hypothesis import given
from hypothesis import strategies as st

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
    assert len(statistics.streams) == MAX_STREAMS


@given(st.lists(st.integers(0, 0xFFFF), min_size=1, max_size=50))
def test_loss_is_never_negative(sequences: list[int]) -> None:
    statistics = ReceiveStatistics()
    for number, sequence in enumerate(sequences):
        statistics.feed(packet(sequence), float(number), 90_000)
    stream = statistics.streams[1]
    assert stream.lost >= 0
    assert stream.packets == len(sequences)
