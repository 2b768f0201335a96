"""A feed between any track and any sender: exchange, mute, pause, ends."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from fractions import Fraction
from typing import Any

import numpy as np
import pytest
from aiortc.contrib.media import MediaRelay
from aiortc.mediastreams import MediaStreamError, MediaStreamTrack
from av import AudioFrame, Packet, VideoFrame

from bot.bridge._aiortc import audio_level
from bot.media.feed import SILENT_FRAMES, Feed, Kind, Outlet
from bot.media.synthetic import SyntheticAudioTrack, SyntheticVideoTrack
from tests.bridge_support import until


class Given(MediaStreamTrack):
    """A track of somebody else's: gives what it is given, and counts how often it was read."""

    def __init__(self, kind: str) -> None:
        super().__init__()
        self.kind = kind
        self.reads = 0
        self._queue: asyncio.Queue[Any] = asyncio.Queue()

    def give(self, *items: Any) -> None:
        for item in items:
            self._queue.put_nowait(item)

    async def recv(self) -> Any:
        item = await self._queue.get()
        self.reads += 1
        if isinstance(item, Exception):
            raise item
        return item


def picture(pts: int, width: int = 160, height: int = 90, form: str = "yuv420p") -> VideoFrame:
    frame = VideoFrame(width, height, form)
    frame.pts, frame.time_base = pts, Fraction(1, 1000)
    return frame


def packet(pts: int, *, key: bool) -> Packet[Any]:
    found: Packet[Any] = Packet(bytes([pts]))
    found.pts, found.time_base, found.is_keyframe = pts, Fraction(1, 1000), key
    return found


def sound(pts: int, samples: int = 441, rate: int = 44_100, layout: str = "mono") -> AudioFrame:
    frame = AudioFrame(format="s16", layout=layout, samples=samples)
    frame.planes[0].update(np.full(frame.planes[0].buffer_size // 2, 9000, np.int16).tobytes())
    frame.sample_rate, frame.pts, frame.time_base = rate, pts, Fraction(1, rate)
    return frame


class Clock:
    def __init__(self) -> None:
        self.now = 100.0

    def __call__(self) -> float:
        return self.now


@asynccontextmanager
async def feeding(
    kind: Kind, track: MediaStreamTrack | None, clock: Callable[[], float] | None = None
) -> AsyncIterator[tuple[Feed, Outlet, list[str]]]:
    ended: list[str] = []
    more = {} if clock is None else {"clock": clock}
    feed = Feed(kind, on_ended=lambda _, cause: ended.append(cause), **more)
    feed.set_track(track)
    outlet = feed.outlet()
    feed.start()
    try:
        yield feed, outlet, ended
    finally:
        await feed.close()


async def soon(outlet: Outlet) -> Any:
    return await asyncio.wait_for(outlet.recv(), 5)


async def nothing_from(outlet: Outlet) -> None:
    with pytest.raises(TimeoutError):
        await asyncio.wait_for(outlet.recv(), 0.15)


async def test_a_replaced_track_goes_on_in_the_same_stream() -> None:
    clock, one, two = Clock(), Given("video"), Given("video")
    async with feeding("video", one, clock) as (feed, outlet, _):
        one.give(picture(7000), picture(7033))
        first, second = await soon(outlet), await soon(outlet)
        assert (first.pts, second.pts, first.time_base) == (0, 2970, Fraction(1, 90_000))
        clock.now += 0.5
        assert feed.set_track(two) is one
        two.give(picture(0, 320, 180))
        third = await soon(outlet)
        assert (third.pts, third.width) == (2970 + 45_000, 320)
        assert one.readyState == "live"


async def test_a_track_that_hangs_can_be_replaced() -> None:
    one, two = Given("video"), Given("video")
    async with feeding("video", one) as (feed, outlet, ended):
        waiting = asyncio.create_task(outlet.recv())
        await asyncio.sleep(0.01)
        feed.set_track(two)
        two.give(picture(0))
        assert (await asyncio.wait_for(waiting, 5)).pts == 0
        assert ended == []


async def test_a_muted_or_paused_picture_is_not_read_where_that_is_enough() -> None:
    track = SyntheticVideoTrack("room", "a", 160, 90)
    async with feeding("video", track) as (feed, outlet, _):
        await soon(outlet)
        for name in ("muted", "paused"):
            setattr(feed, name, True)
            before = track._pacer._next
            await nothing_from(outlet)
            assert track._pacer._next == before
            setattr(feed, name, False)
            await soon(outlet)
    track.stop()


async def test_frames_of_a_foreign_track_do_not_pile_up_meanwhile() -> None:
    track = Given("video")
    async with feeding("video", track) as (feed, outlet, _):
        feed.paused = True
        track.give(*(picture(number) for number in range(10)))
        await until(lambda: track.reads == 10)
        feed.paused = False
        waiting = asyncio.create_task(outlet.recv())
        track.give(picture(500))
        assert (await asyncio.wait_for(waiting, 5)).pts == 0


async def test_without_an_outlet_a_foreign_track_is_read_and_the_next_session_goes_on_with_it() -> None:
    track = Given("audio")
    async with feeding("audio", track) as (feed, outlet, _):
        outlet.stop()
        assert track.readyState == "live"
        with pytest.raises(MediaStreamError):
            await outlet.recv()
        track.give(sound(0), sound(441))
        await until(lambda: track.reads == 2)
        second = feed.outlet()
        track.give(*(sound(number * 441) for number in range(2, 9)))
        assert (await soon(second)).pts == 0
        third = feed.outlet()
        assert (second.readyState, third.readyState) == ("ended", "live")


async def test_any_sound_comes_as_the_encoder_takes_it() -> None:
    track = Given("audio")
    async with feeding("audio", track) as (feed, outlet, _):
        track.give(*(sound(number * 441) for number in range(8)))
        frames = [await soon(outlet) for _ in range(3)]
        assert [frame.pts for frame in frames] == [0, 960, 1920]
        assert {(f.format.name, f.layout.name, f.sample_rate, f.samples) for f in frames} == {
            ("s16", "stereo", 48_000, 960)
        }
        feed.set_track(stereo := Given("audio"))  # of another form: aiortc's encoder would die of it
        stereo.give(*(sound(number * 480, 480, 48_000, "stereo") for number in range(4)))
        assert (await soon(outlet)).pts > 1920


@pytest.mark.parametrize("form", ["rgb24", "yuv420p"])
async def test_pictures_are_ours_alone_with_even_sides(form: str) -> None:
    track, given = Given("video"), picture(7, 163, 91, form)
    async with feeding("video", track) as (_, outlet, _ended):
        track.give(given)
        frame = await soon(outlet)
        assert (frame.width, frame.height, frame.format.name) == (162, 90, "yuv420p")
    assert given.pts == 7


async def test_two_feeds_of_one_relay_do_not_disturb_each_other() -> None:
    track, relay = Given("video"), MediaRelay()
    one, two = relay.subscribe(track), relay.subscribe(track)
    async with feeding("video", one) as (_, left, _a), feeding("video", two) as (_feed, right, _b):
        waiting = [asyncio.create_task(outlet.recv()) for outlet in (left, right)]
        await asyncio.sleep(0.05)
        given = picture(40)
        track.give(given)
        frames = await asyncio.wait_for(asyncio.gather(*waiting), 5)
    assert frames[0] is not frames[1]
    assert [frame.pts for frame in frames] == [0, 0]
    assert given.pts == 40
    track.give(MediaStreamError())  # the relay's own task ends with its source only


async def test_encoded_packets_begin_with_a_key_frame() -> None:
    track = Given("video")
    async with feeding("video", track) as (feed, outlet, _):
        track.give(packet(1, key=False), packet(2, key=True), packet(3, key=False))
        first, second = await soon(outlet), await soon(outlet)
        assert (bytes(first), bytes(second)) == (b"\x02", b"\x03")
        assert (first.pts, second.pts) == (0, 90)
        feed.muted = True
        feed.muted = False
        track.give(packet(4, key=False), packet(5, key=True))
        assert bytes(await soon(outlet)) == b"\x05"


async def test_a_muted_sound_ends_in_silence_and_goes_on_where_time_is() -> None:
    track = SyntheticAudioTrack("a", mode="tone")
    async with feeding("audio", track) as (feed, outlet, _):
        before = [await soon(outlet) for _ in range(3)]
        assert {audio_level(frame) for frame in before} == {-20}
        feed.muted = True
        began = asyncio.get_running_loop().time()
        silence = [await soon(outlet) for _ in range(SILENT_FRAMES + 2)]
        took = asyncio.get_running_loop().time() - began
        assert {audio_level(frame) for frame in silence} == {-127}
        assert took > 2 * 0.35
        feed.muted = False
        after = await soon(outlet)
        assert audio_level(after) == -20
        stamps = [frame.pts for frame in (*before, *silence, after)]
        assert stamps == sorted(set(stamps))
        assert stamps[-1] - stamps[2] == pytest.approx(took * 48_000, abs=0.3 * 48_000)
    track.stop()


@pytest.mark.parametrize(
    ("end", "said"),
    [
        (lambda track: track.give(MediaStreamError()), "it ended"),
        (lambda track: track.give(RuntimeError("broken")), "it failed: RuntimeError('broken')"),
    ],
    ids=["ends", "fails"],
)
@pytest.mark.parametrize("muted", [False, True])
async def test_a_track_that_ends_is_told_once_and_ends_no_stream(
    end: Callable[[Given], None], said: str, muted: bool
) -> None:
    track, other = Given("video"), Given("video")
    async with feeding("video", track) as (feed, outlet, ended):
        feed.muted = muted
        waiting = asyncio.create_task(outlet.recv())
        end(track)
        await until(lambda: bool(ended))
        assert (ended, feed.track, feed.silent) == ([said], None, True)
        feed.muted = False
        feed.set_track(other)
        other.give(picture(0))
        assert (await asyncio.wait_for(waiting, 5)).pts == 0
        assert outlet.readyState == "live"


async def test_a_track_that_is_stopped_while_nobody_reads_it_is_noticed() -> None:
    track = SyntheticVideoTrack("room", "a", 160, 90)
    async with feeding("video", track) as (feed, _, ended):
        feed.muted = True
        await asyncio.sleep(0.01)
        track.stop()
        await until(lambda: bool(ended))
    assert ended == ["it ended"]


async def test_a_replaced_track_keeps_no_listener() -> None:
    track = Given("video")
    async with feeding("video", track) as (feed, _, _ended):
        await asyncio.sleep(0.01)
        assert track.listeners("ended")
        feed.set_track(None)
        await asyncio.sleep(0.01)
        assert not track.listeners("ended")


async def test_what_cannot_be_published_is_refused() -> None:
    feed = Feed("video")
    ended = Given("video")
    ended.stop()
    for wrong, said in (
        (Given("audio"), "of video is needed"),
        (ended, "has ended"),
        ("film", "MediaStreamTrack"),
    ):
        with pytest.raises(ValueError, match=said):
            feed.set_track(wrong)  # type: ignore[arg-type]
    assert feed.track is None
    assert repr(feed) == "<Feed video None>"


async def test_the_reprs_tell_the_state() -> None:
    async with feeding("video", None) as (feed, outlet, _):
        feed.muted = feed.paused = True
        assert repr(feed) == "<Feed video None muted paused>"
        assert repr(outlet) == "<Outlet video live <Timeline 90000 Hz last=None>>"
