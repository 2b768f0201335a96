"""The alert rules and the dashboard: valid for promtool, of metrics there are, with data in a Prometheus."""

from __future__ import annotations

import asyncio
import json
import re
import shutil
import subprocess
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import aiohttp
import pytest
import yaml

from bot.monitor.metrics import ProbeMetrics
from bot.monitor.model import ProbeResult
from bot.service.http import HealthServer
from tests.prosody import free_port
from tests.requirements import require
from tests.test_monitor_units import result

CONFIG = Path(__file__).parents[1] / "config"
PROMETHEUS = CONFIG / "prometheus"
RULES = PROMETHEUS / "jitsi-bot-probe.rules.yml"
NAME = re.compile(r"jitsi_bot_probe_[a-z_]+")


def known() -> set[str]:
    """The names of the samples that there are."""
    lines = ProbeMetrics().render().decode().splitlines()
    return {line.split()[2] for line in lines if line.startswith("# HELP")}


def rules() -> Iterator[dict[str, Any]]:
    for group in yaml.safe_load(RULES.read_text())["groups"]:
        yield from group["rules"]


def queries() -> list[str]:
    """Those of the dashboard, with the variable as Grafana fills it in for all."""
    panels = json.loads((CONFIG / "grafana" / "jitsi-bot-probe.json").read_text())["panels"]
    return [target["expr"].replace("$instance", ".*") for panel in panels for target in panel["targets"]]


@pytest.mark.parametrize("rule", list(rules()), ids=lambda rule: str(rule["alert"]))
def test_each_rule_asks_for_metrics_that_there_are(rule: dict[str, Any]) -> None:
    names = set(NAME.findall(f"{rule['expr']} {rule['annotations'].get('description', '')}"))
    assert names
    assert names <= known()
    assert rule["labels"]["severity"] in ("warning", "critical")


def test_the_dashboard_asks_for_metrics_that_there_are() -> None:
    dashboard = json.loads((CONFIG / "grafana" / "jitsi-bot-probe.json").read_text())
    assert {name for query in queries() for name in NAME.findall(query)} <= known()
    ids = [panel["id"] for panel in dashboard["panels"]]
    assert len(set(ids)) == len(ids)
    assert all(panel["gridPos"]["x"] + panel["gridPos"]["w"] <= 24 for panel in dashboard["panels"])


@pytest.mark.prometheus
@pytest.mark.parametrize(
    "arguments",
    [
        ("check", "rules", RULES.name),
        ("check", "config", "prometheus.yml"),
        ("test", "rules", "jitsi-bot-probe.test.yml"),
    ],
    ids=" ".join,
)
def test_promtool(arguments: tuple[str, ...]) -> None:
    require("promtool")
    done = subprocess.run(
        ["promtool", *arguments], cwd=PROMETHEUS, capture_output=True, text=True, timeout=50, check=False
    )
    assert done.returncode == 0, done.stdout + done.stderr


async def query(http: aiohttp.ClientSession, port: int, expression: str) -> list[Any]:
    async with http.get(f"http://127.0.0.1:{port}/api/v1/query", params={"query": expression}) as response:
        found = await response.json()
    assert found["status"] == "success", found
    return list(found["data"]["result"])


@pytest.mark.prometheus
async def test_a_prometheus_that_scrapes_has_data_for_each_query_of_the_dashboard(tmp_path: Path) -> None:
    require("prometheus")
    metrics = ProbeMetrics()
    metrics.show(with_certificate())
    server = HealthServer("127.0.0.1", 0, ready=lambda: True, metrics=metrics)
    await server.start()
    for file in PROMETHEUS.glob("*.rules.yml"):
        shutil.copy(file, tmp_path)
    config = yaml.safe_load((PROMETHEUS / "prometheus.yml").read_text())
    config["global"] = {"scrape_interval": "1s", "evaluation_interval": "1s"}
    config["scrape_configs"][0]["static_configs"] = [{"targets": [f"127.0.0.1:{server.bound_port}"]}]
    (tmp_path / "prometheus.yml").write_text(yaml.safe_dump(config))
    port = free_port()
    process = await asyncio.create_subprocess_exec(
        "prometheus",
        f"--config.file={tmp_path / 'prometheus.yml'}",
        f"--storage.tsdb.path={tmp_path / 'data'}",
        f"--web.listen-address=127.0.0.1:{port}",
        stdout=asyncio.subprocess.DEVNULL,
        stderr=asyncio.subprocess.DEVNULL,
    )
    try:
        async with aiohttp.ClientSession() as http, asyncio.timeout(45):
            while not await has_data(http, port):
                assert process.returncode is None
                await asyncio.sleep(0.3)
            await asyncio.sleep(2.5)  # a rate needs two samples
            without = [item for item in queries() if not await query(http, port, item)]
    finally:
        process.kill()
        await process.wait()
        await server.stop()
    assert without == []


async def has_data(http: aiohttp.ClientSession, port: int) -> bool:
    try:
        return bool(await query(http, port, "jitsi_bot_probe_success"))
    except aiohttp.ClientError:
        return False


def with_certificate() -> ProbeResult:
    found = result()
    [only] = found.passes
    return replace(found, passes=(replace(only, measures={**only.measures, "certificate": 60.0}),))
