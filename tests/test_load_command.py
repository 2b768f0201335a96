"""``jitsi-bot load`` without a server: profiles, plans, flags, and errors before anybody joins."""

import json
import resource
from pathlib import Path

import pytest
from typer.testing import CliRunner

from bot.cli import app

runner = CliRunner()


def run(*arguments: str, code: int = 0) -> str:
    result = runner.invoke(app, ["load", *arguments])
    assert result.exit_code == code, result.output
    return result.output


def test_the_profiles_are_listed() -> None:
    assert "webinar            Three presenters" in run("--list")


def test_a_profile_is_planned_by_either_name() -> None:
    small = ("--participants", "4", "--senders", "1", "--processes", "1", "--dry-run")
    text = run("many-small-rooms", *small)
    assert "participants   40: 10 x 4, 10 send pictures, 40 sound" in text
    assert "processes      1" in text
    assert text.splitlines()[:18] == run("--profile", "many-small-rooms", *small).splitlines()[:18]


def test_flags_say_all_that_is_asked_for() -> None:
    found = json.loads(
        run(
            *(
                "--conferences",
                "2",
                "--participants",
                "3",
                "--audio-senders",
                "1",
                "--no-simulcast",
                "--codec",
                "av1",
            ),
            *(
                "--layout",
                "stage",
                "--last-n",
                "1",
                "--duration",
                "2m",
                "--ramp-shape",
                "up-down",
                "--ramp-up",
                "20s",
            ),
            *("--threshold", "loss < 1%", "--threshold", "p95(join) < 3s", "--abort-on-fail", "--seed", "3"),
            *("--switch-speakers", "5s", "--warm-up", "10s", "--region", "eu", "--tokens", "room"),
            *("--dry-run", "--json"),
        )
    )
    scenario = found["scenario"]
    assert (scenario["duration"], scenario["ramp"]["up"], scenario["ramp"]["shape"]) == (120, 20, "up-down")
    assert scenario["thresholds"] == ["loss < 1%", "p95(join) < 3s"]
    assert (scenario["simulcast"], scenario["abort_on_fail"], scenario["codec"]) == (False, True, "av1")
    assert len(found["seats"]) == 6


def test_a_file_is_read(tmp_path: Path) -> None:
    file = tmp_path / "mine.toml"
    file.write_text("participants = 3\n")
    assert "scenario       mine" in run(str(file), "--dry-run")
    file.write_text("participants = 3\nsenders = 4\n")
    assert "senders = 4 are more than participants = 3" in run(str(file), "--dry-run", code=2)


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["nowhere"], "neither a file nor a profile"),
        (["--profile", "nowhere"], "there is no profile 'nowhere'"),
        (["churn", "--profile", "webinar"], "exclude each other"),
        (["--threshold", "p95(jion) < 3s"], "--threshold: unknown measure 'jion', did you mean 'join'"),
        (["--duration", "long"], "--duration: 'long' is not a time"),
        (["--url", "wss://meet.jit.si", "--participants", "6"], "public service"),
        (["--url", "ftp://127.0.0.1"], "ws_url"),
        (["--embedded", "--url", "ws://127.0.0.1"], "exclude each other"),
        (["churn", "webinar"], "churn and webinar exclude each other"),
        (["--capacity", "--embedded"], "capacity needs a threshold"),
        (["capacity", "--embedded"], "capacity needs a threshold"),
        (["capacity", "nowhere"], "neither a file nor a profile"),
        (["--embedded", "--warm-up", "9s", "--threshold", "success > 99%"], "success > 99% would have no data"),
        (["--tokens", "room"], "tokens = 'room' needs jwt_app_id and jwt_app_secret"),
        (["--embedded", "--out", "/dev/null/reports"], "--out /dev/null/reports: Not a directory"),
        (["--processes", "many", "--dry-run"], "processes"),
    ],
)
def test_wrong_usage_is_exit_2_and_says_why(arguments: list[str], said: str) -> None:
    assert said in run(*arguments, code=2).replace("\n", " ")


def test_a_machine_that_can_not_carry_it_is_exit_2(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(resource, "getrlimit", lambda _what: (64, 64))
    assert "open files are needed in a process, the limit is 64" in run("webinar", "--dry-run", code=2)
