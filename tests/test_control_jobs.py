"""Recordings, load runs and probes by the API of a daemon that runs, and what they leave to download."""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import av
import pytest
import requests

from tests.control_support import READ, Daemon, daemon, wait


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    found = tmp_path_factory.mktemp("jobs")
    (found / "secret").mkdir()
    (found / "secret" / "key.txt").write_text("secret")
    (found / "recordings" / "old").mkdir(parents=True)
    (found / "recordings" / "old" / "talk.webm").write_bytes(b"0123456789")
    (found / "recordings" / "old" / "link.webm").symlink_to(found / "secret" / "key.txt")
    (found / "recordings" / "linked").symlink_to(found / "secret")
    return found


@pytest.fixture(scope="module")
def running(folder: Path) -> Iterator[Daemon]:
    with daemon(folder, "--max-participants", "6", "--bots", "1", "--room", "meeting") as found:
        yield found


def over(running: Daemon, path: str) -> Any:
    """The job, once it has ended."""

    def ended() -> Any:
        view = running.ask("get", path).json()
        return view if view["state"] in {"done", "failed"} else None

    return wait(ended, f"{path} is over", 40)


def fetch(running: Daemon, url: str, **headers: str) -> requests.Response:
    """A download, without a token."""
    return requests.get(running.base + url, headers=headers, timeout=20, proxies={"http": ""})


def test_a_recording_is_made_stopped_downloaded_and_played(running: Daemon) -> None:
    spec = {"room": "meeting"}
    answers = [running.ask("put", "/recordings/rec", spec) for _ in range(2)]
    assert [item.status_code for item in answers] == [201, 200]
    assert running.ask("put", "/recordings/rec", {"room": "other"}).json()["code"] == "exists"
    assert running.ask("put", "/recordings/more", spec).json()["code"] == "busy"

    def has_media() -> Any:
        files = running.ask("get", "/recordings/rec").json()["files"]
        return sum(item["bytes"] > 1000 for item in files) >= 2

    wait(has_media, "files with media")
    assert running.ask("delete", "/recordings/rec").json()["code"] == "running"
    assert running.ask("post", "/recordings/rec/stop").status_code == 202
    view = over(running, "/recordings/rec")
    assert (view["state"], view["end_cause"], view["participants"]) == ("done", "stopped", ["jitsi-bot"])
    assert running.ask("post", "/recordings/rec/stop").json()["state"] == "done"
    files = {item["name"]: item for item in view["files"]}
    assert json.loads(fetch(running, files["manifest.json"]["url"]).content)["room"] == "meeting"
    [picture] = [item for name, item in files.items() if "-v0-" in name]
    whole = fetch(running, picture["url"])
    assert len(whole.content) == picture["bytes"]
    assert "sandbox" in whole.headers["Content-Security-Policy"]
    part = fetch(running, picture["url"], Range="bytes=0-3")
    assert (part.status_code, part.content) == (206, whole.content[:4])
    listed = running.ask("get", "/recordings").json()["items"]
    assert [item["id"] for item in listed] == ["old", "rec"]
    assert running.ask("delete", "/recordings/rec").status_code == 204
    listed = running.ask("get", "/recordings").json()["items"]
    assert [item["id"] for item in listed] == [
        view["folder"],
        "old",
    ]  # by its folder's name, now that it has no other


def test_what_was_recorded_plays(running: Daemon, folder: Path) -> None:
    [made] = [item for item in (folder / "recordings").iterdir() if item.name.startswith("meeting-")]
    [file] = made.glob("*-v0-*")
    with av.open(str(file)) as container:
        assert next(container.decode(video=0)).width == 640


@pytest.mark.parametrize(
    "path",
    [
        "/recordings/old/files/link.webm",
        "/recordings/old/files/..%2Fsecret%2Fkey.txt",
        "/recordings/old/files/%2Fetc%2Fpasswd",
        "/recordings/linked/files/key.txt",
        "/recordings/..%2Fsecret/files/key.txt",
        "/recordings/old/files/nothing",
        "/recordings/nothing",
    ],
)
def test_no_path_of_a_client_is_followed(running: Daemon, path: str) -> None:
    assert running.ask("get", "/recordings/old/files/talk.webm").content == b"0123456789"
    assert running.ask("get", path).status_code == 404


def test_a_ticket_is_for_one_file_and_a_reader_gets_one(running: Daemon) -> None:
    headers = {"Authorization": f"Bearer {READ}"}
    [file] = running.ask("get", "/recordings/old", headers=headers).json()["files"]
    assert fetch(running, file["url"]).content == b"0123456789"
    path, _, ticket = file["url"].partition("?")
    assert fetch(running, path).status_code == 401
    assert fetch(running, f"{path}?{ticket}0").status_code == 401
    assert fetch(running, f"{path.replace('talk', 'link')}?{ticket}").status_code == 401
    assert fetch(running, f"/api/v1/status?{ticket}").status_code == 401


def test_a_load_run_is_watched_and_leaves_its_report(running: Daemon) -> None:
    spec = {
        "participants": 2,
        "duration": 60,
        "height": "180",
        "simulcast": False,
        "thresholds": ["p95(join) < 30s"],
    }
    assert running.ask("put", "/loads/try", spec).status_code == 201
    assert running.ask("put", "/loads/other", spec).json()["code"] == "busy"
    wait(
        lambda: any(item["in_room"] == 2 for item in running.ask("get", "/loads/try").json()["series"]),
        "they came",
    )
    assert running.ask("post", "/loads/try/stop").status_code == 202
    view = over(running, "/loads/try")
    assert (view["state"], view["exit_code"], view["planned"], view["joined"]) == ("done", 0, 2, 2)
    assert [item["state"] for item in view["thresholds"]] == ["met"]
    files = {item["name"]: item for item in view["files"]}
    assert set(files) == {"report.json", "report.html", "junit.xml", "summary.md"}
    assert fetch(running, files["report.json"]["url"]).json()["participants"]["joined"] == 2
    assert fetch(running, files["report.html"]["url"]).headers["Content-Type"].startswith("text/html")


@pytest.mark.parametrize(
    ("spec", "said"),
    [
        ({"profile": "nothing"}, "no profile"),
        ({"thresholds": ["nonsense"]}, "nonsense"),
        ({"participants": 2, "senders": 3}, "senders"),
        ({"conferences": 1000, "participants": 1000}, "participants"),
        ({"participants": 7}, "limit"),
    ],
    ids=json.dumps,
)
def test_load_runs_that_can_not_be(running: Daemon, spec: Any, said: str) -> None:
    answer = running.ask("put", "/loads/refused", spec)
    assert (answer.status_code, said in answer.json()["detail"]) == (409, True), answer.text
    assert running.ask("get", "/loads/refused").status_code == 404


def test_a_probe_keeps_its_history_and_can_be_broken_off(running: Daemon) -> None:
    spec = {"duration": 2, "relay": "off", "thresholds": ["delay < 30s", "loss < 99%"]}
    assert running.ask("put", "/probes/once", spec).status_code == 201
    view = over(running, "/probes/once")
    [result] = view["results"]
    assert result["verdict"]["stage"] in {"none", "quality", "probe"}, result  # a busy machine misses limits
    assert result["measures"]["join"] > 0
    assert [item["pass"] for item in view["passes"]] == ["direct"]
    running.ask("put", "/probes/often", {**spec, "every": 3600})
    assert running.ask("post", "/probes/often/stop").status_code == 202
    assert over(running, "/probes/often")["results"] == []
    assert running.ask("delete", "/probes/often").status_code == 204
    assert running.ask("put", "/probes/wrong", {"thresholds": ["nonsense"]}).json()["code"] == "configuration"
    wait(lambda: running.ask("get", "/status").json()["participants"] == 1, "all seats are free")
    assert running.lines("job_failed") == running.lines("request_failed") == []
