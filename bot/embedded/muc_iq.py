"""Requests to rooms and through rooms to their occupants (XEP-0045 sections 8 to 10). Pure."""

from __future__ import annotations

import base64
import binascii
import hashlib
from typing import Protocol
from xml.etree import ElementTree as ET

from bot.embedded.lobby import Lobbies
from bot.embedded.rooms import ROLES, Occupant, Room
from bot.embedded.stanza import (
    NS_DISCO_INFO,
    NS_MUC_ADMIN,
    NS_MUC_OWNER,
    NS_MUC_USER,
    NS_PING,
    PRESENCE,
    Jid,
    child,
    clone,
    error_reply,
    iq_result,
    is_request,
    payload_of,
)

NS_DATA = "jabber:x:data"
_ADMIN = f"{{{NS_MUC_ADMIN}}}query"
_OWNER = f"{{{NS_MUC_OWNER}}}query"
_DISCO = f"{{{NS_DISCO_INFO}}}query"
_PING = f"{{{NS_PING}}}ping"
#: XEP-0045 sections 5.1 and 5.2.
AFFILIATIONS = frozenset({"owner", "admin", "member", "none", "outcast"})
OCCUPANT_ROLES = frozenset({"moderator", "participant", "visitor", "none"})
_ROOM_INFO = "http://jabber.org/protocol/muc#roominfo"


class Rooms(Protocol):
    """The rooms that requests are about, and who leaves them (``MucService``)."""

    rooms: dict[str, Room]
    lobbies: Lobbies

    def is_service(self, jid: str) -> bool:
        """Whether an address is the focus's own, an owner everywhere."""
        ...

    def leave(
        self,
        room: Room,
        occupant: Occupant,
        codes: tuple[str, ...] = (),
        *,
        actor: str | None = None,
        reason: str | None = None,
    ) -> list[ET.Element]:
        """Take an occupant out; returns the stanzas to route."""
        ...


class MucIq:
    """Answers what is asked of rooms, forwards what is asked of occupants."""

    def __init__(self, service: Rooms) -> None:
        self._service = service

    def feed(self, stanza: ET.Element) -> list[ET.Element]:
        """Take an IQ whose ``to`` is in the MUC domain."""
        target = Jid.parse(stanza.get("to", ""))
        if not target.node:
            return self._to_service(stanza)
        room = self._service.rooms.get(target.bare)
        if room is None:
            return [error_reply(stanza, "item-not-found")] if is_request(stanza) else []
        if target.resource:
            return self._to_occupant(room, stanza, target.resource)
        return self._to_room(room, stanza) if is_request(stanza) else []

    def _to_service(self, stanza: ET.Element) -> list[ET.Element]:
        payload = payload_of(stanza)
        if not is_request(stanza):
            return []
        if payload is None or payload.tag != _DISCO:
            return [error_reply(stanza, "service-unavailable")]
        query = ET.Element(_DISCO)
        child(query, "identity", NS_DISCO_INFO, category="conference", type="text", name="Chatrooms")
        for feature in ("http://jabber.org/protocol/muc", NS_DISCO_INFO, "urn:xmpp:occupant-id:0"):
            child(query, "feature", NS_DISCO_INFO, var=feature)
        return [iq_result(stanza, query)]

    # --- to an occupant ------------------------------------------------------------------------------------

    def _to_occupant(self, room: Room, stanza: ET.Element, nick: str) -> list[ET.Element]:
        sender = room.by_jid.get(stanza.get("from", ""))
        request = is_request(stanza)
        if sender is None:
            text = "You are not currently connected to this chat"
            return [error_reply(stanza, "not-acceptable", text, by=room.jid)] if request else []
        if not request:
            return self._answer_back(room, sender, stanza)
        receiver = room.occupants.get(nick)
        if receiver is None:
            return [error_reply(stanza, "item-not-found", "Recipient not in room", by=room.jid)]
        payload = payload_of(stanza)
        if receiver is sender and payload is not None and payload.tag == _PING:
            return [iq_result(stanza)]  # XEP-0410
        origin = f"{room.jid}/{sender.nick}"
        masked = mask_id(receiver.jid, stanza.get("id", ""), sender.jid)
        return [clone(stanza, **{"from": origin, "to": receiver.jid, "id": masked})]

    def _answer_back(self, room: Room, sender: Occupant, stanza: ET.Element) -> list[ET.Element]:
        """Give an answer to who asked: the id that he chose is inside the one that the room made of it."""
        asked = unmask_id(stanza.get("id", ""), sender.jid, [other.jid for other in room.occupants.values()])
        if asked is None:
            return []
        identifier, asker = asked
        return [clone(stanza, **{"from": f"{room.jid}/{sender.nick}", "to": asker, "id": identifier})]

    # --- to the room ---------------------------------------------------------------------------------------

    def _to_room(self, room: Room, stanza: ET.Element) -> list[ET.Element]:
        payload = payload_of(stanza)
        if payload is None:
            return [error_reply(stanza, "bad-request")]
        match (payload.tag, stanza.get("type")):
            case (tag, "get") if tag == _DISCO:
                return [iq_result(stanza, room_info(room, self._service.lobbies.address(room.jid)))]
            case (tag, "set") if tag == _ADMIN:
                return self._administer(room, stanza, payload)
            case (tag, kind) if tag == _OWNER:
                return self._own(room, stanza, payload) if kind == "set" else self._owner_form(room, stanza)
            case (tag, "get") if tag == _PING:
                return [iq_result(stanza)]
        return [error_reply(stanza, "service-unavailable")]

    def _rank(self, room: Room, jid: str) -> str:
        return "owner" if self._service.is_service(jid) else room.affiliation(jid)

    def _administer(self, room: Room, stanza: ET.Element, query: ET.Element) -> list[ET.Element]:
        item = query.find(f"{{{NS_MUC_ADMIN}}}item")
        if item is None:
            return [error_reply(stanza, "bad-request", "<query/> without <item/>")]
        jid = stanza.get("from", "")
        if self._rank(room, jid) not in {"owner", "admin"}:
            return [error_reply(stanza, "forbidden")]
        actor = room.by_jid.get(jid)
        actor_nick = actor.nick if actor is not None else None
        reason = item.findtext(f"{{{NS_MUC_ADMIN}}}reason")
        if item.get("affiliation", "none") not in AFFILIATIONS or item.get("role", "none") not in OCCUPANT_ROLES:
            return [error_reply(stanza, "bad-request", "No such affiliation or role")]
        if item.get("affiliation") is not None:
            told = self._set_affiliation(room, item, actor_nick, reason)
        else:
            told = self._set_role(room, item, actor_nick, reason)
        if told is None:
            return [error_reply(stanza, "item-not-found")]
        return [*told, iq_result(stanza)]

    def _set_affiliation(
        self, room: Room, item: ET.Element, actor: str | None, reason: str | None
    ) -> list[ET.Element] | None:
        bare = Jid.parse(item.get("jid", "")).bare
        by_nick = room.occupants.get(item.get("nick", ""))
        if by_nick is not None:
            bare = Jid.parse(by_nick.jid).bare
        if not bare:
            return None
        affiliation = item.get("affiliation", "")
        room.affiliations[bare] = affiliation
        told = []
        for occupant in [other for other in room.occupants.values() if Jid.parse(other.jid).bare == bare]:
            occupant.affiliation = affiliation
            if affiliation == "outcast":
                told += self._service.leave(room, occupant, ("301",), actor=actor, reason=reason)
            else:
                occupant.role = ROLES.get(affiliation, "participant")
                told += room.changed_by(occupant, actor)
        return told

    def _set_role(
        self, room: Room, item: ET.Element, actor: str | None, reason: str | None
    ) -> list[ET.Element] | None:
        occupant = room.occupants.get(item.get("nick", ""))
        if occupant is None:
            return None
        role = item.get("role", "none")
        if role == "none":
            return self._service.leave(room, occupant, ("307",), actor=actor, reason=reason)
        occupant.role = role
        return room.changed_by(occupant, actor)

    def _own(self, room: Room, stanza: ET.Element, query: ET.Element) -> list[ET.Element]:
        if self._rank(room, stanza.get("from", "")) != "owner":
            return [error_reply(stanza, "forbidden", "Only owners can configure rooms")]
        destroy = query.find(f"{{{NS_MUC_OWNER}}}destroy")
        if destroy is not None:
            return [*self._destroy(room, destroy), iq_result(stanza)]
        for field in query.iter(f"{{{NS_DATA}}}field"):
            _configure(room, field.get("var", ""), field.findtext(f"{{{NS_DATA}}}value") or "")
        told = [] if room.members_only else self._service.lobbies.close(room)
        return [*told, iq_result(stanza)]

    def _owner_form(self, room: Room, stanza: ET.Element) -> list[ET.Element]:
        if self._rank(room, stanza.get("from", "")) != "owner":
            return [error_reply(stanza, "forbidden", "Only owners can configure rooms")]
        query = ET.Element(_OWNER)
        form = child(query, "x", NS_DATA, type="form")
        _field(form, "FORM_TYPE", "hidden", "http://jabber.org/protocol/muc#roomconfig")
        _field(form, "muc#roomconfig_whois", "list-single", "anyone")
        _field(form, "muc#roomconfig_membersonly", "boolean", str(int(room.members_only)))
        _field(form, "muc#roomconfig_roomsecret", "text-private", room.password or "")
        return [iq_result(stanza, query)]

    def _destroy(self, room: Room, destroy: ET.Element) -> list[ET.Element]:
        """Tell everybody that the room is no more (XEP-0045 section 10.9)."""
        self._service.rooms.pop(room.jid, None)
        told = []
        for occupant in list(room.occupants.values()):
            origin = f"{room.jid}/{occupant.nick}"
            stanza = ET.Element(PRESENCE, {"type": "unavailable", "to": occupant.jid, "from": origin})
            x = child(stanza, "x", NS_MUC_USER)
            child(x, "item", NS_MUC_USER, affiliation="none", role="none")
            gone = child(x, "destroy", NS_MUC_USER)
            if alternative := destroy.get("jid"):
                gone.set("jid", alternative)
            if reason := destroy.findtext(f"{{{NS_MUC_OWNER}}}reason"):
                child(gone, "reason", NS_MUC_USER).text = reason
            child(x, "status", NS_MUC_USER, code="110")
            told.append(stanza)
            room.remove(occupant)
        return told


def _configure(room: Room, name: str, value: str) -> None:
    """Take one field of the room's configuration; unknown ones are ignored."""
    if name == "muc#roomconfig_roomsecret":
        room.password = value or None
    elif name == "muc#roomconfig_membersonly":
        room.members_only = value in {"1", "true"}
    elif name == "muc#roomconfig_maxusers" and value.isdecimal():
        room.max_occupants = int(value)


def _digest(jid: str) -> bytes:
    return hashlib.sha256(jid.encode()).digest()[:8]


def mask_id(receiver: str, identifier: str, asker: str) -> str:
    """Id under which a request goes on to an occupant, as Prosody makes it: ids of two askers can't collide."""
    return base64.b64encode(f"{receiver}\0{identifier}\0".encode() + _digest(asker)).decode()


def unmask_id(masked: str, receiver: str, askers: list[str]) -> tuple[str, str] | None:
    """The asker's own id and his address, None if the id is none of ours."""
    try:
        raw = base64.b64decode(masked, validate=True)
        jid, identifier = raw[:-9].decode().split("\0", 1)
    except (binascii.Error, ValueError):
        return None
    if jid != receiver:
        return None
    return next(((identifier, asker) for asker in askers if _digest(asker) == raw[-8:]), None)


def _field(form: ET.Element, name: str, kind: str, value: str | None = None, label: str | None = None) -> None:
    attributes = {"var": name, "type": kind} | ({"label": label} if label else {})
    field = child(form, "field", NS_DATA, **attributes)
    if value is not None:
        child(field, "value", NS_DATA).text = value or None


def room_info(room: Room, lobby: str = "") -> ET.Element:
    """disco#info of a room (XEP-0045 section 6.4) with Jitsi's meeting id; ``lobby`` is its lobby's address."""
    query = ET.Element(_DISCO)
    features = (
        "http://jabber.org/protocol/muc#request",
        "jabber:iq:register",
        "muc_nonanonymous",
        "muc_passwordprotected" if room.password is not None else "muc_unsecured",
        "muc_unmoderated",
        "muc_membersonly" if room.members_only else "muc_open",
        "urn:xmpp:occupant-id:0",
        "muc_hidden",
        "http://jabber.org/protocol/muc",
        "http://jabber.org/protocol/muc#stable_id",
        "http://jabber.org/protocol/muc#self-ping-optimization",
        "muc_temporary",
    )
    for feature in features:
        child(query, "feature", NS_DISCO_INFO, var=feature)
    child(query, "identity", NS_DISCO_INFO, category="conference", type="text")
    form = child(query, "x", NS_DATA, type="result")
    _field(form, "FORM_TYPE", "hidden", _ROOM_INFO)
    created = str(int(room.created * 1000))
    _field(form, "muc#roominfo_meetingId", "text-single", room.meeting_id, "The meeting unique id.")
    _field(form, "muc#roominfo_created_timestamp", "text-single", created, "The meeting created_timestamp.")
    _field(form, "muc#roominfo_occupants", "text-single", str(len(room.occupants)), "Number of occupants")
    if room.members_only and lobby:
        _field(form, "muc#roominfo_lobbyroom", "text-single", lobby, "Lobby room jid")
    invites = "{http://prosody.im/protocol/muc}roomconfig_allowmemberinvites"
    _field(form, invites, "boolean", "0", "Allow members to invite new members")
    _field(form, "muc#roomconfig_allowinvites", "boolean", "1", "Allow users to invite other users")
    _field(form, "muc#roomconfig_roomname", "text-single", None, "Title")
    _field(form, "muc#roominfo_description", "text-single", "", "Description")
    _field(form, "muc#roomconfig_changesubject", "boolean")
    _field(form, "muc#roominfo_lang", "text-single", "en")
    return query
