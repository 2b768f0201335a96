"""Messages of rooms and components: recorded at real servers, and what must not be believed."""

import json
import xml.etree.ElementTree as ET

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bot.xmpp.messages import (
    MAX_TEXT,
    ChatReceived,
    ConfigurationChanged,
    Invited,
    MessageEvent,
    MessageRefused,
    SubjectChanged,
    chat_message,
    read_component,
    read_message,
)
from tests.recordings import dialogue

ROOM = "salon@muc.meet.jitsi"


def recorded(name: str, room: str = ROOM) -> list[MessageEvent]:
    messages = [
        frame.element for frame in dialogue(name) if not frame.sent and frame.element.tag.endswith("message")
    ]
    return [event for item in messages if (event := read_message(item, room)) is not None]


def message(body: str, sender: str = f"{ROOM}/a", kind: str = "groupchat") -> ET.Element:
    return ET.fromstring(f"<message xmlns='jabber:client' from='{sender}' type='{kind}'>{body}</message>")


def test_a_recorded_chat_both_ways() -> None:
    chats = [event for event in recorded("room-alice") if isinstance(event, ChatReceived)]
    assert [(event.text, event.private, event.stamp) for event in chats] == [
        ("hello all", False, None),
        ("just you", True, None),
    ]
    assert len({event.endpoint for event in chats}) == 1
    assert len(chats[0].endpoint) == 8


def test_what_was_said_before_us_has_its_time() -> None:
    first, *others = recorded("room-carol")
    assert isinstance(first, ChatReceived)
    assert first.stamp is not None
    assert first.stamp.startswith("2026-11-24T")
    assert SubjectChanged("") in others
    assert ConfigurationChanged() in others


def test_a_recorded_invitation() -> None:
    assert [event for event in recorded("room-dave") if isinstance(event, Invited)] == [Invited(None)]
    x = "<x xmlns='http://jabber.org/protocol/muc#user'><invite from='b'/><password>pw</password></x>"
    assert read_message(message(x, ROOM, "normal"), ROOM) == Invited("pw")


def test_only_the_room_invites_and_changes_its_configuration() -> None:
    for inner in ("<invite from='b'/>", "<status code='104'/>"):
        x = f"<x xmlns='http://jabber.org/protocol/muc#user'>{inner}</x>"
        assert read_message(message(x), ROOM) is None
        assert read_message(message(x, "other@muc.meet.jitsi"), ROOM) is None
        assert read_message(message(x, ROOM), ROOM) is not None


def test_other_messages() -> None:
    assert read_message(message("<subject>Plans</subject>", ROOM), ROOM) == SubjectChanged("Plans")
    assert read_message(message("<subject/><body>no subject</body>"), ROOM) == ChatReceived(
        "a", "no subject", False
    )
    assert read_message(message("<body/>"), ROOM) is None
    visitor = "<body>hi</body><display-name xmlns='http://jitsi.org/protocol/display-name'>V</display-name>"
    assert read_message(message(visitor, kind="chat"), ROOM) == ChatReceived("a", "hi", True, nick="V")
    visitor = visitor.replace("<display-name ", "<display-name source='visitor' ")
    assert read_message(message(visitor, ROOM), ROOM) == ChatReceived("", "hi", False, nick="V")
    assert read_message(message(visitor, ROOM, "chat"), ROOM) == ChatReceived("", "hi", True, nick="V")
    assert read_message(message("<body>hi</body>", ROOM), ROOM) is None
    error = (
        "<error type='auth'><forbidden xmlns='urn:ietf:params:xml:ns:xmpp-stanzas'/>"
        "<text xmlns='urn:ietf:params:xml:ns:xmpp-stanzas'>no</text></error>"
    )
    assert read_message(message(error, kind="error"), ROOM) == MessageRefused("forbidden", "no")


def test_a_message_to_one_and_to_all() -> None:
    assert chat_message(ROOM, "x").attrib == {"to": ROOM, "type": "groupchat"}
    private = chat_message(ROOM, "x\x00\ufffe\n", to="a", id="i")
    assert private.attrib == {"to": f"{ROOM}/a", "type": "chat", "id": "i"}
    assert private.findtext("{jabber:client}body") == "x\n"
    for text in ("", " \n", "\x01", "x" * (MAX_TEXT + 1)):
        with pytest.raises(ValueError, match="1 to"):
            chat_message(ROOM, text)


@given(st.text(min_size=1, max_size=40))
def test_every_text_survives_or_is_refused(text: str) -> None:
    try:
        sent = chat_message(ROOM, text)
    except ValueError:
        return
    sent.attrib |= {"from": f"{ROOM}/a"}
    again = read_message(ET.fromstring(ET.tostring(sent)), ROOM)
    assert isinstance(again, ChatReceived)
    # XML 1.0 section 2.11: a carriage return is read as a line feed.
    assert again.text.replace("\r", "\n") == sent.findtext("{jabber:client}body", "").replace(
        "\r\n", "\n"
    ).replace("\r", "\n")


def component(sender: str, text: str) -> ET.Element:
    payload = f"<json-message xmlns='http://jitsi.org/jitmeet'>{text}</json-message>"
    return ET.fromstring(f"<message xmlns='jabber:client' from='{sender}'>{payload}</message>")


def test_components_are_the_rooms_neighbours() -> None:
    text = json.dumps({"type": "av_moderation"})
    assert read_component(component("avmoderation.meet.jitsi", text), ROOM) == {"type": "av_moderation"}
    for sender in (
        f"{ROOM}/a",
        "mallory@guest.meet.jitsi/x",
        "mallory@avmoderation.meet.jitsi",
        "avmoderation.example.com",
        "avmoderation.evilmeet.jitsi",
        "",
    ):
        assert read_component(component(sender, text), ROOM) is None
    assert read_component(component("a.meet.jitsi", text), "r@localhost") is None
    for broken in ("", "{", "[1]", "[" * 100_000):
        assert read_component(component("avmoderation.meet.jitsi", broken), ROOM) is None
    assert read_component(message("<body>x</body>", "metadata.meet.jitsi"), ROOM) is None
