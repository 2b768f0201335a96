"""A participant's life in rooms of Debian's Prosody behind Debian's nginx."""

import asyncio
import os
import signal
import sys
from pathlib import Path
from typing import Any

import pytest

from bot import events
from bot.errors import ConnectionRefusedByHostError, WrongAddressError
from bot.participant.config import expand
from bot.participant.participant import Participant
from bot.participant.states import State
from bot.settings import load
from tests.prosody import Stack, free_port, make_stack

pytestmark = pytest.mark.prosody


class Seen:
    """Every event, and a way to wait for one."""

    def __init__(self) -> None:
        self.events: list[events.Event] = []
        self._changed = asyncio.Event()

    def __call__(self, event: events.Event) -> None:
        self.events.append(event)
        self._changed.set()

    async def changed(self) -> None:
        """Wait for another event."""
        self._changed.clear()
        await self._changed.wait()

    def names(self) -> list[str]:
        return [event.name for event in self.events]

    async def wait(self, name: str, count: int = 1) -> events.Event:
        async with asyncio.timeout(20):
            while self.names().count(name) < count:
                self._changed.clear()
                await self._changed.wait()
        return [event for event in self.events if event.name == name][count - 1]


def participant(url: str, seen: Seen, **more: Any) -> Participant:
    return Participant(expand(load(ws_url=url, **more))[0], emit=seen)


async def test_the_normal_life_and_its_messages(stack: Stack) -> None:
    seen, other = Seen(), Seen()
    one, two = participant(stack.url, seen, name="one"), participant(stack.url, other, name="two")
    tasks = [asyncio.create_task(one.run())]
    await seen.wait("local_tracks_created")
    tasks.append(asyncio.create_task(two.run()))
    arrived = await seen.wait("participant_joined")
    assert isinstance(arrived, events.ParticipantJoined)
    assert arrived.nick == "two"
    said = [event.message for event in seen.events if event.level == "info"]
    assert said[:4] == [
        "Creating connection...",
        "Connection established!",
        "Conference joined!",
        "Local tracks created: 2",
    ]
    joined = await other.wait("conference_joined")
    assert isinstance(joined, events.ConferenceJoined)
    assert joined.occupants == 2
    assert set(joined.phases) == {"focus", "muc"}
    # No focus in this deployment: that hinders nobody.
    assert str(one.state) == "waiting_for_focus"
    two.stop()
    await seen.wait("participant_left")
    one.stop()
    await asyncio.wait_for(asyncio.gather(*tasks), 10)
    left = await seen.wait("left")
    assert isinstance(left, events.Left)
    assert left.clean
    assert one.state is State.LEFT


async def test_a_lost_proxy_leads_back_into_the_room(stack: Stack) -> None:
    """Debian's anonymous login knows no resumption (Jitsi's does): the way back is a full join."""
    seen = Seen()
    one = participant(stack.url, seen)
    task = asyncio.create_task(one.run())
    await seen.wait("local_tracks_created")
    await stack.stop_nginx()
    await seen.wait("connection_degraded")
    await stack.start_nginx()
    recovered = await seen.wait("connection_recovered")
    assert isinstance(recovered, events.ConnectionRecovered)
    assert recovered.how == "rejoined"
    assert seen.names().count("conference_joined") == 2
    one.stop()
    await asyncio.wait_for(task, 10)


async def test_an_account_resumes_and_nobody_sees_it_leave(tmp_path: Path) -> None:
    stack = make_stack(tmp_path)
    stack.add_account("bot", "secret")
    await stack.start()
    try:
        seen, other = Seen(), Seen()
        more = {"domain": "auth.meet.jitsi", "muc_domain": "muc.meet.jitsi", "focus_jid": "focus.meet.jitsi"}
        one = participant(stack.url, seen, username="bot", password="secret", **more)
        direct = f"ws://127.0.0.1:{stack.http}"
        two = participant(direct, other, name="two")
        tasks = [asyncio.create_task(two.run())]
        await other.wait("local_tracks_created")
        tasks.append(asyncio.create_task(one.run()))
        await seen.wait("local_tracks_created")
        await stack.stop_nginx()
        await seen.wait("connection_degraded")
        await stack.start_nginx()
        recovered = await seen.wait("connection_recovered")
        assert isinstance(recovered, events.ConnectionRecovered)
        assert recovered.how == "resumed"
        assert "participant_left" not in other.names()
        one.stop()
        await other.wait("participant_left")
        two.stop()
        await asyncio.wait_for(asyncio.gather(*tasks), 10)
    finally:
        await stack.stop()


async def test_retries_by_an_injected_clock_and_one_error_at_the_end() -> None:
    seen, slept = Seen(), []

    async def sleep(seconds: float) -> None:
        slept.append(seconds)

    config = expand(load(ws_url=f"ws://127.0.0.1:{free_port()}"))[0]
    one = Participant(config, emit=seen, sleep=sleep)
    with pytest.raises(ConnectionRefusedByHostError):
        await one.run()
    assert slept == [1.0, 2.0, 4.0]
    assert seen.names().count("connection_creating") == 4
    assert seen.names().count("join_failed") == 1
    attempts = [event for event in seen.events if isinstance(event, events.AttemptFailed)]
    assert [(event.attempt, event.delay) for event in attempts] == [(1, 1.0), (2, 2.0), (3, 4.0)]
    assert {event.code for event in attempts} == {"connection_refused"}
    assert one.state is State.FAILED


async def test_what_no_retry_can_mend_is_final_at_once() -> None:
    seen = Seen()
    with pytest.raises(WrongAddressError, match="8000"):
        await participant("wss://localhost:8443", seen).run()
    assert seen.names().count("connection_creating") == 1
    assert seen.names().count("join_failed") == 1


async def test_stop_during_the_retries_ends_at_once() -> None:
    seen = Seen()
    one = participant(f"ws://127.0.0.1:{free_port()}", seen, retry_base=600)
    task = asyncio.create_task(one.run())
    await seen.wait("connection_attempt_failed")
    one.stop()
    await asyncio.wait_for(task, 5)
    assert one.state is State.LEFT
    assert "join_failed" not in seen.names()


async def test_a_cancelled_participant_leaves_no_ghost(stack: Stack) -> None:
    seen, other = Seen(), Seen()
    watcher = participant(stack.url, other, name="watcher")
    watching = asyncio.create_task(watcher.run())
    await other.wait("local_tracks_created")
    task = asyncio.create_task(participant(stack.url, seen).run())
    await other.wait("participant_joined")
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    await other.wait("participant_left")
    watcher.stop()
    await asyncio.wait_for(watching, 10)


async def test_the_command_leaves_on_sigterm_and_exits_0(stack: Stack) -> None:
    environment = {**os.environ, "JITSI_WS_URL": stack.url, "JITSI_LOG_FORMAT": "json"}
    process = await asyncio.create_subprocess_exec(
        sys.executable, "-m", "bot", "run", "--bots", "2", stderr=asyncio.subprocess.PIPE, env=environment
    )
    assert process.stderr is not None
    text = ""
    async with asyncio.timeout(30):
        while text.count("Local tracks created: 2") < 2:
            text += (await process.stderr.readline()).decode()
        process.send_signal(signal.SIGTERM)
        text += (await process.stderr.read()).decode()
        assert await process.wait() == 0
    assert text.count("Left the conference") == 2
    assert text.count('"clean": true') == 2


@pytest.mark.parametrize(
    ("url", "code", "said"),
    [
        ("wss://localhost:8443", 2, b"8000"),
        ("ws://127.0.0.1:{port}", 3, b"Nothing listens"),
    ],
    ids=["another-proxy", "nobody"],
)
async def test_the_command_exits_by_what_was_wrong(url: str, code: int, said: bytes) -> None:
    environment = {**os.environ, "JITSI_RETRIES": "0"}
    words = ("-m", "bot", "run", "--url", url.format(port=free_port()))
    process = await asyncio.create_subprocess_exec(
        sys.executable, *words, stderr=asyncio.subprocess.PIPE, env=environment
    )
    async with asyncio.timeout(30):
        _, text = await process.communicate()
    assert process.returncode == code
    assert said in text
