"""When somebody talks, by the levels that the packets of sound tell (RFC 6464). Pure."""

from __future__ import annotations

from bot.recording.manifest import Span

#: Sound of this level and louder is talk (-dBov), as that of silence and of breath is not.
LOUD = 50
#: So many loud packets in a row begin a talk: 60 ms, longer than a click.
BEGIN = 3
#: A pause that is shorter (seconds) is between two words.
HOLD = 0.7


class TalkMeter:
    """Puts together the times that one source of sound was loud; ``spans`` is where they are put."""

    def __init__(self, spans: list[Span]) -> None:
        self._spans = spans
        self._loud = 0
        self._since = 0.0
        self._last = 0.0
        self._open: Span | None = None

    def __repr__(self) -> str:
        return f"<TalkMeter {'talking' if self.talking else 'quiet'}>"

    @property
    def talking(self) -> bool:
        """Whether a talk lasts."""
        return self._open is not None

    def feed(self, level: int, at: float) -> None:
        """Take the level of a packet (-dBov, 127 is silence) at ``at`` seconds."""
        self.expire(at)
        if level > LOUD:
            self._loud = 0
            return
        if not self._loud:
            self._since = at
        self._loud += 1
        self._last = at
        if self._open is None and self._loud >= BEGIN:
            self._open = Span(start=round(self._since, 3))
            self._spans.append(self._open)

    def expire(self, at: float) -> None:
        """End a talk that was over before ``at``."""
        if self._open is not None and at - self._last > HOLD:
            self.end()

    def end(self) -> None:
        """End a talk, as the sound does."""
        self._loud = 0
        if self._open is not None:
            self._open.end = round(self._last + 0.02, 3)
            self._open = None


def talk_time(spans: list[Span], now: float) -> float:
    """Seconds of talk until ``now``."""
    return round(sum((now if span.end is None else span.end) - span.start for span in spans), 3)
