"""What the domain answers, and where stanzas go (RFC 6120 sections 8 and 10, XEP-0030, 0199)."""

from __future__ import annotations

import pytest

from bot.embedded.stanza import parse_frame
from tests.embedded_support import ROOM, World, condition, local

DISCO = '<query xmlns="http://jabber.org/protocol/disco#info"/>'
PING = '<ping xmlns="urn:xmpp:ping"/>'
FOCUS = "focus.meet.jitsi"


@pytest.mark.parametrize("to", ["meet.jitsi", None, "MEET.jitsi"])
@pytest.mark.parametrize("payload", [PING, '<session xmlns="urn:ietf:params:xml:ns:xmpp-session"/>'])
def test_ping_and_session_are_answered_empty(to: str | None, payload: str) -> None:
    [answer] = World().bound().iq("get", to, payload)
    assert (answer.get("type"), answer.get("id"), len(answer)) == ("result", "i1", 0)


def test_the_domain_lists_its_components() -> None:
    [answer] = World().bound().iq("get", "meet.jitsi", DISCO)
    kinds = {identity.get("type"): identity.get("name") for identity in answer[0] if local(identity) == "identity"}
    assert kinds["lobbyrooms"] == "lobby.meet.jitsi"
    assert kinds["im"] == "Prosody"
    assert len(kinds) == 9
    assert "urn:xmpp:ping" in {feature.get("var") for feature in answer[0]}


def test_its_version_says_that_it_is_embedded() -> None:
    [answer] = World().bound().iq("get", "meet.jitsi", '<query xmlns="jabber:iq:version"/>')
    assert [node.text for node in answer[0]] == ["Prosody", "embedded"]


@pytest.mark.parametrize(
    ("kind", "to", "payload", "wanted"),
    [
        ("get", "meet.jitsi", "", "bad-request"),
        ("set", "meet.jitsi", DISCO, "service-unavailable"),
        ("get", "meet.jitsi", '<services xmlns="urn:xmpp:extdisco:2"/>', "service-unavailable"),
        ("get", "lobby.meet.jitsi", PING, "service-unavailable"),
        ("get", "lobby.meet.jitsi", "", "service-unavailable"),
        ("set", "lobby.meet.jitsi", DISCO, "service-unavailable"),
        ("get", "other.example", PING, "service-unavailable"),
        ("get", "nowhere.meet.jitsi", PING, "service-unavailable"),
        ("get", "x@meet.jitsi/y", PING, "service-unavailable"),
        ("get", FOCUS, PING, "service-unavailable"),
        ("get", "focus@auth.meet.jitsi/focus", PING, "service-unavailable"),
        ("bad", "meet.jitsi", PING, "bad-request"),
        ("get", f"{'r' * 1024}@muc.meet.jitsi", PING, "jid-malformed"),
    ],
)
def test_requests_that_nobody_serves(kind: str, to: str, payload: str, wanted: str) -> None:
    [answer] = World().bound().iq(kind, to, payload)
    assert condition(answer)[1] == wanted
    assert answer.get("id") == "i1"


def test_an_iq_needs_an_id() -> None:
    [answer] = World().bound().send(f"<iq xmlns='jabber:client' type='get' to='meet.jitsi'>{PING}</iq>")
    assert condition(answer) == ("modify", "bad-request")


def test_components_answer_disco_with_its_node() -> None:
    client = World().bound()
    query = DISCO.replace("/>", ' node="breakout_rooms"/>')
    [answer] = client.iq("get", "breakout.meet.jitsi", query)
    assert answer[0].get("node") == "breakout_rooms"
    assert [feature.get("var") for feature in answer[0]] == ["http://jitsi.org/protocol/breakout_rooms#rename"]
    [answer] = client.iq("get", "lobby.meet.jitsi", DISCO)
    assert (answer[0].get("node"), len(answer[0])) == (None, 0)


@pytest.mark.parametrize(
    "frame",
    [
        '<message xmlns="jabber:client" to="speakerstats.meet.jitsi"><speakerstats xmlns="http://jitsi.org/jitmeet"/></message>',
        '<message xmlns="jabber:client" to="other.example"><body>x</body></message>',
        '<message xmlns="jabber:client" to="nobody@meet.jitsi/x"><body>x</body></message>',
        '<message xmlns="jabber:client"><body>x</body></message>',
        '<presence xmlns="jabber:client"/>',
        '<presence xmlns="jabber:client" to="focus.meet.jitsi"/>',
        '<iq xmlns="jabber:client" type="result" id="1" to="meet.jitsi"/>',
        '<iq xmlns="jabber:client" type="error" id="1" to="muc.meet.jitsi"/>',
        '<iq xmlns="jabber:client" type="result" id="1" to="nowhere@muc.meet.jitsi/x"/>',
    ],
)
def test_what_is_taken_and_not_answered(frame: str) -> None:
    client = World().bound()
    assert client.send(frame) == []
    assert not client.closed


def test_a_stanza_goes_to_the_session_it_names() -> None:
    world = World()
    one, two = world.bound(), world.bound()
    one.send(f'<message xmlns="jabber:client" to="{two.jid}" from="forged@meet.jitsi/x"><body>hi</body></message>')
    [message] = two.take()
    assert (message.get("from"), message.findtext("{*}body")) == (one.jid, "hi")


def test_a_stanza_for_a_lost_connection_waits_without_being_written() -> None:
    world = World()
    one, two = world.bound(), world.bound(managed=True)
    two.lost()
    one.send(f'<message xmlns="jabber:client" to="{two.jid}"><body>hi</body></message>')
    assert two.take() == []


def test_unavailable_presence_without_an_address_leaves_all_rooms_and_comes_back() -> None:
    world = World()
    watcher, one = world.joined("watcher"), world.joined("one")
    watcher.take()
    own, left = one.send('<presence xmlns="jabber:client" type="unavailable"/>')
    assert left.get("from") == f"{ROOM}/one"
    assert (own.get("from"), own.get("type")) == (one.jid, "unavailable")
    [seen] = watcher.take()
    assert seen.get("type") == "unavailable"


def test_an_attached_focus_gets_what_is_sent_to_its_addresses() -> None:
    world = World(focus=True)
    client = world.bound()
    assert client.iq("get", FOCUS, PING) == []
    client.send('<message xmlns="jabber:client" to="focus@auth.meet.jitsi/focus"/>')
    assert [local(stanza) for stanza in world.to_focus] == ["iq", "message"]
    assert world.to_focus[0].get("from") == client.jid
    answer = f'<iq type="result" id="i1" from="{FOCUS}" to="{client.jid}"/>'
    world.take(world.core.send(parse_frame(answer)))
    assert [local(stanza) for stanza in client.take()] == ["iq"]
