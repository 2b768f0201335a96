"""The command line without a server: configuration, help, exit codes."""

import json
from pathlib import Path

import pytest
from typer.testing import CliRunner

from bot import __version__
from bot.cli import app

runner = CliRunner()


def test_check_config_prints_settings_without_secrets(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("JITSI_TOKEN", "geheim")
    result = runner.invoke(app, ["check-config"])
    assert result.exit_code == 0
    assert json.loads(result.output)["ws_url"] == "ws://localhost:8000"
    assert "geheim" not in result.output


def test_a_wrong_file_is_exit_2_and_names_the_setting(tmp_path: Path) -> None:
    file = tmp_path / "bot.toml"
    file.write_text("romm = 'x'")
    result = runner.invoke(app, ["check-config", "--config", str(file)])
    assert result.exit_code == 2
    assert "did you mean 'room'" in result.output


@pytest.mark.parametrize(
    ("address", "said"),
    [
        ("meet.example.com", "does not begin with ws:// or wss://"),
        ("wss://", "names no host"),
        ("ws://localhost:port", "can't be read"),
        ("https://localhost:8443", "is the HTTPS web page"),
    ],
)
@pytest.mark.parametrize("command", ["check-config", "run"])
def test_a_wrong_address_is_exit_2_and_names_the_setting(
    monkeypatch: pytest.MonkeyPatch, command: str, address: str, said: str
) -> None:
    monkeypatch.setenv("JITSI_WS_URL", address)
    result = runner.invoke(app, [command])
    assert result.exit_code == 2
    assert "ws_url" in result.output
    assert said in result.output.replace("\n", " ")


@pytest.mark.parametrize("command", ["check-config", "run"])
@pytest.mark.parametrize("kind", ["audio", "video"])
def test_a_file_that_cannot_be_published_is_exit_2_and_names_the_setting(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, kind: str, command: str
) -> None:
    file = tmp_path / "notes.txt"
    file.write_text("no film\n")
    monkeypatch.setenv(f"JITSI_{kind.upper()}", f"file:{file}")
    result = runner.invoke(app, [command])
    assert result.exit_code == 2
    assert f"{kind}: can't publish {file}" in result.output.replace("\n", "")


@pytest.mark.parametrize("given", [{"JITSI_ROOM"}, {"JITSI_BOTS"}, {"JITSI_ROOM", "JITSI_BOTS"}, set()])
def test_what_the_participants_of_the_file_make_useless_is_warned_of(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, given: set[str]
) -> None:
    file = tmp_path / "bot.toml"
    file.write_text('[[participants]]\nroom = "a"\n')
    for name in given:
        monkeypatch.setenv(name, "7")
    result = runner.invoke(app, ["check-config", "--config", str(file)])
    assert result.exit_code == 0
    names = [name for name in ("room", "bots") if f"JITSI_{name.upper()}" in given]
    assert ("[[participants]] has its own" in result.stderr) == bool(given)
    assert " and ".join(names) in result.stderr
    assert json.loads(result.stdout)["participants"][0]["room"] == "a"


def test_a_wrong_flag_is_exit_2() -> None:
    result = runner.invoke(app, ["run", "--bots", "0"])
    assert result.exit_code == 2
    assert "bots" in result.output


def test_every_flag_shows_its_environment_twin(monkeypatch: pytest.MonkeyPatch) -> None:
    """What is seen, not what was meant: help texts are markup."""
    monkeypatch.setenv("COLUMNS", "200")
    monkeypatch.setenv("TERMINAL_WIDTH", "200")
    lines = [line for line in runner.invoke(app, ["run", "--help"]).output.splitlines() if "--" in line]
    settings = [line for line in lines if not any(mode in line for mode in ("--daemon", "--embedded ", "--help"))]
    flags = [line for line in settings if line.strip("│ ").startswith("--")]
    assert any("--room" in line and "[env: JITSI_ROOM]" in line for line in flags)
    assert len(flags) >= 8
    assert all("[env: JITSI_" in line for line in flags), flags


def test_version() -> None:
    assert runner.invoke(app, ["version"]).output == f"jitsi-bot {__version__}\n"


def test_the_shipped_configuration_is_valid() -> None:
    result = runner.invoke(
        app, ["check-config", "--config", str(Path(__file__).parents[1] / "config" / "bot.toml")]
    )
    assert result.exit_code == 0, result.output
    assert json.loads(result.output)["participants"]
