"""From what went wrong on the wire to the error tree: each says what was found and what to set."""

from __future__ import annotations

import socket
import ssl

import aiohttp

from bot.errors import (
    BotError,
    ConnectionFailedError,
    ConnectionRefusedByHostError,
    NameResolutionError,
    RateLimitedError,
    ServerUnavailableError,
    TlsError,
    WrongAddressError,
)
from bot.xmpp.address import redact

_PROXY_HINT = (
    "JITSI_WS_URL is the web container's HTTP port, ws://localhost:8000 in docker-jitsi-meet "
    "(8443 is its HTTPS page); /xmpp-websocket must be proxied there to Prosody's 5280"
)


def from_connect_error(error: Exception, url: str) -> BotError:
    """Classify what aiohttp raised while the WebSocket to ``url`` was opened."""
    where = redact(url)
    match error:
        case aiohttp.WSServerHandshakeError():
            return from_status(error.status, where)
        case aiohttp.ClientConnectorCertificateError() | aiohttp.ClientConnectorSSLError() | ssl.SSLError():
            return TlsError(
                f"TLS with {where} failed: {_reason(error)}",
                hint="for a private CA set JITSI_CA_FILE to its PEM file; a plain HTTP port needs ws://, not wss://",
            )
        case aiohttp.ClientConnectorDNSError() | socket.gaierror():
            return NameResolutionError(f"The host of {where} does not resolve", hint="JITSI_WS_URL names the host")
        case aiohttp.ClientConnectorError() if isinstance(error.os_error, ConnectionRefusedError):
            return ConnectionRefusedByHostError(f"Nothing listens at {where}", hint=_PROXY_HINT)
        case aiohttp.ClientResponseError():
            return from_status(error.status, where)
        case _:
            return ConnectionFailedError(f"The WebSocket {where} could not be opened: {_reason(error)}")


def from_status(status: int, where: str) -> BotError:
    """Classify an HTTP answer that came in place of the WebSocket handshake (RFC 6455 section 4.1)."""
    if status == 429:
        return RateLimitedError(f"{where} answered HTTP 429: too many connections")
    if status >= 500:
        return ServerUnavailableError(f"{where} answered HTTP {status}: the server behind the proxy is not up")
    if status == 404:
        return WrongAddressError(f"{where} answered HTTP 404: no XMPP WebSocket there", hint=_PROXY_HINT)
    if status == 200:
        return WrongAddressError(f"{where} answered with a web page, not a WebSocket", hint=_PROXY_HINT)
    return WrongAddressError(f"{where} answered HTTP {status}, not a WebSocket", hint=_PROXY_HINT)


def _reason(error: Exception) -> str:
    if isinstance(error, aiohttp.ClientConnectorCertificateError):
        return str(error.certificate_error)
    return str(error) or type(error).__name__
