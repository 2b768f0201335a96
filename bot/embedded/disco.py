"""What the domain and its components answer themselves: disco#info, ping, session. Pure (XEP-0030, 0199)."""

from __future__ import annotations

from collections.abc import Sequence
from xml.etree import ElementTree as ET

from bot.embedded.services import NS_SERVICES, OLD_NS_SERVICES, ExternalService, services_answer
from bot.embedded.stanza import (
    NS_DISCO_INFO,
    NS_PING,
    NS_SESSION,
    child,
    element,
    error_reply,
    iq_result,
    is_request,
    payload_of,
    split_tag,
)

NS_VERSION = "jabber:iq:version"
QUERY = f"{{{NS_DISCO_INFO}}}query"

#: Identities by which web clients find the components: (sub-domain, type).
COMPONENTS = (
    ("breakout", "breakout_rooms"),
    ("lobby", "lobbyrooms"),
    ("avmoderation", "av_moderation"),
    ("endconference", "end_conference"),
    ("polls", "polls"),
    ("speakerstats", "speakerstats"),
    ("metadata", "room_metadata"),
    ("conferenceduration", "conference_duration"),
)
_SERVER_FEATURES = (
    "jabber:iq:private",
    NS_DISCO_INFO,
    "http://jabber.org/protocol/disco#items",
    "jabber:iq:roster",
    NS_VERSION,
    NS_PING,
)
_COMPONENT_FEATURES = {"breakout": "http://jitsi.org/protocol/breakout_rooms#rename"}


def domain_info(domain: str, *, services: bool = False) -> ET.Element:
    """disco#info of the domain: a server with its components as further identities."""
    query = ET.Element(QUERY)
    for sub_domain, kind in COMPONENTS:
        child(query, "identity", NS_DISCO_INFO, name=f"{sub_domain}.{domain}", type=kind, category="component")
    child(query, "identity", NS_DISCO_INFO, name="Prosody", type="im", category="server")
    for feature in (*_SERVER_FEATURES, *((NS_SERVICES, OLD_NS_SERVICES) if services else ())):
        child(query, "feature", NS_DISCO_INFO, var=feature)
    return query


def answer_for_domain(
    request: ET.Element, domain: str, services: Sequence[ExternalService] = (), now: float = 0.0
) -> ET.Element:
    """Answer of the domain to an IQ request. ``now`` (since the epoch) is when credentials are made."""
    payload = payload_of(request)
    if payload is None:
        return error_reply(request, "bad-request")
    if payload.tag == QUERY and request.get("type") == "get":
        return iq_result(request, domain_info(domain, services=bool(services)))
    namespace, name = split_tag(payload.tag)
    if services and name == "services" and namespace in {NS_SERVICES, OLD_NS_SERVICES}:
        return iq_result(request, services_answer(namespace, services, now))
    if payload.tag in {f"{{{NS_PING}}}ping", f"{{{NS_SESSION}}}session"}:
        return iq_result(request)
    if payload.tag == f"{{{NS_VERSION}}}query":
        version = element("query", NS_VERSION)
        child(version, "name", NS_VERSION).text = "Prosody"
        child(version, "version", NS_VERSION).text = "embedded"
        return iq_result(request, version)
    return error_reply(request, "service-unavailable")


def answer_for_component(stanza: ET.Element, sub_domain: str) -> list[ET.Element]:
    """Answer of a component of the domain; messages and presence to it are taken and forgotten."""
    if not is_request(stanza):
        return []
    payload = payload_of(stanza)
    if payload is None or payload.tag != QUERY or stanza.get("type") != "get":
        return [error_reply(stanza, "service-unavailable")]
    query = ET.Element(QUERY)
    if node := payload.get("node"):
        query.set("node", node)
    if feature := _COMPONENT_FEATURES.get(sub_domain):
        child(query, "feature", NS_DISCO_INFO, var=feature)
    return [iq_result(stanza, query)]
