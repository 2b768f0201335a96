"""A participant that watches its room: it sends nothing, decodes nothing, and tells how the others are."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Iterable, Sequence
from contextlib import AsyncExitStack
from typing import Protocol

import structlog

from bot import events
from bot.bridge.payloads import PayloadFormat
from bot.bridge.rtcp import SenderReport
from bot.bridge.rtp import RtpHeader
from bot.bridge.tap import Tapped
from bot.errors import BotError
from bot.monitor.meeting import Change, MeetingSeen, MeetingWatch, ParticipantSeen
from bot.monitor.meeting_metrics import MeetingMetrics
from bot.monitor.watch_settings import WatchSettings
from bot.participant.config import ParticipantConfig, expand
from bot.participant.participant import Participant
from bot.service.http import HealthServer
from bot.service.runner import Outcome, catch_signals, embedded_server, embedded_settings
from bot.settings import Settings

log = structlog.get_logger(__name__)

#: What a monitor is called in the room where no name is given: everybody sees what it does.
NAME = "Monitor"
#: Seconds between two looks at who is here and what is muted.
TICK = 0.25
#: Events that tell of a change of the meeting, or of the monitor's own stay.
CHANGES = (
    events.ParticipantJoined,
    events.ParticipantLeft,
    events.RemoteMuteChanged,
    events.QualityChanged,
    events.DominantSpeakerChanged,
    events.EndpointConnectivityChanged,
    events.ConferenceJoined,
    events.MediaConnected,
    events.MediaEnded,
    events.MediaFailed,
    events.MediaRecovered,
    events.ConnectionDegraded,
    events.ConnectionRecovered,
    events.JoinFailed,
    events.RemovedFromRoom,
    events.Left,
)


class Output(Protocol):
    """Who hears what is found."""

    def report(self, seen: MeetingSeen) -> None:
        """An interval is over."""
        ...

    def event(self, event: events.Event) -> None:
        """Something happened."""
        ...

    def ended(self, people: Sequence[ParticipantSeen]) -> None:
        """The watch is over: everybody who was there, over the whole time."""
        ...


def monitor_config(settings: Settings) -> ParticipantConfig:
    """The participant of a monitor: it publishes nothing and decodes nothing."""
    changes: dict[str, object] = {
        "audio": "none",
        "video": "none",
        "bots": 1,
        "participants": (),
        "decode": "none",
        "receive_audio": True,
    }
    if "name" not in settings.model_fields_set:
        changes["name"] = NAME
    return expand(settings.model_copy(update=changes))[0]


class Watcher:
    """Watches one meeting. ``run`` is its whole life; ``output`` hears what it finds."""

    def __init__(
        self,
        config: ParticipantConfig,
        options: WatchSettings,
        *,
        output: Output,
        clock: Callable[[], float] = time.monotonic,
        wall: Callable[[], float] = time.time,
    ) -> None:
        self._config = config
        self._options = options
        self._output = output
        self._joined = False
        self._clock = clock
        self._wall = wall
        self._inbound: Tapped | None = None
        self._broken = False
        self.metrics = MeetingMetrics()
        self.watch = MeetingWatch(config.room, options.limits, clock())
        self.participant = Participant(config, emit=self._on_event, clock=clock, tap=self)
        if options.height:
            self.participant.set_layout(mode="custom", height=options.height, last_n=config.settings.last_n)
        else:
            self.participant.set_layout(mode="audio-only")

    def __repr__(self) -> str:
        return f"<Watcher of {self._config.room}>"

    def stop(self) -> None:
        """Leave; ``run`` then returns."""
        self.participant.stop()

    async def run(self) -> None:
        """Join, watch until ``stop``, leave. Raises the BotError that ended it before."""
        ticking = asyncio.create_task(self._tick_on(), name="watch")
        try:
            await self.participant.run()
        finally:
            ticking.cancel()
            await asyncio.gather(ticking, return_exceptions=True)
            self._output.ended(self.watch.everybody(self._clock()))

    @property
    def joined(self) -> bool:
        """Whether it ever was in the room."""
        return self._joined

    async def _tick_on(self) -> None:
        due = self._clock() + self._options.interval
        while True:
            await asyncio.sleep(TICK)
            now = self._clock()
            try:
                self._look(now)
                if now >= due:
                    due = max(due, now - self._options.interval) + self._options.interval
                    self._report(now)
            except Exception as error:  # noqa: BLE001 - it is logged there, once
                self._failed("The room could not be looked at", error)

    def _look(self, now: float) -> None:
        conference = self.participant.conference
        if conference is not None and self.participant.in_room:
            self._tell(self.watch.look(conference.room.occupants.others, conference.remote_sources, now))

    def _report(self, now: float) -> None:
        conference = self.participant.conference
        if conference is None or not self.participant.in_room:
            return
        seen, changes = self.watch.report(
            conference.remote_sources,
            self.participant.streams,
            conference.session.bridge.statistics,
            now=now,
            at=self._wall(),
            connected=conference.media is not None,
        )
        self._tell(changes)
        self.metrics.show(seen)
        self._output.report(seen)

    def _tell(self, changes: Iterable[Change]) -> None:
        for change in changes:
            if change.kind is events.QualityChanged:
                self.metrics.changed(change.fields["quality"])
            self._output.event(change.kind(room=self._config.room, participant=self._config.name, **change.fields))

    def _on_event(self, event: events.Event) -> None:
        self.watch.on_event(event)
        self._joined = self._joined or isinstance(event, events.ConferenceJoined)
        self._output.event(event)

    # --- the tap ---------------------------------------------------------------------------------------------

    def opened(self, inbound: Tapped) -> None:
        """A media session begins."""
        self._inbound = inbound

    def closed(self) -> None:
        """It is over."""
        self._inbound = None

    def packet(self, known: PayloadFormat, header: RtpHeader, data: bytes, now: float) -> None:
        """Take a packet of media. Whatever is wrong with it, the call goes on."""
        if self._inbound is None:
            return
        try:
            self.watch.packet(self._inbound.sources.named(header.ssrc), known, header, data, now)
        except Exception as error:  # noqa: BLE001 - as above
            self._failed("A packet could not be read", error)

    def report(self, report: SenderReport, now: float) -> None:
        """Sender reports tell nothing that is needed here."""

    def moved(self, ssrcs: Iterable[int]) -> None:
        """Flows go by the names of sources, whatever SSRC carries them."""

    def gone(self, ssrcs: Iterable[int]) -> None:
        """Sources that are gone are told by events."""

    def _failed(self, text: str, error: Exception) -> None:
        """Say once that something is wrong here."""
        if not self._broken:
            self._broken = True
            log.error(text, event_name="monitor_failed", exc_info=error)


async def watch(settings: Settings, options: WatchSettings, output: Output, *, serve: bool) -> Outcome:
    """Watch the room of ``settings`` until SIGTERM, SIGINT or the end of ``duration``.

    ``serve`` has ``/metrics`` at ``http_host`` and ``http_port``. Raises ConfigurationError where it can't be had.
    """
    watcher = Watcher(monitor_config(settings), options, output=output)
    async with AsyncExitStack() as stack:
        if serve:
            server = HealthServer(
                settings.http_host,
                settings.http_port,
                ready=lambda: watcher.participant.in_room,
                metrics=watcher.metrics,
            )
            await server.start()
            stack.push_async_callback(server.stop)
        stack.callback(catch_signals(watcher.stop))
        if settings.duration:
            stack.callback(asyncio.get_running_loop().call_later(settings.duration, watcher.stop).cancel)
        try:
            await watcher.run()
        except BotError:
            return Outcome.LOST if watcher.joined else Outcome.NOT_JOINED
    return Outcome.FINE


async def watch_embedded(settings: Settings, options: WatchSettings, output: Output, *, serve: bool) -> Outcome:
    """The same in an embedded server, with bots that there is something to watch."""
    async with embedded_server(settings.embedded_port) as server:
        settings = embedded_settings(settings, server)
        crowd = settings.model_copy(update={"name": "bot", "participants": ()})
        bots = [Participant(config, emit=lambda _: None) for config in expand(crowd)]
        running = [asyncio.create_task(bot.run(), name=f"bot {bot.config.name}") for bot in bots]
        try:
            return await watch(settings, options, output, serve=serve)
        finally:
            for bot in bots:
                bot.stop()
            await asyncio.gather(*running, return_exceptions=True)
