"""Stanzas written short: a namespace is declared once where slixmpp repeats it with every element. Pure.

Deployments limit what a client may send (docker-jitsi-meet: 10 kB/s): Prosody stops reading a connection for as
long as the piece that it has just read may take, and nginx passes a WebSocket on in pieces of 4096 bytes. What is
longer than one piece waits 0.4 s for its second one, and with a session-accept the whole media session does.
"""

from __future__ import annotations

import xml.etree.ElementTree as ET
from collections.abc import Mapping
from string import ascii_lowercase
from xml.sax.saxutils import escape, quoteattr

from bot.xmpp.framing import split_tag

#: Characters of a frame that are not worth the work.
SHORT = 1024
#: Elements of one namespace from which on a declaration costs less than their prefixes.
_MANY = 8


def compact(frame: str) -> str:
    """The same stanza in fewer characters; short frames, and those that can't be shortened, as they are."""
    if len(frame) <= SHORT:
        return frame
    stanza = ET.fromstring(frame)  # noqa: S314 -- written by ourselves
    namespaces = dict.fromkeys(split_tag(item.tag)[0] for item in stanza.iter())
    qualified = any("}" in name for item in stanza.iter() for name in item.attrib)
    if "" in namespaces or qualified or len(namespaces) > len(ascii_lowercase):
        return frame
    prefixes = dict(zip(namespaces, ascii_lowercase, strict=False))
    namespace, _ = split_tag(stanza.tag)
    children = "".join(_payload(child, prefixes) for child in stanza)
    shorter = _tagged(stanza, "", {"xmlns": namespace}, children)
    return shorter if len(shorter) < len(frame) else frame


def _payload(element: ET.Element, prefixes: Mapping[str, str]) -> str:
    """A child of the stanza; it declares the prefixes that are used below it."""
    own, _ = split_tag(element.tag)
    used: set[str] = set()
    children = "".join(_element(child, own, prefixes, used) for child in element)
    declared = {f"xmlns:{prefixes[space]}": space for space in prefixes if space in used}
    return _tagged(element, "", {"xmlns": own} | declared, children) + escape(element.tail or "")


def _element(element: ET.Element, default: str, prefixes: Mapping[str, str], used: set[str]) -> str:
    own, _ = split_tag(element.tag)
    if own == default:
        prefix, declared, inside = "", {}, default
    elif len(element) >= _MANY:
        prefix, declared, inside = "", {"xmlns": own}, own
    else:
        used.add(own)
        prefix, declared, inside = f"{prefixes[own]}:", {}, default
    children = "".join(_element(child, inside, prefixes, used) for child in element)
    return _tagged(element, prefix, declared, children) + escape(element.tail or "")


def _tagged(element: ET.Element, prefix: str, declared: Mapping[str, str], children: str) -> str:
    tag = prefix + split_tag(element.tag)[1]
    attributes = "".join(f" {key}={quoteattr(value)}" for key, value in {**declared, **element.attrib}.items())
    body = escape(element.text or "") + children
    return f"<{tag}{attributes}>{body}</{tag}>" if body else f"<{tag}{attributes}/>"
