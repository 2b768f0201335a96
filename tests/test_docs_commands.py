"""Every command of the documentation: it is one that there is, and those of the tutorial run."""

from __future__ import annotations

import re
import shlex
from collections.abc import Iterator
from itertools import pairwise
from pathlib import Path

import pytest
import yaml
from typer.testing import CliRunner

from bot.cli import app
from tests.test_compose import parse

ROOT = Path(__file__).parents[1]
PAGES = ("README.md", *sorted(f"docs/{page.name}" for page in (ROOT / "docs").glob("*.md")))
BLOCK = re.compile(r"^```(?:sh|bash)\n(.*?)^```", re.MULTILINE | re.DOTALL)
VARIABLE = re.compile(r"[A-Z_]+=\S*")
#: What others made, and what only prepares: not ours to try.
FOREIGN = {"cp", "curl", "install", "kubectl", "openssl", "pip", "python3", "systemctl", "venv/bin/pip", "."}


def commands(page: str) -> Iterator[list[str]]:
    """Words of each command in the blocks of a page, without variables before and comments behind."""
    for block in BLOCK.findall((ROOT / page).read_text()):
        for line in block.replace("\\\n", " ").splitlines():
            words = shlex.split(line, comments=True)
            while words and VARIABLE.fullmatch(words[0]):
                words.pop(0)
            if words:
                yield words


def all_commands() -> list[tuple[str, str]]:
    return [(page, shlex.join(words)) for page in PAGES for words in commands(page)]


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """What the commands read is there."""
    for name in ("recordings", "out", "before", "after", "report", "DIR"):
        (tmp_path / name).mkdir()
    (tmp_path / "mine.toml").touch()
    for name in ("config", "Makefile", "docker-compose.yml", "examples"):
        (tmp_path / name).symlink_to(ROOT / name)
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.mark.parametrize(("page", "command"), all_commands())
def test_a_command_is_one_that_there_is(page: str, command: str, folder: Path) -> None:
    words = shlex.split(command)
    match words:
        case ["jitsi-bot" | ".venv/bin/jitsi-bot", *arguments]:
            parse(arguments)
        case ["make", *targets]:
            defined = re.findall(r"^([a-z]+):", (ROOT / "Makefile").read_text(), re.MULTILINE)
            assert set(targets) <= set(defined)
        case ["docker", "compose", *arguments]:
            asked = {name for flag, name in pairwise(arguments) if flag == "--profile"}
            services = yaml.safe_load((ROOT / "docker-compose.yml").read_text())["services"]
            assert asked <= {profile for item in services.values() for profile in item["profiles"]}
            assert asked
        case ["cd", path]:
            assert (ROOT / path).is_dir()
        case [program, *arguments]:
            assert program in FOREIGN or program.startswith(("locust", "python")), f"{page}: {program}"
            for path in (word for word in arguments if word.startswith(("config/", "examples/"))):
                assert (folder / path).exists() or path == "config/grafana_password"


def test_a_command_that_there_is_not_is_found(folder: Path) -> None:
    with pytest.raises(Exception, match="No such"):
        test_a_command_is_one_that_there_is("page", "jitsi-bot record --embeded", folder)
    with pytest.raises(AssertionError):
        test_a_command_is_one_that_there_is("page", "docker compose --profile nothing up", folder)


# --- the tutorial, as it stands there, only shorter and smaller ----------------------------------------------

SMALL = {"WIDTH": "320", "HEIGHT": "180", "FPS": "10", "EMBEDDED_PORT": "0", "HTTP_PORT": "0"}
TUTORIAL = [shlex.join(words[1:]) for words in commands("docs/tutorial.md") if words[0] == "jitsi-bot"]


@pytest.fixture
def small(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Small pictures, free ports, and a folder to write to."""
    for name, value in SMALL.items():
        monkeypatch.setenv(f"JITSI_{name}", value)
    monkeypatch.chdir(tmp_path)
    return tmp_path


def tried(job: str) -> str:
    """The output of the tutorial's command for a job, which has to end with 0."""
    command = next(item for item in TUTORIAL if item.startswith(job))
    shorter = re.sub(r"--duration \d+", "--duration 2", command).replace("--interval 3", "--interval 1")
    done = CliRunner().invoke(app, shlex.split(shorter))
    assert done.exit_code == 0, done.output
    return done.output


def test_the_tutorial_has_a_command_for_each_job() -> None:
    """The embedded probe is run by ``test_monitor_command.py``, where its limits are lenient."""
    begun = [command.split()[0] for command in TUTORIAL if "--embedded" in command]
    assert begun == ["run", "watch", "record", "load", "probe"]
    assert "probe --embedded" in TUTORIAL


@pytest.mark.parametrize(("job", "said"), [("run", "Local tracks created: 2"), ("watch", "In all:")])
def test_a_command_of_the_tutorial_runs(job: str, said: str, small: Path) -> None:
    assert said in tried(job)


def test_the_tutorial_has_a_recording(small: Path) -> None:
    assert "recording_ended" in tried("record")
    assert list((small / "recordings").glob("try-*/manifest.json"))


def test_the_tutorial_has_a_report_of_a_load_run(small: Path) -> None:
    tried("load")
    assert (small / "report" / "report.html").is_file()
    assert "join" in tried("report")
