"""Whole runs in this process: the embedded server with its two bots, signals, ports, exit codes."""

import asyncio
import io
import json
import os
import signal
import socket
from collections.abc import AsyncIterator

import aiohttp
import pytest
import pytest_asyncio
import structlog
from rich.console import Console
from typer.testing import CliRunner

from bot import logs
from bot.cli import app
from bot.embedded.config import EmbeddedConfig
from bot.embedded.server import EmbeddedServer
from bot.errors import ConfigurationError
from bot.service import runner
from bot.service.runner import Outcome
from bot.settings import load
from tests.prosody import free_port

MESSAGES = ["Creating connection...", "Connection established!", "Conference joined!", "Local tracks created: 2"]


@pytest_asyncio.fixture
async def lines() -> AsyncIterator[io.StringIO]:
    """What the run logs, as JSON lines."""
    out = io.StringIO()
    logs.configure("info", "json", out)
    yield out
    structlog.reset_defaults()


def said(text: str, participant: str) -> list[str]:
    entries = [json.loads(line) for line in text.splitlines() if line.startswith("{")]
    return [entry["event"] for entry in entries if entry.get("participant") == participant]


async def until(lines: io.StringIO, text: str, count: int = 1) -> None:
    """Wait until ``text`` was logged ``count`` times."""
    async with asyncio.timeout(20):
        while lines.getvalue().count(text) < count:  # noqa: ASYNC110 -- the log is a string, it rings no bell
            await asyncio.sleep(0.02)


def embedded_run(*more: str) -> tuple[int, str]:
    flags = ["--embedded", "--embedded-port", "0", "--duration", "4", "--log-format", "json"]
    result = CliRunner().invoke(app, ["run", *flags, *more])
    return result.exit_code, result.output


def test_the_first_run_has_two_bots_with_each_others_media(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("JITSI_STATISTICS_INTERVAL", "1")
    code, text = embedded_run()
    assert code == 0, text
    for name in ("jitsi-bot-1", "jitsi-bot-2"):
        found = said(text, name)
        assert found[:4] == MESSAGES
        assert found[-1] == "Left the conference"
        entries = [json.loads(line) for line in text.splitlines()]
        statistics = [
            item for item in entries if item["event_name"] == "media_statistics" and item["participant"] == name
        ]
        assert sum(item["packets_sent"] for item in statistics) > 100
        assert sum(item["packets_received"] for item in statistics) > 100
        assert max(item["streams"] for item in statistics) == 2  # who leaves first is gone in the last line


def test_the_number_of_bots_can_be_given_and_one_stands_alone() -> None:
    code, text = embedded_run("--bots", "1", "--duration", "1", "--name", "alone")
    assert code == 0
    assert said(text, "alone") == [*MESSAGES, "Left the conference"]


def test_embedded_and_an_address_exclude_each_other() -> None:
    code, text = embedded_run("--url", "ws://localhost:8000")
    assert code == 2
    assert "--embedded and --url" in text


async def test_a_taken_port_gives_way_unless_it_was_asked_for(
    lines: io.StringIO, monkeypatch: pytest.MonkeyPatch
) -> None:
    with socket.socket() as holder:
        holder.bind(("127.0.0.1", 0))
        holder.listen()
        taken = holder.getsockname()[1]
        monkeypatch.setattr(runner, "EMBEDDED_PORT", taken)
        async with runner.embedded_server(None) as server:
            assert server.port not in (0, taken)
        assert "embedded_port_taken" in lines.getvalue()
        with pytest.raises(ConfigurationError, match=str(taken)):
            async with runner.embedded_server(taken):
                pass


async def test_serve_listens_alone_and_ends_at_a_signal(lines: io.StringIO) -> None:
    port = free_port()
    task = asyncio.create_task(runner.serve(load(embedded_port=port)))
    await until(lines, "embedded_started")
    async with aiohttp.ClientSession() as session, session.get(f"http://127.0.0.1:{port}/") as answer:
        assert "no server for real" in await answer.text()
    os.kill(os.getpid(), signal.SIGTERM)
    await asyncio.wait_for(task, 5)


def test_serve_ends_after_its_duration() -> None:
    flags = ["--port", "0", "--duration", "0.2", "--log-format", "json"]
    result = CliRunner().invoke(app, ["serve", *flags])
    assert result.exit_code == 0
    assert '"event_name": "embedded_started"' in result.output


async def test_the_daemon_is_ready_in_its_room_and_leaves_at_sigterm(lines: io.StringIO) -> None:
    port = free_port()
    settings = load(embedded_port=0, http_port=port, name="daemon")
    task = asyncio.create_task(runner.run_embedded(settings, daemon=True, console=None))
    await until(lines, "Local tracks created: 2", count=2)
    async with aiohttp.ClientSession() as session, session.get(f"http://127.0.0.1:{port}/readyz") as answer:
        assert (answer.status, await answer.json()) == (200, {"ready": True})
    os.kill(os.getpid(), signal.SIGTERM)
    assert await asyncio.wait_for(task, 10) is Outcome.FINE
    assert lines.getvalue().count('"clean": true') == 2


async def test_a_terminal_has_the_table_instead_of_statistics_lines(lines: io.StringIO) -> None:
    out = io.StringIO()
    settings = load(embedded_port=0, duration=2.5, statistics_interval=0.5)
    console = Console(file=out, force_terminal=True, width=140)
    assert await runner.run_embedded(settings, daemon=False, console=console) is Outcome.FINE
    assert "media_statistics" not in lines.getvalue()
    assert "kbit/s out" in out.getvalue()
    assert "active" in out.getvalue()


async def test_nobody_there_is_not_joined(lines: io.StringIO) -> None:
    settings = load(ws_url=f"ws://127.0.0.1:{free_port()}", retries=0)
    assert await runner.run_participants(settings, daemon=False, console=None) is Outcome.NOT_JOINED
    assert lines.getvalue().count('"join_failed"') == 1


async def test_a_daemon_that_is_told_to_stop_in_its_cool_down_is_fine(lines: io.StringIO) -> None:
    settings = load(ws_url=f"ws://127.0.0.1:{free_port()}", http_port=0, retries=0)
    task = asyncio.create_task(runner.run_participants(settings, daemon=True, console=None))
    await until(lines, "Trying again in 60 s")
    os.kill(os.getpid(), signal.SIGTERM)
    assert await asyncio.wait_for(task, 10) is Outcome.FINE


async def test_who_was_in_the_room_and_could_not_come_back_is_lost(lines: io.StringIO) -> None:
    server = EmbeddedServer(port=0, config=EmbeddedConfig(resume_timeout=1.0))
    await server.start()
    settings = runner.embedded_settings(load(bots=1, retries=0), server)
    task = asyncio.create_task(runner.run_participants(settings, daemon=False, console=None))
    await until(lines, "Local tracks created: 2")
    await server.stop()
    assert await asyncio.wait_for(task, 20) is Outcome.LOST
