"""Load runs against the embedded server: all that is measured, and all that can go wrong on the way."""

import asyncio
import json
import os
import signal
import sys
from collections.abc import AsyncIterator
from pathlib import Path

import aiohttp
import pytest
import pytest_asyncio

from bot.embedded.server import EmbeddedServer
from bot.errors import ConfigurationError
from bot.load import files as scenarios
from bot.load.command import plan_of
from bot.load.exporter import Exporter
from bot.load.report import files
from bot.load.report.model import Report
from bot.load.run import Job, LoadRun
from bot.load.standing import Standing
from bot.service.http import HealthServer
from bot.service.runner import embedded_settings
from bot.settings import Settings, load
from tests.bridge_support import until
from tests.prosody import free_port

#: A busy machine takes its time: what a run takes itself is told by its report.
PATIENCE = 160
pytestmark = pytest.mark.timeout(200)
SMALL = {"height": 180, "simulcast": False, "join_rate": 5.0}


class Watch:
    """Keeps what a run tells."""

    def __init__(self) -> None:
        self.said: list[str] = []
        self.shown = 0

    def say(self, text: str) -> None:
        self.said.append(text)

    def show(self, standing: Standing, at: float) -> None:
        assert at >= 0
        self.shown += standing.in_room > 0


@pytest_asyncio.fixture
async def server() -> AsyncIterator[EmbeddedServer]:
    found = EmbeddedServer(port=0)
    await found.start()
    yield found
    await found.stop()


def job(settings: Settings, **flags: object) -> Job:
    scenario = scenarios.load(None, **(SMALL | flags))
    return Job(plan_of(scenario, settings), settings.model_copy(update={"log_level": "error"}), "json")


def at(server: EmbeddedServer, processes: int = 2) -> Settings:
    return embedded_settings(load(processes=str(processes)), server)


async def test_everything_is_measured(server: EmbeddedServer) -> None:
    watch = Watch()
    wanted = job(
        at(server),
        conferences=2,
        participants=2,
        duration="9s",
        switch_speakers="2s",
        thresholds=("p95(e2e_delay) < 2s", "success > 99%", "lost < 1", "rate_limited < 1", "p50(fps) > 10"),
    )
    report = await asyncio.wait_for(LoadRun(wanted, watch).run(), PATIENCE)
    assert [item.reason for item in report.thresholds if not item.met] == []
    assert (report.exit_code, report.ended) == (0, "duration")
    assert (report.participants.joined, report.participants.peak) == (4, 4)
    for name in (
        *("join", "join.websocket", "join.ice", "join.first_packet_in", "join.first_key_frame", "join.media"),
        *("loss", "jitter", "rtt", "bitrate.audio", "bitrate.video", "bitrate.sent", "fps", "height"),
        *("e2e_delay", "client.loop_lag", "client.pacing_late", "client.cpu"),
    ):
        assert report.summary[name].count, name
    assert report.summary["height"].max == 180
    assert report.totals["speaker_changes"] >= 1
    series = report.measured.series
    assert max(value or 0 for value in series["participants"].values()) == 4
    assert max(value or 0 for value in series["bits_received"].values()) > 100_000
    assert watch.shown >= 5
    assert watch.said[-1] == "Starting 2 processes"


async def test_churn_joins_again_and_a_threshold_ends_the_run_early(server: EmbeddedServer) -> None:
    wanted = job(
        at(server, 1),
        senders=0,
        duration="50s",
        churn={"share": 1.0, "stay": 1, "away": 0},
        warm_up="3s",
        abort_on_fail=True,
        thresholds=("p50(join) < 1ms",),
    )
    report = await asyncio.wait_for(LoadRun(wanted, Watch()).run(), PATIENCE)
    assert (report.exit_code, report.ended) == (99, "threshold")
    assert report.participants.joined > 2
    assert report.seconds < 30
    assert report.moments[-1].what == "threshold_missed"


async def test_a_process_that_is_killed_takes_its_own_participants_and_no_others(server: EmbeddedServer) -> None:
    run = LoadRun(job(at(server), participants=4, senders=0, duration="8s"), Watch())
    task = asyncio.create_task(run.run())
    await until(lambda: run.standing.in_room == 4 or task.done())
    os.kill(run.pids[0], signal.SIGKILL)
    report = await asyncio.wait_for(task, PATIENCE)
    assert report.participants.lost == 2
    assert report.client.reasons == ("1 of its processes died",)
    assert [(item.cause, item.whose) for item in report.failures] == [("process_died", "client")]
    assert [item.what for item in report.moments] == ["process_died"]
    assert report.seconds > 7


async def test_nobody_can_join() -> None:
    settings = load(processes="1", ws_url=f"ws://127.0.0.1:{free_port()}", retries=0)
    report = await asyncio.wait_for(LoadRun(job(settings, senders=0, duration="50s"), Watch()).run(), PATIENCE)
    assert (report.exit_code, report.participants.tried, report.participants.joined) == (3, 2, 0)
    assert report.failures[0].cause == "connection_refused"
    assert report.seconds < 20  # nobody is waited for


async def test_a_server_that_goes_and_comes_back_is_told() -> None:
    port = free_port()
    first = EmbeddedServer(port=port)
    await first.start()
    run = LoadRun(job(at(first, 1), senders=0, duration="15s"), Watch())
    task = asyncio.create_task(run.run())
    await until(lambda: run.standing.in_room == 2 or task.done())
    await first.stop()
    second = EmbeddedServer(port=port)
    await second.start()
    try:
        report = await asyncio.wait_for(task, PATIENCE)
    finally:
        await second.stop()
    kinds = [item.what for item in report.moments]
    assert "connection_lost" in kinds
    assert "connection_back" in kinds
    assert report.totals["reconnects"] >= 2
    assert report.summary["reconnect"].count >= 2


async def test_what_can_not_be_sent_ends_it_before_anybody_joins(server: EmbeddedServer, tmp_path: Path) -> None:
    broken = tmp_path / "broken.mp4"
    broken.write_bytes(b"no picture")
    settings = at(server, 1).model_copy(update={"video": f"file:{broken}"})
    with pytest.raises(ConfigurationError, match="broken"):
        await asyncio.wait_for(LoadRun(job(settings, duration="5s"), Watch()).run(), PATIENCE)


async def test_who_is_stopped_before_it_begins_starts_no_process(
    server: EmbeddedServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    begun = asyncio.Event()

    async def slow(*_: object) -> None:
        begun.set()
        await asyncio.Event().wait()

    monkeypatch.setattr("bot.media.clips.ClipLibrary.get", slow)
    run = LoadRun(job(at(server, 1), duration="5s"), Watch())
    task = asyncio.create_task(run.run())
    await asyncio.wait_for(begun.wait(), PATIENCE)
    run.stop()
    report = await asyncio.wait_for(task, PATIENCE)
    assert (report.ended, report.participants.tried, run.pids) == ("interrupted", 0, [])


def test_the_dashboard_asks_for_metrics_that_there_are() -> None:
    dashboard = json.loads((Path(__file__).parents[1] / "config/grafana/load.json").read_text())
    queries = [target["expr"] for panel in dashboard["panels"] for target in panel.get("targets", ())]
    assert queries
    standing = Standing(scenarios.load(None, thresholds=("loss < 1%",)))
    standing.measures.value("join", 1, 1)
    standing.measures.share("loss", 0, 1, 1)
    standing.tally.fail("a", "b", "server")
    text = Exporter(standing, lambda: 1.0).render().decode()
    names = {line.split("{")[0].split()[0] for line in text.splitlines() if not line.startswith("#")}
    for query in queries:
        used = {
            word for word in query.replace("(", " ").replace("{", " ").replace("[", " ").split() if "load_" in word
        }
        assert used
        assert used <= names, query


async def test_metrics_are_served_while_it_runs(server: EmbeddedServer) -> None:
    run = LoadRun(job(at(server, 1), senders=0, duration="5s"), Watch())
    http = HealthServer("127.0.0.1", 0, ready=lambda: True, metrics=Exporter(run.standing, lambda: run.at))
    await http.start()
    task = asyncio.create_task(run.run())
    try:
        await until(lambda: run.standing.in_room == 2 or task.done())
        async with (
            aiohttp.ClientSession() as session,
            session.get(f"http://127.0.0.1:{http.bound_port}/metrics") as answer,
        ):
            text = await answer.text()
        await asyncio.wait_for(task, PATIENCE)
    finally:
        await http.stop()
    assert "jitsi_bot_load_participants_in_room 2.0" in text
    assert 'jitsi_bot_load_joins_total{result="joined"} 2.0' in text
    assert 'jitsi_bot_load_quantile{measure="join",quantile="0.95"}' in text


async def test_ctrl_c_ends_it_with_a_whole_report(tmp_path: Path) -> None:
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "bot", "load", "--embedded", "--senders", "0", "--duration", "5m"),
        *("--processes", "2", "--threshold", "success > 99%", "--out", str(tmp_path)),
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
        env=os.environ | {"JITSI_HTTP_PORT": "0", "JITSI_EMBEDDED_PORT": "0"},
    )
    assert process.stderr is not None
    async with asyncio.timeout(PATIENCE):
        while "2 of 2 in rooms" not in (await process.stderr.readline()).decode():
            assert process.returncode is None
        process.send_signal(signal.SIGINT)
        out, _ = await process.communicate()
    assert process.returncode == 0
    report = files.read(tmp_path)
    assert isinstance(report, Report)
    assert (report.ended, report.participants.joined) == ("interrupted", 2)
    assert "ended early: interrupted" in out.decode()
    assert all((tmp_path / name).stat().st_size for name in (files.HTML, files.JSON, files.JUNIT, files.SUMMARY))
