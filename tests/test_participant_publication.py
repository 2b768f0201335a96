"""What one media session has of our sources, with a media session and a focus of the test's own."""

from __future__ import annotations

import asyncio
from typing import Any, cast

import pytest

from bot.bridge.session import MediaSession, OwnSource, OwnSsrcs
from bot.errors import MediaError
from bot.jingle.model import Action, SourceMap
from bot.media.feed import Feed
from bot.participant.clips import ClipSource
from bot.participant.publication import Publication


class Media:
    """Notes what it is told to send."""

    def __init__(self) -> None:
        self.ssrcs = OwnSsrcs(1, 2, 3)
        self.did: list[str] = []

    async def publish(self, source: OwnSource, track: object, codec: str) -> None:
        self.did.append(f"publish {source.name} {codec}")

    async def unpublish(self, name: str) -> None:
        self.did.append(f"unpublish {name}")

    def request_key_frame(self, name: str) -> None:
        self.did.append(f"key {name}")

    def switch_codec(self, name: str, codec: str) -> None:
        self.did.append(f"switch {name} {codec}")


class Local:
    """A source of ours."""

    def __init__(self, label: str) -> None:
        self.label = label
        self.feed = Feed("audio" if label.startswith("a") else "video")
        self.video_type = "desktop" if label == "v1" else None
        self.clip: ClipSource | None = None
        self.max_height: int | None = None


class Bench:
    """A publication; ``refusal`` is what the focus has against the next request, ``answer`` lets it answer."""

    def __init__(self) -> None:
        self.media = Media()
        self.asked: list[Action] = []
        self.refusal: Exception | None = None
        self.answer = asyncio.Event()
        self.answer.set()
        self.publication = Publication(cast("MediaSession", self.media), "me", "vp8", self._request)

    async def _request(self, action: Action, sources: SourceMap) -> None:
        assert sources
        self.asked.append(action)
        await self.answer.wait()
        if self.refusal is not None:
            raise self.refusal


async def test_sources_of_the_accept_are_sent_once_the_transport_is_there() -> None:
    bench = Bench()
    for label in ("a0", "v0"):
        bench.publication.allocate(Local(label))
    assert repr(bench.publication) == "<Publication a0, v0 vp8>"
    assert [source.ssrc for source in bench.publication.sources.video.sources] == [2, 3]
    bench.publication.accepted()
    bench.publication.use_codec("h264")
    await bench.publication.start()
    await bench.publication.start()
    assert bench.media.did == ["switch me-v0 h264", "publish me-a0 opus", "publish me-v0 h264"]
    assert bench.asked == []


async def test_later_ones_wait_for_the_accept_and_for_the_transport() -> None:
    bench = Bench()
    adding = asyncio.create_task(bench.publication.add(desk := Local("v1")))
    await asyncio.sleep(0)
    assert bench.asked == []
    bench.publication.accepted()
    await adding
    assert (bench.asked, bench.media.did) == ([Action.SOURCE_ADD], [])
    await bench.publication.start()
    await bench.publication.remove(desk)
    bench.publication.resume(desk)
    await bench.publication.remove(desk)
    assert bench.asked == [Action.SOURCE_ADD, Action.SOURCE_REMOVE]
    assert bench.media.did == ["publish me-v1 vp8", "unpublish me-v1"]
    assert not bench.publication.sources


async def test_who_comes_again_has_other_ssrcs() -> None:
    """A stream can't begin anew under its old SSRC: SRTP would take its packets for replayed ones."""
    bench = Bench()
    bench.publication.allocate(camera := Local("v0"))
    bench.publication.accepted()
    await bench.publication.start()
    await bench.publication.remove(camera)
    await bench.publication.add(Local("v0"))
    ssrcs = {source.ssrc for source in bench.publication.sources.video.sources}
    assert len(ssrcs) == 2
    assert ssrcs.isdisjoint({1, 2, 3})


async def test_the_focus_may_refuse() -> None:
    bench = Bench()
    bench.publication.accepted()
    bench.refusal = MediaError("too many")
    with pytest.raises(MediaError, match="too many"):
        await bench.publication.add(Local("v1"))
    assert not bench.publication.sources
    bench.publication.allocate(camera := Local("v0"))
    await bench.publication.remove(camera)  # gone is gone, whatever the focus says
    assert bench.media.did == ["unpublish me-v0"]


@pytest.mark.parametrize("refusal", [None, MediaError("no such session")])
async def test_a_session_that_ends_in_between_is_no_error(refusal: Any) -> None:
    bench = Bench()
    bench.publication.accepted()
    await bench.publication.start()
    bench.answer.clear()
    adding = asyncio.create_task(bench.publication.add(Local("v1")))
    await asyncio.sleep(0)
    bench.publication.close()
    bench.refusal = refusal
    bench.answer.set()
    await adding
    await bench.publication.add(Local("v2"))
    await bench.publication.remove(Local("v1"))
    assert (bench.asked, bench.media.did) == ([Action.SOURCE_ADD], [])


async def test_a_session_that_ends_before_its_accept_lets_nobody_wait() -> None:
    bench = Bench()
    adding = asyncio.create_task(bench.publication.add(Local("v1")))
    await asyncio.sleep(0)
    bench.publication.close()
    await asyncio.wait_for(adding, 1)
    assert bench.asked == []
