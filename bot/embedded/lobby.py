"""The lobbies of members-only rooms, as Jitsi's mod_muc_lobby_rooms has them. Pure."""

from __future__ import annotations

from xml.etree import ElementTree as ET

from bot.embedded.rooms import Room
from bot.embedded.stanza import MESSAGE, NS_MUC_USER, PRESENCE, Jid, child

_X = f"{{{NS_MUC_USER}}}x"
_INVITE = f"{{{NS_MUC_USER}}}invite"


class Lobbies:
    """Rooms of the lobby domain: each belongs to the room of the same name, whose owners moderate it.

    ``rooms`` are all rooms by address, those of the lobby among them.
    """

    def __init__(self, rooms: dict[str, Room], domain: str, main_domain: str) -> None:
        self._rooms = rooms
        self.domain = domain
        self._main_domain = main_domain

    def address(self, main_jid: str) -> str:
        """The lobby of a room."""
        return f"{Jid.parse(main_jid).node}@{self.domain}"

    def create(self, target: Jid, room: Room) -> Room | None:
        """Make ``room`` the lobby ``target``; None where its main room has none now."""
        main = self._rooms.get(f"{target.node}@{self._main_domain}")
        if main is None or not main.members_only:
            return None
        room.affiliations = main.affiliations
        return room

    def invite(self, main: Room, stanza: ET.Element) -> list[ET.Element] | None:
        """Admit whom an owner's message names; None for a message that invites nobody."""
        x = stanza.find(_X)
        invites = x.findall(_INVITE) if x is not None else []
        if not invites or main.affiliation(stanza.get("from", "")) != "owner":
            return None
        told = []
        for item in invites:
            guest = item.get("to", "")
            main.affiliations.setdefault(Jid.parse(guest).bare, "member")
            message = ET.Element(MESSAGE, {"from": main.jid, "to": guest})
            child(child(message, "x", NS_MUC_USER), "invite", NS_MUC_USER, **{"from": stanza.get("from", "")})
            told.append(message)
        return told

    def close(self, main: Room) -> list[ET.Element]:
        """Send everybody to the main room: it takes all again."""
        lobby = self._rooms.pop(self.address(main.jid), None)
        if lobby is None:
            return []
        told = []
        for occupant in list(lobby.occupants.values()):
            stanza = ET.Element(
                PRESENCE, {"type": "unavailable", "to": occupant.jid, "from": f"{lobby.jid}/{occupant.nick}"}
            )
            x = child(stanza, "x", NS_MUC_USER)
            child(x, "item", NS_MUC_USER, affiliation="none", role="none")
            child(x, "destroy", NS_MUC_USER, jid=main.jid)
            child(x, "status", NS_MUC_USER, code="110")
            told.append(stanza)
        return told

    def seen(self, stanzas: list[ET.Element]) -> list[ET.Element]:
        """Without the presences of a lobby that only its moderators see."""
        return [stanza for stanza in stanzas if self._sees(stanza)]

    def _sees(self, stanza: ET.Element) -> bool:
        sender = Jid.parse(stanza.get("from", ""))
        if stanza.tag != PRESENCE or sender.domain != self.domain or stanza.get("type") is not None:
            return True
        room = self._rooms.get(sender.bare)
        codes = {item.get("code") for item in stanza.iter(f"{{{NS_MUC_USER}}}status")}
        return room is None or "110" in codes or room.affiliation(stanza.get("to", "")) == "owner"
