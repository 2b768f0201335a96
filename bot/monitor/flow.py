"""How a stream flows, by its packets alone: frames and freezes of pictures, voice of sound. Pure.

Nothing is decoded: a frame is what has a timestamp of its own (RFC 3550 section 5.1), and it is there when its
first packet comes.
"""

from __future__ import annotations

from dataclasses import dataclass

from bot.media import freezes

#: Sound of this level and louder is voice (-dBov, RFC 6464), as that of silence and of breath is not.
LOUD = 50
#: Seconds of a packet of opus, as all web clients send it.
PACKET = 0.020
#: A timestamp so far back (of 90 kHz) is of a frame before; further back the sender began anew.
LATE = 10 * 90_000


@dataclass(frozen=True, slots=True)
class Flow:
    """What flowed since the last look. ``frozen`` and ``voice`` are in seconds."""

    frames: int = 0
    freezes: int = 0
    frozen: float = 0.0
    voice: float = 0.0

    def __add__(self, other: Flow) -> Flow:
        return Flow(
            self.frames + other.frames,
            self.freezes + other.freezes,
            self.frozen + other.frozen,
            self.voice + other.voice,
        )


class PictureFlow:
    """Frames of one source of pictures. ``now`` in seconds, monotonic."""

    def __init__(self) -> None:
        self._stamp: tuple[int, int] | None = None
        self._last: float | None = None
        self._intervals: list[float] = []
        self._counted = 0.0
        self._found = Flow()

    def __repr__(self) -> str:
        return f"<PictureFlow {self._found}>"

    def packet(self, ssrc: int, timestamp: int, now: float) -> None:
        """Take a packet with media."""
        if not self._is_new(ssrc, timestamp):
            return
        self._stamp = ssrc, timestamp
        if self._last is not None:
            self._freeze(now)
            self._intervals = [*self._intervals[1 - freezes.WINDOW :], now - self._last]
        self._found += Flow(frames=1)
        self._last, self._counted = now, 0.0

    def _is_new(self, ssrc: int, timestamp: int) -> bool:
        """Whether a frame begins, and it is none of a frame that is there, or is late."""
        if self._stamp is None or self._stamp[0] != ssrc:
            return True
        ahead = (timestamp - self._stamp[1]) % (1 << 32)
        return ahead != 0 and (1 << 32) - ahead > LATE

    def _freeze(self, now: float) -> None:
        """Count what of a freeze until ``now`` is not counted yet."""
        frozen = self._frozen(now - (self._last or now))
        begins = bool(frozen) and not self._counted
        self._found += Flow(freezes=int(begins), frozen=max(0.0, frozen - self._counted))
        self._counted = max(self._counted, frozen)

    def _frozen(self, gap: float) -> float:
        """Seconds that the picture stood still in ``gap``; 0 where that is no freeze."""
        if not self._intervals:
            return 0.0
        mean = sum(self._intervals) / len(self._intervals)
        return gap if gap >= freezes.shortest(mean) else 0.0

    def pause(self) -> None:
        """Nothing is due for now: muted, or not forwarded. What comes next is no end of a freeze."""
        self._stamp = self._last = None
        self._counted = 0.0
        self._intervals.clear()

    def take(self, now: float) -> Flow:
        """What flowed since the last call, a freeze that lasts still with it."""
        if self._last is not None:
            self._freeze(now)
        found, self._found = self._found, Flow()
        return found


class SoundFlow:
    """Voice of one source of sound, by the levels that its packets tell."""

    def __init__(self) -> None:
        self._loud = 0

    def __repr__(self) -> str:
        return f"<SoundFlow {self._loud}>"

    def packet(self, level: int | None) -> None:
        """Take a packet of ``level`` -dBov; None where it does not tell."""
        self._loud += level is not None and level <= LOUD

    def take(self) -> Flow:
        """What flowed since the last call."""
        found, self._loud = Flow(voice=self._loud * PACKET), 0
        return found
