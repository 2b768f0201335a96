"""The clips of a process: encoded once however many ask, kept on disk, made anew where what is kept is broken."""

from __future__ import annotations

import asyncio
import os
import time
from fractions import Fraction
from pathlib import Path

import pytest

from bot.clips.format import dump
from bot.clips.model import Clip, ClipFrame, ClipLayer
from bot.clips.spec import ClipSpec, LayerSpec, SoundSpec, VideoSpec
from bot.errors import ConfigurationError
from bot.media import clips
from bot.media.clipcache import ClipCache, default_directory
from bot.media.clips import ClipClosedError, ClipLibrary, Decoration, digest_of
from tests.test_clips_model import small_clip

SPEC = VideoSpec(layers=(LayerSpec(160, 90, 150_000),), fps=10, duration=Fraction(1))
SOUND = SoundSpec(mode="tone", duration=Fraction(1))
Captured = pytest.CaptureFixture[str]


async def made(directory: Path | None, spec: VideoSpec | SoundSpec = SPEC) -> tuple[Clip, int]:
    """The clip that another process would get, and whether it was encoded for it."""
    library = ClipLibrary(directory, keep=directory is not None)
    try:
        return await library.get(spec), library.encoded
    finally:
        await library.close()


def only(directory: Path) -> Path:
    (path,) = directory.iterdir()
    return path


def names(directory: Path) -> list[str]:
    return sorted(path.name for path in directory.iterdir())


# --- one process ---


async def test_hundreds_who_ask_at_once_get_one_clip(tmp_path: Path) -> None:
    library = ClipLibrary(tmp_path)
    found = await asyncio.gather(*(library.get(SPEC) for _ in range(300)))
    assert all(clip is found[0] for clip in found)
    assert library.encoded == 1
    assert await library.get(SPEC) is found[0]
    assert repr(library) == "<ClipLibrary 1 clips>"
    await library.close()


async def test_who_gives_up_does_not_end_it_for_the_others(tmp_path: Path) -> None:
    library = ClipLibrary(tmp_path)
    first, second = (asyncio.create_task(library.get(SPEC)) for _ in range(2))
    await asyncio.sleep(0)
    first.cancel()
    assert (await second).codec == "vp8"
    with pytest.raises(asyncio.CancelledError):
        await first
    await library.close()


async def test_closing_ends_what_is_being_encoded(tmp_path: Path) -> None:
    library = ClipLibrary(tmp_path)
    long = VideoSpec(layers=(LayerSpec(640, 360, 500_000),), duration=Fraction(60))
    waiting = asyncio.create_task(library.get(long))
    await asyncio.sleep(0.1)
    began = time.monotonic()
    await library.close()
    await library.close()
    assert time.monotonic() - began < 2
    with pytest.raises(ClipClosedError):
        await waiting
    with pytest.raises(ClipClosedError):
        await library.get(SPEC)
    assert names(tmp_path) == []


async def test_a_cancelled_library_leaves_no_thread_behind(tmp_path: Path) -> None:
    library = ClipLibrary(tmp_path)
    long = VideoSpec(layers=(LayerSpec(640, 360, 500_000),), duration=Fraction(60))
    waiting = asyncio.create_task(library.get(long))
    await asyncio.sleep(0.1)
    (task,) = library._tasks.values()
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await waiting
    assert (await library.get(SPEC)).duration == 1
    await library.close()


async def test_a_failure_reaches_all_and_is_tried_again(tmp_path: Path) -> None:
    library = ClipLibrary(tmp_path / "cache")
    missing = VideoSpec(file=tmp_path / "film.mkv", layers=SPEC.layers)
    found = await asyncio.gather(*(library.get(missing) for _ in range(3)), return_exceptions=True)
    assert [type(error) for error in found] == [ConfigurationError] * 3
    assert str(found[0]).startswith(f"video: can't publish {missing.file}: ")
    with pytest.raises(ConfigurationError, match="No such file"):
        await library.get(missing)
    await library.close()


async def test_long_work_is_told_of(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: Captured) -> None:
    monkeypatch.setattr(clips, "_PATIENCE", 0.0)
    monkeypatch.setattr(clips, "_REPEAT", 0.01)
    await made(tmp_path)
    told = capsys.readouterr().out
    assert "clip_encoding" in told
    assert "percent" in told
    assert told.count("clip_ready") == 1


# --- from run to run ---


@pytest.mark.parametrize("spec", [SPEC, SOUND], ids=["picture", "sound"])
async def test_a_kept_clip_is_the_same(tmp_path: Path, spec: VideoSpec | SoundSpec) -> None:
    first, encoded = await made(tmp_path, spec)
    assert encoded == 1
    assert only(tmp_path).name == f"{first.digest}.clip"
    again, encoded = await made(tmp_path, spec)
    assert encoded == 0
    assert again == first


async def test_every_setting_is_part_of_the_key(tmp_path: Path) -> None:
    specs: list[ClipSpec] = [
        SPEC,
        VideoSpec(layers=(LayerSpec(160, 90, 160_000),), fps=10, duration=Fraction(1)),
        VideoSpec(layers=SPEC.layers, fps=20, duration=Fraction(1)),
        VideoSpec(layers=SPEC.layers, fps=10, duration=Fraction(2)),
        VideoSpec(layers=SPEC.layers, fps=10, duration=Fraction(1), key_interval=Fraction(1, 2)),
        VideoSpec(layers=SPEC.layers, fps=10, duration=Fraction(1), variants=3),
        VideoSpec(layers=SPEC.layers, fps=10, duration=Fraction(1), title="x"),
        VideoSpec(layers=SPEC.layers, fps=10, duration=Fraction(1), codec="vp9"),
        SOUND,
        SoundSpec(mode="tone", duration=Fraction(1), bitrate=64_000),
    ]
    keys = {digest_of(spec, "same") for spec in specs} | {digest_of(SPEC, "other")}
    assert len(keys) == len(specs) + 1


async def test_other_encoders_make_other_clips(monkeypatch: pytest.MonkeyPatch) -> None:
    before = digest_of(SPEC, "same")
    monkeypatch.setattr(clips, "encoder_versions", lambda: "another")
    assert digest_of(SPEC, "same") != before


async def test_decorated_clips_are_others(tmp_path: Path) -> None:
    plain, _ = await made(tmp_path)
    library = ClipLibrary(tmp_path, decoration=Decoration("1"))
    assert (await library.get(SPEC)).digest != plain.digest
    await library.close()


@pytest.mark.parametrize("damage", ["flip", "cut", "empty", "other"])
async def test_a_broken_clip_is_made_anew(tmp_path: Path, damage: str, capsys: Captured) -> None:
    first, _ = await made(tmp_path)
    path = only(tmp_path)
    data = bytearray(path.read_bytes())
    data[-100] ^= 1
    contents = {"flip": bytes(data), "cut": bytes(data[:-1]), "empty": b"", "other": dump(small_clip())}
    path.write_bytes(contents[damage])
    again, encoded = await made(tmp_path)
    assert encoded == 1
    assert again == first
    assert "clip_cache_broken" in capsys.readouterr().out
    assert (await made(tmp_path))[1] == 0


async def test_two_processes_at_once_do_no_harm(tmp_path: Path) -> None:
    libraries = [ClipLibrary(tmp_path) for _ in range(3)]
    found = await asyncio.gather(*(library.get(SPEC) for library in libraries))
    assert found[0] == found[1] == found[2]
    assert names(tmp_path) == [f"{found[0].digest}.clip"]
    for library in libraries:
        await library.close()


async def test_nothing_is_kept_where_nothing_can_be(tmp_path: Path, capsys: Captured) -> None:
    occupied = tmp_path / "file"
    occupied.write_text("")
    library = ClipLibrary(occupied / "clips")
    assert (await library.get(SPEC)).codec == "vp8"
    assert (await library.get(SOUND)).codec == "opus"
    assert capsys.readouterr().out.count("clip_cache_unusable") == 1
    assert library.encoded == 2
    await library.close()


async def test_memory_only(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    assert (await made(None))[1] == 1
    assert names(tmp_path) == []


async def test_the_users_caches_are_where_clips_are_kept(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    library = ClipLibrary()
    await library.get(SOUND)
    await library.close()
    assert len(names(tmp_path / "jitsi-bot" / "clips")) == 1
    monkeypatch.setenv("XDG_CACHE_HOME", "relative")
    assert default_directory() == Path.home() / ".cache" / "jitsi-bot" / "clips"


# --- the directory ---


def clip_of(digest: str, size: int) -> Clip:
    layer = ClipLayer(2, 2, Fraction(1), 1, ((ClipFrame(0, True, (bytes(size),)),),))
    return Clip("video", "vp8", 90000, Fraction(1), (layer,), digest, "x")


def test_what_was_not_used_for_longest_makes_room(tmp_path: Path) -> None:
    cache = ClipCache(tmp_path, size=3000)
    for number, digest in enumerate(("aa", "bb", "cc")):
        cache.put(clip_of(digest, 600))
        os.utime(tmp_path / f"{digest}.clip", (number + 1, number + 1))
    assert cache.get("aa") is not None, "reading is using"
    cache.put(clip_of("dd", 1500))
    assert sorted(path.stem for path in tmp_path.iterdir()) == ["aa", "dd"]
    assert cache.get("bb") is None
    cache.put(clip_of("ee", 9000))
    assert [path.stem for path in tmp_path.iterdir()] == ["ee"], "the newest stays, however large"


def test_unfinished_files_of_dead_processes_are_cleared(tmp_path: Path) -> None:
    for name, age in (("old", 7200), ("new", 10)):
        path = tmp_path / f"{name}.part"
        path.write_bytes(b"x")
        os.utime(path, (time.time() - age,) * 2)
    ClipCache(tmp_path).put(clip_of("aa", 10))
    assert sorted(path.name for path in tmp_path.iterdir()) == ["aa.clip", "new.part"]


def test_a_failed_write_leaves_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: Captured) -> None:
    cache = ClipCache(tmp_path)

    def full(_handle: int) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    cache.put(clip_of("aa", 10))
    cache.put(clip_of("bb", 10))
    assert names(tmp_path) == []
    assert capsys.readouterr().out.count("No space left on device") == 1
    assert repr(cache) == f"<ClipCache {tmp_path} not usable>"


def test_what_cannot_be_read_is_warned_of(tmp_path: Path, capsys: Captured) -> None:
    (tmp_path / "aa.clip").mkdir()
    assert ClipCache(tmp_path).get("aa") is None
    assert "clip_cache_unusable" in capsys.readouterr().out
