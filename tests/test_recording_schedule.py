"""When recordings begin and end by the clock and by the chat, and what the options say, without a server."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta, timezone
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bot.errors import ConfigurationError
from bot.recording import chat
from bot.recording.job import chosen_rooms
from bot.recording.options import RecordOptions, load_options
from bot.recording.schedule import Window, moment, window
from bot.recording.session import RecordingSession
from bot.settings import load
from tests.recording_support import STARTED

ZONE = timezone(timedelta(hours=2))


def at(text: str) -> datetime:
    return datetime.fromisoformat(text).replace(tzinfo=ZONE)


NOW = at("2026-03-04T12:00")


@pytest.mark.parametrize(
    ("start", "end", "wait", "left"),
    [
        (None, None, 0, None),
        ("13:00+02:00", None, 3600, None),
        ("11:00+02:00", None, 23 * 3600, None),
        (None, "13:00+02:00", 0, 3600),
        ("13:00+02:00", "13:30+02:00", 3600, 5400),
        ("11:00+02:00", "12:30+02:00", 0, 1800),
        ("22:00+02:00", "01:00+02:00", 36_000, 13 * 3600),
        ("23:00+02:00", "12:15+02:00", 0, 900),
        ("2026-03-04T11:30:00Z", "2026-03-04T12:00:00Z", 5400, 7200),
        ("2026-03-01T00:00+02:00", None, 0, None),
        ("2026-03-01T00:00+02:00", "13:00+02:00", None, None),
    ],
)
def test_windows(start: str | None, end: str | None, wait: float | None, left: float | None) -> None:
    options = RecordOptions.of(start=start, end=end)
    if wait is None:
        with pytest.raises(ConfigurationError, match="record end"):
            window(options, NOW)
        return
    found = window(options, NOW)
    assert (found.wait(NOW), found.left(NOW)) == (wait, left)


@given(st.integers(0, 2_000_000_000), st.times())
def test_a_time_of_the_day_is_the_next_one(seconds: int, of_day: object) -> None:
    after = datetime.fromtimestamp(seconds, ZONE)
    found = moment(str(of_day), after)
    assert timedelta(0) < found - after <= timedelta(days=1)
    assert found.astimezone(ZONE).time() == of_day


def test_a_window_that_is_over_waits_for_nothing() -> None:
    found = Window(NOW, NOW + timedelta(hours=1))
    assert found.wait(NOW + timedelta(hours=2)) == 0
    assert found.left(NOW + timedelta(hours=2)) == 0


@pytest.mark.parametrize("value", ["soon", "25:00", "2026-13-01T00:00"])
def test_what_is_no_moment_names_the_option(value: str) -> None:
    with pytest.raises(ConfigurationError, match="record start"):
        RecordOptions.of(start=value)


def test_options_come_from_flags_the_environment_and_the_file(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    file = tmp_path / "bot.toml"
    file.write_text(
        'room = "general"\n[record]\nalone = 7\nno_media = 8\naudio_only = true\nend = 2030-01-01T00:00:00Z\n'
        '[[record.rooms]]\nroom = "a"\nstart = 09:00:00\n[[record.rooms]]\nroom = "b"\naudio_only = false\n'
    )
    monkeypatch.setenv("JITSI_RECORD_NO_MEDIA", "9")
    monkeypatch.setenv("JITSI_RECORD_MAX_LENGTH", "10")
    options = load_options(file, max_length=11.0, alone=None)
    assert (options.alone, options.no_media, options.max_length) == (7, 9, 11)
    rooms = chosen_rooms(load(file), options, ())
    assert {room: (item.start, item.audio_only, item.alone) for room, item in rooms.items()} == {
        "a": ("09:00:00", True, 7),
        "b": (None, False, 7),
    }
    assert list(chosen_rooms(load(file), options, ["x", "y"])) == ["x", "y"]
    assert list(chosen_rooms(load(file), RecordOptions(), ())) == ["general"]


def test_unknown_options_of_the_file_are_named(tmp_path: Path) -> None:
    file = tmp_path / "bot.toml"
    file.write_text("[record]\nalonee = 1\n")
    with pytest.raises(ConfigurationError, match="alone"):
        load_options(file)


@pytest.mark.parametrize(
    ("text", "command"),
    [
        ("!record start", "start"),
        ("  !Record   STOP now", "stop"),
        ("!record", "status"),
        ("!record dance", "help"),
        ("!recording start", None),
        ("please !record start", None),
        ("", None),
    ],
)
def test_what_chat_lines_ask_for(text: str, command: str | None) -> None:
    assert chat.command_of(text) == command


@given(st.text())
def test_no_chat_line_is_too_odd(text: str) -> None:
    assert chat.command_of(text) in ("start", "stop", "status", "help", None)


def test_the_status_says_what_and_for_how_long() -> None:
    session = RecordingSession("room", started=STARTED)
    assert chat.status(session, 5.0) == chat.NOTHING
    session.begin(10.0, datetime.now(UTC))
    assert chat.status(session, 135.0) == "Recording sound and pictures for 2:05, 0.0 MB so far."


def test_refusals_do_not_fill_the_chat() -> None:
    refusals = chat.Refusals()
    assert [refusals.due(now) for now in (0.0, 1.0, 9.0, 10.0, 11.0)] == [True, False, False, True, False]
