"""Visitor nodes: where the focus redirects to, how one connects there, and the way back into the main room."""

import xml.etree.ElementTree as ET

import pytest

from bot.errors import VisitorRedirectError
from bot.participant.config import expand
from bot.participant.entrance import MAIN, Entrance, redirected
from bot.settings import load
from bot.xmpp.address import redact, xmpp_websocket_url
from bot.xmpp.focus import parse_answer
from bot.xmpp.occupants import read_occupant
from bot.xmpp.visitors import (
    VISITORS,
    PromotionAnswer,
    VisitorNode,
    main_room_url,
    read_promotion,
    visitor_node,
    with_parameter,
)
from tests.recordings import dialogue

REDIRECT = VisitorRedirectError("The focus redirects", vnode="v0")


@pytest.mark.parametrize(
    ("domain", "muc_domain", "expected"),
    [
        ("meet.jitsi", "muc.meet.jitsi", "muc.v0.meet.jitsi"),
        ("meet.example.com", "conference.meet.example.com", "conference.v0.meet.jitsi"),
        ("meet.example.com", "a.b.meet.example.com", "a.b.v0.meet.jitsi"),
        ("meet.example.com", "rooms.example.org", "rooms.v0.meet.jitsi"),
    ],
)
def test_the_rooms_of_a_node_have_the_prefix_of_the_main_ones(domain: str, muc_domain: str, expected: str) -> None:
    """Web clients replace the domain in that of the rooms; Prosody's module puts its prefix before the node."""
    node = visitor_node("v0", url="wss://h", domain=domain, muc_domain=muc_domain)
    assert node == VisitorNode("v0", "wss://h?vnode=v0", "v0.meet.jitsi", expected)


def test_the_address_is_the_same_with_the_name_or_what_the_settings_say() -> None:
    def url(template: str | None) -> str:
        return visitor_node("v1", url="wss://h/x?a=b", domain="d", muc_domain="m.d", template=template).url

    assert xmpp_websocket_url(url(None), "r", "t") == "wss://h/x?room=r&a=b&vnode=v1&token=t"
    assert xmpp_websocket_url(url("wss://{vnode}.h:99"), "r") == "wss://v1.h:99/xmpp-websocket?room=r"
    assert with_parameter("ws://h?vnode=v0&x=", "vnode", "v1") == "ws://h?x=&vnode=v1"


@pytest.mark.parametrize(
    "name", ["", "-", "v0.evil.example", "v0/x", "v 0", "v0\n", "ü", "v" * 64, "../v0", "v0-"]
)
def test_what_can_be_no_host_is_no_node(name: str) -> None:
    with pytest.raises(VisitorRedirectError, match="can be no visitor node"):
        visitor_node(name, url="wss://h", domain="d", muc_domain="m.d")


def test_an_account_is_for_the_main_room_alone() -> None:
    config = expand(
        load(username="u", password="p", token="t", room="Big", domain="d", anonymous_domain="guest.d")
    )[0]
    xmpp = MAIN.xmpp(config)
    assert (xmpp.domain, xmpp.username, xmpp.password) == ("d", "u", "p")
    visitor = redirected(config, REDIRECT)
    xmpp = visitor.xmpp(config)
    assert (xmpp.domain, xmpp.username, xmpp.password) == ("v0.meet.jitsi", None, None)
    assert xmpp.token is not None
    assert xmpp.token() == "t"
    assert (visitor.room_jid(config), visitor.domain(config)) == ("big@muc.v0.meet.jitsi", "v0.meet.jitsi")
    promoted = Entrance(username="abc")
    assert (promoted.xmpp(config).domain, promoted.xmpp(config).username) == ("guest.d", None)
    assert promoted.url(config).endswith("?customusername=abc")
    assert promoted.room_jid(config) == config.room_jid == "big@muc.d"
    assert [item.asks_focus for item in (MAIN, visitor, promoted)] == [True, False, False]


def test_who_refuses_to_be_a_visitor_says_so() -> None:
    config = expand(load(visitors="refuse"))[0]
    with pytest.raises(VisitorRedirectError) as caught:
        redirected(config, REDIRECT)
    assert caught.value is REDIRECT


def test_the_name_that_opens_the_main_room_is_in_no_log() -> None:
    url = main_room_url("wss://h", "abc-d")
    assert url == "wss://h?customusername=abc-d"
    assert main_room_url("wss://h", "") == "wss://h"
    assert redact(url) == "wss://h?customusername=***"


@pytest.mark.parametrize(
    ("answer", "expected"),
    [
        (
            "<promotion-response jid='a@v0/x' username='n' allow='true'/>",
            PromotionAnswer(allowed=True, username="n"),
        ),
        (
            "<promotion-response jid='a@v0/x' username='n' allow='false'/>",
            PromotionAnswer(allowed=False, username="n"),
        ),
        ("<promotion-response/>", PromotionAnswer(allowed=False)),
        ("<other/>", None),
    ],
)
def test_the_answer_to_a_raised_hand(answer: str, expected: PromotionAnswer | None) -> None:
    stanza = ET.fromstring(f"<visitors xmlns='jitsi:visitors' room='r@muc.v0.meet.jitsi'>{answer}</visitors>")
    assert read_promotion(stanza) == expected


def test_what_real_servers_said() -> None:
    """Jicofo's redirect, and what Prosody with Jitsi's modules told the visitor at the node."""
    [answer] = [
        frame.element[0]
        for frame in dialogue("visitor-redirect")
        if not frame.sent and len(frame.element) and frame.element[0].tag.endswith("}conference")
    ]
    redirect = parse_answer(answer)
    assert (redirect.ready, redirect.vnode, redirect.focus_jid) == (True, "v0", "focus@auth.meet.jitsi")
    node = visitor_node("v0", url="ws://h", domain="meet.jitsi", muc_domain="muc.meet.jitsi")
    heard = [frame.element for frame in dialogue("visitor-node") if not frame.sent]
    presences = [item for item in heard if item.tag.endswith("}presence") and item.get("type") is None]
    assert {item.get("from", "").partition("@")[2].partition("/")[0] for item in presences} == {node.muc_domain}
    roles = [read_occupant(item, "x").role for item in presences]
    assert {"participant", "moderator", "visitor"} >= set(roles) >= {"participant", "visitor"}
    [promotion] = [child for item in heard for child in item if child.tag == VISITORS]
    assert read_promotion(promotion) == PromotionAnswer(allowed=True, username="kvrsq2bbm0yxh1xpwx1icjlu")
