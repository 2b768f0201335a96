"""A process that runs participants: signals, reports, the HTTP server, and the embedded server where asked for."""

from __future__ import annotations

import asyncio
import signal
import sys
import time
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from contextlib import AsyncExitStack, asynccontextmanager, suppress
from enum import Enum
from types import MappingProxyType
from typing import Protocol

import structlog
from rich.console import Console

from bot import events, logs
from bot.embedded.config import EmbeddedConfig
from bot.embedded.server import EmbeddedServer
from bot.errors import ConfigurationError
from bot.participant.config import ParticipantConfig, expand
from bot.participant.own import check_media
from bot.participant.participant import Participant
from bot.service.http import HealthServer
from bot.service.live import LiveTable
from bot.service.metrics import Metrics
from bot.service.processes import ProcessPool, number_of_processes
from bot.service.report import Reportable, Sampler, emit_statistics
from bot.service.supervisor import Supervisor
from bot.service.traces import traces
from bot.settings import Settings

log = structlog.get_logger(__name__)

#: Where the web container's proxied WebSocket is, and so the embedded server's first choice.
EMBEDDED_PORT = 8000
LIVE_INTERVAL = 1.0
#: Bots of ``run --embedded`` where no number is given: with fewer than two nobody has media.
EMBEDDED_BOTS = 2


class Outcome(Enum):
    """How a run of participants went, as a whole; the worst of them counts."""

    FINE = "fine"
    NOT_JOINED = "not_joined"
    LOST = "lost"


#: What a command that runs participants ends with.
EXIT_CODES: Mapping[Outcome, int] = MappingProxyType({Outcome.FINE: 0, Outcome.NOT_JOINED: 3, Outcome.LOST: 4})


class Crew(Protocol):
    """Who is shown in the live table."""

    @property
    def participants(self) -> Sequence[Reportable]:
        """The participants of now."""
        ...


class _Fates:
    """Who ever stood in a room, and who failed. An event sink."""

    def __init__(self) -> None:
        self._joined: set[tuple[str, str]] = set()
        self._failed: set[tuple[str, str]] = set()

    def on_event(self, event: events.Event) -> None:
        who = event.room, event.participant
        match event:
            case events.ConferenceJoined():
                self._joined.add(who)
                self._failed.discard(who)
            case events.JoinFailed() | events.RemovedFromRoom():
                self._failed.add(who)
            case _:
                pass

    @property
    def outcome(self) -> Outcome:
        if self._failed - self._joined:
            return Outcome.NOT_JOINED
        return Outcome.LOST if self._failed else Outcome.FINE


async def run_participants(settings: Settings, *, daemon: bool, console: Console | None) -> Outcome:
    """Run the participants of ``settings`` to their end.

    SIGTERM and SIGINT make them leave; a second one ends the process at once. ``daemon`` begins a failed
    participant anew and serves health and metrics. ``console``: a terminal for the live table, None without.
    """
    metrics, fates = Metrics(), _Fates()

    def emit(event: events.Event) -> None:
        if console is None or not isinstance(
            event, events.MediaStatistics | events.StreamStatistics
        ):  # the table shows
            logs.log_event(event)
        metrics.on_event(event)
        fates.on_event(event)
        trace(event)

    configs = expand(settings)
    await asyncio.to_thread(check_media, configs)
    async with AsyncExitStack() as stack:
        trace = await stack.enter_async_context(traces(settings.traces_endpoint))
        supervisor = _crew(settings, configs, emit, daemon=daemon, console=console)
        if daemon:
            server = HealthServer(
                settings.http_host, settings.http_port, ready=lambda: supervisor.ready, metrics=metrics
            )
            await server.start()
            stack.push_async_callback(server.stop)
        stack.callback(catch_signals(supervisor.stop))
        if settings.duration:
            stack.callback(asyncio.get_running_loop().call_later(settings.duration, supervisor.stop).cancel)
        reports = asyncio.create_task(_report(supervisor, settings.statistics_interval, emit), name="statistics")
        stack.push_async_callback(_end, reports)
        if console is not None:
            live = asyncio.create_task(show_live(supervisor, console), name="live table")
            stack.push_async_callback(_end, live)
        await supervisor.run()
    return Outcome.FINE if daemon else fates.outcome  # a daemon outlives its failures: it ends when told to


async def run_embedded(settings: Settings, *, daemon: bool, console: Console | None) -> Outcome:
    """Start the embedded server, and the participants of ``settings`` in it."""
    async with embedded_server(settings.embedded_port) as server:
        return await run_participants(embedded_settings(settings, server), daemon=daemon, console=console)


async def serve(settings: Settings) -> None:
    """Run the embedded server alone, until a signal or the end of ``duration``."""
    stop = asyncio.Event()
    release = catch_signals(stop.set)
    try:
        async with embedded_server(settings.embedded_port):
            with suppress(TimeoutError):
                await asyncio.wait_for(stop.wait(), settings.duration or None)
    finally:
        release()


@asynccontextmanager
async def embedded_server(port: int | None) -> AsyncIterator[EmbeddedServer]:
    """The embedded server on ``port``; None takes 8000, or a free one where that is taken."""
    server = EmbeddedServer(port=EMBEDDED_PORT if port is None else port)
    try:
        await server.start()
    except ConfigurationError as error:
        if port is not None:
            raise
        log.warning("Taking a free port instead", event_name="embedded_port_taken", cause=error.message)
        server = EmbeddedServer(port=0)
        await server.start()
    try:
        yield server
    finally:
        await server.stop()


def embedded_settings(settings: Settings, server: EmbeddedServer) -> Settings:
    """``settings`` with the embedded server in the place of whatever deployment they name."""
    config: EmbeddedConfig = server.config
    changes: dict[str, object] = {
        "ws_url": server.url,
        "domain": config.domain,
        "muc_domain": config.muc_domain,
        "focus_jid": config.focus_domain,
        "ice_addresses": (server.host,),
        **dict.fromkeys(("anonymous_domain", "username", "password", "token", "ca_file", "keepalive_url")),
    }
    if "bots" not in settings.model_fields_set:
        changes["bots"] = EMBEDDED_BOTS
    return settings.model_copy(update=changes)


def catch_signals(stop: Callable[[], None]) -> Callable[[], None]:
    """Call ``stop`` at the first SIGTERM or SIGINT; the second one does what the system does: it ends the process.

    Returns what gives the signals back.
    """
    loop = asyncio.get_running_loop()
    caught = (signal.SIGTERM, signal.SIGINT)

    def release() -> None:
        for item in caught:
            with suppress(ValueError, RuntimeError, NotImplementedError):
                loop.remove_signal_handler(item)

    def first() -> None:
        release()
        signal.signal(signal.SIGINT, signal.SIG_DFL)
        stop()

    for item in caught:
        with suppress(ValueError, RuntimeError, NotImplementedError):
            loop.add_signal_handler(item, first)
    return release


def _participant(config: ParticipantConfig, emit: events.EventSink) -> Participant:
    return Participant(config, emit=emit)


def _crew(
    settings: Settings,
    configs: list[ParticipantConfig],
    emit: events.EventSink,
    *,
    daemon: bool,
    console: Console | None,
) -> Supervisor[Participant] | ProcessPool:
    """All participants in this process, or spread over several."""
    count = number_of_processes(settings.processes, len(configs))
    if count == 1:
        return Supervisor(configs, _participant, emit, restart=daemon, cool_down=settings.cool_down)
    as_json = settings.log_format == "json" or (settings.log_format == "auto" and not sys.stderr.isatty())
    return ProcessPool(
        configs,
        emit,
        count=count,
        restart=daemon,
        cool_down=settings.cool_down,
        interval=LIVE_INTERVAL if console is not None else settings.statistics_interval,
        log_level=settings.log_level,
        log_format="json" if as_json else "console",
    )


async def _report(
    supervisor: Supervisor[Participant] | ProcessPool, interval: float, emit: events.EventSink
) -> None:
    sampler = Sampler(time.monotonic())
    while interval:
        await asyncio.sleep(interval)
        emit_statistics(sampler.rows(supervisor.participants, time.monotonic()), emit)


async def show_live(crew: Crew, console: Console) -> None:
    """Draw the live table of ``crew`` once a second, until cancelled."""
    sampler = Sampler(time.monotonic())
    with LiveTable(console) as table:
        while True:
            table.show(sampler.rows(crew.participants, time.monotonic()))
            await asyncio.sleep(LIVE_INTERVAL)


async def _end(task: asyncio.Task[None]) -> None:
    task.cancel()
    await asyncio.wait([task])
    if not task.cancelled() and (error := task.exception()) is not None:
        raise error
