"""``/healthz``, ``/readyz`` and ``/metrics``."""

from __future__ import annotations

from collections.abc import Callable
from typing import Protocol

from aiohttp import web

from bot.errors import ConfigurationError
from bot.service.metrics import Metrics

#: Seconds that requests under way get when it stops.
SHUTDOWN = 3.0


class Rendered(Protocol):
    """What ``/metrics`` shows."""

    def render(self) -> bytes:
        """The exposition format."""
        ...


class HealthServer:
    """Listens on ``host``:``port``; ``port`` 0 takes a free one, told by ``bound_port`` after ``start``.

    ``app`` is what it serves beside its own.
    """

    def __init__(
        self,
        host: str,
        port: int,
        *,
        ready: Callable[[], bool],
        metrics: Rendered,
        app: web.Application | None = None,
    ) -> None:
        self._app = app
        self._host = host
        self._port = port
        self._ready = ready
        self._metrics = metrics
        self._runner: web.AppRunner | None = None
        self.bound_port = 0

    async def start(self) -> None:
        """Begin to listen; raises ConfigurationError where the address can't be had."""
        app = self._app if self._app is not None else web.Application()
        app.router.add_get("/healthz", self._healthz)
        app.router.add_get("/readyz", self._readyz)
        app.router.add_get("/metrics", self._render)
        runner = web.AppRunner(app, access_log=None, shutdown_timeout=SHUTDOWN)
        await runner.setup()
        try:
            await web.TCPSite(runner, self._host, self._port).start()
        except OSError as error:
            await runner.cleanup()
            raise ConfigurationError(
                f"cannot listen on {self._host}:{self._port}: {error.strerror or error}",
                hint="JITSI_HTTP_HOST and JITSI_HTTP_PORT set the address; port 0 takes a free one",
            ) from error
        self._runner = runner
        self.bound_port = int(runner.addresses[0][1])

    async def stop(self) -> None:
        """Stop listening; may be called twice."""
        runner, self._runner = self._runner, None
        if runner is not None:
            await runner.cleanup()

    async def _healthz(self, _: web.Request) -> web.Response:
        """The loop answers: alive. A participant that can't join is no reason to restart the process."""
        return web.json_response({"status": "ok"})

    async def _readyz(self, _: web.Request) -> web.Response:
        ready = self._ready()
        return web.json_response({"ready": ready}, status=200 if ready else 503)

    async def _render(self, _: web.Request) -> web.Response:
        return web.Response(body=self._metrics.render(), headers={"Content-Type": Metrics.content_type})
