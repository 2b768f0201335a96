"""When a recording ends by itself. Pure: time is a parameter, in seconds on one monotonic clock."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from bot.recording.options import MEBIBYTE, RecordOptions

Verdict = Literal["alone", "no_media", "all_muted", "max_length"]
Disk = Literal["fine", "low", "full"]


@dataclass(frozen=True, slots=True)
class Situation:
    """What there is now. ``heard`` is when the last packet came, None before the first."""

    others: int
    heard: float | None
    all_muted: bool


class _Since:
    """How long something has been so."""

    def __init__(self) -> None:
        self._since: float | None = None

    def feed(self, now: float, *, holds: bool) -> float:
        """Note whether it is so at ``now``; returns for how long."""
        if not holds:
            self._since = None
            return 0.0
        if self._since is None:
            self._since = now
        return now - self._since


class Watchdogs:
    """Looks at the situation from time to time, and says what ends the recording."""

    def __init__(self, options: RecordOptions, started: float) -> None:
        self._options = options
        self._started = started
        self._alone = _Since()
        self._muted = _Since()
        self._missing = _Since()

    def __repr__(self) -> str:
        return f"<Watchdogs since {self._started}>"

    def feed(self, situation: Situation, now: float) -> Verdict | None:
        """What is over, None while nothing is. Where all are muted, no packet is missed."""
        options = self._options
        silent = situation.others > 0 and not situation.all_muted
        last = situation.heard if situation.heard is not None else self._started
        passed: tuple[tuple[Verdict, float, float], ...] = (
            ("max_length", now - self._started, options.max_length),
            ("alone", self._alone.feed(now, holds=not situation.others), options.alone),
            (
                "all_muted",
                self._muted.feed(now, holds=situation.others > 0 and situation.all_muted),
                options.all_muted,
            ),
            ("no_media", min(self._missing.feed(now, holds=silent), now - last), options.no_media),
        )
        return next((name for name, lasted, limit in passed if limit and lasted >= limit), None)

    def disk(self, free: int) -> Disk:
        """What ``free`` bytes mean."""
        if free < self._options.disk_hard * MEBIBYTE:
            return "full"
        return "low" if free < self._options.disk_soft * MEBIBYTE else "fine"
