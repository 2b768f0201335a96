"""Who is in the room: a pure table fed with presences (XEP-0045), giving out what changed."""

from __future__ import annotations

import json
import xml.etree.ElementTree as ET
from collections.abc import Mapping
from dataclasses import dataclass, field

from bot.errors import BannedError, KickedError, RoomDestroyedError, RoomError
from bot.jingle.session import FOCUS_NICK
from bot.xmpp.framing import NS_CLIENT

NS_MUC_USER = "http://jabber.org/protocol/muc#user"
MAX_OCCUPANTS = 10_000


@dataclass(frozen=True, slots=True)
class Occupant:
    """One occupant. ``endpoint`` is the room nick; ``nick`` the display name; ``sources`` his SourceInfo."""

    endpoint: str
    nick: str = ""
    jid: str | None = None
    role: str = "none"
    affiliation: str = "none"
    codecs: tuple[str, ...] = ()
    sources: Mapping[str, object] = field(default_factory=dict)
    versions: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class OccupantJoined:
    """Somebody came."""

    occupant: Occupant


@dataclass(frozen=True, slots=True)
class OccupantChanged:
    """Somebody's presence changed."""

    occupant: Occupant
    previous: Occupant


@dataclass(frozen=True, slots=True)
class OccupantLeft:
    """Somebody left."""

    occupant: Occupant


@dataclass(frozen=True, slots=True)
class SelfJoined:
    """Our own presence was reflected (status 110): the room admitted us."""

    occupant: Occupant


@dataclass(frozen=True, slots=True)
class SelfChanged:
    """Our own role or affiliation may have changed."""

    occupant: Occupant


@dataclass(frozen=True, slots=True)
class SelfLeft:
    """Our own unavailable presence was seen. ``error`` says why, None when we left ourselves."""

    error: RoomError | None


RoomEvent = OccupantJoined | OccupantChanged | OccupantLeft | SelfJoined | SelfChanged | SelfLeft


class OccupantTable:
    """The occupants of one room, the focus among them. ``feed`` takes each presence from the room."""

    def __init__(self, own: str) -> None:
        self._own = own
        self._occupants: dict[str, Occupant] = {}
        self._self: Occupant | None = None

    def __repr__(self) -> str:
        return f"<OccupantTable {len(self._occupants)} others, self {'in' if self._self else 'out'}>"

    @property
    def others(self) -> tuple[Occupant, ...]:
        """All but ourselves and the focus."""
        return tuple(item for item in self._occupants.values() if item.endpoint != FOCUS_NICK)

    @property
    def count(self) -> int:
        """How many others there are, without making a list of them."""
        return len(self._occupants) - (FOCUS_NICK in self._occupants)

    def get(self, endpoint: str) -> Occupant | None:
        """One of the others, by endpoint id."""
        return self._occupants.get(endpoint)

    @property
    def focus(self) -> Occupant | None:
        """The focus while it is in the room."""
        return self._occupants.get(FOCUS_NICK)

    @property
    def me(self) -> Occupant | None:
        """Ourselves as the room shows us."""
        return self._self

    def feed(self, presence: ET.Element) -> list[RoomEvent]:
        """Take one presence from the room; errors (``type='error'``) are not for this table."""
        endpoint = presence.get("from", "").partition("/")[2]
        kind = presence.get("type")
        if not endpoint or kind not in (None, "unavailable"):
            return []
        mine = endpoint == self._own or "110" in _statuses(presence)
        if kind == "unavailable":
            return self._gone(endpoint, presence, mine=mine)
        return self._present(read_occupant(presence, endpoint), mine=mine)

    def _gone(self, endpoint: str, presence: ET.Element, *, mine: bool) -> list[RoomEvent]:
        if mine:
            self._self = None
            return [SelfLeft(_why(presence))]
        left = self._occupants.pop(endpoint, None)
        return [OccupantLeft(left)] if left is not None else []

    def _present(self, occupant: Occupant, *, mine: bool) -> list[RoomEvent]:
        if mine:
            first, self._self = self._self is None, occupant
            return [SelfJoined(occupant) if first else SelfChanged(occupant)]
        previous = self._occupants.get(occupant.endpoint)
        if previous is None and len(self._occupants) >= MAX_OCCUPANTS:
            return []
        self._occupants[occupant.endpoint] = occupant
        if previous is None:
            return [OccupantJoined(occupant)]
        return [OccupantChanged(occupant, previous)] if previous != occupant else []


def read_occupant(presence: ET.Element, endpoint: str) -> Occupant:
    """Read one presence; what is missing or broken takes its default."""
    item = presence.find(f"{{{NS_MUC_USER}}}x/{{{NS_MUC_USER}}}item")
    attributes = item.attrib if item is not None else {}
    nick = presence.findtext("{http://jabber.org/protocol/nick}nick") or ""
    codecs = presence.findtext(f"{{{NS_CLIENT}}}jitsi_participant_codecList") or ""
    return Occupant(
        endpoint=endpoint,
        nick=nick,
        jid=attributes.get("jid"),
        role=attributes.get("role", "none"),
        affiliation=attributes.get("affiliation", "none"),
        codecs=tuple(name for name in codecs.lower().split(",") if name),
        sources=_json_object(presence.findtext(f"{{{NS_CLIENT}}}SourceInfo")),
        versions={
            component.get("name", ""): component.text or ""
            for component in presence.iterfind(
                "{http://jitsi.org/jitmeet}versions/{http://jitsi.org/jitmeet}component"
            )
        },
    )


def _json_object(text: str | None) -> Mapping[str, object]:
    try:
        value = json.loads(text or "{}")
    except (ValueError, RecursionError):
        return {}
    return value if isinstance(value, dict) else {}


def _statuses(presence: ET.Element) -> set[str]:
    return {item.get("code", "") for item in presence.iterfind(f"{{{NS_MUC_USER}}}x/{{{NS_MUC_USER}}}status")}


def _why(presence: ET.Element) -> RoomError | None:
    """Why we are out (XEP-0045 sections 8.2, 9.1, 10.9): by whom and with what reason."""
    statuses = _statuses(presence)
    actor = presence.find(f".//{{{NS_MUC_USER}}}actor")
    by = f" by {actor.get('nick') or actor.get('jid') or 'a moderator'}" if actor is not None else ""
    reason = presence.findtext(f".//{{{NS_MUC_USER}}}reason")
    said = f": {reason}" if reason else ""
    if presence.find(f"{{{NS_MUC_USER}}}x/{{{NS_MUC_USER}}}destroy") is not None:
        return RoomDestroyedError(f"The room was destroyed{said}")
    if "301" in statuses:
        return BannedError(f"Banned{by}{said}")
    if statuses & {"307", "333"}:
        return KickedError(f"Kicked{by}{said}")
    if statuses & {"321", "322", "332"}:
        return RoomError(f"Removed from the room (status {', '.join(sorted(statuses))}){said}")
    return None
