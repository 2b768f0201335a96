"""RFC 7395 framing: one whole XML element in each text frame, both ways. Pure.

XML is read by expat through ElementTree, with the limits of RFC 6120 section 11: no DTD, no entities of one's own,
no processing instructions in front, and a bounded size and depth.
"""

from __future__ import annotations

import re
import xml.etree.ElementTree as ET
from dataclasses import dataclass
from xml.sax.saxutils import escape

NS_CLIENT = "jabber:client"
NS_FRAMING = "urn:ietf:params:xml:ns:xmpp-framing"
NS_SASL = "urn:ietf:params:xml:ns:xmpp-sasl"
NS_STANZAS = "urn:ietf:params:xml:ns:xmpp-stanzas"
NS_STREAM = "http://etherx.jabber.org/streams"
NS_STREAM_ERRORS = "urn:ietf:params:xml:ns:xmpp-streams"
NS_XML = "http://www.w3.org/XML/1998/namespace"

OPEN = f"{{{NS_FRAMING}}}open"
CLOSE = f"{{{NS_FRAMING}}}close"
FEATURES = f"{{{NS_STREAM}}}features"
STANZAS = frozenset(f"{{{NS_CLIENT}}}{name}" for name in ("iq", "message", "presence"))

#: Deeper than any stanza of Jitsi by an order of magnitude; shallow enough for recursive walks.
MAX_DEPTH = 100
_SELF_CLOSING_ROOM = 2 * MAX_DEPTH
_ATTRIBUTE_ENTITIES = {'"': "&quot;", "\n": "&#10;", "\r": "&#13;", "\t": "&#9;"}
_NOT_XML = re.compile("[\x00-\x08\x0b\x0c\x0e-\x1f\ud800-\udfff\ufffe\uffff]")
_HEAD = re.compile(r"\s*<(iq|message|presence)\b((?:\s+[\w:.-]+\s*=\s*(?:\"[^\"<]*\"|'[^'<]*'))*)\s*/?>")
_ATTRIBUTE = re.compile(r"([\w:.-]+)\s*=\s*(?:\"([^\"<]*)\"|'([^'<]*)')")


class FrameError(Exception):
    """A frame that is no whole, well-formed and harmless XML element; says why.

    ``condition`` is the stanza error (RFC 6120 section 8.3.3) for who sent it as a request.
    """

    def __init__(self, message: str, condition: str = "bad-request") -> None:
        super().__init__(message)
        self.condition = condition


@dataclass(frozen=True, slots=True)
class StanzaHead:
    """What can be told of a stanza that was not read: ``name`` is iq, message or presence."""

    name: str
    attributes: dict[str, str]


def open_frame(domain: str, *, lang: str | None = None) -> str:
    """RFC 7395 section 3.3.2: what replaces the stream header, in both roles of a restart."""
    language = f" xml:lang={_quoted(lang)}" if lang else ""
    return f'<open xmlns="{NS_FRAMING}" to={_quoted(domain)} version="1.0"{language}/>'


def close_frame() -> str:
    """RFC 7395 section 3.6."""
    return f'<close xmlns="{NS_FRAMING}"/>'


def parse_frame(text: str, *, max_chars: int | None = None) -> ET.Element:
    """Read one frame; raises FrameError for all that is not one whole element within the limits."""
    if max_chars is not None and len(text) > max_chars:
        raise FrameError(f"{len(text)} characters, more than {max_chars}", "policy-violation")
    stripped = text.lstrip()
    # A DTD can only stand in front of the element: refusing "<!" and "<?" there leaves expat none to read.
    if not stripped.startswith("<") or stripped[1:2] in {"!", "?"}:
        raise FrameError("does not begin with an element")
    try:
        element = ET.fromstring(stripped)  # noqa: S314 - no DTD can get here, see above
    except (ET.ParseError, ValueError) as error:
        raise FrameError(f"not well-formed: {error}") from error
    if stripped.count("<") > _SELF_CLOSING_ROOM:
        _check_depth(element)
    return element


def _check_depth(element: ET.Element) -> None:
    level = [element]
    for _ in range(MAX_DEPTH):
        level = [child for parent in level for child in parent]
        if not level:
            return
    raise FrameError(f"nested more than {MAX_DEPTH} elements deep", "policy-violation")


def sniff_stanza(text: str) -> StanzaHead | None:
    """Tell the head of a stanza that can't or shall not be read whole, or None when it is none.

    Stream management counts such a stanza too (XEP-0198), and an IQ still gets its error.
    """
    match = _HEAD.match(text[:4096])
    if match is None:
        return None
    attributes = {name: _unescape(double or single) for name, double, single in _ATTRIBUTE.findall(match.group(2))}
    return StanzaHead(match.group(1), attributes)


def _unescape(value: str) -> str:
    for entity, char in (("&lt;", "<"), ("&gt;", ">"), ("&quot;", '"'), ("&apos;", "'"), ("&amp;", "&")):
        value = value.replace(entity, char)
    return value


def serialize(element: ET.Element, default_ns: str = NS_CLIENT) -> str:
    """Write one element as a frame: namespaces by ``xmlns`` where they change, never by a made-up prefix.

    Elements without a namespace take that of their parent; the outermost takes ``default_ns``. Characters that
    XML can't carry are left out.
    """
    parts: list[str] = []
    _write(element, "", default_ns, parts)
    return "".join(parts)


def _write(element: ET.Element, around: str, default_ns: str, parts: list[str]) -> None:
    namespace, name = split_tag(element.tag)
    namespace = namespace or around or default_ns
    parts.append(f"<{name}")
    if namespace != around:
        parts.append(f" xmlns={_quoted(namespace)}")
    _write_attributes(element, parts)
    if not len(element) and not element.text:
        parts.append("/>")
        return
    parts.append(">")
    parts.append(_text(element.text))
    for child in element:
        _write(child, namespace, default_ns, parts)
        parts.append(_text(child.tail))
    parts.append(f"</{name}>")


def _write_attributes(element: ET.Element, parts: list[str]) -> None:
    for number, (key, value) in enumerate(element.items()):
        namespace, name = split_tag(key)
        if namespace == NS_XML:
            name = f"xml:{name}"
        elif namespace:
            parts.append(f" xmlns:a{number}={_quoted(namespace)}")
            name = f"a{number}:{name}"
        parts.append(f" {name}={_quoted(value)}")


def split_tag(tag: str) -> tuple[str, str]:
    """Split a Clark name ``{namespace}local`` into both; the namespace is empty where there is none."""
    if tag.startswith("{"):
        namespace, _, name = tag[1:].partition("}")
        return namespace, name
    return "", tag


def _quoted(value: str) -> str:
    return f'"{escape(_NOT_XML.sub("", value), _ATTRIBUTE_ENTITIES)}"'


def _text(value: str | None) -> str:
    return escape(_NOT_XML.sub("", value)) if value else ""
