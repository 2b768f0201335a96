"""The daemon with the API: what it starts, how it begins, and how it ends."""

from __future__ import annotations

import asyncio
from collections import Counter
from contextlib import AsyncExitStack
from pathlib import Path

import structlog

from bot import events, logs
from bot.control.model import ParticipantSpec
from bot.control.options import ApiSettings, check_listens
from bot.control.server import make_app
from bot.control.service import Service
from bot.participant.config import ParticipantConfig, expand
from bot.participant.own import check_media
from bot.recording.names import sanitised
from bot.service.http import HealthServer
from bot.service.metrics import Metrics
from bot.service.runner import catch_signals, embedded_server, embedded_settings
from bot.settings import Settings

log = structlog.get_logger(__name__)


async def serve(settings: Settings, api: ApiSettings, *, embedded: bool, config: Path | None = None) -> None:
    """Serve the API until SIGTERM or SIGINT, then let all leave; a second signal ends the process at once.

    The participants of ``settings`` are there from the beginning: those of ``[[participants]]``, or ``bots`` of
    them where that is given. Raises ConfigurationError for an address that can't be had, or must not.
    """
    check_listens(settings.http_host, api)
    async with AsyncExitStack() as stack:
        if embedded:
            server = await stack.enter_async_context(embedded_server(settings.embedded_port))
            wanted = settings.model_fields_set
            settings = embedded_settings(settings, server)
            if "bots" not in wanted:
                settings = settings.model_copy(update={"bots": 0})
        await _Daemon(settings, api, config).run(stack)


class _Daemon:
    """One run of it."""

    def __init__(self, settings: Settings, api: ApiSettings, config: Path | None) -> None:
        self._settings = settings
        self._metrics = Metrics()
        self._stop = asyncio.Event()
        self.service = Service(settings, api, self._emit, config=config)

    def _emit(self, event: events.Event) -> None:
        logs.log_event(event)
        self._metrics.on_event(event)

    async def run(self, stack: AsyncExitStack) -> None:
        settings, service = self._settings, self.service
        configs = standing(settings)
        await asyncio.to_thread(check_media, configs)
        server = HealthServer(
            settings.http_host,
            settings.http_port,
            ready=lambda: service.ready,
            metrics=self._metrics,
            app=make_app(service),
        )
        await server.start()
        stack.push_async_callback(server.stop)
        stack.callback(service.events.close)
        stack.callback(catch_signals(self._stop.set))
        log.info(
            "The API is served",
            event_name="api_started",
            host=settings.http_host,
            port=server.bound_port,
            tokens=not service.tokens.open,
        )
        service.fleet.start()
        stack.push_async_callback(self._drain)
        for name, config in named(configs).items():
            spec = ParticipantSpec.model_construct(room=config.room, name=config.name)
            service.fleet.add(name, config, spec, origin="settings", cool_down=settings.cool_down)
        try:
            async with asyncio.timeout(settings.duration or None):
                await self._stop.wait()
        except TimeoutError:
            pass

    async def _drain(self) -> None:
        """Let everybody leave, with the API still there to tell of it; nothing new begins."""
        service = self.service
        service.draining = True
        limit = service.api.drain_timeout
        log.info("Draining", event_name="api_draining", participants=service.seats.taken, limit=limit)
        if not await service.close(limit):
            log.warning("Not everything has ended in time", event_name="api_drain_timeout", limit=limit)


def standing(settings: Settings) -> list[ParticipantConfig]:
    """The participants that the settings ask for; without any word of them, none."""
    asked = settings.participants or ("bots" in settings.model_fields_set and settings.bots)
    return expand(settings) if asked else []


def named(configs: list[ParticipantConfig]) -> dict[str, ParticipantConfig]:
    """Ids for participants of the settings: room and name, numbered where two are alike."""
    taken: Counter[str] = Counter()
    found = {}
    for config in configs:
        name = f"{sanitised(config.room)}.{sanitised(config.name)}"
        name = "".join(item if item.isascii() else "_" for item in name)[:60].strip("._-") or "participant"
        taken[name] += 1
        found[name if taken[name] == 1 else f"{name}-{taken[name]}"] = config
    return found
