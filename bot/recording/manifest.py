"""``manifest.json``: what a recording holds, written every second or two while it is made.

Times are seconds since the recording began, of one clock for all; ``started`` is when that was. A segment is one
file. Between two segments of a source, and inside of one, gaps say what is missing and why.
"""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime
from pathlib import Path
from typing import Literal

from pydantic import BaseModel, ConfigDict, Field

from bot.jingle.model import Media

MANIFEST = "manifest.json"
SPEAKERS = "speakers.vtt"

#: Why something is missing, or why a segment ended.
Cause = Literal[
    "loss",  # packets that nothing repaired
    "muted",  # the owner muted the sound, or has the camera off
    "removed",  # the source was taken away
    "left",  # the owner left
    "silent",  # no packet came for long
    "reconnect",  # the recorder had no media session
    "moved",  # the bridge put the source on another SSRC
    "format",  # another size or codec: goes on in another file
    "rotation",  # the file was long or large enough: goes on in another file
    "clock",  # the sender's clock went back
    "disk",  # no room on the disk, or it failed
    "end",  # the recording ended
    "crash",  # the recorder was killed
]
#: Ends after which the next file goes on at once: nothing is missing between them.
CONTINUED: frozenset[Cause] = frozenset({"format", "rotation", "moved", "clock"})


class _Model(BaseModel):
    model_config = ConfigDict(extra="forbid")


class Span(_Model):
    """A time from ``start`` to ``end``; None while it lasts."""

    start: float
    end: float | None = None


class Gap(_Model):
    """What is missing of a source, and why."""

    start: float
    end: float
    cause: Cause


class Segment(_Model):
    """One file. Its time stamp 0 is ``start``. ``ended`` is None while it is written."""

    file: str
    codec: str
    width: int | None = None
    height: int | None = None
    start: float
    end: float
    frames: int = 0
    bytes: int = 0
    ended: Cause | None = None
    recovered: bool = False


class SourceEntry(_Model):
    """One source of a participant, as Jitsi names it; ``video_type`` is camera or desktop."""

    name: str
    media: Media
    video_type: str | None = None
    segments: list[Segment] = Field(default_factory=list)
    gaps: list[Gap] = Field(default_factory=list)
    #: All of it in one file of 16 kHz, from the beginning of the recording on, where that was asked for.
    audio: str | None = None


class ParticipantEntry(_Model):
    """Somebody by endpoint id. ``name`` is the newest display name, ``present`` when the participant was there.

    ``talking`` is where the sound was loud enough, ``talk_time`` its sum in seconds.
    """

    endpoint: str
    name: str = ""
    present: list[Span] = Field(default_factory=list)
    sources: list[SourceEntry] = Field(default_factory=list)
    talking: list[Span] = Field(default_factory=list)
    talk_time: float = 0.0


class Speaker(_Model):
    """Who the bridge named the dominant speaker from ``at`` on."""

    at: float
    endpoint: str


class ChatLine(_Model):
    """What somebody wrote to all."""

    at: float
    endpoint: str
    name: str
    text: str


class Note(_Model):
    """Something that happened to the recording itself: a lost session, a full disk, a watchdog."""

    at: float
    event: str
    text: str


class Manifest(_Model):
    """A recording. ``state`` is ``recording`` until its end was written; ``recovered`` after a crash."""

    version: Literal[1] = 1
    program: str
    room: str
    started: datetime
    duration: float = 0.0
    state: Literal["recording", "finished", "recovered"] = "recording"
    end_cause: str | None = None
    participants: list[ParticipantEntry] = Field(default_factory=list)
    dominant_speakers: list[Speaker] = Field(default_factory=list)
    chat: list[ChatLine] = Field(default_factory=list)
    notes: list[Note] = Field(default_factory=list)
    #: Media files that a crash kept from being listed.
    unlisted: list[str] = Field(default_factory=list)
    #: A picture of the meeting, and composites of it, all in the folder.
    poster: str | None = None
    composites: list[str] = Field(default_factory=list)

    def participant(self, endpoint: str) -> ParticipantEntry:
        """The entry of an endpoint, a new one if it must be."""
        for entry in self.participants:
            if entry.endpoint == endpoint:
                return entry
        entry = ParticipantEntry(endpoint=endpoint)
        self.participants.append(entry)
        return entry

    def segments(self) -> Sequence[Segment]:
        """All files, in the order of their sources."""
        return [item for who in self.participants for source in who.sources for item in source.segments]

    def to_json(self) -> bytes:
        """As it stands in the file."""
        return self.model_dump_json(indent=1, exclude_none=True).encode() + b"\n"


def read_manifest(folder: Path) -> Manifest:
    """The manifest of a recording. Raises OSError, and ValueError for one that can't be read."""
    return Manifest.model_validate_json((folder / MANIFEST).read_bytes())


def web_vtt(manifest: Manifest) -> bytes:
    """Who speaks when, as WebVTT (W3C): a cue for each time that somebody talked."""
    cues = sorted(
        (span.start, span.end, who.name or who.endpoint)
        for who in manifest.participants
        for span in who.talking
        if span.end is not None
    )
    lines = ["WEBVTT", ""]
    for start, end, name in cues:
        lines += [f"{_vtt_time(start)} --> {_vtt_time(end)}", f"<v {_escaped(name)}>{_escaped(name)}</v>", ""]
    return "\n".join(lines).encode() + b"\n"


def _vtt_time(seconds: float) -> str:
    milliseconds = max(0, round(seconds * 1000))
    minutes, rest = divmod(milliseconds, 60_000)
    return f"{minutes // 60:02d}:{minutes % 60:02d}:{rest // 1000:02d}.{rest % 1000:03d}"


def _escaped(name: str) -> str:
    plain = " ".join(name.split())
    return plain.replace("&", "&amp;").replace("<", "&lt;").replace(">", "&gt;")
