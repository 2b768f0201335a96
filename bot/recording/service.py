"""Recordings of several rooms in one process, each by a recorder of its own, for the command and for programs."""

from __future__ import annotations

import asyncio
import uuid
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Literal, Self

import structlog

from bot import events
from bot.errors import BotError, ConfigurationError
from bot.participant.config import ParticipantConfig, expand
from bot.recording import poster
from bot.recording.compose import ComposeOptions
from bot.recording.compose_live import Beside
from bot.recording.delivery import undelivered
from bot.recording.destinations import deliverer_of
from bot.recording.options import RecordOptions
from bot.recording.recorder import Recorder
from bot.recording.recover import InUseError, Recovery, locked, recover, unfinished
from bot.recording.schedule import Window, window
from bot.settings import Settings

log = structlog.get_logger(__name__)

#: What a recorder is called in the room where no name is given: everybody sees what it does.
NAME = "Recorder"
#: Recorders that are over and still listed.
MAX_OVER = 100
State = Literal["scheduled", "joining", "standby", "recording", "over", "failed"]


def recorder_config(settings: Settings) -> ParticipantConfig:
    """The participant of a recorder: it publishes nothing and decodes nothing."""
    changes: dict[str, object] = {
        "audio": "none",
        "video": "none",
        "bots": 1,
        "participants": (),
        "decode": "none",
    }
    if "name" not in settings.model_fields_set:
        changes["name"] = NAME
    return expand(settings.model_copy(update=changes | {"receive_audio": True}))[0]


def recover_all(root: Path) -> list[Recovery]:
    """Repair every unfinished recording in ``root`` that nobody makes now."""
    found = []
    for folder in unfinished(root):
        try:
            found.append(recover(folder))
            with locked(folder):
                poster.add(folder)
        except InUseError:
            log.info("A recording is being made", event_name="recording_in_use", folder=str(folder))
        except OSError as error:
            log.warning(
                "A recording can't be recovered",
                event_name="recovery_failed",
                folder=str(folder),
                cause=error.strerror,
            )
    return found


@dataclass(frozen=True, slots=True)
class RecordingInfo:
    """A recorder at one moment. ``folder`` is that of its present or last recording, None before the first.

    ``seconds``, ``files`` and ``bytes`` are of that recording; ``error`` is what ended a recorder that failed.
    """

    id: str
    room: str
    state: State
    folder: Path | None
    started: datetime | None
    seconds: float
    files: int
    bytes: int
    cause: str | None
    error: str | None


class _Job:
    """One recorder from its schedule to its end."""

    def __init__(
        self,
        room: str,
        span: Window,
        make: Callable[[], Recorder],
        wall: Callable[[], datetime],
        beside: Beside,
    ) -> None:
        self.id = uuid.uuid4().hex[:12]
        self.beside = beside
        self.room = room
        self.recorder: Recorder | None = None
        self.error: BaseException | None = None
        self._window = span
        self._make = make
        self._wall = wall
        self._stopped = asyncio.Event()
        self._cause = "stopped"
        if not span.wait(wall()):
            self.recorder = make()
        self.task = asyncio.create_task(self._run(), name=f"recorder of {room}")

    def stop(self, cause: str) -> None:
        """End it; its task then ends soon."""
        self._cause = cause
        self._stopped.set()
        if self.recorder is not None:
            self.recorder.stop(cause)

    async def _run(self) -> None:
        timer: asyncio.TimerHandle | None = None
        try:
            recorder = await self._when_due()
            if recorder is None:
                return
            left = self._window.left(self._wall())
            if left is not None:
                timer = asyncio.get_running_loop().call_later(left, self.stop, "schedule")
            await recorder.run()
        except BotError as error:
            self.error = error
        except Exception as error:
            self.error = error
            log.exception("A recorder failed", event_name="recorder_failed", room=self.room)
        finally:
            if timer is not None:
                timer.cancel()

    async def _when_due(self) -> Recorder | None:
        """The recorder once its time has come, None where it was stopped before."""
        wait = self._window.wait(self._wall())
        if wait and self.recorder is None:
            log.info("The recorder waits", event_name="recorder_scheduled", room=self.room, seconds=round(wait))
            with suppress(TimeoutError):
                await asyncio.wait_for(self._stopped.wait(), wait)
        if self._stopped.is_set():
            return None
        self.recorder = self.recorder or self._make()
        return self.recorder

    @property
    def state(self) -> State:
        if self.task.done():
            return "over" if self.error is None else "failed"
        if self.recorder is None:
            return "scheduled"
        if self.recorder.session.active:
            return "recording"
        return "standby" if self.recorder.participant.in_room else "joining"

    def info(self) -> RecordingInfo:
        recorder = self.recorder
        session = recorder.session if recorder is not None and recorder.made else None
        manifest = session.manifest if session is not None else None
        return RecordingInfo(
            id=self.id,
            room=self.room,
            state=self.state,
            folder=recorder.folder if recorder is not None and recorder.made else None,
            started=manifest.started if session is not None and session.begun and manifest is not None else None,
            seconds=manifest.duration if manifest is not None else 0.0,
            files=len(manifest.segments()) if manifest is not None else 0,
            bytes=session.size if session is not None else 0,
            cause=manifest.end_cause if manifest is not None else None,
            error=None if self.error is None else str(self.error),
        )


class RecordingService:
    """Starts, stops and lists recorders: ``async with``, or ``close`` at the end. One that fails ends alone.

    ``settings`` say where the rooms are, ``options`` how they are recorded where ``start`` says nothing else, and
    where all finished recordings are delivered to. ``finished`` hears of each folder that is complete.
    """

    def __init__(
        self,
        settings: Settings,
        options: RecordOptions,
        *,
        emit: events.EventSink,
        finished: Callable[[Path], None] = lambda _: None,
        wall: Callable[[], datetime] = lambda: datetime.now(UTC),
    ) -> None:
        self._settings = settings
        self._options = options
        self._emit = emit
        self._finished = finished
        self._wall = wall
        self._jobs: dict[str, _Job] = {}
        self._deliverer = deliverer_of(options, emit) if options.delivers else None
        #: Whether all that was to be delivered is, as far as ``close`` knows.
        self.delivered = True

    def __repr__(self) -> str:
        return f"<RecordingService of {len(self._jobs)} recorders>"

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.close()

    async def resume(self, *folders: Path) -> None:
        """Do what a process before left undone in ``folders``: make recordings whole, and deliver them."""
        for root in folders or (self._options.out,):
            for done in await asyncio.to_thread(recover_all, root):
                self._emit(
                    events.RecordingRecovered(
                        room=done.room, participant="", folder=str(done.folder), files=done.recovered
                    )
                )
            if self._deliverer is not None:
                for folder in await asyncio.to_thread(undelivered, root):
                    self._deliverer.add(folder)

    def _complete(self, folder: Path) -> None:
        if self._deliverer is not None:
            self._deliverer.add(folder)
        self._finished(folder)

    def start(self, room: str, *, options: RecordOptions | None = None) -> RecordingInfo:
        """Record ``room``, from now on or as the options' schedule says.

        Raises ConfigurationError where a recorder of the room is there, the schedule is over, or no folder can be
        made.
        """
        if any(job.room == room and not job.task.done() for job in self._jobs.values()):
            raise ConfigurationError(f"record: there is a recorder of {room} already")
        chosen = options or self._options
        config = recorder_config(self._settings.model_copy(update={"room": room}))

        look = ComposeOptions(chosen.live_layout, chosen.live_format, chosen.live_height)
        beside = Beside(look if chosen.live else None, self._emit, self._complete)

        def make() -> Recorder:
            return Recorder(config, chosen, emit=beside.take, finished=beside.whole)

        job = _Job(room, window(chosen, self._wall()), make, self._wall, beside)
        self._jobs[job.id] = job
        self._forget()
        return job.info()

    async def stop(self, identity: str, cause: str = "stopped") -> RecordingInfo:
        """End a recorder and return once its files are whole. Raises KeyError for an unknown one."""
        job = self._jobs[identity]
        job.stop(cause)
        await asyncio.wait([job.task])
        return job.info()

    def recorder(self, identity: str) -> Recorder | None:
        """The recorder itself, None before its time. Raises KeyError for an unknown one."""
        return self._jobs[identity].recorder

    def list(self) -> tuple[RecordingInfo, ...]:
        """All recorders, those that are over included."""
        return tuple(job.info() for job in self._jobs.values())

    def stop_all(self, cause: str = "stopped") -> None:
        """Ask all to end."""
        for job in self._jobs.values():
            if not job.task.done():
                job.stop(cause)

    async def wait(self) -> None:
        """Return when all are over."""
        while running := [job.task for job in self._jobs.values() if not job.task.done()]:
            await asyncio.wait(running)

    async def close(self) -> None:
        """End all, deliver what can be in the time that there is for it; may be called twice.

        Composites that are made beside are waited for, and delivered, too.
        """
        self.stop_all()
        await self.wait()
        for job in self._jobs.values():
            await job.beside.wait()
        if self._deliverer is not None:
            await self._deliverer.drain(self._options.deliver_for)
            await self._deliverer.close()
            self.delivered = not self._deliverer.left

    def errors(self) -> tuple[BaseException, ...]:
        """What ended those that failed."""
        return tuple(job.error for job in self._jobs.values() if job.error is not None)

    def _forget(self) -> None:
        over = [job.id for job in self._jobs.values() if job.task.done()]
        for identity in over[: max(0, len(over) - MAX_OVER)]:
            del self._jobs[identity]
