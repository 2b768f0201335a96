"""The programs in examples/, run as they are against the embedded server."""

import asyncio
import os
import sys
from collections.abc import AsyncIterator
from pathlib import Path

import av
import numpy as np
import pytest_asyncio

from bot import events
from bot.api import Participant
from bot.embedded.server import EmbeddedServer

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


async def finished(process: asyncio.subprocess.Process) -> None:
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
        Participant(server.url, "room", name="one", audio="tone", ice_addresses="127.0.0.1") as one,
        Participant(server.url, "room", name="two", audio="tone", ice_addresses="127.0.0.1") as two,
    ):
        process = await example("save_speakers.py", server.url, "room", "--into", str(tmp_path), "--seconds", "7")
        async for event in one.events():
            if isinstance(event, events.ParticipantJoined) and event.nick == "recorder":
                break
        expected = {f"{one.endpoint}-a0.wav", f"{two.endpoint}-a0.wav"}
        await finished(process)
    assert loudness(tmp_path).keys() == expected
    assert all(level > 100 for level in loudness(tmp_path).values())
