"""OpenTelemetry traces of joins: spans by an injected clock, and what a collector gets of a real join."""

from __future__ import annotations

import asyncio
import sys
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import Any

import pytest
from aiohttp import web
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest
from opentelemetry.sdk.trace import ReadableSpan, TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter

from bot import events
from bot.control.daemon import serve
from bot.control.options import ApiSettings
from bot.errors import ConfigurationError
from bot.service.runner import run_embedded
from bot.service.traces import JoinTraces, traces
from bot.settings import load
from tests.bridge_support import until

WHO: dict[str, Any] = {"room": "r", "participant": "p"}
SECOND = 1_000_000_000


class Traced:
    """Traces with a clock that stands until it is moved."""

    def __init__(self) -> None:
        self.exporter = InMemorySpanExporter()
        provider = TracerProvider(shutdown_on_exit=False)
        provider.add_span_processor(SimpleSpanProcessor(self.exporter))
        self.now = 1000.0
        self.traces = JoinTraces(provider.get_tracer("test"), lambda: int(self.now * SECOND))

    def after(self, wait: float, event: Callable[..., events.Event], **fields: Any) -> None:
        self.now += wait
        self.traces.on_event(event(**{**WHO, **fields}))

    def phase(self, name: str, seconds: float) -> None:
        self.after(seconds, events.PhaseDone, phase=name, seconds=seconds)

    def join(self) -> None:
        self.after(0, events.ConnectionCreating, url="ws://x")
        for name, seconds in (("websocket", 0.25), ("sasl", 0.5), ("bind", 0.25), ("focus", 1.0), ("muc", 0.5)):
            self.phase(name, seconds)
        self.after(0, events.ConferenceJoined, endpoint="e", occupants=2)

    @property
    def spans(self) -> dict[str, ReadableSpan]:
        return {span.name: span for span in self.exporter.get_finished_spans()}

    def times(self) -> dict[str, tuple[float, float]]:
        return {
            name: ((span.start_time or 0) / SECOND - 1000, (span.end_time or 0) / SECOND - 1000)
            for name, span in self.spans.items()
        }


def test_a_join_is_a_trace_with_a_span_for_each_phase() -> None:
    traced = Traced()
    traced.join()
    for name, seconds in (("offer", 0.5), ("ice", 0.25), ("dtls", 0.25)):
        traced.phase(name, seconds)
    traced.after(0, events.MediaConnected, channel="sctp")
    traced.phase("first_packet_in", 1.0)
    assert traced.times() == {
        "websocket": (0, 0.25),
        "sasl": (0.25, 0.75),
        "bind": (0.75, 1.0),
        "focus": (1.0, 2.0),
        "muc": (2.0, 2.5),
        "join": (0, 2.5),
        "offer": (2.5, 3.0),
        "ice": (3.0, 3.25),
        "dtls": (3.25, 3.5),
        "media": (2.5, 3.5),
        "first_packet_in": (3.5, 4.5),
    }
    spans = traced.spans
    ids = {name: span.context.span_id for name, span in spans.items() if span.context is not None}
    parents = {name: span.parent.span_id if span.parent is not None else None for name, span in spans.items()}
    media = ("offer", "ice", "dtls", "first_packet_in")
    assert {name for name in spans if parents[name] == ids["media"]} == set(media)
    assert {name for name in spans if parents[name] == ids["join"]} == set(spans) - {"join", *media}
    assert parents["join"] is None
    assert len({span.context.trace_id for span in spans.values() if span.context is not None}) == 1
    assert dict(spans["join"].attributes or {}) == {
        "jitsi.room": "r",
        "jitsi.participant": "p",
        "jitsi.attempt": 1,
        "jitsi.url": "ws://x",
        "jitsi.endpoint": "e",
        "jitsi.occupants": 2,
    }


def test_each_attempt_that_fails_is_a_trace_with_its_error() -> None:
    traced = Traced()
    for attempt in (1, 2):
        traced.after(0, events.ConnectionCreating, url="ws://x", attempt=attempt)
        traced.phase("websocket", 0.5)
        traced.after(1, events.AttemptFailed, code="dns_failed", cause="no such host", attempt=attempt)
    joins = [span for span in traced.exporter.get_finished_spans() if span.name == "join"]
    assert [dict(span.attributes or {})["error.type"] for span in joins] == ["dns_failed"] * 2
    assert [span.status.description for span in joins] == ["no such host"] * 2
    assert len({span.context.trace_id for span in joins if span.context is not None}) == 2


def test_media_that_fails_is_an_error_and_the_next_session_a_span_of_its_own() -> None:
    traced = Traced()
    traced.join()
    traced.phase("offer", 0.5)
    traced.after(30, events.MediaFailed, code="ice_failed", cause="udp")
    traced.phase("offer", 2.0)
    traced.phase("ice", 0.5)
    traced.after(0, events.MediaConnected, channel="sctp")
    sessions = [span for span in traced.exporter.get_finished_spans() if span.name == "media"]
    assert [(span.attributes or {}).get("error.type") for span in sessions] == ["ice_failed", None]
    assert not [span for span in sessions if span.parent is None]


def test_who_leaves_in_the_middle_leaves_no_span_open() -> None:
    traced = Traced()
    traced.after(0, events.ConnectionCreating, url="ws://x")
    traced.after(1, events.Left, clean=False)
    assert dict(traced.spans["join"].attributes or {})["error.type"] == "cancelled"
    assert repr(traced.traces) == "<JoinTraces of 0 participants>"


def test_events_of_whom_nothing_is_known_are_no_spans() -> None:
    traced = Traced()
    traced.phase("ice", 1.0)
    traced.after(0, events.Left, clean=True)
    assert traced.spans == {}


async def test_without_the_extra_it_is_said_how_to_get_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "opentelemetry.sdk.trace", None)
    with pytest.raises(ConfigurationError, match="traces_endpoint: OpenTelemetry is not installed") as found:
        async with traces("http://127.0.0.1:1/v1/traces"):
            pass
    assert found.value.hint == "pip install 'jitsi-bot[otel]'"


@asynccontextmanager
async def collector(take: Callable[[ExportTraceServiceRequest], None]) -> AsyncIterator[str]:
    """The address of somebody who takes what is sent by OTLP."""

    async def answer(request: web.Request) -> web.Response:
        take(ExportTraceServiceRequest.FromString(await request.read()))
        return web.Response(body=b"", content_type="application/x-protobuf")

    application = web.Application()
    application.router.add_post("/v1/traces", answer)
    runner = web.AppRunner(application)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", 0).start()
    try:
        yield f"http://127.0.0.1:{runner.addresses[0][1]}/v1/traces"
    finally:
        await runner.cleanup()


@pytest.mark.parametrize("who", ["run", "serve-api"])
async def test_a_collector_gets_the_joins_of_a_run(who: str, monkeypatch: pytest.MonkeyPatch) -> None:
    names: dict[bytes, set[str]] = {}

    def take(said: ExportTraceServiceRequest) -> None:
        for resource in said.resource_spans:
            for scope in resource.scope_spans:
                for span in scope.spans:
                    names.setdefault(span.trace_id, set()).add(span.name)

    monkeypatch.setenv("OTEL_EXPORTER_OTLP_COMPRESSION", "none")
    monkeypatch.setenv("OTEL_BSP_SCHEDULE_DELAY", "100")  # milliseconds
    wanted = {"join", "websocket", "sasl", "bind", "focus", "muc", "media", "offer", "ice", "dtls"}
    async with collector(take) as endpoint:
        settings = load(
            embedded_port=0,
            http_port=0,
            duration=50,
            bots=2,
            traces_endpoint=endpoint,
            video="none",
            talk="always",
        )
        running: asyncio.Task[Any] = asyncio.create_task(
            run_embedded(settings, daemon=False, console=None)
            if who == "run"
            else serve(lambda: (settings, ApiSettings()), embedded=True)
        )
        try:
            await until(lambda: running.done() or [spans >= wanted for spans in names.values()] == [True] * 2)
            assert not running.done()
        finally:
            running.cancel()
            await asyncio.gather(running, return_exceptions=True)


async def test_what_is_not_sent_is_sent_at_the_end() -> None:
    got: list[ExportTraceServiceRequest] = []
    async with collector(got.append) as endpoint:
        async with traces(endpoint) as trace:
            trace(events.ConnectionCreating(**WHO, url="ws://x"))
            trace(events.Left(**WHO, clean=False))
            assert got == []
        assert len(got) == 1
