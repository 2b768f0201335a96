"""Names of files and folders made of what people call themselves. Pure."""

from __future__ import annotations

import unicodedata
from datetime import datetime

#: Characters and bytes of one part of a name: some file systems take 255 bytes in all.
MAX_CHARACTERS, MAX_BYTES = 40, 80
#: What follows what people chose, so that nobody's choice is a device's name or ends in a dot.
_KEPT = "-_"


def sanitised(name: str, otherwise: str = "unnamed") -> str:
    """``name`` as a part of a file's name: letters and digits of all scripts, the rest an underscore.

    No separators, no dots, no marks that turn the direction of writing or hide others.
    """
    plain = unicodedata.normalize("NFKC", name)
    kept = "".join(item if item.isalnum() or item in _KEPT else "_" for item in plain[:MAX_CHARACTERS])
    cut = kept.encode("utf-8", "ignore")[:MAX_BYTES].decode("utf-8", "ignore").strip("_-")
    return cut or otherwise


def meeting_folder(room: str, started: datetime, number: int = 1) -> str:
    """The folder of a recording; ``number`` tells those of one second apart."""
    again = f"-{number}" if number > 1 else ""
    return f"{sanitised(room, 'room')}-{started:%Y%m%dT%H%M%SZ}{again}"


def segment_file(participant: str, source: str, number: int, suffix: str) -> str:
    """The file of a source's ``number``-th segment; source names have the endpoint in them, and differ."""
    return f"{sanitised(participant)}-{sanitised(source, 'source')}-{number}{suffix}"
