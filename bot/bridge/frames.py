"""Whole encoded frames from the packets of one stream, in order. Pure: time is a parameter."""

from __future__ import annotations

from dataclasses import dataclass
from math import inf
from typing import NamedTuple

from bot.bridge.rtp import unwrap_sequence

#: Packets that wait behind a hole.
MAX_WAITING = 1024
#: Bytes of one frame; a sharp 5K screen stays below. A stream that never ends a frame must not fill the memory.
MAX_FRAME_BYTES = 2 * 1024 * 1024


class EncodedFrame(NamedTuple):
    """One frame: ``timestamp`` in units of the RTP clock, without wrapping.

    ``starts`` is where the pieces that began something stand in ``data``.
    """

    data: bytes
    timestamp: int
    key: bool
    starts: tuple[int, ...] = ()


@dataclass(frozen=True, slots=True)
class Piece:
    """A packet's payload without what its packetisation added; ``starts_key`` at the start of a key frame.

    ``begins`` at a border inside of a frame that its decoder has to know (a layer, or a packet).
    """

    timestamp: int
    marker: bool
    data: bytes
    starts_key: bool = False
    begins: bool = False


class FrameAssembler:
    """Puts packets in order and together. A hole is waited for ``patience`` seconds, then skipped.

    With ``video``, frames begin with a key frame, also after a hole; without, each packet is a frame and holes are
    left out.
    """

    def __init__(self, *, video: bool, patience: float) -> None:
        self._video = video
        self._patience = patience
        self._waiting: dict[int, Piece] = {}
        self._next: int | None = None
        self._blocked: float | None = None
        self._parts: list[bytes] = []
        self._starts: list[int] = []
        self._size = 0
        self._stamp: int | None = None
        self._key = False
        #: Whether nothing can be shown before the next key frame.
        self.needs_key_frame = video
        #: Holes that were skipped.
        self.skipped = 0

    def __repr__(self) -> str:
        return f"<FrameAssembler waiting {len(self._waiting)} skipped {self.skipped}>"

    def feed(self, sequence: int, piece: Piece, now: float) -> list[EncodedFrame]:
        """Take one packet; returns the frames that are complete now. Padding is a piece without data."""
        if self._next is None:
            self._next = sequence
        number = unwrap_sequence(sequence, self._next)
        if self._next - number > MAX_WAITING:
            number = self._begin_at(sequence)  # far behind: the sender began anew
        if number < self._next or number in self._waiting:
            return []
        self._waiting[number] = piece
        frames = self._drain(now)
        return frames + self._skip(now) if len(self._waiting) > MAX_WAITING else frames

    def expire(self, now: float) -> list[EncodedFrame]:
        """Skip a hole that was waited for long enough; returns the frames behind it."""
        frames: list[EncodedFrame] = []
        while self.next_deadline() <= now:
            frames += self._skip(now)
        return frames

    def next_deadline(self) -> float:
        """When ``expire`` is to be called; infinity without a hole."""
        return inf if self._blocked is None else self._blocked + self._patience

    def restart(self) -> None:
        """What comes now has nothing to do with what came before it."""
        self._drop_frame()
        self.needs_key_frame = self._video

    def _begin_at(self, sequence: int) -> int:
        self._waiting.clear()
        self._blocked = None
        self._next = sequence
        self.restart()
        return sequence

    def _skip(self, now: float) -> list[EncodedFrame]:
        self.skipped += 1
        self._next = min(self._waiting)
        self._blocked = None
        self.restart()
        return self._drain(now)

    def _drain(self, now: float) -> list[EncodedFrame]:
        frames: list[EncodedFrame] = []
        number = self._next
        assert number is not None
        while (piece := self._waiting.pop(number, None)) is not None:
            number += 1
            if piece.data:
                self._take(piece, frames)
        if number != self._next or not self._waiting:
            self._blocked = None
        self._next = number
        if self._waiting and self._blocked is None:
            self._blocked = now
        return frames

    def _take(self, piece: Piece, frames: list[EncodedFrame]) -> None:
        timestamp = self._unwrapped(piece.timestamp)
        if not self._video:
            self._stamp = timestamp
            frames.append(EncodedFrame(piece.data, timestamp, key=True))
            return
        if self._parts and timestamp != self._stamp:
            self._finish(frames)  # its last packet had no marker
        if self.needs_key_frame and not piece.starts_key:
            return
        self.needs_key_frame = False
        self._key = self._key or piece.starts_key
        self._stamp = timestamp
        if piece.begins:
            self._starts.append(self._size)
        self._parts.append(piece.data)
        self._size += len(piece.data)
        if self._size > MAX_FRAME_BYTES:
            self.restart()
        elif piece.marker:
            self._finish(frames)

    def _unwrapped(self, timestamp: int) -> int:
        if self._stamp is None:
            return timestamp
        return self._stamp + ((timestamp - self._stamp + 0x80000000) & 0xFFFFFFFF) - 0x80000000

    def _finish(self, frames: list[EncodedFrame]) -> None:
        frames.append(EncodedFrame(b"".join(self._parts), self._stamp or 0, self._key, tuple(self._starts)))
        self._drop_frame()

    def _drop_frame(self) -> None:
        self._parts.clear()
        self._starts.clear()
        self._size = 0
        self._key = False
