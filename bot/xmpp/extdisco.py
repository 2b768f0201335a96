"""STUN and TURN servers that the deployment names (XEP-0215), with credentials that last for a while."""

from __future__ import annotations

import xml.etree.ElementTree as ET
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Literal, cast

import structlog

from bot.turn import TurnServer, TurnTransport
from bot.xmpp.connection import XmppConnection
from bot.xmpp.stanza_errors import IqTimeoutError, StanzaError

log = structlog.get_logger(__name__)

#: The newest first, as web clients ask.
NAMESPACES = ("urn:xmpp:extdisco:2", "urn:xmpp:extdisco:1")
#: Seconds that a media session waits for the answer.
TIMEOUT = 3.0
#: Services read of one answer.
MAX_SERVICES = 50
_DEFAULT_PORTS = {"stun": 3478, "turn": 3478, "turns": 5349}

Kind = Literal["stun", "turn", "turns"]


@dataclass(frozen=True, slots=True)
class Service:
    """One server. ``expires`` is when the credentials do; ``transport`` is udp or tcp."""

    kind: Kind
    host: str
    port: int
    transport: TurnTransport
    username: str | None = None
    password: str | None = field(default=None, repr=False)
    expires: datetime | None = None

    @property
    def turn(self) -> TurnServer | None:
        """The same as a TURN server, None for a STUN server, and for TURN over DTLS."""
        tls = self.kind == "turns"
        if self.kind == "stun" or (tls and self.transport == "udp"):
            return None
        return TurnServer(self.host, self.port, self.transport, tls, self.username, self.password)


async def request_services(connection: XmppConnection, domain: str) -> tuple[Service, ...] | None:
    """What ``domain`` names now; None where it knows nothing of XEP-0215, () where it does not answer in time."""
    for namespace in NAMESPACES:
        try:
            answer = await connection.iq("get", domain, ET.Element(f"{{{namespace}}}services"), TIMEOUT)
        except StanzaError:
            continue
        except IqTimeoutError as error:
            log.warning("No answer about TURN servers", event_name="services_timeout", cause=str(error))
            return ()
        return () if answer is None else parse_services(answer)
    return None


def parse_services(answer: ET.Element) -> tuple[Service, ...]:
    """The STUN and TURN servers of a ``<services/>``; others are left out, broken ones with one log line."""
    found, broken = [], []
    for element in answer.findall(f"{answer.tag.rpartition('}')[0]}}}service")[:MAX_SERVICES]:
        if element.get("type") not in _DEFAULT_PORTS or element.get("action") == "delete":
            continue
        try:
            found.append(_service(element))
        except ValueError as error:
            broken.append(str(error))
    if broken:
        log.warning("Broken services were ignored", event_name="services_ignored", cause="; ".join(broken[:5]))
    return tuple(found)


def _service(element: ET.Element) -> Service:
    """One ``<service/>`` (XEP-0215 section 3). Raises ValueError."""
    kind = cast("Kind", element.get("type"))
    host, port = element.get("host", "").strip(), element.get("port")
    transport = element.get("transport", "tcp" if kind == "turns" else "udp").lower()
    if not host or any(char.isspace() for char in host):
        raise ValueError(f"{kind} without a host")
    if port is not None and not (port.isascii() and port.isdecimal() and 0 < int(port[:6]) < 65_536):
        raise ValueError(f"{kind}:{host} with port {port[:20]!r}")
    if transport not in ("udp", "tcp"):
        raise ValueError(f"{kind}:{host} with transport {transport[:20]!r}")
    return Service(
        kind,
        host.strip("[]"),
        int(port) if port else _DEFAULT_PORTS[kind],
        "tcp" if transport == "tcp" else "udp",
        element.get("username"),
        element.get("password"),
        _time(element.get("expires")),
    )


def _time(text: str | None) -> datetime | None:
    """A time of XEP-0082; what is none says nothing of the server."""
    try:
        found = datetime.fromisoformat(text or "")
    except ValueError:
        return None
    return found if found.tzinfo else found.replace(tzinfo=UTC)
