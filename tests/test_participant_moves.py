"""A session whose bridge is another one in the middle of it, and the time without packets that a loss costs."""

import asyncio
import time
import xml.etree.ElementTree as ET
from collections.abc import AsyncIterator, Callable
from dataclasses import replace
from typing import Any, cast

import pytest_asyncio

from bot import events
from bot.bridge.rtp import build
from bot.bridge.transport import MediaTransport
from bot.jingle.answer import bundle_transport
from bot.jingle.codec import build_jingle, parse_jingle
from bot.jingle.model import Action, Jingle, MediaSources, Source, SourceMap
from bot.media.synthetic import SyntheticVideoTrack
from bot.participant.config import expand
from bot.participant.focus import FocusSession
from bot.participant.layout import Wishes
from bot.participant.own import OwnMedia
from bot.participant.stay import Stay
from bot.participant.timing import PhaseTimer
from bot.settings import load
from bot.xmpp.connection import IqRequest, XmppConnection
from tests.bridge_support import LOOPBACK, recorded_offer, until

ROOM = "room@muc.meet.jitsi"
ALICE = SourceMap(video=MediaSources((Source(7, "alice-v0", "alice", video_type="camera"),)))


class Connection:
    """An XMPP connection whose server is the test: what is asked of it is kept."""

    jid = "0me00000@meet.jitsi/x"
    endpoint_id = "0me00000"

    def __init__(self) -> None:
        self.handler: Callable[[IqRequest], ET.Element | None] = lambda _: None
        self.asked: list[Jingle] = []

    def on_iq(self, tag: str, handler: Callable[[IqRequest], ET.Element | None]) -> None:
        assert tag.endswith("jingle")
        self.handler = handler

    def ask(self, to: str, payload: ET.Element) -> None:
        assert to == f"{ROOM}/focus"
        self.asked.append(parse_jingle(payload))

    async def iq(self, kind: str, to: str, payload: ET.Element) -> None:
        assert kind == "set"
        self.ask(to, payload)


class Bench:
    """A session with a scripted focus; bridges are transports of the test."""

    def __init__(self) -> None:
        self.connection = Connection()
        self.said: list[tuple[type[events.Event], dict[str, Any]]] = []
        self.bridges: list[MediaTransport] = []
        config = expand(
            load(ice_addresses="127.0.0.1", use_turn="off", audio="tone", video="none", bridge_channel="none")
        )[0]
        self.own = OwnMedia(config, lambda *_, **__: None)
        self.own.start()
        stay = Stay(
            config=config,
            connection=cast("XmppConnection", self.connection),
            emit=lambda kind, **fields: self.said.append((kind, fields)),
            on_phase=lambda _: None,
            on_state=lambda _: None,
            timer=PhaseTimer(time.monotonic),
            own=self.own,
            wishes=Wishes.of(config.settings),
        )
        self.session = FocusSession(
            stay,
            ROOM,
            codec=lambda _: "vp8",
            on_published=lambda: None,
            on_idle=lambda: None,
            on_lost=lambda error: None,
        )
        self.running = asyncio.create_task(self.session.run())

    async def order(self, action: str, sid: str = "s1") -> MediaTransport:
        """Let the focus send an offer of another bridge, and that connect to what is answered."""
        bridge = MediaTransport("bridge", addresses=LOOPBACK)
        self.bridges.append(bridge)
        offer = replace(recorded_offer(await bridge.gather(), ALICE), action=action, sid=sid)
        known = len(self.connection.asked)
        self.tell(offer)
        await until(lambda: len(self.connection.asked) > known)
        await bridge.connect(bundle_transport(self.connection.asked[-1]), 10)
        connected = len(self.bridges)
        await until(lambda: self.names().count("media_connected") == connected)
        return bridge

    def tell(self, stanza: Jingle) -> None:
        self.connection.handler(IqRequest("set", f"{ROOM}/focus", "i", build_jingle(stanza)))

    def stanza(self, action: str, found: SourceMap) -> Jingle:
        """A stanza of the focus about sources."""
        return Jingle(Action(action), "s1", "focus@auth.meet.jitsi/focus", sources=found)

    def names(self) -> list[str]:
        return [kind.name for kind, _ in self.said]

    def fields(self, name: str) -> list[dict[str, Any]]:
        return [fields for kind, fields in self.said if kind.name == name]

    async def receive(self, bridge: MediaTransport, sequence: int) -> None:
        """Send one packet of alice's and wait until it is counted."""
        await bridge.send(build(payload_type=100, sequence=sequence, timestamp=0, ssrc=7, body=b"x" * 50))
        media = self.session.media
        assert media is not None
        await until(lambda: any(stream.source == "alice-v0" for stream in media.snapshot()))

    async def close(self) -> None:
        self.running.cancel()
        await asyncio.wait([self.running])
        await self.session.close()
        await self.own.close()
        for bridge in self.bridges:
            await bridge.close()


@pytest_asyncio.fixture
async def bench() -> AsyncIterator[Bench]:
    found = Bench()
    yield found
    await found.close()


async def test_a_replaced_transport_is_taken_in_place(bench: Bench) -> None:
    first = await bench.order("session-initiate")
    bench.session.occupants(1)
    await bench.receive(first, 1)
    await asyncio.sleep(0.2)
    second = await bench.order("transport-replace")
    await bench.receive(second, 2)
    assert [stanza.action for stanza in bench.connection.asked] == ["session-accept", "transport-accept"]
    accepted, moved = (stanza.sources for stanza in bench.connection.asked)
    # Jicofo knows them by their SSRCs, and refuses a transport-accept that names them again.
    assert accepted.audio.sources != ()
    assert moved == SourceMap()
    media = bench.session.media
    assert media is not None
    assert media.ssrcs.audio == accepted.audio.sources[0].ssrc
    assert bench.session.active
    (recovered,) = bench.fields("media_recovered")
    assert 0.2 <= recovered["seconds"] < 15
    # The same source, before and after.
    assert [fields["source"] for fields in bench.fields("remote_source_added")] == ["alice-v0"] * 2
    assert "media_failed" not in bench.names()


async def test_all_sources_go_on_over_the_other_bridge_and_what_changed_meanwhile_is_told(bench: Bench) -> None:
    def picture() -> SyntheticVideoTrack:
        return SyntheticVideoTrack("room", "a", 160, 90)

    await bench.order("session-initiate")
    desk, second = picture(), picture()
    assert [await bench.own.add_source(track) for track in (desk, second)] == ["v0", "v1"]
    before = bench.connection.asked[-2:]
    bench.own.withdraw()  # between two bridges
    third = picture()
    assert await bench.own.add_source(third) == "v2"
    await bench.own.remove_source("v0")
    assert len(bench.connection.asked) == 3
    await bench.order("transport-replace")
    moved, removed, added = bench.connection.asked[3:]
    assert moved.action == "transport-accept"
    assert moved.sources == SourceMap()
    publication = bench.session._publication
    assert publication is not None
    assert publication.sources.video.sources[0] == before[1].sources.video.sources[0]  # v1 goes on
    assert (removed.action, removed.sources) == ("source-remove", before[0].sources)
    assert (added.action, added.sources.video.sources[0].name) == ("source-add", "0me00000-v2")
    for track in (desk, second, third):
        track.stop()


async def test_a_gap_is_measured_over_a_session_that_failed_and_the_next(bench: Bench) -> None:
    first = await bench.order("session-initiate")
    bench.session.occupants(1)
    await bench.receive(first, 1)
    await first.close()
    await until(lambda: "media_failed" in bench.names())
    await until(lambda: bench.connection.asked[-1].action == "session-terminate")
    assert bench.connection.asked[-1].restart
    second = await bench.order("session-initiate", "s2")
    await bench.receive(second, 2)
    assert len(bench.fields("media_recovered")) == 1


async def test_nobody_is_missed_where_nobody_is(bench: Bench) -> None:
    first = await bench.order("session-initiate")
    bench.session.occupants(1)
    await bench.receive(first, 1)
    await bench.order("session-initiate", "s2")
    bench.session.occupants(0)
    await bench.receive(bench.bridges[-1], 2)
    assert bench.fields("media_recovered") == []
