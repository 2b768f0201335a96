"""Muting, AV moderation, start muted, breakout rooms, what owners ask: on dialogues recorded at real servers."""

import xml.etree.ElementTree as ET
from typing import Any

import pytest

from bot.xmpp import owner
from bot.xmpp.breakout import BreakoutRoomsChanged, MoveRequested, breakout_message, read_breakout
from bot.xmpp.messages import read_component
from bot.xmpp.moderation import (
    MUTE_TAGS,
    AvModeration,
    AvModerationChanged,
    MutedByModerator,
    StartMuted,
    UnmuteApproved,
    UnmuteRejected,
    av_moderation_message,
    mute_request,
    read_mute,
    read_start_muted,
)
from bot.xmpp.presence import RoomPresence
from bot.xmpp.roominfo import RoomInfo, read_room_info
from bot.xmpp.services import NoSuchServiceError, address_of, read_services
from bot.xmpp.stanza_errors import StanzaError
from tests.recordings import dialogue

ROOM = "salon@muc.meet.jitsi"


def received(name: str) -> list[ET.Element]:
    return [frame.element for frame in dialogue(name) if not frame.sent]


def sent(name: str) -> list[ET.Element]:
    return [frame.element for frame in dialogue(name) if frame.sent]


def from_components(name: str, kind: str) -> list[dict[str, Any]]:
    found = [read_component(item, ROOM) for item in received(name) if item.tag.endswith("message")]
    return [dict(data) for data in found if data is not None and data.get("type") == kind]


def test_a_recorded_av_moderation() -> None:
    moderation, seen, may = AvModeration(), [], []
    for data in from_components("room-bob", "av_moderation"):
        seen += moderation.feed(data)
        may.append(moderation.may_unmute("audio"))
    actor = seen[0].actor if isinstance(seen[0], AvModerationChanged) else None
    assert actor is not None
    assert len(actor) == 8
    assert seen == [
        AvModerationChanged("audio", True, actor),
        UnmuteApproved("audio"),
        UnmuteRejected("audio"),
        AvModerationChanged("audio", False, actor),
    ]
    assert may == [False, True, False, True]
    assert moderation.may_unmute("video")


def test_the_lists_for_moderators_say_nothing_of_us() -> None:
    """A moderator hears the list of the approved at each change; he himself may always unmute."""
    moderation, seen = AvModeration(), []
    for data in from_components("room-alice", "av_moderation"):
        seen += moderation.feed(data)
    assert [type(event) for event in seen] == [AvModerationChanged, AvModerationChanged]
    moderation.feed({"mediaType": "audio", "enabled": True})
    assert moderation.feed({"mediaType": "audio", "enabled": True}) == []
    assert moderation.may_unmute("audio", moderator=True)
    assert not moderation.may_unmute("audio")
    assert repr(moderation) == "<AvModeration enabled for audio>"


@pytest.mark.parametrize(
    "data",
    [{}, {"mediaType": "smell", "enabled": True}, {"mediaType": []}, {"mediaType": "audio", "enabled": "true"}],
)
def test_broken_av_moderation_is_nothing(data: dict[str, Any]) -> None:
    assert AvModeration().feed(data) == []


def test_recorded_mutes() -> None:
    """The first one by a moderator, the second one by the focus for AV moderation."""
    asked = [item for item in received("room-bob") if item.get("type") == "set"]
    mutes = [child for item in asked for child in item if child.tag in MUTE_TAGS]
    first, second = [read_mute(item) for item in mutes]
    assert first.media == second.media == "audio"
    assert first.actor is not None
    assert second.actor is None


def test_a_mute_request_and_what_is_none() -> None:
    asked = mute_request(f"{ROOM}/a", "video")
    assert asked.tag == "{http://jitsi.org/jitmeet/video}mute"
    assert (asked.get("jid"), asked.text) == (f"{ROOM}/a", "true")
    assert read_mute(asked) == MutedByModerator("video", None)
    for bad in (mute_request("x", "audio", muted=False), ET.Element("{urn:x}mute")):
        with pytest.raises(StanzaError, match="bad-request"):
            read_mute(bad)
    recorded = [child for item in sent("room-alice") for child in item if child.tag in MUTE_TAGS]
    assert [(item.text, item.get("jid", "").partition("/")[0]) for item in recorded] == [("true", ROOM)]


def test_an_order_for_av_moderation() -> None:
    message = av_moderation_message("avmoderation.d", "audio", enable="true")
    assert message.get("to") == "avmoderation.d"
    assert message[0].attrib == {"mediaType": "audio", "enable": "true"}


def test_the_policy_to_start_muted() -> None:
    assert read_start_muted({"startMuted": {"audio": True}}) == StartMuted(audio=True, video=False)
    assert read_start_muted({}) is None
    assert read_start_muted({"startMuted": []}) is None
    # While AV moderation is on, the room's metadata says so to those who come.
    policies = [read_start_muted(data["metadata"]) for data in from_components("room-carol", "room_metadata")]
    assert policies[0] is None


def test_recorded_breakout_rooms_and_a_move() -> None:
    events = [read_breakout(data) for data in from_components("room-bob", "breakout_rooms")]
    changed = [event for event in events if isinstance(event, BreakoutRoomsChanged)]
    rooms = {room.is_main: room for room in changed[0].rooms}
    assert rooms[True].jid == ROOM
    assert len(rooms[True].endpoints) == 4
    assert (rooms[False].name, rooms[False].endpoints) == ("corner", frozenset())
    assert MoveRequested(rooms[False].jid) in events


@pytest.mark.parametrize(
    "data",
    [
        {},
        {"event": "features/breakout-rooms/move-to-room", "roomJid": "nowhere"},
        {"event": "features/breakout-rooms/update", "rooms": []},
        {"event": "features/breakout-rooms/dance"},
    ],
)
def test_broken_breakout_messages_are_nothing(data: dict[str, Any]) -> None:
    assert read_breakout(data) is None


def test_odd_rooms_take_their_defaults() -> None:
    update = {
        "event": "features/breakout-rooms/update",
        "rooms": {"a": {"participants": [], "name": None}, "b": 1},
    }
    found = read_breakout(update)
    assert isinstance(found, BreakoutRoomsChanged)
    assert [(room.jid, room.name, room.endpoints) for room in found.rooms] == [("", "", frozenset())]


def test_an_order_for_breakout_rooms() -> None:
    message = breakout_message("breakout.d", "add", subject="x")
    assert message[0].attrib == {"type": "features/breakout-rooms/add", "subject": "x"}


def test_recorded_services() -> None:
    (query,) = [item[0] for item in received("room-alice") if item.get("from") == "meet.jitsi" and len(item)]
    services = read_services(query)
    assert address_of(services, "av_moderation") == "avmoderation.meet.jitsi"
    assert address_of(services, "end_conference") == "endconference.meet.jitsi"
    with pytest.raises(NoSuchServiceError, match="visitors"):
        address_of(services, "visitors")
    assert read_services(None) == {}


def test_recorded_room_infos() -> None:
    """Open, locked, open again, with a lobby: what the room said of itself at each time."""
    queries = [
        item[0]
        for item in received("room-alice")
        if item.get("from") == ROOM and len(item) and item[0].tag.endswith("disco#info}query")
    ]
    infos = [read_room_info(query) for query in queries]
    assert [info.locked for info in infos] == [False, True, False, False]
    assert [info.lobby_jid for info in infos] == [None, None, None, "salon@lobby.meet.jitsi"]
    assert infos[3].members_only
    assert len({info.meeting_id for info in infos}) == 1
    assert read_room_info(None) == RoomInfo(locked=False, members_only=False)


def test_recorded_forms_keep_what_they_do_not_change() -> None:
    forms = [
        owner.read_config(item[0])
        for item in received("room-alice")
        if len(item) and item[0].tag == f"{{{owner.NS_OWNER}}}query" and len(item[0])
    ]
    assert [form[owner.SECRET] for form in forms] == ["", "pw1", "", ""]
    assert owner.lock_fields(forms[3], "x") == {
        owner.SECRET: "x",
        owner.PROTECTED: "1",
        owner.MEMBERS_ONLY: "true",
        owner.WHOIS: "anyone",
    }
    assert owner.MEMBERS_ONLY not in owner.lock_fields(forms[0], None)
    assert owner.members_only_fields(forms[1], enabled=True) == {owner.MEMBERS_ONLY: "true", owner.PROTECTED: "1"}
    assert owner.members_only_fields({}, enabled=False) == {owner.MEMBERS_ONLY: "false"}
    submitted = owner.read_config(owner.config_form({"a": "b"}))
    assert submitted == {"FORM_TYPE": owner.FORM_TYPE, "a": "b"}
    assert owner.read_config(None) == {}


def test_queries_of_an_owner() -> None:
    kick = owner.kick_query("a", "noise")
    assert kick[0].attrib == {"nick": "a", "role": "none"}
    assert kick[0].findtext(f"{{{owner.NS_ADMIN}}}reason") == "noise"
    assert len(owner.kick_query("a")[0]) == 0
    many = owner.affiliation_query(["a@d/x", "b@d"], "member")
    assert [item.attrib for item in many] == [
        {"affiliation": "member", "jid": "a@d"},
        {"affiliation": "member", "jid": "b@d"},
    ]


def test_what_is_said_in_a_lobby_is_no_property_of_a_participant() -> None:
    """lib-jitsi-meet's lobby room has no listener for these: it fails, and hears no presence any more."""
    said = RoomPresence(
        nick="n", stats_id="s", caps=ET.Element("c"), codecs=("vp8",), email="e", avatar_url="u", raised_hand=1
    )
    names = [item.tag.rpartition("}")[2] for item in said.elements()]
    assert names == [
        "stats-id",
        "c",
        "SourceInfo",
        "jitsi_participant_codecList",
        "nick",
        "email",
        "avatar-url",
        "jitsi_participant_raisedHand",
    ]
    assert [item.tag.rpartition("}")[2] for item in said.in_lobby().elements()] == ["c", "nick", "avatar-url"]
