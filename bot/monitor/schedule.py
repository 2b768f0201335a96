"""The probe as a command: once, or on a schedule with metrics, history and web-hook."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable
from contextlib import AsyncExitStack, suppress

import structlog

from bot import logs
from bot.monitor.changes import Changes
from bot.monitor.history import History
from bot.monitor.metrics import ProbeMetrics
from bot.monitor.model import ProbeResult
from bot.monitor.probe import Probe
from bot.monitor.settings import ProbeSettings
from bot.monitor.webhook import WebHook
from bot.service.http import HealthServer
from bot.service.runner import catch_signals, embedded_server, embedded_settings
from bot.settings import Settings

log = structlog.get_logger(__name__)

OnResult = Callable[[ProbeResult], None]


async def probe(settings: Settings, options: ProbeSettings, on_result: OnResult, *, embedded: bool) -> None:
    """Probe once, or every ``options.every`` seconds until SIGTERM or SIGINT; ``on_result`` hears each result.

    ``embedded`` starts the embedded server and probes that. Raises ConfigurationError for a port that is taken.
    """
    async with AsyncExitStack() as stack:
        if embedded:
            server = await stack.enter_async_context(embedded_server(settings.embedded_port))
            settings = embedded_settings(settings, server)
        await _Daemon(settings, options, on_result).run(stack)


class _Daemon:
    """What a schedule needs beside the probe; a single run has history and web-hook, too."""

    def __init__(self, settings: Settings, options: ProbeSettings, on_result: OnResult) -> None:
        self._settings = settings
        self._options = options
        self._on_result = on_result
        self._probe = Probe(settings, options, emit=logs.log_event)
        self._history = History(options.history, options.history_file)
        self._changes = Changes(options.webhook_after)
        self._metrics = ProbeMetrics()
        self._hook: WebHook | None = None
        self._probed = False
        self._stop = asyncio.Event()

    async def run(self, stack: AsyncExitStack) -> None:
        """Run to the end; ``stack`` ends what was begun."""
        options, settings = self._options, self._settings
        stack.callback(catch_signals(self._stop.set))
        if options.webhook_url is not None:
            secret = options.webhook_secret.get_secret_value() if options.webhook_secret else None
            self._hook = WebHook(options.webhook_url, secret)
            self._hook.start()
            stack.push_async_callback(self._hook.close)
        if options.every:
            server = HealthServer(
                settings.http_host, settings.http_port, ready=lambda: self._probed, metrics=self._metrics
            )
            await server.start()
            stack.push_async_callback(server.stop)
            log.info("Probing", event_name="probe_started", every=options.every, port=server.bound_port)
        await self._repeat()

    async def _repeat(self) -> None:
        due = time.monotonic()
        while await self._once() and self._options.every:
            now = time.monotonic()
            # A probe that took longer than the interval skips what it has missed.
            due += self._options.every * max(1, -int(-(now - due) // self._options.every))
            with suppress(TimeoutError):
                await asyncio.wait_for(self._stop.wait(), max(0.0, due - now))
            if self._stop.is_set():
                return

    async def _once(self) -> bool:
        """Probe; False where it was stopped meanwhile."""
        work = asyncio.ensure_future(self._probe.run())
        stop = asyncio.ensure_future(self._stop.wait())
        try:
            await asyncio.wait({work, stop}, return_when=asyncio.FIRST_COMPLETED)
            if not work.done():
                return False
            await self._take(work.result())
            return True
        finally:
            for task in (work, stop):
                task.cancel()
            await asyncio.gather(work, stop, return_exceptions=True)

    async def _take(self, result: ProbeResult) -> None:
        self._probed = True
        self._metrics.show(result)
        self._on_result(result)
        verdict = result.verdict
        (log.info if verdict.ok else log.warning)(
            verdict.text,
            event_name="probe_done",
            stage=verdict.stage.value,
            severity=verdict.severity.name.lower(),
            code=verdict.code,
            seconds=result.seconds,
        )
        await self._history.add(result)
        change = self._changes.feed(result)
        if change is not None and self._hook is not None:
            self._hook.tell(change)
