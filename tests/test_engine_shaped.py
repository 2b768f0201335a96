"""Sockets over a bad way, under both event loops: what is lost, what is late, what closes."""

import asyncio
import time
from collections.abc import Awaitable, Callable, Sequence
from typing import Any

import pytest

from bot.engine import mmsg, shaped
from bot.engine.path import MediaPath
from bot.engine.shaped import Link, opener
from tests.bridge_support import until
from tests.engine_support import LOOPS, Heard, bound, make_buffer, srtp_session


class Told:
    """A model that says what it was told to, one answer for each packet; the last one goes on."""

    def __init__(self, *delays: float | None) -> None:
        self._delays = list(delays)
        self.sizes: list[int] = []

    def feed(self, size: int, now: float) -> Sequence[float]:
        self.sizes.append(size)
        delay = self._delays.pop(0) if len(self._delays) > 1 else self._delays[0]
        return [] if delay is None else [now + delay]


@pytest.fixture(params=LOOPS)
def run(request: pytest.FixtureRequest) -> Callable[[Callable[[], Awaitable[None]]], None]:
    """Runs a coroutine function under one of the event loops."""

    def runner(main: Callable[[], Any]) -> None:
        with asyncio.Runner(loop_factory=LOOPS[request.param]) as loop:
            loop.run(main())

    return runner


async def received(sock: Any, count: int) -> list[bytes]:
    return [await asyncio.wait_for(asyncio.get_running_loop().sock_recv(sock, 100), 5) for _ in range(count)]


@pytest.mark.parametrize(("host", "headers"), [("127.0.0.1", 28), ("::1", 48)])
def test_what_is_sent_is_lost_or_late(run: Any, host: str, headers: int) -> None:
    async def main() -> None:
        peer, model = bound(host), Told(None, 0.3, 0.0)
        peer.setblocking(False)
        sock = await opener(Link(up=model))(Heard(), host)
        began = time.monotonic()
        for data in (b"lost", b"late", b"now"):
            sock.sendto(data, peer.getsockname()[:2])
        assert await received(peer, 2) == [b"now", b"late"]
        assert time.monotonic() - began >= 0.299
        assert model.sizes == [4 + headers, 4 + headers, 3 + headers]
        sock.close()
        peer.close()

    run(main)


def test_what_comes_is_lost_or_late_and_keeps_its_address(run: Any) -> None:
    async def main() -> None:
        heard, peer = Heard(), bound()
        sock = await opener(Link(down=Told(None, 0.05)))(heard, "127.0.0.1")
        began = time.monotonic()
        for data in (b"lost", b"late"):
            peer.sendto(data, sock.get_extra_info("sockname"))
        await asyncio.wait_for(heard.came.wait(), 5)
        assert heard.datagrams == [(b"late", peer.getsockname())]
        assert time.monotonic() - began >= 0.049
        sock.close()
        peer.close()

    run(main)


def test_media_goes_both_ways_over_the_pair_once_it_is_connected(run: Any) -> None:
    async def main() -> None:
        heard, peer, stranger = Heard(), bound(), bound()
        peer.setblocking(False)
        sock = await opener(Link(up=Told(0.01), down=Told(0.01)))(heard, "127.0.0.1")
        path = MediaPath(sock, peer.getsockname(), srtp_session(outbound=True), srtp_session(outbound=False))
        path.send_protected([b"one", b"two"])
        assert await received(peer, 2) == [b"one", b"two"]
        sock.sendto(b"three", peer.getsockname())
        assert await received(peer, 1) == [b"three"]
        address = sock.get_extra_info("sockname")
        stranger.sendto(b"not for us", address)
        peer.sendto(b"back", address)
        await asyncio.wait_for(heard.came.wait(), 5)
        assert heard.datagrams == [(b"back", peer.getsockname())]
        sock.close()
        peer.close()
        stranger.close()

    run(main)


def test_whoever_polls_reads_it_as_any_other(run: Any) -> None:
    async def main() -> None:
        heard, peer, buffer = Heard(), bound(), make_buffer("mmsg" if mmsg.available() else "plain")
        sock = await opener(Link(down=Told(0.02)))(heard, "127.0.0.1")
        sock.connect(peer.getsockname())
        sock.hand_over()
        sent = time.time()
        peer.sendto(b"x", sock.get_extra_info("sockname"))
        await until(lambda: buffer.receive(sock.socket, 0) > 0)
        assert buffer.datagram(0) == b"x"
        assert sock.dropped() == 0
        assert heard.datagrams == []
        assert time.time() - sent >= 0.019
        sock.close()
        peer.close()

    run(main)


def test_a_socket_that_closes_forgets_what_is_on_its_way(run: Any) -> None:
    async def main() -> None:
        heard, peer, up, down = Heard(), bound(), Told(0.5), Told(0.5)
        sock = await opener(Link(up=up, down=down))(heard, "127.0.0.1")
        sock.sendto(b"x", peer.getsockname())
        peer.sendto(b"y", sock.get_extra_info("sockname"))
        await until(lambda: bool(up.sizes and down.sizes))
        sock.close()
        sock.close()
        sock.sendto(b"z", peer.getsockname())
        await asyncio.sleep(0.6)
        assert (heard.datagrams, heard.lost, sock.fileno()) == ([], True, -1)
        peer.setblocking(False)
        with pytest.raises(BlockingIOError):
            peer.recv(10)
        peer.close()

    run(main)


@pytest.mark.parametrize("delay", [0.0, 0.01])
def test_a_datagram_may_close_the_socket_before_others_of_its_reading(run: Any, delay: float) -> None:
    async def main() -> None:
        heard, peer = Heard(), bound()
        sock = await opener(Link(down=Told(delay)))(heard, "127.0.0.1")
        heard.on_datagram = lambda _: sock.close()
        for data in (b"a", b"b", b"c"):
            peer.sendto(data, sock.get_extra_info("sockname"))
        await until(lambda: heard.lost)
        await asyncio.sleep(0.02)
        assert [data for data, _ in heard.datagrams] == [b"a"]
        peer.close()

    run(main)


def test_a_peer_that_is_gone_is_told(run: Any) -> None:
    async def main() -> None:
        heard, peer = Heard(), bound()
        sock = await opener(Link(up=Told(0.0)))(heard, "127.0.0.1")
        sock.connect(peer.getsockname())
        peer.close()

        def told() -> bool:
            sock.sendto(b"x")
            return bool(heard.errors)

        await until(told)
        assert isinstance(heard.errors[0], ConnectionRefusedError)
        sock.close()

    run(main)


def test_what_waits_is_bounded(run: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(shaped, "MAX_WAITING", 2)

    async def main() -> None:
        sock = await opener(Link(up=Told(10.0)))(Heard(), "127.0.0.1")
        for _ in range(5):
            sock.sendto(b"x", ("127.0.0.1", 9))
        assert sock.dropped() == 3
        sock.close()

    run(main)
