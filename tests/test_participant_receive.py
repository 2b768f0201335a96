"""Two participants on the embedded server: each source with its name, decoded on request, feedback both ways."""

import asyncio
from collections.abc import AsyncIterator

import pytest
import pytest_asyncio
from av import VideoFrame

from bot.bridge import decode
from bot.bridge.decoder import DecodedFrame
from bot.bridge.session import MediaSession
from bot.embedded.server import EmbeddedServer
from bot.participant.config import expand
from bot.participant.participant import Participant
from bot.settings import load
from tests.bridge_support import until
from tests.test_participant_prosody import Seen, participant


@pytest_asyncio.fixture
async def server() -> AsyncIterator[EmbeddedServer]:
    found = EmbeddedServer(port=0)
    await found.start()
    yield found
    await found.stop()


def media_of(bot: Participant) -> MediaSession | None:
    return bot.conference.media if bot.conference else None


async def test_each_sees_and_hears_the_other_by_name(server: EmbeddedServer) -> None:
    seen, other = Seen(), Seen()
    one = participant(server.url, seen, name="one", ice_addresses="127.0.0.1", decode="all")
    two = participant(server.url, other, name="two", ice_addresses="127.0.0.1")
    tasks = [asyncio.create_task(one.run()), asyncio.create_task(two.run())]
    await seen.wait("media_connected")
    await other.wait("media_connected")
    assert two.conference is not None
    far = two.conference.room.own.rpartition("/")[2]
    media, counting = media_of(one), media_of(two)
    assert media is not None
    assert counting is not None

    def decoded() -> bool:
        found = [media.decoded(f"{far}-{kind}0") for kind in "av"]
        return all(stream is not None and stream.frames >= 20 for stream in found)

    await until(decoded)
    await until(lambda: media.round_trip is not None)
    streams = {stream.source: stream for stream in media.snapshot()}
    assert set(streams) == {f"{far}-a0", f"{far}-v0"}
    assert {(stream.media, stream.lost) for stream in streams.values()} == {("audio", 0), ("video", 0)}
    assert all(stream.owner is not None and far in stream.owner for stream in streams.values())
    assert all(0 < (stream.first_frame or 0) < 15 for stream in streams.values())
    picture = media.decoded(f"{far}-v0")
    assert picture is not None
    assert isinstance(picture.last, VideoFrame)
    assert picture.size == (640, 360)
    assert counting.snapshot()
    assert counting.decoded(counting.snapshot()[0].ssrc) is None  # decodes nothing unless told to
    two.stop()
    await until(lambda: media.snapshot() == ())  # who left is not shown any more
    one.stop()
    await asyncio.wait_for(asyncio.gather(*tasks), 15)


async def test_a_sample_goes_from_one_endpoint_to_the_next(
    server: EmbeddedServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Picture and sound of one endpoint at a time, each begun by a key frame that was asked for."""
    monkeypatch.setattr(decode, "DWELL", 1.5)
    frames: dict[int, int] = {}

    def watch(stream: decode.DecodedStream, frame: DecodedFrame) -> None:
        frames[stream.ssrc] = frames.get(stream.ssrc, 0) + 1

    seen = [Seen() for _ in range(3)]
    (config,) = expand(load(ws_url=server.url, name="one", decode="sample:2", ice_addresses="127.0.0.1"))
    bots = [Participant(config, emit=seen[0], on_frame=watch)]
    bots += [
        participant(server.url, item, name=name, ice_addresses="127.0.0.1")
        for item, name in zip(seen[1:], "ab", strict=True)
    ]
    tasks = [asyncio.create_task(bot.run()) for bot in bots]
    for item in seen:
        await item.wait("media_connected")
    media = media_of(bots[0])
    assert media is not None
    together: set[frozenset[str | None]] = set()
    far = [bot.conference.room.own.rpartition("/")[2] for bot in bots[1:] if bot.conference]
    turns = {frozenset({f"{name}-a0", f"{name}-v0"}) for name in far}

    def all_seen() -> bool:
        now = {stream.source for stream in media.snapshot() if media.decoded(stream.ssrc) is not None}
        together.add(frozenset(now))
        assert len(now) <= 2
        # The first turn can have streams of both: who comes first is not known.
        return len(frames) == 4 and min(frames.values()) >= 15 and turns <= together

    await until(all_seen, 40)
    assert media.totals().decode_dropped == 0
    for bot in bots:
        bot.stop()
    await asyncio.wait_for(asyncio.gather(*tasks), 15)
