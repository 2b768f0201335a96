"""Scenarios: the shipped ones hold, files say what they mean, and errors name the key and the line."""

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bot.errors import ConfigurationError
from bot.load import files
from bot.load.scenario import MAX_CHURNS, Scenario
from bot.load.timetable import timetable

ROOT = Path(__file__).parents[1]
ALL = """\
name = "everything"
description = "every key there is"
room_prefix = "load-test"
conferences = 2
participants = 10
senders = 4
audio_senders = 5
codec = "h264"
simulcast = false
height = 360
fps = 15
switch_speakers = "10s"
layout = "stage"
last_n = 5
receive_height = 360
loudest = -1
duration = "10m"
join_rate = 2
join_order = "fill"
warm_up = "20s"
tokens = "room"
region = "eu"
seed = 7
thresholds = ["p95(join)   <  3s", "loss < 1%"]
abort_on_fail = true

[ramp]
shape = "steps"
up = "2m"
steps = 4
down = 30

[churn]
share = "10%"
stay = "1m"
away = 5

[shaping]
loss = 0.01

[[groups]]
name = "mobile"
participants = 3
senders = 1
audio_senders = 0
layout = "tile"
last_n = 2
receive_height = 180
region = "us"

[groups.shaping]
loss = "2%"
burst = 3
delay = "50ms"
jitter = "10ms"
reorder = true
bandwidth = "1Mbit/s"
allowance = "10ms"
queue = "100ms"
direction = "down"
seed = 3
"""


def read(tmp_path: Path, text: str, **flags: object) -> Scenario:
    file = tmp_path / "scenario.toml"
    file.write_text(text)
    return files.load(str(file), **flags)


def refused(tmp_path: Path, text: str, **flags: object) -> str:
    with pytest.raises(ConfigurationError) as caught:
        read(tmp_path, text, **flags)
    return str(caught.value).replace(f"{tmp_path}/", "")


# --- profiles -----------------------------------------------------------------------------------------------


def test_the_shipped_profiles_are_those_of_the_config_directory() -> None:
    found = files.profiles()
    assert sorted(found) == ["audio-conference", "big-meeting", "churn", "many-small-rooms", "webinar"]
    assert sorted(file.stem for file in (ROOT / "config" / "scenarios").glob("*.toml")) == sorted(found)


@pytest.mark.parametrize("name", ["audio-conference", "big-meeting", "churn", "many-small-rooms", "webinar"])
def test_a_profile_can_be_planned_and_says_what_it_is_good_for(name: str) -> None:
    found = files.load(name)
    assert found.name == name
    assert found.description
    assert found.parsed_thresholds
    assert timetable(found).peak == found.total or found.churn is not None


# --- what files say -----------------------------------------------------------------------------------------


def test_every_key_is_read(tmp_path: Path) -> None:
    found = read(tmp_path, ALL)
    assert found.total == 20
    assert found.thresholds == ("p95(join) < 3s", "loss < 1%")
    assert (found.up, found.down, found.rate) == (120, 30, 2)
    assert found.churn is not None
    assert found.churn.share == pytest.approx(0.1)
    (group,) = found.groups
    assert group.shaping is not None
    assert (group.shaping.bandwidth, group.shaping.seed) == (1e6, 3)
    dumped = found.model_dump(exclude_none=True)
    assert dumped.keys() == Scenario.model_fields.keys() - {"join_delay"}
    assert Scenario.model_validate_json(found.model_dump_json()) == found


def test_what_is_left_out() -> None:
    found = Scenario()
    assert (found.total, found.video_senders, found.sound_senders, found.rate, found.down) == (2, 2, 2, 5, 0)
    assert Scenario(layout="audio-only").video_senders == 0
    assert Scenario(join_delay=0.5).rate == 2
    assert Scenario(join_delay=0, participants=50).up == 0
    assert Scenario.model_validate({"thresholds": "loss < 1%"}).thresholds == ("loss < 1%",)
    assert Scenario.model_validate({"ramp": {"shape": "up-down", "up": 10}}).down == 10
    assert Scenario.model_validate({"ramp": {"shape": "steps"}, "duration": 50}).up == 25


def test_flags_go_before_the_file(tmp_path: Path) -> None:
    found = read(tmp_path, ALL, participants=20, join_delay="2s", ramp_up="8m", thresholds=(), codec=None)
    assert (found.participants, found.join_delay, found.join_rate, found.up) == (20, 2, None, 480)
    assert (found.codec, found.ramp.steps, found.thresholds) == ("h264", 4, ())


@pytest.mark.parametrize(
    ("text", "flags", "pace"),
    [
        ("join_rate = 1", {"join_delay": 2.0}, (2, None, None)),
        ("join_rate = 1", {"ramp_up": 9.0}, (None, None, 9)),
        ("join_delay = 1", {"ramp_up": 9.0}, (None, None, 9)),
        ("ramp.up = 9", {"join_rate": 3.0}, (None, 3, None)),
        ("ramp.up = 9\nramp.down = 1", {"join_delay": "1s"}, (1, None, None)),
        ("join_rate = 9\nramp = {shape = 'steps', up = 20}", {"ramp_up": 30.0}, (None, 9, 30)),
        ("join_rate = 9\nramp = {shape = 'steps', up = 20}", {"join_delay": 0.0}, (0, None, 20)),
        ("join_rate = 9\nramp.up = 20", {"ramp_shape": "steps", "ramp_up": 30.0}, (None, 9, 30)),
        ("join_rate = 9", {"participants": 3}, (None, 9, None)),
    ],
)
def test_a_flag_of_the_pace_replaces_what_else_the_file_says_of_it(
    tmp_path: Path, text: str, flags: dict[str, object], pace: tuple[float | None, ...]
) -> None:
    found = read(tmp_path, text, **flags)
    assert (found.join_delay, found.join_rate, found.ramp.up) == pace


def test_a_table_that_is_none_is_refused_with_flags_too(tmp_path: Path) -> None:
    assert "line 1: ramp: Input should be" in refused(tmp_path, "ramp = 3", ramp_down=3.0)


def test_without_a_file_flags_are_enough() -> None:
    assert files.load(None, conferences=3, duration="2m").total == 6


# --- what is wrong ------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("participents = 4", "scenario.toml, line 1: participents: unknown key, did you mean 'participants'?"),
        ("\n\n[ramp]\nshap = 'linear'", "line 4: ramp.shap: unknown key, did you mean 'shape'?"),
        ("zzz = 1", "unknown key; known are name, "),
        ("participants = '4'", "line 1: participants: Input should be a valid integer"),
        ("participants = true", "line 1: participants: Input should be a valid integer"),
        ("participants = 0", "line 1: participants: Input should be greater than or equal to 1"),
        ("conferences = 1000\nparticipants = 1000", "conferences x participants = 1000000, more than 100000"),
        ("senders = 3", "senders = 3 are more than participants = 2 of a conference"),
        ("duration = 'long'", "line 1: duration: 'long' is not a time such as 90"),
        ("duration = -1", "line 1: duration: Input should be greater than 0"),
        ("layout = 'grid'", "line 1: layout: Input should be 'tile', 'stage' or 'audio-only'"),
        ("room_prefix = 'A room'", "line 1: room_prefix: String should match pattern"),
        ("thresholds = ['p95(joim) < 3s']", "line 1: thresholds: unknown measure 'joim', did you mean 'join'"),
        ("join_delay = 1\njoin_rate = 1", "join_delay and join_rate exclude each other"),
        ("join_rate = 1\n[ramp]\nup = 10", "ramp.up and join_delay or join_rate exclude each other"),
        ("participants = 500", "duration = 60 s is too short: it takes 99.8 s until all have come (join_rate"),
        ("duration = 15\n[ramp]\nshape = 'up-down'\nup = 10", "until all have come and 10 s until all have left"),
        (
            "participants = 60\njoin_rate = 1\n[ramp]\nshape = 'steps'",
            "a step of 12 participants takes longer than the 6",
        ),
        ("warm_up = 60", "warm_up = 60 s leaves nothing of duration = 60 s"),
        (
            "duration = 86400\nparticipants = 5000\njoin_rate = 100\n[churn]\nstay = 1\naway = 0",
            f"more than {MAX_CHURNS}",
        ),
        ("[[groups]]\nname = 'a'\nparticipants = 3", "the groups have 3 participants, more than participants = 2"),
        ("[[groups]]\nname = 'a'\nparticipants = 1\n" * 2, "two groups are called 'a'"),
        ("[[groups]]\nname = 'a'\nparticipants = 1\nsenders = 2", "line 1: groups[1]: senders = 2 are more than"),
        (
            "[[groups]]\nname = 'a'\nparticipants = 1\n[[groups]]\nname = 'b'\nparticipants = 1\nshaping.loss = 2",
            "line 7: groups[2].shaping.loss: Input should be less than 1",
        ),
        (
            "[[groups]]\nname = 'a'\nparticipants = 1\nshaping.los = 1",
            "line 4: groups[1].shaping.los: unknown key, did you",
        ),
        ("shaping = { loss = 0.1, lag = 1 }", "line 1: shaping.lag: unknown key"),
        ("a = = 1", "scenario.toml is not valid TOML: "),
    ],
)
def test_errors_name_the_key_and_the_line(tmp_path: Path, text: str, said: str) -> None:
    assert said in refused(tmp_path, text)


def test_all_errors_are_said_in_the_order_of_the_file(tmp_path: Path) -> None:
    found = refused(tmp_path, "fps = 0\nseed = 'x'\nlast_n = -2\n")
    assert [part.split(":")[0] for part in found.split("; ")] == [f"scenario.toml, line {n}" for n in (1, 2, 3)]


def test_a_flag_is_named_as_it_is_written(tmp_path: Path) -> None:
    assert refused(tmp_path, ALL, join_rate=-1.0).startswith("--join-rate: Input should be greater than 0")
    assert refused(tmp_path, ALL, thresholds=("x < 1",)).startswith("--threshold: unknown measure 'x'")
    assert refused(tmp_path, ALL, ramp_down="x").startswith("--ramp-down: 'x' is not a time")


def test_files_that_can_not_be_read(tmp_path: Path) -> None:
    with pytest.raises(ConfigurationError, match="neither a file nor a profile, did you mean 'webinar'"):
        files.load("webinnar")
    with pytest.raises(ConfigurationError, match="cannot read"):
        files.load(str(tmp_path))
    (tmp_path / "latin.toml").write_bytes(b'name = "\xe4"')
    with pytest.raises(ConfigurationError, match="not valid TOML"):
        files.load(str(tmp_path / "latin.toml"))


@given(
    st.text(alphabet="[]ab.= '\"\n#", max_size=60),
    st.lists(st.one_of(st.text("ab", min_size=1), st.integers(0, 3)), max_size=4),
)
def test_a_line_is_looked_for_in_anything(text: str, place: list[int | str]) -> None:
    found = files.line_of(text, tuple(place))
    assert found is None or 1 <= found <= len(text.splitlines())
