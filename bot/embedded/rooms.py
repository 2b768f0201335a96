"""One room: its occupants, and the presence that tells each of the others (XEP-0045). Pure."""

from __future__ import annotations

import base64
import hashlib
from collections.abc import Iterable
from dataclasses import dataclass, field
from xml.etree import ElementTree as ET

from bot.embedded.config import RoomPolicy
from bot.embedded.stanza import (
    MESSAGE,
    NS_CLIENT,
    NS_JITMEET,
    NS_MUC,
    NS_MUC_USER,
    NS_OCCUPANT_ID,
    PRESENCE,
    XML_LANG,
    Jid,
    child,
    element,
)

#: What the room itself says; copies of it in an occupant's presence are dropped.
_FOREIGN = frozenset(
    {
        f"{{{NS_MUC}}}x",
        f"{{{NS_MUC_USER}}}x",
        f"{{{NS_OCCUPANT_ID}}}occupant-id",
        f"{{{NS_JITMEET}}}permissions",
    }
)
#: What a moderator may do, as Jitsi's Prosody modules list it in the presence to himself.
PERMISSIONS = (
    "recording",
    "create-polls",
    "livestreaming",
    "transcription",
    "flip",
    "send-groupchat",
    "outbound-call",
)
ROLES = {"owner": "moderator", "admin": "moderator", "outcast": "none"}


@dataclass(eq=False, slots=True)
class Occupant:
    """Somebody in the room. ``presence`` is what he said last, without the room's own elements."""

    nick: str
    jid: str
    affiliation: str
    role: str
    occupant_id: str
    #: A visitor: nobody but himself and the focus is told of him.
    hidden: bool = False
    presence: list[ET.Element] = field(default_factory=list)
    attributes: dict[str, str] = field(default_factory=dict)

    def says(self, stanza: ET.Element) -> None:
        """Take the content of a presence stanza."""
        self.presence = [node for node in stanza if node.tag not in _FOREIGN]
        self.attributes = {XML_LANG: stanza.get(XML_LANG, "en")}
        if stanza.get("id"):
            self.attributes["id"] = stanza.get("id", "")


@dataclass(eq=False, slots=True)
class Room:
    """The occupants by nick, and the room's settings. Methods return the stanzas to send."""

    jid: str
    meeting_id: str
    created: float
    password: str | None = None
    max_occupants: int | None = None
    members_only: bool = False
    subject: ET.Element = field(default_factory=lambda: element("subject", NS_CLIENT))
    affiliations: dict[str, str] = field(default_factory=dict)
    occupants: dict[str, Occupant] = field(default_factory=dict)
    by_jid: dict[str, Occupant] = field(default_factory=dict)

    @classmethod
    def from_policy(cls, jid: str, policy: RoomPolicy, meeting_id: str, created: float) -> Room:
        """A new, empty room. ``created`` is in seconds since 1970."""
        return cls(
            jid,
            meeting_id,
            created,
            password=policy.password,
            max_occupants=policy.max_occupants,
            members_only=policy.members_only,
            affiliations=dict.fromkeys(policy.banned, "outcast"),
        )

    def affiliation(self, jid: str) -> str:
        """Affiliation of an address: its own, else that of its domain, else none."""
        address = Jid.parse(jid)
        return self.affiliations.get(address.bare) or self.affiliations.get(address.domain) or "none"

    def add(self, stanza: ET.Element, nick: str, *, visitor: bool = False) -> Occupant:
        """Let the sender of a join presence in; a ``visitor`` is shown to nobody."""
        jid = stanza.get("from", "")
        affiliation = self.affiliation(jid)
        role = "visitor" if visitor else ROLES.get(affiliation, "participant")
        occupant = Occupant(nick, jid, affiliation, role, self._occupant_id(jid), hidden=visitor)
        occupant.says(stanza)
        self.occupants[nick] = self.by_jid[jid] = occupant
        return occupant

    def remove(self, occupant: Occupant) -> None:
        """Take an occupant out; says nothing to anybody."""
        self.occupants.pop(occupant.nick, None)
        self.by_jid.pop(occupant.jid, None)

    def _occupant_id(self, jid: str) -> str:
        digest = hashlib.sha256(f"{self.meeting_id} {Jid.parse(jid).bare}".encode()).digest()
        return base64.b64encode(digest).decode()

    # --- what is told -------------------------------------------------------------------------------------

    def presence_of(self, occupant: Occupant, to: Occupant, codes: Iterable[str] = ()) -> ET.Element:
        """The presence of ``occupant`` as ``to`` gets it. ``codes`` are status codes before the item."""
        stanza = ET.Element(PRESENCE, {**occupant.attributes, "to": to.jid, "from": f"{self.jid}/{occupant.nick}"})
        stanza.extend(occupant.presence)
        self._finish(stanza, occupant, to, codes)
        return stanza

    def _finish(
        self,
        stanza: ET.Element,
        occupant: Occupant,
        to: Occupant,
        codes: Iterable[str],
        *,
        actor: str | None = None,
        reason: str | None = None,
    ) -> None:
        child(stanza, "occupant-id", NS_OCCUPANT_ID, id=occupant.occupant_id)
        x = child(stanza, "x", NS_MUC_USER)
        for code in codes:
            child(x, "status", NS_MUC_USER, code=code)
        item = child(
            x, "item", NS_MUC_USER, affiliation=occupant.affiliation, role=occupant.role, jid=occupant.jid
        )
        if actor is not None:
            child(item, "actor", NS_MUC_USER, nick=actor)
        if reason:
            child(item, "reason", NS_MUC_USER).text = reason
        if to is occupant:
            child(x, "status", NS_MUC_USER, code="110")

    def broadcast(self, occupant: Occupant, self_codes: Iterable[str] = ()) -> list[ET.Element]:
        """The presence of ``occupant`` to everybody, himself last, with ``self_codes`` for himself."""
        told = [self.presence_of(occupant, other) for other in self._seeing(occupant) if other is not occupant]
        return [*told, self.presence_of(occupant, occupant, self_codes)]

    def occupants_for(self, newcomer: Occupant) -> list[ET.Element]:
        """The presence of all others to ``newcomer``."""
        others = [other for other in self.occupants.values() if other is not newcomer]
        return [self.presence_of(other, newcomer) for other in others if newcomer in self._seeing(other)]

    def _seeing(self, occupant: Occupant) -> list[Occupant]:
        """Who is told of ``occupant``, himself while he is in: of a visitor only the owners, as the focus is."""
        everybody = self.occupants.values()
        return [other for other in everybody if not occupant.hidden or other is occupant or _owns(other)]

    def changed_by(self, occupant: Occupant, actor: str | None) -> list[ET.Element]:
        """Tell everybody the new affiliation or role of ``occupant``; a moderator also gets his permissions."""
        told = []
        for other in self.occupants.values():
            stanza = ET.Element(
                PRESENCE, {**occupant.attributes, "to": other.jid, "from": f"{self.jid}/{occupant.nick}"}
            )
            stanza.extend(occupant.presence)
            self._finish(stanza, occupant, other, (), actor=actor)
            if other is occupant and occupant.role == "moderator":
                permissions = child(stanza, "permissions", NS_JITMEET)
                for name in PERMISSIONS:
                    child(permissions, "p", NS_JITMEET, val="true", name=name)
            told.append(stanza)
        return told

    def left(
        self,
        occupant: Occupant,
        codes: Iterable[str] = (),
        *,
        actor: str | None = None,
        reason: str | None = None,
    ) -> list[ET.Element]:
        """Take ``occupant`` out and tell everybody, himself included."""
        self.remove(occupant)
        occupant.role = "none"
        told = []
        for other in (*self._seeing(occupant), occupant):
            attributes = {"type": "unavailable", "to": other.jid, "from": f"{self.jid}/{occupant.nick}"}
            # Prosody repeats the language of whoever leaves; who is taken out said nothing that had one.
            stanza = ET.Element(PRESENCE, attributes if codes else {**attributes, XML_LANG: "en"})
            self._finish(stanza, occupant, other, codes, actor=actor, reason=reason)
            told.append(stanza)
        return told

    def message_to_all(self, stanza: ET.Element, sender: Occupant | None) -> list[ET.Element]:
        """A groupchat message to everybody."""
        origin = f"{self.jid}/{sender.nick}" if sender is not None else self.jid
        told = []
        for other in self.occupants.values():
            copy = ET.Element(MESSAGE, {**stanza.attrib, "type": "groupchat", "from": origin, "to": other.jid})
            copy.extend(node for node in stanza if node.tag not in _FOREIGN)
            if sender is not None:
                child(copy, "occupant-id", NS_OCCUPANT_ID, id=sender.occupant_id)
            told.append(copy)
        return told

    def subject_for(self, occupant: Occupant) -> ET.Element:
        """The message that ends the joining (XEP-0045 section 7.2.15)."""
        message = ET.Element(MESSAGE, {"type": "groupchat", "from": self.jid, "to": occupant.jid})
        message.append(self.subject)
        return message


def _owns(occupant: Occupant) -> bool:
    return occupant.affiliation == "owner"
