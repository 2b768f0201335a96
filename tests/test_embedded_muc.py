"""Rooms (XEP-0045 as Jitsi's Prosody has them): entering, refusals, speaking, moderating, requests, destroying."""

from __future__ import annotations

from xml.etree import ElementTree as ET

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bot.embedded.config import EmbeddedConfig, RoomPolicy
from bot.embedded.muc_iq import mask_id, unmask_id
from bot.embedded.stanza import parse_frame
from tests.embedded_support import MUC_USER, ROOM, Client, World, codes, condition, item, local

DISCO = '<query xmlns="http://jabber.org/protocol/disco#info"/>'
PING = '<ping xmlns="urn:xmpp:ping"/>'
FOCUS = "focus@auth.meet.jitsi/focus"


def with_focus(config: EmbeddedConfig | None = None) -> World:
    """A room that the focus has created: nobody else is its owner."""
    world = World(config, focus=True)
    x = '<x xmlns="http://jabber.org/protocol/muc"/>'
    world.take(world.core.send(parse_frame(f'<presence from="{FOCUS}" to="{ROOM}/focus" id="f1">{x}</presence>')))
    world.to_focus.clear()
    return world


def policy(**fields: object) -> World:
    return with_focus(EmbeddedConfig(rooms={"room": RoomPolicy(**fields)}))  # type: ignore[arg-type]


def admin(client: Client, attributes: str, inner: str = "") -> list[ET.Element]:
    query = f'<query xmlns="http://jabber.org/protocol/muc#admin"><item {attributes}>{inner}</item></query>'
    return client.iq("set", ROOM, query)


def owner(client: Client, inner: str, kind: str = "set") -> list[ET.Element]:
    return client.iq(kind, ROOM, f'<query xmlns="http://jabber.org/protocol/muc#owner">{inner}</query>')


def configured(client: Client, **fields: str) -> list[ET.Element]:
    values = "".join(
        f'<field var="muc#roomconfig_{name}"><value>{value}</value></field>' for name, value in fields.items()
    )
    return owner(client, f'<x xmlns="jabber:x:data" type="submit">{values}</x>')


# --- entering ----------------------------------------------------------------------------------------------


def test_a_join_is_answered_with_the_others_then_oneself_then_the_subject() -> None:
    world = with_focus()
    world.joined("first")
    second = world.bound()
    focus, first, metadata, own, subject = second.join("second")
    assert [presence.get("from") for presence in (focus, first)] == [f"{ROOM}/focus", f"{ROOM}/first"]
    assert item(focus).get("role") == "moderator"
    assert metadata.get("from") == "metadata.meet.jitsi"
    assert (codes(own), item(own).get("affiliation"), item(own).get("jid")) == (["100", "110"], "none", second.jid)
    assert (subject.get("type"), local(subject[0]), subject[0].text) == ("groupchat", "subject", None)
    assert own.findtext("{*}stats-id") == "second"


def test_those_inside_see_the_newcomer_without_its_self_codes() -> None:
    world = World()
    first = world.joined("first")
    world.joined("second")
    [seen] = first.take()
    assert (codes(seen), seen.get("to")) == ([], first.jid)
    assert seen.find("{*}x/{*}item") is not None


def test_who_creates_a_room_owns_it() -> None:
    _, own, _ = World().bound().join("first")
    assert codes(own) == ["100", "201", "110"]
    assert item(own).get("affiliation") == "owner"


def test_what_an_occupant_forges_in_the_rooms_name_is_dropped() -> None:
    client = World().bound()
    _, own, _ = client.send(
        f'<presence to="{ROOM}/one"><x xmlns="http://jabber.org/protocol/muc"/>'
        '<x xmlns="http://jabber.org/protocol/muc#user"><status code="170"/></x>'
        '<occupant-id xmlns="urn:xmpp:occupant-id:0" id="forged"/><permissions xmlns="http://jitsi.org/jitmeet"/>'
        "</presence>"
    )
    assert "170" not in codes(own)
    assert own.find("{*}permissions") is None
    assert [node.get("id") != "forged" for node in own.iter("{urn:xmpp:occupant-id:0}occupant-id")] == [True]


@pytest.mark.parametrize(
    ("fields", "nick", "x", "wanted"),
    [
        ({"password": "right"}, "one", "", ("auth", "not-authorized")),
        ({"password": "right"}, "one", "<password>wrong</password>", ("auth", "not-authorized")),
        ({"members_only": True}, "one", "", ("auth", "registration-required")),
        ({"banned": frozenset({"meet.jitsi"})}, "one", "", ("auth", "forbidden")),
        ({"max_occupants": 0}, "one", "", ("cancel", "service-unavailable")),
        ({}, "two words", "", ("cancel", "not-allowed")),
        ({}, "_one", "", ("cancel", "not-allowed")),
        ({}, "focus", "", ("cancel", "not-allowed")),
        ({}, "taken", "", ("cancel", "conflict")),
    ],
)
def test_refusals_of_a_join(fields: dict[str, object], nick: str, x: str, wanted: tuple[str, str]) -> None:
    world = policy(**fields)
    if wanted[1] == "conflict":
        world.joined("taken")
    client = world.bound()
    [answer] = client.join(nick, x=x)
    assert condition(answer) == wanted
    assert answer[-1].get("by") == ROOM
    assert client.jid not in world.core.muc.rooms[ROOM].by_jid


def test_the_right_password_opens_the_door() -> None:
    assert codes(policy(password="right").bound().join("one", x="<password>right</password>")[-2]) == [
        "100",
        "110",
    ]


def test_members_only_names_the_lobby_and_lets_members_in() -> None:
    world = policy(members_only=True)
    client = world.bound()
    [answer] = client.join("one")
    assert answer[-1].findtext("{http://jitsi.org/jitmeet}lobbyroom") == "room@lobby.meet.jitsi"
    world.core.muc.rooms[ROOM].affiliations[client.jid.partition("/")[0]] = "member"
    assert item(client.join("one")[-2]).get("affiliation") == "member"


@pytest.mark.parametrize("room", ["room", "elsewhere"])
def test_a_room_that_has_no_lobby_is_none_to_wait_in(room: str) -> None:
    """Neither the lobby of a room that is open to all, nor that of a room that is not there."""
    client = with_focus().bound()
    [answer] = client.send(
        f'<presence to="{room}@lobby.meet.jitsi/one"><x xmlns="http://jabber.org/protocol/muc"/></presence>'
    )
    assert condition(answer) == ("cancel", "not-allowed")


def test_a_full_room_does_not_count_the_focus() -> None:
    world = policy(max_occupants=1)
    world.joined("one")
    [answer] = world.bound().join("two")
    assert condition(answer) == ("cancel", "service-unavailable")


def test_only_the_focus_creates_rooms_where_creation_is_restricted() -> None:
    config = EmbeddedConfig(restrict_room_creation=True)
    [answer] = World(config).bound().join("one")
    assert condition(answer) == ("cancel", "not-allowed")
    assert len(with_focus(config).bound().join("one")) == 4


@pytest.mark.parametrize("to", ["muc.meet.jitsi/one", ROOM, "muc.meet.jitsi"])
def test_an_address_without_room_or_nick(to: str) -> None:
    [answer] = World().bound().send(f'<presence to="{to}"><x xmlns="http://jabber.org/protocol/muc"/></presence>')
    assert condition(answer) == ("modify", "jid-malformed")


def test_presence_without_having_joined() -> None:
    [answer] = World().bound().send(f'<presence to="{ROOM}/one"/>')
    assert condition(answer) == ("cancel", "item-not-found")


def test_rooms_are_the_same_in_upper_case() -> None:
    world = World()
    world.joined("one", "Room@MUC.meet.jitsi")
    assert list(world.core.muc.rooms) == [ROOM]


# --- being inside, leaving ---------------------------------------------------------------------------------


def test_a_new_presence_is_told_to_all_oneself_last() -> None:
    world = World()
    one, two = world.joined("one"), world.joined("two")
    one.take()
    [own] = one.send(f'<presence to="{ROOM}/one" id="p7"><SourceInfo>{{}}</SourceInfo></presence>')
    assert (codes(own), own.get("id"), own.findtext("{*}SourceInfo")) == (["110"], "p7", "{}")
    assert own.find("{*}stats-id") is None
    [seen] = two.take()
    assert (codes(seen), seen.findtext("{*}SourceInfo")) == ([], "{}")


def test_a_nick_can_not_change() -> None:
    client = World().joined("one")
    [answer] = client.send(f'<presence to="{ROOM}/two"/>')
    assert condition(answer) == ("cancel", "not-allowed")


def test_joining_again_tells_everything_again() -> None:
    world = World()
    world.joined("one")
    two = world.joined("two")
    assert [local(stanza) for stanza in two.join("two")] == ["presence", "presence", "message"]


@pytest.mark.parametrize("kind", ["unavailable", "error"])
def test_leaving_is_told_to_all_and_the_last_one_ends_the_room(kind: str) -> None:
    world = World()
    one, two = world.joined("one"), world.joined("two")
    one.take()
    [own] = two.send(f'<presence to="{ROOM}/two" type="{kind}"/>')
    assert (codes(own), item(own).get("role"), own.get("type")) == (["110"], "none", "unavailable")
    [seen] = one.take()
    assert (codes(seen), seen.get("from")) == ([], f"{ROOM}/two")
    assert two.send(f'<presence to="{ROOM}/two" type="{kind}"/>') == []
    one.send(f'<presence to="{ROOM}/one" type="{kind}"/>')
    assert world.core.muc.rooms == {}


def test_other_presence_is_ignored() -> None:
    assert World().joined("one").send(f'<presence to="{ROOM}/one" type="probe"/>') == []


# --- messages ----------------------------------------------------------------------------------------------


def say(client: Client, content: str, to: str = ROOM, kind: str = "groupchat") -> list[ET.Element]:
    return client.send(f'<message xmlns="jabber:client" to="{to}" type="{kind}" id="m1">{content}</message>')


def test_a_message_reaches_everybody_and_its_sender() -> None:
    world = World()
    one, two = world.joined("one"), world.joined("two")
    one.take()
    [own] = say(one, f"<body>hi</body><x xmlns='{MUC_USER[1:-1]}'/>")
    [seen] = two.take()
    assert own.findtext("{*}body") == seen.findtext("{*}body") == "hi"
    assert (seen.get("from"), seen.get("id"), seen.find(f"{MUC_USER}x")) == (f"{ROOM}/one", "m1", None)


def test_the_subject_is_the_moderators_and_greets_newcomers() -> None:
    world = World()
    one, two = world.joined("one"), world.joined("two")
    one.take()
    [refused] = say(two, "<subject>mine</subject>")
    assert condition(refused) == ("auth", "forbidden")
    say(one, "<subject>ours</subject>")
    assert two.take()[-1].findtext("{*}subject") == "ours"
    assert world.bound().join("three")[-1].findtext("{*}subject") == "ours"


def test_a_private_message_goes_to_one_occupant() -> None:
    world = World()
    one, two, three = world.joined("one"), world.joined("two"), world.joined("three")
    world.drain()
    assert say(one, "<body>psst</body>", f"{ROOM}/two", "chat") == []
    [message] = two.take()
    assert (message.get("from"), message.get("to"), local(message[-1])) == (f"{ROOM}/one", two.jid, "x")
    assert three.take() == []
    say(one, f"<body>again</body><x xmlns='{MUC_USER[1:-1]}'/>", f"{ROOM}/two", "chat")
    assert [local(node) for node in two.take()[0]] == ["body", "x"]
    [answer] = say(one, "<body>?</body>", f"{ROOM}/nobody", "chat")
    assert condition(answer) == ("cancel", "item-not-found")


def test_messages_of_the_wrong_type_or_from_outside() -> None:
    world = World()
    inside, outside = world.joined("one"), world.bound()
    assert say(inside, "<body>x</body>", kind="normal") == []
    assert condition(say(outside, "<body>x</body>")[0]) == ("cancel", "not-acceptable")
    assert condition(say(outside, "<body>x</body>", "other@muc.meet.jitsi")[0]) == ("cancel", "item-not-found")
    assert say(outside, "", kind="error") == say(outside, "", "other@muc.meet.jitsi", "error") == []


@pytest.mark.parametrize(("name", "stays"), [("recipient-unavailable", False), ("not-acceptable", True)])
def test_an_occupant_who_answers_that_he_is_gone_is_taken_out(name: str, stays: bool) -> None:
    world = World()
    one = world.joined("one")
    world.joined("two")
    one.take()
    say(one, f'<error type="cancel"><{name} xmlns="urn:ietf:params:xml:ns:xmpp-stanzas"/></error>', kind="error")
    assert (one.jid in world.core.muc.rooms[ROOM].by_jid) is stays
    say(one, "", kind="error")


# --- requests through the room -------------------------------------------------------------------------------


def test_a_request_to_an_occupant_and_its_answer_find_their_ways() -> None:
    world = World()
    one, two = world.joined("one"), world.joined("two")
    world.drain()
    assert one.iq("get", f"{ROOM}/two", DISCO, "mine") == []
    [request] = two.take()
    assert (request.get("from"), request.get("to")) == (f"{ROOM}/one", two.jid)
    assert request.get("id") != "mine"
    two.iq("result", f"{ROOM}/one", DISCO, request.get("id", ""))
    [answer] = one.take()
    assert (answer.get("from"), answer.get("id"), local(answer[0])) == (f"{ROOM}/two", "mine", "query")


@pytest.mark.parametrize("identifier", ["x", "AAAA", "!", mask_id("a@b/c", "1", "d@e/f")])
def test_an_answer_that_nobody_asked_for_is_dropped(identifier: str) -> None:
    world = World()
    world.joined("one")
    assert world.joined("two").iq("result", f"{ROOM}/one", "", identifier) == []


@given(st.text(max_size=20), st.text(max_size=20))
def test_ids_are_masked_and_unmasked(identifier: str, asker: str) -> None:
    identifier = identifier.replace("\0", "")
    masked = mask_id("r@d/x", identifier, asker)
    assert unmask_id(masked, "r@d/x", ["other", asker]) == (identifier, asker)
    assert unmask_id(masked, "r@d/y", [asker]) is None
    assert unmask_id(masked, "r@d/x", []) is None


def test_a_ping_to_oneself_is_answered_by_the_room() -> None:
    client = World().joined("one")
    [answer] = client.iq("get", f"{ROOM}/one", PING)
    assert (answer.get("type"), answer.get("from")) == ("result", f"{ROOM}/one")


def test_requests_to_occupants_that_can_not_be() -> None:
    world = World()
    inside, outside = world.joined("one"), world.bound()
    assert condition(inside.iq("get", f"{ROOM}/nobody", PING)[0]) == ("cancel", "item-not-found")
    assert condition(outside.iq("get", f"{ROOM}/one", PING)[0]) == ("cancel", "not-acceptable")
    assert outside.iq("result", f"{ROOM}/one", PING) == []
    assert condition(inside.iq("get", "other@muc.meet.jitsi", PING)[0]) == ("cancel", "item-not-found")


# --- requests to the room ------------------------------------------------------------------------------------


def test_the_service_and_the_room_describe_themselves() -> None:
    world = policy(password="x", members_only=True)
    client = world.bound()
    [service] = client.iq("get", "muc.meet.jitsi", DISCO)
    assert service[0][0].get("name") == "Chatrooms"
    assert condition(client.iq("get", "muc.meet.jitsi", PING)[0]) == ("cancel", "service-unavailable")
    assert condition(client.iq("get", "muc.meet.jitsi")[0]) == ("cancel", "service-unavailable")
    [room] = client.iq("get", ROOM, DISCO)
    features = {feature.get("var") for feature in room[0] if local(feature) == "feature"}
    assert {"muc_passwordprotected", "muc_membersonly"} <= features
    fields = {field.get("var"): field.findtext("{*}value") for field in room.iter("{jabber:x:data}field")}
    assert fields["muc#roominfo_occupants"] == "1"
    assert fields["muc#roominfo_meetingId"]


@pytest.mark.parametrize(
    ("kind", "payload", "wanted"),
    [
        ("get", "", "bad-request"),
        ("set", '<what xmlns="urn:what"/>', "service-unavailable"),
        ("get", '<query xmlns="http://jabber.org/protocol/muc#admin"/>', "service-unavailable"),
        ("set", '<query xmlns="http://jabber.org/protocol/muc#admin"/>', "bad-request"),
        ("set", DISCO, "service-unavailable"),
    ],
)
def test_requests_that_the_room_does_not_serve(kind: str, payload: str, wanted: str) -> None:
    [answer] = World().joined("one").iq(kind, ROOM, payload)
    assert condition(answer)[1] == wanted


def test_a_ping_and_an_answer_to_the_room() -> None:
    client = World().joined("one")
    assert client.iq("get", ROOM, PING)[0].get("type") == "result"
    assert client.iq("result", ROOM) == []


# --- moderating ------------------------------------------------------------------------------------------------


def test_a_kick_is_told_with_its_actor_and_reason() -> None:
    world = World()
    one, two = world.joined("one"), world.joined("two")
    one.take()
    seen, answer = admin(one, 'nick="two" role="none"', "<reason>noise</reason>")
    assert answer.get("type") == "result"
    [own] = two.take()
    assert (codes(own), own.get("type")) == (["307", "110"], "unavailable")
    assert item(own).findtext("{*}reason") == "noise"
    assert item(own)[0].get("nick") == "one"
    assert codes(seen) == ["307"]
    assert two.jid not in world.core.muc.rooms[ROOM].by_jid


def test_a_ban_keeps_out() -> None:
    world = World()
    one, two = world.joined("one"), world.joined("two")
    bare = two.jid.partition("/")[0]
    admin(one, f'jid="{bare}" affiliation="outcast"')
    assert codes(two.take()[-1]) == ["301", "110"]
    [refused] = two.join("two")
    assert condition(refused) == ("auth", "forbidden")
    admin(one, f'jid="{bare}" affiliation="none"')
    assert codes(two.join("two")[-2]) == ["100", "110"]


def test_ownership_makes_a_moderator_with_permissions() -> None:
    world = World()
    one, two = world.joined("one"), world.joined("two")
    one.take()
    seen, _ = admin(one, 'nick="two" affiliation="owner"')
    assert seen.find("{*}permissions") is None
    [own] = two.take()
    assert (item(own).get("affiliation"), item(own).get("role")) == ("owner", "moderator")
    assert item(own)[0].get("nick") == "one"
    permissions = own.find("{http://jitsi.org/jitmeet}permissions")
    assert permissions is not None
    assert {node.get("val") for node in permissions} == {"true"}
    admin(two, 'nick="one" affiliation="member"')
    assert item(one.take()[-1]).get("role") == "participant"


def test_a_role_given_without_affiliation() -> None:
    world = World()
    one, two = world.joined("one"), world.joined("two")
    admin(one, 'nick="two" role="moderator"')
    assert item(two.take()[-1]).get("role") == "moderator"


@pytest.mark.parametrize(
    ("attributes", "wanted"),
    [
        ('nick="nobody" role="none"', ("cancel", "item-not-found")),
        ('affiliation="owner"', ("cancel", "item-not-found")),
        ('nick="two" role="king"', ("modify", "bad-request")),
        ('nick="two" affiliation="god"', ("modify", "bad-request")),
    ],
)
def test_moderating_what_is_not_there(attributes: str, wanted: tuple[str, str]) -> None:
    world = World()
    one = world.joined("one")
    two = world.joined("two")
    two.take()
    [answer] = [stanza for stanza in admin(one, attributes) if local(stanza) == "iq"]
    assert condition(answer) == wanted
    assert two.take() == []


def test_only_owners_and_admins_moderate_and_configure() -> None:
    world = World()
    world.joined("one")
    two = world.joined("two")
    outside = world.bound()
    for client in (two, outside):
        assert condition(admin(client, 'nick="one" role="none"')[0]) == ("auth", "forbidden")
        assert condition(configured(client, roomsecret="x")[0]) == ("auth", "forbidden")
        assert condition(owner(client, "", "get")[0]) == ("auth", "forbidden")


def test_an_owner_outside_the_room_moderates_without_a_nick() -> None:
    world = World()
    one, two, outside = world.joined("one"), world.joined("two"), world.bound()
    admin(one, f'jid="{outside.jid.partition("/")[0]}" affiliation="owner"')
    two.take()
    admin(outside, 'nick="two" role="none"')
    assert item(two.take()[-1]).find("{*}actor") is None


def test_configuration_of_password_lobby_and_size() -> None:
    world = World()
    one = world.joined("one")
    [answer] = configured(one, roomsecret="x", membersonly="true", maxusers="3", whois="anyone")
    assert answer.get("type") == "result"
    room = world.core.muc.rooms[ROOM]
    assert (room.password, room.members_only, room.max_occupants) == ("x", True, 3)
    [form] = owner(one, "", "get")
    fields = {field.get("var"): field.findtext("{*}value") for field in form.iter("{jabber:x:data}field")}
    assert fields["muc#roomconfig_roomsecret"] == "x"
    assert fields["muc#roomconfig_membersonly"] == "1"
    configured(one, roomsecret="", membersonly="0", maxusers="many")
    assert (room.password, room.members_only, room.max_occupants) == (None, False, 3)


def test_a_destroyed_room_says_why_and_where_to_go() -> None:
    world = World()
    one, two = world.joined("one"), world.joined("two")
    world.drain()
    own, answer = owner(one, '<destroy jid="new@muc.meet.jitsi"><reason>moved</reason></destroy>')
    assert answer.get("type") == "result"
    [seen] = two.take()
    for stanza in (own, seen):
        gone = next(stanza.iter(f"{MUC_USER}destroy"))
        assert (stanza.get("type"), gone.get("jid"), gone.findtext("{*}reason")) == (
            "unavailable",
            "new@muc.meet.jitsi",
            "moved",
        )
    assert world.core.muc.rooms == {}
    one.join("one")
    owner(one, "<destroy/>")
    assert world.core.muc.rooms == {}
