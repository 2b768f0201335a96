"""The receiving half of a session with simulated time: repairs, requests, names; no decoder here."""

from math import inf

from bot.bridge import rtcp, rtp
from bot.bridge.inbound import InboundMedia
from bot.bridge.nack import REORDER_TOLERANCE
from bot.bridge.payloads import PayloadFormat
from bot.bridge.streams import NamedSource, RemoteStream

FORMATS = {
    111: PayloadFormat(111, "audio", "opus", 48_000),
    100: PayloadFormat(100, "video", "vp8", 90_000, nack=True, pli=True, fir=True),
    107: PayloadFormat(107, "video", "h264", 90_000, fir=True),
    96: PayloadFormat(96, "video", "rtx", 90_000, apt=100),
    97: PayloadFormat(97, "video", "rtx", 90_000, apt=33),
}
VIDEO, RTX = 1, 2


class Bench:
    """One inbound half with a clock set by hand."""

    def __init__(self) -> None:
        self.now = 10.0
        self.woken = 0
        self.inbound = InboundMedia(FORMATS, ssrc=99, started=10.0, wake=self._wake)
        self._rtx = 0

    def _wake(self) -> None:
        self.woken += 1

    def receive(self, data: bytes) -> None:
        self.inbound.packet(data, rtp.parse_header(data), self.now)

    def media(self, sequence: int, *, ssrc: int = VIDEO, kind: int = 100, body: bytes = b"x" * 50) -> bytes:
        return rtp.build(
            payload_type=kind, sequence=sequence, timestamp=sequence * 3000, ssrc=ssrc, body=body, marker=True
        )

    def repair(self, sequence: int, *, ssrc: int = RTX, kind: int = 96) -> bytes:
        packet = self.media(sequence)
        self._rtx += 1
        return rtp.wrap_rtx(packet, rtp.parse_header(packet), payload_type=kind, sequence=self._rtx, ssrc=ssrc)

    def named(self) -> None:
        self.inbound.name([NamedSource(VIDEO, "video", "abc-v0", "abc", rtx=RTX)])

    def stream(self, ssrc: int = VIDEO) -> RemoteStream:
        return next(item for item in self.inbound.snapshot(self.now) if item.ssrc == ssrc)


def feedback(data: bytes) -> rtcp.Feedback:
    (packet,) = rtcp.parse(data)
    assert isinstance(packet, rtcp.Feedback)
    assert packet.sender_ssrc == 99
    return packet


def test_lost_packets_are_asked_for_and_their_repair_is_counted() -> None:
    bench = Bench()
    bench.named()
    for sequence in (1, 2, 5):
        bench.receive(bench.media(sequence))
    assert bench.woken == 1
    bench.now = bench.inbound.next_deadline()
    assert bench.now == 10.0 + REORDER_TOLERANCE
    (data,) = bench.inbound.due(bench.now)
    assert rtcp.nacked(feedback(data)) == [3, 4]
    assert feedback(data).media_ssrc == VIDEO
    bench.receive(bench.repair(3))
    bench.receive(bench.repair(3))
    stream = bench.stream()
    assert (stream.packets, stream.bytes, stream.lost, stream.repaired, stream.rtx) == (3, 186, 2, 1, 2)
    assert stream.frames == 4  # the repaired packet ends one
    assert (stream.missing, stream.source) == (1, "abc-v0")
    bench.receive(bench.repair(4))
    assert bench.inbound.next_deadline() == inf
    assert bench.inbound.due(bench.now + 5) == []
    assert [item.ssrc for item in bench.inbound.snapshot(bench.now)] == [VIDEO]


def test_a_long_burst_takes_several_packets() -> None:
    bench = Bench()
    bench.receive(bench.media(1))
    bench.receive(bench.media(600))
    packets = bench.inbound.due(bench.inbound.next_deadline())
    assert [len(rtcp.nacked(feedback(data))) for data in packets] == [250, 250, 98]
    assert all(len(data) < 1200 for data in packets)


def test_sound_and_codecs_without_nack_are_not_asked_for() -> None:
    bench = Bench()
    for kind, ssrc in ((111, 5), (107, 6), (33, 7)):
        bench.receive(bench.media(1, ssrc=ssrc, kind=kind))
        bench.receive(bench.media(9, ssrc=ssrc, kind=kind))
    assert (bench.woken, bench.inbound.next_deadline()) == (0, inf)
    assert bench.stream(5).lost == bench.stream(6).lost == 7
    assert [item.ssrc for item in bench.inbound.snapshot(bench.now)] == [5, 6]


def test_probes_are_no_repairs_and_no_media() -> None:
    bench = Bench()
    bench.named()
    bench.receive(bench.media(1))
    bench.receive(rtp.build(payload_type=96, sequence=1, timestamp=0, ssrc=RTX, padding=200))
    bench.receive(rtp.build(payload_type=97, sequence=1, timestamp=0, ssrc=77, padding=200))
    bench.receive(rtp.build(payload_type=100, sequence=2, timestamp=0, ssrc=VIDEO, padding=200, marker=True))
    stream = bench.stream()
    assert (bench.inbound.probes, stream.rtx, stream.packets, stream.frames) == (2, 0, 1, 1)
    bench.receive(bench.media(3))
    assert (bench.stream().lost, bench.woken) == (0, 0)


def test_retransmissions_that_repair_nothing_known() -> None:
    bench = Bench()
    bench.receive(bench.media(1))
    bench.receive(bench.repair(2))  # nobody said whose this is
    bench.named()
    bench.receive(bench.repair(2, kind=97))  # repairs a payload type that is not offered
    broken = bytearray(rtp.build(payload_type=96, sequence=3, timestamp=0, ssrc=RTX, body=b"xxxx", padding=4))
    broken[-1] = 0
    bench.receive(bytes(broken))
    assert (bench.inbound.unassigned, bench.stream().rtx) == (3, 0)


def test_streams_beyond_the_limit_are_left_out() -> None:
    bench = Bench()
    for ssrc in range(1, 4097):
        bench.receive(bench.media(1, ssrc=ssrc))
    bench.receive(bench.media(1, ssrc=5000))
    assert len(bench.inbound.snapshot(10.0)) == 4096
    assert bench.inbound.statistics.ignored == 1


def test_a_source_that_is_gone_is_not_chased_any_more() -> None:
    bench = Bench()
    bench.named()
    bench.receive(bench.media(1))
    bench.receive(bench.media(3))
    bench.inbound.want_key_frame(VIDEO, bench.now)
    bench.inbound.forget([VIDEO])
    assert bench.inbound.next_deadline() == inf
    assert bench.inbound.snapshot(bench.now) == ()


def test_another_source_on_an_ssrc_is_decoded_anew() -> None:
    bench = Bench()
    bench.named()
    bench.receive(bench.media(1))
    bench.inbound.name([NamedSource(VIDEO, "video", "xyz-v0", "xyz", rtx=RTX)])
    assert (bench.stream().source, bench.stream().packets) == ("xyz-v0", 0)


def test_key_frames_are_asked_for_by_pli_or_else_by_fir() -> None:
    bench = Bench()
    bench.receive(bench.media(1))
    bench.receive(bench.media(1, ssrc=6, kind=107))
    for ssrc in (VIDEO, 6, 55):
        bench.inbound.want_key_frame(ssrc, bench.now)
        bench.inbound.want_key_frame(ssrc, bench.now)
    assert bench.woken == 3
    assert bench.inbound.next_deadline() == bench.now
    pli, fir, blind = (feedback(data) for data in bench.inbound.due(bench.now))
    assert [rtcp.keyframe_requests(packet) for packet in (pli, fir, blind)] == [(VIDEO,), (6,), (55,)]
    assert (pli.fmt, fir.fmt, fir.media_ssrc, blind.fmt) == (rtcp.FMT_PLI, rtcp.FMT_FIR, 0, rtcp.FMT_PLI)
    assert fir.fci[4] == 0
    again = [feedback(data) for data in bench.inbound.due(bench.now + 0.5)]
    assert again[1].fci[4] == 1


def test_nothing_is_decoded_unless_asked_for() -> None:
    bench = Bench()
    bench.named()
    bench.receive(bench.media(1))
    assert bench.inbound.decoded("abc-v0") is None
    assert bench.inbound.decoded("nobody-v0") is None
    assert bench.inbound.decoded(VIDEO) is None
    assert repr(bench.inbound) == "<InboundMedia packets 1 <Decoders 0 streams>>"


async def test_nothing_is_kept_of_streams_that_are_retired() -> None:
    bench = Bench()
    inbound = InboundMedia(FORMATS, ssrc=99, started=10.0, decode="video")
    bench.inbound = inbound
    for ssrc in (5, 6):
        bench.receive(bench.media(1, ssrc=ssrc, kind=107, body=b"\x65\x88"))
        inbound.want_key_frame(ssrc, 10.0)
    inbound.due(10.0)
    inbound.due(11.0)
    assert set(inbound._fir_numbers) == {5, 6}
    assert inbound.decoded(5) is not None
    inbound.statistics.on_retired([5])
    inbound.forget([6])
    assert inbound._fir_numbers == {}
    assert (inbound.decoded(5), inbound.decoded(6)) == (None, None)
    assert inbound.next_deadline() == inf
    await inbound.decoders.close()
