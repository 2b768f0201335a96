"""Clips as such: their sizes, and the clock that they are played on."""

from __future__ import annotations

from fractions import Fraction

from hypothesis import given
from hypothesis import strategies as st

from bot.clips.model import Clip, ClipFrame, ClipLayer, phase_of, position


def small_clip() -> Clip:
    frames = (ClipFrame(0, True, (b"abc", b"d")), ClipFrame(3000, False, (b"ef",)))
    return Clip(
        "video", "vp8", 90000, Fraction(2, 30), (ClipLayer(160, 90, Fraction(30), 1, (frames,)),), "ab", "x"
    )


def test_a_clip_knows_its_length_and_size() -> None:
    clip = small_clip()
    assert clip.ticks == 6000
    assert clip.size == 6
    assert repr(clip) == "<Clip 'x' vp8 160x90 0.0666667 s>"


def test_a_phase_is_the_same_everywhere() -> None:
    assert phase_of("abcd1234", Fraction(8)) == 7.306506683534792
    assert phase_of("abcd1234", Fraction(4)) == phase_of("abcd1234", Fraction(8)) / 2


def test_participants_are_spread_over_the_loop() -> None:
    phases = sorted(phase_of(f"{number:08x}", Fraction(8)) for number in range(800))
    assert all(60 < sum(start <= phase < start + 1 for phase in phases) < 140 for start in range(8))


@given(st.text(), st.fractions(Fraction(1, 50), 60), st.floats(0, 4e9))
def test_a_place_is_always_inside_the_loop(endpoint: str, duration: Fraction, now: float) -> None:
    phase = phase_of(endpoint, duration)
    assert 0 <= phase < duration
    assert 0 <= position(now, phase, duration) < float(duration)
