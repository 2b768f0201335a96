"""The participants of one process of a load run: they come, speak and go by the timetable, and are measured."""

from __future__ import annotations

import asyncio
import os
import time
from collections import Counter
from collections.abc import Callable, Sequence
from fractions import Fraction
from functools import partial

import structlog
from av import AudioFrame, VideoFrame

from bot import events
from bot.bridge.decode import DecodedStream
from bot.clips.model import phase_of
from bot.clips.spec import ClipSpec
from bot.engine.inbound import EngineInbound
from bot.engine.pacer import Lateness, running_pacer
from bot.engine.receiver import running_receiver
from bot.engine.shaped import Link, opener
from bot.errors import BotError
from bot.load import seating
from bot.load.collector import Collector, Sample, StreamSample, WorstStream
from bot.load.messages import Share
from bot.load.overload import MAX_LOOP_LAG
from bot.load.shaping import Direction, Shaper
from bot.load.timetable import Action, Seat, is_silent, timetable
from bot.media.measure import PathMeter
from bot.media.sound import SAMPLE_RATE
from bot.participant.clips import LibraryUse, sound_clip, video_clip
from bot.participant.config import ParticipantConfig
from bot.participant.participant import Participant
from bot.participant.states import FINAL

log = structlog.get_logger(__name__)

#: Everybody is looked at once in this time (seconds), a few at a time: media never waits long for it.
SAMPLE_INTERVAL = 1.0
SLICES = 10
#: How often the loop is asked how late it is (seconds).
PROBE_INTERVAL = 0.1
#: Streams of each process that are told as the worst.
WORST = 5
#: Duration of the clips of pattern and speech (seconds), which marks are read by.
CLIP_DURATION = Fraction(8)


def configs_of(share: Share) -> dict[int, ParticipantConfig]:
    """The configuration of each seat of a process, as long as nobody speaks."""
    table = timetable(share.scenario, share.processes)
    return {
        seat.index: seating.config_of(share.settings, share.scenario, seat)
        for seat in table.seats
        if seat.process == share.process
    }


def link_of(seat: Seat, seed: int) -> Link | None:
    """The bad network of a seat; None where it is left as it is."""
    shaping = seat.shaping
    if shaping is None:
        return None

    def model(direction: Direction) -> Shaper | None:
        return Shaper(shaping, seat.shaping_seed(direction, seed)) if shaping.applies(direction) else None

    return Link(up=model("up"), down=model("down"))


def clips_of(configs: Sequence[ParticipantConfig]) -> set[ClipSpec]:
    """All that they send, as far as it is made of clips."""
    found: set[ClipSpec] = set()
    for config in configs:
        for spec in (
            video_clip(config) if config.video != "none" else None,
            sound_clip(config) if config.audio != "none" else None,
        ):
            if spec is not None:
                found.add(spec)
    return found


class Crew:
    """Runs a share. ``run`` lasts until all have left; ``stop`` makes all leave now.

    ``clock`` is in seconds of the run: below 0 before it begins.
    """

    def __init__(self, share: Share, clock: Callable[[], float]) -> None:
        self._share = share
        self._clock = clock
        self._seats_of_all = timetable(share.scenario, share.processes)
        mine = self._seats_of_all.of_process(share.process)
        self._seats = {seat.index: seat for seat in mine.seats}
        self._actions = mine.actions
        self._sampled = (
            seating.sampled(self._seats_of_all.seats, share.processes) if share.decode != "none" else set[int]()
        )
        self._lag = 0.0
        self.collector = Collector(share.scenario.warm_up, lambda: self._lag > MAX_LOOP_LAG)
        observers = seating.observers(self._seats_of_all.seats)
        for seat in mine.seats:
            self.collector.add(seat.index, seat.room, seat.name, observer=seat.index in observers)
        #: Networks of those whose network is shaped; they outlast a stay.
        self.links = {seat.index: link for seat in mine.seats if (link := link_of(seat, share.scenario.seed))}
        self._present: dict[int, Participant] = {}
        self._lives: dict[int, asyncio.Task[None]] = {}
        self._meters: dict[tuple[int, str], PathMeter] = {}
        self._stopping = asyncio.Event()
        self._worst: list[WorstStream] = []
        self._load = _OwnLoad()

    def __repr__(self) -> str:
        return f"<Crew {self._share.process} of {self._share.processes}: {len(self._present)} present>"

    @property
    def states(self) -> Counter[str]:
        """Participants by state."""
        return Counter(item.state.value for item in self._present.values() if item.state not in FINAL)

    @property
    def in_room(self) -> int:
        """How many are visible in their rooms."""
        return sum(item.in_room for item in self._present.values())

    @property
    def cpu(self) -> float:
        """Share of a core that this process used in the last second."""
        return self._load.cpu

    def worst(self) -> list[WorstStream]:
        """The streams that lost most since the last call."""
        found = sorted(self._worst, key=lambda item: -item.loss)[:WORST]
        self._worst = []
        return found

    def stop(self) -> None:
        """Make all leave."""
        self._stopping.set()
        for participant in self._present.values():
            participant.stop()

    async def prepare(self) -> LibraryUse:
        """Have all clips at hand before anybody comes. The caller closes what it gets."""
        use = LibraryUse(self._share.settings.cache_dir)
        try:
            for spec in clips_of(list(configs_of(self._share).values())):
                await use.library.get(spec)
        except BaseException:
            await use.close()
            raise
        return use

    async def run(self) -> None:
        """Let them come and go until the last has left."""
        asides = [
            asyncio.create_task(work, name=name)
            for work, name in (
                (self._probe(), "loop lag"),
                (self._measure(), "samples"),
                (self._switch(), "speakers"),
            )
        ]
        try:
            async with asyncio.TaskGroup() as group:
                await self._act(group)
        finally:
            for task in asides:
                task.cancel()
            await asyncio.gather(*asides, return_exceptions=True)

    # --- coming and going ---

    async def _act(self, group: asyncio.TaskGroup) -> None:
        joins = sum(action.what == "join" for action in self._actions)
        for action in self._actions:
            if await (self._wait_until(action.at) if joins else self._wait_gone(action.at)):
                return
            joins -= action.what == "join"
            self._do(action, group)

    async def _wait_gone(self, at: float) -> bool:
        """Wait for a time of the run after the last join; True where nobody is left, or all are to leave."""
        while not self._stopping.is_set() and (left := at - self._clock()) > 0:
            lives = [life for life in self._lives.values() if not life.done()]
            if not lives:
                return True
            await asyncio.wait(lives, timeout=min(SAMPLE_INTERVAL, left), return_when=asyncio.FIRST_COMPLETED)
        return self._stopping.is_set()

    async def _wait_until(self, at: float) -> bool:
        """Wait for a time of the run; True where all are to leave."""
        try:
            async with asyncio.timeout(max(0.0, at - self._clock())):
                await self._stopping.wait()
        except TimeoutError:
            pass
        return self._stopping.is_set()

    def _do(self, action: Action, group: asyncio.TaskGroup) -> None:
        present = self._present.get(action.seat)
        if action.what == "leave":
            if present is not None:
                present.stop()
            return
        before = self._lives.get(action.seat)
        life = group.create_task(self._live(self._seats[action.seat], before), name=f"seat {action.seat}")
        self._lives[action.seat] = life

    async def _live(self, seat: Seat, before: asyncio.Task[None] | None) -> None:
        """One stay of one participant, after the one before it is over."""
        if before is not None:
            await asyncio.wait([before])
        if self._stopping.is_set():
            return
        participant = self._make(seat)
        self._present[seat.index] = participant
        try:
            await participant.run()
        except BotError:
            pass  # its events told
        except Exception as error:
            log.exception("A participant failed", event_name="participant_failed", participant=seat.name)
            self.collector.tally.fail("internal", f"{type(error).__name__}: {error}", "client")
        finally:
            del self._present[seat.index]
            self.collector.left(seat.index, self._clock())

    def _make(self, seat: Seat) -> Participant:
        decode = self._share.decode if seat.index in self._sampled else "none"
        config = seating.config_of(
            self._share.settings,
            self._share.scenario,
            seat,
            decode=decode,
            muted=self._is_silent(seat, self._clock()),
        )
        return Participant(
            config,
            emit=partial(self._event, seat.index),
            on_frame=partial(self._frame, seat.index) if decode != "none" else None,
            open_socket=opener(link) if (link := self.links.get(seat.index)) else None,
        )

    def _event(self, seat: int, event: events.Event) -> None:
        self.collector.event(seat, event, self._clock())

    # --- speaking ---

    def _is_silent(self, seat: Seat, at: float) -> bool:
        return is_silent(self._share.scenario, seat, at)

    async def _switch(self) -> None:
        length = self._share.scenario.switch_speakers
        if not length:
            return
        while True:
            now = self._clock()
            await asyncio.sleep(max(0.0, (int(max(0.0, now) / length) + 1) * length - now))
            for index, participant in list(self._present.items()):
                self._turn_to(self._seats[index], participant)

    def _turn_to(self, seat: Seat, participant: Participant) -> None:
        """Let a participant speak, or be silent, as its turn is."""
        source = next((item for item in participant.own.sources if item.kind == "audio"), None)
        if not seat.audio or source is None:
            return
        at = self._clock()
        silent = self._is_silent(seat, at)
        try:
            if silent and not source.muted:
                participant.own.mute("audio")
            elif not silent and source.muted:
                participant.own.unmute("audio")
                self.collector.unmuted(seat.index, at)
        except BotError as error:
            self.collector.tally.fail(f"unmute: {error.code}", error.message, "server")

    # --- measuring ---

    async def _probe(self) -> None:
        loop = asyncio.get_running_loop()
        due = loop.time()
        while True:
            due += PROBE_INTERVAL
            await asyncio.sleep(due - loop.time())
            self._lag = round(max(0.0, loop.time() - due), 6)  # less is the clock's own
            self.collector.loop_lag(self._lag, self._clock())
            due = max(due, loop.time() - PROBE_INTERVAL)

    async def _measure(self) -> None:
        turn = 0
        while True:
            await asyncio.sleep(SAMPLE_INTERVAL / SLICES)
            turn += 1
            for index in [index for index in self._present if index % SLICES == turn % SLICES]:
                if (participant := self._present.get(index)) is not None:
                    self._worst += self.collector.sample(index, sample_of(participant, self._clock), self._clock())
            if turn % SLICES == 0:
                self._load.tell(self.collector, self._clock())

    def _frame(self, seat: int, stream: DecodedStream, frame: VideoFrame | AudioFrame) -> None:
        participant = self._present.get(seat)
        conference = participant.conference if participant is not None else None
        media = conference.media if conference is not None else None
        endpoint = media.inbound.sources.endpoint_of(stream.ssrc) if media is not None else None
        if endpoint is None or (isinstance(frame, AudioFrame) and frame.sample_rate != SAMPLE_RATE):
            return
        meter = self._meters.get((seat, endpoint))
        if meter is None:
            meter = self._meters[seat, endpoint] = PathMeter(
                CLIP_DURATION,
                Fraction(self._share.scenario.fps),
                phase_of(endpoint, CLIP_DURATION),
                on_value=self._value,
            )
        meter.feed_frame(frame, time.time())

    def _value(self, kind: str, seconds: float) -> None:
        if kind == "picture_delay":
            self.collector.delay(seconds, self._clock())
        elif kind == "lip_sync":
            self.collector.lip_sync(seconds, self._clock())


class _OwnLoad:
    """What this process costs, second by second."""

    def __init__(self) -> None:
        self.cpu = 0.0
        self._at = time.monotonic()
        self._used = _cpu_seconds()
        self._late: list[int] = []
        self._overflow = 0

    def tell(self, collector: Collector, at: float) -> None:
        """Report what came since the last call."""
        now, used = time.monotonic(), _cpu_seconds()
        if now > self._at:
            self.cpu = (used - self._used) / (now - self._at)
        self._at, self._used = now, used
        overflow = running_receiver().overflow
        more, self._overflow = overflow - self._overflow, overflow
        collector.client(cpu=self.cpu, late=self._lateness(running_pacer().lateness), overflow=max(0, more), at=at)

    def _lateness(self, lateness: Lateness) -> dict[float, int]:
        """How often packets were late since the last call, by seconds."""
        counts = lateness.counts()
        before = self._late or [0] * len(counts)
        self._late = counts
        return {
            number / 1000: count - old
            for number, (count, old) in enumerate(zip(counts, before, strict=True))
            if count > old
        }


def _cpu_seconds() -> float:
    times = os.times()
    return times.user + times.system


def sample_of(participant: Participant, clock: Callable[[], float]) -> Sample:
    """What ``participant`` has moved until now; ``clock`` is in seconds of the run."""
    media = participant.conference.media if participant.conference is not None else None
    traffic, received = participant.sample()
    if media is None or traffic.session is None:
        return Sample(None)
    now = time.monotonic()
    began = now - clock()
    inbound = media.inbound if isinstance(media.inbound, EngineInbound) else None
    streams = []
    for item in received:
        row = inbound.row(item.ssrc) if inbound is not None else None
        is_picture = row is not None and item.media == "video"
        streams.append(
            StreamSample(
                ssrc=item.ssrc,
                media=item.media,
                owner=item.owner,
                packets=item.packets,
                missing=item.missing,
                jitter=item.jitter,
                bitrate=item.bitrate,
                fps=row.frame_rate(now) if row is not None and is_picture else None,
                height=row.size[1] if row is not None and row.size and is_picture else None,
                freezes=row.freezes if row is not None and is_picture else None,
                frozen=row.frozen if row is not None and is_picture else 0.0,
                first_frame=row.first_frame - began if row is not None and row.first_frame is not None else None,
            )
        )
    return Sample(
        traffic.session,
        packets_sent=traffic.packets_sent,
        bytes_sent=traffic.bytes_sent,
        packets_received=traffic.packets_received,
        bytes_received=traffic.bytes_received,
        round_trip=media.round_trip,
        bandwidth=traffic.bandwidth,
        streams=streams,
    )
