"""A participant that records its room: it publishes nothing, says that it records, and takes all that comes."""

from __future__ import annotations

import asyncio
import itertools
import time
from collections.abc import Callable, Iterable
from contextlib import ExitStack
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import structlog

from bot import events
from bot.bridge.payloads import PayloadFormat
from bot.bridge.rtcp import SenderReport
from bot.bridge.rtp import RtpHeader
from bot.bridge.tap import Tapped
from bot.errors import BotError, ConfigurationError
from bot.participant.config import ParticipantConfig
from bot.participant.participant import Participant
from bot.recording import poster
from bot.recording.disk import FOLDER_MODE, MAX_WAITING, Append, DiskThread, Finish, Folder, Open, Order
from bot.recording.names import meeting_folder
from bot.recording.options import MEBIBYTE, RecordOptions
from bot.recording.recover import locked
from bot.recording.session import RecordingSession
from bot.recording.track import Rotation
from bot.recording.watchdogs import Situation, Watchdogs

log = structlog.get_logger(__name__)

#: Seconds between two looks at the room and at what is due.
TICK = 0.25
#: The participant property that makes web clients show that somebody records (jitsi-meet, ``base/participants``).
PROPERTY = "localRecording"


class Recorder:
    """Records one meeting into a folder of its own in ``options.out``. ``run`` is its whole life.

    ``emit`` gets the participant's events, and those of the recording. Raises ConfigurationError where there can't
    be a folder.
    """

    def __init__(
        self,
        config: ParticipantConfig,
        options: RecordOptions,
        *,
        emit: events.EventSink,
        clock: Callable[[], float] = time.monotonic,
        wall: Callable[[], datetime] = lambda: datetime.now(UTC),
    ) -> None:
        self._config = config
        self._options = options
        self._emit_event = emit
        self._clock = clock
        self._wall = wall
        started = wall()
        self.folder = make_folder(options.out, config.room, started)
        self.session = RecordingSession(
            config.room,
            started=started,
            video=not options.audio_only,
            rotation=Rotation(options.rotate_after, options.rotate_size * MEBIBYTE),
            requests=lambda: self._inbound,
        )
        self.participant = Participant(
            config, emit=self._on_event, clock=clock, tap=self, properties={PROPERTY: "true"}
        )
        if options.audio_only:
            self.participant.set_layout(mode="audio-only")
        else:
            self.participant.set_layout(mode="custom", height=options.max_height or -1, last_n=-1)
        self.participant.subscribe_audio(everyone=True)
        self._inbound: Tapped | None = None
        self._disk: DiskThread | None = None
        self._watchdogs: Watchdogs | None = None
        self._cause = "stopped"
        self._told: set[str] = set()

    def __repr__(self) -> str:
        return f"<Recorder of {self._config.room} in {self.folder}>"

    def stop(self, cause: str = "stopped") -> None:
        """End the recording and leave; ``run`` then returns."""
        self._cause = cause
        self._end()
        self.participant.stop()

    async def run(self) -> None:
        """Join, record until ``stop`` or a watchdog ends it, leave. Raises the BotError that ended it before."""
        with ExitStack() as stack:
            stack.enter_context(locked(self.folder))
            self._disk = DiskThread(Folder(self.folder))
            ticking = asyncio.create_task(self._tick_on(), name="recording")
            try:
                await self.participant.run()
            except BotError as error:
                self._cause = error.code
                raise
            finally:
                ticking.cancel()
                await asyncio.gather(ticking, return_exceptions=True)
                await self._finish()

    async def _finish(self) -> None:
        self._end()
        if self._disk is not None:
            await asyncio.to_thread(self._disk.close)
            self._failures()
            if self.session.manifest.duration:
                self.session.manifest.poster = await asyncio.to_thread(poster.add, self.folder)

    def _end(self) -> None:
        """End all files while their sources are still there; only the first call does so."""
        now = self._clock()
        active = self.session.active
        self._give(self.session.end(self._cause, now))
        if active:
            self._ended(now)

    def _ended(self, now: float) -> None:
        self._emit(
            events.RecordingEnded,
            folder=str(self.folder),
            cause=str(self.session.manifest.end_cause),
            files=len(self.session.manifest.segments()),
            seconds=self.session.at(now),
        )

    # --- the tap ---------------------------------------------------------------------------------------------

    def opened(self, inbound: Tapped) -> None:
        """A media session begins."""
        self._inbound = inbound

    def closed(self) -> None:
        """It is over."""
        self._inbound = None
        self._safely(self.session.session_lost)

    def packet(self, known: PayloadFormat, header: RtpHeader, data: bytes, now: float) -> None:
        """Take a packet of media."""
        if self._inbound is None or not self.session.active:
            return
        named = self._inbound.sources.named(header.ssrc)
        self._safely(lambda: self.session.packet(named, known, header, data, now))

    def report(self, report: SenderReport, now: float) -> None:
        """Take a sender report."""
        self.session.report(report, now)

    def moved(self, ssrcs: Iterable[int]) -> None:
        """SSRCs carry another source."""
        self._safely(lambda: self.session.moved(ssrcs))

    def gone(self, ssrcs: Iterable[int]) -> None:
        """SSRCs carry nothing any more."""
        self._safely(lambda: self.session.moved(ssrcs, "removed"))

    def _safely(self, work: Callable[[], list[Order]]) -> None:
        """Whatever is wrong with one packet, the call and the other streams go on."""
        try:
            self._give(work())
        except Exception:
            if "failed" not in self._told:
                self._told.add("failed")
                log.exception("Something could not be recorded", event_name="recording_failed")

    # --- the disk --------------------------------------------------------------------------------------------

    def _give(self, orders: list[Order]) -> None:
        if self._disk is not None:
            for order in orders:
                self._disk.give(order)

    def _failures(self) -> None:
        if self._disk is None:
            return
        for failure in self._disk.failures():
            if isinstance(failure.order, Open | Append | Finish):
                self.session.failed(failure.order.name)
            self._degraded(f"{failure.order.name}: {failure.error.strerror}", "disk_failed")

    def _degraded(self, cause: str, event: str) -> None:
        self.session.note(event, cause, self._clock())
        if cause not in self._told:
            self._told.add(cause)
            self._emit(events.RecordingDegraded, cause=cause)

    def _look_at_disk(self, watchdogs: Watchdogs, now: float) -> None:
        if self._disk is None:
            return
        state = watchdogs.disk(self._disk.free)
        slow = self._disk.waiting > MAX_WAITING
        if state == "full":
            self._degraded(f"less than {self._options.disk_hard} MiB are free: all files are closed", "disk_full")
            self._give(self.session.end("disk", now))
            self._say("The recording has ended: the disk is full.")
            self._ended(now)
        elif (state == "low" or slow) and self.session.video:
            cause = "the disk is too slow" if slow else f"less than {self._options.disk_soft} MiB are free"
            self._degraded(f"{cause}: pictures are left out", "disk_low")
            self._give(self.session.drop_video())
            self.participant.set_layout(mode="audio-only")
            self._say("The recording goes on without pictures: the disk is nearly full.")

    # --- the room --------------------------------------------------------------------------------------------

    async def _tick_on(self) -> None:
        while True:
            await asyncio.sleep(TICK)
            try:
                self._tick(self._clock())
            except Exception:
                if "tick" not in self._told:
                    self._told.add("tick")
                    log.exception("The recording's clock failed", event_name="recording_failed")

    def _tick(self, now: float) -> None:
        self._failures()
        if self.participant.in_room and self._watchdogs is None:
            self._begin(now)
        if self._watchdogs is None:
            return
        others = self._look_round(now)
        if self.session.active:
            self._look_at_disk(self._watchdogs, now)
        self._give(self.session.tick(now))
        if others is not None and (verdict := self._watchdogs.feed(others, now)) is not None:
            self.stop(verdict)

    def _begin(self, now: float) -> None:
        """The room has us, with the flag in our presence: say it in the chat, and record from now on."""
        if self._options.announcement:
            self._say(self._options.announcement)
        self._watchdogs = Watchdogs(self._options, now)
        self.session.begin(now, self._wall())
        self._emit(events.RecordingStarted, folder=str(self.folder))

    def _say(self, text: str) -> None:
        conference = self.participant.conference
        if conference is not None and self.participant.in_room:
            conference.citizen.send_chat(text)

    def _look_round(self, now: float) -> Situation | None:
        """Who is here, and who is muted; None while we are not in the room."""
        conference = self.participant.conference
        if conference is None or not self.participant.in_room:
            return None
        present = {item.endpoint: item for item in conference.room.occupants.others}
        known = {
            who.endpoint: who.name
            for who in self.session.manifest.participants
            if who.present and who.present[-1].end is None
        }
        for endpoint, occupant in present.items():
            if endpoint not in known or (occupant.nick and known[endpoint] != occupant.nick):
                self.session.joined(endpoint, occupant.nick, now)
        for endpoint in known:
            if endpoint not in present:
                self._give(self.session.left(endpoint, now))
        muted = [
            (name, isinstance(info, dict) and info.get("muted") is True)
            for occupant in present.values()
            for name, info in occupant.sources.items()
        ]
        for name, is_muted in muted:
            self._give(self.session.mute(name, muted=is_muted))
        return Situation(len(present), self.session.heard, all(is_muted for _, is_muted in muted))

    def _on_event(self, event: events.Event) -> None:
        now = self._clock()
        match event:
            case events.ChatMessageReceived() if not event.private and event.stamp is None:
                self.session.chat(event.endpoint, event.nick, event.body, now)
            case events.DominantSpeakerChanged() if not event.silence:
                self.session.speaker(event.endpoint, now)
            case events.MediaFailed() | events.MediaEnded() | events.ConnectionDegraded():
                self.session.note(event.name, event.message, now)
            case events.MediaRecovered() | events.ConnectionRecovered() | events.MediaConnected():
                self.session.note(event.name, event.message, now)
            case _:
                pass
        self._emit_event(event)

    def _emit(self, kind: type[events.Event], **fields: Any) -> None:
        self._emit_event(kind(room=self._config.room, participant=self._config.name, **fields))


def make_folder(out: Path, room: str, started: datetime) -> Path:
    """A folder for one recording that nobody else can read. Raises ConfigurationError."""
    try:
        out.mkdir(parents=True, exist_ok=True)
        return next(made for number in itertools.count(1) if (made := _made(out, room, started, number)))
    except OSError as error:
        raise ConfigurationError(f"record out: can't make a folder in {out}: {error.strerror}") from error


def _made(out: Path, room: str, started: datetime, number: int) -> Path | None:
    """A new folder; None where there is one of that name."""
    folder = out / meeting_folder(room, started, number)
    try:
        folder.mkdir(mode=FOLDER_MODE)
    except FileExistsError:
        return None
    return folder
