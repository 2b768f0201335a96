"""Ends of media paths on loopback, with SRTP on both sides and no ICE or DTLS."""

from __future__ import annotations

import asyncio
import socket
from collections.abc import Callable

import pylibsrtp
import pytest
import uvloop

from bot.engine import mmsg

LOOPS = {"asyncio": asyncio.new_event_loop, "uvloop": uvloop.new_event_loop}
KEYS = bytes(range(30)), bytes(range(30, 60))


def srtp_session(*, outbound: bool, key: bytes = KEYS[0]) -> pylibsrtp.Session:
    """One direction of SRTP, as aiortc makes it of a handshake."""
    kind = pylibsrtp.Policy.SSRC_ANY_OUTBOUND if outbound else pylibsrtp.Policy.SSRC_ANY_INBOUND
    policy = pylibsrtp.Policy(key=key, ssrc_type=kind)
    policy.allow_repeat_tx = outbound
    policy.window_size = 1024
    return pylibsrtp.Session(policy=policy)


def bound(host: str = "127.0.0.1") -> socket.socket:
    """A plain UDP socket of a peer."""
    sock = socket.socket(socket.AF_INET6 if ":" in host else socket.AF_INET, socket.SOCK_DGRAM)
    sock.bind((host, 0))
    sock.settimeout(5)
    return sock


class Heard(asyncio.DatagramProtocol):
    """Notes what a datagram protocol is told."""

    def __init__(self) -> None:
        self.datagrams: list[tuple[bytes, tuple[str, int]]] = []
        self.errors: list[Exception] = []
        self.lost = False
        self.came = asyncio.Event()
        self.on_datagram: Callable[[bytes], None] = lambda _: None

    def datagram_received(self, data: bytes, addr: tuple[str, int]) -> None:
        self.datagrams.append((data, addr))
        self.came.set()
        self.on_datagram(data)

    def error_received(self, exc: Exception) -> None:
        self.errors.append(exc)

    def connection_lost(self, exc: Exception | None) -> None:
        self.lost = True


@pytest.fixture(params=["mmsg", "plain"])
def way(request: pytest.FixtureRequest) -> str:
    """Both ways of calling the system."""
    if request.param == "mmsg" and not mmsg.available():
        pytest.skip("no recvmmsg on this platform")
    return str(request.param)


def make_buffer(way: str, capacity: int = 64) -> mmsg.DatagramBuffer:
    return mmsg.MmsgBuffer(capacity) if way == "mmsg" else mmsg.PlainBuffer(capacity)


def make_sender(way: str) -> mmsg.SendMany:
    return mmsg.MmsgSender() if way == "mmsg" else mmsg.send_plain
