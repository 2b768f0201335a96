"""The address of the XMPP WebSocket (RFC 7395 section 3.1), checked before anything is opened."""

from __future__ import annotations

from ipaddress import ip_address
from urllib.parse import SplitResult, parse_qsl, quote, urlencode, urlsplit, urlunsplit

from bot.errors import WrongAddressError

WEBSOCKET_PATH = "/xmpp-websocket"
#: The HTTPS page of docker-jitsi-meet's web container; its HTTP port 8000 is what proxies the WebSocket.
HTTPS_PAGE_PORT = 8443
_SCHEMES = {"ws": "ws", "wss": "wss", "http": "ws", "https": "wss"}
_SECRETS = frozenset({"token", "jwt", "pwd", "password", "previd", "customusername"})


def is_loopback(host: str | None) -> bool:
    """Tell whether ``host`` is this machine itself."""
    if host is None:
        return False
    if host == "localhost" or host.endswith(".localhost"):
        return True
    try:
        return ip_address(host).is_loopback
    except ValueError:
        return False


def xmpp_websocket_url(base: str, room: str, token: str | None = None, previd: str | None = None) -> str:
    """Make the whole address for ``room`` from ``base``.

    ``https`` and ``http`` stand for ``wss`` and ``ws``; the path ``/xmpp-websocket`` is added when ``base`` has
    none. ``room`` and ``token`` replace what ``base`` says about them; its other parameters stay.
    ``previd`` is the id of a stream that shall be resumed: Jitsi's anonymous login finds the user by it.
    Raises WrongAddressError, naming the setting, for an address that can't be Jitsi's WebSocket.
    """
    parts = _split(base)
    _refuse_https_page(parts)
    query = [(name, value) for name, value in parse_qsl(parts.query) if name not in {"room", "token"} or not value]
    if token is None:
        query += [(name, value) for name, value in parse_qsl(parts.query) if name == "token"]
    else:
        query.append(("token", token))
    if previd is not None:
        query.append(("previd", previd))
    if room:
        query.insert(0, ("room", room))
    path = parts.path if parts.path.strip("/") else WEBSOCKET_PATH
    return urlunsplit((_SCHEMES[parts.scheme.lower()], parts.netloc, path, urlencode(query, quote_via=quote), ""))


def _split(base: str) -> SplitResult:
    hint = "set JITSI_WS_URL, for example ws://localhost:8000 or wss://meet.example.com"
    try:
        parts = urlsplit(base.strip())
        _ = parts.port
    except ValueError as error:
        raise WrongAddressError(f"The address {redact(base)!r} can't be read: {error}", hint=hint) from error
    if parts.scheme.lower() not in _SCHEMES:
        raise WrongAddressError(f"The address {redact(base)!r} does not begin with ws:// or wss://", hint=hint)
    if not parts.hostname:
        raise WrongAddressError(f"The address {redact(base)!r} names no host", hint=hint)
    if parts.username is not None or parts.password is not None:
        raise WrongAddressError(
            "The address carries a user name or password", hint="set the account by its own settings"
        )
    return parts


def _refuse_https_page(parts: SplitResult) -> None:
    if parts.port == HTTPS_PAGE_PORT and is_loopback(parts.hostname):
        raise WrongAddressError(
            f"{parts.hostname}:{HTTPS_PAGE_PORT} is the HTTPS web page, not the XMPP WebSocket",
            hint=f"the WebSocket is proxied on port 8000: set JITSI_WS_URL=ws://{parts.hostname}:8000",
        )


def redact(url: str) -> str:
    """Hide the values of token and password parameters, and any user information, for logs and errors."""
    head, mark, query = url.partition("?")
    scheme, separator, rest = head.partition("://")
    authority, slash, path = rest.partition("/")
    if "@" in authority:
        head = f"{scheme}{separator}***@{authority.rpartition('@')[2]}{slash}{path}"
    return head + mark + "&".join(_redact_parameter(item) for item in query.split("&"))


def _redact_parameter(item: str) -> str:
    name, equals, _ = item.partition("=")
    return f"{name}{equals}***" if equals and name.lower() in _SECRETS else item
