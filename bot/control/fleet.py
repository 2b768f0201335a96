"""The participants of the daemon: each has an id, a task, and is told of by events."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Collection, Iterable
from dataclasses import replace
from typing import Literal

import structlog
from aiortc.mediastreams import MediaStreamTrack

from bot.control.eventlog import EventLog
from bot.control.limits import Seats
from bot.control.model import ParticipantSpec
from bot.errors import BotError
from bot.events import (
    AttemptFailed,
    ConnectionCreating,
    Event,
    EventSink,
    JoinFailed,
    MediaFailed,
    PhaseDone,
    RemovedFromRoom,
    StateChanged,
)
from bot.participant.config import ParticipantConfig
from bot.participant.own import make_track
from bot.participant.participant import Participant
from bot.participant.states import FINAL, State
from bot.service.report import Row, Sampler, emit_statistics
from bot.service.supervisor import Supervisor

log = structlog.get_logger(__name__)

Origin = Literal["api", "settings"]
Kind = Literal["audio", "video"]
#: How often bit rates are measured (seconds).
SAMPLE = 1.0


class Member:
    """One participant of the fleet, through all the cycles that its supervisor begins."""

    def __init__(
        self,
        name: str,
        config: ParticipantConfig,
        spec: ParticipantSpec,
        *,
        origin: Origin,
        emit: EventSink,
        cool_down: float,
        wall: Callable[[], float] = time.time,
    ) -> None:
        self.id = name
        self.config = config
        self.spec = spec
        self.origin = origin
        self.since = wall()
        self.attempt = 1
        self.phases: dict[str, float] = {}
        self.error: tuple[str, str] | None = None
        self.leaving = False
        #: What moved in the last second.
        self.row: Row | None = None
        self.layout = config.settings.layout
        self._state = State.IDLE
        self._wall = wall
        self._emit = emit
        self._live = Sampler(time.monotonic())
        self._totals = Sampler(time.monotonic())
        self._tracks: dict[Kind, MediaStreamTrack] = {}
        self._supervisor = Supervisor(
            [config],
            lambda found, sink: Participant(found, emit=sink),
            self._on_event,
            restart=spec.rejoin,
            cool_down=cool_down,
        )

    def __repr__(self) -> str:
        return f"<Member {self.id}: {self.state}>"

    @property
    def participant(self) -> Participant | None:
        """The participant of the present cycle; None before the first."""
        return next(iter(self._supervisor.participants), None)

    @property
    def state(self) -> State:
        """Where it stands."""
        return self._state

    @property
    def in_room(self) -> bool:
        """Whether it is visible in its room."""
        return self._supervisor.in_room > 0

    @property
    def endpoint(self) -> str:
        """Its endpoint id, empty while there is none."""
        found = self.participant
        conference = found.conference if found is not None else None
        return conference.room.own.partition("/")[2] if conference is not None else ""

    @property
    def others(self) -> int:
        """Other occupants of its room."""
        found = self.participant
        conference = found.conference if found is not None else None
        return len(tuple(conference.room.occupants.others)) if conference is not None else 0

    def stop(self) -> None:
        """Leave."""
        self.leaving = True
        self._supervisor.stop()

    async def run(self) -> None:
        """Live until ``stop``, or until the duration is over."""
        loop = asyncio.get_running_loop()
        timer = loop.call_later(self.spec.duration, self._supervisor.stop) if self.spec.duration else None
        try:
            await self._supervisor.run()
        finally:
            if timer is not None:
                timer.cancel()
            self.row = None
            for track in self._tracks.values():
                track.stop()

    async def publish(self, kind: Kind, word: str) -> None:
        """Publish what ``word`` of the settings says in the place of what there is. Raises BotError."""
        found = self.participant
        if found is None:
            raise BotError("the participant has not begun yet")
        track = None
        if word != "none":
            config = replace(self.config, audio=word) if kind == "audio" else replace(self.config, video=word)
            track = await asyncio.to_thread(make_track, config, kind)
        await (found.own.set_audio(track) if kind == "audio" else found.own.set_video(track))
        before = self._tracks.pop(kind, None)
        if before is not None:
            before.stop()
        if track is not None:
            self._tracks[kind] = track

    def sample(self, now: float) -> None:
        """Measure bit rates."""
        found = self.participant
        self.row = self._live.rows([found], now)[0] if found is not None and found.state not in FINAL else None

    def report(self, now: float) -> None:
        """Tell what has moved since the last time."""
        found = self.participant
        if found is not None:
            emit_statistics(self._totals.rows([found], now), self._on_event)

    def _on_event(self, event: Event) -> None:
        self.attempt = event.attempt
        match event:
            case ConnectionCreating():
                self.phases = {}
            case PhaseDone():
                self.phases[event.phase] = event.seconds
            case StateChanged():
                self._state, self.since = State(event.state), self._wall()
                if self._state is State.ACTIVE:
                    self.error = None
            case AttemptFailed() | JoinFailed() | RemovedFromRoom() | MediaFailed():
                self.error = event.code, event.cause
            case _:
                pass
        self._emit(event)


class Fleet:
    """All members. ``close`` ends them; nothing of one member's failure touches another."""

    def __init__(self, seats: Seats, events: EventLog, emit: EventSink, *, interval: float) -> None:
        self._seats = seats
        self._events = events
        #: Hears every event, of whomever.
        self.emit = emit
        self._interval = interval
        self._members: dict[str, Member] = {}
        self._tasks: dict[str, asyncio.Task[None]] = {}
        self._clock: asyncio.Task[None] | None = None

    def __repr__(self) -> str:
        return f"<Fleet of {len(self._members)}>"

    @property
    def members(self) -> tuple[Member, ...]:
        """All of them, in the order they came."""
        return tuple(self._members.values())

    def get(self, name: str) -> Member | None:
        """The member of this id."""
        return self._members.get(name)

    @property
    def participants(self) -> tuple[Participant, ...]:
        """The participants of now."""
        return tuple(found for item in self.members if (found := item.participant) is not None)

    @property
    def ready(self) -> bool:
        """Whether everybody who shall be in a room is."""
        return all(item.in_room for item in self._members.values() if not self._tasks[item.id].done())

    def start(self) -> None:
        """Begin to measure."""
        self._clock = asyncio.create_task(self._measure(), name="fleet")

    def add(
        self, name: str, config: ParticipantConfig, spec: ParticipantSpec, *, origin: Origin, cool_down: float
    ) -> Member:
        """Let a participant join. Raises RequestError where there are too many; the settings may ask for more."""
        seat = self._seats.take(1, limited=origin == "api")

        def emit(event: Event) -> None:
            self._events.add(name, event)
            self.emit(event)

        member = Member(name, config, spec, origin=origin, emit=emit, cool_down=cool_down)
        self._members[name] = member
        task = self._tasks[name] = asyncio.create_task(self._live(member), name=f"participant {name}")
        task.add_done_callback(lambda _: seat.free())
        return member

    def remove(self, member: Member) -> None:
        """Let it leave; it is forgotten when it has."""
        member.stop()
        if self._tasks[member.id].done():
            self._forget(member)

    def ended(self, member: Member) -> bool:
        """Whether it holds no seat any more."""
        return self._tasks[member.id].done()

    async def let_go(self, members: Collection[Member]) -> None:
        """Let some leave, and return when they have."""
        tasks = [self._tasks[item.id] for item in members]
        for member in members:
            self.remove(member)
        if tasks:
            await asyncio.wait(tasks)

    async def close(self, timeout: float) -> bool:
        """Let all leave within ``timeout`` seconds, and end who has not; whether all have left in time."""
        for member in self.members:
            member.stop()
        tasks = set(self._tasks.values())
        if self._clock is not None:
            self._clock.cancel()
            await asyncio.wait([self._clock])
        late: Iterable[asyncio.Task[None]] = ()
        if tasks:
            _, late = await asyncio.wait(tasks, timeout=timeout)
            for task in late:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)
        return not late

    async def _live(self, member: Member) -> None:
        try:
            await member.run()
        except Exception as error:
            # A defect ends the one participant that it is of.
            log.exception("A participant failed", event_name="participant_failed", participant=member.config.name)
            member.error = "internal", type(error).__name__
        finally:
            if member.leaving:
                self._forget(member)

    def _forget(self, member: Member) -> None:
        self._members.pop(member.id, None)
        self._tasks.pop(member.id, None)

    async def _measure(self) -> None:
        due = time.monotonic() + self._interval
        while True:
            await asyncio.sleep(SAMPLE)
            now = time.monotonic()
            for member in self.members:
                member.sample(now)
            if self._interval and now >= due:
                due = now + self._interval
                for member in self.members:
                    member.report(now)
