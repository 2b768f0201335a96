"""Load runs on Locust itself: a master and workers as processes, against the embedded server in another one."""

from __future__ import annotations

import asyncio
import json
import os
import signal
import subprocess
import sys
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, suppress
from pathlib import Path

import aiohttp
import pytest
import pytest_asyncio

from bot.load.report import files
from bot.load.report.model import Report
from tests.prosody import free_port, until_open

#: A busy machine takes its time.
PATIENCE = 90
pytestmark = pytest.mark.timeout(PATIENCE + 20)
LOCUSTFILE = """
from bot.load.locust.user import JitsiUser


class Participant(JitsiUser):
    changes = {
        "participants": 2,
        "senders": 0,
        "thresholds": ("success > 99%", "lost < 1"),
    }
"""
ENDS_AFTER_ONE = """
from locust import LoadTestShape

from bot.load.locust.user import JitsiUser


class Participant(JitsiUser):
    changes = {"senders": 0}


class Shape(LoadTestShape):
    def tick(self):
        return None if self.runner.stats.num_requests else (1, 1)
"""


class Processes:
    """Starts programs of ours and ends what is left of them."""

    def __init__(self, directory: Path) -> None:
        self._directory = directory
        self._stack = AsyncExitStack()

    async def start(self, *arguments: str, **environment: str) -> asyncio.subprocess.Process:
        with (self._directory / "log").open("ab") as log:
            process = await asyncio.create_subprocess_exec(
                sys.executable,
                *arguments,
                cwd=self._directory,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                env=os.environ | {"JITSI_ICE_ADDRESSES": "127.0.0.1"} | environment,
            )
        self._stack.push_async_callback(self._end, process)
        return process

    async def _end(self, process: asyncio.subprocess.Process) -> None:
        with suppress(ProcessLookupError):
            process.kill()
        await process.wait()

    async def close(self) -> None:
        await self._stack.aclose()

    @property
    def log(self) -> str:
        return (self._directory / "log").read_text()


@pytest_asyncio.fixture
async def processes(tmp_path: Path) -> AsyncIterator[Processes]:
    (tmp_path / "locustfile.py").write_text(LOCUSTFILE)
    found = Processes(tmp_path)
    yield found
    await found.close()


def locust(*arguments: str) -> tuple[str, ...]:
    return ("-m", "locust", "-f", "locustfile.py", *arguments)


def rows(directory: Path, column: str = "num_requests") -> dict[str, int]:
    """A column of Locust's statistics."""
    return {row["name"]: row[column] for row in json.loads((directory / "stats.json").read_text())}


async def report_now(session: aiohttp.ClientSession, port: int) -> Report | None:
    """What the master's page says of the run; None before it begins."""
    try:
        async with session.get(f"http://127.0.0.1:{port}/jitsi/report.json") as answer:
            return Report.model_validate_json(await answer.text()) if answer.status == 200 else None
    except aiohttp.ClientError:
        return None


async def joined(port: int, number: int) -> Report:
    """Wait until so many joins have been measured."""
    async with aiohttp.ClientSession() as session:
        while True:
            if (found := await report_now(session, port)) is not None and found.participants.joined >= number:
                return found
            await asyncio.sleep(0.2)


async def test_the_run_goes_on_when_a_worker_is_killed_and_the_report_says_so(
    processes: Processes, tmp_path: Path
) -> None:
    server, master, web = free_port(), free_port(), free_port()
    await processes.start("-m", "bot", "serve", JITSI_EMBEDDED_PORT=str(server))
    head = await processes.start(
        *locust("--master", "--master-bind-host", "127.0.0.1", "--master-bind-port", str(master)),
        *("--expect-workers", "2", "--autostart", "--web-host", "127.0.0.1", "--web-port", str(web)),
        *("--users", "4", "--spawn-rate", "4", "--enable-rebalancing", "--host", f"ws://127.0.0.1:{server}"),
        *("--jitsi-out", "out", "--csv", "csv", "--json-file", "stats"),
    )
    await until_open(server)  # while the master starts: nobody shall have to try again
    workers = [await processes.start(*locust("--worker", "--master-port", str(master))) for _ in range(2)]
    try:
        async with asyncio.timeout(PATIENCE):
            await joined(web, 4)
            workers[0].kill()
            before = await joined(web, 6)
            head.send_signal(signal.SIGTERM)
            code, left = await head.wait(), await workers[1].wait()
    except TimeoutError:
        pytest.fail(processes.log)
    assert before.participants.lost == 2
    report = files.read(tmp_path / "out")
    # The threshold on participants lost is missed; Locust's own judgement stays 0: none of its requests failed.
    assert (code, left, report.exit_code) == (99, 0, 99)
    assert [item.state.value for item in report.thresholds] == ["met", "missed"]
    assert (report.participants.planned, report.participants.joined, report.participants.lost) == (4, 6, 2)
    assert report.client.reasons == ("1 of its processes died",)
    assert [item.what for item in report.moments] == ["process_died"]
    assert "is not heard of" in report.moments[0].text
    assert report.summary["join.muc"].count == 6
    counts = rows(tmp_path)
    # What a killed worker has not told yet is not known to Locust; all of the other one is.
    assert counts["join"] >= 4
    assert counts["rtt"] > 0
    assert "JITSI,join," in (tmp_path / "csv_stats.csv").read_text()


async def test_a_public_service_is_refused_before_anybody_joins(processes: Processes) -> None:
    process = await processes.start(
        *locust("--headless", "--users", "6", "--run-time", "5s", "--host", "https://meet.jit.si")
    )
    assert await asyncio.wait_for(process.wait(), PATIENCE) == 2
    assert "meet.jit.si is a public service: 6 participants are refused there, 5 are allowed" in processes.log
    assert "--i-own-this-server" in processes.log


async def test_one_process_and_a_shape_that_ends_when_nobody_could_join(
    processes: Processes, tmp_path: Path
) -> None:
    (tmp_path / "locustfile.py").write_text(ENDS_AFTER_ONE)
    process = await processes.start(
        *locust("--headless", "--host", f"ws://127.0.0.1:{free_port()}"),
        *("--jitsi-out", "out", "--json-file", "stats"),
        JITSI_RETRIES="0",
    )
    assert await asyncio.wait_for(process.wait(), PATIENCE) == 3
    report = files.read(tmp_path / "out")
    assert (report.exit_code, report.participants.joined) == (3, 0)
    assert report.failures[0].cause == "connection_refused"
    assert rows(tmp_path, "num_failures") == {"join": 1}
