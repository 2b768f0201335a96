"""A foreign web client in a real browser proves the embedded server, and the bot that stands in its room."""

import asyncio
import random
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import pytest
import pytest_asyncio
from playwright.async_api import Browser

from bot import events
from bot.bridge.receiver import CountedStream
from bot.clips.spec import DEFAULT_DURATION
from bot.embedded.bridge import Bridge
from bot.embedded.config import EmbeddedConfig
from bot.embedded.server import EmbeddedServer
from bot.media.pattern import read_number
from bot.participant.participant import Participant
from tests.browser_support import Picture, WebClient, chromium, static_paths, until, web_packages
from tests.test_participant_prosody import Seen, participant

pytestmark = [pytest.mark.browser, pytest.mark.timeout(180)]

#: Frames of a clip, which then begins again with its first number.
LOOP = int(DEFAULT_DURATION * 30)
ROOM = "jitsi-bot"


@pytest_asyncio.fixture
async def browser() -> AsyncIterator[Browser]:
    web_packages()
    async with chromium() as found:
        yield found


@pytest_asyncio.fixture
async def server() -> AsyncIterator[EmbeddedServer]:
    # Short times: who is lost can be resumed, and who is alone keeps his session, for so long only.
    config = EmbeddedConfig(resume_timeout=3.0, single_participant_timeout=2.0)
    found = EmbeddedServer(port=0, config=config, static=static_paths(web_packages()))
    await found.start()
    yield found
    await found.stop()


@asynccontextmanager
async def standing(server: EmbeddedServer, seen: Seen, name: str, **more: Any) -> AsyncIterator[Participant]:
    """A bot that is in the room; it leaves at the end unless it was stopped before."""
    bot = participant(server.url, seen, name=name, ice_addresses="127.0.0.1", talk="always", **more)
    task = asyncio.create_task(bot.run())
    try:
        await seen.wait("local_tracks_created")
        yield bot
    finally:
        bot.stop()
        await asyncio.wait_for(task, 15)


def endpoint_of(bot: Participant) -> str:
    assert bot.conference is not None
    return bot.conference.room.own.partition("/")[2]


async def source(seen: Seen, name: str) -> events.RemoteSourceAdded:
    """The event by which a bot learns of the source ``name``."""

    async def found() -> events.RemoteSourceAdded | None:
        added = [event for event in seen.events if isinstance(event, events.RemoteSourceAdded)]
        return next((event for event in added if event.source == name), None)

    event = await until(found, f"event of source {name}")
    assert isinstance(event, events.RemoteSourceAdded)
    return event


async def stream(bot: Participant, ssrc: int, packets: int) -> CountedStream:
    """Statistics of a stream when a bot has received ``packets`` of it."""

    async def found() -> CountedStream | None:
        media = bot.conference.media if bot.conference is not None else None
        stats = media.received.streams.get(ssrc) if media is not None else None
        return stats if stats is not None and stats.packets >= packets else None

    stats: CountedStream | None = await until(found, f"{packets} packets of SSRC {ssrc}")
    assert stats is not None
    return stats


async def watched(client: WebClient, endpoint: str, frames: int = 1) -> Picture:
    """The picture of ``endpoint`` once so many of its frames were presented."""

    async def found() -> Picture | None:
        picture = await client.picture(endpoint)
        return picture if picture is not None and picture.frames >= frames else None

    picture = await until(found, f"{frames} frames of {endpoint}")
    assert isinstance(picture, Picture)
    return picture


async def test_a_web_client_and_a_bot_see_and_hear_each_other(server: EmbeddedServer, browser: Browser) -> None:
    seen = Seen()
    async with standing(server, seen, "one") as bot, WebClient.open(browser, "one-bot") as client:
        await client.join(server.url, ROOM, "web")
        far = endpoint_of(bot)
        assert await client.participants() == [far]
        assert {"name": "user_joined", "endpoint": far, "nick": "one"} in await client.events("user_joined")
        await client_sees(client, far)
        await client_hears(client, far)
        await bot_receives(bot, seen, client.endpoint)
        assert await client.events("bridge_channel_opened") != []
        picture = await client.screenshot("one-bot")
        assert picture.stat().st_size > 10_000
        assert await client.events("conference_error") == []


async def client_sees(client: WebClient, far: str) -> None:
    first = await watched(client, far)
    decoded = (await client.inbound(far, "video"))["framesDecoded"]
    second = await watched(client, far, first.frames + 30)
    assert (second.width, second.height) == (640, 360)
    # Asked for later than the first picture was watched: by then some of the 30 frames had come.
    assert (await client.inbound(far, "video"))["framesDecoded"] >= decoded + 5
    assert second.luma.max() > 180
    assert second.luma.std() > 20
    assert second.changed(first) > 0.03  # a picture that stands still has less than 0.005
    numbers = read_number(first.luma), read_number(second.luma)
    assert numbers[0] is not None
    assert numbers[1] is not None
    assert 20 <= (numbers[1] - numbers[0]) % LOOP < LOOP - 30  # onwards, and perhaps over the clip's end


async def client_hears(client: WebClient, far: str) -> None:
    before = (await client.inbound(far, "audio")).get("totalAudioEnergy", 0.0)

    async def louder() -> bool:
        now = await client.inbound(far, "audio")
        return bool(now.get("totalAudioEnergy", 0.0) > before and now["audioLevel"] > 0.01)

    await until(louder, f"sound of {far}")


async def bot_receives(bot: Participant, seen: Seen, far: str) -> None:
    joined = await seen.wait("participant_joined")
    assert isinstance(joined, events.ParticipantJoined)
    assert (joined.endpoint, joined.nick) == (far, "web")
    for name, media in ((f"{far}-a0", "audio"), (f"{far}-v0", "video")):
        added = await source(seen, name)
        assert (added.media, added.owner) == (media, far)
        stats = await stream(bot, added.ssrc, 60)
        assert stats.lost <= stats.expected // 100


async def removed(seen: Seen, name: str) -> events.RemoteSourceRemoved:
    """The event by which a bot learns that the source ``name`` is gone."""

    async def found() -> events.RemoteSourceRemoved | None:
        gone = [event for event in seen.events if isinstance(event, events.RemoteSourceRemoved)]
        return next((event for event in gone if event.source == name), None)

    event = await until(found, f"removal of source {name}")
    assert isinstance(event, events.RemoteSourceRemoved)
    return event


async def told(client: WebClient, name: str, endpoint: str) -> None:
    """Wait until the web client has the event ``name`` of ``endpoint``."""

    async def found() -> bool:
        return any(event["endpoint"] == endpoint for event in await client.events(name))

    await until(found, f"{name} of {endpoint}")


async def test_bots_come_and_go_and_the_web_client_sees_it(server: EmbeddedServer, browser: Browser) -> None:
    first, later = Seen(), Seen()
    async with WebClient.open(browser, "come-and-go") as client:
        async with standing(server, first, "first") as bot:
            await client.join(server.url, ROOM, "web")
            gone = endpoint_of(bot)
            await watched(client, gone, 10)
            bot.stop()
            await told(client, "user_left", gone)
        assert await client.participants() == []
        await told(client, "track_removed", gone)
        assert await client.picture(gone) is None

        async def alone() -> bool:
            return any('action="session-terminate"' in text for text in client.dialogue)

        await until(alone, "the end of the session of who is alone")
        async with standing(server, later, "later") as bot:
            await told(client, "user_joined", endpoint_of(bot))
            assert endpoint_of(bot) != gone
            await client_sees(client, endpoint_of(bot))
            await client_hears(client, endpoint_of(bot))
            await bot_receives(bot, later, client.endpoint)
            await client.leave()
            await later.wait("participant_left")
            for media in ("a0", "v0"):
                await removed(later, f"{client.endpoint}-{media}")


async def test_two_web_clients_and_a_bot_of_which_one_crashes(server: EmbeddedServer, browser: Browser) -> None:
    seen = Seen()
    async with (
        standing(server, seen, "one") as bot,
        WebClient.open(browser, "three-way-left") as left,
        WebClient.open(browser, "three-way-right") as right,
    ):
        await left.join(server.url, ROOM, "left", height=180)
        await right.join(server.url, ROOM, "right", height=180)
        for client, other in ((left, right), (right, left)):
            for far in (endpoint_of(bot), other.endpoint):
                await watched(client, far, 10)
                await client_hears(client, far)
        for client in (left, right):
            for media in ("a0", "v0"):
                added = await source(seen, f"{client.endpoint}-{media}")
                stats = await stream(bot, added.ssrc, 30)
                assert stats.lost <= stats.expected // 100
        await left.screenshot("three-way")

        camera = await stream(bot, (await source(seen, f"{right.endpoint}-v0")).ssrc, 1)
        await stream(bot, camera.ssrc, camera.packets + 10)
        await right.mute("video")

        async def still() -> bool:
            before = camera.packets
            await asyncio.sleep(1)
            return camera.packets == before

        await until(still, "the muted video stops coming")
        sound = await stream(bot, (await source(seen, f"{right.endpoint}-a0")).ssrc, 1)
        await stream(bot, sound.ssrc, sound.packets + 20)

        await right.crash()
        for media in ("a0", "v0"):
            await removed(seen, f"{right.endpoint}-{media}")
        await told(left, "user_left", right.endpoint)
        assert sorted(await left.participants()) == [endpoint_of(bot)]
        shown = await watched(left, endpoint_of(bot))
        await watched(left, endpoint_of(bot), shown.frames + 20)


#: Height that is asked for, as the bridge counts the layers; width and height of that layer.
LAYERS = ((180, (160, 90)), (360, (320, 180)), (720, (640, 360)))


async def switched(client: WebClient, far: str, size: tuple[int, int]) -> Picture:
    """The picture of ``far`` once it has this size, and moves."""

    async def found() -> Picture | None:
        picture = await client.picture(far)
        return picture if picture is not None and (picture.width, picture.height) == size else None

    picture = await until(found, f"{size[0]}x{size[1]} of {far}")
    return await watched(client, far, picture.frames + 15)


def assert_right(picture: Picture, before: Picture) -> None:
    """It shows the pattern, sharp and in motion."""
    assert picture.luma.max() > 180
    assert picture.luma.std() > 20
    assert picture.changed(before) > 0.03


async def test_a_browser_decodes_all_three_layers_also_with_loss(
    server: EmbeddedServer, browser: Browser, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Of each layer the picture is right, and it never stands still; then 1 in 20 packets is lost and repaired."""
    seen, dice, lost = Seen(), random.Random(5), 0
    forward = Bridge._rtp

    def shaky(bridge: Bridge, conference: Any, sender: Any, data: bytes) -> None:
        nonlocal lost
        if losing and dice.random() < 0.05:
            lost += 1
        else:
            forward(bridge, conference, sender, data)

    losing = False
    monkeypatch.setattr(Bridge, "_rtp", shaky)
    async with standing(server, seen, "one", simulcast=True) as bot, WebClient.open(browser, "layers") as client:
        await client.join(server.url, ROOM, "web", height=180)
        far = endpoint_of(bot)
        await watched(client, far)
        frozen = (await client.inbound(far, "video"))["freezeCount"]
        for height, size in (*LAYERS, LAYERS[0], LAYERS[2]):
            await client.constrain(height)
            first = await switched(client, far, size)
            assert_right(await watched(client, far, first.frames + 10), first)
        assert (await client.inbound(far, "video"))["freezeCount"] == frozen

        losing, before = True, await client.inbound(far, "video")
        first = await watched(client, far)
        await watched(client, far, first.frames + 120)
        losing, after = False, await client.inbound(far, "video")
        assert lost > 20
        assert after["nackCount"] > before["nackCount"]
        # Most are repaired in time: of 30 frames a second few are missing.
        passed = (after["timestamp"] - before["timestamp"]) / 1000
        assert after["framesDecoded"] - before["framesDecoded"] > 22 * passed
        shown = await watched(client, far)
        later = await watched(client, far, shown.frames + 30)
        assert_right(later, shown)
        numbers = read_number(shown.luma), read_number(later.luma)
        assert numbers[0] is not None
        assert numbers[1] is not None
        await client.screenshot("layers")
