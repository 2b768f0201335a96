"""What the bridge forwards to whom: RTP with transport-wide numbers, sender reports, NACK, key frames."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bot.bridge import rtcp, rtp
from bot.embedded.forward import KEYFRAME_INTERVAL, Forwarder, Packets
from bot.embedded.offer import TRANSPORT_CC_ID
from bot.jingle.model import MediaSources, Source, SourceGroup, SourceMap

OWN = 0xABCD


def sources(first: int) -> SourceMap:
    """Audio, video, RTX."""
    video = MediaSources((Source(first + 1), Source(first + 2)), (SourceGroup("FID", (first + 1, first + 2)),))
    return SourceMap(MediaSources((Source(first),)), video)


def room(*names: str) -> Forwarder:
    forwarder = Forwarder(OWN)
    for number, name in enumerate(names or ("one", "two", "three")):
        forwarder.set_sources(name, sources(10 * number + 10))
        forwarder.add(name, 0.0)
    return forwarder


def packet(ssrc: int, *, numbered: bool = True) -> bytes:
    values = {TRANSPORT_CC_ID: b"\xff\xff"} if numbered else None
    return rtp.build(payload_type=100, sequence=5, timestamp=6, ssrc=ssrc, body=b"body", values=values)


def forward(forwarder: Forwarder, sender: str, data: bytes) -> Packets:
    header = forwarder.header(sender, data)
    return [] if header is None else forwarder.forward_rtp(sender, data, header)


def sequences(packets: Packets) -> dict[str, int | None]:
    return {name: rtp.transport_sequence(data, rtp.parse_header(data), TRANSPORT_CC_ID) for name, data in packets}


def test_everybody_else_gets_the_packet_with_a_number_of_his_own() -> None:
    forwarder = room()
    assert sequences(forward(forwarder, "one", packet(11))) == {"two": 0, "three": 0}
    assert sequences(forward(forwarder, "two", packet(21))) == {"one": 0, "three": 1}
    [(_, data), _] = forward(forwarder, "one", packet(11))
    header = rtp.parse_header(data)
    assert (header.ssrc, header.sequence, header.timestamp, data[header.length :]) == (11, 5, 6, b"body")


def test_numbers_wrap_at_16_bits() -> None:
    forwarder = room("one", "two")
    seen = [sequences(forward(forwarder, "one", packet(11)))["two"] for _ in range(65_537)]
    assert seen[65_534:] == [65_534, 65_535, 0]


def test_a_packet_without_a_number_goes_on_as_it_is() -> None:
    data = packet(10, numbered=False)
    assert forward(room(), "one", data) == [("two", data), ("three", data)]


@pytest.mark.parametrize("data", [b"", b"\x80", b"\x00" * 20, packet(21), packet(99)])
def test_what_is_broken_or_not_the_senders_own_is_counted_and_dropped(data: bytes) -> None:
    forwarder = room()
    assert forward(forwarder, "one", data) == []
    assert forwarder.ignored == 1


def test_who_left_neither_sends_nor_receives() -> None:
    forwarder = room()
    forwarder.remove("one")
    assert forward(forwarder, "one", packet(11)) == []
    assert set(sequences(forward(forwarder, "two", packet(21)))) == {"three"}


# --- RTCP --------------------------------------------------------------------------------------------------


def parsed(packets: Packets) -> Iterator[tuple[str, rtcp.Packet]]:
    return ((name, item) for name, data in packets for item in rtcp.parse(data))


def test_a_sender_report_goes_to_the_others_without_its_blocks() -> None:
    report = rtcp.SenderReport(11, 1 << 40, 2, 3, 4, (rtcp.ReportBlock(21, 0, 0, 0, 0),))
    found = list(parsed(room().forward_rtcp("one", rtcp.sender_report(report), 0.0)))
    assert [name for name, _ in found] == ["two", "two", "three", "three"]
    assert found[0][1] == rtcp.SenderReport(11, 1 << 40, 2, 3, 4)
    assert isinstance(found[1][1], rtcp.Other)
    assert found[1][1].kind == rtcp.SDES


def test_a_report_about_somebody_elses_source_is_dropped() -> None:
    assert room().forward_rtcp("two", rtcp.sender_report(rtcp.SenderReport(11, 1, 2, 3, 4)), 0.0) == []


def test_receiver_reports_and_transport_feedback_end_here() -> None:
    ends = rtcp.receiver_reports(1, []) + rtcp.feedback(rtcp.RTPFB, rtcp.FMT_TRANSPORT_CC, 1, 11, bytes(8))
    assert room().forward_rtcp("two", ends + rtcp.bye([11]), 0.0) == []


def test_a_nack_goes_to_the_sender_of_the_media() -> None:
    [(name, again)] = parsed(room().forward_rtcp("two", rtcp.nack(1, 11, [7, 9, 500]), 0.0))
    assert name == "one"
    assert isinstance(again, rtcp.Feedback)
    assert (again.media_ssrc, rtcp.nacked(again)) == (11, [7, 9, 500])
    assert room().forward_rtcp("two", rtcp.nack(1, 99, [7]), 0.0) == []
    assert room().forward_rtcp("two", rtcp.nack(1, 11, []), 0.0) == []


@pytest.mark.parametrize("request_", [rtcp.pli(1, 11), rtcp.fir(1, 11, 3)])
def test_key_frame_requests_reach_the_sender_as_pli_five_times_a_second_at_most(request_: bytes) -> None:
    forwarder = room()
    [(name, asked)] = parsed(forwarder.forward_rtcp("two", request_, 1.0))
    assert (name, asked) == ("one", rtcp.Feedback(rtcp.PSFB, rtcp.FMT_PLI, OWN, 11))
    assert forwarder.forward_rtcp("three", request_, 1.0 + KEYFRAME_INTERVAL / 2) == []
    assert len(forwarder.forward_rtcp("three", request_, 1.01 + KEYFRAME_INTERVAL)) == 1
    assert forwarder.forward_rtcp("two", rtcp.pli(1, 99), 9.0) == []


def test_a_newcomer_is_shown_key_frames_of_all_others() -> None:
    forwarder = Forwarder(OWN)
    forwarder.set_sources("one", sources(10))
    forwarder.set_sources("two", sources(20))
    asked = list(parsed(forwarder.add("two", 5.0)))
    assert asked == [("one", rtcp.Feedback(rtcp.PSFB, rtcp.FMT_PLI, OWN, 11))]


def test_broken_rtcp_is_counted_and_dropped() -> None:
    forwarder = room()
    assert forwarder.forward_rtcp("one", b"\x80\xc8\x00\x09", 0.0) == []
    assert forwarder.ignored == 1


@given(st.binary(max_size=64) | st.builds(lambda body: rtcp.pack(205, 1, body), st.binary(max_size=60)))
def test_any_bytes_lead_to_packets_that_can_be_read_or_to_none(data: bytes) -> None:
    forwarder = room()
    forward(forwarder, "one", data)
    for name, again in forwarder.forward_rtcp("one", data, 0.0):
        assert name in {"one", "two", "three"}
        assert rtcp.parse(again)


def test_sources_that_come_and_go_cost_no_memory() -> None:
    forwarder = room("one", "two")
    for number in range(1000):
        forwarder.set_sources("one", sources(100 * number + 100))
        forwarder.forward_rtcp("two", rtcp.pli(1, 100 * number + 101), float(number))
    assert len(forwarder._asked) <= 1
    assert len(forwarder._owner) == 6
