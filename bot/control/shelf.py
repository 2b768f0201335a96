"""Folders of files that can be downloaded, and tickets for them. No path of a client's is ever followed."""

from __future__ import annotations

import hashlib
import hmac
import re
import secrets
import time
from collections.abc import Callable
from pathlib import Path

from bot.control.model import ID
from bot.control.problems import not_found

#: Seconds that a ticket counts: a long recording can be played to its end.
TICKET_LIFE = 4 * 3600


class Shelf:
    """``root`` holds a folder for each item, with plain files. What is asked for is looked for in listings."""

    def __init__(self, root: Path) -> None:
        self._root = root

    def __repr__(self) -> str:
        return f"<Shelf {self._root}>"

    @property
    def root(self) -> Path:
        """The folder of all."""
        return self._root

    def names(self) -> list[str]:
        """The items that are there and can be named in a URL, in order."""
        return sorted(item.name for item in _listing(self._root) if item.is_dir() and _is_id(item))

    def folder(self, name: str) -> Path:
        """The folder of an item. Raises RequestError."""
        return _one([item for item in _listing(self._root) if item.is_dir()], name)

    def files(self, name: str) -> list[Path]:
        """Its files, in order. Raises RequestError where there is no such item."""
        return files_in(self.folder(name))


def files_in(folder: Path) -> list[Path]:
    """The plain files of a folder that are no part of something unfinished, in order."""
    return sorted(item for item in _listing(folder) if item.is_file() and not item.name.startswith("."))


def size_of(file: Path) -> int:
    """Bytes of a file; 0 where it is gone meanwhile."""
    try:
        return file.stat().st_size
    except OSError:
        return 0


def file_of(folder: Path, name: str) -> Path:
    """One of them. Raises RequestError."""
    return _one(files_in(folder), name)


def _listing(folder: Path) -> list[Path]:
    """What is in a folder; links lead elsewhere, and are left out."""
    try:
        return [item for item in folder.iterdir() if not item.is_symlink()]
    except OSError:
        return []


def _one(found: list[Path], name: str) -> Path:
    for item in found:
        if item.name == name:
            return item
    raise not_found(name)


def _is_id(item: Path) -> bool:
    return re.fullmatch(ID.strip("^$"), item.name) is not None


class Tickets:
    """Leave to read one path for a while, in its URL: what plays or downloads a file sends no header."""

    def __init__(self, wall: Callable[[], float] = time.time) -> None:
        self._key = secrets.token_bytes(32)
        self._wall = wall

    def __repr__(self) -> str:
        return "<Tickets>"

    def make(self, path: str) -> str:
        """A ticket for ``path``."""
        until = str(int(self._wall()) + TICKET_LIFE)
        return f"{until}-{self._sign(path, until)}"

    def holds(self, path: str, ticket: str) -> bool:
        """Whether ``ticket`` is one for ``path`` that still counts."""
        until, _, signature = ticket.partition("-")
        good = hmac.compare_digest(self._sign(path, until).encode(), signature.encode("utf-8", "replace"))
        return good and self._wall() <= int(until)

    def _sign(self, path: str, until: str) -> str:
        return hmac.new(self._key, f"{until} {path}".encode("utf-8", "replace"), hashlib.sha256).hexdigest()
