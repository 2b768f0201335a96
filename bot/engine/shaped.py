"""A socket whose datagrams take a bad way: each is lost, or comes as late as a model says.

To ICE, the pacer and the receiver it is any other :class:`EngineSocket`. What they read and write is the inner end
of a pair of sockets; between the far end and the outer socket, which has the address, the datagrams wait. So the
shared paths of all others know nothing of it and cost nothing more.
"""

from __future__ import annotations

import asyncio
import heapq
import socket
import time
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass
from itertools import count
from typing import Any, Protocol

from bot.engine import mmsg
from bot.engine.sockets import MAX_DATAGRAM, READ_AT_ONCE, EngineSocket, Opener, bind

#: Datagrams of one direction that wait, at most: a minute of a full room. What is beyond is lost, and counted.
MAX_WAITING = 65_536
#: A timer may fire so much early, and timers have steps of a millisecond (seconds).
_EARLY, _STEP = 0.0005, 0.001
#: Bytes of IP and UDP in front of each datagram.
_HEADERS = {socket.AF_INET: 28, socket.AF_INET6: 48}

Address = tuple[str, int]


class Fate(Protocol):
    """The model of one direction."""

    def feed(self, size: int, now: float) -> Sequence[float]:
        """When a packet of ``size`` bytes, headers included, given at ``now`` arrives (monotonic); [] is never."""
        ...


@dataclass(frozen=True, slots=True)
class Link:
    """The way between one participant and all others: ``up`` is what it sends. None: nothing happens to it."""

    up: Fate | None = None
    down: Fate | None = None


def opener(link: Link) -> Opener:
    """Opens sockets over ``link``: the several of a participant share it."""

    async def open_shaped(protocol: asyncio.DatagramProtocol, host: str) -> EngineSocket:
        outer = bind(host)
        try:
            inner, far = _pair()
        except BaseException:
            outer.close()
            raise
        return ShapedSocket(outer, (inner, far), protocol, asyncio.get_running_loop(), link)

    return open_shaped


class ShapedSocket(EngineSocket):
    """An EngineSocket over a :class:`Link`. What is on its way when it closes is lost, as behind a real router."""

    def __init__(
        self,
        outer: socket.socket,
        pair: tuple[socket.socket, socket.socket],
        protocol: asyncio.DatagramProtocol,
        loop: asyncio.AbstractEventLoop,
        link: Link,
    ) -> None:
        inner, self._far = pair
        self._outer = outer
        self._remote: Address | None = None
        headers = _HEADERS[outer.family]
        self._up = _Way(link.up, headers, loop, self._leaves)
        self._down = _Way(link.down, headers, loop, self._arrives)
        loop.add_reader(outer.fileno(), self._read_outer)
        loop.add_reader(self._far.fileno(), self._read_far)
        super().__init__(inner, protocol, loop, name=outer.getsockname())

    def get_extra_info(self, name: str, default: Any = None) -> Any:
        """``sockname`` and ``socket`` are those of the outer one."""
        return self._outer if name == "socket" else super().get_extra_info(name, default)

    def sendto(self, data: Any, addr: Any = None) -> None:
        """Send one datagram over the link."""
        if not self._closing:
            self._up.take(bytes(data), addr or self._remote)

    def connect(self, remote: Address) -> None:
        """Speak with ``remote`` alone from now on, over the pair of sockets."""
        self._remote = remote
        with suppress(OSError):
            self._outer.connect(remote)

    def deliver(self, data: bytes, addr: Address) -> None:
        """Give one datagram to the protocol; what comes over the pair is of the one remote address."""
        super().deliver(data, self._remote or addr)

    def dropped(self) -> int:
        """Datagrams that full buffers turned away so far."""
        return sum(mmsg.dropped(item) for item in (self._outer, self._far, self.socket)) + self._waiting_lost

    @property
    def _waiting_lost(self) -> int:
        return self._up.overflow + self._down.overflow

    def close(self) -> None:
        """Close all three sockets; may be called twice."""
        if self._closing:
            return
        for sock, way in ((self._outer, self._down), (self._far, self._up)):
            self._loop.remove_reader(sock.fileno())
            way.close()
        super().close()
        self._outer.close()
        self._far.close()

    # --- up: inner, far, link, outer ---

    def _read_far(self) -> None:
        for data, _ in _waiting(self._far, self.refused):
            self._up.take(data, self._remote)

    def _leaves(self, data: bytes, addr: Address | None) -> None:
        try:
            if addr is None or addr == self._remote:
                self._outer.send(data)
            else:
                self._outer.sendto(data, addr)
        except (BlockingIOError, InterruptedError):
            self.unsent += 1
        except OSError as error:
            self.unsent += 1
            self.refused(error)

    # --- down: outer, link, far, inner ---

    def _read_outer(self) -> None:
        for data, addr in _waiting(self._outer, self.refused):
            self._down.take(data, addr)

    def _arrives(self, data: bytes, addr: Address | None) -> None:
        if self._remote is None:
            assert addr is not None
            self.deliver(data, addr)
        elif addr == self._remote:
            with suppress(OSError):  # a full buffer loses it
                self._far.send(data)


class _Way:
    """One direction: what waits for its time, and one timer for the first of it."""

    def __init__(
        self,
        fate: Fate | None,
        headers: int,
        loop: asyncio.AbstractEventLoop,
        passed: Callable[[bytes, Address | None], None],
    ) -> None:
        self._fate = fate
        self._headers = headers
        self._loop = loop
        self._passed = passed
        self._waiting: list[tuple[float, int, bytes, Address | None]] = []
        self._numbers = count()
        self._timer: asyncio.TimerHandle | None = None
        self._timer_at = 0.0
        self._closed = False
        self.overflow = 0

    def take(self, data: bytes, addr: Address | None) -> None:
        """Let a datagram go its way; of several that were read at once, one may have closed it."""
        if self._closed:
            return
        if self._fate is None:
            self._passed(data, addr)
            return
        now = time.monotonic()
        for at in self._fate.feed(len(data) + self._headers, now):
            if len(self._waiting) < MAX_WAITING:
                heapq.heappush(self._waiting, (at, next(self._numbers), data, addr))
            else:
                self.overflow += 1
        self._release(now)

    def close(self) -> None:
        """Forget what waits, and take no more."""
        self._closed = True
        self._waiting.clear()
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    def _release(self, now: float) -> None:
        waiting = self._waiting
        while waiting and waiting[0][0] <= now + _EARLY:
            _, _, data, addr = heapq.heappop(waiting)
            self._passed(data, addr)  # it may close this
        if waiting:
            self._arm(waiting[0][0], now)

    def _arm(self, due: float, now: float) -> None:
        """Have one timer for what is due first; an earlier one than the timer's comes where packets overtake."""
        if self._timer is not None:
            if self._timer_at <= due:
                return
            self._timer.cancel()
        self._timer_at = due
        self._timer = self._loop.call_later(max(_STEP, due - now), self._fire)

    def _fire(self) -> None:
        self._timer = None
        self._release(time.monotonic())


def _waiting(sock: socket.socket, refused: Callable[[OSError], None]) -> list[tuple[bytes, Address]]:
    """What has come to a socket, a bounded number of it."""
    found: list[tuple[bytes, Address]] = []
    for _ in range(READ_AT_ONCE):
        try:
            data, addr = sock.recvfrom(MAX_DATAGRAM)
        except (BlockingIOError, InterruptedError):
            break
        except OSError as error:
            refused(error)
            break
        found.append((data, (addr[0], addr[1])))
    return found


def _pair() -> tuple[socket.socket, socket.socket]:
    """Two sockets on loopback that hear each other alone. UDP: others have no times of arrival. Raises OSError."""
    ends: list[socket.socket] = []
    try:
        inner = bind("127.0.0.1")
        ends.append(inner)
        far = bind("127.0.0.1")
        ends.append(far)
        inner.connect(far.getsockname())
        far.connect(inner.getsockname())
    except BaseException:
        for end in ends:
            end.close()
        raise
    return inner, far
