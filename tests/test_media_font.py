from __future__ import annotations

import string

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from bot.media.font import CELL_WIDTH, GLYPH_HEIGHT, GLYPHS, TextBox, plain, read_text, render_text, shorten

ASCII = "".join(chr(code) for code in range(32, 127))


def test_every_printable_ascii_character_has_a_shape_of_its_own() -> None:
    assert set(GLYPHS) == set(ASCII)
    assert all(glyph.shape == (8, 5) for glyph in GLYPHS.values())
    assert len({glyph.tobytes() for glyph in GLYPHS.values()}) == len(ASCII)


def test_only_the_space_is_empty() -> None:
    assert [char for char, glyph in GLYPHS.items() if not glyph.any()] == [" "]


def test_digits_differ_in_several_pixels() -> None:
    digits = [GLYPHS[digit] for digit in string.digits]
    nearest = min(int((a ^ b).sum()) for i, a in enumerate(digits) for b in digits[:i])
    assert nearest >= 3


def test_a_letter_drawn_is_the_letter_expected() -> None:
    rows = [
        "".join("#" if pixel == 235 else "." for pixel in row) for row in render_text("T", 1, ink=235, paper=16)
    ]
    assert rows == ["#####."] + ["..#..."] * 6 + ["......"]


@given(st.text(alphabet=ASCII, min_size=1, max_size=30), st.integers(min_value=1, max_value=4))
def test_what_is_drawn_is_read_back(text: str, scale: int) -> None:
    picture = np.full((GLYPH_HEIGHT * scale + 9, CELL_WIDTH * len(text) * scale + 12), 20, dtype=np.uint8)
    drawn = render_text(text, scale, ink=230, paper=20)
    picture[5 : 5 + drawn.shape[0], 7 : 7 + drawn.shape[1]] = drawn
    expected = text if text.strip() else ""  # nothing but spaces has no contrast
    assert read_text(picture, TextBox(7, 5, scale, len(text))) == expected


def test_reading_is_limited_to_the_alphabet_given() -> None:
    picture = render_text("O1l", 3, ink=200, paper=30)
    assert read_text(picture, TextBox(0, 0, 3, 3), "01") == "011"


def test_reading_survives_noise_and_low_contrast() -> None:
    clean = render_text("12:34:56.789", 4, ink=140, paper=90).astype(np.int16)
    noise = np.random.default_rng(1).integers(-25, 26, clean.shape)
    assert read_text((clean + noise).astype(np.uint8), TextBox(0, 0, 4, 12)) == "12:34:56.789"


def test_no_text_is_read_where_there_is_none() -> None:
    assert read_text(np.full((20, 80), 99, dtype=np.uint8), TextBox(0, 0, 2, 5)) == ""
    assert read_text(np.zeros((20, 80), dtype=np.uint8), TextBox(0, 0, 2, 0)) == ""


def test_a_box_beyond_the_picture_reads_what_is_there() -> None:
    picture = render_text("AB", 2, ink=235, paper=16)
    assert read_text(picture, TextBox(0, 0, 2, 3))[:2] == "AB"


@pytest.mark.parametrize(
    ("given_text", "shown"),
    [
        ("Zoë Müller", "Zoe Muller"),
        ("Ünïcödé", "Unicode"),
        ("日本 bot", "?? bot"),
        ("a\tb\n", "a?b?"),
        ("ﬁ", "fi"),
        ("", ""),
    ],
)
def test_plain(given_text: str, shown: str) -> None:
    assert plain(given_text) == shown


@given(st.text())
def test_plain_gives_only_what_the_font_holds(text: str) -> None:
    assert set(plain(text)) <= set(GLYPHS)


@given(st.text(), st.integers(min_value=0, max_value=20))
def test_shorten_never_exceeds_the_length(text: str, length: int) -> None:
    short = shorten(text, length)
    assert len(short) <= length
    assert short == text if len(text) <= length else short.endswith(".."[:length])


def test_a_character_without_glyph_is_drawn_as_a_question_mark() -> None:
    assert (render_text("é", 2, ink=235, paper=16) == render_text("?", 2, ink=235, paper=16)).all()


def test_boxes_zoom() -> None:
    box = TextBox(10, 20, 4, 3)
    assert box.width == 68
    assert box.zoomed(0.5) == TextBox(5, 10, 2, 3)
