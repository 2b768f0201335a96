"""What the participant says of itself: service discovery (XEP-0030) and entity capabilities (XEP-0115). Pure.

Jicofo decides from these features what it offers: what is not advertised is not offered.
"""

from __future__ import annotations

import hashlib
import xml.etree.ElementTree as ET
from base64 import b64encode
from collections.abc import Iterable
from dataclasses import dataclass

NS_CAPS = "http://jabber.org/protocol/caps"
NS_DISCO_INFO = "http://jabber.org/protocol/disco#info"
NS_PING = "urn:xmpp:ping"
NS_VERSION = "jabber:iq:version"
#: The node of Jitsi's clients: Jicofo's caches and statistics know it.
CAPS_NODE = "https://jitsi.org/jitsi-meet"

QUERY = f"{{{NS_DISCO_INFO}}}query"

AUDIO = "urn:xmpp:jingle:apps:rtp:audio"
VIDEO = "urn:xmpp:jingle:apps:rtp:video"
RTX = "urn:ietf:rfc:4588"
SCTP = "urn:xmpp:jingle:transports:dtls-sctp:1"
JSON_SOURCES = "http://jitsi.org/json-encoded-sources"
SSRC_REWRITING = "http://jitsi.org/ssrc-rewriting-1"
TCC = "http://jitsi.org/tcc"
REMB = "http://jitsi.org/remb"
OPUS_RED = "http://jitsi.org/opus-red"

#: What every participant says; the order does not matter, the hash sorts.
BASE_FEATURES = (
    NS_CAPS,
    NS_DISCO_INFO,
    NS_PING,
    "urn:xmpp:jingle:1",
    "urn:xmpp:jingle:apps:rtp:1",
    "urn:xmpp:jingle:transports:ice-udp:1",
    "urn:xmpp:jingle:apps:dtls:0",
    "urn:ietf:rfc:5761",  # RTP and RTCP on one port
    "urn:ietf:rfc:5888",  # BUNDLE
    "http://jitsi.org/source-name",
    "http://jitsi.org/receive-multiple-video-streams",
    "http://jitsi.org/start-muted-room-metadata",
)


@dataclass(frozen=True, slots=True)
class Identity:
    """An identity of XEP-0030."""

    category: str = "client"
    type: str = "bot"
    name: str = "jitsi-bot"
    lang: str = ""


@dataclass(frozen=True, slots=True)
class DiscoInfo:
    """The answer to disco#info, and its hash."""

    features: frozenset[str]
    identities: tuple[Identity, ...] = (Identity(),)
    node: str = CAPS_NODE

    @property
    def ver(self) -> str:
        """The verification string (XEP-0115 section 5.1), sha-1 in base64."""
        lines = sorted(f"{i.category}/{i.type}/{i.lang}/{i.name}" for i in self.identities) + sorted(self.features)
        digest = hashlib.sha1("".join(f"{line}<" for line in lines).encode(), usedforsecurity=False)
        return b64encode(digest.digest()).decode()

    def caps_element(self) -> ET.Element:
        """The ``<c>`` of our presence."""
        return ET.Element(f"{{{NS_CAPS}}}c", {"hash": "sha-1", "node": self.node, "ver": self.ver})

    def answers(self, node: str | None) -> bool:
        """Tell whether a query for ``node`` is about us: none, or the node with this very hash."""
        return not node or node in {self.node, f"{self.node}#{self.ver}"}

    def query_element(self, node: str | None = None) -> ET.Element:
        """The answer to a query for ``node``."""
        query = ET.Element(QUERY, {"node": node} if node else {})
        for i in self.identities:
            ET.SubElement(
                query,
                f"{{{NS_DISCO_INFO}}}identity",
                {"category": i.category, "type": i.type, **({"name": i.name} if i.name else {})},
            )
        for feature in sorted(self.features):
            ET.SubElement(query, f"{{{NS_DISCO_INFO}}}feature", {"var": feature})
        return query


def participant_features(
    *,
    audio: bool = True,
    video: bool = True,
    rtx: bool = True,
    sctp: bool = True,
    ssrc_rewriting: bool = False,
    opus_red: bool = False,
    extra: Iterable[str] = (),
) -> frozenset[str]:
    """The features that the settings ask for.

    ``sctp`` is the bridge channel over SCTP: it needs JSON-encoded sources, without which Jicofo leaves out the
    ``data`` content without a word, so they are always advertised. ``ssrc_rewriting`` gives the remote SSRCs by
    the bridge channel only. ``extra`` is advertised as it is.
    """
    chosen = {
        AUDIO: audio,
        VIDEO: video,
        RTX: rtx and video,
        SCTP: sctp,
        JSON_SOURCES: True,
        SSRC_REWRITING: ssrc_rewriting,
        OPUS_RED: opus_red and audio,
        TCC: True,
        REMB: True,
    }
    return frozenset((*BASE_FEATURES, *(name for name, wanted in chosen.items() if wanted), *extra))


def parse_disco_info(query: ET.Element) -> tuple[tuple[Identity, ...], frozenset[str]]:
    """Read a disco#info answer: identities and features; what lacks its attributes is left out."""
    identities = tuple(
        Identity(item.get("category", ""), item.get("type", ""), item.get("name", ""))
        for item in query.iter(f"{{{NS_DISCO_INFO}}}identity")
        if item.get("category")
    )
    features = frozenset(
        item.attrib["var"] for item in query.iter(f"{{{NS_DISCO_INFO}}}feature") if item.get("var")
    )
    return identities, features
