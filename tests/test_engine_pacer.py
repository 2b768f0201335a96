"""One timer for all: who sends when, how late, and what one stream's failure means to the others."""

from __future__ import annotations

import asyncio
import gc
import time
import weakref
from collections.abc import Callable, Sequence

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from bot.clips.model import phase_of
from bot.engine.pacer import PATIENCE, RETRY, Lateness, Pacer, Schedule, Ticket, running_pacer
from bot.engine.send import ClipSender
from tests.bridge_support import until
from tests.send_support import SOUND, VIDEO, World, pictures, sound


class Beat:
    """Sends each ``step`` seconds, ``times`` times."""

    def __init__(self, start: float, step: float, times: int, heard: list[tuple[float, Beat]]) -> None:
        self.due, self.step, self.left, self.heard = start, step, times, heard

    def send(self, now: float) -> float | None:
        self.heard.append((now, self))
        self.due += self.step
        self.left -= 1
        return self.due if self.left else None


@given(
    st.lists(st.tuples(st.floats(0, 1), st.floats(0.005, 0.2), st.integers(1, 20)), min_size=1, max_size=20),
    st.floats(0.001, 0.02),
)
def test_everybody_sends_in_time_and_order(beats: list[tuple[float, float, int]], tick: float) -> None:
    now = 0.0
    schedule = Schedule(lambda: now)
    heard: list[tuple[float, Beat]] = []
    made = [Beat(*beat, heard) for beat in beats]
    expected = sorted(start + number * step for start, step, times in beats for number in range(times))
    for beat in made:
        schedule.add(beat, beat.due)
    while schedule.next_deadline() < float("inf"):
        now += tick
        schedule.run(now)
    assert len(heard) == len(expected) == schedule.lateness.count
    for (when, _), due in zip(heard, expected, strict=True):
        assert due <= when + 1e-9
        assert when - due <= tick + 1e-9
    assert len(schedule) == 0
    assert schedule.lateness.max <= tick + 1e-9


@settings(max_examples=30)
@given(st.data())
def test_who_is_cancelled_is_not_asked_again(data: st.DataObject) -> None:
    """By anybody, at any time, also by the one that sends; who is added meanwhile comes in at its place."""
    now = 0.0
    schedule = Schedule(lambda: now)
    asked: list[int] = []
    cancelled: set[int] = set()
    tickets: dict[int, Ticket] = {}

    class Meddler:
        def __init__(self, number: int) -> None:
            self.number = number

        def send(self, at: float) -> float | None:
            assert self.number not in cancelled
            asked.append(self.number)
            for victim in data.draw(st.lists(st.integers(0, 9), max_size=2)):
                schedule.cancel(tickets[victim])
                cancelled.add(victim)
            if len(tickets) < 30 and data.draw(st.booleans()):
                add(len(tickets), at - data.draw(st.floats(0, 0.1)))
            return at + data.draw(st.sampled_from([0.01, 0.05]))

    def add(number: int, due: float) -> None:
        tickets[number] = schedule.add(Meddler(number), due)

    for number in range(10):
        add(number, 0.01 * number)
    for _ in range(20):
        now += 0.01
        schedule.run(now)
        assert len(schedule) == len(tickets) - len(cancelled)
    assert asked


def test_many_that_are_cancelled_leave_no_place_behind() -> None:
    schedule = Schedule(lambda: 0.0)
    heard: list[tuple[float, Beat]] = []
    tickets = [schedule.add(Beat(0, 1, 1, heard), 1000.0 + number) for number in range(1000)]
    for ticket in tickets[:-1]:
        schedule.cancel(ticket)
    assert len(schedule) == 1
    assert len(schedule._heap) < 200
    assert schedule.add(Beat(0, 1, 1, heard), 0, tickets[3]).rank == 3


def test_a_stream_that_fails_is_asked_again_and_ends_nobody() -> None:
    now = 0.0
    schedule = Schedule(lambda: now)
    heard: list[tuple[float, Beat]] = []

    asked: list[float] = []

    class Bad:
        def send(self, at: float) -> float | None:
            asked.append(at)
            raise OSError("the peer is gone")

    schedule.add(Bad(), 0.0)
    schedule.add(Beat(0.0, 0.02, 1000, heard), 0.0)
    for _ in range(500):
        now += 0.004
        schedule.run(now)
    assert len(heard) == pytest.approx(100, abs=1)
    assert schedule.faults == len(asked) == pytest.approx(2.0 / RETRY, abs=2)


class Broken:
    """A path that fails now and then."""

    def __init__(self, world: World, fails: Callable[[], bool]) -> None:
        self.world, self.fails = world, fails

    def send_many(self, packets: Sequence[bytes]) -> None:
        if self.fails():
            raise ConnectionRefusedError("gone")
        self.world.far.send_many(packets)


def test_a_path_that_raises_costs_its_own_packets_only() -> None:
    world = World()
    broken = Broken(world, lambda: 1000.5 < world.now < 1001.0)
    bad = ClipSender(
        pictures(),
        ssrcs=[(1, 2)],
        parameters=VIDEO,
        path=broken,
        uplink=world.uplink,
        phase=0,
        clock=world.clock,
        wall=world.wall,
    )
    bad.start(world.schedule)
    world.sender(pictures())
    world.run(3.0)
    assert world.schedule.faults >= 2
    times = {when for _, _, when in world.far.of(10)}
    assert len(times) == pytest.approx(90, abs=2)
    after = [when for _, _, when in world.far.of(1) if when > 1001.0]
    assert after[0] < 1001.7
    assert len(set(after)) > 35


def test_participants_are_spread_in_time() -> None:
    """200 of them, each with picture and sound: no tick has a large part of a second's packets."""
    world = World()
    for number in range(200):
        phase = phase_of(f"endpoint{number}", pictures().duration)
        for clip, parameters in ((pictures(), VIDEO), (sound(), SOUND)):
            ClipSender(
                clip,
                ssrcs=[(number + 1, 1000 + number if clip is pictures() else None)],
                parameters=parameters,
                path=world.far,
                uplink=world.uplink,
                phase=phase,
                clock=world.clock,
                wall=world.wall,
            ).start(world.schedule)
    world.run(1.0)
    world.far.packets.clear()
    world.run(1.0)
    ticks: dict[float, int] = {}
    for _, _, when in world.far.packets:
        ticks[when] = ticks.get(when, 0) + 1
    assert len(ticks) == 250
    mean = len(world.far.packets) / 250
    assert max(ticks.values()) < 2.0 * mean
    assert world.schedule.lateness.percentile(0.99) <= world.tick + 0.001
    assert world.schedule.skips == 0


def test_lateness_is_counted_by_the_millisecond() -> None:
    lateness = Lateness()
    assert lateness.percentile(0.99) == 0.0
    for late in (-0.1, 0.0, 0.0005, 0.0025, 0.0105, 3.0):
        lateness.record(late)
    assert lateness.count == 6
    assert lateness.percentile(0.5) == 0.001
    assert lateness.percentile(0.8) == 0.011
    assert lateness.max == 3.0
    lateness.reset()
    assert (lateness.count, lateness.max) == (0, 0.0)


def test_who_ends_while_others_come_in_before_is_gone() -> None:
    now = 1.0
    schedule = Schedule(lambda: now)
    heard: list[tuple[float, Beat]] = []

    class Last:
        def send(self, at: float) -> None:
            schedule.add(Beat(0.5, 1, 1, heard), 0.5)

    ticket = schedule.add(Last(), 0.9)
    schedule.run(now)
    assert len(heard) == 1
    assert ticket.gone
    assert len(schedule) == 0


def test_who_comes_too_late_is_counted() -> None:
    now = 1.0
    schedule = Schedule(lambda: now)
    schedule.add(Beat(0, 1, 1, []), 1.0 - PATIENCE - 0.01)
    schedule.add(Beat(0, 1, 1, []), 1.0 - PATIENCE + 0.01)
    schedule.run(now)
    assert schedule.skips == 1


async def test_the_timer_runs_only_while_there_is_something_to_send() -> None:
    pacer = running_pacer()
    assert running_pacer() is pacer
    heard: list[tuple[float, Beat]] = []
    begin = time.monotonic()
    first = Beat(begin + 0.05, 0.02, 5, heard)
    pacer.add(first, begin + 30)
    pacer.add(first, first.due)
    await until(lambda: len(heard) == 5)
    assert [beat for _, beat in heard] == [first] * 5
    assert all(when >= begin + 0.05 + number * 0.02 for number, (when, _) in enumerate(heard))
    assert "1 streams" in repr(pacer)
    assert (pacer.faults, pacer.lateness.count) == (0, 5)
    assert pacer.skips <= 5


async def test_a_pacer_without_streams_has_no_timer() -> None:
    pacer = Pacer(asyncio.get_running_loop())
    ticket = pacer.add(Beat(0, 1, 1, []), time.monotonic() + 60)
    assert pacer.is_armed()
    pacer.cancel(ticket)
    pacer.cancel(ticket)
    assert not pacer.is_armed()
    assert len(pacer) == 0


def test_a_pacer_does_not_keep_its_loop() -> None:
    loop = asyncio.new_event_loop()

    async def use() -> None:
        running_pacer()

    loop.run_until_complete(use())
    loop.close()
    seen = weakref.ref(loop)
    del loop
    gc.collect()
    assert seen() is None
