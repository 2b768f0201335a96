"""Remote tracks: frames in, frames out, and their end."""

import asyncio

import pytest
from aiortc.mediastreams import MediaStreamError
from av import VideoFrame

from bot.media.remote import BACKLOG, RemoteTrack, RemoteTracks


def frame(number: int) -> VideoFrame:
    found = VideoFrame(16, 16, "yuv420p")
    found.pts = number
    return found


async def test_frames_come_out_in_their_order_and_a_reader_waits() -> None:
    track = RemoteTrack("video", "a-v0", "a")
    waiting = asyncio.create_task(track.recv())
    await asyncio.sleep(0)
    track.put(frame(1))
    track.put(frame(2))
    assert (await waiting).pts == 1
    assert (await track.recv()).pts == 2
    assert repr(track) == "<RemoteTrack video a-v0 live>"


async def test_a_slow_reader_gets_the_newest() -> None:
    track = RemoteTrack("video", "a-v0", "a")
    for number in range(BACKLOG + 5):
        track.put(frame(number))
    assert track.dropped == 5
    assert (await track.recv()).pts == 5


async def test_a_track_that_ends_gives_what_is_left_and_then_says_so() -> None:
    track = RemoteTrack("video", "a-v0", "a")
    track.put(frame(1))
    track.stop()
    track.put(frame(2))
    assert (await track.recv()).pts == 1
    with pytest.raises(MediaStreamError):
        await track.recv()
    waiting = RemoteTrack("video", "b-v0", "b")
    task = asyncio.create_task(waiting.recv())
    await asyncio.sleep(0)
    waiting.stop()
    with pytest.raises(MediaStreamError):
        await task


async def test_a_source_keeps_its_track_on_another_ssrc_and_loses_it_with_the_last_one() -> None:
    added: list[RemoteTrack] = []
    tracks = RemoteTracks(added.append)
    tracks.add("video", "a-v0", "a", 1)
    tracks.add("video", "a-v0", "a", 2)
    tracks.remove("a-v0", 1)
    tracks.frame(1, frame(1))
    tracks.frame(2, frame(2))
    tracks.frame(3, frame(3))
    (track,) = added
    assert tracks["a-v0"] is track
    assert (await track.recv()).pts == 2
    tracks.remove("a-v0", 2)
    tracks.remove("a-v0", 2)
    assert track.readyState == "ended"
    assert len(tracks) == 0


async def test_an_ssrc_that_is_given_to_another_source_carries_its_frames() -> None:
    tracks = RemoteTracks()
    tracks.add("video", "a-v0", "a", 1)
    tracks.add("video", "b-v0", "b", 1)
    tracks.remove("a-v0", 1)
    tracks.frame(1, frame(7))
    assert (await tracks["b-v0"].recv()).pts == 7
    assert list(tracks) == ["b-v0"]
    tracks.close()
    assert list(tracks) == []
