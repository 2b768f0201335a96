"""A mark in each picture that machines read: its number in the clip, whose clip it is, and a check of both.

A strip of two rows of 32 blocks lies over the whole width at the bottom. Its measures are shares of the picture's,
so that it is found at any size without knowing the one it was drawn in. Row by row from the left, the most
significant bit first, a bright block is 1: 8 fixed bits, the number (16 bits), the identity (16) and a check
(24, the upper bits of zlib's CRC-32 of both). Pure.
"""

from __future__ import annotations

import zlib
from dataclasses import dataclass
from functools import lru_cache

import numpy as np
from numpy.typing import NDArray

from bot.media.font import Luma

#: The strip's part of the picture's height, and its blocks.
STRIP = 6 / 90
_ROWS, _COLUMNS = 2, 32
_BITS = _ROWS * _COLUMNS
#: Alternating, so that the levels of both can be taken from it whatever a codec or a screen made of them.
_FIXED = 0b10100101
_DARK, _BRIGHT = 32, 224
#: Luma between dark and bright blocks below which there is no mark to be read.
_CONTRAST = 40
#: How near the middle between dark and bright a block may be, in parts of their distance.
_DOUBT = 0.2
#: A block is looked at in so many columns and rows of pixels, off its borders.
_LOOKS_ACROSS, _LOOKS_DOWN = 4, 4
_BORDER = 0.22
_MASK = 0xFFFF

_FIXED_BITS = np.array([bit == "1" for bit in f"{_FIXED:08b}"])


@dataclass(frozen=True, slots=True)
class Mark:
    """What a picture says of itself: its ``index`` in the clip and the ``ident`` of the clip, 16 bits each."""

    index: int
    ident: int


def check_of(index: int, ident: int) -> int:
    """The 24 bits that show whether a mark was read right."""
    return zlib.crc32((index << 16 | ident).to_bytes(4, "big")) >> 8


def _bits_of(index: int, ident: int) -> NDArray[np.uint8]:
    index, ident = index & _MASK, ident & _MASK
    word = _FIXED << 56 | index << 40 | ident << 24 | check_of(index, ident)
    return np.unpackbits(np.frombuffer(word.to_bytes(8, "big"), np.uint8)).reshape(_ROWS, _COLUMNS)


def top_of(height: int) -> int:
    """The first row of the strip in a picture of ``height`` pixels: even, for the sake of chroma."""
    return round(height * (1 - STRIP) / 2) * 2


@lru_cache(maxsize=16)
def _block_of_column(width: int) -> NDArray[np.intp]:
    return np.arange(width) * _COLUMNS // width


@lru_cache(maxsize=64)
def _looked_at(width: int, height: int) -> tuple[NDArray[np.intp], NDArray[np.intp]]:
    """The rows and columns of the pixels that are looked at, all blocks' after each other."""

    def places(start: float, size: float, blocks: int, looks: int) -> NDArray[np.intp]:
        within = _BORDER + (1 - 2 * _BORDER) * (np.arange(looks) + 0.5) / looks
        return np.floor(start + size * (np.arange(blocks)[:, None] + within)).astype(np.intp).ravel()

    top = height * (1 - STRIP)
    rows = places(top, (height - top) / _ROWS, _ROWS, _LOOKS_DOWN)
    columns = places(0, width / _COLUMNS, _COLUMNS, _LOOKS_ACROSS)
    return rows[:, None], columns


def write(luma: Luma, index: int, ident: int) -> None:
    """Draw the mark into ``luma`` (rows x columns, 160 x 90 at least); of both numbers the lower 16 bits count."""
    height, width = luma.shape
    top = top_of(height)
    middle = (top + height + 1) // 2
    levels = np.where(_bits_of(index, ident), np.uint8(_BRIGHT), np.uint8(_DARK))
    lines = levels[:, _block_of_column(width)]
    luma[top:middle] = lines[0]
    luma[middle:] = lines[1]


def read(luma: Luma) -> Mark | None:
    """The mark in a picture, scaled to whatever size since; None where there is none or any doubt."""
    height, width = luma.shape
    if height < 45 or width < 80:
        return None
    rows, columns = _looked_at(width, height)
    looks = luma[rows, columns].astype(np.float32)
    blocks = looks.reshape(_ROWS, _LOOKS_DOWN, _COLUMNS, _LOOKS_ACROSS).mean(axis=(1, 3)).ravel()
    fixed = blocks[: len(_FIXED_BITS)]
    bright, dark = float(fixed[_FIXED_BITS].mean()), float(fixed[~_FIXED_BITS].mean())
    distance = bright - dark
    if distance < _CONTRAST:
        return None
    above = blocks - (bright + dark) / 2
    if float(np.abs(above).min()) < _DOUBT * distance:
        return None
    return _checked(int.from_bytes(np.packbits(above > 0).tobytes(), "big"))


def _checked(word: int) -> Mark | None:
    index, ident = word >> 40 & _MASK, word >> 24 & _MASK
    if word >> 56 != _FIXED or word & 0xFFFFFF != check_of(index, ident):
        return None
    return Mark(index, ident)
