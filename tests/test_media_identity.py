from __future__ import annotations

import subprocess
import sys

from hypothesis import given
from hypothesis import strategies as st

from bot.media.identity import PITCH_MAX, PITCH_MIN, Colour, colour_of, pitch_of, second_colour_of, stable_hash


def test_the_hash_is_the_same_in_another_process() -> None:
    code = "from bot.media.identity import stable_hash; print(stable_hash('bot-1'))"
    ran = subprocess.run([sys.executable, "-c", code], capture_output=True, check=True, text=True)
    assert int(ran.stdout) == stable_hash("bot-1") == 16103240211628047736


def test_names_look_and_sound_distinct() -> None:
    names = [f"bot-{number}" for number in range(20)]
    assert len({(colour_of(name), second_colour_of(name)) for name in names}) == 20
    assert len({pitch_of(name) for name in names}) >= 18


@given(st.text())
def test_any_name_has_a_colour_that_can_be_shown_and_a_pitch_in_range(name: str) -> None:
    for colour in (colour_of(name), second_colour_of(name)):
        assert 60 <= ((colour.u - 128) ** 2 + (colour.v - 128) ** 2) ** 0.5 <= 66
    assert PITCH_MIN <= pitch_of(name) <= PITCH_MAX


@given(st.text())
def test_the_second_colour_is_far_from_the_first(name: str) -> None:
    first, second = colour_of(name), second_colour_of(name)
    product = (first.u - 128) * (second.u - 128) + (first.v - 128) * (second.v - 128)
    assert product <= 200  # at a right angle or wider: zero but for the rounding


def test_a_lone_surrogate_is_hashed_too() -> None:
    assert stable_hash("\ud800") != stable_hash("?")


def test_towards_grey_keeps_the_hue() -> None:
    assert Colour(192, 64).towards_grey(0.25) == Colour(144, 112)
    assert Colour(192, 64).towards_grey(0) == Colour(128, 128)
