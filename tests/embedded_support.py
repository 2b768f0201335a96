"""Clients of the embedded XMPP core, without sockets: frames go in as text, come out as elements."""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from xml.etree import ElementTree as ET

from bot.embedded.config import EmbeddedConfig
from bot.embedded.core import Close, Failed, Output, ToFocus, Write, XmppCore
from bot.embedded.stanza import NS_STANZAS, parse_frame

OPEN = '<open xmlns="urn:ietf:params:xml:ns:xmpp-framing" to="meet.jitsi" version="1.0"/>'
AUTH = '<auth xmlns="urn:ietf:params:xml:ns:xmpp-sasl" mechanism="ANONYMOUS"/>'
BIND = '<iq type="set" id="b1" xmlns="jabber:client"><bind xmlns="urn:ietf:params:xml:ns:xmpp-bind"/></iq>'
ENABLE = '<enable xmlns="urn:xmpp:sm:3" resume="true"/>'
SM = "{urn:xmpp:sm:3}"
MUC_USER = "{http://jabber.org/protocol/muc#user}"
ROOM = "room@muc.meet.jitsi"


def local(element: ET.Element) -> str:
    """Name without its namespace."""
    return element.tag.rpartition("}")[2]


def condition(stanza: ET.Element) -> tuple[str, str]:
    """Type and condition of a stanza error."""
    error = stanza[-1]
    assert local(error) == "error", ET.tostring(stanza)
    [found] = [node for node in error if node.tag.startswith(f"{{{NS_STANZAS}}}") and local(node) != "text"]
    return error.get("type", ""), local(found)


def codes(presence: ET.Element) -> list[str]:
    """Status codes of a room's presence."""
    return [status.get("code", "") for status in presence.iter(f"{MUC_USER}status")]


def item(presence: ET.Element) -> ET.Element:
    """The item of a room's presence."""
    return next(presence.iter(f"{MUC_USER}item"))


class World:
    """One core with its clients. What the core sends waits with the client it is for."""

    def __init__(self, config: EmbeddedConfig | None = None, *, focus: bool = False) -> None:
        numbers = itertools.count(1)
        self.core = XmppCore(config or EmbeddedConfig(), new_id=lambda: f"{next(numbers):08x}-0000-4000")
        self.core.focus_attached = focus
        self.clients: dict[int, Client] = {}
        self.failed: list[Failed] = []
        self.to_focus: list[ET.Element] = []

    def take(self, outputs: Sequence[Output]) -> None:
        """Hand the core's outputs to whom they concern."""
        for output in outputs:
            match output:
                case Write(connection, text):
                    assert not self.clients[connection].closed, f"written after the end: {text}"
                    self.clients[connection].got.append(parse_frame(text))
                case Close(connection):
                    self.clients[connection].closed = True
                case ToFocus(stanza):
                    self.to_focus.append(stanza)
                case Failed():
                    self.failed.append(output)

    def client(self) -> Client:
        """A new WebSocket."""
        return Client(self)

    def bound(self, *, managed: bool = False) -> Client:
        """A client that has bound a resource, with stream management if asked for."""
        client = self.client()
        client.jid = client.send(OPEN, AUTH, OPEN, BIND)[-1].findtext(".//{*}jid") or ""
        if managed:
            [enabled] = client.send(ENABLE)
            client.stream = enabled.get("id", "")
        return client

    def joined(self, nick: str, room: str = ROOM, x: str = "") -> Client:
        """A client in a room; what it was told at the join is taken."""
        client = self.bound()
        client.join(nick, room, x)
        return client

    def drain(self) -> None:
        """Forget what waits with all clients."""
        for client in self.clients.values():
            client.take()


class Client:
    """One WebSocket."""

    def __init__(self, world: World) -> None:
        self.world = world
        self.number = world.core.connect()
        self.got: list[ET.Element] = []
        self.closed = False
        self.jid = ""
        self.stream = ""
        world.clients[self.number] = self

    def take(self) -> list[ET.Element]:
        """What has come since the last time."""
        got, self.got = self.got, []
        return got

    def send(self, *frames: str) -> list[ET.Element]:
        """Send frames; returns what came for this client."""
        for frame in frames:
            self.world.take(self.world.core.feed(self.number, frame))
        return self.take()

    def iq(self, kind: str, to: str | None, payload: str = "", identifier: str = "i1") -> list[ET.Element]:
        """Send an IQ."""
        address = f' to="{to}"' if to is not None else ""
        return self.send(f'<iq xmlns="jabber:client" type="{kind}" id="{identifier}"{address}>{payload}</iq>')

    def join(self, nick: str, room: str = ROOM, x: str = "") -> list[ET.Element]:
        """Send a join presence."""
        return self.send(
            f'<presence xmlns="jabber:client" to="{room}/{nick}">'
            f'<x xmlns="http://jabber.org/protocol/muc">{x}</x><stats-id>{nick}</stats-id></presence>'
        )

    def lost(self, now: float = 0.0) -> None:
        """Cut the connection."""
        self.closed = True
        self.world.take(self.world.core.lost(self.number, now))
