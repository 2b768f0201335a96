"""What our presence in a room says."""

from __future__ import annotations

import json
import xml.etree.ElementTree as ET
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Self

from bot.xmpp.framing import NS_CLIENT

NS_NICK = "http://jabber.org/protocol/nick"
#: Jitsi's participant properties are elements of this prefix.
PROPERTY = "jitsi_participant_"


@dataclass(frozen=True, slots=True)
class RoomPresence:
    """What our presence says. ``caps`` is the ``<c/>`` element; ``sources`` Jitsi's SourceInfo by source name.

    What is empty or None is left out. ``raised_hand`` is when we raised it, in milliseconds since 1970; ``region``
    is for the focus, which may choose a bridge by it.
    """

    nick: str
    stats_id: str
    caps: ET.Element
    codecs: tuple[str, ...]
    sources: Mapping[str, object] | None = field(default_factory=dict)
    email: str | None = None
    avatar_url: str | None = None
    raised_hand: int | None = None
    region: str | None = None
    extra: tuple[ET.Element, ...] = ()

    def elements(self) -> list[ET.Element]:
        """The children of the presence, as current web clients order them."""
        found = [text_element("stats-id", self.stats_id)] if self.stats_id else []
        found.append(self.caps)
        if self.sources is not None:
            found.append(text_element("SourceInfo", json.dumps(self.sources)))
        if self.codecs:
            found.append(text_element(f"{PROPERTY}codecList", ",".join(self.codecs)))
        if self.region is not None:
            found.append(text_element(f"{PROPERTY}region", self.region))
        found += [*self.extra, text_element("nick", self.nick, NS_NICK)]
        if self.email is not None:
            found.append(text_element("email", self.email))
        if self.avatar_url is not None:
            found.append(text_element("avatar-url", self.avatar_url))
        if self.raised_hand is not None:
            found.append(text_element(f"{PROPERTY}raisedHand", str(self.raised_hand)))
        return found

    def in_lobby(self) -> Self:
        """What is said in a lobby: who we are.

        A participant property makes lib-jitsi-meet's lobby room fail, and its moderator deaf to all presences.
        """
        return replace(
            self, stats_id="", codecs=(), sources=None, email=None, raised_hand=None, region=None, extra=()
        )


def property_element(name: str, value: str) -> ET.Element:
    """A participant property, as lib-jitsi-meet's ``setLocalParticipantProperty`` makes it."""
    return text_element(f"{PROPERTY}{name}", value)


def text_element(name: str, text: str, namespace: str = NS_CLIENT) -> ET.Element:
    """An element that holds ``text``."""
    element = ET.Element(f"{{{namespace}}}{name}")
    element.text = text
    return element
