"""The Dockerfile: built, and run as compose runs it, read-only, without rights and against nobody."""

import json
import os
import re
import signal
import time
from collections.abc import Callable, Iterator

import pytest

from bot import __version__
from bot.participant.config import expand
from bot.settings import load
from tests.image import CONFIG, ROOT, Container, Image, built

pytestmark = [pytest.mark.image, pytest.mark.timeout(900)]  # the first test waits for the build

ASK = """
import sys, urllib.error, urllib.request
try:
    answer = urllib.request.urlopen(sys.argv[1], timeout=5)
except urllib.error.HTTPError as error:
    answer = error
print(answer.status, answer.read().decode())
"""


@pytest.fixture(scope="module")
def image(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Image]:
    with built(tmp_path_factory.mktemp("image")) as found:
        yield found


def get(container: Container, path: str, port: int = 8080) -> tuple[int, str]:
    """Status and body of an answer of the daemon, asked from inside; status 0 where nobody listens."""
    answer = container.execute("python", "-c", ASK, f"http://127.0.0.1:{port}{path}")
    status, _, body = (answer.stdout if answer.returncode == 0 else "0").partition(" ")
    return int(status), body


def ask(container: Container, path: str, port: int = 8080) -> int:
    return get(container, path, port)[0]


def until(condition: Callable[[], bool], seconds: float = 60) -> None:
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end
        time.sleep(0.1)


def test_the_program_is_of_this_version(image: Image) -> None:
    assert image.output("version") == f"jitsi-bot {__version__}\n"


def test_the_innermost_modules_are_compiled(image: Image) -> None:
    [found] = (image.root / "opt/venv/lib").glob("python3*/site-packages/bot/engine/streams.*.so")
    assert found.stat().st_size > 0


def test_without_a_file_the_settings_are_the_defaults(image: Image) -> None:
    assert json.loads(image.output("check-config"))["participants"] == []


def test_a_mounted_file_is_read(image: Image) -> None:
    found = json.loads(image.output("check-config", config=CONFIG))
    assert [group["room"] for group in found["participants"]] == [
        group.room for group in load(CONFIG / "bot.toml").participants
    ]


def test_the_versions_are_those_of_the_constraints(image: Image) -> None:
    pinned = dict(
        line.lower().replace("_", "-").split("==")
        for line in (ROOT / "constraints.txt").read_text().splitlines()
        if "==" in line
    )
    found = {}
    for folder in image.root.glob("opt/venv/lib/python3*/site-packages/*.dist-info"):
        name, _, version = folder.name.removesuffix(".dist-info").partition("-")
        found[name.lower().replace("_", "-")] = version
    assert found.pop("jitsi-bot") == __version__
    assert "aiortc" in found
    assert "pytest" not in found
    assert {name: pinned.get(name) for name in found} == found


def test_the_daemon_without_rights_on_a_read_only_root(image: Image) -> None:
    """Against nobody: alive and not ready; SIGTERM ends it with 0."""
    with image.container(config=CONFIG, environment={"JITSI_RETRIES": "0"}) as container:
        container.until_healthy()
        assert ask(container, "/healthz") == 200
        assert ask(container, "/readyz") == 503
        assert ask(container, "/metrics") == 200
        assert container.status("Name") == "tini"
        assert container.status("Uid").split() == ["10001"] * 4
        assert int(container.status("CapEff"), 16) == 0
        assert container.status("NoNewPrivs") == "1"
        probe = container.execute("python", "-c", "import os; print(os.statvfs('/').f_flag & os.ST_RDONLY)")
        assert probe.stdout == "1\n"
        begin = time.monotonic()
        os.kill(container.first, signal.SIGTERM)
        _, logged = container.process.communicate(timeout=30)
        assert time.monotonic() - begin < 5
        assert container.process.returncode == 0
    lines = [json.loads(line) for line in logged.splitlines()]
    failed = {line["room"] for line in lines if line["event_name"] == "join_failed"}
    assert failed == {one.room for one in expand(load(CONFIG / "bot.toml"))}


def test_two_bots_have_media_in_the_image_alone(image: Image) -> None:
    """All that codecs, DTLS and SRTP need is in the image, and nothing wants to write to its root."""
    received = re.compile(r'^jitsi_bot_packets_total{direction="received"} [1-9]', re.MULTILINE)
    arguments = ("run", "--daemon", "--embedded")
    with image.container(*arguments, environment={"JITSI_STATISTICS_INTERVAL": "0.5"}) as container:
        until(lambda: ask(container, "/readyz") == 200)
        until(lambda: received.search(get(container, "/metrics")[1]) is not None)
        os.kill(container.first, signal.SIGTERM)
        _, logged = container.process.communicate(timeout=30)
    assert container.process.returncode == 0
    names = [json.loads(line)["event_name"] for line in logged.splitlines()]
    assert names.count("local_tracks_created") == 2


def test_a_daemon_that_does_not_listen_there_is_found_unhealthy(image: Image) -> None:
    with image.container("run", "--daemon", "--http-port", "8081", config=CONFIG) as container:
        until(lambda: ask(container, "/healthz", port=8081) == 200)
        assert container.check_health().returncode != 0


def test_the_health_check_follows_the_port_of_the_environment(image: Image) -> None:
    with image.container(environment={"JITSI_HTTP_PORT": "8081"}) as container:
        container.until_healthy()
        assert ask(container, "/healthz", port=8081) == 200
