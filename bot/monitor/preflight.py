"""What can be told before anybody joins: name, port, certificate, and whether a WebSocket can be had."""

from __future__ import annotations

import asyncio
import socket
import ssl
import time
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from urllib.parse import urlsplit

import aiohttp

from bot.errors import BotError
from bot.monitor.model import Failure, Preflight, Stage
from bot.xmpp.address import redact, xmpp_websocket_url
from bot.xmpp.failures import from_connect_error
from bot.xmpp.websocket import ssl_context

_PORTS = {"ws": 80, "wss": 443}


class _BrokenError(Exception):
    """A step did not go well."""

    def __init__(self, stage: Stage, code: str, cause: str) -> None:
        super().__init__(cause)
        self.stage = stage
        self.failure = Failure(code, cause)


class _Steps:
    """Goes from step to step and keeps the seconds of each."""

    def __init__(self, url: str, ca_file: Path | None, timeout: float, clock: Callable[[], float]) -> None:
        parts = urlsplit(url)
        self._url = url
        self._where = redact(url)
        self._host = parts.hostname or ""
        self._secure = parts.scheme == "wss"
        self._port = parts.port or _PORTS.get(parts.scheme, 443)
        self._ca_file = ca_file
        self._timeout = timeout
        self._clock = clock
        self.seconds: dict[Stage, float] = {}
        self.certificate: float | None = None

    async def run(self) -> None:
        """Raises _BrokenError."""
        for stage, step in (
            (Stage.DNS, self._resolve),
            (Stage.CONNECT, self._connect),
            (Stage.TLS, self._handshake),
            (Stage.WEBSOCKET, self._upgrade),
        ):
            if stage is Stage.TLS and not self._secure:
                continue
            began = self._clock()
            try:
                async with asyncio.timeout(self._timeout):
                    await step()
            except TimeoutError:
                cause = f"{self._where}: no answer within {self._timeout:g} s"
                raise _BrokenError(stage, "connect_timeout", cause) from None
            self.seconds[stage] = self._clock() - began

    async def _resolve(self) -> None:
        try:
            await asyncio.get_running_loop().getaddrinfo(self._host, self._port, type=socket.SOCK_STREAM)
        except OSError as error:
            cause = f"{self._host} does not resolve: {error.strerror or error}"
            raise _BrokenError(Stage.DNS, "dns_failed", cause) from error

    async def _connect(self) -> None:
        try:
            _, writer = await asyncio.open_connection(self._host, self._port)
        except OSError as error:
            refused = "connection_refused" if isinstance(error, ConnectionRefusedError) else "connection_failed"
            cause = f"{self._host}:{self._port} can't be reached: {error.strerror or error}"
            raise _BrokenError(Stage.CONNECT, refused, cause) from error
        await _close(writer)

    async def _handshake(self) -> None:
        context = ssl_context(self._ca_file)
        if not isinstance(context, ssl.SSLContext):
            context = ssl.create_default_context()
        try:
            _, writer = await asyncio.open_connection(self._host, self._port, ssl=context)
        except (OSError, ssl.SSLError) as error:
            reason = getattr(error, "verify_message", "") or str(error)
            cause = f"TLS with {self._host}:{self._port} failed: {reason}"
            raise _BrokenError(Stage.TLS, "tls_failed", cause) from error
        found = writer.get_extra_info("peercert") or {}
        if ends := found.get("notAfter"):
            self.certificate = float(ssl.cert_time_to_seconds(str(ends)))
        await _close(writer)

    async def _upgrade(self) -> None:
        """Ask for the WebSocket (RFC 6455 section 4.1) and give it back at once."""
        try:
            async with (
                aiohttp.ClientSession() as http,
                http.ws_connect(self._url, protocols=("xmpp",), ssl=ssl_context(self._ca_file)),
            ):
                pass
        except aiohttp.WSServerHandshakeError as error:
            found = from_connect_error(error, self._url)
            raise _BrokenError(_stage_of_status(error.status), found.code, found.message) from error
        except aiohttp.ServerDisconnectedError as error:
            cause = f"{self._where} closes the connection without an answer"
            raise _BrokenError(Stage.PROXY, "connection_failed", cause) from error
        except (aiohttp.ClientError, OSError) as error:
            found = from_connect_error(error, self._url)
            raise _BrokenError(Stage.WEBSOCKET, found.code, found.message) from error


def _stage_of_status(status: int) -> Stage:
    """An answer that is an error is the proxy's; a page, or a refusal to upgrade, is no WebSocket behind it."""
    return Stage.WEBSOCKET if status in (101, 200, 400, 426) else Stage.PROXY


async def _close(writer: asyncio.StreamWriter) -> None:
    writer.close()
    with suppress(OSError, TimeoutError):
        async with asyncio.timeout(1.0):
            await writer.wait_closed()


async def preflight(
    url: str,
    room: str,
    *,
    token: str | None = None,
    ca_file: Path | None = None,
    timeout: float = 10.0,
    clock: Callable[[], float] = time.monotonic,
) -> Preflight:
    """Go the first steps to the WebSocket of ``url``, each within ``timeout`` seconds; nobody logs in."""
    failed: Stage | None = None
    failure: Failure | None = None
    try:
        steps = _Steps(xmpp_websocket_url(url, room, token), ca_file, timeout, clock)
    except BotError as error:
        return Preflight(failed=Stage.PROBE, failure=Failure("configuration", str(error)))
    try:
        await steps.run()
    except _BrokenError as broken:
        failed, failure = broken.stage, broken.failure
    except BotError as error:  # the CA file
        failed, failure = Stage.TLS, Failure(error.code, str(error))
    return Preflight(seconds=steps.seconds, failed=failed, failure=failure, certificate=steps.certificate)
