"""Stanza errors (RFC 6120 section 8.3)."""

from __future__ import annotations

import xml.etree.ElementTree as ET
from typing import Self

from bot.errors import ProtocolError
from bot.xmpp.framing import NS_CLIENT, NS_STANZAS, split_tag


class StanzaError(ProtocolError):
    """The other side answered with an error, or we do. ``condition`` is RFC 6120's, as ``item-not-found``."""

    code = "stanza_error"

    def __init__(
        self, condition: str, text: str = "", *, kind: str = "cancel", details: tuple[ET.Element, ...] = ()
    ) -> None:
        super().__init__(f"{condition}: {text}" if text else condition)
        self.condition = condition
        self.text = text
        self.kind = kind
        #: Application-specific elements of the error.
        self.details = details

    @classmethod
    def from_iq(cls, stanza: ET.Element) -> Self:
        """Read the ``<error/>`` of a stanza; a stanza without one gives ``undefined-condition``."""
        element = stanza.find(f"{{{NS_CLIENT}}}error")
        if element is None:
            return cls("undefined-condition")
        condition, text, details = "undefined-condition", "", []
        for child in element:
            namespace, name = split_tag(child.tag)
            if namespace != NS_STANZAS:
                details.append(child)
            elif name == "text":
                text = child.text or ""
            else:
                condition = name
        return cls(condition, text, kind=element.get("type", "cancel"), details=tuple(details))

    def to_xml(self) -> ET.Element:
        """The ``<error/>`` element."""
        element = ET.Element(f"{{{NS_CLIENT}}}error", {"type": self.kind})
        ET.SubElement(element, f"{{{NS_STANZAS}}}{self.condition}")
        if self.text:
            ET.SubElement(element, f"{{{NS_STANZAS}}}text").text = self.text
        element.extend(self.details)
        return element


class IqTimeoutError(ProtocolError):
    """Nobody answered an IQ within its time limit."""

    code = "iq_timeout"
