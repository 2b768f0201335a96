"""Batches of datagrams over real sockets on loopback, with recvmmsg and without."""

import errno
import socket
import struct
import time

import pytest

from bot.engine import mmsg
from tests.engine_support import bound, make_buffer, make_sender, way

__all__ = ["way"]


def _pair(host: str = "127.0.0.1") -> tuple[socket.socket, socket.socket]:
    receiver, sender = bound(host), bound(host)
    receiver.setblocking(False)
    mmsg.enable_arrival_times(receiver)
    sender.connect(receiver.getsockname())
    return receiver, sender


@pytest.mark.parametrize("host", ["127.0.0.1", "::1"])
def test_a_batch_comes_as_it_was_sent(way: str, host: str) -> None:
    receiver, sender = _pair(host)
    buffer = make_buffer(way)
    packets = [bytes([number]) * (number + 1) for number in range(10)]
    before = time.monotonic()
    assert make_sender(way)(sender, packets) == 10
    after = time.monotonic()
    for turn in range(2):  # slots can be filled again
        assert buffer.receive(receiver, 3) == 10
        assert [buffer.datagram(slot) for slot in range(3, 13)] == packets
        assert {buffer.address(slot) for slot in range(3, 13)} == {sender.getsockname()[:2]}
        arrivals = buffer.arrivals(3, 13)
        assert (arrivals[1:] >= arrivals[:-1]).all()
        if way == "mmsg":  # the kernel's times are those of sending, whenever they are read
            assert before - 0.002 <= arrivals[0]
            assert arrivals[-1] <= after + 0.002
        buffer.release(13)
        if turn == 0:
            before = time.monotonic()
            make_sender(way)(sender, packets)
            after = time.monotonic()
            time.sleep(0.02)
    assert buffer.receive(receiver, 0) == 0
    receiver.close()
    sender.close()


def test_a_full_buffer_leaves_the_rest_in_the_socket(way: str) -> None:
    receiver, sender = _pair()
    buffer = make_buffer(way, 8)
    make_sender(way)(sender, [b"x"] * 11)
    assert buffer.receive(receiver, 2) == 6
    assert buffer.receive(receiver, 8) == 0
    assert buffer.receive(receiver, 0) == 5
    receiver.close()
    sender.close()


def test_more_than_one_call_takes_can_be_sent(way: str) -> None:
    receiver, sender = _pair()
    send = make_sender(way)
    assert send(sender, [b"%d" % number for number in range(150)]) == 150
    buffer = make_buffer(way, 200)
    assert buffer.receive(receiver, 0) == 150
    assert [buffer.datagram(slot) for slot in (0, 63, 64, 149)] == [b"0", b"63", b"64", b"149"]
    assert send(sender, []) == 0
    receiver.close()
    sender.close()


def test_errors_of_the_system_are_raised(way: str) -> None:
    receiver, sender = _pair()
    with pytest.raises(OSError) as caught:  # noqa: PT011 - its number is looked at
        make_sender(way)(sender, [b"x" * 70_000, b"y"])
    assert caught.value.errno == errno.EMSGSIZE
    assert make_sender(way)(sender, [b"y", b"x" * 70_000, b"z"]) == 1
    receiver.close()
    with pytest.raises(OSError):  # noqa: PT011 - EBADF, whatever its words
        make_buffer(way).receive(receiver, 0)
    sender.close()


def test_a_connected_socket_hears_that_the_port_is_closed(way: str) -> None:
    receiver, sender = _pair()
    sender.setblocking(False)
    receiver.close()
    sender.send(b"x")
    with pytest.raises(ConnectionRefusedError):
        make_buffer(way).receive(sender, 0)
    assert make_sender(way)(sender, [b"x", b"y"]) in {1, 2}
    sender.close()


@pytest.mark.skipif(not mmsg.available(), reason="only Linux tells")
def test_datagrams_that_a_full_socket_turned_away_are_told() -> None:
    receiver, sender = _pair()
    receiver.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 8192)
    assert mmsg.dropped(receiver) == 0
    for _ in range(100):
        sender.send(bytes(1000))
    buffer = make_buffer("mmsg", 200)
    assert mmsg.dropped(receiver) == 100 - buffer.receive(receiver, 0) > 0
    receiver.close()
    sender.close()


def test_the_offset_of_the_clocks_follows_steps_and_not_interruptions(monkeypatch: pytest.MonkeyPatch) -> None:
    now, unix, taking = 1_000_000, 5_000_000, 1000

    def monotonic() -> int:
        nonlocal now
        now += taking
        return now

    monkeypatch.setattr(time, "time_ns", lambda: unix + now)
    monkeypatch.setattr(time, "monotonic_ns", monotonic)
    offset = mmsg.ClockOffset()
    assert abs(offset.read() + 5_000_000) <= 1000
    known = offset.read()
    taking = 400_000
    assert offset.read() == known
    unix += 10**9
    assert abs(offset.read() + 5_000_000 + 10**9) <= 400_000
    taking = 1000
    assert abs(offset.read() + 5_000_000 + 10**9) <= 1000


def test_addresses_survive() -> None:
    for family, host in ((socket.AF_INET, "192.0.2.7"), (socket.AF_INET6, "2001:db8::7")):
        flow = b"" if family == socket.AF_INET else bytes(4)
        packed = struct.pack("=H", family) + struct.pack("!H", 4711) + flow + socket.inet_pton(family, host)
        assert mmsg.parse_sockaddr(packed.ljust(28, b"\0")) == (host, 4711)
