"""The last events, for who asks for them and who waits for more: a ring, and a bell for each reader."""

from __future__ import annotations

import asyncio
import json
import secrets
import time
from collections import deque
from collections.abc import AsyncGenerator, Callable, Iterator
from dataclasses import dataclass
from itertools import islice
from typing import Any

from bot.events import Event


@dataclass(frozen=True, slots=True)
class Entry:
    """An event with its number (from 1), when it was (Unix seconds), and whose it is (an id of the API)."""

    number: int
    at: float
    owner: str
    event: Event

    def as_dict(self) -> dict[str, Any]:
        """For JSON, without what is no event's own."""
        return {
            "at": round(self.at, 3),
            "owner": self.owner,
            "name": self.event.name,
            "level": self.event.level,
            "message": self.event.message,
            "fields": self.event.as_dict(),
        }


@dataclass(frozen=True, slots=True)
class Wanted:
    """Which events somebody wants; what is empty does not matter."""

    owner: str = ""
    room: str = ""
    name: str = ""

    def __call__(self, entry: Entry) -> bool:
        """Whether this one is wanted."""
        return (
            self.owner in {"", entry.owner}
            and self.room in {"", entry.event.room}
            and self.name in {"", entry.event.name}
        )


class EventLog:
    """Keeps the last ``size`` events. A reader that is slow hears how many it has missed; it holds nobody up."""

    def __init__(self, size: int, wall: Callable[[], float] = time.time) -> None:
        self._entries: deque[Entry] = deque(maxlen=size)
        self._wall = wall
        self._last = 0
        self._bells: set[asyncio.Event] = set()
        self._closed = False
        #: Numbers begin anew with the process: ids say of which one they are.
        self._epoch = secrets.token_hex(4)

    def __repr__(self) -> str:
        return f"<EventLog of {len(self._entries)} events, {len(self._bells)} readers>"

    def add(self, owner: str, event: Event) -> None:
        """Keep an event, and tell who waits."""
        self._last += 1
        self._entries.append(Entry(self._last, self._wall(), owner, event))
        for bell in self._bells:
            bell.set()

    def close(self) -> None:
        """End all readers."""
        self._closed = True
        for bell in self._bells:
            bell.set()

    def last(self, limit: int, wanted: Wanted) -> list[Entry]:
        """The last ``limit`` events that are wanted, the oldest first."""
        return list(islice(filter(wanted, reversed(self._entries)), limit))[::-1]

    def id_of(self, number: int) -> str:
        """The id of an event in a stream."""
        return f"{self._epoch}-{number}"

    def after(self, last_id: str) -> int:
        """The number that a reader has seen last; 0, so that it hears all, where its id is not of this process."""
        epoch, _, number = last_id.rpartition("-")
        known = epoch == self._epoch and number.isascii() and number.isdigit() and len(number) < 16
        return int(number) if known else 0

    @property
    def newest(self) -> int:
        """The number of the last event."""
        return self._last

    async def follow(self, seen: int, wanted: Wanted, heartbeat: float) -> AsyncGenerator[bytes, None]:
        """Server-sent events (WHATWG HTML, section 9.2) from number ``seen`` on; a comment where none comes."""
        bell = asyncio.Event()
        self._bells.add(bell)
        try:
            while True:
                bell.clear()
                if text := "".join(self._frames(seen, wanted)):
                    yield text.encode()
                seen = self._last
                if self._closed:
                    return
                if not await _rings(bell, heartbeat):
                    yield b": nothing new\n\n"
        finally:
            self._bells.discard(bell)

    def _frames(self, seen: int, wanted: Wanted) -> Iterator[str]:
        oldest = self._entries[0].number if self._entries else 1
        if seen and seen < oldest - 1:
            yield f'event: dropped\ndata: {{"count": {oldest - 1 - seen}}}\n\n'
        for entry in self._entries:
            if entry.number > seen and wanted(entry):
                data = json.dumps(entry.as_dict(), default=str)
                yield f"id: {self.id_of(entry.number)}\nevent: {entry.event.name}\ndata: {data}\n\n"


async def _rings(bell: asyncio.Event, within: float) -> bool:
    try:
        async with asyncio.timeout(within):
            await bell.wait()
    except TimeoutError:
        return False
    return True
