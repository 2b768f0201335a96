"""Files as tracks: made by FFmpeg here, read back with what was put in."""

from __future__ import annotations

import asyncio
import itertools
import threading
from fractions import Fraction
from pathlib import Path
from typing import Any

import av
import numpy as np
import pytest
from aiortc.mediastreams import MediaStreamError
from av import AudioFrame, VideoFrame

from bot.errors import ConfigurationError
from bot.media.files import FileAudioTrack, FileVideoTrack, make_file_track
from bot.media.synthetic import planes_of
from tests.test_media_synthetic import SimulatedClock

EMPTY = "YUV4MPEG2 W64 H48 F10:1 Ip A1:1 C420jpeg\n"
FPS, RATE = 10, 44_100


def film(path: Path, *, frames: int = 5, seconds: float = 0.5, sound: bool = True, size: int = 64) -> Path:
    """Pictures of rising brightness, and a tone of 441 Hz, in Matroska; the sound lasts ``seconds``."""
    with av.open(str(path), "w", format="matroska") as container:
        video: Any = container.add_stream("ffv1", rate=FPS) if frames else None
        audio: Any = container.add_stream("pcm_s16le", rate=RATE, layout="mono") if sound else None
        if video is not None:
            video.width, video.height, video.pix_fmt = size, 48, "yuv420p"
            for number in range(frames):
                picture = VideoFrame(size, 48, "yuv420p")
                for plane, value in zip(planes_of(picture), (20 + 25 * number, 128, 128), strict=True):
                    plane[...] = value
                picture.pts, picture.time_base = number, Fraction(1, FPS)
                container.mux(video.encode(picture))
            container.mux(video.encode(None))
        if audio is not None:
            count = int(RATE * seconds)
            wave = (9000 * np.sin(2 * np.pi * 441 * np.arange(count) / RATE)).astype(np.int16)
            frame = AudioFrame.from_ndarray(wave.reshape(1, -1), format="s16", layout="mono")
            frame.sample_rate, frame.pts, frame.time_base = RATE, 0, Fraction(1, RATE)
            container.mux(audio.encode(frame))
            container.mux(audio.encode(None))
    return path


async def test_the_picture_comes_at_its_pace_and_over_and_over(tmp_path: Path) -> None:
    clock = SimulatedClock()
    track = FileVideoTrack(film(tmp_path / "a.mkv"), clock=clock)
    frames = [await track.recv() for _ in range(12)]
    assert [round(float(np.mean(planes_of(frame).y))) for frame in frames] == [
        *(20, 45, 70, 95, 120),
        *(20, 45, 70, 95, 120),
        *(20, 45),
    ]
    assert [frame.pts for frame in frames] == [9000 * number for number in range(12)]
    assert clock.now == pytest.approx(1000 + 1.1)
    track.stop()


async def test_the_sound_comes_resampled_at_its_pace_and_over_and_over(tmp_path: Path) -> None:
    clock = SimulatedClock()
    track = FileAudioTrack(film(tmp_path / "a.mkv"), clock=clock)
    frames = [await track.recv() for _ in range(60)]
    assert {(f.format.name, f.layout.name, f.sample_rate, f.samples) for f in frames} == {
        ("s16", "stereo", 48_000, 960)
    }
    stamps = [frame.pts or 0 for frame in frames]
    assert stamps == sorted(set(stamps))
    assert clock.now - 1000 == pytest.approx(stamps[-1] / 48_000)
    first = np.concatenate([frame.to_ndarray().reshape(-1, 2)[:, 0] for frame in frames[1:21]]).astype(float)
    spectrum = np.abs(np.fft.rfft(first))
    assert abs(int(np.argmax(spectrum)) * 48_000 / len(first) - 441) < 3
    rounds = [index for index in range(1, 60) if stamps[index] // 24_000 != stamps[index - 1] // 24_000]
    assert [stamps[index] for index in rounds] == pytest.approx([24_000, 48_000], abs=960)
    track.stop()


async def test_sound_and_picture_of_unequal_length_begin_each_round_together(tmp_path: Path) -> None:
    path = film(tmp_path / "a.mkv", seconds=0.2)
    sound = FileAudioTrack(path, clock=SimulatedClock())
    stamps = [(await sound.recv()).pts or 0 for _ in range(12)]
    gaps = [later - before for before, later in itertools.pairwise(stamps)]
    assert max(gaps) > 0.28 * 48_000
    assert stamps[gaps.index(max(gaps)) + 1] == pytest.approx(0.5 * 48_000, abs=960)
    sound.stop()


async def test_the_end_of_a_sound_is_filled_up_with_silence(tmp_path: Path) -> None:
    track = FileAudioTrack(film(tmp_path / "a.mkv", frames=0, seconds=0.31), clock=SimulatedClock())
    frames = [await track.recv() for _ in range(17)]
    assert [frame.samples for frame in frames] == [960] * 17
    last = frames[15].to_ndarray().reshape(-1, 2)
    assert last[:400].any()
    assert not last[500:].any()
    assert frames[16].pts == pytest.approx(0.32 * 48_000, abs=960)
    track.stop()


async def test_a_file_that_nobody_asks_for_stands_still(tmp_path: Path) -> None:
    clock = SimulatedClock()
    track = FileVideoTrack(film(tmp_path / "a.mkv"), clock=clock)
    await track.recv()
    clock.now += 60
    frame = await track.recv()
    assert round(float(np.mean(planes_of(frame).y))) == 45
    assert clock.now == pytest.approx(1060)
    await track.recv()
    assert clock.now == pytest.approx(1060.1)
    track.stop()


async def test_odd_sizes_become_even(tmp_path: Path) -> None:
    track = FileVideoTrack(film(tmp_path / "a.mkv", size=63), clock=SimulatedClock())
    assert (await track.recv()).width == 62
    track.stop()


async def test_stop_ends_it_also_while_a_thread_reads(tmp_path: Path) -> None:
    track = FileVideoTrack(film(tmp_path / "a.mkv"))
    await track.recv()
    waiting = asyncio.create_task(track.recv())
    await asyncio.sleep(0)
    track.stop()
    with pytest.raises(MediaStreamError):
        await waiting
    assert track._reader._container is None
    with pytest.raises(MediaStreamError):
        await track.recv()
    assert "ended" in repr(track)


async def test_a_file_is_closed_by_the_thread_that_reads_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    track = FileVideoTrack(film(tmp_path / "a.mkv"))
    await track.recv()
    reader, begun, go_on = track._reader, threading.Event(), threading.Event()
    following = reader._next_of_pass

    def slow() -> Any:
        begun.set()
        go_on.wait(5)
        return following()

    monkeypatch.setattr(reader, "_next_of_pass", slow)
    waiting = asyncio.create_task(track.recv())
    await asyncio.to_thread(begun.wait, 5)
    track.stop()
    assert reader._container is not None
    go_on.set()
    with pytest.raises(MediaStreamError):
        await waiting
    assert reader._container is None
    with pytest.raises(MediaStreamError):
        reader.read()


def test_what_cannot_be_published_names_setting_and_file(tmp_path: Path) -> None:
    text = tmp_path / "notes.txt"
    text.write_text("no film\n")
    empty = tmp_path / "empty.y4m"
    empty.write_text(EMPTY)
    mute, blind = film(tmp_path / "mute.mkv", sound=False), film(tmp_path / "blind.mkv", frames=0)
    cases = (
        (tmp_path / "gone.mp4", "video", "No such file"),
        (text, "audio", "notes.txt"),
        (mute, "audio", "it has no audio"),
        (empty, "video", "nothing can be decoded of it"),
        (blind, "video", "it has no video"),
    )
    for path, kind, said in cases:
        with pytest.raises(ConfigurationError, match=f"^{kind}: can't publish .*{path.name}.*{said}"):
            make_file_track(path, kind)  # type: ignore[arg-type]


async def test_a_broken_file_ends_at_its_break_and_begins_anew(tmp_path: Path) -> None:
    whole = film(tmp_path / "a.mkv", frames=8, sound=False).read_bytes()
    broken = tmp_path / "broken.mkv"
    broken.write_bytes(whole[: len(whole) * 2 // 3])
    track = FileVideoTrack(broken, clock=SimulatedClock())
    shades = [round(float(np.mean(planes_of(await track.recv()).y))) for _ in range(12)]
    again = shades.index(20, 1)
    assert 1 <= again < 8
    assert shades[again : 2 * again] == shades[:again]
    broken.unlink()
    with pytest.raises(ConfigurationError, match=r"broken\.mkv"):
        for _ in range(12):
            await track.recv()
    track.stop()


async def test_a_file_that_is_empty_by_the_next_round_is_an_error(tmp_path: Path) -> None:
    path = tmp_path / "a.y4m"
    path.write_bytes(EMPTY.encode() + b"FRAME\n" + bytes(64 * 48 * 3 // 2))
    track = FileVideoTrack(path, clock=SimulatedClock())
    await track.recv()
    path.write_text(EMPTY)
    with pytest.raises(ConfigurationError, match="nothing can be decoded of it any more"):
        for _ in range(3):
            await track.recv()
    track.stop()
