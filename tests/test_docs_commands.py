"""Every command of the documentation: it is one that there is, and those of the tutorial run."""

from __future__ import annotations

import os
import re
import shlex
import subprocess
import sys
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from itertools import pairwise
from pathlib import Path

import pytest
import yaml

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


def tried(command: str, folder: Path) -> str:
    """The output of a command that has to end with 0."""
    shorter = re.sub(r"--duration \d+", "--duration 2", command).replace("--interval 3", "--interval 1")
    done = subprocess.run(
        [sys.executable, "-m", "bot", *shlex.split(shorter)],
        cwd=folder,
        env={**os.environ, **{f"JITSI_{name}": value for name, value in SMALL.items()}, "PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
        timeout=150,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout + done.stderr


def test_the_tutorial_has_a_command_for_each_job() -> None:
    """The embedded probe is run by ``test_monitor_command.py``, where its limits are lenient."""
    begun = [command.split()[0] for command in TUTORIAL if "--embedded" in command]
    assert begun == ["run", "watch", "record", "load", "probe"]
    assert "probe --embedded" in TUTORIAL


@pytest.mark.timeout(180)  # several programs at once, on a machine that may be busy
def test_the_commands_of_the_tutorial_run(tmp_path: Path) -> None:
    said = {"run": "Local tracks created: 2", "watch": "In all:", "record": "recording_ended", "load": "join"}
    asked = {job: next(item for item in TUTORIAL if item.startswith(job)) for job in said}
    with ThreadPoolExecutor() as pool:
        running = {job: pool.submit(tried, command, tmp_path) for job, command in asked.items()}
    for job, text in said.items():
        assert text in running[job].result()
    assert list((tmp_path / "recordings").glob("try-*/manifest.json"))
    assert (tmp_path / "report" / "report.html").is_file()
    assert "join" in tried(next(item for item in TUTORIAL if item.startswith("report")), tmp_path)
