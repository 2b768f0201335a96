"""Two media sessions with a bridge between them that forwards everything, or loses some of it."""

from __future__ import annotations

import asyncio
import random
import xml.etree.ElementTree as ET
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager
from dataclasses import replace

from aiortc.mediastreams import MediaStreamTrack

from bot.bridge.session import MediaSession
from bot.bridge.transport import MediaTransport
from bot.jingle.codec import parse_jingle
from bot.jingle.model import Jingle, SourceMap, Transport
from tests.conftest import CAPTURES

LOOPBACK = ("127.0.0.1",)


def recorded_offer(transport: Transport, sources: SourceMap | None = None) -> Jingle:
    """The session-initiate that a real Jicofo sent, with ``transport`` in place of its bridge's."""
    text = (CAPTURES / "probe-media-both-alice.xml").read_text()
    start = text.rindex("<iq", 0, text.index('action="session-initiate"'))
    element = ET.fromstring(text[start : text.index("</iq>", start) + 5])
    offer = parse_jingle(element[0])
    contents = tuple(replace(item, transport=transport) for item in offer.contents)
    return replace(offer, contents=contents, sources=offer.sources if sources is None else sources)


class Relay:
    """Forwards RTP from one leg to the other, and RTCP both ways. ``loses`` picks the RTP packets to lose."""

    def __init__(self, loses: Callable[[bytes], bool]) -> None:
        self.near = MediaTransport("bridge", addresses=LOOPBACK)
        self.far = MediaTransport("bridge", addresses=LOOPBACK)
        self.loses = loses
        self.lost = 0
        #: RTCP packets that came from the receiver, and from the sender.
        self.from_receiver: list[bytes] = []
        self.from_sender: list[bytes] = []
        self._queue: asyncio.Queue[tuple[MediaTransport, bytes]] = asyncio.Queue(10_000)
        self.near.dtls.on_rtp = self._forward
        self.near.dtls.on_rtcp = self._sender_rtcp
        self.far.dtls.on_rtcp = self._receiver_rtcp

    def _forward(self, data: bytes) -> None:
        if self.loses(data):
            self.lost += 1
        else:
            self._queue.put_nowait((self.far, data))

    def _sender_rtcp(self, data: bytes) -> None:
        self.from_sender.append(data)
        self._queue.put_nowait((self.far, data))

    def _receiver_rtcp(self, data: bytes) -> None:
        self.from_receiver.append(data)
        self._queue.put_nowait((self.near, data))

    async def run(self) -> None:
        """Forward for ever."""
        while True:
            transport, data = await self._queue.get()
            await transport.send(data)


def losing(share: float, seed: int = 1) -> Callable[[bytes], bool]:
    """Loses a share of all packets, always the same ones for one seed."""
    rng = random.Random(seed)
    return lambda _: rng.random() < share


@asynccontextmanager
async def call(
    tracks: Sequence[MediaStreamTrack],
    make_receiver: Callable[[Jingle], MediaSession],
    *,
    loses: Callable[[bytes], bool] = lambda _: False,
    codec: str = "vp8",
) -> AsyncIterator[tuple[MediaSession, MediaSession, Relay]]:
    """A sender of ``tracks`` and a receiver whose offer names the sender's sources (``a-a0``, ``a-v0``)."""
    relay = Relay(loses)
    sender = MediaSession(recorded_offer(await relay.near.gather(), SourceMap()), addresses=LOOPBACK)
    sources = sender.ssrcs.sources("a", [track.kind for track in tracks])
    receiver = make_receiver(recorded_offer(await relay.far.gather(), sources))
    running = asyncio.create_task(relay.run())
    try:
        await asyncio.gather(
            relay.far.connect(await receiver.gather(), 10), receiver.connect([], video_codec=codec, timeout=10)
        )
        await asyncio.gather(
            relay.near.connect(await sender.gather(), 10), sender.connect(tracks, video_codec=codec, timeout=10)
        )
        yield sender, receiver, relay
    finally:
        await sender.close()
        await receiver.close()
        running.cancel()
        await asyncio.wait([running])
        await relay.near.close()
        await relay.far.close()
        for track in tracks:
            track.stop()


async def until(condition: Callable[[], bool], timeout: float = 20.0) -> None:
    """Wait until ``condition`` holds; looks fifty times a second."""
    async with asyncio.timeout(timeout):
        while True:
            if condition():
                return
            await asyncio.sleep(0.02)
