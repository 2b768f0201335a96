"""The files of config/locust: what their validators take, with options and ports that Locust has."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import yaml

from tests.requirements import require
from tests.test_deployment import installed, kustomized, pod, run

ROOT = Path(__file__).parents[1]
FOLDER = ROOT / "config" / "locust"
COMPOSE: dict[str, Any] = yaml.safe_load((FOLDER / "docker-compose.yml").read_text())
ENTRY = ["tini", "--", "locust", "-f", "/locust/locustfile.py"]


def deployments() -> dict[str, dict[str, Any]]:
    found = yaml.safe_load_all((FOLDER / "kubernetes.yaml").read_text())
    return {item["metadata"]["name"]: pod(item) for item in found if item["kind"] == "Deployment"}


def commands() -> Iterator[list[str]]:
    for service in COMPOSE["services"].values():
        yield [*service["entrypoint"], *service["command"]]
    for spec in deployments().values():
        yield [*spec["containers"][0]["command"], *spec["containers"][0]["args"]]


def test_compose_reads_the_file() -> None:
    require("docker-compose")
    given = os.environ | {"LOCUST_HOST": "wss://meet.example.com"}
    command = ["docker-compose", "-f", "config/locust/docker-compose.yml", "config"]
    done = subprocess.run(command, cwd=ROOT, env=given, capture_output=True, text=True, timeout=50, check=False)
    assert done.returncode == 0, done.stderr
    read = yaml.safe_load(done.stdout)["services"]
    assert read["master"]["environment"]["LOCUST_HOST"] == "wss://meet.example.com"
    assert read["master"]["build"]["args"] == {"EXTRAS": "locust"}


def test_compose_own_schema_and_kubernetes_take_the_files() -> None:
    file = "config/locust/docker-compose.yml"
    run(sys.executable, "-m", "check_jsonschema", "--builtin-schema", "vendor.compose-spec", file)
    run(installed("kubernetes-validate"), "--strict", "config/locust/kubernetes.yaml")


def test_kustomize_gives_all_pods_the_locustfile() -> None:
    built = kustomized(FOLDER)
    [shipped] = [item for item in built if item["kind"] == "ConfigMap"]
    assert shipped["data"] == {"locustfile.py": (FOLDER / "locustfile.py").read_text()}
    specs = [pod(item) for item in built if item["kind"] == "Deployment"]
    volumes = [volume for spec in specs for volume in spec["volumes"] if volume["name"] == "locustfile"]
    assert [item["configMap"]["name"] for item in volumes] == [shipped["metadata"]["name"]] * 2


def test_the_commands_are_what_locust_knows() -> None:
    found = list(commands())
    assert len(found) == 4
    assert all(command[: len(ENTRY)] == ENTRY for command in found)
    locust = (sys.executable, "-m", "locust", "-f", "config/locust/locustfile.py")
    known = run(*locust, "--help")
    for option in {word for command in found for word in command[len(ENTRY) :] if word.startswith("-")}:
        assert re.search(rf"{option}\b", known), option
    assert run(*locust, "--list").split() == ["Available", "Users:", "Participant"]


def test_a_worker_finds_its_master_and_has_time_to_leave() -> None:
    *_, host = deployments()["jitsi-load-worker"]["containers"][0]["args"]
    objects = yaml.safe_load_all((FOLDER / "kubernetes.yaml").read_text())
    [service] = [item for item in objects if item["kind"] == "Service"]
    assert service["metadata"]["name"] == host
    assert {item["port"] for item in service["spec"]["ports"]} == {5557, 8089}
    assert COMPOSE["services"]["worker"]["command"][-1] in COMPOSE["services"]
    assert deployments()["jitsi-load-worker"]["terminationGracePeriodSeconds"] == 30
    assert COMPOSE["services"]["worker"]["stop_grace_period"] == "30s"


def test_nobody_but_this_machine_and_the_workers_reach_the_master() -> None:
    assert all(port.startswith(("127.0.0.1:", "${LOCUST_MASTER_BIND:-127.0.0.1}:")) for port in ports())
    objects = yaml.safe_load_all((FOLDER / "kubernetes.yaml").read_text())
    [policy] = [item["spec"] for item in objects if item["kind"] == "NetworkPolicy"]
    assert policy["podSelector"]["matchLabels"]["role"] == "master"
    [rule] = policy["ingress"]
    assert rule["from"] == [{"podSelector": {"matchLabels": {"app": "jitsi-load", "role": "worker"}}}]
    for spec in deployments().values():
        assert spec["enableServiceLinks"] is False  # JITSI_LOAD_PORT would look like a setting
        assert spec["containers"][0]["securityContext"]["readOnlyRootFilesystem"] is True


def ports() -> list[str]:
    return [port for service in COMPOSE["services"].values() for port in service.get("ports", ())]
