"""Cutting frames into pieces of nearly one size, so that no packet is much smaller than the others. Pure."""

from __future__ import annotations


def evenly(data: bytes, room: int, *, first: int = 0) -> list[bytes]:
    """``data`` in as few pieces of at most ``room`` bytes as do, which differ by a byte at most.

    The first piece is ``first`` bytes smaller, for what stands before it. Raises ValueError for no data.
    """
    if not data:
        raise ValueError("an encoded frame is empty")
    total = len(data) + first
    count = -(-total // room)
    ends = [total * number // count - first for number in range(1, count + 1)]
    starts = [0, *ends[:-1]]
    return [data[start:end] for start, end in zip(starts, ends, strict=True)]
