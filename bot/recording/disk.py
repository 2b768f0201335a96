"""What a recording does to the disk: orders, and the thread that carries them out. The loop never waits for it."""

from __future__ import annotations

import errno
import os
import queue
import shutil
import threading
import time
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

from bot.recording.matroska import Ending, write_all, write_ending

#: Bytes that may wait for the disk; more means that it is too slow.
MAX_WAITING = 64 * 1024 * 1024
#: A file's data is on the disk itself after so many seconds at the latest, for power cuts.
SYNC_INTERVAL = 2.0
#: Room that is kept for the last manifest, should the disk be full by then (bytes).
RESERVE_SIZE = 512 * 1024
RESERVE = ".reserve"
#: What a disk without room says (a quota is one, too).
FULL = (errno.ENOSPC, errno.EDQUOT)
#: All that a recording holds is its owner's.
FILE_MODE, FOLDER_MODE = 0o600, 0o700


@dataclass(frozen=True, slots=True)
class Open:
    """Begin a file that is not there yet."""

    name: str
    data: bytes


@dataclass(frozen=True, slots=True)
class Append:
    """Add whole clusters to a file."""

    name: str
    data: bytes


@dataclass(frozen=True, slots=True)
class Finish:
    """Write the end of a file of ``size`` bytes, and close it."""

    name: str
    size: int
    ending: Ending


@dataclass(frozen=True, slots=True)
class Replace:
    """Write a whole file, so that either the old or the new one is there at any moment; ``last`` at the end."""

    name: str
    data: bytes
    last: bool = False


Order = Open | Append | Finish | Replace


def size_of(order: Order) -> int:
    """Bytes that an order holds."""
    return len(order.ending.append) if isinstance(order, Finish) else len(order.data)


class Folder:
    """A recording's folder. ``carry_out`` does one order and raises OSError where that failed.

    A file that could not be written is cut back to what was whole, and gets no more.
    """

    def __init__(self, path: Path, *, clock: Callable[[], float] = time.monotonic) -> None:
        self.path = path
        self._clock = clock
        self._files: dict[str, BinaryIO] = {}
        self._synced: dict[str, float] = {}

    def __repr__(self) -> str:
        return f"<Folder {self.path} {len(self._files)} open>"

    def carry_out(self, order: Order) -> None:
        """Do one order. Raises OSError."""
        match order:
            case Open():
                self._files[order.name] = self._created(order.name)
                self._write(order.name, order.data)
            case Append() if order.name in self._files:
                self._write(order.name, order.data)
            case Finish() if order.name in self._files:
                self._finish(order)
            case Replace():
                self._replaced(order)
            case _:
                pass  # of a file that failed before

    def reserve(self, size: int = RESERVE_SIZE) -> None:
        """Keep room for the end of the recording; without it, there is none to keep, and nothing else is lost."""
        try:
            with suppress(FileExistsError), self._created(RESERVE) as file:
                os.posix_fallocate(file.fileno(), 0, size)
        except OSError:
            (self.path / RESERVE).unlink(missing_ok=True)

    def _replaced(self, order: Replace) -> None:
        """The last version of a file is written in any case: on a full disk in the room that was kept for it."""
        try:
            self._replace(order)
        except OSError as error:
            reserve = self.path / RESERVE
            if not order.last or error.errno not in FULL or not reserve.exists():
                raise
            reserve.unlink()
            self._replace(order)

    def free(self) -> int:
        """Bytes that are free on the disk."""
        return shutil.disk_usage(self.path).free

    def close(self) -> None:
        """Close what is open, without an end."""
        for name in list(self._files):
            self._drop(name)
        (self.path / RESERVE).unlink(missing_ok=True)

    def _created(self, name: str) -> BinaryIO:
        flags = os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW
        return os.fdopen(os.open(self.path / name, flags, FILE_MODE), "w+b", buffering=0)

    def _write(self, name: str, data: bytes) -> None:
        file = self._files[name]
        before = file.seek(0, os.SEEK_END)
        try:
            write_all(file, data)
            now = self._clock()
            if now - self._synced.setdefault(name, now) >= SYNC_INTERVAL:
                os.fdatasync(file.fileno())
                self._synced[name] = self._clock()
        except OSError:
            file.truncate(before)
            self._drop(name)
            raise

    def _finish(self, order: Finish) -> None:
        try:
            write_ending(self._files[order.name], order.size, order.ending)
        except OSError:
            self._files[order.name].truncate(order.size)
            raise
        finally:
            self._drop(order.name)

    def _drop(self, name: str) -> None:
        self._synced.pop(name, None)
        self._files.pop(name).close()

    def _replace(self, order: Replace) -> None:
        temporary = self.path / f".{order.name}.new"
        temporary.unlink(missing_ok=True)
        flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW
        try:
            with os.fdopen(os.open(temporary, flags, FILE_MODE), "wb", buffering=0) as file:
                write_all(file, order.data)
                os.fsync(file.fileno())
            temporary.replace(self.path / order.name)
        except OSError:
            temporary.unlink(missing_ok=True)
            raise


@dataclass(frozen=True, slots=True)
class Failure:
    """An order that could not be carried out."""

    order: Order
    error: OSError


class DiskThread:
    """Carries out orders one after the other. The loop reads ``failures`` and ``free``; nothing blocks it."""

    def __init__(self, folder: Folder, *, free_interval: float = 2.0) -> None:
        self._folder = folder
        self._orders: queue.SimpleQueue[Order | None] = queue.SimpleQueue()
        self._free_interval = free_interval
        self._lock = threading.Lock()
        self._waiting = 0
        self._failures: list[Failure] = []
        #: Bytes that are free on the disk, as of a moment ago.
        self.free = folder.free()
        self._thread = threading.Thread(target=self._run, name="recording", daemon=True)
        self._thread.start()

    def __repr__(self) -> str:
        return f"<DiskThread {self.waiting} bytes waiting>"

    @property
    def waiting(self) -> int:
        """Bytes that wait for the disk."""
        return self._waiting

    def give(self, order: Order) -> None:
        """Have an order carried out after those before it."""
        with self._lock:
            self._waiting += size_of(order)
        self._orders.put(order)

    def failures(self) -> list[Failure]:
        """What failed since the last call."""
        with self._lock:
            found, self._failures = self._failures, []
        return found

    def close(self) -> None:
        """Carry out what waits and end; blocks until that is done."""
        self._orders.put(None)
        self._thread.join()

    def _run(self) -> None:
        measured = time.monotonic()
        while (order := self._orders.get()) is not None:
            self._carry_out(order)
            if time.monotonic() - measured >= self._free_interval:
                measured = time.monotonic()
                self.free = self._folder.free()
        self._folder.close()

    def _carry_out(self, order: Order) -> None:
        try:
            self._folder.carry_out(order)
        except OSError as error:
            with self._lock:
                self._failures.append(Failure(order, error))
        finally:
            with self._lock:
                self._waiting -= size_of(order)
