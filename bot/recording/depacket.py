"""Whole encoded frames of one stream from its RTP packets, in order, with what was lost before them. Pure."""

from __future__ import annotations

from collections.abc import Iterator
from math import inf
from typing import NamedTuple

from bot.bridge.depacketize import unpack
from bot.bridge.frames import EncodedFrame, FrameAssembler, Piece
from bot.bridge.nack import MAX_AGE
from bot.bridge.payloads import PayloadFormat
from bot.bridge.rtp import RtpError, RtpHeader, payload

#: How long a hole is waited for in seconds: with NACK as long as that is asked, else for what is out of order.
REPAIR_PATIENCE, PLAIN_PATIENCE = MAX_AGE, 0.1


class Received(NamedTuple):
    """A frame, and whether something before it never came."""

    frame: EncodedFrame
    lost: bool


#: How long (seconds) a picture may wait for further layers of it; as a rule the next picture comes before.
LAYERS_PATIENCE = 0.2


class Layers:
    """Puts frames of one time stamp together: they are layers of one picture, though each is marked as the last.

    A bridge that goes up several layers within a key picture marks each on its way (Videobridge and VP9).
    """

    def __init__(self) -> None:
        self._held: Received | None = None
        self._since = inf

    def __repr__(self) -> str:
        return f"<Layers {'holding' if self._held else 'empty'}>"

    def next_deadline(self) -> float:
        """When ``expire`` is to be called; infinity where nothing is held."""
        return self._since + LAYERS_PATIENCE

    def feed(self, frames: list[Received], now: float) -> list[Received]:
        """Take frames; returns those that are followed by another picture."""
        done = []
        for item in frames:
            held = self._held
            if held is not None and held.frame.timestamp == item.frame.timestamp:
                self._held = Received(_joined(held.frame, item.frame), held.lost)
                continue
            if held is not None:
                done.append(held)
            self._held, self._since = item, now
        return done

    def expire(self, now: float) -> list[Received]:
        """What was held for long enough."""
        if self._held is None or self.next_deadline() > now:
            return []
        done, self._held, self._since = [self._held], None, inf
        return done


def _joined(lower: EncodedFrame, higher: EncodedFrame) -> EncodedFrame:
    size = len(lower.data)
    starts = (lower.starts or (0,)) + tuple(size + start for start in higher.starts or (0,))
    return EncodedFrame(lower.data + higher.data, lower.timestamp, lower.key or higher.key, starts)


class Depacketizer:
    """One stream of one format. Pictures begin with a key frame, also after a hole that nothing repaired."""

    def __init__(self, format_: PayloadFormat) -> None:
        self.format = format_
        patience = REPAIR_PATIENCE if format_.nack else PLAIN_PATIENCE
        self._assembler = FrameAssembler(video=format_.media == "video", patience=patience)
        self._layers = Layers() if format_.codec == "vp9" else None
        self._skipped = 0
        self._last: int | None = None
        #: Packets whose payload could not be read.
        self.unreadable = 0

    def __repr__(self) -> str:
        return f"<Depacketizer {self.format.codec} {self._assembler!r}>"

    @property
    def needs_key_frame(self) -> bool:
        """Whether nothing comes before the next key frame."""
        return self._assembler.needs_key_frame

    @property
    def skipped(self) -> int:
        """Holes that nothing repaired."""
        return self._assembler.skipped

    def next_deadline(self) -> float:
        """When ``expire`` is to be called, in the clock of ``now``; infinity without a hole."""
        holes = self._assembler.next_deadline()
        return holes if self._layers is None else min(holes, self._layers.next_deadline())

    def feed(self, header: RtpHeader, data: bytes, now: float) -> list[Received]:
        """Take one unprotected packet, also one that repairs; returns the frames that are complete."""
        try:
            pieces = list(self._pieces(header, data))
        except (RtpError, ValueError):
            self.unreadable += 1
            return []
        frames = [frame for number, piece in pieces for frame in self._assembler.feed(number, piece, now)]
        return self._pictures(frames, now)

    def expire(self, now: float) -> list[Received]:
        """Go on behind holes that were waited for long enough."""
        found = self._pictures(self._assembler.expire(now), now)
        return found if self._layers is None else found + self._layers.expire(now)

    def want_key_frame(self) -> None:
        """Give nothing before the next key frame."""
        self._assembler.restart()

    def _pieces(self, header: RtpHeader, data: bytes) -> Iterator[tuple[int, Piece]]:
        before, self._last = self._last, header.sequence
        if self.format.codec == "red" and before is not None and header.sequence != (before + 1) & 0xFFFF:
            yield from redundant(header, payload(data, header))
        yield header.sequence, unpack(self.format.codec, header, data)

    def _pictures(self, frames: list[EncodedFrame], now: float) -> list[Received]:
        marked = self._marked(frames)
        return marked if self._layers is None else self._layers.feed(marked, now)

    def _marked(self, frames: list[EncodedFrame]) -> list[Received]:
        if not frames:
            return []
        lost, self._skipped = self._assembler.skipped != self._skipped, self._assembler.skipped
        return [Received(frame, lost and not number) for number, frame in enumerate(frames)]


def redundant(header: RtpHeader, body: bytes) -> Iterator[tuple[int, Piece]]:
    """The older blocks of a RED packet (RFC 2198 section 3), as the packets before it; oldest first.

    Raises ValueError where they do not fit.
    """
    heads, at = [], 0
    while at + 4 <= len(body) and body[at] & 0x80:
        word = int.from_bytes(body[at + 1 : at + 4], "big")
        heads.append((word >> 10, word & 0x3FF))
        at += 4
    at += 1
    for number, (offset, size) in enumerate(heads):
        if at + size > len(body):
            raise ValueError("RED blocks do not fit the packet")
        block = body[at : at + size]
        at += size
        # Senders repeat what came right before, packet by packet (as libwebrtc's, whose blocks have no numbers).
        if size:
            sequence = (header.sequence - len(heads) + number) & 0xFFFF
            yield sequence, Piece((header.timestamp - offset) & 0xFFFFFFFF, header.marker, block)
