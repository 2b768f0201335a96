"""STUN and TURN servers as the domain names them (XEP-0215), with credentials as coturn checks them. Pure."""

from __future__ import annotations

import base64
import hashlib
import hmac
from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from xml.etree import ElementTree as ET

from bot.embedded.stanza import child

NS_SERVICES = "urn:xmpp:extdisco:2"
OLD_NS_SERVICES = "urn:xmpp:extdisco:1"


@dataclass(frozen=True, slots=True)
class ExternalService:
    """One server. With a ``secret`` its credentials are made for ``ttl`` seconds, as Prosody makes them.

    That is coturn's ``static-auth-secret``: the name is the time of expiry, the password its HMAC (TURN REST API,
    draft-uberti-behave-turn-rest-00 section 2.2).
    """

    kind: str
    host: str
    port: int
    transport: str = "udp"
    secret: str | None = field(default=None, repr=False)
    ttl: int = 86_400


def services_answer(namespace: str, services: Sequence[ExternalService], now: float) -> ET.Element:
    """The ``<services/>`` at ``now`` (seconds since the epoch)."""
    answer = ET.Element(f"{{{namespace}}}services")
    for service in services:
        attributes = {
            "type": service.kind,
            "host": service.host,
            "port": str(service.port),
            "transport": service.transport,
        }
        child(answer, "service", namespace, **attributes, **_credentials(service, now))
    return answer


def _credentials(service: ExternalService, now: float) -> dict[str, str]:
    if service.secret is None:
        return {}
    expires = int(now) + service.ttl
    digest = hmac.digest(service.secret.encode(), str(expires).encode(), hashlib.sha1)
    return {
        "restricted": "1",
        "username": str(expires),
        "password": base64.b64encode(digest).decode(),
        "expires": datetime.fromtimestamp(expires, UTC).strftime("%Y-%m-%dT%H:%M:%SZ"),
    }
