"""The time stamps of one stream that is made of several tracks. Pure: time is a parameter."""

from __future__ import annotations


class Timeline:
    """Puts the time stamps of whatever track is sent on one line, which never goes back (RFC 3550 section 5.1).

    ``rate`` is the clock in Hz. Within a track its own distances are kept. Where another track begins, or the same
    one after a break (``cut``), the line goes on by the time that has passed.
    """

    def __init__(self, rate: int) -> None:
        self._rate = rate
        self._last: int | None = None
        self._at = 0.0
        self._offset: int | None = None

    def __repr__(self) -> str:
        return f"<Timeline {self._rate} Hz last={self._last}>"

    def cut(self) -> None:
        """What comes next has nothing to do with what came before."""
        self._offset = None

    def place(self, stamp: int | None, now: float, *, step: int = 1) -> int:
        """Our time stamp for a frame with the track's ``stamp`` (None: it has none), at ``now`` in s.

        ``step`` is the least distance to the one before. A track that jumps back has begun anew.
        """
        if stamp is None:
            self.cut()
        placed = self._placed(stamp or 0, now, step)
        self._last, self._at, self._offset = placed, now, placed - (stamp or 0)
        return placed

    def _placed(self, stamp: int, now: float, step: int) -> int:
        if self._last is None:
            return 0
        if self._offset is not None and stamp + self._offset > self._last:
            return stamp + self._offset
        return self._last + max(step, round((now - self._at) * self._rate))
