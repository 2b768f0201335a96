"""The programs in examples/, run as they are against the embedded server."""

import asyncio
import os
import signal
import sys
from collections.abc import AsyncIterator
from pathlib import Path

import av
import numpy as np
import pytest_asyncio

from bot import events
from bot.api import Participant
from bot.embedded.server import EmbeddedServer
from bot.media.remote import RemoteTrack

LOOPBACK = {"ice_addresses": "127.0.0.1"}
EXAMPLES = Path(__file__).parents[1] / "examples"


@pytest_asyncio.fixture
async def server() -> AsyncIterator[EmbeddedServer]:
    found = EmbeddedServer(port=0)
    await found.start()
    yield found
    await found.stop()


async def example(name: str, *words: str) -> asyncio.subprocess.Process:
    environment = {**os.environ, "JITSI_ICE_ADDRESSES": "127.0.0.1"}
    return await asyncio.create_subprocess_exec(
        sys.executable,
        str(EXAMPLES / name),
        *words,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.STDOUT,
        env=environment,
    )


async def finish(process: asyncio.subprocess.Process) -> None:
    """Press Ctrl-C."""
    process.send_signal(signal.SIGINT)
    output, _ = await asyncio.wait_for(process.communicate(), 30)
    assert process.returncode == 0, output.decode()


def loudness(directory: Path) -> dict[str, float]:
    """Mean of the samples' absolute values of each file with more than half a second of stereo at 48 kHz."""
    found = {}
    for path in directory.iterdir():
        with av.open(str(path)) as file:
            sound = np.concatenate([frame.to_ndarray() for frame in file.decode(audio=0)], axis=1).astype(float)
        if sound.size > 48_000:
            found[path.name] = float(np.abs(sound).mean())
    return found


async def test_each_speaker_is_saved_into_a_file_of_his_own(server: EmbeddedServer, tmp_path: Path) -> None:
    async with (
        Participant(server.url, "room", name="one", audio="tone", **LOOPBACK) as one,
        Participant(server.url, "room", name="two", audio="tone", **LOOPBACK) as two,
    ):
        process = await example("save_speakers.py", server.url, "room", "--into", str(tmp_path))
        async for event in one.events():
            if isinstance(event, events.ParticipantJoined) and event.nick == "recorder":
                break
        expected = {f"{one.endpoint}-a0.wav", f"{two.endpoint}-a0.wav"}
        await asyncio.sleep(3)  # of sound
        await finish(process)
    assert loudness(tmp_path).keys() == expected
    assert all(level > 100 for level in loudness(tmp_path).values())


async def arrived(me: Participant, nick: str) -> str:
    """Wait for somebody and return his endpoint id."""
    async with asyncio.timeout(20):
        async for event in me.events():
            if isinstance(event, events.ParticipantJoined) and event.nick == nick:
                return event.endpoint
    raise AssertionError(f"{nick} did not come")


async def tracks_of(me: Participant, endpoint: str) -> tuple[RemoteTrack, RemoteTrack]:
    """Sound and picture of a participant as soon as both are known."""
    async with asyncio.timeout(20):
        while not {f"{endpoint}-a0", f"{endpoint}-v0"} <= set(me.tracks):  # noqa: ASYNC110 -- of many changes
            await asyncio.sleep(0.05)
    return me.tracks[f"{endpoint}-a0"], me.tracks[f"{endpoint}-v0"]


async def loud(track: RemoteTrack, level: float) -> None:
    """Wait for a frame whose samples are so large in the mean."""
    while True:
        frame = await track.recv()
        if isinstance(frame, av.AudioFrame) and np.abs(frame.to_ndarray().astype(float)).mean() > level:
            return


async def picture(track: RemoteTrack) -> av.VideoFrame:
    frame = await track.recv()
    assert isinstance(frame, av.VideoFrame)
    return frame


async def test_the_echo_gives_back_sound_picture_and_messages(server: EmbeddedServer) -> None:
    async with Participant(server.url, "room", name="one", audio="tone", decode="all", **LOOPBACK) as one:
        process = await example("echo.py", server.url, "room")
        audio, video = await tracks_of(one, await arrived(one, "echo"))
        async with asyncio.timeout(20):
            await loud(audio, 100)
            frame = await picture(video)
            one.send_endpoint_message({"ask": 7})
            one.room.send_chat("hello")
            answers: list[object] = []
            async for event in one.events():
                if isinstance(event, events.EndpointMessageReceived):
                    answers.append(event.payload)
                if isinstance(event, events.ChatMessageReceived):
                    answers.append((event.nick, event.body))
                if len(answers) == 2:
                    break
            assert {"ask": 7} in answers
            assert ("echo", "hello") in answers
        assert (frame.width, frame.height) == (640, 360)
        assert frame.to_ndarray(format="gray").std() > 10
        await finish(process)


async def test_a_file_is_played(server: EmbeddedServer, tmp_path: Path) -> None:
    file = tmp_path / "clip.mkv"
    with av.open(str(file), "w") as container:
        sound = container.add_stream("libopus", rate=48_000, layout="stereo")
        pictures = container.add_stream("libvpx", rate=10, width=320, height=240, pix_fmt="yuv420p")
        wave = (8000 * np.sin(np.arange(48_000) * 2 * np.pi * 440 / 48_000)).astype(np.int16)
        for number in range(10):
            image = np.full((240, 320, 3), 25 * number, np.uint8)
            container.mux(pictures.encode(av.VideoFrame.from_ndarray(image, "rgb24")))
        for start in range(0, 48_000, 960):
            samples = av.AudioFrame.from_ndarray(wave[start : start + 960].repeat(2)[None], "s16", "stereo")
            samples.sample_rate, samples.pts = 48_000, start
            container.mux(sound.encode(samples))
        container.mux(sound.encode(None))
        container.mux(pictures.encode(None))
    async with Participant(server.url, "room", name="one", video="none", decode="all", **LOOPBACK) as one:
        process = await example("play_file.py", server.url, "room", str(file))
        audio, video = await tracks_of(one, await arrived(one, "player"))
        async with asyncio.timeout(20):
            await loud(audio, 1000)
            seen = [await picture(video) for _ in range(15)]
        assert {(frame.width, frame.height) for frame in seen} == {(320, 240)}
        assert np.std([frame.to_ndarray(format="gray").mean() for frame in seen]) > 20
        await finish(process)
