"""The API of a daemon that runs: participants that meet, events, tokens, limits, and the end."""

import json
import os
import signal
import socket
from collections.abc import Iterator
from itertools import islice
from pathlib import Path
from typing import Any

import pytest
import requests
from typer.testing import CliRunner

from bot.cli import app
from tests.control_support import OPERATE, READ, Daemon, daemon, wait


@pytest.fixture(scope="module")
def running(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Daemon]:
    folder = tmp_path_factory.mktemp("api")
    (folder / "media").mkdir()
    (folder / "secret.wav").write_bytes(b"no media")
    (folder / "media" / "link.wav").symlink_to(folder / "secret.wav")
    (folder / "media" / "text.wav").write_text("no media")
    flags = ("--max-participants", "4", "--media-dir", "media", "--bots", "1", "--room", "meeting")
    with daemon(folder, *flags) as found:
        yield found


def active(running: Daemon, name: str) -> Any:
    """The participant, once it sends, and hears and sees the other one."""

    def found() -> Any:
        view = running.ask("get", f"/participants/{name}").json()
        media = view["media"] or {"streams": ()}
        return view if len(media["streams"]) == 2 and media["bitrate_sent"] else None

    return wait(found, f"media of {name}")


def gone(running: Daemon, name: str) -> None:
    wait(lambda: running.ask("get", f"/participants/{name}").status_code == 404, f"{name} is gone")


def test_a_participant_is_created_once_watched_changed_and_removed(running: Daemon) -> None:
    spec = {"room": "meeting", "name": "Zwei"}
    first = running.ask("put", "/participants/two", spec)
    again = running.ask("put", "/participants/two", spec)
    assert (first.status_code, again.status_code) == (201, 200)
    assert first.headers["Location"] == "/api/v1/participants/two"
    assert running.ask("put", "/participants/two", {"room": "elsewhere"}).json()["code"] == "exists"
    view = active(running, "two")
    assert view["in_room"]
    assert view["others"] == 1
    assert {"websocket", "muc", "ice", "dtls", "first_packet_in"} <= set(view["phases"])
    assert view["media"]["bitrate_sent"] > 0
    assert {item["source"].partition("-")[2] for item in view["media"]["streams"]} == {"a0", "v0"}

    change = {
        "audio_muted": True,
        "video": "none",
        "layout": {"mode": "stage", "stage": ["speaker"]},
        "name": "Dos",
    }
    view = running.ask("patch", "/participants/two", change).json()
    assert [(item["source"], item["muted"]) for item in view["sources"]] == [("a0", True), ("v0", True)]
    assert view["layout"] == "stage"
    view = running.ask(
        "patch", "/participants/two", {"audio_muted": False, "audio": "tone", "video": "pattern"}
    ).json()
    assert [item["muted"] for item in view["sources"]] == [False, False]
    assert running.ask("post", "/participants/two/messages", {"text": "Hallo"}).status_code == 204

    def heard(name: str) -> Any:
        return running.ask("get", f"/log?owner=meeting.jitsi-bot&name={name}").json()["items"]

    said = wait(lambda: heard("chat_message_received"), "the message")[-1]
    assert (said["fields"]["body"], said["fields"]["nick"]) == ("Hallo", "Dos")
    assert running.ask("delete", "/participants/two").status_code == 202
    gone(running, "two")
    assert wait(lambda: heard("participant_left"), "it has left")
    assert running.ask("delete", "/participants/two").status_code == 404


def test_nobody_talks_who_is_in_no_room(running: Daemon) -> None:
    running.ask("put", "/participants/lost", {"room": "lost", "rejoin": False, "duration": 0.05})
    wait(lambda: running.ask("get", "/participants/lost").json()["state"] == "left", "its time is over")
    refused = running.ask("post", "/participants/lost/messages", {"text": "hello?"})
    assert (refused.status_code, refused.json()["code"]) == (409, "not_in_room")
    running.ask("delete", "/participants/lost")
    gone(running, "lost")


def frames(answer: requests.Response) -> Iterator[dict[str, str]]:
    """Server-sent events of a stream, as fields by name."""
    found: dict[str, str] = {}
    for raw in answer.iter_lines(chunk_size=1):
        line = raw.decode()
        if not line and found:
            yield found
            found = {}
        name, _, value = line.partition(": ")
        if name:
            found[name] = value


def test_events_are_streamed_and_a_reader_that_was_away_gets_what_it_missed(running: Daemon) -> None:
    with running.ask("get", "/events?owner=three", stream=True) as answer:
        assert answer.headers["Content-Type"] == "text/event-stream; charset=utf-8"
        running.ask("put", "/participants/three", {"room": "meeting"})
        seen = list(islice(frames(answer), 3))
    assert [item["event"] for item in seen] == ["state_changed", "connection_creating", "phase_done"]
    assert json.loads(seen[1]["data"])["fields"]["participant"] == "jitsi-bot"
    active(running, "three")
    headers = {"Last-Event-ID": seen[0]["id"]}
    with running.ask("get", "/events?owner=three", stream=True, headers=headers) as answer:
        assert list(islice(frames(answer), 2)) == seen[1:]
    with running.ask("get", "/events", stream=True, headers={"Last-Event-ID": "another-process-7"}) as answer:
        assert next(frames(answer))["id"].endswith("-1")
    running.ask("delete", "/participants/three")
    gone(running, "three")


@pytest.mark.parametrize(
    ("token", "method", "path", "status"),
    [
        (None, "get", "/status", 401),
        ("wrong-but-long-enough", "get", "/status", 401),
        ("", "get", "/status", 401),
        (READ, "get", "/status", 200),
        (READ, "delete", "/participants/two", 403),
        (OPERATE, "get", "/status", 200),
        ("another-one-of-them", "delete", "/participants/nobody", 404),
        (None, "get", "/openapi.json", 200),
    ],
)
def test_who_may_do_what(running: Daemon, token: str | None, method: str, path: str, status: int) -> None:
    headers = {"Authorization": f"Bearer {token}"} if token is not None else {}
    answer = requests.request(method, running.url + path, headers=headers, timeout=20, proxies={"http": ""})
    assert answer.status_code == status
    assert ("WWW-Authenticate" in answer.headers) == (status in {401, 403})


@pytest.mark.parametrize(
    ("spec", "status", "code"),
    [
        ({"room": "r", "server": "ws://127.0.0.1:1"}, 403, "server_not_allowed"),
        ({"room": "r", "audio": "file:../secret.wav"}, 422, "invalid"),
        ({"room": "r", "audio": "file:/etc/passwd"}, 422, "invalid"),
        ({"room": "r", "audio": "file:link.wav"}, 409, "no_such_file"),
        ({"room": "r", "audio": "file:nothing.wav"}, 409, "no_such_file"),
        ({"room": "r", "audio": "file:text.wav"}, 409, "media_unusable"),
        ({"room": "r", "unknown": 1}, 422, "invalid"),
        ({"room": "a/b"}, 422, "invalid"),
        ({"room": "r", "duration": "5"}, 422, "invalid"),
        ({}, 422, "invalid"),
    ],
    ids=json.dumps,
)
def test_what_is_refused(running: Daemon, spec: Any, status: int, code: str) -> None:
    answer = running.ask("put", "/participants/refused", spec)
    assert (answer.status_code, answer.json()["code"]) == (status, code)
    assert answer.headers["Content-Type"].startswith("application/problem+json")
    assert running.ask("get", "/participants/refused").status_code == 404


def test_numbers_and_sizes_are_limited(running: Daemon) -> None:
    answers = [running.ask("put", f"/participants/many-{at}", {"room": "many"}) for at in range(4)]
    assert [item.status_code for item in answers] == [201, 201, 201, 409]
    assert answers[-1].json()["code"] == "too_many_participants"
    assert running.ask("get", "/status").json()["participants"] == 4
    for at in range(3):
        running.ask("delete", f"/participants/many-{at}")
    for at in range(3):
        gone(running, f"many-{at}")
    wait(lambda: running.ask("get", "/status").json()["participants"] == 1, "the seats are free")
    assert running.ask("put", "/participants/large", {"room": "x" * 70_000}).status_code == 413
    plain = running.ask("put", "/participants/text", headers={"Content-Type": "text/plain"})
    assert plain.status_code == 415
    assert running.ask("post", "/participants").headers["Allow"] == "GET"


def test_without_a_token_no_page_of_elsewhere_is_answered(tmp_path: Path) -> None:
    with daemon(tmp_path, token=None) as found:
        own = {"Origin": found.base}
        assert found.ask("get", "/status", headers=own).json()["scope"] == "operate"
        for headers in (
            {"Origin": "https://evil.example"},
            {"Origin": "null"},
            {"Host": "evil.example"},
            {"Host": f"evil.example:{found.port}", "Origin": f"http://evil.example:{found.port}"},
        ):
            assert found.ask("get", "/participants", headers=headers).status_code == 403, headers


def test_other_machines_are_not_served_without_a_token() -> None:
    result = CliRunner().invoke(app, ["serve-api", "--http-host", "0.0.0.0", "--http-port", "0"])
    assert result.exit_code == 2
    assert "JITSI_API_OPERATE_TOKENS" in result.output


def test_a_daemon_that_ends_is_alive_not_ready_and_begins_nothing_more(tmp_path: Path) -> None:
    """A server that swallows what it is sent: who is in the midst of joining leaves late, or is made to."""
    with socket.create_server(("127.0.0.1", 0)) as deaf:
        url = f"ws://127.0.0.1:{deaf.getsockname()[1]}"
        environment = {"JITSI_API_SERVERS": url, "JITSI_API_DRAIN_TIMEOUT": "15"}
        with daemon(tmp_path, environment=environment) as found:
            found.ask("put", "/participants/here", {"room": "r"})
            wait(lambda: found.ask("get", "/participants/here").json()["in_room"], "it is in the room")
            assert get(found, "/readyz") == 200
            found.ask("put", "/participants/stuck", {"room": "r", "server": url})
            assert (get(found, "/healthz"), get(found, "/readyz")) == (200, 503)
            with found.ask("get", "/events", stream=True) as stream:
                os.kill(found.process.pid, signal.SIGTERM)
                names = [item["event"] for item in frames(stream) if "event" in item]
            assert names.count("left") == 2
            assert found.process.wait(20) == 0
            assert found.lines("api_drain_timeout") == []


def get(found: Daemon, path: str) -> int:
    """The status of what is beside the API."""
    return requests.get(f"{found.base}{path}", timeout=20, proxies={"http": ""}).status_code
