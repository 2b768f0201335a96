"""The receiver in batches against the path packet by packet, on the same random packets."""

from __future__ import annotations

import asyncio
import random
import struct
from dataclasses import asdict
from math import isclose

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from bot.bridge import rtcp, rtp
from bot.bridge.inbound import InboundMedia
from bot.bridge.payloads import PayloadFormat
from bot.bridge.receive import StreamStats
from bot.bridge.streams import NamedSource
from bot.bridge.twcc import ArrivalRecorder
from bot.engine.feedback import BatchRecorder
from bot.engine.inbound import EngineInbound
from bot.engine.table import StreamRow
from tests.engine_support import Bench

FORMATS = {
    111: PayloadFormat(111, "audio", "opus", 48_000, transport_cc=5),
    100: PayloadFormat(100, "video", "vp8", 90_000, nack=True, pli=True, fir=True, transport_cc=5),
    107: PayloadFormat(107, "video", "h264", 90_000, fir=True),
    96: PayloadFormat(96, "video", "rtx", 90_000, apt=100, transport_cc=5),
}
NACK = bytes((0x80 | rtcp.FMT_NACK, rtcp.RTPFB))
FEEDBACK = bytes((0x80 | rtcp.FMT_TRANSPORT_CC, rtcp.RTPFB))
_CLOCK = {111: 960, 100: 3000, 107: 3000}


class Traffic:
    """Packets of a few streams of one transport: with losses, late ones, duplicates, jumps, and odd headers."""

    def __init__(self, rng: random.Random) -> None:
        self.rng = rng
        self.wide = rng.randrange(65536)
        self.sequences: dict[int, int] = {}
        self.stamps: dict[int, int] = {}
        self.rtx = rng.randrange(65536)
        self.late: list[bytes] = []
        self.sent: list[bytes] = []

    def packets(self, count: int) -> list[bytes]:
        found: list[bytes] = []
        for _ in range(count):
            found += self._some()
        return found

    def _some(self) -> list[bytes]:
        rng = self.rng
        packet = self._next()
        fate = rng.random()
        if fate < 0.04:
            return []  # lost
        if fate < 0.07:
            self.late.append(packet)
            return []
        if fate < 0.09:
            return [packet, packet]
        if fate < 0.12 and self.late:
            return [packet, self.late.pop(rng.randrange(len(self.late)))]
        if fate < 0.15 and self.sent:
            return [packet, self._repair(rng.choice(self.sent[-30:]))]
        if fate < 0.16:
            return [packet, self._probe()]
        return [packet]

    def _wide(self) -> bytes:
        self.wide = (self.wide + 1) & 0xFFFF
        return struct.pack("!H", self.wide)

    def _next(self) -> bytes:
        rng = self.rng
        kind = rng.choice((111, 100, 100, 107))
        ssrc = kind * 10 + rng.randrange(2)
        if rng.random() < 0.01:
            kind = rng.choice((111, 100, 33))  # another payload type, perhaps one that nobody knows
        sequence = self.sequences.get(ssrc, rng.randrange(65536)) + 1
        if rng.random() < 0.005:
            sequence += rng.choice((200, 1500, 5000, -150, 40000))
        self.sequences[ssrc] = sequence & 0xFFFF
        marker = rng.random() < 0.4
        stamp = self.stamps.get(ssrc, rng.randrange(2**32))
        self.stamps[ssrc] = (stamp + _CLOCK.get(kind, 0) * marker) & 0xFFFFFFFF
        values: dict[int, bytes] = {1: b"\x30"} if kind == 111 else {3: b"abc"}
        if rng.random() < 0.05:
            values[7] = b"odd"
        if rng.random() > 0.03:
            values[5] = self._wide()
        packet = rtp.build(
            payload_type=kind,
            sequence=sequence,
            timestamp=stamp,
            ssrc=ssrc,
            body=b"\x10\x01" + bytes(rng.randrange(100)) if rng.random() > 0.02 else b"",
            marker=marker,
            values=values if rng.random() > 0.01 else None,
            padding=rng.choice((0,) * 40 + (4,)),
        )
        if kind == 100:
            self.sent.append(packet)
        return packet

    def _repair(self, packet: bytes) -> bytes:
        header = rtp.parse_header(packet)
        self.rtx = (self.rtx + 1) & 0xFFFF
        return rtp.wrap_rtx(packet, header, payload_type=96, sequence=self.rtx, ssrc=9000 + header.ssrc)

    def _probe(self) -> bytes:
        self.rtx = (self.rtx + 1) & 0xFFFF
        values = {5: self._wide()}
        return rtp.build(payload_type=96, sequence=self.rtx, timestamp=0, ssrc=10_000, values=values, padding=200)


class PostponingInbound(InboundMedia):
    """Looks into the retransmissions of a tick after its other packets, as a pass over a batch does."""

    def __init__(self, started: float) -> None:
        super().__init__(FORMATS, ssrc=99, started=started)
        self.postponed: list[tuple[bytes, rtp.RtpHeader, int]] = []

    def _retransmission(self, data: bytes, header: rtp.RtpHeader, repaired_type: int, now: float) -> None:
        self.postponed.append((data, header, repaired_type))

    def tick(self, now: float) -> None:
        for data, header, repaired_type in self.postponed:
            super()._retransmission(data, header, repaired_type, now)
        self.postponed.clear()


_SAME = ("packets", "padding", "bytes", "frames", "reordered", "highest", "expected", "lost", "clock_rate", "last")


def assert_same(row: StreamRow, stats: StreamStats, now: float) -> None:
    assert [getattr(row, name) for name in _SAME] == [getattr(stats, name) for name in _SAME], row.ssrc
    assert (row.first, row.first_frame) == (stats.first, stats.first_frame)
    assert isclose(row.jitter, stats.jitter, rel_tol=1e-6, abs_tol=1e-6), (row.jitter, stats.jitter)
    assert row.bitrate(now) == stats.bitrate(now)


def _names() -> list[NamedSource]:
    return [NamedSource(ssrc, "video", f"s{ssrc}", "o", rtx=9000 + ssrc) for ssrc in (1000, 1001)]


async def _compare(seed: int, transports: int, ticks: int, capacity: int) -> None:
    rng = random.Random(seed)
    bench = Bench(FORMATS, capacity)
    pairs: list[tuple[EngineInbound, PostponingInbound, Traffic]] = []
    for _ in range(transports):
        inbound, _ = await bench.add()
        oracle = PostponingInbound(bench.now)
        inbound.name(_names())
        oracle.name(_names())
        pairs.append((inbound, oracle, Traffic(rng)))
    asked: list[list[bytes]] = [[] for _ in pairs]
    for _ in range(ticks):
        step = rng.choice((0.01, 0.01, 0.02, 0.2))
        for number, (_, oracle, traffic) in enumerate(pairs):
            packets = traffic.packets(rng.randrange(12))
            times = sorted(bench.now + rng.random() * step for _ in packets)
            for data, arrival in zip(packets, times, strict=True):
                bench.put(number, data, arrival)
                oracle.packet(data, rtp.parse_header(data), arrival)
        bench.tick(step)
        for number, (_, oracle, _) in enumerate(pairs):
            oracle.tick(bench.now)
            if bench.now >= oracle.next_deadline():
                asked[number] += oracle.due(bench.now)
    sent = [sorted(data for data in path.feedback if data[:2] == NACK) for path in bench.paths]
    assert sent == [sorted(data for data in found if data[:2] == NACK) for found in asked]
    for inbound, oracle, _ in pairs:
        mine, theirs = inbound.statistics, oracle.statistics
        assert mine.streams.keys() == theirs.streams.keys()
        for ssrc, stats in theirs.streams.items():
            assert_same(mine.streams[ssrc], stats, bench.now)
        assert (mine.packets, mine.bytes, mine.ignored) == (theirs.packets, theirs.bytes, theirs.ignored)
        assert mine.last == (max(item.last for item in theirs.streams.values()) if theirs.streams else None)
        assert inbound.bytes == oracle.bytes
        assert (inbound.probes, inbound.unassigned) == (oracle.probes, oracle.unassigned)
        for stream, other in zip(inbound.snapshot(bench.now), oracle.snapshot(bench.now), strict=True):
            ours, its = asdict(stream), asdict(other)
            assert isclose(ours.pop("jitter"), its.pop("jitter"), abs_tol=1e-6)
            assert ours == its
    assert bench.receiver.faults == 0
    await bench.close()


@settings(max_examples=40)
@given(st.integers(0, 2**32), st.integers(1, 3), st.integers(1, 40), st.sampled_from((128, 256)))
def test_the_statistics_are_those_of_the_path_packet_by_packet(
    seed: int, transports: int, ticks: int, capacity: int
) -> None:
    asyncio.run(_compare(seed, transports, ticks, capacity))


def _numbers(rng: random.Random, count: int) -> list[int]:
    number, found = rng.randrange(65536), []
    for _ in range(count):
        number += rng.choices((1, 2, 5, 0, -3, 4000, 30000), (90, 5, 2, 1, 1, 0.3, 0.3))[0]
        found.append(number & 0xFFFF)
    return found


@settings(max_examples=60)
@given(st.integers(0, 2**32), st.booleans())
def test_transport_feedback_is_the_same_byte_by_byte(seed: int, orderly: bool) -> None:
    rng = random.Random(seed)
    mine, theirs = BatchRecorder(), ArrivalRecorder()
    now, number = 100.0, rng.randrange(65536)
    for _ in range(rng.randrange(1, 12)):
        count = rng.choice((0, 1, 5, 40, 300, 900))
        if orderly:
            steps = [rng.choices((1, 2, 9), (95, 4, 1))[0] for _ in range(count)]
            numbers = [(number := number + step) & 0xFFFF for step in steps]
        else:
            numbers = _numbers(rng, count)
        spread = rng.choice((0.0001, 0.001, 0.05, 0.2))
        times = []
        for _ in numbers:
            now += rng.random() * spread
            times.append(now - (rng.random() * 0.01 if rng.random() < 0.02 else 0))
        for value, time in zip(numbers, times, strict=True):
            theirs.record(value, time)
        for start in range(0, count, 100):
            mine.record(np.array(numbers[start : start + 100]), np.array(times[start : start + 100]))
        now += rng.choice((0.0, 0.1, 0.7))
        assert mine.build(1, 2, now) == theirs.build(1, 2, now)
    assert mine.overflow == theirs.overflow


@settings(max_examples=25)
@given(st.integers(0, 2**32))
def test_feedback_of_a_transport_is_the_same_byte_by_byte(seed: int) -> None:
    async def main() -> None:
        rng = random.Random(seed)
        bench = Bench(FORMATS)
        _, path = await bench.add()
        traffic = Traffic(rng)
        theirs = ArrivalRecorder()
        expected: list[bytes] = []
        media, due = 0, bench.attachments[0].feedback._next_feedback
        for _ in range(40):
            packets = traffic.packets(rng.randrange(20))
            times = sorted(bench.now + rng.random() * 0.01 for _ in packets)
            for data, arrival in zip(packets, times, strict=True):
                bench.put(0, data, arrival)
                header = rtp.parse_header(data)
                known = FORMATS.get(header.payload_type)
                number = (
                    None
                    if known is None or known.transport_cc is None
                    else rtp.transport_sequence(data, header, known.transport_cc)
                )
                if number is not None:
                    media = header.ssrc
                    theirs.record(number, arrival)
            bench.tick()
            if bench.now >= due:
                due = bench.attachments[0].feedback._next_feedback
                expected += theirs.build(99, media, bench.now)
        sent = [data for data in path.feedback if data[:2] == FEEDBACK]
        assert sent == expected
        assert all(rtcp.parse(data) for data in path.feedback)
        await bench.close()

    asyncio.run(main())
