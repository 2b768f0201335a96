"""A real Prometheus scrapes a real daemon: what it recorded, and the dashboard of the bots has data."""

from __future__ import annotations

import asyncio
import json
import re
import subprocess
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import aiohttp
import pytest
import yaml

from bot.monitor.meeting_metrics import MeetingMetrics
from bot.service.http import HealthServer
from bot.service.metrics import Metrics
from bot.service.runner import run_embedded
from bot.settings import load
from docs.pages import metrics_of, registries
from tests.prosody import free_port
from tests.requirements import require
from tests.test_monitor_watch import Meeting

CONFIG = Path(__file__).parents[1] / "config"
PROMETHEUS = CONFIG / "prometheus"
RULES = PROMETHEUS / "jitsi-bot.rules.yml"
NAME = re.compile(r"jitsi_bot_[a-z_]+")


def known() -> set[str]:
    """Names of all samples of daemon and monitor."""
    found = set()
    for registry in (Metrics().registry, MeetingMetrics().registry):
        for metric in metrics_of(registry):
            ends = ("_bucket", "_sum", "_count") if metric.kind == "histogram" else ("",)
            found |= {metric.name + end for end in ends}
    return found


def queries() -> list[str]:
    """Those of the dashboard, with its variables as Grafana fills them in."""
    panels = json.loads((CONFIG / "grafana" / "jitsi-bot.json").read_text())["panels"]
    texts = [target["expr"] for panel in panels for target in panel["targets"]]
    return [text.replace("$instance", ".*").replace("$__rate_interval", "1m") for text in texts]


def rules() -> Iterator[dict[str, Any]]:
    for group in yaml.safe_load(RULES.read_text())["groups"]:
        yield from group["rules"]


def test_dashboard_and_rules_ask_for_metrics_that_there_are() -> None:
    asked = {name for text in (*queries(), *(rule["expr"] for rule in rules())) for name in NAME.findall(text)}
    assert asked
    assert asked <= known()
    assert len(registries()) == 4


@pytest.mark.prometheus
@pytest.mark.parametrize("arguments", ["check rules jitsi-bot.rules.yml", "test rules jitsi-bot.test.yml"])
def test_promtool_takes_the_rules(arguments: str) -> None:
    require("promtool")
    done = subprocess.run(
        ["promtool", *arguments.split()], cwd=PROMETHEUS, capture_output=True, text=True, timeout=50, check=False
    )
    assert done.returncode == 0, done.stdout + done.stderr


class Server:
    """A Prometheus that scrapes these ports each second."""

    def __init__(self, http: aiohttp.ClientSession, port: int) -> None:
        self._http = http
        self._url = f"http://127.0.0.1:{port}/api/v1/query"

    async def query(self, expression: str) -> list[Any]:
        try:
            async with self._http.get(self._url, params={"query": expression}) as response:
                found = await response.json()
        except aiohttp.ClientError:
            return []  # not there yet
        assert found["status"] in ("success", "error"), found
        assert found.get("errorType") != "bad_data", found
        return list(found.get("data", {}).get("result", ()))

    async def value(self, expression: str) -> float:
        return sum(float(item["value"][1]) for item in await self.query(expression))


@asynccontextmanager
async def prometheus(folder: Path, ports: list[int]) -> AsyncIterator[Server]:
    port = free_port()
    jobs = [{"job_name": "jitsi-bot", "static_configs": [{"targets": [f"127.0.0.1:{item}" for item in ports]}]}]
    config = {"global": {"scrape_interval": "1s"}, "scrape_configs": jobs}
    (folder / "prometheus.yml").write_text(yaml.safe_dump(config))
    process = await asyncio.create_subprocess_exec(
        "prometheus",
        f"--config.file={folder / 'prometheus.yml'}",
        f"--storage.tsdb.path={folder / 'data'}",
        f"--web.listen-address=127.0.0.1:{port}",
        stdout=asyncio.subprocess.DEVNULL,
        stderr=asyncio.subprocess.DEVNULL,
    )
    try:
        async with aiohttp.ClientSession() as http:
            yield Server(http, port)
    finally:
        process.kill()
        await process.wait()


@asynccontextmanager
async def daemon(port: int) -> AsyncIterator[asyncio.Task[Any]]:
    """``jitsi-bot run --embedded --daemon`` for as long as it is looked at."""
    settings = load(
        embedded_port=0,
        http_port=port,
        duration=100,
        statistics_interval=0.5,
        width=320,
        height=180,
        fps=10,
        decode="audio",
    )
    running = asyncio.create_task(run_embedded(settings, daemon=True, console=None))
    try:
        yield running
    finally:
        running.cancel()
        await asyncio.gather(running, return_exceptions=True)


@pytest.mark.prometheus
@pytest.mark.timeout(120)
async def test_a_prometheus_that_scrapes_the_daemon_has_data_for_each_query(tmp_path: Path) -> None:
    require("prometheus")
    meeting = Meeting("ann", "bob")
    meeting.interval()
    meeting.interval(bob=100)
    assert meeting.seen is not None
    watched = MeetingMetrics()
    watched.show(meeting.seen)
    watch = HealthServer("127.0.0.1", 0, ready=lambda: True, metrics=watched)
    await watch.start()
    port = free_port()
    try:
        async with daemon(port) as running, prometheus(tmp_path, [port, watch.bound_port]) as server:
            async with asyncio.timeout(90):
                missing = queries()
                while missing:
                    assert not running.done()
                    await asyncio.sleep(0.3)
                    missing = [item for item in missing if not await server.query(item)]
                while await server.value('jitsi_bot_packets_total{direction="received"}') < 100:  # noqa: ASYNC110
                    await asyncio.sleep(0.3)  # Prometheus collects, and rings no bell
            assert await server.value('jitsi_bot_participants{state="active"}') == 2
            assert await server.value("jitsi_bot_join_seconds_count") == 2
            assert await server.value('jitsi_bot_events_total{event="conference_joined"}') == 2
            assert await server.value('jitsi_bot_watch_participants{quality="bad"}') == 1
    finally:
        await watch.stop()
