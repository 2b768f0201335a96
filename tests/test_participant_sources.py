"""Remote sources: what is reported of offers, source-adds and the bridge's maps."""

import asyncio
from typing import Any

from bot import events
from bot.bridge.payloads import PayloadFormat
from bot.bridge.receive import ReceiveStatistics
from bot.bridge.rtp import build
from bot.bridge.streams import NamedSource, mapped_names
from bot.bridge.streams import RemoteSources as RemoteStreams
from bot.embedded.server import EmbeddedServer
from bot.jingle.model import MediaSources, Source, SourceGroup, SourceMap
from bot.participant import sources
from bot.participant.sources import Change, RemoteSources
from tests.test_participant_prosody import Seen, participant

ADDED, REMOVED = events.RemoteSourceAdded, events.RemoteSourceRemoved


def said(changes: list[Change]) -> list[tuple[Any, str, int]]:
    return [(kind, item.source, item.ssrc) for kind, item in changes]


def named(name: str, ssrc: int, video_type: str | None = None) -> NamedSource:
    """A source as a map names it; its owner is what its name begins with."""
    owner, _, kind = name.partition("-")
    return NamedSource(ssrc, "audio" if kind.startswith("a") else "video", name, owner, video_type=video_type)


def video(*items: tuple[str, int, str]) -> SourceMap:
    return SourceMap(video=MediaSources(tuple(Source(ssrc, name, owner) for name, ssrc, owner in items)))


def test_what_jingle_adds_it_removes() -> None:
    known = RemoteSources()
    both = video(("abc-v0", 1, "abc"), ("abc-v0", 2, "abc"))
    assert said(known.added(both)) == [(ADDED, "abc-v0", 1), (ADDED, "abc-v0", 2)]
    assert known.added(both) == []
    assert said(known.removed(video(("abc-v0", 1, "abc")))) == [(REMOVED, "abc-v0", 1)]
    assert known.removed(video(("abc-v0", 1, "abc"))) == []
    assert said(known.clear()) == [(REMOVED, "abc-v0", 2)]
    assert known.clear() == []


def test_a_map_that_is_told_again_changes_nothing() -> None:
    """The embedded bridge, as recorded, tells the whole map when somebody else comes."""
    known = RemoteSources()
    first = {"source": "abc-v0", "owner": "abc", "ssrc": 5, "rtx": 6, "videoType": "CAMERA"}
    second = {"source": "def-v0", "owner": "def", "ssrc": 7, "rtx": 8, "videoType": "CAMERA"}
    assert said(known.mapped("video", mapped_names({"mappedSources": [first]}))) == [(ADDED, "abc-v0", 5)]
    both = mapped_names({"mappedSources": [first, second]})
    assert said(known.mapped("video", both)) == [(ADDED, "def-v0", 7)]


def test_a_map_without_a_source_does_not_remove_it() -> None:
    """Videobridge's maps name what is new or moved only."""
    known = RemoteSources()
    known.mapped("video", [named("abc-v0", 5)])
    assert said(known.mapped("video", [named("def-v0", 7)])) == [(ADDED, "def-v0", 7)]


def test_an_ssrc_that_is_given_to_another_source() -> None:
    known = RemoteSources()
    known.mapped("video", [named("abc-v0", 5)])
    assert said(known.mapped("video", [named("def-v0", 5)])) == [(REMOVED, "abc-v0", 5), (ADDED, "def-v0", 5)]


def test_a_source_that_moves_to_another_ssrc() -> None:
    known = RemoteSources()
    known.mapped("video", [named("abc-v0", 5)])
    known.mapped("audio", [named("abc-a0", 6)])
    assert said(known.mapped("video", [named("abc-v0", 9)])) == [(REMOVED, "abc-v0", 5), (ADDED, "abc-v0", 9)]


def test_the_sources_of_somebody_who_leaves_are_gone_however_he_is_named() -> None:
    known = RemoteSources()
    known.mapped("audio", [named("abc-a0", 5)])
    known.added(video(("abc-v0", 6, "room@muc.meet.jitsi/abc"), ("def-v0", 7, "def")))
    assert said(known.left("abc")) == [(REMOVED, "abc-a0", 5), (REMOVED, "abc-v0", 6)]
    assert known.left("abc") == []
    assert repr(known) == "<RemoteSources 1>"


def test_their_number_is_bounded(monkeypatch: Any) -> None:
    monkeypatch.setattr(sources, "MAX_SOURCES", 2)
    known = RemoteSources()
    assert len(known.mapped("audio", [named(f"e{n}-a0", n) for n in range(1, 5)])) == 2


def test_retransmissions_are_no_sources() -> None:
    known = RemoteSources()
    groups = (SourceGroup("SIM", (1, 2)), SourceGroup("FID", (1, 11)), SourceGroup("FID", (2, 12)))
    found = tuple(Source(ssrc, "abc-v0", "abc", video_type="camera") for ssrc in (1, 2, 11, 12))
    simulcast = SourceMap(video=MediaSources(found, groups))
    assert said(known.added(simulcast)) == [(ADDED, "abc-v0", 1), (ADDED, "abc-v0", 2)]
    assert said(known.removed(simulcast)) == [(REMOVED, "abc-v0", 1), (REMOVED, "abc-v0", 2)]


def test_what_layouts_ask_for() -> None:
    known = RemoteSources()
    known.mapped("video", [named("abc-v0", 1, "camera"), named("abc-v1", 2, "desktop"), named("def-v0", 3)])
    known.mapped("audio", [named("abc-a0", 4)])
    assert list(known.videos_of("abc")) == ["abc-v0", "abc-v1"]
    assert list(known.videos_of("xyz")) == []
    assert list(known.desktops) == ["abc-v1"]
    known.left("abc")
    assert list(known.desktops) == list(known.videos_of("abc")) == []


def test_states_join_signalling_packets_and_presence() -> None:
    known = RemoteSources()
    known.added(video(("abc-v0", 1, "r@muc/abc"), ("abc-v0", 2, "r@muc/abc"), ("", 9, "jvb")))
    known.mapped("video", [named("abc-v1", 3, "desktop")])
    known.mapped("audio", [named("abc-a0", 4)])
    presence = {"abc": {"abc-v0": {"muted": True}, "abc-a0": {}, "abc-v1": "broken"}}
    received = ReceiveStatistics()
    remote = RemoteStreams(0.0)
    for ssrc, at in ((1, 1.0), (2, 2.0)):
        data = build(payload_type=100, sequence=1, timestamp=0, ssrc=ssrc, body=b"x")
        stats = received.feed(data, at, 90_000)
        assert stats is not None
        remote.received(stats, PayloadFormat(100, "video", "vp8", 90_000))
    states = known.states(remote.snapshot(3.0), presence)
    assert list(states) == ["abc-v0", "abc-v1", "abc-a0"]
    camera, screen, sound = states.values()
    assert (camera.endpoint, camera.media, camera.video_type, camera.muted) == ("abc", "video", "camera", True)
    assert camera.ssrcs == (1, 2)
    assert camera.stream is not None
    assert camera.stream.ssrc == 2  # the layer that came last
    assert (screen.video_type, screen.muted, screen.stream) == ("desktop", None, None)
    assert (sound.media, sound.video_type, sound.muted) == ("audio", None, False)


async def test_a_bot_says_that_the_sources_of_a_participant_who_left_are_gone() -> None:
    server = EmbeddedServer(port=0)
    await server.start()
    seen, other = Seen(), Seen()
    one = participant(server.url, seen, name="one", ice_addresses="127.0.0.1")
    two = participant(server.url, other, name="two", ice_addresses="127.0.0.1")
    tasks = [asyncio.create_task(one.run()), asyncio.create_task(two.run())]
    try:
        await seen.wait("remote_source_added", 4)  # the bridge's own two, and those of the other bot
        added = {event.source for event in seen.events if isinstance(event, ADDED)}
        two.stop()
        await seen.wait("participant_left")
        gone = {event.source for event in seen.events if isinstance(event, REMOVED)}
        assert gone == {source for source in added if not source.startswith("jvb-")} != set()
    finally:
        one.stop()
        two.stop()
        await asyncio.wait_for(asyncio.gather(*tasks), 15)
        await server.stop()
