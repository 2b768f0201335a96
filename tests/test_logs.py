"""Log lines: one JSON object each, stable names, no secrets."""

import io
import json

import pytest
import structlog

from bot import events, logs


@pytest.fixture(autouse=True)
def _fresh() -> None:
    structlog.reset_defaults()


def test_an_event_becomes_one_json_line_with_its_stable_name() -> None:
    out = io.StringIO()
    logs.configure("info", "json", out)
    logs.log_event(events.ConferenceJoined(room="r", participant="p", endpoint="e", occupants=3, seconds=0.123456))
    (line,) = out.getvalue().splitlines()
    entry = json.loads(line)
    assert entry["event"] == "Conference joined!"
    assert entry["event_name"] == "conference_joined"
    assert (entry["room"], entry["participant"], entry["attempt"], entry["seconds"]) == ("r", "p", 1, 0.1235)


def test_levels_below_the_configured_one_are_left_out() -> None:
    out = io.StringIO()
    logs.configure("warning", "json", out)
    logs.log_event(events.ConnectionCreating(room="r", participant="p", url="ws://h"))
    assert out.getvalue() == ""


def test_tokens_and_passwords_never_reach_a_line() -> None:
    out = io.StringIO()
    logs.configure("info", "json", out)
    structlog.get_logger("x").info("opened", url="ws://h/xmpp-websocket?room=r&token=abc.def", pwd="pwd=geheim")
    assert "abc.def" not in out.getvalue()
    assert "geheim" not in out.getvalue()
    assert "room=r&token=***" in out.getvalue()


def test_console_form_is_readable_and_auto_is_json_without_a_terminal() -> None:
    out = io.StringIO()
    logs.configure("info", "console", out)
    structlog.get_logger("x").info("hello", n=1)
    assert "hello" in out.getvalue()
    assert not out.getvalue().startswith("{")
    auto = io.StringIO()
    logs.configure("info", "auto", auto)
    structlog.get_logger("x").info("hello", phases={"ice": 0.123456}, other={"a": "b"})
    assert json.loads(auto.getvalue())["phases"] == {"ice": 0.1235}


def test_a_terminal_line_is_short_and_keeps_what_the_message_does_not_say() -> None:
    out = io.StringIO()
    logs.configure("info", "console", out)
    phases = {"focus": 0.0123, "muc": 0.5}
    logs.log_event(
        events.ConferenceJoined(room="r", participant="p", endpoint="e", occupants=3, seconds=0.6, phases=phases)
    )
    logs.log_event(events.TracksCreated(room="r", participant="p", count=2))
    first, second = out.getvalue().splitlines()
    assert "Conference joined!" in first
    assert "phases='focus 0.012 muc 0.500'" in first
    assert "seconds=0.6" in first
    for text in ("event_name", "attempt", "seconds"):
        assert text not in second
    assert "participant=p" in second
