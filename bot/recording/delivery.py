"""Brings finished recordings to where they are wanted, until they are there: over failures and new starts.

What was done stands in the recording's folder (``.delivery.json``). Storage (folder, S3) comes first, then who is
told (a command, a web-hook): what they hear of is there. Local files stay, unless they are to be removed and
storage has verified copies.
"""

from __future__ import annotations

import asyncio
import shutil
import threading
import time
from collections.abc import Awaitable, Callable, Iterable, Sequence
from pathlib import Path
from typing import Literal, Protocol, TypeVar

import structlog
from pydantic import BaseModel, ConfigDict, Field
from tenacity import AsyncRetrying, RetryCallState, retry_if_exception, wait_exponential

from bot import events
from bot.recording.disk import Folder, Replace
from bot.recording.manifest import MANIFEST, read_manifest
from bot.recording.recover import InUseError, locked

log = structlog.get_logger(__name__)
T = TypeVar("T")

STATE = ".delivery.json"
#: Recordings that are delivered at a time.
AT_A_TIME = 2
#: Seconds between two tries: the first, and the most.
FIRST_PAUSE, MOST_PAUSE = 2.0, 300.0


class NotDeliveredError(Exception):
    """A target did not take a recording. ``retryable``: it may do so without anybody changing anything."""

    def __init__(self, message: str, *, retryable: bool = True) -> None:
        super().__init__(message)
        self.retryable = retryable


class _Model(BaseModel):
    model_config = ConfigDict(extra="forbid")


class Upload(_Model):
    """A multipart upload that was begun: of a file of ``size`` bytes in parts of ``part_size``."""

    key: str
    upload_id: str
    size: int
    part_size: int


class TargetState(_Model):
    """How far one target is. ``files`` are those that are there, with their sizes; ``place`` where they are."""

    done: bool = False
    attempts: int = 0
    error: str | None = None
    place: str = ""
    files: dict[str, int] = Field(default_factory=dict)
    uploads: dict[str, Upload] = Field(default_factory=dict)


class DeliveryState(_Model):
    """What was done of a recording's delivery."""

    version: Literal[1] = 1
    done: bool = False
    targets: dict[str, TargetState] = Field(default_factory=dict)


class Stopped:
    """Tells a thread that works for a target to end soon."""

    def __init__(self) -> None:
        self._event = threading.Event()

    def set(self) -> None:
        """End soon."""
        self._event.set()

    def check(self) -> None:
        """Raise NotDeliveredError where it is to end."""
        if self._event.is_set():
            raise NotDeliveredError("interrupted")


class Target(Protocol):
    """Somewhere that recordings are delivered to. ``stores``: it holds verified copies once it has returned."""

    name: str
    stores: bool

    async def deliver(self, folder: Path, delivery: DeliveryState, save: Callable[[], None]) -> None:
        """Deliver what is left of ``folder``; ``save`` writes the state. Raises NotDeliveredError."""
        ...


def files_of(folder: Path) -> list[Path]:
    """What is delivered of a recording, the manifest last: where it is, all is."""
    found = [path for path in folder.iterdir() if path.is_file() and not path.name.startswith(".")]
    return sorted(found, key=lambda path: (path.name == MANIFEST, path.name))


async def in_thread(work: Callable[[Stopped], T]) -> T:
    """Run ``work`` in a thread that is over when this returns, cancelled or not."""
    stopped = Stopped()
    running = asyncio.ensure_future(asyncio.to_thread(work, stopped))
    try:
        return await asyncio.shield(running)
    except asyncio.CancelledError:
        stopped.set()
        await asyncio.wait([running])
        if not running.cancelled():
            running.exception()  # what it met on its way out is of no use any more
        raise


# --- the state on the disk --------------------------------------------------------------------------------


def mark(folder: Path) -> None:
    """Have a recording delivered once it has ended, by whoever starts next where we can't."""
    if not (folder / STATE).exists():
        _save(folder, DeliveryState())


def read_state(folder: Path) -> DeliveryState | None:
    """How far a delivery is; None where none is wanted. A file that can't be read begins anew."""
    try:
        return DeliveryState.model_validate_json((folder / STATE).read_bytes())
    except FileNotFoundError:
        return None
    except ValueError:
        return DeliveryState()


def _save(folder: Path, state: DeliveryState) -> None:
    Folder(folder).carry_out(Replace(STATE, state.model_dump_json(indent=1).encode() + b"\n"))


def finished(root: Path) -> list[Path]:
    """Recordings in ``root``, or ``root`` itself, that have ended."""
    found = [root, *sorted(item for item in root.iterdir() if item.is_dir())] if root.is_dir() else []
    return [folder for folder in found if _has_ended(folder)]


def _has_ended(folder: Path) -> bool:
    try:
        return read_manifest(folder).state != "recording"
    except (OSError, ValueError):
        return False


def undelivered(root: Path) -> list[Path]:
    """Recordings in ``root`` that have ended, were to be delivered, and are not yet."""
    return [folder for folder in finished(root) if (state := read_state(folder)) is not None and not state.done]


# --- the work ---------------------------------------------------------------------------------------------


class Deliverer:
    """Delivers the folders that it is given: ``add``, then ``drain`` and ``close`` at the end.

    ``prepare`` is done first with each, in a thread, once. ``remove`` removes local files that storage has.
    """

    def __init__(
        self,
        targets: Sequence[Target],
        *,
        emit: events.EventSink,
        prepare: Callable[[Path, Stopped], None] = lambda *_: None,
        remove: bool = False,
        first_pause: float = FIRST_PAUSE,
        sleep: Callable[[float], Awaitable[None]] = asyncio.sleep,
    ) -> None:
        self._targets = sorted(targets, key=lambda target: not target.stores)
        self._emit = emit
        self._prepare = prepare
        self._remove = remove
        self._first_pause = first_pause
        self._sleep = sleep
        self._tasks: dict[Path, asyncio.Task[None]] = {}
        self._done: set[Path] = set()
        self._slots = asyncio.Semaphore(AT_A_TIME)

    def __repr__(self) -> str:
        return f"<Deliverer of {len(self.waiting)} recordings>"

    @property
    def waiting(self) -> tuple[Path, ...]:
        """Recordings that are not delivered yet and that are worked at."""
        return tuple(folder for folder, task in self._tasks.items() if not task.done())

    @property
    def left(self) -> tuple[Path, ...]:
        """Recordings that were given and are not delivered."""
        return tuple(folder for folder in self._tasks if folder not in self._done)

    def add(self, folder: Path) -> None:
        """Deliver a recording that has ended."""
        running = self._tasks.get(folder)
        if running is None or running.done():
            self._tasks[folder] = asyncio.create_task(self._run(folder), name=f"delivery of {folder.name}")

    async def drain(self, timeout: float | None = None) -> bool:
        """Wait ``timeout`` seconds at most; True where all that was given is done, or can't be."""
        waiting = [task for task in self._tasks.values() if not task.done()]
        if waiting:
            await asyncio.wait(waiting, timeout=timeout)
        return not self.waiting

    async def close(self) -> None:
        """Stop; what is left is for the next start."""
        tasks = list(self._tasks.values())
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    async def _run(self, folder: Path) -> None:
        try:
            with locked(folder):
                await self._deliver(folder)
        except InUseError:
            log.info("A recording is in use", event_name="recording_in_use", folder=str(folder))
        except OSError as error:
            self._not_delivered(folder, "state", str(error), None)
        except Exception:
            log.exception("A delivery failed", event_name="delivery_failed", folder=str(folder))

    async def _deliver(self, folder: Path) -> None:
        async with self._slots:
            await in_thread(lambda stopped: self._prepare(folder, stopped))
        state = read_state(folder) or DeliveryState()
        storage = [target for target in self._targets if target.stores]
        told = [target for target in self._targets if not target.stores]
        stored = [await self._try(folder, target, state) for target in storage]
        if all(stored):
            state.done = all([await self._try(folder, target, state) for target in told])
        _save(folder, state)
        if state.done:
            self._done.add(folder)
        if state.done and self._remove and storage:
            await in_thread(lambda _: shutil.rmtree(folder))
            log.info("Removed the local files", event_name="recording_removed", folder=str(folder))

    async def _try(self, folder: Path, target: Target, state: DeliveryState) -> bool:
        """Deliver to one target until it is there; False where that needs somebody who changes something."""
        mine = state.targets.setdefault(target.name, TargetState())
        if mine.done:
            return True

        def pausing(call: RetryCallState) -> None:
            pause = call.next_action.sleep if call.next_action is not None else None
            self._not_delivered(folder, target.name, str(mine.error), pause)

        try:
            async for attempt in AsyncRetrying(
                wait=wait_exponential(multiplier=self._first_pause, max=MOST_PAUSE),
                retry=retry_if_exception(lambda error: isinstance(error, NotDeliveredError) and error.retryable),
                sleep=self._sleep,
                before_sleep=pausing,
                reraise=True,
            ):
                with attempt:
                    async with self._slots:
                        await self._once(folder, target, state)
        except NotDeliveredError as error:
            self._not_delivered(folder, target.name, str(error), None)
            return False
        where = f": {mine.place}" if mine.place else ""
        self._emit(
            events.RecordingDelivered(
                room=_room(folder), participant="", folder=str(folder), target=target.name, place=where
            )
        )
        return True

    async def _once(self, folder: Path, target: Target, state: DeliveryState) -> None:
        mine = state.targets[target.name]
        mine.attempts += 1
        mine.error = None
        try:
            await target.deliver(folder, state, lambda: _save(folder, state))
            mine.done = True
        except (NotDeliveredError, OSError) as error:
            mine.error = str(error)
            if isinstance(error, OSError):
                raise NotDeliveredError(mine.error) from error
            raise
        finally:
            _save(folder, state)

    def _not_delivered(self, folder: Path, target: str, cause: str, retry: float | None) -> None:
        self._emit(
            events.RecordingNotDelivered(
                room=_room(folder), participant="", folder=str(folder), target=target, cause=cause, retry=retry
            )
        )


def _room(folder: Path) -> str:
    try:
        return read_manifest(folder).room
    except (OSError, ValueError):
        return ""


def summary(folder: Path, delivery: DeliveryState, files: Iterable[Path]) -> dict[str, object]:
    """What a web-hook is told of a recording. Raises OSError and ValueError where it can't be read."""
    manifest = read_manifest(folder)
    return {
        "event": "recording_delivered",
        "id": folder.name,
        "room": manifest.room,
        "folder": str(folder),
        "places": {name: target.place for name, target in delivery.targets.items() if target.done},
        "started": manifest.started.isoformat(),
        "duration": manifest.duration,
        "state": manifest.state,
        "end_cause": manifest.end_cause,
        "participants": [{"endpoint": who.endpoint, "name": who.name} for who in manifest.participants],
        "files": {path.name: path.stat().st_size for path in files},
        "sent": round(time.time(), 3),
    }
