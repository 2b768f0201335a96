"""Names of the wire: XML namespaces, and the bounds that input must keep."""

from __future__ import annotations

from typing import Final

JINGLE: Final = "urn:xmpp:jingle:1"
JINGLE_ERRORS: Final = "urn:xmpp:jingle:errors:1"
RTP: Final = "urn:xmpp:jingle:apps:rtp:1"
RTCP_FB: Final = "urn:xmpp:jingle:apps:rtp:rtcp-fb:0"
RTP_HDREXT: Final = "urn:xmpp:jingle:apps:rtp:rtp-hdrext:0"
SSMA: Final = "urn:xmpp:jingle:apps:rtp:ssma:0"
GROUPING: Final = "urn:xmpp:jingle:apps:grouping:0"
DTLS: Final = "urn:xmpp:jingle:apps:dtls:0"
ICE_UDP: Final = "urn:xmpp:jingle:transports:ice-udp:1"
DTLS_SCTP: Final = "urn:xmpp:jingle:transports:dtls-sctp:1"
JITMEET: Final = "http://jitsi.org/jitmeet"
COLIBRI: Final = "http://jitsi.org/protocol/colibri"
FOCUS: Final = "http://jitsi.org/protocol/focus"
TRACING: Final = "jitsi:opentelemetry"

#: Most sources (SSRCs), and most groups, that one stanza may carry.
MAX_SOURCES: Final = 10_000
#: Most SSRCs in one group: three simulcast layers are usual.
MAX_GROUP: Final = 64
#: Most repeated elements of any other kind: contents, payload types, candidates …
MAX_ELEMENTS: Final = 1_000
#: Longest JSON message of sources, in characters.
MAX_JSON: Final = 4_000_000
#: Longest name, msid or owner of a source in JSON, in characters.
MAX_TEXT: Final = 1_024
#: An SSRC has 32 bits (RFC 3550 section 3).
MAX_SSRC: Final = 0xFFFFFFFF


def clark(namespace: str, name: str) -> str:
    """The Clark name ``{namespace}name`` that ElementTree uses."""
    return f"{{{namespace}}}{name}"


def local_name(tag: str) -> str:
    """The name in a Clark name, without its namespace."""
    return tag.rpartition("}")[2]
