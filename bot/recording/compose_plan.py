"""Who is to be seen in the composite of a recording at which moment, and with which file. Pure.

Times are seconds since the recording began, as in the manifest.
"""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from math import inf
from typing import Literal, NamedTuple

from bot.recording.manifest import CONTINUED, Manifest, ParticipantEntry, Segment, SourceEntry

Layout = Literal["tile", "speaker"]
Format = Literal["mp4", "webm"]
#: Between two files of a source that goes on, its last picture stays for so long (seconds) at the most.
BRIDGED = 5.0


class Shown(NamedTuple):
    """One tile: a source, or a participant without a picture (``segment`` is None then)."""

    key: str
    endpoint: str
    name: str
    segment: Segment | None = None
    screen: bool = False


class Scene(NamedTuple):
    """What is shown. ``stage`` is the large picture of the speaker layout; ``hidden`` tiles had no room."""

    tiles: tuple[Shown, ...] = ()
    stage: Shown | None = None
    speaker: str | None = None
    hidden: int = 0


class Playing(NamedTuple):
    """A file, and from when to when it is to be played."""

    segment: Segment
    start: float
    end: float


@dataclass(frozen=True, slots=True)
class _Video:
    who: ParticipantEntry
    source: SourceEntry
    starts: list[float]
    playing: list[Playing]

    def at(self, time: float) -> Segment | None:
        number = bisect_right(self.starts, time) - 1
        if number < 0 or time >= self.playing[number].end:
            return None
        return self.playing[number].segment


class Timeline:
    """What a manifest says of each moment. A manifest that is still written has segments without an end."""

    def __init__(self, manifest: Manifest) -> None:
        self.duration = max([manifest.duration, *(item.end for item in manifest.segments())])
        self._manifest = manifest
        #: By endpoint, in the order of coming.
        self._people = {who.endpoint: who for who in sorted(manifest.participants, key=_came)}
        self._videos = [_video(who, item) for who, item in _sources(manifest, "video") if item.segments]
        self.sounds = [play for _, item in _sources(manifest, "audio") for play in playing(item)]
        self.sounds.sort(key=lambda item: item.start)
        self._spoke = sorted((item.at, item.endpoint) for item in manifest.dominant_speakers)
        #: When a scene may change.
        self.turns = sorted(set(self._boundaries()))

    def __repr__(self) -> str:
        return f"<Timeline of {self.duration} s, {len(self._people)} participants>"

    def turn(self, time: float) -> int:
        """A number that changes whenever a scene may."""
        return bisect_right(self.turns, time)

    def speaker(self, time: float) -> str | None:
        """The newest dominant speaker who is there."""
        for number in range(bisect_right(self._spoke, (time, "\U0010ffff")) - 1, -1, -1):
            endpoint = self._spoke[number][1]
            if endpoint in self._people and _is_present(self._people[endpoint], time):
                return endpoint
        return None

    def scene(self, time: float, layout: Layout, room: int) -> Scene:
        """What is shown at ``time``; ``room`` is for how many tiles there is room, beside the stage."""
        shown = self._shown(time)
        speaker = self.speaker(time)
        stage = _stage(shown, speaker) if layout == "speaker" else None
        rest = [item for item in shown if item is not stage]
        kept = rest if len(rest) <= room else _kept(rest, room, self._recent(time))
        return Scene(tuple(kept), stage, speaker, len(rest) - len(kept))

    def _shown(self, time: float) -> list[Shown]:
        """Everybody who is there in the order of coming, with all pictures."""
        pictures: dict[str, list[Shown]] = {}
        for video in self._videos:
            if (segment := video.at(time)) is not None:
                pictures.setdefault(video.who.endpoint, []).append(_picture(video, segment))
        found = []
        for who in self._people.values():
            mine = pictures.get(who.endpoint, [])
            if any(not item.screen for item in mine) or (not mine and not _is_present(who, time)):
                found += mine
            else:
                found += [*mine, Shown(who.endpoint, who.endpoint, _name(who))]
        return found

    def _recent(self, time: float) -> dict[str, int]:
        """Who spoke last: the greater, the later."""
        return {who: rank for rank, (_, who) in enumerate(self._spoke[: bisect_right(self._spoke, (time, ""))])}

    def _boundaries(self) -> Iterator[float]:
        for video in self._videos:
            for play in video.playing:
                yield from (play.start, play.end)
        for who in self._people.values():
            for span in who.present:
                yield from (span.start, inf if span.end is None else span.end)
        yield from (at for at, _ in self._spoke)


def playing(source: SourceEntry) -> list[Playing]:
    """The files of a source with the times at which they are played, in order and without overlap."""
    found: list[Playing] = []
    segments = sorted(source.segments, key=lambda item: item.start)
    for number, segment in enumerate(segments):
        after = segments[number + 1].start if number + 1 < len(segments) else inf
        end = inf if segment.ended is None else segment.end
        if segment.ended in CONTINUED and after - end <= BRIDGED:
            end = after
        found.append(Playing(segment, segment.start, min(end, after)))
    return found


def _sources(manifest: Manifest, media: str) -> Iterator[tuple[ParticipantEntry, SourceEntry]]:
    for who in manifest.participants:
        for source in who.sources:
            if source.media == media:
                yield who, source


def _video(who: ParticipantEntry, source: SourceEntry) -> _Video:
    plays = playing(source)
    return _Video(who, source, [item.start for item in plays], plays)


def _picture(video: _Video, segment: Segment) -> Shown:
    screen = video.source.video_type == "desktop"
    name = f"{_name(video.who)} (screen)" if screen else _name(video.who)
    return Shown(video.source.name, video.who.endpoint, name, segment, screen)


def _name(who: ParticipantEntry) -> str:
    return who.name or who.endpoint


def _came(who: ParticipantEntry) -> float:
    times = [span.start for span in who.present]
    times += [item.start for source in who.sources for item in source.segments]
    return min(times, default=inf)


def _is_present(who: ParticipantEntry, time: float) -> bool:
    return any(span.start <= time < (inf if span.end is None else span.end) for span in who.present)


def _stage(shown: Sequence[Shown], speaker: str | None) -> Shown | None:
    """The newest shared screen, as web clients put it there; else the speaker, else somebody with a camera."""
    screens = [item for item in shown if item.screen and item.segment is not None]
    if screens:
        return max(screens, key=lambda item: item.segment.start if item.segment else 0.0)
    spoken = [item for item in shown if item.endpoint == speaker]
    seen = [item for item in shown if item.segment is not None]
    return next(iter([*spoken, *seen, *shown]), None)


def _kept(shown: Sequence[Shown], room: int, recent: dict[str, int]) -> list[Shown]:
    """As many as there is room for: screens, pictures, who spoke last; in the order that they had."""
    ranked = sorted(
        range(len(shown)),
        key=lambda number: (
            not shown[number].screen,
            shown[number].segment is None,
            -recent.get(shown[number].endpoint, -1),
            number,
        ),
    )
    return [shown[number] for number in sorted(ranked[:room])]
