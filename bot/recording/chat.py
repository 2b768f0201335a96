"""What moderators tell the recorder in the chat, and what it answers. Pure."""

from __future__ import annotations

from math import inf
from typing import Literal, get_args

from bot.recording.session import RecordingSession

Command = Literal["start", "stop", "status", "help"]
PREFIX = "!record"
#: Who may not is told so once in so many seconds: nobody makes the recorder fill the chat.
REFUSAL_INTERVAL = 10.0

BEGINS = "The recording begins."
RUNS = "The recording runs already."
ENDED = "The recording has ended."
NOTHING = "Nothing is being recorded."
REFUSED = "Only moderators start and stop the recording."
HELP = f"{PREFIX} start | stop | status"


def command_of(text: str) -> Command | None:
    """What a chat line asks of the recorder; None for what people write to each other."""
    first, *words = text.split() or [""]
    if first.lower() != PREFIX:
        return None
    word = words[0].lower() if words else "status"
    return next((known for known in get_args(Command) if known == word), "help")


def status(session: RecordingSession, now: float) -> str:
    """What is being recorded, in a line."""
    if not session.active:
        return NOTHING
    minutes, seconds = divmod(int(session.at(now)), 60)
    what = "sound and pictures" if session.video else "sound alone"
    return f"Recording {what} for {minutes}:{seconds:02d}, {session.size / 1e6:.1f} MB so far."


class Refusals:
    """When somebody may be told again that he may not."""

    def __init__(self) -> None:
        self._at = -inf

    def due(self, now: float) -> bool:
        """Whether it is time; then it is not for a while."""
        if now - self._at < REFUSAL_INTERVAL:
            return False
        self._at = now
        return True
