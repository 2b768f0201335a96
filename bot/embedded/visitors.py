"""Visitor nodes: servers of their own in real deployments, here further domains of the same one. Pure.

After Jitsi's Prosody modules ``visitors``, ``visitors_component`` and ``fmuc``: who is in the main room is shown
in the room of the same name on each node that the focus connected, chat goes both ways, and a visitor who raises
the hand is let into the main room.
"""

from __future__ import annotations

import uuid
from xml.etree import ElementTree as ET

from bot.embedded.config import EmbeddedConfig
from bot.embedded.rooms import Occupant, Room
from bot.embedded.stanza import (
    IQ,
    NS_CLIENT,
    NS_MUC,
    PRESENCE,
    Jid,
    child,
    clone,
    element,
    error_reply,
    iq_result,
    payload_of,
)

NS_VISITORS = "jitsi:visitors"
#: The component that the focus tells which nodes it uses.
SUB_DOMAIN = "visitors"
_VISITORS = f"{{{NS_VISITORS}}}visitors"
_HAND = f"{{{NS_CLIENT}}}jitsi_participant_raisedHand"
_NICK = "{http://jabber.org/protocol/nick}nick"
_DISPLAY_NAME = "http://jitsi.org/protocol/display-name"


def node_order(order: str, room: str, node: str) -> ET.Element:
    """What the focus asks of the component: ``connect-vnode`` or ``disconnect-vnode``."""
    visitors = element("visitors", NS_VISITORS, {"room": room})
    child(visitors, order, NS_VISITORS, vnode=node)
    return visitors


class VisitorNodes:
    """The rooms of the nodes beside the main ones, in ``rooms`` by address. Methods return stanzas to route."""

    def __init__(self, config: EmbeddedConfig, rooms: dict[str, Room]) -> None:
        self._config = config
        self._rooms = rooms
        #: What each connected room of a node was told, by its address: the presence of each main occupant by nick.
        self._shown: dict[str, dict[str, tuple[Occupant, list[ET.Element]]]] = {}
        #: Names of logins that a promoted visitor may use once.
        self._promoted: set[str] = set()

    def login(self, username: str) -> str | None:
        """The user name that a promoted visitor has, None for what nobody was promised."""
        if username not in self._promoted:
            return None
        self._promoted.discard(username)
        return username

    def is_node(self, domain: str) -> bool:
        """Whether ``domain`` has the rooms of a node."""
        return domain in self._config.node_muc_domains.values()

    # --- the component -------------------------------------------------------------------------------------

    def order(self, stanza: ET.Element) -> list[ET.Element]:
        """Take an order of the focus."""
        payload = payload_of(stanza)
        if payload is None or payload.tag != _VISITORS or len(payload) == 0:
            return [error_reply(stanza, "service-unavailable")]
        main = Jid.parse(payload.get("room", ""))
        muc = self._config.node_muc_domains.get(payload[0].get("vnode", ""))
        if muc is None:
            return [error_reply(stanza, "item-not-found", "No such visitor node")]
        address = f"{main.node}@{muc}"
        if payload[0].tag == f"{{{NS_VISITORS}}}connect-vnode":
            self._shown.setdefault(address, {})
            return [iq_result(stanza), *self.mirror(main.bare)]
        self._shown.pop(address, None)
        return [iq_result(stanza)]

    # --- from the main room to the nodes -------------------------------------------------------------------

    def mirror(self, main: str) -> list[ET.Element]:
        """Show in the rooms of the nodes who is in the main room by now."""
        node = Jid.parse(main).node
        told: list[ET.Element] = []
        for address, shown in self._shown.items():
            if Jid.parse(address).node == node:
                told += self._show(address, shown, self._rooms.get(main))
        return told

    def _show(
        self, address: str, shown: dict[str, tuple[Occupant, list[ET.Element]]], main: Room | None
    ) -> list[ET.Element]:
        present = {} if main is None else {o.nick: o for o in main.occupants.values() if not self._is_focus(o)}
        told: list[ET.Element] = []
        for nick, (occupant, _) in list(shown.items()):
            if present.get(nick) is not occupant:
                attributes = {"type": "unavailable", "from": occupant.jid, "to": f"{address}/{nick}"}
                told.append(ET.Element(PRESENCE, attributes))
                del shown[nick]
        for nick, occupant in present.items():
            if nick not in shown or shown[nick][1] is not occupant.presence:
                told.append(_shown_to(address, occupant, join=nick not in shown))
                shown[nick] = occupant, occupant.presence
        return told

    def _is_focus(self, occupant: Occupant) -> bool:
        return Jid.parse(occupant.jid).bare == Jid.parse(self._config.focus_jid).bare

    # --- from a node ---------------------------------------------------------------------------------------

    def heard(self, stanza: ET.Element) -> list[ET.Element]:
        """Pass on what a visitor said in the room of a node, after the room took it."""
        target, sender = Jid.parse(stanza.get("to", "")), Jid.parse(stanza.get("from", ""))
        room = self._rooms.get(target.bare)
        visitor = room.by_jid.get(str(sender)) if room is not None else None
        if room is None or visitor is None or not visitor.hidden:
            return []
        if stanza.tag == PRESENCE and (stanza.findtext(_HAND) or "0") not in {"", "0"}:
            return [self._promote(room, visitor)]
        return []

    def _promote(self, room: Room, visitor: Occupant) -> ET.Element:
        """Let a visitor in, as docker-jitsi-meet does it by default, or refuse where the configuration says so."""
        allowed = self._config.promote_visitors
        username = str(uuid.uuid4())
        if allowed:
            self._promoted.add(username)
        iq = ET.Element(IQ, {"type": "set", "id": username, "from": room.jid, "to": visitor.jid})
        focus = Jid.parse(self._config.focus_jid).bare
        visitors = child(iq, "visitors", NS_VISITORS, room=room.jid, focusjid=focus)
        answer = {"jid": visitor.jid, "username": username, "allow": "true" if allowed else "false"}
        child(visitors, "promotion-response", NS_VISITORS, **answer)
        return iq

    # --- chat ----------------------------------------------------------------------------------------------

    def chat(self, room: Room, sender: Occupant, told: list[ET.Element]) -> list[ET.Element]:
        """The copies of a message to all that ``room`` wants to send, and those for the meeting's other rooms."""
        address = Jid.parse(room.jid)
        if not self.is_node(address.domain):
            return [*told, *(copy for node in self._nodes_of(room) for copy in _from(node, sender.nick, told))]
        local = [copy for copy in told if not self._is_main(copy.get("to", ""))]
        named = [_named(copy, sender) for copy in local]
        main = self._rooms.get(f"{address.node}@{self._config.muc_domain}")
        return [*named, *(_from_visitor(main, named[0]) if main is not None and named else [])]

    def _is_main(self, jid: str) -> bool:
        return Jid.parse(jid).domain == self._config.domain

    def _nodes_of(self, main: Room) -> list[Room]:
        found = [
            self._rooms.get(f"{Jid.parse(main.jid).node}@{muc}") for muc in self._config.node_muc_domains.values()
        ]
        return [room for room in found if room is not None and room.jid in self._shown]


def _shown_to(address: str, occupant: Occupant, *, join: bool) -> ET.Element:
    stanza = ET.Element(
        PRESENCE, {**occupant.attributes, "from": occupant.jid, "to": f"{address}/{occupant.nick}"}
    )
    stanza.extend(occupant.presence)
    if join:
        child(stanza, "x", NS_MUC)
    return stanza


def _from(node: Room, nick: str, told: list[ET.Element]) -> list[ET.Element]:
    """The message of a main occupant, as the visitors of ``node`` get it."""
    if not told:
        return []
    visitors = [occupant for occupant in node.occupants.values() if occupant.hidden]
    return [clone(told[0], **{"from": f"{node.jid}/{nick}", "to": visitor.jid}) for visitor in visitors]


def _named(message: ET.Element, visitor: Occupant) -> ET.Element:
    """``message`` with the name that nobody could know otherwise: visitors are not shown."""
    name = next((node.text or "" for node in visitor.presence if node.tag == _NICK), "anonymous")
    for node in message.findall(_NICK):
        message.remove(node)
    ET.SubElement(message, _NICK).text = name
    child(message, "display-name", _DISPLAY_NAME, source="visitor").text = name
    return message


def _from_visitor(main: Room, message: ET.Element) -> list[ET.Element]:
    """A visitor's message as the main room passes it on: from the room itself."""
    return [clone(message, **{"from": main.jid, "to": occupant.jid}) for occupant in main.occupants.values()]
