"""Bytes read as decisions, so that one input is one hostile dialogue, whoever makes the bytes up."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TypeVar

T = TypeVar("T")

#: Values that a number, a name or an address is not.
NASTY = (
    "",
    "0",
    "-1",
    "1.5",
    "127",
    "128",
    "65536",
    "4294967295",
    "4294967296",
    "9" * 5000,
    "NaN",
    "Infinity",
    "1e999",
    "٣",  # a decimal digit, of another script
    "²",  # a digit that is no decimal
    "true",
    "a" * 70_000,
    "\n\t",
    "&<>\"'",
    "\U0001f600",
    "\u202e",
    "@",
    "/",
    "room@muc.meet.jitsi/focus",
    "ws://[::1",
    "999.999.999.999",
    "::1%eth0",
)


class Choices:
    """Decisions from ``data``; when it is used up, all are the first of what there is to choose."""

    def __init__(self, data: bytes) -> None:
        self._data = data
        self._at = 0

    def __bool__(self) -> bool:
        return self._at < len(self._data)

    def number(self, below: int) -> int:
        """A number from 0 to ``below`` - 1; ``below`` is at most 65536."""
        width = 1 if below <= 256 else 2
        taken = self._data[self._at : self._at + width]
        self._at += width
        return int.from_bytes(taken, "big") % below

    def one(self, items: Sequence[T]) -> T:
        """One of ``items``."""
        return items[self.number(len(items))]

    def take(self, most: int) -> bytes:
        """Up to ``most`` bytes as they are."""
        return self._block(self.number(most + 1))

    def _block(self, size: int) -> bytes:
        block = self._data[self._at : self._at + size]
        self._at += size
        return block

    def rest(self) -> bytes:
        """All that is left."""
        return self._block(len(self._data))
