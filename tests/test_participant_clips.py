"""Which clips the settings ask for, and whose the library is."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from contextlib import contextmanager
from fractions import Fraction
from pathlib import Path
from typing import Any

import pytest

from bot.clips.spec import LayerSpec, SoundSpec, VideoSpec
from bot.errors import ConfigurationError
from bot.media.clips import ClipClosedError
from bot.participant.clips import VOICES, ClipSource, LibraryUse, probe, sound_clip, speech_of, video_clip
from bot.participant.config import ParticipantConfig, expand
from bot.settings import load
from tests.test_media_files import film


def config(**settings: Any) -> ParticipantConfig:
    return expand(load(**settings))[0]


def layers(**settings: Any) -> tuple[LayerSpec, ...]:
    found = video_clip(config(**settings))
    assert found is not None
    return found.layers


def test_one_layer_in_the_size_of_the_settings_at_a_rate_that_suits_it() -> None:
    assert layers() == (LayerSpec(640, 360, 500_000),)
    assert layers(video_bitrate=300) == (LayerSpec(640, 360, 300_000),)
    assert layers(width=160, height=90, fps=1)[0].bitrate == 30_000


def test_the_bots_of_a_room_hold_a_conversation() -> None:
    """Mostly one of them talks at a time, and each does; two rooms have conversations of their own."""
    groups = [{"room": "one", "count": 3}, {"room": "two", "count": 2}, {"room": "One"}]
    configs = expand(load(participants=groups))
    assert [(item.room, item.seat, item.seats) for item in configs] == [
        *(("one", seat, 4) for seat in range(3)),
        *(("two", seat, 2) for seat in range(2)),
        ("One", 3, 4),
    ]
    talks = [speech for item in configs if (speech := speech_of(item)) is not None]
    times = [1_700_000_000 + at / 10 for at in range(18_000)]
    heard = [[talk.is_talking(time) for time in times] for talk in talks]
    one = [sum(moment) for moment in zip(*heard[:3], heard[5], strict=True)]
    assert 0.55 < sum(count == 1 for count in one) / len(one) < 0.85
    assert sum(count > 1 for count in one) / len(one) < 0.15
    assert all(sum(moments) > 900 for moments in heard)
    assert heard[3] != heard[0]


def test_what_is_no_voice_is_always_heard() -> None:
    assert speech_of(config(talk="always")) is None
    assert speech_of(config(audio="tone")) is None
    assert speech_of(config()) is not None


def test_three_layers_with_simulcast() -> None:
    found = layers(width=1280, height=720, simulcast=True, video_bitrate=1500)
    assert [(item.width, item.height) for item in found] == [(320, 180), (640, 360), (1280, 720)]
    rates = [item.bitrate for item in found]
    assert rates[2] == 1_500_000
    assert 0.3 < rates[1] / rates[2] < 0.4
    assert 0.3 < rates[0] / rates[1] < 0.4


@pytest.mark.parametrize(
    ("settings", "problem"),
    [
        ({"simulcast": True, "video_codec": "h264"}, "simulcast is for vp8, h264 is sent in one layer"),
        ({"simulcast": True, "media_engine": "aiortc"}, "simulcast and opus_red need media_engine shared"),
        ({"opus_red": True, "media_engine": "aiortc"}, "simulcast and opus_red need media_engine shared"),
        ({"simulcast": True, "height": 358}, "simulcast needs a picture of 640x360 or larger, not 640x358"),
        ({"video_codec": "av1", "media_engine": "aiortc"}, "video_codec av1 needs media_engine shared"),
    ],
)
def test_what_can_not_be_sent_is_refused(settings: dict[str, Any], problem: str) -> None:
    with pytest.raises(ConfigurationError, match=problem):
        load(**settings)


def test_voices_are_some_and_a_tone_is_one() -> None:
    found = {sound_clip(config(name=f"bot-{number}")) for number in range(200)}
    assert len(found) == VOICES
    tone = sound_clip(config(audio="tone"))
    assert tone is not None
    assert tone.mode == "tone"


def test_files_are_clips_in_their_own_size_unless_they_are_too_long(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = film(tmp_path / "film.mkv", size=160)
    settings = {"video": f"file:{path}", "audio": f"file:{path}"}
    picture, sound = video_clip(config(**settings)), sound_clip(config(**settings))
    assert picture is not None
    assert (picture.file, len(picture.layers), picture.layers[0].width) == (path, 1, 160)
    assert sound == SoundSpec(file=path)
    monkeypatch.setattr("bot.participant.clips.MAX_DURATION", Fraction(1, 100))
    probe.cache_clear()
    assert video_clip(config(**settings)) is None
    assert sound_clip(config(**settings)) is None
    probe.cache_clear()
    assert probe(tmp_path / "nothing") is None


@contextmanager
def small() -> Iterator[tuple[VideoSpec, VideoSpec]]:
    """A spec that is made soon, and what cannot be made."""
    spec = VideoSpec(
        layers=(LayerSpec(160, 90, 60_000), LayerSpec(320, 180, 90_000)), fps=10, duration=Fraction(1)
    )
    yield spec, VideoSpec(file=Path("/nowhere"), layers=spec.layers[:1])


async def test_the_library_is_shared_until_the_last_is_done(tmp_path: Path) -> None:
    with small() as (spec, _):
        one, two = LibraryUse(tmp_path), LibraryUse(tmp_path)
        assert one.library is two.library
        source = ClipSource(spec, one.library)
        assert (source.layers("vp8"), source.layers("h264"), source.layers("vp9")) == (2, 1, 1)
        source.prepare("vp8")
        source.prepare("vp8")
        found = await source.get("vp8")
        assert await ClipSource(spec, two.library).get("vp8") is found
        assert (await source.get("h264")).codec == "h264"
        await one.close()
        await one.close()
        assert await source.get("vp8") is found
        await two.close()
        with pytest.raises(ClipClosedError):
            await source.get("vp8")
        three = LibraryUse(tmp_path)
        assert three.library is not two.library
        await three.close()


async def test_who_gets_a_clip_that_can_not_be_made_hears_why(tmp_path: Path) -> None:
    with small() as (_, broken):
        use = LibraryUse(tmp_path)
        source = ClipSource(broken, use.library)
        source.prepare("vp8")
        await asyncio.sleep(0.05)
        with pytest.raises(ConfigurationError, match="nowhere"):
            await source.get("vp8")
        await use.close()


async def test_a_library_that_is_closed_ends_what_it_makes(tmp_path: Path) -> None:
    use = LibraryUse(tmp_path)
    source = ClipSource(VideoSpec(duration=Fraction(20)), use.library)
    source.prepare("vp8")
    await asyncio.sleep(0.05)
    async with asyncio.timeout(5):
        await use.close()
