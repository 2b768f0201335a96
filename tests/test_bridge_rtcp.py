"""RTCP, held against aiortc's own codec."""

import aiortc.rtp as theirs
import pytest
from hypothesis import given
from hypothesis import strategies as st

from bot.bridge import rtcp

U32 = st.integers(0, 2**32 - 1)
BLOCKS = st.builds(
    rtcp.ReportBlock, U32, st.integers(0, 255), st.integers(-(2**23), 2**23 - 1), U32, U32, U32, U32
)


def only(data: bytes) -> rtcp.Packet:
    (packet,) = rtcp.parse(data)
    return packet


def feedback(data: bytes) -> rtcp.Feedback:
    packet = only(data)
    assert isinstance(packet, rtcp.Feedback)
    return packet


@given(U32, st.lists(BLOCKS, max_size=70))
def test_receiver_reports_come_back_in_packets_of_31(ssrc: int, blocks: list[rtcp.ReportBlock]) -> None:
    packets = rtcp.parse(rtcp.receiver_reports(ssrc, blocks))
    assert len(packets) == max(1, -(-len(blocks) // 31))
    found = [block for packet in packets if isinstance(packet, rtcp.ReceiverReport) for block in packet.blocks]
    assert found == blocks


@given(U32, BLOCKS)
def test_receiver_reports_are_read_by_aiortc(ssrc: int, block: rtcp.ReportBlock) -> None:
    (packet,) = theirs.RtcpPacket.parse(rtcp.receiver_reports(ssrc, [block]))
    assert isinstance(packet, theirs.RtcpRrPacket)
    (report,) = packet.reports
    assert (report.ssrc, report.fraction_lost, report.packets_lost) == (
        block.ssrc,
        block.fraction_lost,
        block.lost,
    )
    assert (report.highest_sequence, report.jitter) == (block.highest, block.jitter)
    assert (report.lsr, report.dlsr) == (block.last_sr, block.delay)


def test_values_beyond_their_fields_are_cut() -> None:
    report = only(rtcp.receiver_reports(1, [rtcp.ReportBlock(2, 0, 2**30, -5, 2**40, 0, 2**40)]))
    assert isinstance(report, rtcp.ReceiverReport)
    (block,) = report.blocks
    assert (block.lost, block.highest) == (0x7FFFFF, 0xFFFFFFFB)
    assert block.jitter == block.delay == 0xFFFFFFFF


@given(st.builds(rtcp.SenderReport, U32, st.integers(0, 2**64 - 1), U32, U32, U32, st.tuples(BLOCKS)))
def test_sender_reports_come_back(report: rtcp.SenderReport) -> None:
    assert only(rtcp.sender_report(report)) == report


@given(st.text(max_size=100))
def test_names_are_read_by_aiortc(cname: str) -> None:
    (packet,) = theirs.RtcpPacket.parse(rtcp.sdes(7, cname))
    assert isinstance(packet, theirs.RtcpSdesPacket)
    (chunk,) = packet.chunks
    assert (chunk.ssrc, chunk.items[0]) == (7, (1, cname.encode()[:255]))
    assert isinstance(only(rtcp.sdes(7, cname)), rtcp.Other)


def test_bye_comes_back() -> None:
    assert only(rtcp.bye([1, 2])) == rtcp.Bye((1, 2))


@given(st.integers(0, 0xFFFF), st.sets(st.integers(0, 400), min_size=1))
def test_nacks_come_back_over_the_wrap(start: int, offsets: set[int]) -> None:
    asked = [(start + offset) & 0xFFFF for offset in sorted(offsets)]
    assert rtcp.nacked(feedback(rtcp.nack(1, 2, asked))) == asked


def test_a_sequence_asked_for_twice_in_a_row_is_asked_for_once() -> None:
    assert rtcp.nacked(feedback(rtcp.nack(1, 2, [9, 9]))) == [9]


def test_key_frames_are_asked_for_by_pli_and_fir() -> None:
    assert rtcp.keyframe_requests(feedback(rtcp.pli(1, 2))) == (2,)
    assert rtcp.keyframe_requests(feedback(rtcp.fir(1, 3, 256))) == (3,)
    assert rtcp.keyframe_requests(feedback(rtcp.nack(1, 2, [3]))) == ()
    assert rtcp.keyframe_requests(rtcp.Feedback(rtcp.PSFB, 15, 1, 2)) == ()


def test_remb_is_read_as_aiortc_writes_it() -> None:
    fci = theirs.pack_remb_fci(4_160_000, [5, 6])
    assert rtcp.remb(rtcp.Feedback(rtcp.PSFB, 15, 1, 0, fci)) == (4_160_000, (5, 6))
    assert rtcp.remb(rtcp.Feedback(rtcp.PSFB, 15, 1, 0, fci[:12])) == (4_160_000, (5,))
    assert rtcp.remb(rtcp.Feedback(rtcp.PSFB, 15, 1, 0, b"BMER" + fci[4:])) is None


def test_compound_packets_are_taken_apart_and_padding_is_dropped() -> None:
    padded = bytes([0xA0 | rtcp.FMT_PLI, rtcp.PSFB, 0, 3]) + bytes(7) + b"\x02" + b"\0\0\0\4"
    packets = rtcp.parse(rtcp.receiver_reports(1, []) + padded)
    assert packets == [rtcp.ReceiverReport(1), rtcp.Feedback(rtcp.PSFB, 1, 0, 2)]


@pytest.mark.parametrize(
    ("data", "says"),
    [
        (b"\x80\xc9", "header is truncated"),
        (b"\x00\xc9\0\0", "version is 0"),
        (b"\x80\xc9\0\1", "is truncated"),
        (b"\xa0\xc9\0\0", "padding"),
        (b"\xa0\xc9\0\1\0\0\0\5", "padding"),
        (b"\x81\xc9\0\1\0\0\0\5", "type 201 is too short"),
        (b"\x81\xcd\0\1\0\0\0\5", "type 205 is too short"),
    ],
)
def test_what_is_no_rtcp_is_refused(data: bytes, says: str) -> None:
    with pytest.raises(rtcp.RtcpError, match=says):
        rtcp.parse(data)


@given(st.binary(max_size=60))
def test_garbage_raises_nothing_else(data: bytes) -> None:
    try:
        packets = rtcp.parse(data)
    except rtcp.RtcpError:
        return
    for packet in packets:
        if isinstance(packet, rtcp.Feedback):
            assert isinstance(rtcp.nacked(packet), list)
            assert isinstance(rtcp.keyframe_requests(packet), tuple)
            rtcp.remb(packet)


def test_intra_requests_have_their_numbers() -> None:
    (packet,) = rtcp.parse(rtcp.fir(1, 2, 258))
    assert isinstance(packet, rtcp.Feedback)
    assert rtcp.intra_requests(packet) == ((2, 2),)
    (pli,) = rtcp.parse(rtcp.pli(1, 2))
    assert isinstance(pli, rtcp.Feedback)
    assert rtcp.intra_requests(pli) == ()
