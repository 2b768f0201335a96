"""The embedded server's visitor nodes, without sockets: who orders them, who enters, what the focus refuses."""

from __future__ import annotations

from xml.etree import ElementTree as ET

import pytest

from bot.embedded.config import EmbeddedConfig
from bot.embedded.orders import FocusConfig
from bot.embedded.stanza import error_reply, parse_frame
from bot.embedded.visitors import node_order
from bot.jingle.model import Action
from tests.embedded_support import AUTH, BIND, ROOM, Client, World, condition, item, local
from tests.test_embedded_focus import MODERN, ONE, TWO, Stage, iqs, jingles, refused, stanzas

NODES = {"v0": "muc.v0.meet.jitsi", "v1": "muc.v1.meet.jitsi"}
NODE_ROOM = "room@muc.v0.meet.jitsi"
FOCUS = "focus@auth.meet.jitsi/focus"
CONFIG = EmbeddedConfig(visitor_nodes=("v0", "v1"))


def visitor(world: World, nick: str = "vis") -> Client:
    """A client of the node v0, in the room there."""
    client = Client(world)
    world.core.lost(client.number, 0.0)
    client.number = world.core.connect("v0")
    world.clients[client.number] = client
    opening = '<open xmlns="urn:ietf:params:xml:ns:xmpp-framing" to="v0.meet.jitsi" version="1.0"/>'
    client.jid = client.send(opening, AUTH, opening, BIND)[-1].findtext(".//{*}jid") or ""
    assert client.jid.partition("@")[2].startswith("v0.meet.jitsi/")
    client.join(nick, NODE_ROOM)
    return client


def focus_sends(world: World, stanza: ET.Element, to: str) -> list[ET.Element]:
    """What the focus's stanza brings it in answer."""
    stanza.attrib.update({"from": FOCUS, "to": to})
    before = len(world.to_focus)
    world.take(world.core.send(stanza))
    return world.to_focus[before:]


def enters() -> ET.Element:
    return parse_frame('<presence xmlns="jabber:client"><x xmlns="http://jabber.org/protocol/muc"/></presence>')


def order(name: str, node: str = "v0") -> ET.Element:
    iq = ET.Element("{jabber:client}iq", {"type": "get", "id": "o1"})
    iq.append(node_order(name, ROOM, node))
    return iq


@pytest.fixture
def world() -> World:
    """A server whose focus has entered the room and its twin at the node, and connected the two."""
    found = World(CONFIG, focus=True)
    for room in (ROOM, NODE_ROOM):
        focus_sends(found, enters(), f"{room}/focus")
    [answer] = focus_sends(found, order("connect-vnode"), "visitors.meet.jitsi")
    assert answer.get("type") == "result"
    return found


def test_a_node_has_its_own_login_and_room(world: World) -> None:
    main = world.joined("main")
    one, two = visitor(world, "one"), visitor(world, "two")
    assert [occupant.role for occupant in world.core.muc.rooms[NODE_ROOM].occupants.values()] == [
        "moderator",
        "participant",
        "visitor",
        "visitor",
    ]
    assert one.take() == []  # nobody is told of the other visitor
    seen = {presence.get("from", "").partition("/")[2] for presence in two.got if local(presence) == "presence"}
    assert seen == set()
    assert main.take() == []
    assert world.core.sessions[0].partition("@")[2].startswith("meet.jitsi/")


def test_the_focus_hears_of_visitors_and_their_leaving(world: World) -> None:
    one = visitor(world)
    [joined] = [stanza for stanza in world.to_focus if stanza.get("from") == f"{NODE_ROOM}/vis"]
    assert item(joined).get("role") == "visitor"
    one.lost()
    assert world.to_focus[-1].get("type") == "unavailable"


def test_who_is_in_the_main_room_is_shown_until_the_node_is_disconnected(world: World) -> None:
    main, one = world.joined("main"), visitor(world)
    main.send(f'<presence xmlns="jabber:client" to="{ROOM}/main"><stats-id>new</stats-id></presence>')
    [update] = one.take()
    assert (update.get("from"), update.findtext("{*}stats-id")) == (f"{NODE_ROOM}/main", "new")
    [answer] = focus_sends(world, order("disconnect-vnode"), "visitors.meet.jitsi")
    assert answer.get("type") == "result"
    main.send(f'<presence xmlns="jabber:client" to="{ROOM}/main" type="unavailable"/>')
    assert one.take() == []


def test_only_the_focus_orders_and_only_what_there_is(world: World) -> None:
    main = world.joined("main")
    payload = f'<visitors xmlns="jitsi:visitors" room="{ROOM}"><connect-vnode vnode="v1"/></visitors>'
    [answer] = main.iq("get", "visitors.meet.jitsi", payload)
    assert condition(answer) == ("auth", "forbidden")
    [answer] = focus_sends(world, order("connect-vnode", "v7"), "visitors.meet.jitsi")
    assert condition(answer) == ("cancel", "item-not-found")
    ping = parse_frame('<iq xmlns="jabber:client" type="get" id="p"><ping xmlns="urn:xmpp:ping"/></iq>')
    [answer] = focus_sends(world, ping, "visitors.meet.jitsi")
    assert condition(answer) == ("cancel", "service-unavailable")


def test_nobody_but_the_focus_makes_a_room_at_a_node() -> None:
    world = World(CONFIG, focus=True)
    one = visitor(world)
    assert NODE_ROOM not in world.core.muc.rooms
    [answer] = one.join("vis", NODE_ROOM)
    assert condition(answer) == ("cancel", "not-allowed")


def test_a_visitor_writes_to_all_and_not_to_one(world: World) -> None:
    main, one = world.joined("main"), visitor(world)
    main.take()
    body = "<body>hi</body><nick xmlns='http://jabber.org/protocol/nick'>forged</nick>"
    [echo] = one.send(f'<message xmlns="jabber:client" type="groupchat" to="{NODE_ROOM}">{body}</message>')
    [heard] = main.take()
    assert (echo.get("from"), heard.get("from")) == (f"{NODE_ROOM}/vis", ROOM)
    for message in (echo, heard):
        assert [node.text for node in message.findall("{http://jabber.org/protocol/nick}nick")] == ["anonymous"]
        [name] = message.findall("{http://jitsi.org/protocol/display-name}display-name")
        assert (name.get("source"), name.text) == ("visitor", "anonymous")
    [answer] = one.send(
        f'<message xmlns="jabber:client" type="chat" to="{NODE_ROOM}/main"><body>x</body></message>'
    )
    assert condition(answer) == ("auth", "forbidden")


def test_a_promised_name_counts_once(world: World) -> None:
    one = visitor(world)
    hand = "<jitsi_participant_raisedHand>1</jitsi_participant_raisedHand>"
    got = one.send(f'<presence xmlns="jabber:client" to="{NODE_ROOM}/vis">{hand}</presence>')
    [answer] = [node for stanza in got for node in stanza.iter("{jitsi:visitors}promotion-response")]
    username = answer.get("username", "")
    users = []
    for _ in range(2):
        client = Client(world)
        client.number = world.core.connect(None, username)
        world.clients[client.number] = client
        opening = '<open xmlns="urn:ietf:params:xml:ns:xmpp-framing" to="meet.jitsi" version="1.0"/>'
        jid = client.send(opening, AUTH, opening, BIND)[-1].findtext(".//{*}jid") or ""
        users.append(jid.partition("@")[0])
    assert users[0] == username != users[1]


# --- the focus ---------------------------------------------------------------------------------------------


class Nodes(Stage):
    """A focus with two visitor nodes and place for one participant."""

    def __init__(self) -> None:
        super().__init__(FocusConfig(node_muc_domains=NODES, max_participants=1))

    def request_by(self, **properties: str) -> str | None:
        """The visitor node that the answer names."""
        inner = "".join(f'<property name="{name}" value="{value}"/>' for name, value in properties.items())
        found = self.feed(
            f'<iq type="set" id="c2" from="b@meet.jitsi/r" to="focus.meet.jitsi">'
            f'<conference xmlns="http://jitsi.org/protocol/focus" room="{ROOM}">'
            f"{inner.replace('visitors_version', 'visitors-version')}</conference></iq>"
        )
        return stanzas(found)[-1][0].get("vnode")

    def visit(self, nick: str, muc: str = NODES["v0"], role: str = "visitor", kind: str = "") -> list[ET.Element]:
        return iqs(
            self.feed(
                f'<presence from="room@{muc}/{nick}" to="{FOCUS}"{kind}>'
                f'<x xmlns="http://jabber.org/protocol/muc#user"><item affiliation="none" role="{role}" '
                f'jid="{nick}@v0.meet.jitsi/r"/></x></presence>'
            )
        )


def test_who_is_sent_to_a_node() -> None:
    stage = Nodes()
    assert stage.request_by(visitors_version="1") is None
    stage.enter("one")
    assert stage.request_by() is None  # full, but he does not know visitors
    assert stage.request_by(visitors_version="1") == "v0"
    stage.visit("vis")
    assert stage.request_by(visitors_version="1") == "v1"
    stage.leave("one")
    assert stage.focus.conferences == {}
    stage.ask()
    assert stage.request_by(visitors_version="1", visitor="true") == "v0"


def test_a_visitor_gets_a_session_and_may_name_no_sources() -> None:
    stage = Nodes()
    stage.enter("one")
    stage.request_by(visitors_version="1")
    assert stage.visit("shown", role="participant") == []
    [question] = stage.visit("vis")
    assert question.get("to") == f"{NODE_ROOM}/vis"
    offers = jingles(stage.opened(*stage.answer(question, *MODERN)))
    assert sorted(nick for nick, _ in offers) == ["one", "vis"]
    stage.accept("one", ONE)
    assert refused(stage.accept("vis", TWO)) == ("auth", "forbidden")
    assert not stage.member("vis").active
    stage.accept("vis")
    assert stage.member("vis").active
    assert refused(stage.jingle("vis", Action.SOURCE_ADD, TWO)) == ("auth", "forbidden")
    # The main participant's twin at the node goes with him there; that is not his leaving.
    stage.visit("one", kind=' type="unavailable"')
    assert set(stage.conference.members) == {"one", "vis"}
    assert stage.conference.members["vis"].owner_at is None
    stage.visit("vis", kind=' type="unavailable"')
    assert set(stage.conference.members) == {"one"}


def test_the_end_is_told_to_each_node() -> None:
    stage = Nodes()
    stage.enter("one")
    stage.request_by(visitors_version="1")
    stage.visit("vis")
    said = stanzas(stage.leave("one"))
    assert [(local(stanza), stanza.get("to")) for stanza in said if local(stanza) == "presence"] == [
        ("presence", f"{NODE_ROOM}/focus"),
        ("presence", f"{ROOM}/focus"),
    ]
    orders = [local(stanza[0][0]) for stanza in said if local(stanza) == "iq"]
    assert orders == ["disconnect-vnode", "destroy"]
    assert stage.feed(ET.tostring(error_reply(said[0], "item-not-found"), encoding="unicode")) == []
