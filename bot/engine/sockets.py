"""UDP sockets for ICE that are read in two ways: event driven, or by a poller that reads all of them at once."""

from __future__ import annotations

import asyncio
import socket
from collections.abc import Awaitable, Callable
from contextlib import suppress
from typing import Any

import structlog

from bot.engine import mmsg

log = structlog.get_logger(__name__)

#: What is asked of the system for each socket (bytes): a tenth of a second of a full room. It may give less.
RECEIVE_BUFFER = 1 << 20
#: Datagrams that are read at a time while the socket is event driven; others of the loop have their turn.
READ_AT_ONCE = 64
MAX_DATAGRAM = 65_536
#: Faults of one socket's protocol that are logged; all are counted.
_LOGGED_FAULTS = 10


class EngineSocket(asyncio.DatagramTransport):
    """A bound UDP socket as a transport of asyncio, of which aioice's StunProtocol makes use.

    Whoever polls it takes it by ``hand_over`` and passes on by ``deliver`` what is not its own; the event loop
    does not watch it then, until ``take_back``. ``name`` is the address that others know it by, if not its own.
    """

    def __init__(
        self,
        sock: socket.socket,
        protocol: asyncio.DatagramProtocol,
        loop: asyncio.AbstractEventLoop,
        *,
        name: Any = None,
    ) -> None:
        super().__init__()
        self.socket = sock
        self._protocol = protocol
        self._loop = loop
        self._name = name or sock.getsockname()
        self._closing = False
        #: Whether it can send.
        self.is_open = True
        self._watched = False
        #: Hears that the socket closes, before it does.
        self.on_close: Callable[[], None] | None = None
        #: Datagrams that the system did not take, and those whose handling failed.
        self.unsent = 0
        self.faults = 0
        protocol.connection_made(self)
        self.take_back()

    def __repr__(self) -> str:
        way = "closed" if self._closing else "watched" if self._watched else "polled"
        return f"<EngineSocket {self._name[0]}:{self._name[1]} {way}>"

    def get_extra_info(self, name: str, default: Any = None) -> Any:
        """``sockname`` and ``socket``, as asyncio's transports have them."""
        if name == "sockname":
            return self._name
        return self.socket if name == "socket" else default

    def get_protocol(self) -> asyncio.BaseProtocol:
        """What receives the datagrams."""
        return self._protocol

    def is_closing(self) -> bool:
        """Whether ``close`` was called."""
        return self._closing

    def fileno(self) -> int:
        """The descriptor, -1 once closed."""
        return self.socket.fileno()

    def sendto(self, data: Any, addr: Any = None) -> None:
        """Send one datagram. What the system does not take is lost, and told to the protocol (error_received)."""
        if self._closing:
            return
        try:
            self.socket.sendto(data, addr)
        except (BlockingIOError, InterruptedError):
            self.unsent += 1
        except OSError as error:
            self.unsent += 1
            self._protocol.error_received(error)

    def connect(self, remote: tuple[str, int]) -> None:
        """Speak with ``remote`` alone from now on: the system looks up the route once, and not for each packet.

        ICE has chosen it (RFC 8445 section 8.1.1); what others send is not received any more.
        """
        with suppress(OSError):  # sending says it, too
            self.socket.connect(remote)

    def dropped(self) -> int:
        """Datagrams that its full buffer turned away so far; 0 where the system doesn't tell."""
        return mmsg.dropped(self.socket)

    def hand_over(self) -> None:
        """Stop reading: somebody else polls the socket from now on."""
        if self._watched:
            self._watched = False
            self._loop.remove_reader(self.socket.fileno())

    def take_back(self) -> None:
        """Read when something comes."""
        if not self._watched and not self._closing:
            self._watched = True
            self._loop.add_reader(self.socket.fileno(), self._read)

    def deliver(self, data: bytes, addr: tuple[str, int]) -> None:
        """Give one datagram to the protocol; its faults are its own."""
        if self._closing:
            return
        try:
            self._protocol.datagram_received(data, addr)
        except Exception:
            self.faults += 1
            if self.faults <= _LOGGED_FAULTS:
                log.exception("A datagram could not be handled", event_name="datagram_failed")

    def refused(self, error: OSError) -> None:
        """Pass on what the system says instead of giving a datagram, as that the peer's port is closed."""
        if not self._closing:
            self._protocol.error_received(error)

    def close(self) -> None:
        """Close the socket; the protocol hears of it in the loop's next turn. May be called twice."""
        if self._closing:
            return
        # First, so that who is told can't have it watched again: uvloop aborts the process where a watched
        # descriptor closes.
        self._closing, self.is_open = True, False
        self.hand_over()
        if self.on_close is not None:
            self.on_close()
        self.socket.close()
        self._loop.call_soon(self._protocol.connection_lost, None)

    def abort(self) -> None:
        """Close: nothing is buffered that could be lost."""
        self.close()

    def _read(self) -> None:
        for _ in range(READ_AT_ONCE):
            if not self._watched:
                return  # a datagram's handling closed the socket, or handed it over
            try:
                data, addr = self.socket.recvfrom(MAX_DATAGRAM)
            except (BlockingIOError, InterruptedError):
                return
            except OSError as error:
                self.refused(error)
                return
            self.deliver(data, (addr[0], addr[1]))


#: Opens a socket at any free port of a numeric address.
Opener = Callable[[asyncio.DatagramProtocol, str], Awaitable[EngineSocket]]


async def open_socket(protocol: asyncio.DatagramProtocol, host: str) -> EngineSocket:
    """A socket at any free port of the numeric address ``host``. Raises OSError."""
    sock = bind(host)
    try:
        return EngineSocket(sock, protocol, asyncio.get_running_loop())
    except BaseException:
        sock.close()
        raise


def bind(host: str) -> socket.socket:
    """A UDP socket at any free port of ``host``, set up for the engine. Raises OSError."""
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    sock = socket.socket(family, socket.SOCK_DGRAM)
    try:
        sock.setblocking(False)
        sock.bind((host, 0))
        with suppress(OSError):
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, RECEIVE_BUFFER)
        mmsg.enable_arrival_times(sock)
    except BaseException:
        sock.close()
        raise
    return sock
