"""Feedback to the bridge: what is due when, and the task that sends it."""

import asyncio

import pytest

from bot.bridge import rtcp, rtp, twcc
from bot.bridge.receive import ReceiveStatistics
from bot.bridge.receiver import MediaFeedback, ReceiverReports
from bot.bridge.transport import MediaTransport

OPUS, VP8 = 111, 100
IDS = {OPUS: 5, VP8: 4}


class Bench:
    """Feedback with a clock set by hand."""

    def __init__(self) -> None:
        self.now = 100.0
        self.sent: asyncio.Queue[bytes] = asyncio.Queue()
        self.statistics = ReceiveStatistics()
        self.feedback = MediaFeedback(
            self.sent.put,
            self.statistics,
            ssrc=1,
            cname="bot",
            transport_cc_ids=IDS,
            clock=lambda: self.now,
        )

    def receive(self, sequence: int, wide: int, *, ssrc: int = 9, kind: int = OPUS, ext_id: int = 5) -> None:
        data = rtp.build(
            payload_type=kind,
            sequence=sequence,
            timestamp=960 * sequence,
            ssrc=ssrc,
            body=b"x",
            values={ext_id: wide.to_bytes(2)},
        )
        self.statistics.feed(data, self.now, 48_000)
        self.feedback.rtp(data)


def wide_numbers(data: bytes) -> list[int]:
    (packet,) = rtcp.parse(data)
    assert isinstance(packet, rtcp.Feedback)
    return [sequence for sequence, arrival in twcc.parse_feedback(packet).packets if arrival is not None]


def report(data: bytes) -> rtcp.ReceiverReport:
    first, name = rtcp.parse(data)
    assert isinstance(first, rtcp.ReceiverReport)
    assert isinstance(name, rtcp.Other)
    assert name.kind == rtcp.SDES
    return first


def test_transport_feedback_covers_all_media_with_their_own_ids() -> None:
    bench = Bench()
    bench.receive(1, 70)
    bench.receive(1, 71, ssrc=8, kind=VP8, ext_id=4)
    bench.receive(2, 72, ext_id=4)  # the video's id in an audio packet is no sequence number
    bench.receive(3, 73, kind=33)  # a payload type that was never offered
    bench.feedback.rtp(b"no rtp")
    (data,) = bench.feedback.due(100.1)
    assert wide_numbers(data) == [70, 71]
    (packet,) = rtcp.parse(data)
    assert isinstance(packet, rtcp.Feedback)
    assert (packet.sender_ssrc, packet.media_ssrc) == (1, 8)


def test_padding_only_probes_are_fed_back() -> None:
    bench = Bench()
    probe = rtp.build(payload_type=VP8, sequence=1, timestamp=0, ssrc=7, values={4: b"\0\x2a"}, padding=200)
    bench.feedback.rtp(probe)
    assert wide_numbers(bench.feedback.due(100.1)[0]) == [42]


def test_reports_are_due_once_a_second_with_loss_of_the_interval() -> None:
    bench = Bench()
    for sequence in (1, 2, 4):
        bench.receive(sequence, sequence)
    assert [wide_numbers(data) for data in bench.feedback.due(100.5)] == [[1, 2, 4]]
    (data,) = bench.feedback.due(101.0)
    (block,) = report(data).blocks
    assert (block.ssrc, block.lost, block.fraction_lost, block.highest) == (9, 1, 64, 4)
    assert bench.feedback.due(101.9) == []
    (data,) = bench.feedback.due(102.0)
    (block,) = report(data).blocks
    assert (block.lost, block.fraction_lost) == (1, 0)


def test_a_report_without_streams_is_still_sent() -> None:
    (data,) = Bench().feedback.due(101.0)
    assert report(data) == rtcp.ReceiverReport(1)


def test_more_than_31_streams_take_several_compound_packets() -> None:
    bench = Bench()
    for ssrc in range(10, 50):
        bench.receive(1, ssrc, ssrc=ssrc)
    reports = [report(data) for data in bench.feedback.due(101.0)[1:]]
    assert [len(item.blocks) for item in reports] == [31, 9]
    assert [block.ssrc for item in reports for block in item.blocks] == list(range(10, 50))


def test_streams_that_ended_are_left_out() -> None:
    bench = Bench()
    bench.receive(1, 1)
    assert len(ReceiverReports(bench.statistics).blocks(104.9)) == 1
    assert ReceiverReports(bench.statistics).blocks(105.0) == []


def test_sender_reports_give_the_round_trip_its_reference() -> None:
    bench = Bench()
    bench.receive(1, 1)
    known = rtcp.sender_report(rtcp.SenderReport(9, 0x11112222_33334444, 0, 1, 1))
    unknown = rtcp.sender_report(rtcp.SenderReport(77, 1, 0, 1, 1))
    bench.feedback.rtcp(known + unknown)
    (block,) = report(bench.feedback.due(101.5)[-1]).blocks
    assert (block.last_sr, block.delay) == (0x2222_3333, 65_536 * 3 // 2)


def test_broken_rtcp_is_counted() -> None:
    bench = Bench()
    bench.feedback.rtcp(b"\x80")
    assert bench.feedback.malformed == 1


async def test_the_task_sends_and_ends() -> None:
    bench = Bench()
    bench.receive(1, 7)
    bench.feedback.start()
    bench.feedback.start()
    async with asyncio.timeout(5):
        assert wide_numbers(await bench.sent.get()) == [7]
    await bench.feedback.close()
    await bench.feedback.close()
    assert bench.sent.empty()


async def test_a_cancelled_close_goes_through() -> None:
    bench = Bench()
    bench.feedback.start()
    closing = asyncio.ensure_future(bench.feedback.close())
    await asyncio.sleep(0)
    closing.cancel()
    with pytest.raises(asyncio.CancelledError):
        await closing


async def test_feedback_reaches_the_other_end_of_a_real_transport() -> None:
    """Over ICE, DTLS and SRTP: the bridge learns which of its packets came."""
    near = MediaTransport("client", addresses=("127.0.0.1",))
    far = MediaTransport("bridge", addresses=("127.0.0.1",))
    arrived: asyncio.Queue[bytes] = asyncio.Queue()
    statistics = ReceiveStatistics()
    feedback = MediaFeedback(near.send, statistics, ssrc=1, cname="bot", transport_cc_ids=IDS)
    near.dtls.on_rtp, far.dtls.on_rtcp = feedback.rtp, arrived.put_nowait
    try:
        ours, theirs = await near.gather(), await far.gather()
        await asyncio.gather(near.connect(theirs, 10), far.connect(ours, 10))
        feedback.start()
        for number in (0, 1, 3):
            packet = rtp.build(
                payload_type=OPUS, sequence=number, timestamp=0, ssrc=9, values={5: number.to_bytes(2)}
            )
            await far.send(packet)
        counter = twcc.FeedbackCounter()
        async with asyncio.timeout(10):
            while counter.acked < 3:
                for packet_in in rtcp.parse(await arrived.get()):
                    if isinstance(packet_in, rtcp.Feedback):
                        counter.feed(twcc.parse_feedback(packet_in))
        assert (counter.acked, counter.lost) == (3, 1)
    finally:
        await feedback.close()
        await near.close()
        await far.close()
