"""Participants in several processes: one view of them all, and the death of one of the processes."""

import asyncio
import json
import os
import signal
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import pytest
import pytest_asyncio

from bot import events
from bot.embedded.server import EmbeddedServer
from bot.participant.config import expand
from bot.participant.states import State
from bot.service import child, processes
from bot.service.processes import ProcessPool, number_of_processes
from bot.service.runner import embedded_settings
from bot.settings import load
from tests.bridge_support import until
from tests.test_service_runner import MESSAGES, embedded_run, said

STRANGER = "tests.test_service_processes"


@pytest_asyncio.fixture
async def server() -> AsyncIterator[EmbeddedServer]:
    found = EmbeddedServer(port=0)
    await found.start()
    yield found
    await found.stop()


@asynccontextmanager
async def running(
    server: EmbeddedServer, *, restart: bool
) -> AsyncIterator[tuple[ProcessPool, list[events.Event]]]:
    """Four participants in two processes, all in their room."""
    settings = embedded_settings(load(bots=4, audio="tone", video="none"), server)
    heard: list[events.Event] = []
    pool = ProcessPool(
        expand(settings), heard.append, count=2, restart=restart, cool_down=0.1, interval=0.3, log_level="error"
    )
    task = asyncio.create_task(pool.run())
    try:
        await until(lambda: pool.ready or task.done())
        assert pool.ready, heard
        yield pool, heard
    finally:
        pool.stop()
        await asyncio.wait_for(task, 20)


def named(heard: list[events.Event], kind: type[events.Event]) -> list[str]:
    return sorted(event.participant for event in heard if isinstance(event, kind))


@pytest.mark.parametrize(
    ("wanted", "participants", "found"), [(1, 9, 1), (4, 9, 4), (4, 2, 2), (0, 1, 1), (0, 1000, processes.cores())]
)
def test_there_are_as_many_as_asked_for_but_none_without_participants(
    wanted: int, participants: int, found: int
) -> None:
    assert number_of_processes(wanted, participants) == found


def test_auto_is_a_number_too() -> None:
    assert load(processes="auto").processes == 0
    assert load(processes="3").processes == 3


def test_a_run_in_two_processes_is_reported_as_one(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("JITSI_STATISTICS_INTERVAL", "1")
    code, text = embedded_run("--bots", "3", "--processes", "2")
    assert code == 0, text
    entries = [json.loads(line) for line in text.splitlines() if line.startswith("{")]
    for name in ("jitsi-bot-1", "jitsi-bot-2", "jitsi-bot-3"):
        found = said(text, name)
        assert found[:4] == MESSAGES
        assert found[-1] == "Left the conference"
        counted = [item for item in entries if item["event_name"] == "media_statistics"]
        received = [item["packets_received"] for item in counted if item["participant"] == name]
        assert sum(received) > 50


async def test_all_are_seen_and_leave_when_told(server: EmbeddedServer) -> None:
    async with running(server, restart=False) as (pool, heard):
        assert (pool.expected, pool.in_room, len(pool.pids)) == (4, 4, 2)
        await until(lambda: all(item.traffic.packets_received for item in pool.participants))
        assert all(item.streams for item in pool.participants)
    assert named(heard, events.Left) == [f"jitsi-bot-{number}" for number in range(1, 5)]
    assert {item.state for item in pool.participants} == {State.LEFT}
    assert pool.pids == []


async def test_a_process_that_dies_takes_its_own_participants_with_it(server: EmbeddedServer) -> None:
    async with running(server, restart=False) as (pool, heard):
        os.kill(pool.pids[0], signal.SIGKILL)
        await until(lambda: len(named(heard, events.RemovedFromRoom)) == 2)
        lost = set(named(heard, events.RemovedFromRoom))
        assert pool.in_room == 2
        assert {item.config.name for item in pool.participants if item.state is State.FAILED} == lost
    event = next(item for item in heard if isinstance(item, events.RemovedFromRoom))
    assert (event.code, event.cause) == ("process_died", "its process died (signal 9)")
    assert set(named(heard, events.Left)).isdisjoint(lost)


async def test_a_daemon_starts_a_process_that_died_anew(server: EmbeddedServer) -> None:
    async with running(server, restart=True) as (pool, heard):
        before = pool.pids
        os.kill(before[1], signal.SIGKILL)
        await until(lambda: not pool.ready)
        await until(lambda: pool.ready)
        assert before[0] in pool.pids
        assert before[1] not in pool.pids
        assert len(named(heard, events.ConferenceJoined)) == 6


def main() -> None:
    """A child that is none of the workers: it echoes, then ends as it is told."""

    async def echo() -> None:
        parent = await child.Parent.connect()
        code = 0
        try:
            while True:
                code = await parent.receive()
                parent.send(("echo", code))
                os.write(2, b"to stderr\n")
        except EOFError:
            await parent.close()
        raise SystemExit(code)

    asyncio.run(echo())


async def test_objects_lines_and_the_exit_code_come_back() -> None:
    heard: list[object] = []
    lines: list[str] = []
    process = child.ChildProcess(STRANGER, heard.append, lines.append)
    await process.start()
    process.send(7)
    run = asyncio.create_task(process.run())
    await until(lambda: heard == [("echo", 7)] and lines == ["to stderr\n"])
    run.cancel()  # whoever does not want to hear any more makes it end
    with pytest.raises(asyncio.CancelledError):
        await run
    assert process._process is not None
    assert process._process.returncode == 7
    process.send("nobody hears this")


async def test_a_child_that_nobody_started_says_so(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv(child.SOCKET_VARIABLE, raising=False)
    with pytest.raises(RuntimeError, match="was not started by jitsi-bot"):
        await child.Parent.connect()
