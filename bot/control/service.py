"""What the operations of the API work on."""

from __future__ import annotations

import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Generic, TypeVar

from pydantic import BaseModel

from bot.control.auth import Scope
from bot.control.eventlog import EventLog
from bot.control.fleet import Fleet
from bot.control.limits import Seats
from bot.control.options import ApiSettings
from bot.events import EventSink
from bot.settings import Settings

B = TypeVar("B", bound=BaseModel | None)
Q = TypeVar("Q", bound=BaseModel | None)


class Service:
    """The daemon's state. ``emit`` hears every event, of whomever."""

    def __init__(self, settings: Settings, api: ApiSettings, emit: EventSink) -> None:
        self.settings = settings
        self.api = api
        self.tokens = api.tokens
        self.emit = emit
        self.began = time.monotonic()
        #: Whether it ends: nothing new begins then.
        self.draining = False
        self.seats = Seats(api.max_participants)
        self.events = EventLog(api.event_history)
        self.fleet = Fleet(self.seats, self.events, emit, interval=settings.statistics_interval)

    def __repr__(self) -> str:
        return f"<Service {self.fleet!r}{' draining' if self.draining else ''}>"

    @property
    def ready(self) -> bool:
        """Whether all participants are where they shall be, and more can come."""
        return not self.draining and self.fleet.ready


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


AnyCall = Call[Any, Any]
