"""Messages of a room: chat both ways, the subject, changed configuration, invitations, and what components say."""

from __future__ import annotations

import json
import xml.etree.ElementTree as ET
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from bot.xmpp.framing import NS_CLIENT, split_tag
from bot.xmpp.occupants import NS_MUC_USER
from bot.xmpp.presence import text_element
from bot.xmpp.stanza_errors import StanzaError

#: Longest chat text that is sent, in characters: Prosody's limit for a stanza of a guest is 256 KiB.
MAX_TEXT = 32_000
_X = f"{{{NS_MUC_USER}}}x"
_BODY = f"{{{NS_CLIENT}}}body"
_SUBJECT = f"{{{NS_CLIENT}}}subject"
_DELAY = "{urn:xmpp:delay}delay"
_DISPLAY_NAME = "{http://jitsi.org/protocol/display-name}display-name"


@dataclass(frozen=True, slots=True)
class ChatReceived:
    """Somebody wrote, to all or to us alone. ``stamp`` is set for what was written before we came (XEP-0203).

    ``nick`` is set where the sender is not in the room (a visitor); in the main room ``endpoint`` is empty then,
    as the room says it for him.
    """

    endpoint: str
    text: str
    private: bool
    id: str | None = None
    nick: str | None = None
    stamp: str | None = None


@dataclass(frozen=True, slots=True)
class SubjectChanged:
    """The room has another subject."""

    subject: str


@dataclass(frozen=True, slots=True)
class ConfigurationChanged:
    """The room is configured differently (XEP-0045 status 104): password, lobby."""


@dataclass(frozen=True, slots=True)
class Invited:
    """The room lets us in: a moderator admitted us from the lobby. ``password`` where the room has one."""

    password: str | None = None


@dataclass(frozen=True, slots=True)
class MessageRefused:
    """A message of ours was not delivered."""

    condition: str
    text: str


MessageEvent = ChatReceived | SubjectChanged | ConfigurationChanged | Invited | MessageRefused


def read_message(stanza: ET.Element, room_jid: str) -> MessageEvent | None:
    """What a message from ``room_jid`` says; None for what is nothing to a user."""
    bare, _, endpoint = stanza.get("from", "").partition("/")
    if bare.lower() != room_jid.lower():
        return None
    if stanza.get("type") == "error":
        error = StanzaError.from_iq(stanza)
        return MessageRefused(error.condition, error.text)
    if not endpoint and (found := _from_room(stanza)) is not None:
        return found
    subject = stanza.find(_SUBJECT)
    text = stanza.findtext(_BODY)
    if subject is not None and text is None:
        return SubjectChanged(subject.text or "")
    return _chat(stanza, endpoint, text) if text and (endpoint or _is_visitors(stanza)) else None


def _is_visitors(stanza: ET.Element) -> bool:
    """Whether the room passes on what a visitor wrote, to all or to us."""
    name = stanza.find(_DISPLAY_NAME)
    return name is not None and name.get("source") == "visitor"


def _from_room(stanza: ET.Element) -> MessageEvent | None:
    """Only the room itself says these: an occupant may put the same elements into a message of his."""
    x = stanza.find(_X)
    if x is None:
        return None
    if x.find(f"{{{NS_MUC_USER}}}invite") is not None:
        return Invited(x.findtext(f"{{{NS_MUC_USER}}}password"))
    codes = {item.get("code") for item in x.iterfind(f"{{{NS_MUC_USER}}}status")}
    return ConfigurationChanged() if "104" in codes else None


def _chat(stanza: ET.Element, endpoint: str, text: str) -> ChatReceived:
    name = stanza.find(_DISPLAY_NAME)
    delay = stanza.find(_DELAY)
    return ChatReceived(
        endpoint=endpoint,
        text=text,
        private=stanza.get("type") == "chat",
        id=stanza.get("id"),
        nick=name.text if name is not None else None,
        stamp=delay.get("stamp") if delay is not None else None,
    )


def chat_message(room_jid: str, text: str, *, to: str | None = None, id: str | None = None) -> ET.Element:  # noqa: A002
    """A message to all, or to the endpoint ``to`` alone. Raises ValueError for a text that can't be sent."""
    clean = "".join(char for char in text if _is_xml(char))
    if not clean.strip() or len(clean) > MAX_TEXT:
        raise ValueError(f"a chat text has 1 to {MAX_TEXT} characters, this one {len(clean)}")
    attributes = {"to": f"{room_jid}/{to}", "type": "chat"} if to else {"to": room_jid, "type": "groupchat"}
    message = ET.Element(f"{{{NS_CLIENT}}}message", attributes | ({"id": id} if id else {}))
    message.append(text_element("body", clean))
    return message


def _is_xml(char: str) -> bool:
    """Whether XML 1.0 section 2.2 allows the character."""
    code = ord(char)
    return code in {0x9, 0xA, 0xD} or 0x20 <= code <= 0xD7FF or 0xE000 <= code <= 0xFFFD or code >= 0x10000


def read_component(stanza: ET.Element, room_jid: str) -> Mapping[str, Any] | None:
    """The JSON object that a component of the room's deployment sent; None for any other message.

    Components are neighbours of the rooms: ``avmoderation.DOMAIN`` beside ``muc.DOMAIN``. An occupant or another
    user can put the same element into a message, but servers write the sender's address themselves.
    """
    sender = stanza.get("from", "")
    neighbourhood = room_jid.partition("@")[2].partition(".")[2]
    if "@" in sender or "/" in sender or not neighbourhood or not sender.endswith(f".{neighbourhood}"):
        return None
    text = next((item.text for item in stanza if split_tag(item.tag)[1] == "json-message"), None)
    try:
        found = json.loads(text or "null")
    except (ValueError, RecursionError):
        return None
    return found if isinstance(found, dict) else None
