"""One probe: the passes, the bots of each, and the result."""

from __future__ import annotations

import asyncio
import secrets
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import replace

import structlog

from bot import events
from bot.bridge.decode import DecodedStream
from bot.bridge.decoder import DecodedFrame
from bot.errors import BotError
from bot.monitor.diagnosis import combine, judge
from bot.monitor.model import BotSeen, Failure, PassResult, PassSeen, PathSeen, Preflight, ProbeResult, Stage
from bot.monitor.preflight import preflight
from bot.monitor.settings import ProbeSettings
from bot.monitor.watch import BotWatch
from bot.participant.clips import ClipSource, LibraryUse, sound_clip, video_clip
from bot.participant.config import ParticipantConfig, expand
from bot.participant.participant import Participant
from bot.settings import Settings

log = structlog.get_logger(__name__)

#: Seconds that the other bots get to fail, too, once one has: who failed says where.
GRACE = 1.0
#: Seconds for the first picture and sound of everybody, once all are connected; then it is measured what there is.
FIRST_MEDIA = 6.0
#: ICE and DTLS get so much of the whole time each: how they fail is known before it is over.
MEDIA_SHARE = 0.75
#: How often the bots are looked at.
STEP = 0.05
#: What the bots send where the settings leave it open: what every bridge and bot can take.
CODEC = "vp8"


class Probe:
    """Makes probes of one deployment. ``emit`` hears the events of all bots."""

    def __init__(
        self,
        settings: Settings,
        probe: ProbeSettings,
        *,
        emit: events.EventSink = lambda _: None,
        wall: Callable[[], float] = time.time,
    ) -> None:
        self._settings = settings
        self._probe = probe
        self._emit = emit
        self._wall = wall

    async def run(self) -> ProbeResult:
        """Make all passes, one after the other. What nobody thought of is a verdict, too: unknown."""
        began, clock = self._wall(), time.monotonic()
        room = f"{self._probe.room_prefix}-{secrets.token_hex(4)}"
        passes: list[PassResult] = []
        try:
            await self._prepare()
            for name, settings, region in self._plan():
                seen = await self._pass(name, settings, room, region)
                passes.append(judge(seen, self._probe.limits, self._wall()))
                if passes[-1].verdict.code == "no_turn_server" and self._probe.relay == "auto":
                    passes.pop()  # nobody asked for more than there is
                elif len(passes) == 1 and passes[0].verdict.stage.number < Stage.ICE.number:
                    break  # no other pass comes further
        except BotError as error:
            passes.append(self._failed(error.code, str(error)))
        except Exception as error:
            log.exception("The probe failed", event_name="probe_failed")
            passes.append(self._failed("internal", f"{type(error).__name__}: {error}"))
        return ProbeResult(
            at=began,
            seconds=time.monotonic() - clock,
            url=self._settings.ws_url,
            room=room,
            verdict=combine(passes, relay_wanted=self._probe.relay == "required"),
            passes=tuple(passes),
        )

    def _failed(self, code: str, cause: str) -> PassResult:
        seen = PassSeen(name="probe", preflight=Preflight(failed=Stage.PROBE, failure=Failure(code, cause)))
        return judge(seen, (), self._wall())

    def _plan(self) -> Iterator[tuple[str, Settings, str | None]]:
        """Name, settings and region of each pass."""
        yield "direct", self._with(use_turn="off"), None
        if self._probe.relay != "off":
            yield "relay", self._with(use_turn="relay"), None
        for region in self._probe.regions:
            yield f"region:{region}", self._with(use_turn="auto"), region

    def _with(self, **changes: object) -> Settings:
        """The settings of the bots: one try each, everything decoded, the marks in what they send."""
        settings, probe = self._settings, self._probe
        changes |= {
            "media_engine": "shared",
            "audio": "speech",
            "talk": "always",
            "video": "pattern",
            "video_codec": CODEC if settings.video_codec == "auto" else settings.video_codec,
            "start_muted_audio": False,
            "start_muted_video": False,
            "decode": "all",
            "receive_audio": True,
            "receive_height": max(settings.height, settings.receive_height),
            "last_n": -1,
            "layout": "custom",
            "simulcast": False,
            "visitors": "refuse",
            "retries": 0,
            "bots": probe.bots,
            "participants": (),
            "media_timeout": MEDIA_SHARE * probe.timeout,
            "lobby_timeout": probe.timeout,
        }
        return settings.model_copy(update=changes)

    async def _prepare(self) -> None:
        """Encode what is sent, before the clock runs."""
        config = expand(self._with())[0]
        use = LibraryUse(config.settings.cache_dir)
        try:
            for spec in (video_clip(config), sound_clip(config)):
                if spec is not None:
                    await ClipSource(spec, use.library).get(config.settings.video_codec)
        finally:
            await use.close()

    async def _pass(self, name: str, settings: Settings, room: str, region: str | None) -> PassSeen:
        prefix = name.replace(":", "-")
        settings = settings.model_copy(update={"room": f"{room}-{prefix}".lower(), "name": "probe"})
        configs = expand(settings)
        before = await _preflight(configs[0])
        if before.failed is not None:
            return PassSeen(name=name, preflight=before, timeout=self._probe.timeout)
        meeting = _Meeting(configs, self._probe, self._emit, self._wall, region)
        bots, paths = await meeting.run()
        return PassSeen(
            name=name, preflight=before, bots=bots, paths=paths, timeout=self._probe.timeout, lag=meeting.lag
        )


async def _preflight(config: ParticipantConfig) -> Preflight:
    settings = config.settings
    try:
        token = config.token() if config.token is not None else None
    except BotError as error:
        return Preflight(failed=Stage.AUTHENTICATION, failure=Failure(error.code, str(error)))
    return await preflight(
        settings.ws_url,
        config.room.lower(),
        token=token,
        ca_file=settings.ca_file,
        timeout=settings.connect_timeout,
    )


class _Bot:
    """A participant and what it sees."""

    def __init__(
        self, config: ParticipantConfig, emit: events.EventSink, wall: Callable[[], float], region: str | None
    ) -> None:
        self.watch = BotWatch(config.name, config.settings.fps)
        self._emit = emit
        self._wall = wall
        properties = {"region": region} if region else None
        self.participant = Participant(config, emit=self._on_event, on_frame=self._on_frame, properties=properties)

    def _on_event(self, event: events.Event) -> None:
        self.watch.on_event(event)
        self._emit(event)

    def _on_frame(self, stream: DecodedStream, frame: DecodedFrame) -> None:
        self.watch.frame(stream.ssrc, frame, self._wall())

    async def run(self) -> None:
        """Be there until stopped. What ends it is told by its events."""
        with suppress(BotError):
            await self.participant.run()
        self.watch.ended = True

    def seen(self) -> BotSeen:
        """What it saw, while it is still there."""
        conference = self.participant.conference
        focus = conference is None or conference.room.occupants.focus is not None
        others = len(conference.room.occupants.others) if conference is not None else 0
        media = conference.media if conference is not None else None
        if media is None:
            return replace(self.watch.seen(focus=focus), others=others)
        totals = media.totals()
        seen = self.watch.seen(
            focus=focus,
            sent=media.sent[0],
            acked=totals.sent_acked,
            unacked=totals.sent_lost,
            decoded=totals.decoded,
            dropped=totals.decode_dropped,
            round_trip=totals.round_trip,
        )
        return replace(seen, others=others)


class _Meeting:
    """The bots of one pass in their room."""

    def __init__(
        self,
        configs: list[ParticipantConfig],
        probe: ProbeSettings,
        emit: events.EventSink,
        wall: Callable[[], float],
        region: str | None,
    ) -> None:
        self._probe = probe
        self._wall = wall
        self._bots = [_Bot(config, emit, wall, region) for config in configs]
        #: The longest time by which the event loop was late while media was measured, in seconds.
        self.lag = 0.0

    async def run(self) -> tuple[tuple[BotSeen, ...], tuple[PathSeen, ...]]:
        """Join, measure, leave."""
        async with asyncio.TaskGroup() as group:
            tasks = [group.create_task(bot.run(), name=f"probe {bot.watch.name}") for bot in self._bots]
            try:
                await self._joined()
                paths = await self._measure() if self._all_connected else ()
                bots = tuple(bot.seen() for bot in self._bots)
            finally:
                for bot in self._bots:
                    bot.participant.stop()
            await asyncio.wait(tasks)
        return bots, paths

    @property
    def _all_connected(self) -> bool:
        return all(bot.watch.connected and not bot.watch.failed for bot in self._bots)

    async def _joined(self) -> None:
        """Wait until all have media, or it is clear that one gets none."""
        await self._until(lambda: self._all_connected or self._any_failed, self._probe.timeout)
        if self._any_failed:
            await self._until(lambda: all(bot.watch.failed for bot in self._bots), GRACE)

    @property
    def _any_failed(self) -> bool:
        return any(bot.watch.failed or bot.watch.ended for bot in self._bots)

    async def _until(self, condition: Callable[[], bool], timeout: float) -> None:
        with suppress(TimeoutError):
            async with asyncio.timeout(timeout):
                while not condition():  # many events of many bots say it
                    began = time.monotonic()
                    await asyncio.sleep(STEP)
                    self.lag = max(self.lag, time.monotonic() - began - STEP)

    async def _measure(self) -> tuple[PathSeen, ...]:
        names = {bot.watch.endpoint: bot.watch.name for bot in self._bots}
        await self._until(lambda: self._any_failed or self._all_hear(names), FIRST_MEDIA)
        for bot in self._bots:
            bot.watch.begin(self._wall(), bot.participant.streams, names)
        self.lag = 0.0
        await self._until(lambda: self._any_failed, self._probe.duration)
        return tuple(
            path for bot in self._bots for path in bot.watch.paths(self._wall(), bot.participant.streams, names)
        )

    def _all_hear(self, names: dict[str, str]) -> bool:
        return all(
            bot.watch.hears(endpoint) for bot in self._bots for endpoint in names if endpoint != bot.watch.endpoint
        )
