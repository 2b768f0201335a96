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
from bot.recording import chat, poster
from bot.recording.delivery import mark
from bot.recording.disk import FOLDER_MODE, FULL, MAX_WAITING, Append, DiskThread, Finish, Folder, Open, Order
from bot.recording.names import meeting_folder
from bot.recording.options import MEBIBYTE, RecordOptions
from bot.recording.recover import locked, mend
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

    With ``options.standby`` it stands in the room, and makes a recording each time that it is told to. ``emit``
    gets the participant's events, and those of the recording; ``finished`` hears of each folder that is complete.
    Raises ConfigurationError where there can't be a folder.
    """

    def __init__(
        self,
        config: ParticipantConfig,
        options: RecordOptions,
        *,
        emit: events.EventSink,
        clock: Callable[[], float] = time.monotonic,
        wall: Callable[[], datetime] = lambda: datetime.now(UTC),
        finished: Callable[[Path], None] = lambda _: None,
    ) -> None:
        self._config = config
        self._options = options
        self._emit_event = emit
        self._clock = clock
        self._wall = wall
        self._finished = finished
        #: The folder of the present or last recording, and what is known of it; both mean nothing until ``made``.
        self.folder = options.out
        self.session = self._new_session()
        if not options.standby:
            self.folder = make_folder(options.out, config.room, wall())
        self._wanted = self.made = not options.standby
        self.participant = Participant(
            config,
            emit=self._on_event,
            clock=clock,
            tap=self,
            properties={PROPERTY: _said(recording=self._wanted)},
        )
        self._look()
        self.participant.subscribe_audio(everyone=True)
        self._inbound: Tapped | None = None
        self._disk: DiskThread | None = None
        self._watchdogs: Watchdogs | None = None
        self._locks = ExitStack()
        self._closing: asyncio.Task[None] | None = None
        self._cause = "stopped"
        self._told: set[str] = set()
        self._cut_off: set[str] = set()
        self._full = False
        self._refusals = chat.Refusals()

    def __repr__(self) -> str:
        return f"<Recorder of {self._config.room} in {self.folder}>"

    def _new_session(self) -> RecordingSession:
        options = self._options
        return RecordingSession(
            self._config.room,
            started=self._wall(),
            video=not options.audio_only,
            rotation=Rotation(options.rotate_after, options.rotate_size * MEBIBYTE),
            requests=lambda: self._inbound,
        )

    def _look(self) -> None:
        """Ask the bridge for what is recorded."""
        if not self.session.video:
            self.participant.set_layout(mode="audio-only")
        else:
            self.participant.set_layout(mode="custom", height=self._options.max_height or -1, last_n=-1)

    def start_recording(self) -> bool:
        """Begin a recording as soon as we are in the room; False where one is being made."""
        if self._wanted or self.session.active:
            return False
        self._wanted = True
        return True

    def stop_recording(self, cause: str = "stopped") -> bool:
        """End the recording, and stay in the room; False where there is none."""
        if not self._wanted and not self.session.active:
            return False
        self._wanted = False
        self._cause = cause
        self._end()
        return True

    def stop(self, cause: str = "stopped") -> None:
        """End the recording and leave; ``run`` then returns."""
        self._cause = cause
        self._end()
        self.participant.stop()

    async def run(self) -> None:
        """Join, record until ``stop`` or a watchdog ends it, leave. Raises the BotError that ended it before."""
        if not self._options.standby:
            self._open()
        ticking = asyncio.create_task(self._tick_on(), name="recording")
        try:
            await self.participant.run()
        except BotError as error:
            self._cause = error.code
            raise
        finally:
            ticking.cancel()
            await asyncio.gather(ticking, return_exceptions=True)
            self._end()
            await self._finish()

    def _open(self) -> None:
        """Have the folder of this recording to ourselves, and a thread that writes into it."""
        self._locks.enter_context(locked(self.folder))
        if self._options.delivers:
            mark(self.folder)
        disk = Folder(self.folder)
        disk.reserve()
        self._disk = DiskThread(disk)

    async def _finish(self) -> None:
        """Have everything of this recording on the disk, and let go of it."""
        if self._disk is None:
            return
        if self._closing is None:
            self._closing = asyncio.create_task(self._close(self._disk), name="closing a recording")
        await asyncio.shield(self._closing)

    async def _close(self, disk: DiskThread) -> None:
        await asyncio.to_thread(disk.close)
        self._failures()
        try:
            if self._cut_off:
                await asyncio.to_thread(self._mend)
            if self.session.manifest.duration:
                self.session.manifest.poster = await asyncio.to_thread(poster.add, self.folder)
        finally:
            self._disk = self._closing = None
            self._locks.close()
        if self._options.standby:
            self._watchdogs = None
        if self.session.begun:
            self._finished(self.folder)

    def _mend(self) -> None:
        try:
            mend(self.folder, self._cut_off)
        except (OSError, ValueError) as error:
            log.warning("Files are not whole", event_name="recording_cut_off", cause=str(error))

    def _end(self) -> None:
        """End all files while their sources are still there; only the first call does so."""
        now = self._clock()
        active = self.session.active
        if self._disk is not None:
            self._give(self.session.end(self._cause, now))
        if active:
            self._ended(now)

    def _ended(self, now: float) -> None:
        self.participant.set_property(PROPERTY, _said(recording=False))
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
                self._cut_off.add(failure.order.name)
            self._full = self._full or failure.error.errno in FULL
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
        if state == "full" or self._full:
            cause = "the disk is full" if self._full else f"less than {self._options.disk_hard} MiB are free"
            self._degraded(f"{cause}: all files are closed", "disk_full")
            self._give(self.session.end("disk", now))
            self._say("The recording has ended: the disk is full.")
            self._wanted = False
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
                if self.session.ended and self._disk is not None:
                    await self._finish()
            except Exception:
                if "tick" not in self._told:
                    self._told.add("tick")
                    log.exception("The recording's clock failed", event_name="recording_failed")

    def _tick(self, now: float) -> None:
        self._failures()
        ready = self._disk is None or not self.session.ended  # the one before is whole on the disk
        if self._wanted and self.participant.in_room and not self.session.active and ready:
            self._begin(now)
        if self._watchdogs is None:
            return
        others = self._look_round(now)
        if self.session.active:
            self._look_at_disk(self._watchdogs, now)
        self._give(self.session.tick(now))
        if others is not None and (verdict := self._watchdogs.feed(others, now)) is not None:
            self._over(verdict)

    def _over(self, verdict: str) -> None:
        """There is nothing left to record: leave, or wait for the next time."""
        if self._options.standby:
            self.stop_recording(verdict)
        else:
            self.stop(verdict)

    def _begin(self, now: float) -> None:
        """The room has us, with the flag in our presence: say it in the chat, and record from now on."""
        if self._disk is None:
            try:
                self._again()
            except (ConfigurationError, OSError) as error:
                self._wanted = False
                self._degraded(str(error), "disk_failed")
                self._say("The recording can't begin: there is no folder for it.")
                return
        self.participant.set_property(PROPERTY, _said(recording=True))
        if self._options.announcement:
            self._say(self._options.announcement)
        self._watchdogs = Watchdogs(self._options, now)
        self.session.begin(now, self._wall())
        self._emit(events.RecordingStarted, folder=str(self.folder))

    def _again(self) -> None:
        """Prepare another recording, in a folder of its own."""
        self.folder = make_folder(self._options.out, self._config.room, self._wall())
        self.session = self._new_session()
        self.made = True
        self._cause = "stopped"
        self._told.clear()
        self._cut_off.clear()
        self._full = False
        self._open()
        self._look()

    def _say(self, text: str, to: str = "") -> None:
        conference = self.participant.conference
        if conference is not None and self.participant.in_room:
            conference.citizen.send_chat(text, to)

    def _asked(self, event: events.ChatMessageReceived) -> None:
        """Do what a moderator writes, and say what came of it: to all, or to him alone who wrote to us alone."""
        command = chat.command_of(event.body) if self._options.chat_commands else None
        if command is None:
            return
        to = event.endpoint if event.private else ""
        if self._is_moderator(event.endpoint):
            self._say(self._obey(command), to)
            if command == "stop" and not self._options.standby:
                self.stop("moderator")
        elif self._refusals.due(self._clock()):
            self._say(chat.REFUSED, to)

    def _obey(self, command: chat.Command) -> str:
        match command:
            case "start":
                return chat.BEGINS if self.start_recording() else chat.RUNS
            case "stop":
                return chat.ENDED if self.stop_recording("moderator") else chat.NOTHING
            case "status":
                return chat.status(self.session, self._clock())
            case _:
                return chat.HELP

    def _is_moderator(self, endpoint: str) -> bool:
        conference = self.participant.conference
        others = conference.room.occupants.others if conference is not None else ()
        return any(item.endpoint == endpoint and item.moderator for item in others)

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
        if isinstance(event, events.ChatMessageReceived) and event.stamp is None:
            self._asked(event)
        match event:
            case events.ParticipantJoined() if self.session.active:
                self.session.joined(event.endpoint, event.nick, now)  # before there is anything to name a file of
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


def _said(*, recording: bool) -> str:
    return "true" if recording else "false"


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
