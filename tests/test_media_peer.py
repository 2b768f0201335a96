"""The synthetic tracks in a plain pair of peer connections, as any program built on aiortc uses them."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import aioice.ice
import numpy as np
import pytest
from aiortc import MediaStreamTrack, RTCConfiguration, RTCPeerConnection
from av import AudioFrame, VideoFrame

from bot.media.pattern import read_number
from bot.media.synthetic import SyntheticAudioTrack, SyntheticVideoTrack
from bot.media.watch import FrameWatcher, luma_of


@pytest.fixture(autouse=True)
def loopback_only(monkeypatch: pytest.MonkeyPatch) -> None:
    def only_loopback(use_ipv4: bool, use_ipv6: bool) -> list[str]:
        return ["127.0.0.1"]

    monkeypatch.setattr(aioice.ice, "get_host_addresses", only_loopback)


@asynccontextmanager
async def _received(*tracks: MediaStreamTrack) -> AsyncIterator[dict[str, MediaStreamTrack]]:
    """Remote tracks by kind, as they come out at the other end of a call."""
    caller, callee = (RTCPeerConnection(RTCConfiguration(iceServers=[])) for _ in range(2))
    received: dict[str, MediaStreamTrack] = {}
    callee.on("track", lambda track: received.update({track.kind: track}))
    try:
        for track in tracks:
            caller.addTrack(track)
        await caller.setLocalDescription(await caller.createOffer())
        await callee.setRemoteDescription(caller.localDescription)
        await callee.setLocalDescription(await callee.createAnswer())
        await caller.setRemoteDescription(callee.localDescription)
        yield received
    finally:
        await asyncio.gather(caller.close(), callee.close())
        for track in tracks:
            track.stop()


def _tone_of(samples: np.ndarray[tuple[int], np.dtype[np.float64]]) -> float:
    spectrum = np.abs(np.fft.rfft(samples * np.hanning(len(samples)), 4 * len(samples)))
    return float(np.argmax(spectrum)) * 48000 / (4 * len(samples))


async def test_picture_and_tone_arrive() -> None:
    numbers: list[int | None] = []
    sound: list[np.ndarray[tuple[int], np.dtype[np.float64]]] = []

    def keep_number(frame: VideoFrame | AudioFrame) -> None:
        assert isinstance(frame, VideoFrame)
        numbers.append(read_number(luma_of(frame)))

    def keep_sound(frame: VideoFrame | AudioFrame) -> None:
        assert isinstance(frame, AudioFrame)
        sound.append(frame.to_ndarray().reshape(-1, 2).mean(axis=1))

    audio = SyntheticAudioTrack("alice", mode="tone", frequency=217, level=-20)
    async with (
        _received(SyntheticVideoTrack("room", "alice"), audio) as tracks,
        FrameWatcher(tracks["video"], on_frame=keep_number) as picture,
        FrameWatcher(tracks["audio"], on_frame=keep_sound) as tone,
    ):
        seen = await picture.wait_for(lambda stats: stats.frames >= 30, timeout=20)
        heard = await tone.wait_for(lambda stats: stats.frames >= 50, timeout=20)
    assert (seen.width, seen.height, seen.changing) == (640, 360, True)
    assert seen.changes >= 25
    assert all(number is not None for number in numbers)
    assert numbers == sorted(set(numbers), key=lambda number: number or 0)
    assert heard.level == pytest.approx(-20, abs=1)
    assert _tone_of(np.concatenate(sound[10:])) == pytest.approx(217, abs=2)


async def test_speech_arrives_with_its_level() -> None:
    async with (
        _received(SyntheticAudioTrack("bob", level=-20)) as tracks,
        FrameWatcher(tracks["audio"]) as watcher,
    ):
        heard = await watcher.wait_for(lambda stats: stats.frames >= 100, timeout=20)
    assert heard.level == pytest.approx(-20, abs=2)
