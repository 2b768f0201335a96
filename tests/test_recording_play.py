"""What is recorded, and what is composed of it, plays in Chromium: every picture is decoded, to the end."""

from __future__ import annotations

import base64
import shutil
from pathlib import Path
from typing import Any

import pytest
from playwright.async_api import Page, async_playwright

from bot.bridge.frames import EncodedFrame
from bot.recording.codecs import format_of, stored
from bot.recording.compose import ComposeOptions, compose
from bot.recording.compose_plan import Format
from bot.recording.matroska import Muxer, TrackFormat, suffix_of
from tests.recording_support import STARTED, pictures, sound, write
from tests.requirements import require
from tests.test_recording_compose import RED, Meeting, beeping, colored

#: Plays a file four times as fast as it was; says what was played.
PLAY = """async (data) => {
    const video = document.createElement('video');
    document.body.append(video);
    const over = new Promise((resolve) => {
        video.onended = () => resolve('ended');
        video.onerror = () => resolve(video.error.message);
    });
    video.src = URL.createObjectURL(new Blob([Uint8Array.from(atob(data), (item) => item.charCodeAt(0))]));
    video.playbackRate = 4;
    video.play().catch(() => {});
    const how = await over;
    const frames = video.getVideoPlaybackQuality();
    return {
        how,
        length: video.duration,
        size: [video.videoWidth, video.videoHeight],
        frames: frames.totalVideoFrames,
        broken: frames.corruptedVideoFrames,
        sound: video.webkitAudioDecodedByteCount,
    };
}"""


async def played(page: Page, data: bytes) -> dict[str, Any]:
    return dict(await page.evaluate(PLAY, base64.b64encode(data).decode()))


def film(folder: Path, name: str, codec: str, *, end: bool = True) -> Path:
    """A second of pictures; without its ``end`` as a recorder that was killed leaves it."""
    frames = [
        EncodedFrame(data, 3000 * number, key=number % 15 == 0) for number, data in enumerate(pictures(codec, 30))
    ]
    track = format_of(codec, frames[0])
    path = folder / f"{name}{suffix_of([track])}"
    blocks = [(1, item.timestamp // 90, stored(codec, item), item.key) for item in frames]
    write(path, Muxer([track], started=STARTED), blocks, end=end)
    return path


def segments(folder: Path) -> dict[str, Path]:
    """Files as recorders write them."""
    found = {codec: film(folder, codec, codec) for codec in ("vp8", "vp9", "h264")}
    found["cut"] = film(folder, "cut", "vp8", end=False)
    found["opus"] = folder / "opus.webm"
    voice = [(1, number * 20, data, True) for number, data in enumerate(sound(50))]
    write(found["opus"], Muxer([TrackFormat("opus")], started=STARTED), voice)
    return found


def composites(folder: Path) -> dict[str, Path]:
    """A second of somebody, in both formats."""
    meeting = Meeting(folder, 1.0)
    ann = meeting.add("Ann")
    meeting.film(ann, 0.0, colored(*RED, 30))
    meeting.voice(ann, 0.0, beeping(50, 0, 50))
    meeting.done()
    formats: tuple[Format, ...] = ("mp4", "webm")
    return {
        item: compose(folder, folder / f"c.c.{item}", ComposeOptions("tile", item, 180, 15)).path
        for item in formats
    }


@pytest.mark.browser
async def test_every_file_plays_to_its_end(tmp_path: Path) -> None:
    require("chromium")
    made = segments(tmp_path) | composites(tmp_path)
    files = {name: path.read_bytes() for name, path in made.items()}
    async with async_playwright() as playwright:
        browser = await playwright.chromium.launch(
            executable_path=shutil.which("chromium"),
            args=["--disable-gpu", "--autoplay-policy=no-user-gesture-required"],
        )
        try:
            page = await browser.new_page()
            found = {name: await played(page, data) for name, data in files.items()}
        finally:
            await browser.close()
    assert {name: item["how"] for name, item in found.items()} == dict.fromkeys(files, "ended")
    assert {name: item["frames"] for name, item in found.items()} == {
        **dict.fromkeys(("vp8", "vp9", "h264", "cut"), 30),
        "opus": 0,
        **dict.fromkeys(("mp4", "webm"), 15),
    }
    assert not any(item["broken"] for item in found.values())
    assert all(found[name]["sound"] > 0 for name in ("opus", "mp4", "webm"))
    assert all(item["length"] == pytest.approx(1.0, abs=0.1) for name, item in found.items())
    assert found["mp4"]["size"] == found["webm"]["size"] == [320, 180]
