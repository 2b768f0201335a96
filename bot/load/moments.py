"""What happened to many participants at about the same time, told as one thing. Pure."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Sequence

from bot.load import units
from bot.load.collector import Note
from bot.load.report.model import Moment

#: Notes of one kind with gaps of no more than so many seconds belong together.
TOGETHER = 5.0
#: Participants that are named.
NAMED = 5
#: Moments that are kept: a server that flaps for hours must not fill the report.
MAX_MOMENTS = 200
_TEXTS = {
    "connection_lost": "lost the connection to the server",
    "connection_back": "came back",
    "media_lost": "lost their media",
    "media_back": "have media again",
    "removed": "were removed from their room",
}


def moments_of(notes: Iterable[Note]) -> list[Moment]:
    """The notes as moments, in order of time: how many, who, and how."""
    found: list[list[Note]] = []
    open_: dict[str, list[Note]] = {}
    for note in sorted(notes, key=lambda item: item.at):
        group = open_.get(note.what)
        if group is None or note.at - group[-1].at > TOGETHER:
            group = open_[note.what] = []
            found.append(group)
        group.append(note)
    return [_moment(group) for group in found[:MAX_MOMENTS]]


def _moment(notes: Sequence[Note]) -> Moment:
    who = list(dict.fromkeys(note.who for note in notes))
    names = ", ".join(who[:NAMED]) + (f" and {len(who) - NAMED} more" if len(who) > NAMED else "")
    first = notes[0]
    text = f"{_what(first.what, len(who))}{_how(notes)}: {names}"
    return Moment(at=max(0.0, first.at), what=first.what, text=text)


def _what(what: str, number: int) -> str:
    if what == "process_died":
        return "1 process died with its participants" if number == 1 else f"{number} processes died with theirs"
    return f"{number} participant{'' if number == 1 else 's'} {_TEXTS[what]}"


def _how(notes: Sequence[Note]) -> str:
    """What was said, the most frequent first, and how long it took."""
    said = Counter(note.text for note in notes if note.text)
    parts = [f"{text} ({count})" if len(said) > 1 else text for text, count in said.most_common(3)]
    seconds = [note.seconds for note in notes if note.seconds]
    if seconds:
        low, high = units.show_seconds(min(seconds)), units.show_seconds(max(seconds))
        parts.append(f"after {low}" if low == high else f"after {low} to {high}")
    return f" ({'; '.join(parts)})" if parts else ""
