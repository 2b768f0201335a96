"""Where the tiles of a composite are. Pure. All places and sizes are even, as pictures of 4:2:0 want them."""

from __future__ import annotations

from math import ceil
from typing import NamedTuple

#: Tiles at most, as on a page of a web client's tile view.
MAX_TILES = 25
#: Tiles beside the stage, and what part of the width they take.
STRIP_TILES, STRIP_PART = 5, 0.2
_ASPECT = 16 / 9


class Rect(NamedTuple):
    """A place in a picture, in pixels."""

    x: int
    y: int
    width: int
    height: int


def even(value: float) -> int:
    """The even number that is not above ``value``, 2 at the least."""
    return max(2, int(value) // 2 * 2)


def size_of(height: int) -> tuple[int, int]:
    """Width and height of a picture of 16:9."""
    return even(height * _ASPECT + 1), even(height)


def tile_rects(count: int, width: int, height: int) -> list[Rect]:
    """Places of ``count`` tiles of 16:9, as large as they can be, the last row in the middle."""
    if not count:
        return []
    gap = even(height / 120)
    columns = max(range(1, count + 1), key=lambda number: _tile_width(number, count, width, height, gap))
    rows = ceil(count / columns)
    wide = even(_tile_width(columns, count, width, height, gap))
    high = min(even(wide / _ASPECT), even((height - gap * (rows + 1)) / rows))
    top = (height - rows * high - (rows - 1) * gap) // 2
    found = []
    for row in range(rows):
        here = min(columns, count - row * columns)
        left = (width - here * wide - (here - 1) * gap) // 2
        y = top + row * (high + gap)
        found += [_at(left + number * (wide + gap), y, wide, high) for number in range(here)]
    return found


def speaker_rects(count: int, width: int, height: int) -> tuple[Rect, list[Rect]]:
    """The stage, and the places of ``count`` tiles beside it, ``STRIP_TILES`` at the most."""
    if not count:
        return Rect(0, 0, width, height), []
    gap = even(height / 120)
    wide = even(min(width * STRIP_PART, (height - gap * (STRIP_TILES + 1)) / STRIP_TILES * _ASPECT))
    high = even(wide / _ASPECT)
    top = (height - count * high - (count - 1) * gap) // 2
    left = width - wide - gap
    strip = [_at(left, top + number * (high + gap), wide, high) for number in range(count)]
    room = left - 2 * gap
    stage_high = min(height - 2 * gap, even(room / _ASPECT))
    return _at(gap, (height - stage_high) // 2, min(room, even(stage_high * _ASPECT)), stage_high), strip


def fitted(width: int, height: int, place: Rect, *, whole: bool) -> tuple[int, int]:
    """The size that a picture is scaled to for ``place``: all of it seen (``whole``), or no border left.

    Where no border would cut off more than a third, all of it is seen, too.
    """
    across, down = place.width / width, place.height / height
    small, large = min(across, down), max(across, down)
    scale = small if whole or small < large * 2 / 3 else large
    if scale == small:
        return min(place.width, even(width * scale + 1)), min(place.height, even(height * scale + 1))
    return max(place.width, even(width * scale + 1)), max(place.height, even(height * scale + 1))


def _tile_width(columns: int, count: int, width: int, height: int, gap: int) -> float:
    rows = ceil(count / columns)
    return min((width - gap * (columns + 1)) / columns, (height - gap * (rows + 1)) / rows * _ASPECT)


def _at(x: int, y: int, width: int, height: int) -> Rect:
    return Rect(x // 2 * 2, y // 2 * 2, width // 2 * 2, height // 2 * 2)
