"""OpenTelemetry traces of joins, made of the events (the extra ``otel``).

Each attempt to join is a trace: the span ``join`` from the start of the connection to the room, or to the failure,
with a span for each phase in it, and in the same trace a span ``media`` for each media session that comes up.
Names of attributes are those of the events' fields, with the prefix ``jitsi.``.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from bot import __version__, events
from bot.errors import ConfigurationError

if TYPE_CHECKING:
    from opentelemetry.sdk.trace import TracerProvider
    from opentelemetry.trace import Span, Tracer

#: Phases of the media session (``bot.participant.timing.PHASES``); the others lead into the room.
MEDIA = frozenset(("offer", "ice", "dtls", "channel", "first_packet_out", "first_packet_in"))
#: Milliseconds that what is not sent yet may take at the end.
FLUSH = 3000
_NANO = 1_000_000_000


@dataclass(slots=True)
class _Trace:
    """One attempt: its join, and the media session that comes up, or came up last."""

    join: Span
    media: Span | None = None
    joined: bool = False


class JoinTraces:
    """Makes spans. ``on_event`` is an event sink; ``clock`` gives Unix nanoseconds."""

    def __init__(self, tracer: Tracer, clock: Callable[[], int] = time.time_ns) -> None:
        self._tracer = tracer
        self._clock = clock
        self._traces: dict[tuple[str, str], _Trace] = {}

    def __repr__(self) -> str:
        return f"<JoinTraces of {len(self._traces)} participants>"

    def on_event(self, event: events.Event) -> None:
        """Take one event."""
        who = event.room, event.participant
        if isinstance(event, events.ConnectionCreating):
            self._begin(who, event)
        elif (trace := self._traces.get(who)) is not None:
            self._more(who, trace, event)

    def _begin(self, who: tuple[str, str], event: events.ConnectionCreating) -> None:
        self._end(who, "another attempt began")
        about: dict[str, str | int] = {
            "room": event.room,
            "participant": event.participant,
            "attempt": event.attempt,
            "url": event.url,
        }
        self._traces[who] = _Trace(self._span("join", 0.0, None, **about))

    def _more(self, who: tuple[str, str], trace: _Trace, event: events.Event) -> None:
        match event:
            case events.PhaseDone() if event.phase in MEDIA:
                self._media_phase(trace, event)
            case events.PhaseDone():
                self._phase(trace.join, event)
            case events.ConferenceJoined():
                trace.joined = True
                self._done(trace.join, endpoint=event.endpoint, occupants=event.occupants)
            case events.MediaConnected():
                if trace.media is not None:
                    self._done(trace.media, channel=event.channel)
            case events.MediaFailed():
                self._media_failed(trace, event)
            case events.AttemptFailed() | events.JoinFailed() if not trace.joined:
                self._failed(trace.join, event.code, event.cause)
            case events.Left():
                self._end(who, "left before it had joined")
            case _:
                pass

    def _media_phase(self, trace: _Trace, event: events.PhaseDone) -> None:
        """The offer begins a session; what comes after media is up belongs to the one that is there."""
        if event.phase == "offer" or trace.media is None:
            if trace.media is not None and trace.media.is_recording():
                self._failed(trace.media, "replaced", "another session was offered")
            trace.media = self._span("media", event.seconds, trace.join)
        self._phase(trace.media, event)

    def _media_failed(self, trace: _Trace, event: events.MediaFailed) -> None:
        if trace.media is None or not trace.media.is_recording():
            trace.media = self._span("media", event.seconds, trace.join)
        self._failed(trace.media, event.code, event.cause)

    def _phase(self, parent: Span, event: events.PhaseDone) -> None:
        self._span(event.phase, event.seconds, parent).end(self._clock())

    def _span(self, name: str, seconds: float, parent: Span | None, **about: str | int) -> Span:
        """A span that began ``seconds`` ago."""
        from opentelemetry import trace  # noqa: PLC0415 - of the extra

        return self._tracer.start_span(
            name,
            context=None if parent is None else trace.set_span_in_context(parent),
            start_time=self._clock() - int(seconds * _NANO),
            attributes={f"jitsi.{key}": value for key, value in about.items()},
        )

    def _done(self, span: Span, **about: str | int) -> None:
        if span.is_recording():
            span.set_attributes({f"jitsi.{key}": value for key, value in about.items()})
            span.end(self._clock())

    def _failed(self, span: Span, code: str, cause: str) -> None:
        from opentelemetry.trace import Status, StatusCode  # noqa: PLC0415 - of the extra

        if span.is_recording():
            span.set_attribute("error.type", code)
            span.set_status(Status(StatusCode.ERROR, cause))
            span.end(self._clock())

    def _end(self, who: tuple[str, str], cause: str) -> None:
        trace = self._traces.pop(who, None)
        if trace is not None:
            self._failed(trace.join, "cancelled", cause)
            if trace.media is not None:
                self._failed(trace.media, "cancelled", cause)


def _provider(endpoint: str) -> TracerProvider:
    """Sends spans to ``endpoint`` from a thread of its own. Raises ConfigurationError without the extra."""
    try:
        from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter  # noqa: PLC0415
        from opentelemetry.sdk.resources import Resource  # noqa: PLC0415
        from opentelemetry.sdk.trace import TracerProvider  # noqa: PLC0415
        from opentelemetry.sdk.trace.export import BatchSpanProcessor  # noqa: PLC0415
    except ImportError as error:
        raise ConfigurationError(
            f"traces_endpoint: OpenTelemetry is not installed ({error})", hint="pip install 'jitsi-bot[otel]'"
        ) from error
    about: dict[str, Any] = {"service.name": "jitsi-bot", "service.version": __version__}
    provider = TracerProvider(resource=Resource.create(about), shutdown_on_exit=False)
    provider.add_span_processor(BatchSpanProcessor(OTLPSpanExporter(endpoint=endpoint, timeout=FLUSH / 1000)))
    return provider


@asynccontextmanager
async def traces(endpoint: str | None) -> AsyncIterator[events.EventSink]:
    """An event sink that sends traces to ``endpoint``; one that does nothing where that is None.

    What is not sent when it ends is waited for, FLUSH ms at most. Raises ConfigurationError without the extra.
    """
    if endpoint is None:
        yield lambda _: None
        return
    provider = await asyncio.to_thread(_provider, endpoint)
    try:
        yield JoinTraces(provider.get_tracer("jitsi-bot", __version__)).on_event
    finally:
        await asyncio.to_thread(provider.force_flush, FLUSH)
        await asyncio.to_thread(provider.shutdown)
