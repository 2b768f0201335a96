"""The compose file, its examples of .env and the shipped bot.toml: they fit each other and the settings."""

import re
import shlex
import subprocess
from pathlib import Path
from typing import Any, get_args
from urllib.parse import urlsplit

import pytest
import typer
import yaml
from pydantic import BaseModel, SecretStr

from bot.cli import app
from bot.control.options import ApiSettings
from bot.monitor.settings import ProbeSettings
from bot.monitor.watch_settings import WatchSettings
from bot.participant.config import expand
from bot.recording.options import RecordOptions
from bot.settings import SECRETS, Settings, environment_name, load
from tests.requirements import require

ROOT = Path(__file__).parent.parent
PROFILES = ("dev", "production")
#: Profiles that an example is for; the jobs are told where they go as the bot is.
JOBS = ("bot", "probe", "watch", "record", "load", "api", "monitoring")
SERVED = {"dev": ("dev",), "production": ("production", *JOBS)}
JITSI = ("web", "prosody", "jicofo", "jvb")
BOTS = {"dev": "bot", "production": "bot-production"}
#: Not set from outside: groups stand in the TOML file; the embedded server is for use without containers.
NOT_IN_CONTAINERS = {"participants", "embedded_port", "rooms"}
VARIABLE = re.compile(r"\$\{(?P<name>[A-Z0-9_]+)(?::-(?P<default>[^}]*))?\}")


def parse(words: list[str]) -> None:
    """Raise what the command line says of flags and commands that there are not; nothing is run."""
    command: Any = typer.main.get_command(app)
    context = command.make_context("jitsi-bot", list(words))
    rest = [*context._protected_args, *context.args]
    name, found, arguments = command.resolve_command(context, rest)
    found.make_context(name, arguments, parent=context)


def parsed(text: str) -> dict[str, Any]:
    found: object = yaml.safe_load(text)
    assert isinstance(found, dict)
    return found


def compose() -> dict[str, Any]:
    return parsed((ROOT / "docker-compose.yml").read_text())


def service(name: str) -> dict[str, Any]:
    found = compose()["services"][name]
    assert isinstance(found, dict)
    return found


def example(profile: str) -> dict[str, str]:
    lines = (ROOT / "config" / f"env.{profile}.example").read_text().splitlines()
    pairs = (line.partition("=") for line in lines if line and not line.startswith("#"))
    return {name: value for name, _, value in pairs}


def filled_in(text: str, variables: dict[str, str] | None = None) -> str:
    """``text`` as compose reads it: ``${NAME:-default}`` stands for the default where NAME is unset or empty."""
    given = variables or {}
    return VARIABLE.sub(lambda found: given.get(found["name"]) or found["default"] or "", text)


def variables_of(profile: str) -> set[str]:
    """What the example's services ask for, by ``${NAME}`` or by a variable handed on without a value."""
    found = {match["name"] for match in VARIABLE.finditer(str(compose()["secrets"]))}
    for values in compose()["services"].values():
        if set(SERVED[profile]) & set(values["profiles"]):
            found |= {match["name"] for match in VARIABLE.finditer(str(values))}
            found |= {key for key, value in values.get("environment", {}).items() if value is None}
    return found


def twins() -> set[str]:
    names = {environment_name(field) for field in Settings.model_fields if field not in NOT_IN_CONTAINERS}
    return names | {f"{environment_name(secret)}_FILE" for secret in SECRETS} | {"JITSI_CONFIG"}


def test_dev_is_a_whole_jitsi_with_the_bot_and_production_the_bot_alone() -> None:
    by_profile: dict[str, set[str]] = {profile: set() for profile in (*PROFILES, *JOBS)}
    for name, values in compose()["services"].items():
        for profile in values["profiles"]:
            by_profile[profile].add(name)
    assert by_profile == {
        "dev": {*JITSI, "bot"},
        "production": {"bot-production"},
        "bot": {"bot-production"},
        "monitoring": {"prometheus", "grafana"},
        **{name: {name} for name in ("probe", "watch", "record", "load", "api")},
    }


@pytest.mark.parametrize(
    ("name", "ports"),
    [
        ("web", ["8000:80", "8443:443"]),
        ("prosody", []),
        ("jicofo", ["127.0.0.1:8888:8888"]),
        ("jvb", ["10000:10000/udp"]),
        ("bot", ["127.0.0.1:8080:8080"]),
        ("bot-production", ["127.0.0.1:8080:8080"]),
        ("probe", ["127.0.0.1:8081:8080"]),
        ("watch", ["127.0.0.1:8082:8080"]),
        ("load", ["127.0.0.1:8083:8080"]),
        ("record", []),
        ("api", ["127.0.0.1:8084:8080"]),
        ("prometheus", ["127.0.0.1:9090:9090"]),
        ("grafana", ["127.0.0.1:3000:3000"]),
    ],
)
def test_published_ports_are_those_of_docker_jitsi_meet(name: str, ports: list[str]) -> None:
    assert [filled_in(port) for port in service(name).get("ports", [])] == ports


def test_prosody_is_reached_inside_the_network_only_and_by_its_name() -> None:
    prosody = service("prosody")
    assert "5280" in prosody["expose"]
    assert prosody["networks"]["meet.jitsi"]["aliases"] == [service("jvb")["environment"]["XMPP_SERVER"]]


def test_jitsis_images_are_of_one_pinned_version_that_a_variable_changes() -> None:
    images = {name: service(name)["image"] for name in JITSI}
    for name, image in images.items():
        assert re.fullmatch(rf"jitsi/{name}:stable-\d+(-\d+)?", filled_in(image))
        assert filled_in(image, {"JITSI_IMAGE_VERSION": "other"}) == f"jitsi/{name}:other"
    assert len({filled_in(image).partition(":")[2] for image in images.values()}) == 1


@pytest.mark.parametrize(
    ("name", "model", "job"),
    [
        ("probe", ProbeSettings, "probe"),
        ("watch", WatchSettings, "watch"),
        ("record", RecordOptions, "record"),
        ("api", ApiSettings, "api"),
    ],
)
def test_a_jobs_variables_are_all_its_settings_beside_the_bots(
    name: str, model: type[BaseModel], job: str
) -> None:
    own = {environment_name(f"{job}_{field}") for field in model.model_fields if field not in NOT_IN_CONTAINERS}
    own |= {
        f"{environment_name(f'{job}_{field}')}_FILE"
        for field, info in model.model_fields.items()
        if SecretStr in (info.annotation, *get_args(info.annotation))
    }
    assert set(service(name)["environment"]) == twins() | own


def test_recordings_and_reports_go_to_volumes() -> None:
    assert service("record")["environment"]["JITSI_RECORD_OUT"] == "/data"
    assert "recordings:/data" in service("record")["volumes"]
    assert "reports:/data" in service("load")["volumes"]
    assert "api:/data" in service("api")["volumes"]
    written = [service("api")["environment"][f"JITSI_API_{name}_DIR"] for name in ("RECORDINGS", "REPORTS")]
    assert all(path.startswith("/data/") for path in written)


def test_the_api_has_time_to_drain() -> None:
    grace = re.fullmatch(r"(\d+)s", service("api")["stop_grace_period"])
    assert grace is not None
    assert int(grace[1]) > ApiSettings().drain_timeout


@pytest.mark.parametrize("words", ["prob", "probe --nothing", "load many-small-rooms --room"])
def test_a_command_that_there_is_not_is_found(words: str) -> None:
    with pytest.raises(Exception, match="No such"):
        parse(words.split())


@pytest.mark.parametrize("name", ["probe", "watch", "record", "load", "api"])
def test_what_a_job_runs_is_a_command_that_there_is(name: str) -> None:
    command = service(name)["command"]
    words = shlex.split(filled_in(command)) if isinstance(command, str) else command
    parse(words)


@pytest.mark.parametrize("name", ["prometheus", "grafana", "probe", "watch", "record", "load", "api"])
def test_jobs_and_monitoring_have_no_more_rights_than_they_need(name: str) -> None:
    found = service(name)
    assert found["read_only"] is True
    assert found["cap_drop"] == ["ALL"]
    assert found["security_opt"] == ["no-new-privileges:true"]
    assert found["mem_limit"]
    assert found["pids_limit"]
    assert not {"privileged", "cap_add", "devices", "user"} & set(found)


def test_no_password_of_grafana_is_shipped() -> None:
    environment = service("grafana")["environment"]
    assert environment["GF_SECURITY_ADMIN_PASSWORD__FILE"] == "/run/secrets/grafana_password"
    assert "GF_SECURITY_ADMIN_PASSWORD" not in environment
    assert not (ROOT / filled_in(compose()["secrets"]["grafana_password"]["file"])).is_file() or not tracked(
        "config/grafana_password"
    )


def tracked(path: str) -> bool:
    done = subprocess.run(["git", "ls-files", "--error-unmatch", path], cwd=ROOT, capture_output=True, check=False)
    return done.returncode == 0


def test_what_is_mounted_is_there() -> None:
    volumes = [volume for item in compose()["services"].values() for volume in item.get("volumes", [])]
    named = {volume.partition(":")[0] for volume in volumes if not volume.startswith("./")}
    assert named == set(compose()["volumes"])
    for volume in volumes:
        if volume.startswith("./"):
            assert (ROOT / volume.partition(":")[0]).is_dir()


@pytest.mark.parametrize("name", BOTS.values())
def test_the_bot_has_no_more_rights_than_it_needs(name: str) -> None:
    bot = service(name)
    assert bot["read_only"] is True
    assert bot["cap_drop"] == ["ALL"]
    assert bot["security_opt"] == ["no-new-privileges:true"]
    assert bot["tmpfs"] == ["/tmp"]
    assert bot["volumes"] == ["./config:/config:ro"]
    assert bot["restart"] == "unless-stopped"
    assert not {"privileged", "cap_add", "devices", "user"} & set(bot)


@pytest.mark.parametrize("name", BOTS.values())
def test_the_bot_has_time_to_leave_its_rooms(name: str) -> None:
    grace = re.fullmatch(r"(\d+)s", service(name)["stop_grace_period"])
    assert grace is not None
    assert int(grace[1]) > load().leave_timeout


def test_the_bot_starts_after_what_it_talks_to() -> None:
    assert service("bot")["depends_on"] == ["web", "prosody"]
    assert "depends_on" not in service("bot-production")


@pytest.mark.parametrize("name", BOTS.values())
def test_the_bots_variables_are_all_the_settings_and_nothing_else(name: str) -> None:
    """A new setting gets a line in docker-compose.yml (x-settings), or has its reason in NOT_IN_CONTAINERS."""
    assert set(service(name)["environment"]) == twins()


@pytest.mark.parametrize("profile", PROFILES)
def test_each_example_defines_what_its_services_ask_for_without_a_default(profile: str) -> None:
    served = set(SERVED[profile])
    services = [values for values in compose()["services"].values() if served & set(values["profiles"])]
    asked = {
        match["name"] for values in services for match in VARIABLE.finditer(str(values)) if not match["default"]
    }
    assert asked
    assert asked <= set(example(profile))


@pytest.mark.parametrize("profile", PROFILES)
def test_each_example_sets_only_what_something_reads(profile: str) -> None:
    text = (ROOT / "config" / f"env.{profile}.example").read_text()
    shown = set(re.findall(r"^#?([A-Z][A-Z0-9_]+)=", text, re.MULTILINE))
    assert set(example(profile)) <= shown
    assert shown <= variables_of(profile)


def test_all_other_variables_of_the_compose_file_have_a_default_or_stand_in_an_example() -> None:
    known = set(example("dev")) | set(example("production"))
    for match in VARIABLE.finditer((ROOT / "docker-compose.yml").read_text()):
        assert match["default"] or match["name"] in known


@pytest.mark.parametrize("profile", PROFILES)
def test_each_examples_settings_are_valid(profile: str, monkeypatch: pytest.MonkeyPatch) -> None:
    for name, value in service(BOTS[profile])["environment"].items():
        given = example(profile).get(name) if value is None else filled_in(str(value), example(profile))
        if given is not None:
            monkeypatch.setenv(name, given)
    found = load(ROOT / "config" / "bot.toml")
    assert found.http_host == "0.0.0.0"
    assert found.log_format == "json"
    assert found.ws_url == {"dev": "ws://web:80", "production": "wss://meet.example.com"}[profile]


def test_the_bots_address_is_the_port_that_web_listens_on() -> None:
    address = urlsplit(filled_in(service("bot")["environment"]["JITSI_WS_URL"]))
    assert (address.scheme, address.hostname) == ("ws", "web")
    assert filled_in(service("web")["ports"][0]) == f"8000:{address.port}"
    assert service("web")["environment"]["ENABLE_HTTP_REDIRECT"] == 0
    assert service("web")["environment"]["ENABLE_XMPP_WEBSOCKET"] == 1


@pytest.mark.parametrize("name", JITSI)
def test_jitsis_domains_are_the_bots_defaults(name: str) -> None:
    environment, defaults = service(name)["environment"], load()
    assert environment["XMPP_DOMAIN"] == defaults.domain
    assert environment["XMPP_MUC_DOMAIN"] == defaults.rooms_domain


def test_no_password_is_shipped() -> None:
    secrets = {name: value for name, value in example("dev").items() if "PASSWORD" in name or "SECRET" in name}
    assert set(secrets) == {"JICOFO_AUTH_PASSWORD", "JVB_AUTH_PASSWORD", "JICOFO_COMPONENT_SECRET"}
    assert not any(secrets.values())


def test_the_shipped_file_has_several_participants_in_several_rooms() -> None:
    participants = expand(load(ROOT / "config" / "bot.toml"))
    assert len(participants) > len({one.room for one in participants}) > 1
    assert {(one.audio, one.video) for one in participants} > {("none", "none")}


def test_the_shipped_file_explains_every_setting() -> None:
    explained = False
    for line in (ROOT / "config" / "bot.toml").read_text().splitlines():
        if " = " in line and not line.startswith("#"):
            explained = explained or "#" in line
            assert explained, f"no comment at or above {line!r}"
        else:  # a comment explains the lines below it, up to the next empty one
            explained = line.startswith("#") or (explained and bool(line))


@pytest.mark.image
@pytest.mark.parametrize("profile", PROFILES)
def test_compose_itself_accepts_file_and_example(profile: str) -> None:
    require("docker-compose")
    result = subprocess.run(
        [
            *("docker-compose", "--env-file", f"config/env.{profile}.example"),
            *(word for one in SERVED[profile] for word in ("--profile", one)),
            "config",
        ],
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=50,
        check=False,
    )
    assert result.returncode == 0, result.stderr
    bot = parsed(result.stdout)["services"][BOTS[profile]]
    assert bot["environment"]["JITSI_WS_URL"] == example(profile)["JITSI_WS_URL"]
    assert bot["environment"]["JITSI_DOMAIN"] == example(profile)["JITSI_DOMAIN"]
    assert bot["environment"].get("JITSI_ROOM") is None
    assert bot["read_only"] is True
