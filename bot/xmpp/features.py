"""What this participant says that it can: disco#info (XEP-0030) and its hash (XEP-0115).

Jicofo decides from these features; what is not advertised is not offered.
"""

from __future__ import annotations

import base64
import hashlib
import xml.etree.ElementTree as ET

DISCO_INFO = "{http://jabber.org/protocol/disco#info}query"
CAPS = "{http://jabber.org/protocol/caps}c"
NODE = "https://jitsi.org/jitsi-meet"
IDENTITY = ("client", "bot", "", "jitsi-bot")
SCTP = "urn:xmpp:jingle:transports:dtls-sctp:1"
OPUS_RED = "http://jitsi.org/opus-red"

#: As a web client of 2026 advertises them, without what this program does not do.
BASE_FEATURES = (
    "http://jabber.org/protocol/caps",
    "http://jabber.org/protocol/disco#info",
    "http://jitsi.org/json-encoded-sources",
    "http://jitsi.org/receive-multiple-video-streams",
    "http://jitsi.org/source-name",
    "http://jitsi.org/ssrc-rewriting-1",
    "http://jitsi.org/start-muted-room-metadata",
    "http://jitsi.org/tcc",
    "urn:ietf:rfc:4588",
    "urn:ietf:rfc:5761",
    "urn:ietf:rfc:5888",
    "urn:xmpp:jingle:1",
    "urn:xmpp:jingle:apps:dtls:0",
    "urn:xmpp:jingle:apps:rtp:1",
    "urn:xmpp:jingle:apps:rtp:audio",
    "urn:xmpp:jingle:apps:rtp:video",
    "urn:xmpp:jingle:transports:ice-udp:1",
    "urn:xmpp:ping",
)


def features(*, sctp: bool, red: bool = False) -> tuple[str, ...]:
    """The advertised features, sorted: with the bridge channel over SCTP, with redundant sound (RED)."""
    more = ((SCTP,) if sctp else ()) + ((OPUS_RED,) if red else ())
    return tuple(sorted((*BASE_FEATURES, *more)))


def caps_hash(advertised: tuple[str, ...]) -> str:
    """The verification string of XEP-0115 section 5.1, SHA-1 in base64."""
    parts = ["/".join(IDENTITY), *sorted(advertised)]
    text = "".join(f"{part}<" for part in parts)
    digest = hashlib.sha1(text.encode(), usedforsecurity=False).digest()
    return base64.b64encode(digest).decode("ascii")


def caps_element(advertised: tuple[str, ...]) -> ET.Element:
    """The ``<c/>`` of our presence."""
    return ET.Element(CAPS, {"hash": "sha-1", "node": NODE, "ver": caps_hash(advertised)})


def disco_answer(query: ET.Element, advertised: tuple[str, ...]) -> ET.Element:
    """The answer to a disco#info ``query``; its node is echoed (XEP-0030 section 3.2)."""
    answer = ET.Element(DISCO_INFO, {"node": query.attrib["node"]} if "node" in query.attrib else {})
    category, kind, _, name = IDENTITY
    ET.SubElement(
        answer, "{http://jabber.org/protocol/disco#info}identity", category=category, type=kind, name=name
    )
    for item in advertised:
        ET.SubElement(answer, "{http://jabber.org/protocol/disco#info}feature", var=item)
    return answer
