"""Sockets for ICE under both event loops: watched, polled, closed; and the path that sends through them."""

import asyncio
import errno
from collections.abc import Awaitable, Callable
from typing import Any

import pylibsrtp
import pytest

from bot.bridge import rtcp, rtp
from bot.bridge.srtp import protector, rtcp_protector, rtcp_unprotector
from bot.engine.path import MediaPath
from bot.engine.sockets import EngineSocket, open_socket
from tests.engine_support import KEYS, LOOPS, Heard, bound, make_sender, srtp_session, way

__all__ = ["way"]


@pytest.fixture(params=LOOPS)
def run(request: pytest.FixtureRequest) -> Callable[[Callable[[], Awaitable[None]]], None]:
    """Runs a coroutine function under one of the event loops."""

    def runner(main: Callable[[], Any]) -> None:
        with asyncio.Runner(loop_factory=LOOPS[request.param]) as loop:
            loop.run(main())

    return runner


@pytest.mark.parametrize("host", ["127.0.0.1", "::1"])
def test_a_socket_is_a_datagram_transport(run: Any, host: str) -> None:
    async def main() -> None:
        heard, peer = Heard(), bound(host)
        sock = await open_socket(heard, host)
        assert sock.get_extra_info("sockname")[0] == host
        assert sock.get_extra_info("socket").fileno() == sock.fileno()
        assert sock.get_extra_info("peername", "none") == "none"
        assert sock.get_protocol() is heard
        assert "watched" in repr(sock)
        sock.sendto(b"to", peer.getsockname()[:2])
        assert peer.recvfrom(10)[0] == b"to"
        peer.sendto(b"back", sock.get_extra_info("sockname"))
        await asyncio.wait_for(heard.came.wait(), 5)
        assert heard.datagrams == [(b"back", peer.getsockname()[:2])]
        sock.close()
        sock.abort()
        assert (sock.is_closing(), sock.fileno(), heard.lost) == (True, -1, False)
        sock.sendto(b"late", peer.getsockname()[:2])
        await asyncio.sleep(0)
        assert heard.lost
        peer.close()

    run(main)


def test_a_polled_socket_that_closes_is_not_watched_again(run: Any) -> None:
    async def main() -> None:
        heard = Heard()
        sock = await open_socket(heard, "127.0.0.1")
        descriptor = sock.fileno()
        sock.hand_over()
        sock.on_close = sock.take_back  # as a receiver's detach does
        sock.close()
        # It would abort the process in the loop's next turn.
        assert not asyncio.get_running_loop().remove_reader(descriptor)
        await asyncio.sleep(0)
        assert heard.lost

    run(main)


def test_a_socket_that_is_handed_over_is_left_alone(run: Any) -> None:
    async def main() -> None:
        heard, peer = Heard(), bound()
        sock = await open_socket(heard, "127.0.0.1")
        sock.hand_over()
        sock.hand_over()
        assert "polled" in repr(sock)
        peer.sendto(b"x", sock.get_extra_info("sockname"))
        await asyncio.sleep(0.02)
        assert heard.datagrams == []
        sock.deliver(b"y", ("192.0.2.1", 9))
        sock.take_back()
        sock.take_back()
        await asyncio.wait_for(heard.came.wait(), 5)
        await asyncio.sleep(0.02)
        assert [data for data, _ in heard.datagrams] == [b"y", b"x"]
        sock.close()
        sock.take_back()
        peer.close()

    run(main)


def test_what_a_protocol_does_wrong_is_counted_and_ends_nothing(run: Any) -> None:
    async def main() -> None:
        heard, peer = Heard(), bound()
        sock = await open_socket(heard, "127.0.0.1")

        def fail(data: bytes) -> None:
            if data == b"bad":
                raise ValueError("no")
            sock.close()

        heard.on_datagram = fail
        for data in (b"bad", b"good", b"late"):
            peer.sendto(data, sock.get_extra_info("sockname"))
        for _ in range(100):
            await asyncio.sleep(0.01)
            if heard.lost:
                break
        assert [data for data, _ in heard.datagrams] == [b"bad", b"good"]
        assert (sock.faults, heard.lost) == (1, True)
        sock.deliver(b"late", ("192.0.2.1", 9))
        sock.refused(OSError())
        assert (len(heard.datagrams), heard.errors) == (2, [])
        peer.close()

    run(main)


def test_what_the_system_refuses_is_told_to_the_protocol(run: Any) -> None:
    async def main() -> None:
        heard = Heard()
        sock = await open_socket(heard, "127.0.0.1")
        sock.sendto(b"x" * 70_000, ("127.0.0.1", 9))
        assert (sock.unsent, [getattr(error, "errno", 0) for error in heard.errors]) == (1, [errno.EMSGSIZE])
        peer = bound()
        sock.socket.connect(peer.getsockname())
        peer.close()
        sock.socket.send(b"x")  # the answer is that the port is closed, heard by reading
        for _ in range(100):
            await asyncio.sleep(0.01)
            if len(heard.errors) > 1:
                break
        assert isinstance(heard.errors[1], ConnectionRefusedError)
        sock.close()
        await asyncio.sleep(0)

    run(main)


async def test_an_address_of_another_host_can_not_be_bound() -> None:
    with pytest.raises(OSError):  # noqa: PT011 - EADDRNOTAVAIL
        await open_socket(Heard(), "192.0.2.1")


def _packets(count: int, ssrc: int = 7, first: int = 1) -> list[bytes]:
    return [
        rtp.build(payload_type=100, sequence=first + number, timestamp=0, ssrc=ssrc, body=b"x" * 100)
        for number in range(count)
    ]


async def _path(way: str) -> tuple[MediaPath, EngineSocket, Any, Heard]:
    peer, heard = bound(), Heard()
    sock = await open_socket(heard, "127.0.0.1")
    path = MediaPath(
        sock,
        peer.getsockname(),
        srtp_session(outbound=True, key=KEYS[0]),
        srtp_session(outbound=False, key=KEYS[1]),
        send_many=make_sender(way),
    )
    return path, sock, peer, heard


async def test_a_path_protects_and_sends(way: str) -> None:
    path, sock, peer, _ = await _path(way)
    there = srtp_session(outbound=False, key=KEYS[0])
    path.send_many(_packets(3))
    assert [there.unprotect(peer.recv(2000)) for _ in range(3)] == _packets(3)
    report = rtcp.pli(1, 2)
    path.send_rtcp(report)
    assert there.unprotect_rtcp(peer.recv(2000)) == report
    assert (path.overhead, path.sent, path.unsent) == (10, 4, 0)
    back = srtp_session(outbound=True, key=KEYS[1])
    (packet,) = _packets(1)
    protected = back.protect(packet)
    assert path.unprotect(protected) == packet
    assert path.unprotect(protected) is None  # a replay
    assert path.unprotect_rtcp(back.protect_rtcp(report)) == report
    assert path.unprotect_rtcp(report) is None
    assert path.refused == 2
    sock.close()
    peer.close()


async def test_what_a_path_can_not_send_is_counted(way: str) -> None:
    path, sock, peer, heard = await _path(way)
    path.send_many([b"no RTP", *_packets(2), bytes(3000)])
    path.send_rtcp(b"no")
    assert (path.sent, path.unprotectable) == (2, 3)
    peer.close()
    for first in (10, 20, 30):
        path.send_many(_packets(2, first=first))
    assert path.unsent >= 2
    assert path.sent + path.unsent == 8
    assert all(isinstance(error, ConnectionRefusedError) for error in heard.errors)
    sock.close()
    unsent = path.unsent
    path.send_many(_packets(1, first=40))
    assert path.unsent == unsent + 1


async def test_an_address_that_can_not_be_reached_is_no_error_of_the_sender(way: str) -> None:
    heard = Heard()
    sock = await open_socket(heard, "127.0.0.1")
    nowhere = ("255.255.255.255", 9)  # broadcasts are not allowed
    session = srtp_session(outbound=True)
    path = MediaPath(sock, nowhere, session, srtp_session(outbound=False), send_many=make_sender(way))
    path.send_many(_packets(2))
    assert (path.sent, path.unsent) == (0, 2)
    assert isinstance(heard.errors[0], OSError)
    sock.close()


async def test_a_path_through_another_transport_sends_packet_by_packet() -> None:
    peer = bound()
    transport, _ = await asyncio.get_running_loop().create_datagram_endpoint(
        asyncio.DatagramProtocol, local_addr=("127.0.0.1", 0)
    )
    session = srtp_session(outbound=True)
    path = MediaPath(transport, peer.getsockname(), session, srtp_session(outbound=False))
    path.send_many(_packets(2))
    assert path.socket is None
    assert len(peer.recv(2000)) == len(peer.recv(2000)) == 122
    assert "sent 2 unsent 0" in repr(path)
    transport.close()
    peer.close()


def test_protecting_without_detours_gives_the_same() -> None:
    slow, fast = srtp_session(outbound=True), protector(srtp_session(outbound=True))
    for packet in _packets(5):
        assert fast(packet) == slow.protect(packet)
    with pytest.raises(ValueError, match="too long"):
        fast(bytes(3000))
    with pytest.raises(pylibsrtp.Error):
        fast(b"no RTP")


def test_rtcp_without_detours_is_the_same() -> None:
    slow, fast = srtp_session(outbound=True), rtcp_protector(srtp_session(outbound=True))
    there, here = srtp_session(outbound=False), rtcp_unprotector(srtp_session(outbound=False))
    packet = rtcp.receiver_reports(7, [])
    for _ in range(3):
        protected = fast(packet)
        assert protected == slow.protect_rtcp(packet)
        assert here(protected) == there.unprotect_rtcp(protected) == packet
    with pytest.raises(pylibsrtp.Error):
        here(bytes(40))
