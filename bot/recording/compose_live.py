"""The composite of a recording that is still being made, a few seconds behind it.

It reads what the recorder writes, in a process of its own: the recorder never waits for it.
Where this machine is too slow for it, pictures are left out until it has caught up; sound is not.
"""

from __future__ import annotations

import asyncio
import fcntl
import os
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import structlog

from bot import events
from bot.errors import ConfigurationError
from bot.recording.compose import Composed, ComposeOptions, composing, note_composite, write_frame, writing
from bot.recording.manifest import MANIFEST, Manifest, read_manifest
from bot.recording.recover import LOCK

log = structlog.get_logger(__name__)

#: Seconds behind the recording: until what is lost is repaired, and a cluster is whole and listed, and some more.
LAG = 4.0
#: So many seconds later than that, all but a picture in a second are left out.
TOO_LATE = 3.0
#: A file that has nothing for so long (seconds) stands still, or is silent; the second when all is late already.
PATIENCE, HURRY = 0.5, 0.05
#: Seconds between two looks at the manifest, and for the recorder to let the folder go at the end.
LOOK, LET_GO = 0.5, 60.0


def in_use(folder: Path) -> bool:
    """Whether a recorder has the folder."""
    try:
        number = os.open(folder / LOCK, os.O_RDONLY | os.O_NOFOLLOW)
    except FileNotFoundError:
        return False
    try:
        fcntl.flock(number, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except BlockingIOError:
        return True
    finally:
        os.close(number)
    return False


class Follower:
    """A recording that is being made, as its manifest tells each second. Raises ConfigurationError without one."""

    def __init__(self, folder: Path, *, clock: Callable[[], float] = time.monotonic) -> None:
        self.folder = folder
        self._clock = clock
        self._changed = 0
        self._next = 0.0
        self._read_at = clock()
        self._growing: frozenset[str] = frozenset()
        self.manifest = Manifest.model_construct()
        #: Whether nothing more comes.
        self.over = False

    def __repr__(self) -> str:
        return f"<Follower of {self.folder.name} {'over' if self.over else 'going on'}>"

    def look(self) -> bool:
        """Read the manifest where it has changed; returns whether it has."""
        if self.over or self._clock() < self._next:
            return False
        self._next = self._clock() + LOOK
        left = not in_use(self.folder)  # before the manifest is read: the last one is written before
        try:
            changed = (self.folder / MANIFEST).stat().st_mtime_ns
            if changed == self._changed and not left:
                return False
            self.manifest = read_manifest(self.folder)
        except FileNotFoundError:
            if left:
                raise ConfigurationError(f"{self.folder} holds no recording: it has no manifest.json") from None
            return False
        self._changed, self._read_at = changed, self._clock()
        self.over = left or self.manifest.state != "recording"
        self._growing = frozenset(item.file for item in self.manifest.segments() if item.ended is None)
        return True

    def now(self) -> float:
        """How long the recording is by now; 0 before the first manifest."""
        return self.manifest.duration + self._clock() - self._read_at if self._changed else 0.0

    def growing(self, name: str) -> bool:
        """Whether a file gets more. Called by other threads."""
        return not self.over and name in self._growing


class Pace:
    """Which pictures are left out. Pure."""

    def __init__(self, fps: int) -> None:
        self._fps = fps
        self._left_out = 0
        #: All that were.
        self.dropped = 0

    def __repr__(self) -> str:
        return f"<Pace {self.dropped} left out>"

    def keeps(self, behind: float) -> bool:
        """Whether the next picture is made, so many seconds later than it should be."""
        if behind < TOO_LATE or self._left_out >= self._fps - 1:
            self._left_out = 0
            return True
        self._left_out += 1
        self.dropped += 1
        return False


def compose_live(
    folder: Path,
    out: Path,
    options: ComposeOptions,
    *,
    tell: Callable[[str], None],
    clock: Callable[[], float] = time.monotonic,
    sleep: Callable[[float], None] = time.sleep,
) -> Composed:
    """Make the composite of a recording while it is made, to its end. ``tell`` gets what is wrong, once.

    What is written can be played at any moment. Raises ConfigurationError.
    """
    follower, pace, number = Follower(folder, clock=clock), Pace(options.fps), 0
    follower.look()
    with writing(out, options, live=True) as encoder, composing(folder, options, follower.growing) as composer:
        while not (follower.over and number / options.fps >= composer.timeline.duration):
            if follower.look() or number == 0:
                composer.update(follower.manifest)
            behind = follower.now() - LAG - number / options.fps
            if behind < 0 and not follower.over:
                sleep(max(0.001, min(-behind, LOOK)))
                continue
            seen = follower.over or pace.keeps(behind)
            if not seen and pace.dropped == 1:
                tell("this machine is too slow for the composite: pictures are left out")
            patience = None if follower.over else max(HURRY, PATIENCE - behind)
            write_frame(composer, encoder, number, patience, seen=seen)
            number += 1
        encoder.finish()
    _note(folder, out, pace, clock, sleep)
    return Composed(out, number / options.fps, number - pace.dropped, pace.dropped, composer.problems)


def _note(folder: Path, out: Path, pace: Pace, clock: Callable[[], float], sleep: Callable[[float], None]) -> None:
    """Name the composite in the manifest when the recorder has let the folder go."""
    until = clock() + LET_GO
    while in_use(folder) and clock() < until:
        sleep(LOOK)
    note_composite(folder, out, f"{pace.dropped} pictures were left out of {out.name}" if pace.dropped else "")


def start(folder: Path, options: ComposeOptions) -> subprocess.Popen[bytes]:
    """A process that follows the recording in ``folder`` to its end, also when this one is killed."""
    words = ("--live", "--layout", options.layout, "--format", options.format, "--height", str(options.height))
    return subprocess.Popen(  # noqa: S603
        [sys.executable, "-m", "bot", "record", "compose", str(folder), *words, "--overwrite"],
        stdin=subprocess.DEVNULL,
        stdout=subprocess.DEVNULL,
        # Ctrl-C ends the recording, and the composite with it; not before it.
        start_new_session=True,
    )


class Beside:
    """Has composites made beside the recordings of one recorder, none without ``options``.

    ``take`` gets the recorder's events, which go on to ``emit``; ``whole`` hears of each folder that is complete,
    and ``finished`` when the composite is in it. At the end, ``wait`` for those that are not whole.
    """

    def __init__(
        self, options: ComposeOptions | None, emit: events.EventSink, finished: Callable[[Path], None]
    ) -> None:
        self._options = options
        self._emit = emit
        self._finished = finished
        self._processes: dict[Path, subprocess.Popen[bytes]] = {}
        self._tasks: set[asyncio.Task[None]] = set()

    def __repr__(self) -> str:
        return f"<Beside {len(self._processes)} composites>"

    def take(self, event: events.Event) -> None:
        """Pass an event of the recorder on."""
        self._emit(event)
        if self._options is not None and isinstance(event, events.RecordingStarted):
            folder = Path(event.folder)
            try:
                self._processes[folder] = start(folder, self._options)
            except OSError as error:
                log.warning("There is no composite", event_name="composite_failed", cause=error.strerror)

    def whole(self, folder: Path) -> None:
        """The recording in ``folder`` has ended; its composite will some seconds later."""
        if folder not in self._processes:
            self._finished(folder)
            return
        task = asyncio.create_task(self._wait_for(folder), name=f"composite of {folder.name}")
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def wait(self) -> None:
        """Return when all composites are whole. Given up, they go on by themselves."""
        await asyncio.gather(*self._tasks)

    async def _wait_for(self, folder: Path) -> None:
        log.info("The composite is being finished", event_name="composite_finishing", folder=str(folder))
        code = await asyncio.to_thread(self._processes[folder].wait)
        del self._processes[folder]
        if code:
            log.warning("The composite failed", event_name="composite_failed", folder=str(folder), exit_code=code)
        else:
            log.info("The composite is whole", event_name="composite_finished", folder=str(folder))
        self._finished(folder)
