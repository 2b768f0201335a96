"""A 5x8 bitmap font of its own: text into a luma plane, and text read back from one.

Each glyph is 5 columns by 8 rows (the last row is for descenders) in a cell of 6 columns.
"""

from __future__ import annotations

import unicodedata
from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

Luma = NDArray[np.uint8]

GLYPH_WIDTH = 5
GLYPH_HEIGHT = 8
CELL_WIDTH = 6

#: ASCII 32 to 126 in order, 16 glyphs to the band.
_SHEET = """
..... ..#.. .#.#. .#.#. ..#.. ##... .##.. ..#.. ...#. .#... ..... ..... ..... ..... ..... .....
..... ..#.. .#.#. .#.#. .#### ##..# #..#. ..#.. ..#.. ..#.. ..#.. ..#.. ..... ..... ..... ....#
..... ..#.. .#.#. ##### #.#.. ...#. #.#.. ..#.. .#... ...#. #.#.# ..#.. ..... ..... ..... ...#.
..... ..#.. ..... .#.#. .###. ..#.. .#... ..... .#... ...#. .###. ##### ..... ##### ..... ..#..
..... ..#.. ..... ##### ..#.# .#... #.#.# ..... .#... ...#. #.#.# ..#.. ..... ..... ..... .#...
..... ..... ..... .#.#. ####. #..## #..#. ..... ..#.. ..#.. ..#.. ..#.. .##.. ..... .##.. #....
..... ..#.. ..... .#.#. ..#.. ...## .##.# ..... ...#. .#... ..... ..... ..#.. ..... .##.. .....
..... ..... ..... ..... ..... ..... ..... ..... ..... ..... ..... ..... .#... ..... ..... .....
.###. ..#.. .###. ##### ...#. ##### ..##. ##### .###. .###. ..... ..... ...#. ..... .#... .###.
#...# .##.. #...# ...#. ..##. #.... .#... ....# #...# #...# .##.. .##.. ..#.. ..... ..#.. #...#
#..## ..#.. ....# ..#.. .#.#. ####. #.... ...#. #...# #...# .##.. .##.. .#... ##### ...#. ....#
#.#.# ..#.. ...#. ...#. #..#. ....# ####. ..#.. .###. .#### ..... ..... #.... ..... ....# ...#.
##..# ..#.. ..#.. ....# ##### ....# #...# .#... #...# ....# .##.. ..... .#... ##### ...#. ..#..
#...# ..#.. .#... #...# ...#. #...# #...# .#... #...# ...#. .##.. .##.. ..#.. ..... ..#.. .....
.###. .###. ##### .###. ...#. .###. .###. .#... .###. .##.. ..... ..#.. ...#. ..... .#... ..#..
..... ..... ..... ..... ..... ..... ..... ..... ..... ..... ..... .#... ..... ..... ..... .....
.###. .###. ####. .###. ###.. ##### ##### .###. #...# .###. ..### #...# #.... #...# #...# .###.
#...# #...# #...# #...# #..#. #.... #.... #...# #...# ..#.. ...#. #..#. #.... ##.## #...# #...#
....# #...# #...# #.... #...# #.... #.... #.... #...# ..#.. ...#. #.#.. #.... #.#.# ##..# #...#
.##.# ##### ####. #.... #...# ####. ####. #.### ##### ..#.. ...#. ##... #.... #.#.# #.#.# #...#
#.#.# #...# #...# #.... #...# #.... #.... #...# #...# ..#.. ...#. #.#.. #.... #...# #..## #...#
#.#.# #...# #...# #...# #..#. #.... #.... #...# #...# ..#.. #..#. #..#. #.... #...# #...# #...#
.###. #...# ####. .###. ###.. ##### #.... .#### #...# .###. .##.. #...# ##### #...# #...# .###.
..... ..... ..... ..... ..... ..... ..... ..... ..... ..... ..... ..... ..... ..... ..... .....
####. .###. ####. .#### ##### #...# #...# #...# #...# #...# ##### .###. ..... .###. ..#.. .....
#...# #...# #...# #.... ..#.. #...# #...# #...# #...# #...# ....# .#... #.... ...#. .#.#. .....
#...# #...# #...# #.... ..#.. #...# #...# #...# .#.#. #...# ...#. .#... .#... ...#. #...# .....
####. #...# ####. .###. ..#.. #...# #...# #.#.# ..#.. .#.#. ..#.. .#... ..#.. ...#. ..... .....
#.... #.#.# #.#.. ....# ..#.. #...# #...# #.#.# .#.#. ..#.. .#... .#... ...#. ...#. ..... .....
#.... #..#. #..#. ....# ..#.. #...# .#.#. #.#.# #...# ..#.. #.... .#... ....# ...#. ..... .....
#.... .##.# #...# ####. ..#.. .###. ..#.. .#.#. #...# ..#.. ##### .###. ..... .###. ..... .....
..... ..... ..... ..... ..... ..... ..... ..... ..... ..... ..... ..... ..... ..... ..... #####
.#... ..... #.... ..... ....# ..... ..##. ..... #.... ..#.. ...#. #.... .##.. ..... ..... .....
..#.. ..... #.... ..... ....# ..... .#..# ..... #.... ..... ..... #.... ..#.. ..... ..... .....
...#. .###. #.##. .###. .##.# .###. .#... .#### #.##. .##.. ..##. #..#. ..#.. ##.#. #.##. .###.
..... ....# ##..# #...# #..## #...# ###.. #...# ##..# ..#.. ...#. #.#.. ..#.. #.#.# ##..# #...#
..... .#### #...# #.... #...# ##### .#... #...# #...# ..#.. ...#. ##... ..#.. #.#.# #...# #...#
..... #...# #...# #...# #...# #.... .#... .#### #...# ..#.. ...#. #.#.. ..#.. #...# #...# #...#
..... .#### ####. .###. .#### .###. .#... ....# #...# .###. #..#. #..#. .###. #...# #...# .###.
..... ..... ..... ..... ..... ..... ..... .###. ..... ..... .##.. ..... ..... ..... ..... .....
..... ..... ..... ..... .#... ..... ..... ..... ..... ..... ..... ...#. ..#.. .#... ..... .....
..... ..... ..... ..... .#... ..... ..... ..... ..... ..... ..... ..#.. ..#.. ..#.. ..... .....
####. .#### #.##. .#### ###.. #...# #...# #...# #...# #...# ##### ..#.. ..#.. ..#.. .#... .....
#...# #...# ##..# #.... .#... #...# #...# #...# .#.#. #...# ...#. .#... ..#.. ...#. #.#.# .....
#...# #...# #.... .###. .#... #...# #...# #.#.# ..#.. #...# ..#.. ..#.. ..#.. ..#.. ...#. .....
####. .#### #.... ....# .#..# #..## .#.#. #.#.# .#.#. .#### .#... ..#.. ..#.. ..#.. ..... .....
#.... ....# #.... ####. ..##. .##.# ..#.. .#.#. #...# ....# ##### ...#. ..#.. .#... ..... .....
#.... ....# ..... ..... ..... ..... ..... ..... ..... .###. ..... ..... ..... ..... ..... .....
"""

_PER_BAND = 16
_FIRST = 32
_COUNT = 95
#: Less luma between ink and paper than this is no text.
_MIN_CONTRAST = 24


@dataclass(frozen=True, slots=True)
class TextBox:
    """A line of ``length`` characters from ``x``, ``y`` (upper left); ``scale`` is pixels for each font pixel."""

    x: float
    y: float
    scale: float
    length: int

    @property
    def width(self) -> float:
        """Width in pixels, without the gap after the last character."""
        return (self.length * CELL_WIDTH - 1) * self.scale

    def zoomed(self, factor: float) -> TextBox:
        """The same line in a picture that is ``factor`` times as large."""
        return TextBox(self.x * factor, self.y * factor, self.scale * factor, self.length)


def _load() -> dict[str, NDArray[np.bool_]]:
    rows = [row for row in _SHEET.splitlines() if row]
    glyphs = {}
    for number in range(_COUNT):
        band, place = divmod(number, _PER_BAND)
        lines = rows[band * GLYPH_HEIGHT : (band + 1) * GLYPH_HEIGHT]
        start = place * CELL_WIDTH
        ink = [[pixel == "#" for pixel in line[start : start + GLYPH_WIDTH]] for line in lines]
        glyphs[chr(_FIRST + number)] = np.array(ink, dtype=np.bool_)
    return glyphs


GLYPHS = _load()


def plain(text: str) -> str:
    """``text`` in what the font holds: accents dropped, every other character outside ASCII becomes ``?``."""
    bare = (char for char in unicodedata.normalize("NFKD", text) if not unicodedata.combining(char))
    return "".join(char if char in GLYPHS else "?" for char in bare)


def shorten(text: str, length: int) -> str:
    """``text`` in at most ``length`` characters; what is cut off ends in two dots."""
    return text if len(text) <= length else text[: max(0, length - 2)] + ".."[:length]


def render_text(text: str, scale: int, *, ink: int, paper: int) -> Luma:
    """A line of text as luma, ``GLYPH_HEIGHT`` * scale rows by ``CELL_WIDTH`` * scale columns a character."""
    line = np.full((GLYPH_HEIGHT, CELL_WIDTH * len(text)), paper, dtype=np.uint8)
    for place, char in enumerate(text):
        glyph = GLYPHS.get(char, GLYPHS["?"])
        line[:, place * CELL_WIDTH : place * CELL_WIDTH + GLYPH_WIDTH][glyph] = ink
    return line.repeat(scale, axis=0).repeat(scale, axis=1)


def _positions(start: float, count: int, scale: float, limit: int) -> NDArray[np.intp]:
    """Two sample points for each of ``count`` font pixels, well inside of it."""
    points = start + (np.arange(count)[:, None] + np.array([0.3, 0.7])) * scale
    inside: NDArray[np.intp] = np.clip(points.ravel(), 0, limit - 1).astype(np.intp)
    return inside


def _cells(luma: Luma, box: TextBox) -> NDArray[np.float64]:
    """Mean luma of every font pixel in the box: length x GLYPH_HEIGHT x GLYPH_WIDTH."""
    rows = _positions(box.y, GLYPH_HEIGHT, box.scale, luma.shape[0])
    columns = _positions(box.x, box.length * CELL_WIDTH, box.scale, luma.shape[1])
    samples = luma[np.ix_(rows, columns)].astype(np.float64)
    means = samples.reshape(GLYPH_HEIGHT, 2, box.length * CELL_WIDTH, 2).mean(axis=(1, 3))
    cells: NDArray[np.float64] = means.reshape(GLYPH_HEIGHT, box.length, CELL_WIDTH).transpose(1, 0, 2)
    return cells[:, :, :GLYPH_WIDTH]


def read_text(luma: Luma, box: TextBox, alphabet: Iterable[str] | None = None) -> str:
    """The text in ``box``, each character the likeliest of ``alphabet`` (all glyphs by default).

    ``luma`` is rows x columns, bright ink on dark paper. Scaling and lossy coding do no harm. Empty where there
    is no contrast.
    """
    cells = _cells(luma, box)
    low, high = float(cells.min(initial=255)), float(cells.max(initial=0))
    if high - low < _MIN_CONTRAST:
        return ""
    letters = sorted(alphabet) if alphabet is not None else list(GLYPHS)
    shapes = np.array([GLYPHS[letter] for letter in letters], dtype=np.float64) * 2 - 1
    signal = (cells - low) / (high - low) * 2 - 1
    scores = np.tensordot(signal, shapes, axes=([1, 2], [1, 2]))
    return "".join(letters[best] for best in scores.argmax(axis=1))
