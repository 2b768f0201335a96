"""The remote sources that are known, and how they change. Pure.

They come by Jingle, or by the bridge's maps where it rewrites SSRCs. Such a map names what is new or moved and
never what is gone (as lib-jitsi-meet reads it, too): a source goes with its owner, or with its SSRC when that is
given to another one.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import NamedTuple

from bot import events
from bot.jingle.model import Media, MediaSources, SourceMap

#: Sources kept of one session; a room of 500 with RTX stays below. What is beyond is not reported.
MAX_SOURCES = 4096


class RemoteSource(NamedTuple):
    """One source: ``owner`` is an endpoint id, or the address in the room where Jingle said so."""

    source: str
    media: Media
    ssrc: int
    owner: str | None


Change = tuple[type[events.RemoteSourceAdded] | type[events.RemoteSourceRemoved], RemoteSource]


class RemoteSources:
    """Methods take what was said and return what is new by it; what is said again changes nothing."""

    def __init__(self) -> None:
        self._known: dict[int, RemoteSource] = {}

    def __repr__(self) -> str:
        return f"<RemoteSources {len(self._known)}>"

    def added(self, sources: SourceMap) -> list[Change]:
        """Take the sources of an offer or a source-add."""
        return [change for item in _items(sources) for change in self._add(item)]

    def removed(self, sources: SourceMap) -> list[Change]:
        """Take the sources of a source-remove."""
        return self._remove(item.ssrc for item in _items(sources))

    def mapped(self, media: Media, entries: Iterable[tuple[str, str, int]]) -> list[Change]:
        """Take the ``(source, owner, SSRC)`` of a bridge's map."""
        changes: list[Change] = []
        for source, owner, ssrc in entries:
            elsewhere = [
                item.ssrc
                for item in self._known.values()
                if (item.source, item.media) == (source, media) and item.ssrc != ssrc
            ]
            changes += self._remove(elsewhere)
            changes += self._add(RemoteSource(source, media, ssrc, owner))
        return changes

    def left(self, endpoint: str) -> list[Change]:
        """Drop what belongs to an endpoint that left the room."""
        return self._remove([item.ssrc for item in self._known.values() if _endpoint(item.owner) == endpoint])

    def clear(self) -> list[Change]:
        """Drop everything: the session is over."""
        return self._remove(list(self._known))

    def _add(self, item: RemoteSource) -> list[Change]:
        if self._known.get(item.ssrc) == item:
            return []
        changes = self._remove([item.ssrc])
        if len(self._known) >= MAX_SOURCES:
            return changes
        self._known[item.ssrc] = item
        return [*changes, (events.RemoteSourceAdded, item)]

    def _remove(self, ssrcs: Iterable[int]) -> list[Change]:
        gone = [self._known.pop(ssrc) for ssrc in ssrcs if ssrc in self._known]
        return [(events.RemoteSourceRemoved, item) for item in gone]


def _items(sources: SourceMap) -> list[RemoteSource]:
    parts: tuple[tuple[Media, MediaSources], ...] = (("audio", sources.audio), ("video", sources.video))
    return [
        RemoteSource(item.name or "", media, item.ssrc, item.owner)
        for media, part in parts
        for item in part.sources
    ]


def _endpoint(owner: str | None) -> str:
    return (owner or "").rpartition("/")[2]
