"""The table of remote sources, kept up to date by what the focus adds and removes."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from enum import StrEnum
from typing import Final, Literal

from bot.jingle import names
from bot.jingle.jsonsources import sources_from_json, sources_to_json
from bot.jingle.model import MediaSources, Source, SourceGroup, SourceMap

__all__ = [
    "Problem",
    "ProblemKind",
    "RemoteSource",
    "SourceChange",
    "SourceTable",
    "sources_from_json",
    "sources_to_json",
]

Kind = Literal["audio", "video"]
_KINDS: Final[tuple[Kind, Kind]] = ("audio", "video")


class ProblemKind(StrEnum):
    """What was wrong with one source or group of a change; the rest of the change is applied."""

    #: Already in the table, and the same: nothing to do.
    DUPLICATE = "duplicate"
    #: The SSRC was another participant's (or another kind's): the new one has replaced it.
    COLLISION = "collision"
    #: The table is full.
    LIMIT = "limit"
    #: To be removed, but not there, or another participant's by now.
    UNKNOWN = "unknown"


@dataclass(frozen=True, slots=True)
class Problem:
    """A source or group (by its first SSRC) of a change that was not simply applied."""

    kind: ProblemKind
    ssrc: int


@dataclass(frozen=True, slots=True)
class RemoteSource:
    """An entry of the table: a source with its kind."""

    media: Kind
    source: Source


@dataclass(frozen=True, slots=True)
class SourceChange:
    """What a call changed (new, updated or removed sources and groups), and what was wrong with it."""

    sources: SourceMap
    problems: tuple[Problem, ...] = ()
    #: Entries that went away because another participant announced their SSRC.
    displaced: tuple[RemoteSource, ...] = ()


_GroupKey = tuple[Kind, SourceGroup]


class SourceTable:
    """Remote sources by SSRC and by owner.

    Bounded, and changed in steps whose cost is that of the change, whatever the size of the table. The focus has
    the last word: an SSRC that it gives to somebody else moves there, and a late removal in the old owner's name
    is ignored.
    """

    def __init__(self, max_sources: int = names.MAX_SOURCES) -> None:
        self._max_sources = max_sources
        self._entries: dict[int, RemoteSource] = {}
        self._owners: dict[str | None, dict[int, None]] = {}
        self._groups: dict[_GroupKey, None] = {}
        self._groups_of: dict[int, dict[_GroupKey, None]] = {}

    def __len__(self) -> int:
        return len(self._entries)

    def __contains__(self, ssrc: object) -> bool:
        return ssrc in self._entries

    def __iter__(self) -> Iterator[RemoteSource]:
        return iter(self._entries.values())

    def __repr__(self) -> str:
        return f"SourceTable(sources={len(self._entries)}, owners={len(self._owners)}, groups={len(self._groups)})"

    # --- look-ups ---

    @property
    def owners(self) -> tuple[str | None, ...]:
        """Owners that have sources, in the order they came."""
        return tuple(self._owners)

    def by_ssrc(self, ssrc: int) -> RemoteSource | None:
        """The entry of ``ssrc``, None if there is none."""
        return self._entries.get(ssrc)

    def by_owner(self, owner: str | None) -> tuple[RemoteSource, ...]:
        """The entries of ``owner`` (an endpoint id, ``jvb`` for the bridge), in the order they came."""
        return tuple(self._entries[ssrc] for ssrc in self._owners.get(owner, ()))

    def groups_of(self, ssrc: int) -> tuple[SourceGroup, ...]:
        """The groups that ``ssrc`` is a member of."""
        return tuple(group for _, group in self._groups_of.get(ssrc, ()))

    def rtx_of(self, ssrc: int) -> int | None:
        """The SSRC that carries retransmissions of ``ssrc`` (RFC 4588 section 8.8), None if there is none."""
        return next((pair[1] for pair in self._pairs(ssrc) if pair[0] == ssrc), None)

    def primary_of(self, ssrc: int) -> int | None:
        """The SSRC that ``ssrc`` retransmits, None if ``ssrc`` is no RTX."""
        return next((pair[0] for pair in self._pairs(ssrc) if pair[1] == ssrc), None)

    def _pairs(self, ssrc: int) -> Iterator[tuple[int, ...]]:
        return (
            group.ssrcs for group in self.groups_of(ssrc) if group.semantics == "FID" and len(group.ssrcs) == 2
        )

    def snapshot(self) -> SourceMap:
        """All that the table holds."""
        change = _Change()
        for entry in self._entries.values():
            change.source(entry.media, entry.source)
        for media, group in self._groups:
            change.group(media, group)
        return change.done().sources

    # --- changes ---

    def add(self, sources: SourceMap) -> SourceChange:
        """Add or update ``sources``."""
        change = _Change()
        for media in _KINDS:
            part: MediaSources = getattr(sources, media)
            for source in part.sources:
                self._add_source(change, media, source)
            for group in part.groups:
                self._add_group(change, media, group)
        return change.done()

    def remove(self, sources: SourceMap) -> SourceChange:
        """Remove ``sources``, with the groups that their SSRCs are members of."""
        change = _Change()
        for media in _KINDS:
            part: MediaSources = getattr(sources, media)
            for group in part.groups:
                self._remove_group(change, media, group)
            for source in part.sources:
                self._remove_source(change, source)
        return change.done()

    def remove_owner(self, owner: str | None) -> SourceChange:
        """Remove all that ``owner`` has (it left the room)."""
        change = _Change()
        for ssrc in tuple(self._owners.get(owner, ())):
            self._drop(change, self._entries[ssrc])
        return change.done()

    def clear(self) -> SourceChange:
        """Remove everything (the session ended)."""
        change = SourceChange(self.snapshot())
        for index in (self._entries, self._owners, self._groups, self._groups_of):
            index.clear()
        return change

    def _add_source(self, change: _Change, media: Kind, source: Source) -> None:
        entry = RemoteSource(media, source)
        known = self._entries.get(source.ssrc)
        if known == entry:
            change.problem(ProblemKind.DUPLICATE, source.ssrc)
            return
        if known is None and len(self._entries) >= self._max_sources:
            change.problem(ProblemKind.LIMIT, source.ssrc)
            return
        if known is not None and (known.media, known.source.owner) != (media, source.owner):
            change.displaced.append(known)
            change.problem(ProblemKind.COLLISION, source.ssrc)
            self._drop(None, known)
        self._entries[source.ssrc] = entry
        self._owners.setdefault(source.owner, {})[source.ssrc] = None
        change.source(media, source)

    def _add_group(self, change: _Change, media: Kind, group: SourceGroup) -> None:
        key = (media, group)
        first = group.ssrcs[0] if group.ssrcs else 0
        if key in self._groups:
            change.problem(ProblemKind.DUPLICATE, first)
        elif not group.ssrcs or len(self._groups) >= self._max_sources:
            change.problem(ProblemKind.LIMIT if group.ssrcs else ProblemKind.UNKNOWN, first)
        else:
            self._groups[key] = None
            for ssrc in group.ssrcs:
                self._groups_of.setdefault(ssrc, {})[key] = None
            change.group(media, group)

    def _remove_source(self, change: _Change, source: Source) -> None:
        known = self._entries.get(source.ssrc)
        if known is None or (source.owner is not None and source.owner != known.source.owner):
            change.problem(ProblemKind.UNKNOWN, source.ssrc)
        else:
            self._drop(change, known)

    def _remove_group(self, change: _Change, media: Kind, group: SourceGroup) -> None:
        if (media, group) in self._groups:
            self._drop_group(change, (media, group))
        else:
            change.problem(ProblemKind.UNKNOWN, group.ssrcs[0] if group.ssrcs else 0)

    def _drop(self, change: _Change | None, entry: RemoteSource) -> None:
        source = entry.source
        del self._entries[source.ssrc]
        mine = self._owners[source.owner]
        del mine[source.ssrc]
        if not mine:
            del self._owners[source.owner]
        if change is not None:
            change.source(entry.media, source)
        for key in tuple(self._groups_of.get(source.ssrc, ())):
            self._drop_group(change, key)

    def _drop_group(self, change: _Change | None, key: _GroupKey) -> None:
        del self._groups[key]
        for ssrc in dict.fromkeys(key[1].ssrcs):
            mine = self._groups_of[ssrc]
            del mine[key]
            if not mine:
                del self._groups_of[ssrc]
        if change is not None:
            change.group(*key)


class _Change:
    """Collects a change in lists, so that its cost stays that of its length."""

    def __init__(self) -> None:
        self._sources: dict[Kind, list[Source]] = {"audio": [], "video": []}
        self._groups: dict[Kind, list[SourceGroup]] = {"audio": [], "video": []}
        self._problems: list[Problem] = []
        self.displaced: list[RemoteSource] = []

    def source(self, media: Kind, source: Source) -> None:
        self._sources[media].append(source)

    def group(self, media: Kind, group: SourceGroup) -> None:
        self._groups[media].append(group)

    def problem(self, kind: ProblemKind, ssrc: int) -> None:
        self._problems.append(Problem(kind, ssrc))

    def done(self) -> SourceChange:
        audio, video = (MediaSources(tuple(self._sources[kind]), tuple(self._groups[kind])) for kind in _KINDS)
        return SourceChange(SourceMap(audio, video), tuple(self._problems), tuple(self.displaced))
