"""``jitsi-bot probe`` as people run it: once in each format, and on a schedule with metrics and web-hook."""

from __future__ import annotations

import asyncio
import json
import os
import signal
from pathlib import Path

import aiohttp
import pytest
from typer.testing import CliRunner

from bot.cli import app
from bot.embedded.server import EmbeddedServer
from bot.monitor import schedule
from bot.monitor.model import ProbeResult
from bot.monitor.settings import ProbeSettings
from bot.service.runner import embedded_settings
from bot.settings import load
from tests.bridge_support import until
from tests.prosody import free_port
from tests.test_monitor_faults import LENIENT
from tests.test_monitor_units import Receiver, listening


def run(*arguments: str) -> tuple[int, str]:
    lenient = [item for text in LENIENT for item in ("--threshold", text)]
    found = CliRunner().invoke(app, ["probe", "--duration", "2", "--relay", "off", *lenient, *arguments])
    return found.exit_code, found.output


@pytest.fixture(autouse=True)
def small(monkeypatch: pytest.MonkeyPatch) -> None:
    """Small pictures."""
    for name, value in (("WIDTH", "320"), ("HEIGHT", "180"), ("FPS", "10")):
        monkeypatch.setenv(f"JITSI_{name}", value)


def test_embedded_and_fine(tmp_path: Path) -> None:
    file = tmp_path / "probe.jsonl"
    code, text = run("--embedded", "--embedded-port", "0", "--history-file", str(file))
    assert code == 0, text
    assert text.startswith("OK: all fine\n")
    assert json.loads(file.read_text())["verdict"]["severity"] == "ok"


def test_nothing_listens() -> None:
    url = f"ws://127.0.0.1:{free_port()}"
    code, text = run("--url", url)
    assert (code, text.splitlines()[0][:18]) == (3, "CRITICAL: connect:")
    code, text = run("--url", url, "--format", "json")
    assert (code, json.loads(text)["verdict"]["stage"]) == (3, "connect")
    code, text = run("--url", url, "--format", "nagios")
    assert (code, text.startswith("JITSI CRITICAL - connect: ")) == (2, True)


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["--embedded", "--url", "ws://x"], "exclude each other"),
        (["--threshold", "delay > 1"], "delay is better low"),
        (["--url", "ftp://x"], "does not begin with ws://"),
        (["--bots", "1"], "probe.bots"),
    ],
)
def test_wrong_usage(arguments: list[str], said: str) -> None:
    code, text = run(*arguments)
    assert (code, said in text) == (2, True), text
    code, text = run(*arguments, "--format", "nagios")
    assert code == 3
    assert text.startswith("JITSI UNKNOWN - ")


def test_an_unknown_format() -> None:
    code, text = run("--format", "xml")
    assert (code, "--format is text, json or nagios" in text) == (2, True)


async def test_on_a_schedule_a_bridge_goes_and_comes_back(tmp_path: Path) -> None:
    """Metrics are served, the web-hook hears of the fault and of the recovery once each, SIGTERM ends it."""
    server = EmbeddedServer(port=0)
    await server.start()
    results: list[ProbeResult] = []
    receiver = Receiver(500, 200)
    port = free_port()
    try:
        async with listening(receiver) as url:
            options = ProbeSettings(
                every=0.5,
                duration=2.0,
                timeout=5.0,
                relay="off",
                thresholds=LENIENT,
                webhook_url=url,
                history_file=tmp_path / "history",
            )
            settings = embedded_settings(load(http_port=port), server)
            running = asyncio.create_task(schedule.probe(settings, options, results.append, embedded=False))
            await until(lambda: any(item.verdict.ok for item in results), 45)
            async with aiohttp.ClientSession() as http:
                async with http.get(f"http://127.0.0.1:{port}/metrics") as response:
                    text = await response.text()
                async with http.get(f"http://127.0.0.1:{port}/readyz") as response:
                    assert response.status == 200
            assert 'jitsi_bot_probe_success{pass="all"}' in text
            server.core.focus_attached = False
            await until(lambda: results[-1].verdict.stage.value == "focus", 45)
            server.core.focus_attached = True
            await until(lambda: results[-1].verdict.ok, 45)
            os.kill(os.getpid(), signal.SIGTERM)
            await asyncio.wait_for(running, 20)
    finally:
        await server.stop()
    told = [json.loads(body)["event"] for _, body in receiver.got]
    assert told[0] == told[1] == "probe_problem"  # the first answer was 500
    assert told[-1] == "probe_recovered"
    assert len((tmp_path / "history").read_text().splitlines()) == len(results)


async def test_stopped_in_the_middle_of_a_probe_nothing_is_said() -> None:
    server = EmbeddedServer(port=0)
    await server.start()
    results: list[ProbeResult] = []
    try:
        options = ProbeSettings(duration=60.0, relay="off")
        running = asyncio.create_task(
            schedule.probe(embedded_settings(load(), server), options, results.append, embedded=False)
        )
        await until(lambda: len(server.core.sessions) == 2, 45)
        os.kill(os.getpid(), signal.SIGTERM)
        await asyncio.wait_for(running, 20)
    finally:
        await server.stop()
    assert results == []
