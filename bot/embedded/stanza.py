"""XML elements on the wire: parsing and writing of frames, stanza errors, addresses. Pure (RFC 6120, RFC 7395)."""

from __future__ import annotations

import re
from typing import NamedTuple
from xml.etree import ElementTree as ET
from xml.sax.saxutils import escape, quoteattr

NS_CLIENT = "jabber:client"
NS_FRAMING = "urn:ietf:params:xml:ns:xmpp-framing"
NS_STREAM = "http://etherx.jabber.org/streams"
NS_STREAM_ERRORS = "urn:ietf:params:xml:ns:xmpp-streams"
NS_STANZAS = "urn:ietf:params:xml:ns:xmpp-stanzas"
NS_SASL = "urn:ietf:params:xml:ns:xmpp-sasl"
NS_BIND = "urn:ietf:params:xml:ns:xmpp-bind"
NS_SESSION = "urn:ietf:params:xml:ns:xmpp-session"
NS_SM = "urn:xmpp:sm:3"
NS_PING = "urn:xmpp:ping"
NS_CAPS = "http://jabber.org/protocol/caps"
NS_DISCO_INFO = "http://jabber.org/protocol/disco#info"
NS_MUC = "http://jabber.org/protocol/muc"
NS_MUC_USER = "http://jabber.org/protocol/muc#user"
NS_MUC_ADMIN = "http://jabber.org/protocol/muc#admin"
NS_MUC_OWNER = "http://jabber.org/protocol/muc#owner"
NS_OCCUPANT_ID = "urn:xmpp:occupant-id:0"
NS_FOCUS = "http://jitsi.org/protocol/focus"
NS_JITMEET = "http://jitsi.org/jitmeet"
NS_JINGLE = "urn:xmpp:jingle:1"
NS_XML = "http://www.w3.org/XML/1998/namespace"
XML_LANG = f"{{{NS_XML}}}lang"

IQ = f"{{{NS_CLIENT}}}iq"
MESSAGE = f"{{{NS_CLIENT}}}message"
PRESENCE = f"{{{NS_CLIENT}}}presence"
#: What stream management counts (XEP-0198 section 4).
COUNTED = frozenset({IQ, MESSAGE, PRESENCE})

#: Error type of each condition used here (RFC 6120 section 8.3.3).
ERROR_TYPES = {
    "bad-request": "modify",
    "conflict": "cancel",
    "feature-not-implemented": "cancel",
    "forbidden": "auth",
    "item-not-found": "cancel",
    "jid-malformed": "modify",
    "not-acceptable": "cancel",
    "not-allowed": "cancel",
    "not-authorized": "auth",
    "registration-required": "auth",
    "resource-constraint": "wait",
    "service-unavailable": "cancel",
    "unexpected-request": "wait",
}

#: Elements inside each other that a frame may have: stanzas have fewer than ten.
MAX_DEPTH = 64
#: Bytes of each part of an address (RFC 7622 section 3.1).
MAX_JID_PART = 1023
#: An element, so that there is no place for a document type or an XML declaration before it.
_BEGIN = re.compile(r"<[^!?]")


class FrameError(ValueError):
    """A frame is no single well-formed XML element; the message says why."""


class Jid(NamedTuple):
    """An address in its parts; ``node`` and ``resource`` are empty where it has none (RFC 7622)."""

    node: str
    domain: str
    resource: str

    @classmethod
    def parse(cls, text: str) -> Jid:
        """Split ``text``; never fails: what is missing is empty."""
        bare, _, resource = text.partition("/")
        node, at, domain = bare.rpartition("@")
        return cls(node if at else "", domain, resource)

    @property
    def fits(self) -> bool:
        """Whether no part is longer than an address may have it."""
        return all(len(part.encode()) <= MAX_JID_PART for part in self)

    def folded(self) -> Jid:
        """The address as servers compare it: only the resource minds the case (RFC 7622 sections 3.2 to 3.4)."""
        return Jid(self.node.lower(), self.domain.lower(), self.resource)

    @property
    def bare(self) -> str:
        """The address without its resource."""
        return f"{self.node}@{self.domain}" if self.node else self.domain

    def __str__(self) -> str:
        return f"{self.bare}/{self.resource}" if self.resource else self.bare


def split_tag(tag: str) -> tuple[str, str]:
    """``(namespace, local name)`` of a Clark name."""
    if tag.startswith("{"):
        namespace, _, local = tag[1:].partition("}")
        return namespace, local
    return "", tag


def parse_frame(text: str, default_namespace: str = NS_CLIENT) -> ET.Element:
    """The element of a text frame (RFC 7395 section 3.3.3); raises FrameError.

    It begins with the element, so there is no document type and no entity is ever expanded (RFC 6120 section
    11.1). A stanza without a namespace of its own is read as ``default_namespace``.
    """
    if not _BEGIN.match(text):
        raise FrameError("frame does not begin with an element")
    try:
        element = ET.fromstring(text)  # noqa: S314 - declarations are refused above
    except ET.ParseError as error:
        raise FrameError(f"frame is not well-formed XML: {error}") from None
    _check_depth(element)
    if not element.tag.startswith("{"):
        _adopt(element, default_namespace)
    return element


def _check_depth(element: ET.Element) -> None:
    level = [element]
    for _ in range(MAX_DEPTH):
        level = [child for node in level for child in node]
        if not level:
            return
    raise FrameError(f"frame has more than {MAX_DEPTH} elements inside each other")


def _adopt(element: ET.Element, namespace: str) -> None:
    for node in element.iter():
        if not node.tag.startswith("{"):
            node.tag = f"{{{namespace}}}{node.tag}"


def serialize(element: ET.Element, namespace: str | None = None) -> str:
    """Text of ``element``. ``namespace`` is the default namespace around it, None for a frame of its own.

    Namespaces are written as defaults and not as prefixes, since web clients compare plain element names;
    only names of the stream namespace get their usual prefix.
    """
    own, local = split_tag(element.tag)
    if own == NS_STREAM:
        name, declared = f"stream:{local}", f" xmlns:stream={quoteattr(NS_STREAM)}"
        inner = NS_CLIENT
        if namespace != inner:
            declared += f" xmlns={quoteattr(inner)}"
    else:
        name, inner = local, own
        declared = "" if own == (namespace or "") else f" xmlns={quoteattr(own)}"
    attributes = "".join(
        _attribute(key, value, number) for number, (key, value) in enumerate(element.attrib.items())
    )
    body = _text(element.text) + "".join(serialize(child, inner) + _text(child.tail) for child in element)
    head = f"<{name}{declared}{attributes}"
    return f"{head}>{body}</{name}>" if body else f"{head}/>"


def _text(text: str | None) -> str:
    """Character data; a carriage return that is not escaped would be read as a line feed (XML section 2.11)."""
    return escape(text or "", {"\r": "&#13;"})


def _attribute(key: str, value: str, number: int) -> str:
    namespace, local = split_tag(key)
    if namespace == NS_XML:
        return f" xml:{local}={quoteattr(value)}"
    if namespace:
        return f" xmlns:a{number}={quoteattr(namespace)} a{number}:{local}={quoteattr(value)}"
    return f" {local}={quoteattr(value)}"


def element(
    tag: str, namespace: str, attributes: dict[str, str] | None = None, text: str | None = None
) -> ET.Element:
    """A new element ``{namespace}tag``."""
    made = ET.Element(f"{{{namespace}}}{tag}", attributes or {})
    made.text = text
    return made


def child(parent: ET.Element, tag: str, namespace: str, **attributes: str) -> ET.Element:
    """A new element ``{namespace}tag`` appended to ``parent``."""
    return ET.SubElement(parent, f"{{{namespace}}}{tag}", attributes)


def clone(stanza: ET.Element, **attributes: str) -> ET.Element:
    """A copy of the stanza with ``attributes`` changed; its children are shared, and so never changed."""
    copy = ET.Element(stanza.tag, {**stanza.attrib, **attributes})
    copy.text = stanza.text
    copy.extend(list(stanza))
    return copy


def iq_result(request: ET.Element, payload: ET.Element | None = None) -> ET.Element:
    """The answer to an IQ (RFC 6120 section 8.2.3), addressed back to its sender."""
    answer = ET.Element(IQ, {"type": "result", **_reply_attributes(request)})
    if payload is not None:
        answer.append(payload)
    return answer


def error_reply(
    stanza: ET.Element,
    condition: str,
    text: str | None = None,
    *,
    by: str | None = None,
    details: ET.Element | None = None,
) -> ET.Element:
    """The error answer to a stanza (RFC 6120 section 8.3); ``details`` is the application's own condition."""
    answer = ET.Element(stanza.tag, {"type": "error", **_reply_attributes(stanza)})
    error = child(answer, "error", NS_CLIENT, type=ERROR_TYPES[condition])
    if by:
        error.set("by", by)
    child(error, condition, NS_STANZAS)
    if text:
        child(error, "text", NS_STANZAS).text = text
    if details is not None:
        error.append(details)
    return answer


def _reply_attributes(stanza: ET.Element) -> dict[str, str]:
    swapped = {"id": stanza.get("id"), "to": stanza.get("from"), "from": stanza.get("to")}
    return {name: value for name, value in swapped.items() if value is not None}


def is_request(stanza: ET.Element) -> bool:
    """Whether the stanza is an IQ that has to be answered (RFC 6120 section 8.2.3)."""
    return stanza.tag == IQ and stanza.get("type") in {"get", "set"}


def payload_of(iq: ET.Element) -> ET.Element | None:
    """The child element that an IQ carries besides ``<error/>``, None if there is none."""
    return next((node for node in iq if node.tag != f"{{{NS_CLIENT}}}error"), None)
