"""Remote sources: what is reported of offers, source-adds and the bridge's maps."""

import asyncio
from typing import Any

from bot import events
from bot.bridge.channel import mapped_sources
from bot.embedded.server import EmbeddedServer
from bot.jingle.model import MediaSources, Source, SourceMap
from bot.participant import sources
from bot.participant.sources import Change, RemoteSources
from tests.test_participant_prosody import Seen, participant

ADDED, REMOVED = events.RemoteSourceAdded, events.RemoteSourceRemoved


def said(changes: list[Change]) -> list[tuple[Any, str, int]]:
    return [(kind, item.source, item.ssrc) for kind, item in changes]


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
    assert said(known.mapped("video", mapped_sources({"mappedSources": [first]}))) == [(ADDED, "abc-v0", 5)]
    both = mapped_sources({"mappedSources": [first, second]})
    assert said(known.mapped("video", both)) == [(ADDED, "def-v0", 7)]


def test_a_map_without_a_source_does_not_remove_it() -> None:
    """Videobridge's maps name what is new or moved only."""
    known = RemoteSources()
    known.mapped("video", [("abc-v0", "abc", 5)])
    assert said(known.mapped("video", [("def-v0", "def", 7)])) == [(ADDED, "def-v0", 7)]


def test_an_ssrc_that_is_given_to_another_source() -> None:
    known = RemoteSources()
    known.mapped("video", [("abc-v0", "abc", 5)])
    assert said(known.mapped("video", [("def-v0", "def", 5)])) == [(REMOVED, "abc-v0", 5), (ADDED, "def-v0", 5)]


def test_a_source_that_moves_to_another_ssrc() -> None:
    known = RemoteSources()
    known.mapped("video", [("abc-v0", "abc", 5)])
    known.mapped("audio", [("abc-a0", "abc", 6)])
    assert said(known.mapped("video", [("abc-v0", "abc", 9)])) == [(REMOVED, "abc-v0", 5), (ADDED, "abc-v0", 9)]


def test_the_sources_of_somebody_who_leaves_are_gone_however_he_is_named() -> None:
    known = RemoteSources()
    known.mapped("audio", [("abc-a0", "abc", 5)])
    known.added(video(("abc-v0", 6, "room@muc.meet.jitsi/abc"), ("def-v0", 7, "def")))
    assert said(known.left("abc")) == [(REMOVED, "abc-a0", 5), (REMOVED, "abc-v0", 6)]
    assert known.left("abc") == []
    assert repr(known) == "<RemoteSources 1>"


def test_their_number_is_bounded(monkeypatch: Any) -> None:
    monkeypatch.setattr(sources, "MAX_SOURCES", 2)
    known = RemoteSources()
    assert len(known.mapped("audio", [(f"e{n}-a0", f"e{n}", n) for n in range(1, 5)])) == 2


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
