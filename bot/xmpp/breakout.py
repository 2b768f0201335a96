"""Breakout rooms: what their component says, and what moderators tell it. Pure."""

from __future__ import annotations

import xml.etree.ElementTree as ET
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from bot.xmpp.framing import NS_CLIENT

PREFIX = "features/breakout-rooms/"
#: The status of who leaves a room for another one of the same meeting.
SWITCH_ROOM = "switch_room"


@dataclass(frozen=True, slots=True)
class BreakoutRoom:
    """One room of the meeting; ``endpoints`` are in it."""

    jid: str
    name: str
    is_main: bool
    endpoints: frozenset[str]


@dataclass(frozen=True, slots=True)
class BreakoutRoomsChanged:
    """The meeting's rooms, the main room among them."""

    rooms: tuple[BreakoutRoom, ...]


@dataclass(frozen=True, slots=True)
class MoveRequested:
    """A moderator sends us to another room of the meeting."""

    room_jid: str


BreakoutEvent = BreakoutRoomsChanged | MoveRequested


def read_breakout(data: Mapping[str, Any]) -> BreakoutEvent | None:
    """Read a message of the component; None for what is unknown or broken."""
    event = data.get("event")
    if event == f"{PREFIX}move-to-room":
        jid = data.get("roomJid")
        return MoveRequested(jid) if isinstance(jid, str) and "@" in jid else None
    rooms = data.get("rooms")
    if event != f"{PREFIX}update" or not isinstance(rooms, dict):
        return None
    return BreakoutRoomsChanged(tuple(_room(item) for item in rooms.values() if isinstance(item, dict)))


def _room(item: Mapping[str, Any]) -> BreakoutRoom:
    people = item.get("participants")
    return BreakoutRoom(
        jid=str(item.get("jid", "")),
        name=str(item.get("name") or ""),
        is_main=item.get("isMainRoom") is True,
        # cjson writes an empty table as {} or []
        endpoints=frozenset(jid.partition("/")[2] for jid in people) if isinstance(people, dict) else frozenset(),
    )


def breakout_message(component: str, action: str, **attributes: str) -> ET.Element:
    """A moderator's order.

    ``add`` needs subject, ``remove`` breakoutRoomJid, ``move-to-room`` participantJid (the real one) and roomJid.
    """
    message = ET.Element(f"{{{NS_CLIENT}}}message", {"to": component})
    ET.SubElement(message, f"{{{NS_CLIENT}}}breakout_rooms", {"type": f"{PREFIX}{action}", **attributes})
    return message
