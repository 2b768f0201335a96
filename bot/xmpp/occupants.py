"""Who is in the room: a pure table fed with presences (XEP-0045), giving out what changed."""

from __future__ import annotations

import json
import xml.etree.ElementTree as ET
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field

from bot.errors import BannedError, KickedError, RoomDestroyedError, RoomError
from bot.jingle.session import FOCUS_NICK
from bot.xmpp.framing import NS_CLIENT
from bot.xmpp.presence import NS_NICK, PROPERTY

NS_MUC_USER = "http://jabber.org/protocol/muc#user"
MAX_OCCUPANTS = 10_000
#: What is kept of one presence, in characters and items: whoever is in the room writes it.
MAX_TEXT, MAX_ITEMS, MAX_SOURCE_INFO = 1024, 100, 16_384


@dataclass(frozen=True, slots=True)
class Occupant:
    """One occupant. ``endpoint`` is the room nick; ``nick`` the display name; ``sources`` his SourceInfo.

    ``raised_hand`` is when he raised it, in milliseconds since 1970; None while it is down.
    """

    endpoint: str
    nick: str = ""
    jid: str | None = None
    role: str = "none"
    affiliation: str = "none"
    codecs: tuple[str, ...] = ()
    sources: Mapping[str, object] = field(default_factory=dict)
    versions: Mapping[str, str] = field(default_factory=dict)
    email: str | None = None
    avatar_url: str | None = None
    raised_hand: int | None = None

    @property
    def moderator(self) -> bool:
        """Whether he may moderate."""
        return self.role == "moderator"


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
    """Our own presence came back changed: role, affiliation, or what we said ourselves."""

    occupant: Occupant
    previous: Occupant


@dataclass(frozen=True, slots=True)
class SelfLeft:
    """Our own unavailable presence was seen. ``error`` says why, None when we left ourselves."""

    error: RoomError | None


OccupantEvent = OccupantJoined | OccupantChanged | OccupantLeft | SelfJoined | SelfChanged | SelfLeft


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

    def feed(self, presence: ET.Element) -> list[OccupantEvent]:
        """Take one presence from the room; errors (``type='error'``) are not for this table."""
        endpoint = presence.get("from", "").partition("/")[2]
        kind = presence.get("type")
        if not endpoint or kind not in (None, "unavailable"):
            return []
        mine = endpoint == self._own or "110" in _statuses(presence)
        if kind == "unavailable":
            return self._gone(endpoint, presence, mine=mine)
        return self._present(read_occupant(presence, endpoint), mine=mine)

    def _gone(self, endpoint: str, presence: ET.Element, *, mine: bool) -> list[OccupantEvent]:
        if mine:
            self._self = None
            return [SelfLeft(_why(presence, self._name))]
        left = self._occupants.pop(endpoint, None)
        return [OccupantLeft(left)] if left is not None else []

    def _name(self, endpoint: str) -> str:
        """Display name and endpoint id of somebody in the room."""
        found = self._occupants.get(endpoint)
        return f"{found.nick} ({endpoint})" if found is not None and found.nick else endpoint

    def _present(self, occupant: Occupant, *, mine: bool) -> list[OccupantEvent]:
        if mine:
            before, self._self = self._self, occupant
            if before is None:
                return [SelfJoined(occupant)]
            return [SelfChanged(occupant, before)] if before != occupant else []
        previous = self._occupants.get(occupant.endpoint)
        if previous is None and len(self._occupants) >= MAX_OCCUPANTS:
            return []
        self._occupants[occupant.endpoint] = occupant
        if previous is None:
            return [OccupantJoined(occupant)]
        return [OccupantChanged(occupant, previous)] if previous != occupant else []


def read_occupant(presence: ET.Element, endpoint: str) -> Occupant:
    """Read one presence; what is missing or broken takes its default, and what is too long is cut."""
    item = presence.find(f"{{{NS_MUC_USER}}}x/{{{NS_MUC_USER}}}item")
    attributes = item.attrib if item is not None else {}
    nick = presence.findtext(f"{{{NS_NICK}}}nick") or ""
    codecs = presence.findtext(f"{{{NS_CLIENT}}}{PROPERTY}codecList") or ""
    return Occupant(
        endpoint=endpoint,
        nick=nick[:MAX_TEXT],
        jid=attributes.get("jid"),
        role=attributes.get("role", "none"),
        affiliation=attributes.get("affiliation", "none"),
        codecs=tuple(name for name in codecs[:MAX_TEXT].lower().split(",") if name),
        sources=_json_object(presence.findtext(f"{{{NS_CLIENT}}}SourceInfo")),
        versions={
            component.get("name", "")[:MAX_TEXT]: (component.text or "")[:MAX_TEXT]
            for component in presence.findall(
                "{http://jitsi.org/jitmeet}versions/{http://jitsi.org/jitmeet}component"
            )[:MAX_ITEMS]
        },
        email=_short(presence.findtext(f"{{{NS_CLIENT}}}email")),
        avatar_url=_short(presence.findtext(f"{{{NS_CLIENT}}}avatar-url")),
        raised_hand=_raised(presence.findtext(f"{{{NS_CLIENT}}}{PROPERTY}raisedHand")),
    )


def _short(text: str | None) -> str | None:
    """A text that is there and not too long: half an address is none."""
    return text if text and len(text) <= MAX_TEXT else None


def _raised(text: str | None) -> int | None:
    """Current clients write when (0 for lowered), older ones ``true`` or ``false``."""
    if text == "true":
        return 1
    return int(text) or None if text is not None and text.isdecimal() and len(text) < 20 else None


def _json_object(text: str | None) -> Mapping[str, object]:
    if text is not None and len(text) > MAX_SOURCE_INFO:
        return {}
    try:
        value = json.loads(text or "{}")
    except (ValueError, RecursionError):
        return {}
    return value if isinstance(value, dict) else {}


def _statuses(presence: ET.Element) -> set[str]:
    return {item.get("code", "") for item in presence.iterfind(f"{{{NS_MUC_USER}}}x/{{{NS_MUC_USER}}}status")}


def _why(presence: ET.Element, name: Callable[[str], str]) -> RoomError | None:
    """Why we are out (XEP-0045 sections 8.2, 9.1, 10.9): by whom and with what reason."""
    statuses = _statuses(presence)
    actor = presence.find(f".//{{{NS_MUC_USER}}}actor")
    who = actor.attrib if actor is not None else {}
    by = (
        f" by {name(who['nick']) if who.get('nick') else who.get('jid') or 'a moderator'}"
        if actor is not None
        else ""
    )
    reason = presence.findtext(f".//{{{NS_MUC_USER}}}reason")
    said = f": {reason[:MAX_TEXT]}" if reason else ""
    destroyed = presence.find(f"{{{NS_MUC_USER}}}x/{{{NS_MUC_USER}}}destroy")
    if destroyed is not None:
        return RoomDestroyedError(f"The room was destroyed{said}", alternative=destroyed.get("jid"))
    if "301" in statuses:
        return BannedError(f"Banned{by}{said}")
    if statuses & {"307", "333"}:
        return KickedError(f"Kicked{by}{said}")
    if statuses & {"321", "322", "332"}:
        return RoomError(f"Removed from the room (status {', '.join(sorted(statuses))}){said}")
    return None
