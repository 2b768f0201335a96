"""What a room says of itself (XEP-0045 section 6.4), with Jitsi's fields. Pure."""

from __future__ import annotations

import xml.etree.ElementTree as ET
from dataclasses import dataclass

from bot.xmpp.owner import read_config
from bot.xmpp.services import NS_DISCO


@dataclass(frozen=True, slots=True)
class RoomInfo:
    """``lobby_jid`` is the lobby's room while there is one, ``main_jid`` the main room of a breakout room."""

    locked: bool
    members_only: bool
    meeting_id: str | None = None
    lobby_jid: str | None = None
    main_jid: str | None = None


def room_info_query() -> ET.Element:
    """Ask a room."""
    return ET.Element(f"{{{NS_DISCO}}}query")


def read_room_info(query: ET.Element | None) -> RoomInfo:
    """Read its answer; what is missing takes its default."""
    if query is None:
        return RoomInfo(locked=False, members_only=False)
    features = {item.get("var") for item in query.iterfind(f"{{{NS_DISCO}}}feature")}
    fields = read_config(query)
    return RoomInfo(
        locked="muc_passwordprotected" in features,
        members_only="muc_membersonly" in features,
        meeting_id=fields.get("muc#roominfo_meetingId") or None,
        lobby_jid=fields.get("muc#roominfo_lobbyroom") or None,
        main_jid=fields.get("muc#roominfo_breakout_main_room") or None,
    )
