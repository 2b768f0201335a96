"""Ends of media paths on loopback, with SRTP on both sides and no ICE or DTLS."""

from __future__ import annotations

import asyncio
import socket
from collections.abc import Callable
from typing import Any

import numpy as np
import pylibsrtp
import pytest
import uvloop

from bot.bridge.payloads import PayloadFormat
from bot.engine import mmsg, sendmmsg
from bot.engine.inbound import EngineInbound
from bot.engine.path import MediaPath
from bot.engine.receiver import Attachment, Receiver
from bot.engine.sockets import EngineSocket, open_socket

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


def make_sender(way: str) -> sendmmsg.SendMany:
    return sendmmsg.MmsgSender() if way == "mmsg" else sendmmsg.send_plain


class FakeBuffer(mmsg.PlainBuffer):
    """Datagrams that were put for a socket instead of sent to it, with arrivals of one's choice."""

    def __init__(self, capacity: int = 256) -> None:
        super().__init__(capacity)
        self.queues: dict[int, list[tuple[bytes, float]]] = {}

    def put(self, sock: socket.socket, data: bytes, arrival: float) -> None:
        self.queues.setdefault(sock.fileno(), []).append((data, arrival))

    def receive(self, sock: socket.socket, start: int) -> int:
        queue = self.queues.get(sock.fileno(), [])
        count = min(len(queue), self.capacity - start)
        for slot, (data, arrival) in enumerate(queue[:count], start):
            self.data[slot, : len(data)] = np.frombuffer(data, np.uint8)
            self._sizes[slot], self._arrivals[slot] = len(data), arrival
        del queue[:count]
        return count


class ClearPath(MediaPath):
    """A path without SRTP, whose packets go to a list."""

    def __init__(self, sock: EngineSocket) -> None:
        super().__init__(sock, ("127.0.0.1", 9), srtp_session(outbound=True), srtp_session(outbound=False))
        self.overhead = 0
        self.feedback: list[bytes] = []

    def unprotect(self, data: bytes) -> bytes | None:
        return data

    def unprotect_rtcp(self, data: bytes) -> bytes | None:
        return data

    def send_rtcp(self, packet: bytes) -> None:
        while packet:
            size = 4 + 4 * int.from_bytes(packet[2:4], "big")
            self.feedback.append(packet[:size])
            packet = packet[size:]


class Bench:
    """A receiver with a clock set by hand, and transports whose packets are put by hand."""

    def __init__(self, formats: dict[int, PayloadFormat], capacity: int = 256) -> None:
        self.now = 1000.0
        self.formats = formats
        self.buffer = FakeBuffer(capacity)
        self.receiver = Receiver(buffer=self.buffer, clock=lambda: self.now)
        self.sockets: list[EngineSocket] = []
        self.attachments: list[Attachment] = []
        self.paths: list[ClearPath] = []
        self.rtcp: list[bytes] = []

    async def add(self, **options: Any) -> tuple[EngineInbound, ClearPath]:
        sock = await open_socket(Heard(), "127.0.0.1")
        inbound = EngineInbound(self.formats, ssrc=99, started=self.now, table=self.receiver.table, **options)
        path = ClearPath(sock)
        attachment = self.receiver.attach(inbound, path, cname="c", on_rtcp=self.rtcp.append)
        self.receiver._poller = None  # what is put for the sockets does not make them readable
        assert self.receiver._timer is not None
        self.receiver._timer.cancel()  # ticks are made by hand
        self.sockets.append(sock)
        self.attachments.append(attachment)
        self.paths.append(path)
        return inbound, path

    def put(self, transport: int, data: bytes, arrival: float | None = None) -> None:
        self.buffer.put(self.sockets[transport].socket, data, self.now if arrival is None else arrival)

    def tick(self, step: float = 0.01) -> None:
        self.now += step
        self.receiver.poll(self.now)
        if self.receiver._timer is not None:
            self.receiver._timer.cancel()

    async def close(self) -> None:
        self.receiver.close()
        for sock in self.sockets:
            sock.close()
        await asyncio.sleep(0)
