"""The multi-user chat service: who enters, leaves, speaks (XEP-0045 as Jitsi's Prosody does it). Pure."""

from __future__ import annotations

import json
import re
import time
from collections.abc import Callable
from xml.etree import ElementTree as ET

from bot.embedded.config import OPEN_ROOM, EmbeddedConfig
from bot.embedded.lobby import Lobbies
from bot.embedded.muc_iq import MucIq
from bot.embedded.rooms import Occupant, Room
from bot.embedded.stanza import (
    IQ,
    MESSAGE,
    NS_CLIENT,
    NS_JITMEET,
    NS_MUC,
    NS_MUC_USER,
    PRESENCE,
    Jid,
    child,
    clone,
    element,
    error_reply,
)
from bot.embedded.visitors import VisitorNodes

#: Jitsi's rule for nicks, which are endpoint ids.
_NICK = re.compile(r"[a-zA-Z0-9][a-zA-Z0-9_]*")
FOCUS_NICK = "focus"
_MUC_X = f"{{{NS_MUC}}}x"
_SUBJECT = f"{{{NS_CLIENT}}}subject"
_BODY = f"{{{NS_CLIENT}}}body"
_ERROR_CODES_OF_LOSS = frozenset({"gone", "item-not-found", "recipient-unavailable", "service-unavailable"})


class MucService:
    """All rooms of the MUC domain. ``feed(stanza)`` returns the stanzas to route."""

    def __init__(
        self,
        config: EmbeddedConfig,
        *,
        new_id: Callable[[], str],
        wall_clock: Callable[[], float] = time.time,
    ) -> None:
        self.rooms: dict[str, Room] = {}
        self._config = config
        self._new_id = new_id
        self._wall_clock = wall_clock
        self._owners = {Jid.parse(config.focus_jid).bare, config.focus_domain}
        self._iq = MucIq(self)
        self.lobbies = Lobbies(self.rooms, config.lobby_domain, config.muc_domain)
        self.visitors = VisitorNodes(config, self.rooms)

    def feed(self, stanza: ET.Element) -> list[ET.Element]:
        """Take a stanza sent to the service, a room or an occupant; ``from`` is the sender's full address."""
        if stanza.tag == PRESENCE:
            return [*self.lobbies.seen(self._presence(stanza)), *self._told_others(stanza)]
        if stanza.tag == MESSAGE:
            return self._message(stanza)
        return self._iq.feed(stanza) if stanza.tag == IQ else []

    def _told_others(self, stanza: ET.Element) -> list[ET.Element]:
        """What the other rooms of the meeting, and a visitor, are told after a presence."""
        address = Jid.parse(stanza.get("to", ""))
        if self.visitors.is_node(address.domain):
            return self.visitors.heard(stanza)
        return self.visitors.mirror(address.bare)

    def user_gone(self, jid: str) -> list[ET.Element]:
        """Take an address out of all rooms: its session has ended."""
        told = []
        for room in list(self.rooms.values()):
            if (occupant := room.by_jid.get(jid)) is not None and self._is_here(room, jid):
                told += [*self.leave(room, occupant), *self.visitors.mirror(room.jid)]
        return told

    def _is_here(self, room: Room, jid: str) -> bool:
        """Whether he came into the room himself: in that of a node he may only be shown."""
        local = Jid.parse(jid).domain != self._config.domain
        return local or not self.visitors.is_node(Jid.parse(room.jid).domain)

    def leave(
        self,
        room: Room,
        occupant: Occupant,
        codes: tuple[str, ...] = (),
        *,
        actor: str | None = None,
        reason: str | None = None,
    ) -> list[ET.Element]:
        """Take an occupant out, and the room down when it is empty then."""
        told = room.left(occupant, codes, actor=actor, reason=reason)
        if not room.occupants:
            self.rooms.pop(room.jid, None)
        return told

    # --- presence ------------------------------------------------------------------------------------------

    def _presence(self, stanza: ET.Element) -> list[ET.Element]:
        target = Jid.parse(stanza.get("to", ""))
        kind = stanza.get("type")
        room = self.rooms.get(target.bare)
        occupant = room.by_jid.get(stanza.get("from", "")) if room is not None else None
        if kind in {"unavailable", "error"}:
            return self.leave(room, occupant) if room is not None and occupant is not None else []
        if kind is not None:
            return []
        if not target.node or not target.resource:
            return [error_reply(stanza, "jid-malformed")]
        if room is not None and occupant is not None:
            return self._update(room, occupant, stanza, target.resource)
        return self._join(room, stanza, target)

    def _update(self, room: Room, occupant: Occupant, stanza: ET.Element, nick: str) -> list[ET.Element]:
        if nick != occupant.nick:
            return [
                error_reply(stanza, "not-allowed", "The nick is the endpoint id and cannot change", by=room.jid)
            ]
        occupant.says(stanza)
        if stanza.find(_MUC_X) is None:
            return room.broadcast(occupant)
        return [*room.occupants_for(occupant), *room.broadcast(occupant), room.subject_for(occupant)]

    def _join(self, room: Room | None, stanza: ET.Element, target: Jid) -> list[ET.Element]:
        x = stanza.find(_MUC_X)
        if x is None:
            return [error_reply(stanza, "item-not-found", "You are not currently connected to this chat")]
        created = room is None
        if room is None and target.domain == self.lobbies.domain:
            room = self.lobbies.create(target, Room(target.bare, self._new_id(), self._wall_clock()))
            if room is None:
                return [error_reply(stanza, "not-allowed", "Room creation is restricted")]
            created = False
        if room is None:
            restricted = self._config.restrict_room_creation or self.visitors.is_node(target.domain)
            if restricted and not self.is_service(stanza.get("from", "")):
                return [error_reply(stanza, "not-allowed", "Room creation is restricted")]
            room = self._create(target)
        refusal = self._refuse(room, stanza, x, target.resource)
        if refusal is not None:
            return [refusal]
        self.rooms[room.jid] = room
        if created:
            room.affiliations[Jid.parse(stanza.get("from", "")).bare] = "owner"
        occupant = room.add(stanza, target.resource, visitor=self._visits(stanza, target))
        return [
            *room.occupants_for(occupant),
            self._metadata(room, occupant),
            *room.broadcast(occupant, ("100", "201") if created else ("100",)),
            room.subject_for(occupant),
        ]

    def _visits(self, stanza: ET.Element, target: Jid) -> bool:
        """Whether it is a visitor who comes: to the room of a node, and by that node's own login."""
        sender = stanza.get("from", "")
        shown = Jid.parse(sender).domain == self._config.domain
        return self.visitors.is_node(target.domain) and not shown and not self.is_service(sender)

    def _create(self, target: Jid) -> Room:
        policy = self._config.rooms.get(target.node, OPEN_ROOM)
        room = Room.from_policy(target.bare, policy, self._new_id(), self._wall_clock())
        room.affiliations.update(dict.fromkeys(self._owners, "owner"))
        return room

    def is_service(self, jid: str) -> bool:
        """Whether the address is the focus, who enters every room."""
        address = Jid.parse(jid)
        return address.bare in self._owners or address.domain in self._owners

    def _refuse(self, room: Room, stanza: ET.Element, x: ET.Element, nick: str) -> ET.Element | None:
        jid = stanza.get("from", "")
        if self.is_service(jid):
            return None
        checks = (
            (room.affiliation(jid) == "outcast", "forbidden"),
            (not _NICK.fullmatch(nick) or nick == FOCUS_NICK, "not-allowed"),
            (room.password not in {None, x.findtext(f"{{{NS_MUC}}}password")}, "not-authorized"),
            (room.members_only and room.affiliation(jid) == "none", "registration-required"),
            (nick in room.occupants, "conflict"),
            (self._full(room), "service-unavailable"),
        )
        condition = next((condition for applies, condition in checks if applies), None)
        if condition == "registration-required":
            return self._lobby(room, stanza)
        return error_reply(stanza, condition, by=room.jid) if condition is not None else None

    def _full(self, room: Room) -> bool:
        guests = sum(not self.is_service(occupant.jid) for occupant in room.occupants.values())
        return room.max_occupants is not None and guests >= room.max_occupants

    def _lobby(self, room: Room, stanza: ET.Element) -> ET.Element:
        lobby = element("lobbyroom", NS_JITMEET, text=self.lobbies.address(room.jid))
        return error_reply(stanza, "registration-required", by=room.jid, details=lobby)

    def _metadata(self, room: Room, occupant: Occupant) -> ET.Element:
        message = ET.Element(MESSAGE, {"to": occupant.jid, "from": f"metadata.{self._config.domain}"})
        payload = json.dumps({"metadata": {}, "type": "room_metadata"}, separators=(",", ":"))
        child(message, "json-message", NS_JITMEET, room=room.jid).text = payload
        return message

    # --- messages ------------------------------------------------------------------------------------------

    def _message(self, stanza: ET.Element) -> list[ET.Element]:
        target = Jid.parse(stanza.get("to", ""))
        room = self.rooms.get(target.bare)
        kind = stanza.get("type")
        if room is None:
            return [] if kind == "error" else [error_reply(stanza, "item-not-found")]
        sender = room.by_jid.get(stanza.get("from", ""))
        if sender is None:
            text = "You are not currently connected to this chat"
            return [] if kind == "error" else [error_reply(stanza, "not-acceptable", text, by=room.jid)]
        if kind == "error":
            return self._message_error(room, sender, stanza)
        if target.resource:
            return [self._private(room, sender, stanza, target.resource)]
        if kind in {None, "normal"}:
            return self.lobbies.invite(room, stanza) or []
        return self._groupchat(room, sender, stanza) if kind == "groupchat" else []

    def _message_error(self, room: Room, sender: Occupant, stanza: ET.Element) -> list[ET.Element]:
        """Who can't be reached any more is taken out."""
        error = stanza.find(f"{{{NS_CLIENT}}}error")
        names = {node.tag.rpartition("}")[2] for node in error} if error is not None else set()
        return self.leave(room, sender, ("333",)) if names & _ERROR_CODES_OF_LOSS else []

    def _groupchat(self, room: Room, sender: Occupant, stanza: ET.Element) -> list[ET.Element]:
        subject = stanza.find(_SUBJECT)
        if subject is not None and stanza.find(_BODY) is None:
            if sender.role != "moderator":
                return [error_reply(stanza, "forbidden", "You are not allowed to change the subject", by=room.jid)]
            room.subject = subject
        return self.visitors.chat(room, sender, room.message_to_all(stanza, sender))

    def _private(self, room: Room, sender: Occupant, stanza: ET.Element, nick: str) -> ET.Element:
        if sender.hidden:
            return error_reply(stanza, "forbidden", "Visitors write to all, not to one", by=room.jid)
        receiver = room.occupants.get(nick)
        if receiver is None:
            return error_reply(stanza, "item-not-found", "Recipient not in room", by=room.jid)
        copy = clone(stanza, **{"from": f"{room.jid}/{sender.nick}", "to": receiver.jid})
        if copy.find(f"{{{NS_MUC_USER}}}x") is None:
            child(copy, "x", NS_MUC_USER)
        return copy
