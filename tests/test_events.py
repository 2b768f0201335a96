"""The event contract: names, messages and fields that people and machines rely on."""

from typing import Any

from bot import events

WHO: dict[str, Any] = {"room": "r", "participant": "p"}


def test_the_messages_of_the_normal_case_are_stable() -> None:
    said = [
        events.ConnectionCreating(**WHO, url="ws://localhost:8000").message,
        events.ConnectionEstablished(**WHO, jid="a@b/c").message,
        events.ConferenceJoined(**WHO, endpoint="deadbeef", occupants=2).message,
        events.TracksCreated(**WHO, count=2).message,
    ]
    assert said == [
        "Creating connection...",
        "Connection established!",
        "Conference joined!",
        "Local tracks created: 2",
    ]


def test_each_event_has_its_own_name_and_a_known_level() -> None:
    types = events.all_event_types()
    assert len({item.name for item in types}) == len(types) > 20
    assert {item.level for item in types} <= {"debug", "info", "warning", "error"}


def test_fields_that_are_none_are_left_out() -> None:
    event = events.AttemptFailed(**WHO, attempt=4, code="dns_failed", cause="no such host")
    assert event.as_dict() == {
        "room": "r",
        "participant": "p",
        "attempt": 4,
        "seconds": 0.0,
        "code": "dns_failed",
        "cause": "no such host",
    }
    assert event.message == "Connection attempt 4 failed: no such host"
