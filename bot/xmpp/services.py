"""The components of a deployment: disco#info of its domain names them (lobby, breakout rooms, AV moderation …)."""

from __future__ import annotations

import xml.etree.ElementTree as ET
from collections.abc import Mapping

from bot.errors import BotError
from bot.xmpp.connection import XmppConnection

NS_DISCO = "http://jabber.org/protocol/disco#info"


class NoSuchServiceError(BotError):
    """The deployment has no component of this kind."""

    code = "service_missing"


def read_services(query: ET.Element | None) -> dict[str, str]:
    """Address of each component by its type, as ``av_moderation`` → ``avmoderation.meet.jitsi``."""
    if query is None:
        return {}
    return {
        item.get("type", ""): item.get("name", "")
        for item in query.iterfind(f"{{{NS_DISCO}}}identity")
        if item.get("category") == "component" and item.get("name")
    }


async def discover(connection: XmppConnection, domain: str) -> Mapping[str, str]:
    """Ask ``domain`` for its components. Raises StanzaError or IqTimeoutError."""
    return read_services(await connection.iq("get", domain, ET.Element(f"{{{NS_DISCO}}}query")))


def address_of(services: Mapping[str, str], kind: str) -> str:
    """The component's address. Raises NoSuchServiceError."""
    if kind not in services:
        raise NoSuchServiceError(f"The deployment has no component of type {kind}")
    return services[kind]
