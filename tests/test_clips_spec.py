"""What can be asked of a clip, and what is refused, by the name of what is wrong."""

from __future__ import annotations

import itertools
from fractions import Fraction
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bot.clips.spec import SIMULCAST, SINGLE, LayerSpec, SoundSpec, VideoSpec
from bot.errors import ConfigurationError


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"codec": "h265"}, "codec must be one of vp8, vp9, h264, av1, not 'h265'"),
        ({"fps": 0}, "fps must be 1 to 60, not 0"),
        ({"variants": 9}, "variants must be 1 to 8, not 9"),
        ({"layers": ()}, "layers must name at least one size"),
        ({"layers": SIMULCAST, "codec": "vp9"}, "layers: simulcast is for vp8, vp9 is sent in one layer"),
        ({"layers": SIMULCAST[::-1]}, r"layers must be sorted by height, lowest first, not \[720, 360, 180\]"),
        ({"layers": SINGLE * 2}, r"layers must be sorted by height, lowest first, not \[360, 360\]"),
        ({"layers": (LayerSpec(158, 90, 10**5),)}, "width of a layer must be 160 to 4096, not 158"),
        ({"layers": (LayerSpec(160, 88, 10**5),)}, "height of a layer must be 90 to 4096, not 88"),
        ({"layers": (LayerSpec(161, 90, 10**5),)}, "width of a layer must be even for 4:2:0, not 161"),
        ({"layers": (LayerSpec(160, 90, 9999),)}, "bitrate of a layer must be 10000 to 2e.07, not 9999"),
        ({"duration": Fraction(61)}, "duration must be up to 60 s in steps of 0.1 s .*, not 61 s"),
        ({"duration": Fraction(0)}, "duration must be up to 60 s in steps of 0.1 s .*, not 0 s"),
        ({"duration": Fraction(1, 30)}, "duration must be up to 60 s in steps of 0.1 s"),
        ({"duration": Fraction(1, 2), "fps": 7}, "duration must be up to 60 s in steps of 1 s"),
        ({"key_interval": Fraction(1, 7)}, "key_interval must be whole frames, .*, not 4.28571 frames"),
        ({"key_interval": Fraction(1, 30)}, "key_interval must be whole frames, at least as many as variants"),
    ],
)
def test_pictures_that_cannot_be(changes: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigurationError, match=message):
        VideoSpec(**changes)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"mode": "music"}, "mode must be 'tone' or 'speech', not 'music'"),
        ({"pitch": 5}, "pitch must be 20 to 12000, not 5"),
        ({"level": 3.0}, "level must be -90 to 0, not 3"),
        ({"bitrate": 5000}, "bitrate must be 6000 to 510000, not 5000"),
        ({"duration": Fraction(1, 100)}, "duration must be up to 60 s in steps of 0.02 s"),
    ],
)
def test_sound_that_cannot_be(changes: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigurationError, match=message):
        SoundSpec(**changes)


def test_a_file_may_be_smaller_than_the_pattern() -> None:
    assert VideoSpec(file=Path("dir/film.mkv"), layers=(LayerSpec(32, 16, 10**5),)).name == "film.mkv"
    assert VideoSpec(title="Test").name == "Test"
    assert (SoundSpec().name, SoundSpec(file=Path("dir/voice.wav")).name) == ("speech", "voice.wav")


def test_key_frames_of_variants_are_half_an_interval_apart() -> None:
    spec = VideoSpec()
    assert spec.key_frames(0, 90) == {0, 30, 60}
    assert spec.key_frames(1, 90) == {0, 15, 45, 75}


@given(st.integers(1, 60), st.integers(1, 8), st.integers(1, 120), st.integers(1, 600))
def test_a_key_frame_is_never_far(fps: int, variants: int, interval: int, count: int) -> None:
    """Round the loop, the next key frame of any variant is at most a variant's share of the interval away."""
    interval = max(interval, variants)
    spec = VideoSpec(fps=fps, variants=variants, key_interval=Fraction(interval, fps))
    found = [spec.key_frames(variant, count) for variant in range(variants)]
    assert all(0 in keys and max(keys) < count for keys in found)
    places = [*sorted(set().union(*found)), count]
    share = -(-interval // variants)
    assert max(right - left for left, right in itertools.pairwise(places)) <= share
