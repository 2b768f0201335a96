"""SIGHUP: new settings are taken as a whole, or not at all."""

import os
import signal
from pathlib import Path
from typing import Any

import requests

from tests.control_support import Daemon, daemon, wait

OLD, NEW = "the-first-of-the-tokens", "the-second-of-the-tokens"


def write(folder: Path, text: str) -> None:
    (folder / "bot.toml").write_text(text)


def signalled(found: Daemon, event: str, count: int) -> dict[str, Any]:
    """What the log says after a SIGHUP."""
    os.kill(found.process.pid, signal.SIGHUP)
    return wait(lambda: len(lines := found.lines(event)) >= count and lines[-1], event)  # type: ignore[no-any-return]


def standing(found: Daemon) -> dict[str, str]:
    """Endpoint ids of all participants that are in their rooms."""
    items = found.ask("get", "/participants").json()["items"]
    return {item["id"]: item["endpoint"] for item in items if item["in_room"]}


def room(name: str, *lines: str) -> str:
    return "\n".join(["[[participants]]", f'room = "{name}"', *lines, ""])


def test_participants_tokens_and_limits_are_taken_and_wrong_ones_are_not(tmp_path: Path) -> None:
    tokens = tmp_path / "tokens"
    tokens.write_text(OLD)
    write(tmp_path, room("stays", 'name = "a"') + room("goes", 'name = "b"') + room("changes", 'name = "c"'))
    environment = {"JITSI_API_OPERATE_TOKENS": "", "JITSI_API_OPERATE_TOKENS_FILE": str(tokens)}
    with daemon(tmp_path, "--config", "bot.toml", environment=environment, token=OLD) as found:
        found.ask("put", "/participants/own", {"room": "own"})
        before = wait(lambda: len(there := standing(found)) == 4 and there, "all are in their rooms")

        for number, (text, said) in enumerate(
            [
                (room("x") + "retries = ", "not valid TOML"),
                ("unknown_setting = 1\n", "unknown setting 'unknown_setting'"),
                ("retries = 99\n", "retries"),
                (room("x", "count = 900"), "api.max_participants"),
                ("[api]\nmax_body = 1\n", "api.max_body"),
                (room("x", 'audio = "file:/nowhere.wav"'), "no such file"),
            ],
            1,
        ):
            write(tmp_path, text)
            assert said in signalled(found, "settings_refused", number)["cause"]
        assert standing(found) == before

        tokens.write_text(NEW)
        own = "log_level = 'debug'\nhttp_port = 9\nstatistics_interval = 3\n"
        groups = room("stays", 'name = "a"') + room("changes", 'name = "c"', "start_muted_audio = true")
        write(tmp_path, own + groups + room("comes", 'name = "d"') + "[api]\nmax_participants = 4\n")
        assert signalled(found, "settings_reloaded", 1)["participants"] == 3
        [late] = found.lines("settings_need_restart")
        assert late["settings"] == ["statistics_interval"]  # the environment's port goes before the file's
        assert found.ask("get", "/status").status_code == 401
        found.token = NEW
        after = wait(
            lambda: set(there := standing(found)) == {"stays.a", "changes.c", "comes.d", "own"} and there,
            "the new ones",
        )
        assert (after["stays.a"], after["own"]) == (before["stays.a"], before["own"])
        assert after["changes.c"] != before["changes.c"]
        assert found.ask("get", "/status").json()["max_participants"] == 4
        assert found.ask("put", "/participants/more", {"room": "own"}).json()["code"] == "too_many_participants"
        assert found.lines("state_changed"), "the new log level counts"
        assert found.lines("settings_reload_failed") == []


RUN = ("run", "--daemon", "--embedded")


def test_the_daemon_has_the_api_on_its_own_port(tmp_path: Path) -> None:
    with daemon(tmp_path, command=RUN) as found:
        assert set(wait(lambda: len(there := standing(found)) == 2 and there, "both bots")) == {
            "jitsi-bot.jitsi-bot-1",
            "jitsi-bot.jitsi-bot-2",
        }
        assert (
            "jitsi_bot_join_seconds_count 2.0"
            in requests.get(f"{found.base}/metrics", timeout=20, proxies={"http": ""}).text
        )
        os.kill(found.process.pid, signal.SIGTERM)
        assert found.process.wait(20) == 0
        assert len(found.lines("left")) == 2


def test_a_daemon_that_others_reach_serves_health_alone_without_a_token(tmp_path: Path) -> None:
    environment = {"JITSI_HTTP_HOST": "0.0.0.0"}
    with daemon(tmp_path, "--bots", "1", command=RUN, environment=environment, token=None) as found:
        assert "JITSI_API_OPERATE_TOKENS" in found.lines("api_left_out")[0]["cause"]
        paths = ("/healthz", "/metrics", "/api/v1/status", "/api/v1/openapi.json", "/")
        answers = [requests.get(found.base + path, timeout=20, proxies={"http": ""}).status_code for path in paths]
        assert answers == [200, 200, 404, 404, 404]
