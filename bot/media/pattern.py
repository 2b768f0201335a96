"""The moving test pattern: pure, from frame number and time of day to the three planes of a YUV 4:2:0 picture.

All that stands still is drawn once; a frame costs three copies and a few small patches.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple

import numpy as np

from bot.media.font import CELL_WIDTH, Luma, TextBox, plain, read_text, render_text, shorten
from bot.media.identity import Colour, colour_of, second_colour_of, stable_hash
from bot.media.watermark import write

# The picture is laid out in units: 160 x 90 of them, in the middle of the frame.
_UNITS_WIDE = 160
_UNITS_HIGH = 90

_BACKGROUND = 112  # medium luma, where every hue can be shown
_PAPER = 28
_INK = 235  # white in studio range
_RIBBON_DARK = 64
_RIBBON_BRIGHT = 176

CLOCK_ALPHABET = "0123456789:."
CLOCK_LENGTH = len("hh:mm:ss.mmm")
_NUMBER_DIGITS = 8
_LABEL = "frame "
_DAY_MS = 24 * 60 * 60 * 1000


class Planes(NamedTuple):
    """The planes of a picture: ``y`` is height x width, ``u`` and ``v`` have half of both."""

    y: Luma
    u: Luma
    v: Luma


def clock_text(wall: float) -> str:
    """Time of day in UTC as hh:mm:ss.mmm; ``wall`` is in seconds since the epoch."""
    milliseconds = int(wall * 1000) % _DAY_MS
    seconds, milliseconds = divmod(milliseconds, 1000)
    minutes, seconds = divmod(seconds, 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours:02}:{minutes:02}:{seconds:02}.{milliseconds:03}"


def number_text(index: int) -> str:
    """The frame number as burnt in: eight digits, which wrap."""
    return f"{index % 10**_NUMBER_DIGITS:0{_NUMBER_DIGITS}}"


def ident_of(name: str) -> int:
    """What the marks in the pictures of the participant called ``name`` say of whose they are: 16 bits."""
    return stable_hash(name) & 0xFFFF


@dataclass(frozen=True, slots=True)
class Layout:
    """Where everything is in a picture of ``width`` x ``height`` pixels. All coordinates of areas are even."""

    width: int
    height: int
    unit: int
    left: int
    top: int

    @classmethod
    def of(cls, width: int, height: int) -> Layout:
        """The layout of a picture. Raises ValueError for odd sizes and for those too small to read."""
        if width % 2 or height % 2:
            raise ValueError(f"width and height must be even for 4:2:0, not {width}x{height}")
        unit = min(width // _UNITS_WIDE, height // _UNITS_HIGH)
        if unit < 1:
            raise ValueError(f"the picture must be {_UNITS_WIDE}x{_UNITS_HIGH} or larger, not {width}x{height}")
        left = (width - unit * _UNITS_WIDE) // 4 * 2
        top = (height - unit * _UNITS_HIGH) // 4 * 2
        return cls(width, height, unit, left, top)

    def _box(self, x: int, y: int, scale: int, length: int) -> TextBox:
        return TextBox(self.left + x * self.unit, self.top + y * self.unit, scale, length)

    @property
    def _large(self) -> int:
        return max(1, self.unit * 3 // 2)

    def title(self, y: int, text: str) -> tuple[TextBox, str]:
        """Box and text of a line of free text ``y`` units down: smaller when long, cut off when too long."""
        room = 152 * self.unit
        smallest = max(1, self.unit * 3 // 4)
        fitting = room // (CELL_WIDTH * max(1, len(text)))
        scale = max(smallest, min(self._large, fitting))
        text = shorten(text, room // (CELL_WIDTH * scale))
        return self._box(4, y, scale, len(text)), text

    @property
    def clock(self) -> TextBox:
        """The time of day."""
        return self._box(4, 30, self._large, CLOCK_LENGTH)

    @property
    def zone(self) -> TextBox:
        """The name of the clock's time zone, beside it."""
        return self._box(4 + 115, 30, self._large, 3)

    @property
    def label(self) -> TextBox:
        """The word before the frame number."""
        return self._box(4, 44, self._large, len(_LABEL))

    @property
    def number(self) -> TextBox:
        """The frame number."""
        label = self.label
        return TextBox(label.x + len(_LABEL) * CELL_WIDTH * label.scale, label.y, label.scale, _NUMBER_DIGITS)

    def rows(self, first: int, last: int) -> slice:
        """The rows of the luma plane from unit ``first`` to unit ``last``."""
        return slice(self.top + first * self.unit, self.top + last * self.unit)

    @property
    def panel(self) -> tuple[slice, slice]:
        """Rows and columns of the dark panel behind the text."""
        columns = slice(self.left + 2 * self.unit, self.left + 158 * self.unit)
        return self.rows(2, 58), columns


def _halved(area: slice) -> slice:
    return slice(area.start // 2, area.stop // 2)


class TestPattern:
    """Pictures that carry room, name, clock and frame number, with two things that move in every frame.

    ``zone`` stands beside the clock: the name of its time zone, in three letters or none.
    The mark of :mod:`bot.media.watermark` tells the frame number and ``ident`` to machines.
    """

    __test__ = False  # not a test, whatever its name says to pytest

    def __init__(self, room: str, name: str, width: int = 640, height: int = 360, *, zone: str = "UTC") -> None:
        self.layout = Layout.of(width, height)
        self.colour = colour_of(name)
        #: Tells in the mark whose picture it is: 16 bits from the name.
        self.ident = ident_of(name)
        self._box_colour = second_colour_of(name)
        self._still = self._draw_still(plain(room), plain(name), zone)
        self._ribbon = self._draw_ribbon()
        scale = int(self.layout.clock.scale)
        self._tiles = {char: render_text(char, scale, ink=_INK, paper=_PAPER) for char in CLOCK_ALPHABET}

    def _draw_still(self, room: str, name: str, zone: str) -> Planes:
        layout = self.layout
        still = self._blank(self.colour)
        rows, columns = layout.panel
        still.y[rows, columns] = _PAPER
        tint = self.colour.towards_grey(0.25)
        still.u[_halved(rows), _halved(columns)] = tint.u
        still.v[_halved(rows), _halved(columns)] = tint.v
        for box, text in (
            layout.title(4, name),
            layout.title(17, room),
            (layout.zone, f"{zone:3.3}"),
            (layout.label, _LABEL),
        ):
            _patch(still.y, box, render_text(text, int(box.scale), ink=_INK, paper=_PAPER))
        return still

    def _blank(self, colour: Colour) -> Planes:
        width, height = self.layout.width, self.layout.height
        half = (height // 2, width // 2)
        return Planes(
            np.full((height, width), _BACKGROUND, dtype=np.uint8),
            np.full(half, colour.u, dtype=np.uint8),
            np.full(half, colour.v, dtype=np.uint8),
        )

    def _draw_ribbon(self) -> Luma:
        """Slanted stripes, one period wider than the picture: a window that slides over them seems to run."""
        unit = self.layout.unit
        rows, columns = np.mgrid[0 : 12 * unit, 0 : self.layout.width + 16 * unit]
        bright = (rows + columns) // (8 * unit) % 2 == 0
        return np.where(bright, _RIBBON_BRIGHT, _RIBBON_DARK).astype(np.uint8)

    def draw(self, onto: Planes, index: int, wall: float) -> None:
        """Draw frame ``index`` with the time ``wall`` (seconds since the epoch) over all of ``onto``."""
        for target, source in zip(onto, self._still, strict=True):
            target[...] = source
        self._write(onto.y, self.layout.clock, clock_text(wall))
        self._write(onto.y, self.layout.number, number_text(index))
        self._draw_moving(onto, index)
        write(onto.y, index, self.ident)

    def _write(self, luma: Luma, box: TextBox, text: str) -> None:
        x, y, step = int(box.x), int(box.y), CELL_WIDTH * int(box.scale)
        for char in text:
            tile = self._tiles[char]
            luma[y : y + tile.shape[0], x : x + step] = tile
            x += step

    def _draw_moving(self, onto: Planes, index: int) -> None:
        layout = self.layout
        unit, width = layout.unit, layout.width
        offset = index % 16 * unit
        onto.y[layout.rows(60, 72)] = self._ribbon[:, offset : offset + width]
        span = (width - 10 * unit) // 2
        place = index * unit % (2 * span)
        x = 2 * min(place, 2 * span - place)
        rows, columns = layout.rows(74, 84), slice(x, x + 10 * unit)
        onto.y[rows, columns] = _RIBBON_BRIGHT
        onto.u[_halved(rows), _halved(columns)] = self._box_colour.u
        onto.v[_halved(rows), _halved(columns)] = self._box_colour.v


def _patch(luma: Luma, box: TextBox, picture: Luma) -> None:
    x, y = int(box.x), int(box.y)
    luma[y : y + picture.shape[0], x : x + picture.shape[1]] = picture


def _source(luma: Luma, source: tuple[int, int] | None) -> tuple[Layout, float]:
    """The layout the picture was drawn in, and how many times as large it is now."""
    height, width = luma.shape
    layout = Layout.of(*(source or (width, height)))
    return layout, width / layout.width


def read_clock(luma: Luma, source: tuple[int, int] | None = None) -> str:
    """The clock's text in a picture of this pattern (rows x columns of luma), empty when there is none.

    ``source`` is the (width, height) that the pattern was drawn in, if the picture was scaled since.
    """
    layout, factor = _source(luma, source)
    return read_text(luma, layout.clock.zoomed(factor), CLOCK_ALPHABET)


def read_number(luma: Luma, source: tuple[int, int] | None = None) -> int | None:
    """The frame number in a picture of this pattern, None when there is none. ``source`` as in read_clock."""
    layout, factor = _source(luma, source)
    text = read_text(luma, layout.number.zoomed(factor), "0123456789")
    return int(text) if text else None
