"""The daemon's parts with scripted participants: supervision, cool-down, health, metrics."""

import asyncio
from collections.abc import Callable

import aiohttp
import pytest

from bot import events
from bot.errors import BotError, ConfigurationError, ConnectionRefusedByHostError
from bot.participant.config import ParticipantConfig, expand
from bot.participant.states import IN_ROOM, State
from bot.service.http import HealthServer
from bot.service.metrics import Metrics
from bot.service.supervisor import Supervisor
from bot.settings import load


class Scripted:
    """A participant that fails with ``error``, or stands in its room until stopped."""

    def __init__(self, error: BotError | None) -> None:
        self._error = error
        self._stop = asyncio.Event()
        self.state = State.IDLE

    @property
    def in_room(self) -> bool:
        return self.state in IN_ROOM

    async def run(self) -> None:
        if self._error is not None:
            self.state = State.FAILED
            raise self._error
        self.state = State.WAITING_FOR_PEERS
        await self._stop.wait()
        self.state = State.LEFT

    def stop(self) -> None:
        self._stop.set()


class Rest:
    """A cool-down that ends when the test says so."""

    def __init__(self) -> None:
        self.asked: asyncio.Queue[float] = asyncio.Queue()
        self.over = asyncio.Event()

    async def __call__(self, seconds: float) -> None:
        self.asked.put_nowait(seconds)
        await self.over.wait()


async def until(condition: Callable[[], bool]) -> None:
    """Let the loop turn until ``condition`` holds; the test's time limit ends it otherwise."""
    for _ in range(1000):
        if condition():
            return
        await asyncio.sleep(0)
    raise AssertionError("the condition never came true")


def make(
    script: list[BotError | None], *, restart: bool, sleep: Rest, bots: int = 1
) -> tuple[Supervisor[Scripted], list[events.Event]]:
    seen: list[events.Event] = []
    remaining = iter(script)

    def factory(_: ParticipantConfig, __: Callable[[events.Event], None]) -> Scripted:
        return Scripted(next(remaining))

    configs = expand(load(bots=bots))
    return Supervisor(configs, factory, seen.append, restart=restart, cool_down=60.0, sleep=sleep), seen


async def test_the_daemon_rests_and_begins_a_new_cycle() -> None:
    rest = Rest()
    supervisor, seen = make([ConnectionRefusedByHostError("down"), None], restart=True, sleep=rest)
    task = asyncio.create_task(supervisor.run())
    assert await asyncio.wait_for(rest.asked.get(), 5) == 60.0
    assert not supervisor.ready
    assert str(supervisor.errors[0]) == "down"
    assert [event.name for event in seen] == ["cool_down"]
    rest.over.set()
    await until(lambda: supervisor.ready)
    supervisor.stop()
    await asyncio.wait_for(task, 5)
    assert supervisor.errors == {}
    assert supervisor.in_room == 0


async def test_stop_ends_a_cool_down_at_once() -> None:
    rest = Rest()
    supervisor, _ = make([ConnectionRefusedByHostError("down")], restart=True, sleep=rest)
    task = asyncio.create_task(supervisor.run())
    await asyncio.wait_for(rest.asked.get(), 5)
    supervisor.stop()
    await asyncio.wait_for(task, 5)


async def test_a_one_shot_command_keeps_the_error_and_does_not_hinder_the_others() -> None:
    rest = Rest()
    supervisor, seen = make([ConnectionRefusedByHostError("down"), None], restart=False, sleep=rest, bots=2)
    task = asyncio.create_task(supervisor.run())
    await until(lambda: supervisor.in_room == 1)
    assert (supervisor.ready, supervisor.expected, len(supervisor.participants)) == (False, 2, 2)
    assert repr(supervisor) == "<Supervisor of 2 participants, 1 in their rooms>"
    supervisor.stop()
    await asyncio.wait_for(task, 5)
    assert list(supervisor.errors) == [0]
    assert seen == []
    assert rest.asked.empty()


async def test_health_readiness_and_metrics_over_http() -> None:
    metrics, ready = Metrics(), False
    server = HealthServer("127.0.0.1", 0, ready=lambda: ready, metrics=metrics)
    await server.start()
    try:
        base = f"http://127.0.0.1:{server.bound_port}"
        async with aiohttp.ClientSession() as session:
            async with session.get(f"{base}/healthz") as answer:
                assert (answer.status, await answer.json()) == (200, {"status": "ok"})
            async with session.get(f"{base}/readyz") as answer:
                assert (answer.status, await answer.json()) == (503, {"ready": False})
            ready = True
            async with session.get(f"{base}/readyz") as answer:
                assert answer.status == 200
            async with session.get(f"{base}/metrics") as answer:
                assert "jitsi_bot_info" in await answer.text()
    finally:
        await server.stop()
        await server.stop()


async def test_a_taken_port_is_a_clear_error() -> None:
    first = HealthServer("127.0.0.1", 0, ready=lambda: True, metrics=Metrics())
    await first.start()
    try:
        second = HealthServer("127.0.0.1", first.bound_port, ready=lambda: True, metrics=Metrics())
        with pytest.raises(ConfigurationError, match="JITSI_HTTP_PORT"):
            await second.start()
    finally:
        await first.stop()


def value(metrics: Metrics, name: str, **labels: str) -> float | None:
    return metrics.registry.get_sample_value(name, labels)


def test_events_become_metrics() -> None:
    metrics = Metrics()
    who = ("r", "p")
    for event in (
        events.StateChanged(room=who[0], participant=who[1], previous="idle", state="connecting"),
        events.StateChanged(room=who[0], participant=who[1], previous="connecting", state="joining"),
        events.PhaseDone(room=who[0], participant=who[1], phase="sasl", seconds=0.02),
        events.ConferenceJoined(room=who[0], participant=who[1], endpoint="e", occupants=1, seconds=0.2),
        events.AttemptFailed(room=who[0], participant=who[1], code="dns_failed", cause="x"),
        events.JoinFailed(room=who[0], participant=who[1], code="dns_failed", cause="x", attempts=4),
        events.MediaFailed(room=who[0], participant=who[1], code="ice_failed", cause="x"),
    ):
        metrics.on_event(event)
    assert value(metrics, "jitsi_bot_participants", state="joining") == 1
    assert value(metrics, "jitsi_bot_participants", state="connecting") == 0
    assert value(metrics, "jitsi_bot_phase_seconds_sum", phase="sasl") == 0.02
    assert value(metrics, "jitsi_bot_join_seconds_count") == 1
    for stage, code in (("attempt", "dns_failed"), ("join", "dns_failed"), ("media", "ice_failed")):
        assert value(metrics, "jitsi_bot_failures_total", stage=stage, code=code) == 1
    metrics.on_event(events.StateChanged(room="r", participant="p", previous="joining", state="failed"))
    assert value(metrics, "jitsi_bot_participants", state="joining") == 0
    assert value(metrics, "jitsi_bot_events_total", event="state_changed") == 3
