"""When a recording begins and ends by the clock. Pure: the present moment is a parameter."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime, time, timedelta

from bot.errors import ConfigurationError
from bot.recording.options import RecordOptions


@dataclass(frozen=True, slots=True)
class Window:
    """From ``start``, None for at once, to ``end``, None for as long as it lasts."""

    start: datetime | None = None
    end: datetime | None = None

    def wait(self, now: datetime) -> float:
        """Seconds until it begins."""
        return 0.0 if self.start is None else max(0.0, (self.start - now).total_seconds())

    def left(self, now: datetime) -> float | None:
        """Seconds until it ends, None for no end."""
        return None if self.end is None else max(0.0, (self.end - now).total_seconds())


def window(options: RecordOptions, now: datetime) -> Window:
    """The window of ``start`` and ``end``, seen at ``now``. Raises ConfigurationError for one that is over."""
    now = now.astimezone()
    end_at = options.end
    start = None if options.start is None else moment(options.start, now)
    if options.start is not None and end_at is not None and _is_time(options.start) and _is_time(end_at):
        running = _running(options.start, end_at, now)
        if running is not None:
            return running
    end = None if end_at is None else moment(end_at, start or now)
    if end is not None and end <= max(now, start or now):
        raise ConfigurationError(f"record end ({end_at}) is over, or before the start")
    return Window(start, end)


def _running(start: str, end: str, now: datetime) -> Window | None:
    """Today's window, or the one of yesterday evening, where it is open now."""
    ending = moment(end, now)
    beginning = moment(start, now) - timedelta(days=1)
    return Window(beginning, ending) if moment(end, beginning) == ending else None


def moment(value: str, after: datetime) -> datetime:
    """A date and time, or the next such time of the day after ``after``; local where no zone is named."""
    if not _is_time(value):
        return datetime.fromisoformat(value).astimezone()
    of_day = time.fromisoformat(value)
    zone = of_day.tzinfo or after.tzinfo
    found = datetime.combine(after.astimezone(zone).date(), of_day.replace(tzinfo=None), zone)
    return found if found > after else found + timedelta(days=1)


def _is_time(value: str) -> bool:
    try:
        time.fromisoformat(value)
    except ValueError:
        return False
    return True
