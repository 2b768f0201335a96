"""Encoded clips on disk, for the next process: written whole or not at all, checked when read, bounded in size.

Processes share a directory without locks: two that encode the same clip at the same time write the same bytes, and
the later rename wins.
"""

from __future__ import annotations

import os
import tempfile
import time
from contextlib import suppress
from pathlib import Path

import structlog

from bot.clips.format import FormatError, dump, load
from bot.clips.model import Clip

log = structlog.get_logger(__name__)

#: Bytes of a cache unless asked otherwise: some hundred clips.
DEFAULT_SIZE = 512 * 1024 * 1024
_SUFFIX = ".clip"
_UNFINISHED = ".part"
#: Seconds after which nobody is writing to an unfinished file any more.
_ABANDONED = 3600


def default_directory() -> Path:
    """Where the user's caches are (XDG base directory specification)."""
    base = os.environ.get("XDG_CACHE_HOME", "")
    return (Path(base) if Path(base).is_absolute() else Path.home() / ".cache") / "jitsi-bot" / "clips"


class ClipCache:
    """Clips by digest in ``directory``, at most ``size`` bytes: what was not used for longest goes first.

    A directory that can't be used is warned of once, and nothing is kept. All methods block.
    """

    def __init__(self, directory: Path, *, size: int = DEFAULT_SIZE) -> None:
        self.directory = directory
        self._size = size
        self._usable = True

    def __repr__(self) -> str:
        return f"<ClipCache {self.directory}{'' if self._usable else ' not usable'}>"

    def get(self, digest: str) -> Clip | None:
        """The clip, None where there is none or it is broken; what is broken is thrown away."""
        path = self._path(digest)
        try:
            data = path.read_bytes()
        except FileNotFoundError:
            return None
        except OSError as error:
            self._give_up(error)
            return None
        try:
            clip = load(data)
        except FormatError as error:
            self._discard(path, error)
            return None
        if clip.digest != digest:
            self._discard(path, FormatError(f"it is the clip {clip.digest}"))
            return None
        with suppress(OSError):  # a directory of somebody else's may be readable only
            os.utime(path)
        return clip

    def put(self, clip: Clip) -> None:
        """Keep ``clip``; warns where it can't."""
        if not self._usable:
            return
        path = self._path(clip.digest)
        try:
            self.directory.mkdir(parents=True, exist_ok=True)
            _write(path, dump(clip))
            self._evict(path)
        except OSError as error:
            self._give_up(error)

    def _path(self, digest: str) -> Path:
        return self.directory / f"{digest}{_SUFFIX}"

    def _give_up(self, error: OSError) -> None:
        if self._usable:
            log.warning(
                "Clips are not kept on disk",
                event_name="clip_cache_unusable",
                directory=str(self.directory),
                cause=str(error),
            )
        self._usable = False

    @staticmethod
    def _discard(path: Path, error: FormatError) -> None:
        log.warning("A kept clip is broken", event_name="clip_cache_broken", path=str(path), cause=str(error))
        with suppress(OSError):
            path.unlink()

    def _evict(self, newest: Path) -> None:
        """Make room, but never at the expense of the clip that was just written."""
        found = [(status.st_mtime, status.st_size, path) for path, status in self._files(_SUFFIX)]
        total = sum(size for _, size, _ in found)
        for _, size, path in sorted(found):
            if total <= self._size:
                break
            if path != newest:
                path.unlink(missing_ok=True)
                total -= size
        for path, status in self._files(_UNFINISHED):
            if time.time() - status.st_mtime > _ABANDONED:
                path.unlink(missing_ok=True)

    def _files(self, suffix: str) -> list[tuple[Path, os.stat_result]]:
        found = []
        for path in self.directory.glob(f"*{suffix}"):
            with suppress(FileNotFoundError):  # another process made room
                found.append((path, path.stat()))
        return found


def _write(path: Path, data: bytes) -> None:
    """Write a file so that others see all of it or nothing, even after a crash."""
    handle, name = tempfile.mkstemp(dir=path.parent, prefix=f"{path.stem[:16]}-", suffix=_UNFINISHED)
    try:
        with os.fdopen(handle, "wb") as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
        Path(name).replace(path)
    except BaseException:
        Path(name).unlink(missing_ok=True)
        raise
