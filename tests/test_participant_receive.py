"""Two participants on the embedded server: each source with its name, decoded on request, feedback both ways."""

import asyncio
from collections.abc import AsyncIterator

import pytest_asyncio
from av import VideoFrame

from bot.bridge.session import MediaSession
from bot.embedded.server import EmbeddedServer
from bot.participant.participant import Participant
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
