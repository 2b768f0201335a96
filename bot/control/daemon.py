"""The daemon with the API: what it starts, how it begins, and how it ends."""

from __future__ import annotations

import asyncio
import signal
from collections.abc import Callable
from contextlib import AsyncExitStack, suppress
from pathlib import Path

import structlog
from rich.console import Console

from bot import events, logs
from bot.control.options import ApiSettings, check_listens
from bot.control.reload import Read, apply, prepare, reload
from bot.control.server import make_app
from bot.control.service import Service
from bot.embedded.server import EmbeddedServer
from bot.errors import ConfigurationError
from bot.service.http import HealthServer
from bot.service.metrics import Metrics
from bot.service.runner import EMBEDDED_BOTS, catch_signals, embedded_server, embedded_settings, show_live
from bot.service.traces import traces
from bot.settings import Settings

log = structlog.get_logger(__name__)


async def run_daemon(read: Read, *, embedded: bool, config: Path | None, console: Console | None) -> None:
    """``run --daemon``: the participants of the settings, whatever they are, and the API on its port.

    The API is left out where it must not be: on an address that others reach, without a token. ``console`` is a
    terminal for the live table.
    """

    def read_all() -> tuple[Settings, ApiSettings]:
        settings, api = read()
        return _asked(settings, EMBEDDED_BOTS if embedded else settings.bots), api

    settings, api = read_all()
    try:
        check_listens(settings.http_host, api)
    except ConfigurationError as error:
        log.info("Health and metrics are served, and no API", event_name="api_left_out", cause=str(error))
        await _serve(read_all, embedded=embedded, config=config, console=console, api=False)
    else:
        await _serve(read_all, embedded=embedded, config=config, console=console)


def _asked(settings: Settings, bots: int) -> Settings:
    """The settings with a number of bots, where they name none."""
    return settings if "bots" in settings.model_fields_set else settings.model_copy(update={"bots": bots})


async def serve(read: Read, *, embedded: bool, config: Path | None = None) -> None:
    """Serve the API until SIGTERM or SIGINT, then let all leave; a second signal ends the process at once.

    ``read`` reads the settings; SIGHUP reads them again. The participants that they name are there from the
    beginning: those of ``[[participants]]``, or ``bots`` of them where that is given. Raises ConfigurationError
    for an address that can't be had, or must not.
    """
    settings, api = read()
    check_listens(settings.http_host, api)
    await _serve(read, embedded=embedded, config=config)


async def _serve(
    read: Read, *, embedded: bool, config: Path | None, console: Console | None = None, api: bool = True
) -> None:
    settings, options = read()
    async with AsyncExitStack() as stack:
        if embedded:
            server = await stack.enter_async_context(embedded_server(settings.embedded_port))
            settings, read = _in(server, settings), _reading_in(server, read)
        service = Service(settings, options, lambda _: None, config=config)
        service.served = api
        await _Daemon(service, read, console).run(stack)


def _reading_in(server: EmbeddedServer, read: Read) -> Read:
    def read_there() -> tuple[Settings, ApiSettings]:
        settings, api = read()
        return _in(server, settings), api

    return read_there


def _in(server: EmbeddedServer, settings: Settings) -> Settings:
    """The settings for the embedded server, with no bots but those that were asked for."""
    found = embedded_settings(settings, server)
    return found if "bots" in settings.model_fields_set else found.model_copy(update={"bots": 0})


class _Daemon:
    """One run of it."""

    def __init__(self, service: Service, read: Read, console: Console | None) -> None:
        self.service = service
        service.emit = service.fleet.emit = self._emit
        self._read = read
        self._console = console
        self._again = asyncio.Event()
        self._metrics = Metrics()
        self._trace: events.EventSink = lambda _: None
        self._stop = asyncio.Event()

    def _emit(self, event: events.Event) -> None:
        if self._console is None or not isinstance(event, events.MediaStatistics | events.StreamStatistics):
            logs.log_event(event)  # the table shows the others
        self._metrics.on_event(event)
        self._trace(event)

    async def run(self, stack: AsyncExitStack) -> None:
        service = self.service
        settings = service.settings
        self._trace = await stack.enter_async_context(traces(settings.traces_endpoint))
        stack.callback(self._hear_again())
        change = await prepare(service, settings, service.api)
        server = HealthServer(
            settings.http_host,
            settings.http_port,
            ready=lambda: service.ready,
            metrics=self._metrics,
            app=make_app(service) if service.served else None,
        )
        await server.start()
        stack.push_async_callback(server.stop)
        stack.callback(service.events.close)
        stack.callback(catch_signals(self._stop.set))
        self._announce(server.bound_port)
        service.fleet.start()
        stack.push_async_callback(self._drain)
        await apply(service, change)
        reloads = asyncio.create_task(self._reload(), name="reload")
        stack.push_async_callback(_end, reloads)
        if self._console is not None:
            live = asyncio.create_task(show_live(service.fleet, self._console), name="live table")
            stack.push_async_callback(_end, live)
        try:
            async with asyncio.timeout(settings.duration or None):
                await self._stop.wait()
        except TimeoutError:
            pass

    def _announce(self, port: int) -> None:
        host, tokens = self.service.settings.http_host, not self.service.tokens.open
        if self.service.served:
            log.info("The API is served", event_name="api_started", host=host, port=port, tokens=tokens)
        else:
            log.info("Health and metrics are served", event_name="health_started", host=host, port=port)

    def _hear_again(self) -> Callable[[], None]:
        """Read the settings again at each SIGHUP; returns what ends that."""
        loop = asyncio.get_running_loop()
        with suppress(ValueError, RuntimeError, NotImplementedError):
            loop.add_signal_handler(signal.SIGHUP, self._again.set)

        def release() -> None:
            with suppress(ValueError, RuntimeError, NotImplementedError):
                loop.remove_signal_handler(signal.SIGHUP)

        return release

    async def _reload(self) -> None:
        """One after the other: a second signal while one is at work is done after it."""
        while await self._again.wait():
            self._again.clear()
            try:
                await reload(self.service, self._read)
            except Exception:
                log.exception("The settings could not be read again", event_name="settings_reload_failed")

    async def _drain(self) -> None:
        """Let everybody leave, with the API still there to tell of it; nothing new begins."""
        service = self.service
        service.draining = True
        limit = service.api.drain_timeout
        log.info("Draining", event_name="api_draining", participants=service.seats.taken, limit=limit)
        if not await service.close(limit):
            log.warning("Not everything has ended in time", event_name="api_drain_timeout", limit=limit)


async def _end(task: asyncio.Task[None]) -> None:
    task.cancel()
    await asyncio.wait([task])
    if not task.cancelled() and (error := task.exception()) is not None:
        raise error
