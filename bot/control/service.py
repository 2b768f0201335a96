"""What the operations of the API work on."""

from __future__ import annotations

import asyncio
import sys
import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Generic, TypeVar

from pydantic import BaseModel

from bot import logs
from bot.control.auth import Scope
from bot.control.eventlog import EventLog
from bot.control.fleet import Fleet
from bot.control.jobs import Book
from bot.control.limits import Seats
from bot.control.options import ApiSettings
from bot.control.shelf import Shelf, Tickets
from bot.events import Event, EventSink
from bot.settings import Settings

B = TypeVar("B", bound=BaseModel | None)
Q = TypeVar("Q", bound=BaseModel | None)


class Service:
    """The daemon's state. ``emit`` hears every event, of whomever."""

    def __init__(
        self, settings: Settings, api: ApiSettings, emit: EventSink, *, config: Path | None = None
    ) -> None:
        self.settings = settings
        self.api = api
        #: The TOML file that the settings are of.
        self.config = config
        self.tokens = api.tokens
        self.emit = emit
        self.began = time.monotonic()
        #: Whether it ends: nothing new begins then.
        self.draining = False
        #: Whether the participants of the settings are on their way.
        self.begun = False
        #: Whether the API is served, or health alone.
        self.served = True
        self.seats = Seats(api.max_participants)
        self.events = EventLog(api.event_history)
        self.fleet = Fleet(self.seats, self.events, emit, interval=settings.statistics_interval)

        self.recordings: Book[Any] = Book("recording")
        self.loads: Book[Any] = Book("load")
        self.probes: Book[Any] = Book("probe")
        self.recording_shelf = Shelf(api.recordings_dir)
        self.report_shelf = Shelf(api.reports_dir)
        self.tickets = Tickets()

    def __repr__(self) -> str:
        return f"<Service {self.fleet!r}{' draining' if self.draining else ''}>"

    @property
    def ready(self) -> bool:
        """Whether all participants are where they shall be, and more can come."""
        return self.begun and not self.draining and self.fleet.ready

    @property
    def log_format(self) -> logs.LogFormat:
        """How child processes log: whether there is a terminal is known here."""
        form = self.settings.log_format
        return "json" if form == "json" or (form == "auto" and not sys.stderr.isatty()) else "console"

    def tell(self, owner: str, event: Event) -> None:
        """An event of ``owner``, for the log of events and all who hear."""
        self.events.add(owner, event)
        self.emit(event)

    async def close(self, timeout: float) -> bool:
        """Let everybody and everything end within ``timeout`` seconds; whether all did."""
        parts = (self.fleet, self.recordings, self.loads, self.probes)
        return all(await asyncio.gather(*(part.close(timeout) for part in parts)))


@dataclass(frozen=True, slots=True)
class Call(Generic[B, Q]):
    """One request, checked: the parts of its path, its body and its query."""

    scope: Scope
    path: Mapping[str, str]
    body: B
    query: Q
    #: ``Last-Event-ID`` and its like, by lower-case name.
    headers: Mapping[str, str] = field(default_factory=dict)

    @property
    def id(self) -> str:
        """The id in the path."""
        return self.path["id"]


@dataclass(frozen=True, slots=True)
class Reply:
    """An answer: its status and its model, or nothing."""

    status: int
    body: BaseModel | None = None
    headers: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class FileReply(Reply):
    """A file as an answer."""

    file: Path = Path()
    content_type: str = ""


AnyCall = Call[Any, Any]
