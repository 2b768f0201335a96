"""The presence of the focus in a room, as Jicofo's. Pure."""

from __future__ import annotations

from xml.etree import ElementTree as ET

from bot.embedded.stanza import NS_CAPS, NS_CLIENT, NS_FOCUS, NS_JITMEET, NS_MUC, PRESENCE, Jid, child


def focus_presence(
    jid: str, to: str, identifier: str, *, bridges: int | None = None, join: bool = False
) -> ET.Element:
    """Presence of ``jid`` to its occupant address ``to``. ``bridges`` is None before the first was used."""
    presence = ET.Element(PRESENCE, {"id": identifier, "from": jid, "to": to})
    if join:
        child(presence, "x", NS_MUC)
    child(presence, "priority", NS_CLIENT).text = "0"
    child(presence, "etherpad", "http://jitsi.org/jitmeet/etherpad").text = Jid.parse(to).node
    versions = child(presence, "versions", NS_JITMEET)
    child(versions, "component", NS_JITMEET, name="focus").text = "embedded"
    properties = child(presence, "conference-properties", NS_FOCUS)
    child(properties, "property", NS_FOCUS, key="support-terminate-restart", value="true")
    if bridges is not None:
        child(properties, "property", NS_FOCUS, key="bridge-count", value=str(bridges))
    child(presence, "c", NS_CAPS, hash="sha-1", node="http://jitsi.org/jicofo", ver="Lg0vhCNhxjoeKJi2/hukdsizNWA=")
    return presence
