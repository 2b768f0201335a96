"""Recordings whose recorder was killed: their files made whole, their manifests finished."""

from __future__ import annotations

import fcntl
import os
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path

from bot import __version__
from bot.recording.disk import FILE_MODE, RESERVE, Folder, Replace
from bot.recording.ebml import EbmlError
from bot.recording.manifest import MANIFEST, SPEAKERS, Manifest, SourceEntry, read_manifest, web_vtt
from bot.recording.matroska import Repair, repair
from bot.recording.talk import talk_time

LOCK = ".lock"
_SUFFIXES = (".webm", ".mkv")


class InUseError(Exception):
    """A recorder, or a repair, has the folder."""


@contextmanager
def locked(folder: Path) -> Iterator[None]:
    """Keep others out of a recording's folder. Raises InUseError where one is in it."""
    path = folder / LOCK
    number = os.open(path, os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW, FILE_MODE)
    try:
        try:
            fcntl.flock(number, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise InUseError(f"{folder} is in use") from None
        yield
        path.unlink(missing_ok=True)
    finally:
        os.close(number)


@dataclass(slots=True)
class Recovery:
    """What was done in one folder: to each file, and what could not be read."""

    folder: Path
    room: str = ""
    files: dict[str, Repair] = field(default_factory=dict)
    unreadable: dict[str, str] = field(default_factory=dict)

    @property
    def recovered(self) -> int:
        """Files that were cut off, and are whole now."""
        return sum(item.outcome == "recovered" for item in self.files.values())


def unfinished(root: Path) -> list[Path]:
    """The recordings in ``root``, or ``root`` itself, whose end was never written; those in use included."""
    found = [root, *sorted(item for item in root.iterdir() if item.is_dir())] if root.is_dir() else []
    return [folder for folder in found if _is_unfinished(folder)]


def _is_unfinished(folder: Path) -> bool:
    try:
        return read_manifest(folder).state == "recording"
    except FileNotFoundError:
        return (folder / LOCK).exists() or bool(_media_files(folder) and (folder / f".{MANIFEST}.new").exists())
    except ValueError:
        return True


def _media_files(folder: Path) -> list[Path]:
    """Segments alone: composites have another dot in their names."""
    return sorted(
        path for path in folder.iterdir() if path.suffix in _SUFFIXES and "." not in path.stem and path.is_file()
    )


def recover(folder: Path) -> Recovery:
    """Make the files of a recording whole and finish its manifest. Raises InUseError and OSError."""
    with locked(folder):
        found = Recovery(folder)
        for path in _media_files(folder):
            try:
                found.files[path.name] = repair(path)
            except EbmlError as error:
                found.unreadable[path.name] = str(error)
        manifest = _manifest(folder)
        found.room = manifest.room
        _finish(manifest, found)
        for name, done in found.files.items():
            if done.outcome == "empty":
                (folder / name).unlink()  # a head, and no frame
        for left in (f".{MANIFEST}.new", RESERVE):
            (folder / left).unlink(missing_ok=True)
        disk = Folder(folder)
        disk.carry_out(Replace(MANIFEST, manifest.to_json()))
        disk.carry_out(Replace(SPEAKERS, web_vtt(manifest)))
        return found


def mend(folder: Path, names: Iterable[str]) -> None:
    """Make files whole that could not be written to their ends, once the rest is. Raises OSError and ValueError.

    The caller keeps others out of the folder.
    """
    manifest = read_manifest(folder)
    found = Recovery(folder)
    for name in names:
        try:
            found.files[name] = repair(folder / name)
        except FileNotFoundError:
            found.files[name] = Repair("empty")
        except EbmlError as error:
            found.unreadable[name] = str(error)
    for source in (source for who in manifest.participants for source in who.sources):
        kept = [item for item in source.segments if item.file not in found.files]
        _finish_source(source, found)
        source.segments = sorted([*kept, *source.segments], key=lambda item: item.start)
    for name, done in found.files.items():
        if done.outcome == "empty":
            (folder / name).unlink(missing_ok=True)
    Folder(folder).carry_out(Replace(MANIFEST, manifest.to_json()))


def _manifest(folder: Path) -> Manifest:
    """The manifest as it was last written; an empty one where a crash came before the first."""
    try:
        return read_manifest(folder)
    except (FileNotFoundError, ValueError):
        changed = datetime.fromtimestamp(folder.stat().st_mtime, UTC)
        return Manifest(program=f"jitsi-bot {__version__}", room=folder.name, started=changed)


def _finish(manifest: Manifest, found: Recovery) -> None:
    sources = [source for who in manifest.participants for source in who.sources]
    for source in sources:
        _finish_source(source, found)
    listed = {item.file for item in manifest.segments()}
    playable = [name for name, done in found.files.items() if done.outcome != "empty"]
    manifest.unlisted = [name for name in playable if name not in listed]
    manifest.duration = max([manifest.duration, *(item.end for item in manifest.segments())])
    for who in manifest.participants:
        for span in (*who.present, *who.talking):
            span.end = manifest.duration if span.end is None else span.end
        who.talk_time = talk_time(who.talking, manifest.duration)
    manifest.state = "recovered"
    manifest.end_cause = "crash"


def _finish_source(source: SourceEntry, found: Recovery) -> None:
    kept = []
    for segment in source.segments:
        done = found.files.get(segment.file)
        if done is None or done.outcome == "empty":
            continue
        if done.outcome == "recovered" or segment.ended is None:
            segment.recovered = done.outcome == "recovered"
            segment.end = round(segment.start + done.duration / 1000, 3)
            segment.ended = segment.ended or "crash"
            segment.bytes = (found.folder / segment.file).stat().st_size
        kept.append(segment)
    source.segments = kept
