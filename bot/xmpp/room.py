"""The room (XEP-0045): join with the presence that Jitsi expects, stay, leave."""

from __future__ import annotations

import asyncio
import xml.etree.ElementTree as ET
from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import Any

from bot.errors import (
    BannedError,
    ConnectionFailedError,
    JoinTimeoutError,
    MembersOnlyError,
    NicknameConflictError,
    RoomAccessError,
    RoomError,
    RoomFullError,
    RoomPasswordError,
    RoomRestrictedError,
)
from bot.xmpp.connection import XmppConnection
from bot.xmpp.framing import NS_CLIENT, split_tag
from bot.xmpp.messages import ChatReceived, MessageEvent, chat_message, read_message
from bot.xmpp.occupants import OccupantEvent, OccupantTable, SelfJoined, SelfLeft
from bot.xmpp.presence import RoomPresence, text_element
from bot.xmpp.stanza_errors import StanzaError

NS_MUC = "http://jabber.org/protocol/muc"
RoomEvent = OccupantEvent | MessageEvent

#: Stanza error of a join, and what it means (XEP-0045 section 7.2).
_JOIN_ERRORS: Mapping[str, tuple[type[RoomError], str, str | None]] = {
    "not-authorized": (RoomPasswordError, "The room {room} asks for a password", "JITSI_ROOM_PASSWORD"),
    "service-unavailable": (RoomFullError, "The room {room} is full", None),
    "resource-constraint": (RoomFullError, "The room {room} is full", None),
    "forbidden": (BannedError, "Banned from the room {room}", None),
    "conflict": (NicknameConflictError, "The endpoint id is taken in {room}", None),
    "not-allowed": (
        RoomAccessError,
        "The room {room} does not let this participant in",
        "JITSI_TOKEN or the jwt_* settings: a token for this room and domain",
    ),
}
#: Prosody's text for who may not create the room, and Jitsi's element for who finds none.
_RESTRICTED = "Room creation is restricted"
_NO_ROOM = "room-does-not-exist"


class Room:
    """One room on one connection. ``on_event`` hears of its occupants, ourselves included, and its messages."""

    def __init__(
        self, connection: XmppConnection, room_jid: str, *, on_event: Callable[[RoomEvent], None]
    ) -> None:
        self._connection = connection
        self.jid = room_jid
        self.own = f"{room_jid}/{connection.endpoint_id}"
        self.occupants = OccupantTable(connection.endpoint_id)
        self._on_event = on_event
        self._joined: asyncio.Future[None] | None = None
        self._left = asyncio.Event()
        self._said: RoomPresence | None = None
        self._stops = (connection.on_presence(self._presence), connection.on_message(self._message))

    def __repr__(self) -> str:
        return f"<Room {self.jid} {self.occupants!r}>"

    @property
    def presence(self) -> RoomPresence | None:
        """What we said of ourselves last; None before the join."""
        return self._said

    async def join(self, presence: RoomPresence, *, password: str | None = None, timeout: float = 20.0) -> None:
        """Enter the room; returns when our own presence came back. Raises RoomError or ConnectionFailedError.

        A refused join may be tried again.
        """
        self._said = presence
        self._joined = joined = asyncio.get_running_loop().create_future()
        muc = ET.Element(f"{{{NS_MUC}}}x")
        if password is not None:
            ET.SubElement(muc, f"{{{NS_MUC}}}password").text = password
        self._send([muc, *presence.elements()])
        try:
            async with asyncio.timeout(timeout):
                await self._connection.unless_lost(joined)
        except TimeoutError:
            raise JoinTimeoutError(f"The room {self.jid} did not answer within {timeout:g} s") from None

    def update(self, **changes: Any) -> None:
        """Say again who we are, with ``changes`` of RoomPresence's fields; says nothing where nothing changes."""
        if self._said is None:
            raise RuntimeError("a presence is changed only after the join")
        before, self._said = self._said, replace(self._said, **changes)
        if self._said != before:
            self._send(self._said.elements())

    def send_chat(self, text: str, *, to: str | None = None) -> None:
        """Write to all, or to the endpoint ``to`` alone. Raises ValueError for a text that can't be sent."""
        self._connection.send(chat_message(self.jid, text, to=to))

    async def leave(self, timeout: float = 5.0, *, status: str | None = None) -> bool:
        """Leave; True when our own unavailable presence was seen within ``timeout`` seconds."""
        if self._left.is_set() or self.occupants.me is None:
            return True
        self._send([text_element("status", status)] if status else [], kind="unavailable")
        left = asyncio.ensure_future(self._left.wait())
        try:
            async with asyncio.timeout(timeout):
                return await self._connection.unless_lost(left)
        except (TimeoutError, ConnectionFailedError):
            return False
        finally:
            left.cancel()

    def close(self) -> None:
        """Hear nothing more of the room; nobody waits for the join any more."""
        for stop in self._stops:
            stop()
        if self._joined is not None:
            self._joined.cancel()

    def _send(self, children: list[ET.Element], kind: str | None = None) -> None:
        stanza = ET.Element(f"{{{NS_CLIENT}}}presence", {"to": self.own} | ({"type": kind} if kind else {}))
        stanza.extend(children)
        self._connection.send(stanza)

    def _presence(self, presence: ET.Element) -> None:
        if presence.get("from", "").partition("/")[0].lower() != self.jid.lower():
            return
        if presence.get("type") == "error":
            self._refused(presence)
            return
        for event in self.occupants.feed(presence):
            if isinstance(event, SelfJoined) and self._joined is not None and not self._joined.done():
                self._joined.set_result(None)
            if isinstance(event, SelfLeft):
                self._left.set()
            self._on_event(event)

    def _message(self, stanza: ET.Element) -> None:
        event = read_message(stanza, self.jid)
        mine = isinstance(event, ChatReceived) and event.endpoint == self._connection.endpoint_id
        if event is not None and not mine:
            self._on_event(event)

    def _refused(self, presence: ET.Element) -> None:
        if self._joined is not None and not self._joined.done():
            self._joined.set_exception(join_error(presence, self.jid))


def join_error(presence: ET.Element, room: str) -> RoomError:
    """The error of a refused join (XEP-0045 section 7.2, and Jitsi's lobby)."""
    error = StanzaError.from_iq(presence)
    said = f": {error.text}" if error.text else ""
    if error.condition == "registration-required":
        lobby = next((item.text for item in error.details if item.tag.endswith("}lobbyroom")), None)
        return MembersOnlyError(f"The room {room} admits members only{said}", lobby=lobby)
    names = {split_tag(item.tag)[1] for item in error.details}
    if error.condition == "not-allowed" and (error.text == _RESTRICTED or _NO_ROOM in names):
        return RoomRestrictedError(f"The room {room} does not exist, and only others may create it{said}")
    if error.condition not in _JOIN_ERRORS:
        return RoomError(f"The room {room} refused the join: {error}")
    kind, text, hint = _JOIN_ERRORS[error.condition]
    return kind(f"{text.format(room=room)}{said}", hint=hint)
