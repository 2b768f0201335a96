"""Operations on the daemon itself: its status, its events, the OpenAPI document."""

from __future__ import annotations

import time
from typing import Any

from bot import __version__
from bot.control.eventlog import Entry, Wanted
from bot.control.model import EventList, EventQuery, EventView, LogQuery, Status
from bot.control.openapi import Operation
from bot.control.service import Call, Reply, Service
from bot.xmpp.address import redact

EVENT_STREAM = "text/event-stream"


async def status(service: Service, call: Call[None, None]) -> Reply:
    """The daemon now."""
    return Reply(
        200,
        Status(
            version=__version__,
            ready=service.ready,
            draining=service.draining,
            scope="operate" if call.scope == "operate" else "read",
            participants=service.seats.taken,
            max_participants=service.seats.limit,
            server=redact(service.settings.ws_url),
            uptime=time.monotonic() - service.began,
        ),
    )


async def last_events(service: Service, call: Call[None, LogQuery]) -> Reply:
    """The last events."""
    found = service.events.last(call.query.limit, wanted(call.query))
    return Reply(200, EventList(items=[_view(item) for item in found]))


async def follow(service: Service, call: Call[None, EventQuery]) -> Reply:
    """Never called: the server streams what this operation describes."""
    raise NotImplementedError


def wanted(query: EventQuery) -> Wanted:
    """The filter of a query."""
    return Wanted(owner=query.owner, room=query.room, name=query.name)


def _view(entry: Entry) -> EventView:
    fields: dict[str, Any] = entry.as_dict()
    return EventView.model_validate(fields)


OPERATIONS = (
    Operation(
        method="get", path="/status", name="getStatus", summary="The daemon", handler=status, answers={200: Status}
    ),
    Operation(
        method="get",
        path="/log",
        name="listEvents",
        summary="The last events, the oldest first",
        handler=last_events,
        query=LogQuery,
        answers={200: EventList},
    ),
    Operation(
        method="get",
        path="/events",
        name="followEvents",
        summary="Events as they happen (server-sent events); with Last-Event-ID those that were missed come first",
        handler=follow,
        query=EventQuery,
        answers={200: EVENT_STREAM},
    ),
)
