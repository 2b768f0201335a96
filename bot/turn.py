"""TURN servers (RFC 8656) as settings and deployments name them. Pure."""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from typing import Literal

TurnTransport = Literal["udp", "tcp"]
#: RFC 7065 section 3.1; an IPv6 address stands in brackets.
_URL = re.compile(
    r"(?P<scheme>turns?):(?P<host>\[[0-9a-f:.]+\]|[^][:?/@\s]+)(:(?P<port>[0-9]{1,5}))?(\?transport=(?P<transport>udp|tcp))?",
    re.IGNORECASE,
)


@dataclass(frozen=True, slots=True)
class TurnServer:
    """How a TURN server is reached: ``transport`` is ours to it, with TLS above TCP where ``tls`` is set."""

    host: str
    port: int
    transport: TurnTransport = "udp"
    tls: bool = False
    username: str | None = None
    password: str | None = field(default=None, repr=False)

    def __str__(self) -> str:
        host = f"[{self.host}]" if ":" in self.host else self.host
        return f"{'turns' if self.tls else 'turn'}:{host}:{self.port}?transport={self.transport}"


def parse_turn_url(url: str, username: str | None = None, password: str | None = None) -> TurnServer:
    """Read ``turn:host:port?transport=udp`` or ``turns:…`` (RFC 7065). Raises ValueError."""
    match = _URL.fullmatch(url)
    port = int(match["port"]) if match and match["port"] else None
    if match is None or (port is not None and not 0 < port < 65_536):
        raise ValueError(
            f"{url!r} is no TURN URL, as turn:turn.example.com:3478?transport=udp or turns:turn.example.com"
        )
    tls = match["scheme"].lower() == "turns"
    transport: TurnTransport = "tcp" if tls or (match["transport"] or "").lower() == "tcp" else "udp"
    if tls and (match["transport"] or "tcp").lower() != "tcp":
        raise ValueError(f"{url!r}: TURN over DTLS is not supported, only turns: over TCP")
    return TurnServer(
        match["host"].strip("[]"), port or (5349 if tls else 3478), transport, tls, username, password
    )
