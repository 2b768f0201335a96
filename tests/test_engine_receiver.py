"""The receiver with real sockets, SRTP and both event loops; what it asks of the sender, with simulated time."""

from __future__ import annotations

import asyncio
import struct
import time
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

from bot.bridge import rtcp, rtp
from bot.bridge.inbound import InboundMedia
from bot.bridge.payloads import PayloadFormat
from bot.bridge.streams import NamedSource
from bot.bridge.twcc import parse_feedback
from bot.engine import mmsg
from bot.engine.inbound import LATE, EngineInbound
from bot.engine.path import MediaPath
from bot.engine.receiver import Attachment, Receiver, running_receiver
from bot.engine.sockets import open_socket
from tests.engine_support import KEYS, LOOPS, Bench, Heard, bound, make_buffer, srtp_session, way

__all__ = ["way"]

FORMATS = {
    111: PayloadFormat(111, "audio", "opus", 48_000, transport_cc=5),
    100: PayloadFormat(100, "video", "vp8", 90_000, nack=True, pli=True, fir=True, transport_cc=5),
    96: PayloadFormat(96, "video", "rtx", 90_000, apt=100, transport_cc=5),
}
VIDEO, RTX, SOUND = 1, 2, 3
KEY_FRAME = b"\x10\x10\x00\x00\x9d\x01\x2a" + struct.pack("<HH", 640, 360) + bytes(40)
DELTA = b"\x10\x11" + bytes(40)


def video(
    sequence: int, *, ssrc: int = VIDEO, body: bytes = DELTA, marker: bool = True, stamp: int | None = None
) -> bytes:
    return rtp.build(
        payload_type=100,
        sequence=sequence,
        timestamp=(sequence if stamp is None else stamp) * 3000,
        ssrc=ssrc,
        body=body,
        marker=marker,
        values={5: struct.pack("!H", sequence & 0xFFFF)},
    )


def repair(packet: bytes, number: int) -> bytes:
    return rtp.wrap_rtx(packet, rtp.parse_header(packet), payload_type=96, sequence=number, ssrc=RTX)


class Peer:
    """The other end on loopback: a socket with SRTP both ways."""

    def __init__(self, receiver: Receiver) -> None:
        self.receiver = receiver
        self.sock = bound()
        self.out = srtp_session(outbound=True, key=KEYS[1])
        self.into = srtp_session(outbound=False, key=KEYS[0])
        self.heard = Heard()
        self.rtcp: list[bytes] = []

    async def attach(self, **options: Any) -> Attachment:
        self.engine = await open_socket(self.heard, "127.0.0.1")
        self.path = MediaPath(
            self.engine,
            self.sock.getsockname(),
            srtp_session(outbound=True, key=KEYS[0]),
            srtp_session(outbound=False, key=KEYS[1]),
        )
        self.inbound = EngineInbound(
            FORMATS, ssrc=99, started=time.monotonic(), table=self.receiver.table, **options
        )
        self.attachment = self.receiver.attach(self.inbound, self.path, cname="c", on_rtcp=self.rtcp.append)
        return self.attachment

    def send(self, *packets: bytes) -> None:
        for packet in packets:
            self.sock.sendto(self.out.protect(packet), self.engine.get_extra_info("sockname"))

    def raw(self, data: bytes) -> None:
        self.sock.sendto(data, self.engine.get_extra_info("sockname"))

    async def answers(self, kind: int, count: int = 1) -> list[rtcp.Feedback]:
        found: list[rtcp.Feedback] = []
        self.sock.setblocking(False)
        async with asyncio.timeout(10):
            while len(found) < count:
                try:
                    data = self.into.unprotect_rtcp(self.sock.recv(2000))
                except BlockingIOError:
                    await asyncio.sleep(0.005)
                    continue
                packets = [item for item in rtcp.parse(data) if isinstance(item, rtcp.Feedback)]
                found += [item for item in packets if (item.kind, item.fmt) == (kind >> 8, kind & 0xFF)]
        return found

    def close(self) -> None:
        self.engine.close()
        self.sock.close()


NACK, PLI, WIDE = rtcp.RTPFB << 8 | 1, rtcp.PSFB << 8 | 1, rtcp.RTPFB << 8 | 15


def sizes(inbound: EngineInbound) -> list[tuple[int, int] | None]:
    return [row.size for row in inbound.statistics.streams.values()]


async def until(condition: Callable[[], bool]) -> None:
    async with asyncio.timeout(10):
        while not condition():  # noqa: ASYNC110 - what is waited for has no event
            await asyncio.sleep(0.005)


@pytest.mark.parametrize("loop", LOOPS)
def test_media_is_counted_and_answered(loop: str, way: str) -> None:
    async def main() -> None:
        first: list[str] = []
        receiver = Receiver(buffer=make_buffer(way))
        peer = Peer(receiver)
        await peer.attach(on_first=lambda: first.append("in"))
        peer.inbound.name([NamedSource(VIDEO, "video", "abc-v0", "abc", rtx=RTX)])
        peer.send(video(1, body=KEY_FRAME), video(2), video(5))
        peer.raw(peer.out.protect_rtcp(rtcp.pli(7, 8)))
        peer.raw(b"\x16DTLS")
        peer.raw(b"\x00\x01STUN")
        (nack,) = await peer.answers(NACK)
        assert rtcp.nacked(nack) == [3, 4]
        peer.send(repair(video(3), 1), repair(video(4), 2))
        await until(lambda: peer.inbound.snapshot(0)[0].repaired == 2)
        stream = peer.inbound.snapshot(time.monotonic())[0]
        assert (stream.packets, stream.lost, stream.missing, stream.frames) == (3, 2, 0, 5)
        assert (stream.source, peer.inbound.probes, peer.inbound.unassigned) == ("abc-v0", 0, 0)
        row = peer.inbound.row("abc-v0")
        assert row is not None
        assert (row.size, row.ssrc, first) == ((640, 360), VIDEO, ["in"])
        wide = parse_feedback((await peer.answers(WIDE))[0])
        assert (1, True) in [(number, arrival is not None) for number, arrival in wide.packets]
        assert peer.rtcp == [rtcp.pli(7, 8)]
        assert [data for data, _ in peer.heard.datagrams] == [b"\x16DTLS", b"\x00\x01STUN"]
        assert {address for _, address in peer.heard.datagrams} == {peer.sock.getsockname()}
        assert (receiver.faults, peer.path.refused) == (0, 0)
        assert "attached" in repr(peer.attachment)
        receiver.close()
        receiver.close()
        peer.close()
        await asyncio.sleep(0)

    with asyncio.Runner(loop_factory=LOOPS[loop]) as runner:
        runner.run(main())


async def test_a_hole_that_stays_is_followed_by_requests_for_a_key_frame() -> None:
    bench = Bench(FORMATS)
    inbound, path = await bench.add()
    oracle = InboundMedia(FORMATS, ssrc=99, started=bench.now)
    asked: list[bytes] = []
    for sequence in (1, 2, 4):
        bench.put(0, video(sequence))
        oracle.packet(video(sequence), rtp.parse_header(video(sequence)), bench.now)
    for _ in range(130):
        bench.tick()
        if bench.now >= oracle.next_deadline():
            asked += oracle.due(bench.now)
    nacks = [data for data in path.feedback if data[1] == rtcp.RTPFB and data[0] & 31 == 1]
    assert len(nacks) > 5
    assert nacks == asked  # with the limits of the path packet by packet
    assert rtcp.pli(99, VIDEO) in path.feedback
    path.feedback.clear()
    bench.put(0, video(5))
    for _ in range(120):
        bench.tick()
    assert rtcp.pli(99, VIDEO) in path.feedback  # a delta frame does not help
    bench.put(0, video(6, body=KEY_FRAME))
    bench.tick()
    path.feedback.clear()
    for _ in range(1000):
        bench.tick()
    assert rtcp.pli(99, VIDEO) not in path.feedback
    assert inbound.statistics.streams[VIDEO].special == 0
    await bench.close()


async def test_a_wanted_key_frame_is_asked_for_until_it_comes() -> None:
    bench = Bench(FORMATS)
    inbound, path = await bench.add()
    bench.put(0, video(1))
    bench.tick()
    inbound.want_key_frame(VIDEO, bench.now)
    inbound.want_key_frame(VIDEO, bench.now)
    bench.tick()
    assert path.feedback.count(rtcp.pli(99, VIDEO)) == 1
    bench.put(0, video(2, body=DELTA, marker=False, stamp=2))
    bench.put(0, video(3, body=KEY_FRAME, stamp=2))  # not at the start of a frame
    bench.put(0, video(4, body=KEY_FRAME))
    bench.tick()
    for _ in range(100):
        bench.tick()
    assert path.feedback.count(rtcp.pli(99, VIDEO)) == 1
    await bench.close()


async def test_freezes_and_frame_rate() -> None:
    bench = Bench(FORMATS)
    inbound, _ = await bench.add()
    sequence = 0

    async def play(frames: int, interval: float) -> None:
        nonlocal sequence
        for _ in range(frames):
            for _ in range(round(interval / 0.01)):
                bench.tick()
            sequence += 1
            bench.put(0, video(sequence))

    await play(50, 0.04)
    row = inbound.statistics.streams[VIDEO]
    assert (row.freezes, row.frozen) == (0, 0.0)
    assert 24 <= row.frame_rate(bench.now) <= 26
    await play(1, 0.15)  # three times the usual, yet not 150 ms more
    await play(30, 0.04)
    assert row.freezes == 0
    await play(1, 0.5)
    await play(5, 0.04)
    bench.tick()
    assert row.freezes == 1
    assert row.frozen == pytest.approx(0.5, abs=0.021)
    await play(1, 6)  # that long is a pause
    bench.tick()
    assert (row.freezes, inbound.snapshot(bench.now)[0].frames) == (1, sequence)
    await bench.close()


async def test_the_size_of_the_picture_follows_its_key_frames() -> None:
    bench = Bench(FORMATS)
    inbound, _ = await bench.add()
    bench.put(0, video(1))
    for sequence in range(2, 40):
        bench.put(0, video(sequence))
        bench.tick(0.033)
    assert sizes(inbound) == [None]
    for number in range(8):
        body = KEY_FRAME if number == 0 else DELTA
        bench.put(0, video(40 + number, body=body, marker=number == 7, stamp=40))
    bench.tick()
    assert sizes(inbound) == [(640, 360)]
    await bench.close()


async def test_a_stream_is_decodable_long_after_its_sequence_numbers_wrapped() -> None:
    """SRTP must know how often, though hardly any packet is unprotected (RFC 3711 section 3.3.1)."""
    receiver = Receiver()
    peer = Peer(receiver)
    await peer.attach()
    if receiver._timer is not None:
        receiver._timer.cancel()
    for start in range(60_000, 60_000 + 75_000, 100):
        peer.send(*(video(number & 0xFFFF, body=b"\x10\x11xx") for number in range(start, start + 100)))
        receiver.poll(time.monotonic())
        if receiver._timer is not None:
            receiver._timer.cancel()
    row = peer.inbound.statistics.streams[VIDEO]
    assert (row.packets, row.lost, row.highest) == (75_000, 0, 60_000 + 75_000 - 1)
    assert peer.path.refused == 0
    last = video((60_000 + 75_000) & 0xFFFF)
    assert peer.path.unprotect(peer.out.protect(last)) == last
    receiver.close()
    peer.close()


async def test_a_full_buffer_is_emptied_in_parts() -> None:
    bench = Bench(FORMATS, capacity=16)
    inbound, _ = await bench.add()
    for sequence in range(100):
        bench.put(0, video(sequence))
    for _ in range(3):
        bench.tick()
    row = inbound.statistics.streams[VIDEO]
    assert (row.packets, row.lost, bench.receiver.packets) == (100, 0, 100)
    await bench.close()


async def test_a_transport_may_leave_in_the_middle_of_a_batch() -> None:
    bench = Bench(FORMATS)
    inbound, _ = await bench.add()
    other, _ = await bench.add()
    bench.put(0, video(1))
    bench.put(1, video(1))
    bench.tick()
    gone: list[bytes] = []

    def leave(data: bytes) -> None:
        gone.append(data)
        bench.attachments[0].detach()
        inbound.release(bench.now)
        inbound.release(bench.now)

    bench.attachments[0].on_rtcp = leave
    for transport in (0, 1):
        bench.put(transport, video(2))
        bench.put(transport, rtcp.pli(1, 2))
        bench.put(transport, video(3))
        bench.put(transport, video(1, ssrc=77))
    bench.tick()
    assert (gone, bench.rtcp) == ([rtcp.pli(1, 2)], [rtcp.pli(1, 2)])
    assert other.statistics.streams[VIDEO].packets == 3
    assert (inbound.statistics.packets, len(inbound.statistics.streams)) == (1, 0)
    assert [stream.packets for stream in inbound.snapshot(bench.now)] == [1]
    assert inbound.bytes["video"] == len(video(1))
    bench.put(1, video(1, ssrc=78))  # has the row that became free
    bench.tick()
    assert [row.packets for row in other.statistics.streams.values()] == [3, 1, 1]
    assert (len(bench.receiver.table), bench.receiver.faults) == (3, 0)
    bench.attachments[0].detach()
    await bench.close()


async def test_a_socket_that_closes_is_detached_and_one_that_is_detached_is_watched() -> None:
    receiver = Receiver()
    peers = [Peer(receiver), Peer(receiver)]
    for peer in peers:
        await peer.attach()
    peers[0].engine.close()
    assert not peers[0].attachment.attached
    assert peers[1].attachment.attached
    peers[1].attachment.detach()
    peers[1].raw(b"\x00\x01STUN")
    await until(lambda: bool(peers[1].heard.datagrams))
    with pytest.raises(ValueError, match="open EngineSocket"):
        receiver.attach(peers[0].inbound, peers[0].path, cname="c")
    with pytest.raises(ValueError, match="another receiver"):
        receiver.attach(EngineInbound(FORMATS, ssrc=1, started=0), peers[1].path, cname="c")
    again = receiver.attach(peers[1].inbound, peers[1].path, cname="c")
    peers[1].send(video(1))
    await until(lambda: peers[1].inbound.statistics.packets == 1)
    assert again.attached
    receiver.close()
    for peer in peers:
        peer.close()
    await asyncio.sleep(0)


async def test_a_peer_whose_port_is_closed_ends_nothing() -> None:
    receiver = Receiver()
    peer = Peer(receiver)
    await peer.attach()
    peer.engine.socket.connect(peer.sock.getsockname())
    peer.sock.close()
    peer.path.send_many([video(1)])
    await until(lambda: bool(peer.heard.errors))
    assert isinstance(peer.heard.errors[0], ConnectionRefusedError)
    peer.sock = bound()
    peer.engine.socket.connect(peer.sock.getsockname())
    peer.send(video(1))
    await until(lambda: peer.inbound.statistics.packets == 1)
    assert receiver.faults == 0
    receiver.close()
    peer.close()
    await asyncio.sleep(0)


@pytest.mark.skipif(not mmsg.available(), reason="only Linux tells")
async def test_what_full_sockets_turn_away_is_counted() -> None:
    receiver = Receiver()
    peer = Peer(receiver)
    await peer.attach()
    peer.engine.socket.setsockopt(1, 8, 8192)  # SOL_SOCKET, SO_RCVBUF
    for number in range(100):
        peer.send(video(number, body=bytes(1000)))
    await until(lambda: peer.inbound.statistics.packets > 0)
    peer.attachment.detach()
    assert receiver.overflow == peer.attachment.overflow == 100 - peer.inbound.statistics.packets > 0
    receiver.close()
    peer.close()
    await asyncio.sleep(0)


async def test_a_step_of_the_system_clock_is_no_jitter(monkeypatch: pytest.MonkeyPatch) -> None:
    receiver = Receiver()
    peer = Peer(receiver)
    await peer.attach()
    peer.send(video(1))
    await until(lambda: peer.inbound.statistics.packets == 1)
    unix = time.time_ns
    monkeypatch.setattr(time, "time_ns", lambda: unix() + 3_600_000_000_000)
    peer.send(*(video(number) for number in range(2, 12)))
    await until(lambda: peer.inbound.statistics.packets == 11)
    row = peer.inbound.statistics.streams[VIDEO]
    assert 0 <= time.monotonic() - row.last < 5
    assert row.last >= row.first
    receiver.close()
    peer.close()
    await asyncio.sleep(0)


async def test_what_a_handler_does_wrong_is_counted() -> None:
    bench = Bench(FORMATS)
    inbound, _ = await bench.add()

    def fail(_: bytes) -> None:
        raise RuntimeError("no")

    bench.attachments[0].on_rtcp = fail
    bench.put(0, rtcp.pli(1, 2))
    bench.put(0, video(1))
    bench.put(0, b"\x80")
    bench.put(0, b"\x90" + bytes(12))
    bench.tick()
    assert (bench.receiver.faults, inbound.statistics.packets, inbound.statistics.ignored) == (1, 1, 1)
    await bench.close()


async def test_silent_streams_make_room(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("bot.engine.inbound.MAX_STREAMS", 3)
    bench = Bench(FORMATS)
    inbound, _ = await bench.add()
    for ssrc in (1, 2, 3, 4):
        bench.put(0, video(1, ssrc=ssrc))
    bench.tick()
    assert (list(inbound.statistics.streams), inbound.statistics.ignored) == ([1, 2, 3], 1)
    octets = inbound.bytes["video"]
    bench.tick(59)
    bench.put(0, video(2, ssrc=3))
    bench.tick(2)
    bench.put(0, video(1, ssrc=4))
    bench.tick(1)
    assert list(inbound.statistics.streams) == [3, 4]
    assert (inbound.statistics.packets, inbound.bytes["video"]) == (5, octets // 3 * 5)
    assert [stream.ssrc for stream in inbound.snapshot(bench.now)] == [3, 4]
    bench.tick(1)
    assert len(bench.receiver.table) == 2
    await bench.close()


async def test_a_source_that_was_removed_is_one_again_when_it_comes() -> None:
    bench = Bench(FORMATS)
    inbound, _ = await bench.add()
    inbound.name([NamedSource(VIDEO, "video", "abc-v0", "abc", rtx=RTX)])
    for sequence in (1, 2, 4):
        bench.put(0, video(sequence))
    bench.tick()
    inbound.forget([VIDEO])
    assert inbound.snapshot(bench.now) == ()
    assert inbound.row("abc-v0") is None
    bench.put(0, video(5))
    bench.tick()
    assert inbound.snapshot(bench.now) == ()  # it was on its way
    bench.now += LATE
    bench.put(0, video(6))
    bench.tick()
    (stream,) = inbound.snapshot(bench.now)
    assert (stream.packets, stream.source) == (2, None)
    assert np.isclose(inbound.statistics.streams[VIDEO].jitter_seconds, stream.jitter)
    await bench.close()


async def test_a_loop_has_one_receiver_that_rests_without_transports() -> None:
    receiver = running_receiver()
    assert running_receiver() is receiver
    peer = Peer(receiver)
    await peer.attach()
    await until(lambda: receiver.ticks > 1)
    peer.attachment.detach()
    ticks = receiver.ticks
    await asyncio.sleep(0.05)
    assert receiver.ticks == ticks
    assert repr(receiver) == "<Receiver 0 transports 0 streams>"
    peer.close()
    await asyncio.sleep(0)


async def test_requests_share_a_datagram() -> None:
    receiver = Receiver()
    peer = Peer(receiver)
    await peer.attach()
    for ssrc in range(1, 150):
        peer.send(video(1, ssrc=ssrc), video(3, ssrc=ssrc))
    found = await peer.answers(NACK, 149)
    assert {item.media_ssrc for item in found} == set(range(1, 150))
    assert peer.path.sent < 20
    assert peer.path.refused == 0
    receiver.close()
    peer.close()
    await asyncio.sleep(0)


async def test_streams_that_are_asked_for_are_decoded_and_no_others() -> None:
    bench = Bench({**FORMATS, 0: PayloadFormat(0, "audio", "pcmu", 8000)})
    inbound, _ = await bench.add(decode="sample:1")
    sent = 0

    def speak(ticks: int) -> None:
        nonlocal sent
        for _ in range(ticks):
            for ssrc in (5, 6):
                stamp = sent * 160
                bench.put(
                    0,
                    rtp.build(
                        payload_type=0, sequence=sent, timestamp=stamp, ssrc=ssrc, body=bytes(160), marker=True
                    ),
                )
            sent += 1
            bench.tick(0.02)

    speak(30)
    rows = inbound.statistics.streams
    await until(lambda: inbound.decoders.totals.frames >= 25)
    (first,) = [ssrc for ssrc in rows if inbound.decoded(ssrc) is not None]
    assert [ssrc for ssrc, row in rows.items() if row.special] == [first]
    speak(600)  # longer than the sample stays with one
    await until(lambda: inbound.decoded(11 - first) is not None)
    speak(10)
    assert [ssrc for ssrc, row in rows.items() if row.special] == [11 - first]
    assert [row.packets for row in rows.values()] == [640, 640]
    await inbound.decoders.close()
    await bench.close()
