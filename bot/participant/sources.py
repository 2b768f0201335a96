"""The remote sources that are known, and how they change. Pure.

They come by Jingle, or by the bridge's maps where it rewrites SSRCs. Such a map names what is new or moved and
never what is gone (as lib-jitsi-meet reads it, too): a source goes with its owner, or with its SSRC when that is
given to another one. Every step costs what it changes, whatever the size of the room.
"""

from __future__ import annotations

from collections.abc import Collection, Hashable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Generic, NamedTuple, TypeVar

from bot import events
from bot.bridge.streams import NamedSource, RemoteStream, jingle_names
from bot.jingle.model import Media, SourceMap

#: Sources kept of one session; a room of 500 with RTX stays below. What is beyond is not reported.
MAX_SOURCES = 4096


class RemoteSource(NamedTuple):
    """One source: ``owner`` is an endpoint id, or the address in the room where Jingle said so."""

    source: str
    media: Media
    ssrc: int
    owner: str | None
    video_type: str | None = None


Change = tuple[type[events.RemoteSourceAdded] | type[events.RemoteSourceRemoved], RemoteSource]


@dataclass(frozen=True, slots=True)
class SourceState:
    """A remote source now. ``muted`` is what its owner's presence says, None where it says nothing.

    ``stream`` is what was received of it, the layer received last where there were several; None before.
    """

    source: str
    endpoint: str
    media: Media
    video_type: str | None
    muted: bool | None
    ssrcs: tuple[int, ...]
    stream: RemoteStream | None


Key = TypeVar("Key", bound=Hashable)


class _Index(Generic[Key]):
    """SSRCs by some key, in the order they came."""

    def __init__(self) -> None:
        self._found: dict[Key, dict[int, None]] = {}

    def add(self, key: Key, ssrc: int) -> None:
        self._found.setdefault(key, {})[ssrc] = None

    def drop(self, key: Key, ssrc: int) -> None:
        mine = self._found[key]
        del mine[ssrc]
        if not mine:
            del self._found[key]

    def get(self, key: Key) -> tuple[int, ...]:
        return tuple(self._found.get(key, ()))

    def __iter__(self) -> Iterator[Key]:
        return iter(self._found)

    def keys(self) -> Collection[Key]:
        return self._found.keys()


class RemoteSources:
    """Methods take what was said and return what is new by it; what is said again changes nothing."""

    def __init__(self) -> None:
        self._known: dict[int, RemoteSource] = {}
        self._by_source: _Index[tuple[str, Media]] = _Index()
        self._by_endpoint: _Index[str] = _Index()
        self._desktops: _Index[str] = _Index()

    def __repr__(self) -> str:
        return f"<RemoteSources {len(self._known)}>"

    @property
    def desktops(self) -> Collection[str]:
        """Names of the shared screens."""
        return self._desktops.keys()

    def videos_of(self, endpoint: str) -> Collection[str]:
        """Names of the video sources of an endpoint."""
        mine = (self._known[ssrc] for ssrc in self._by_endpoint.get(endpoint))
        return dict.fromkeys(item.source for item in mine if item.media == "video")

    def added(self, sources: SourceMap) -> list[Change]:
        """Take the sources of an offer or a source-add."""
        return [change for item in _items(sources) for change in self._add(item)]

    def removed(self, sources: SourceMap) -> list[Change]:
        """Take the sources of a source-remove."""
        return self._remove(item.ssrc for item in _items(sources))

    def mapped(self, media: Media, entries: Iterable[NamedSource]) -> list[Change]:
        """Take the entries of a bridge's map."""
        changes: list[Change] = []
        for entry in entries:
            name = entry.name or ""
            changes += self._remove(ssrc for ssrc in self._by_source.get((name, media)) if ssrc != entry.ssrc)
            changes += self._add(RemoteSource(name, media, entry.ssrc, entry.owner, entry.video_type))
        return changes

    def left(self, endpoint: str) -> list[Change]:
        """Drop what belongs to an endpoint that left the room."""
        return self._remove(self._by_endpoint.get(endpoint))

    def clear(self) -> list[Change]:
        """Drop everything: the session is over."""
        return self._remove(list(self._known))

    def states(
        self, streams: Iterable[RemoteStream], presence: Mapping[str, Mapping[str, object]]
    ) -> dict[str, SourceState]:
        """Every known source by name; ``presence`` has the SourceInfo of each endpoint."""
        received = {stream.ssrc: stream for stream in streams}
        return {name: self._state(name, media, received, presence) for name, media in self._by_source if name}

    def _state(
        self,
        name: str,
        media: Media,
        received: Mapping[int, RemoteStream],
        presence: Mapping[str, Mapping[str, object]],
    ) -> SourceState:
        ssrcs = self._by_source.get((name, media))
        first = self._known[ssrcs[0]]
        endpoint = _endpoint(first.owner)
        heard = [received[ssrc] for ssrc in ssrcs if ssrc in received]
        said = presence.get(endpoint, {}).get(name)
        info = said if isinstance(said, Mapping) else None
        return SourceState(
            source=name,
            endpoint=endpoint,
            media=media,
            video_type=first.video_type or _video_type(info, media),
            muted=None if info is None else info.get("muted") is True,
            ssrcs=ssrcs,
            stream=min(heard, key=lambda stream: stream.idle, default=None),
        )

    def _add(self, item: RemoteSource) -> list[Change]:
        if self._known.get(item.ssrc) == item:
            return []
        changes = self._remove([item.ssrc])
        if len(self._known) >= MAX_SOURCES:
            return changes
        self._known[item.ssrc] = item
        self._by_source.add((item.source, item.media), item.ssrc)
        self._by_endpoint.add(_endpoint(item.owner), item.ssrc)
        if _is_desktop(item):
            self._desktops.add(item.source, item.ssrc)
        return [*changes, (events.RemoteSourceAdded, item)]

    def _remove(self, ssrcs: Iterable[int]) -> list[Change]:
        gone = [self._known.pop(ssrc) for ssrc in ssrcs if ssrc in self._known]
        for item in gone:
            self._by_source.drop((item.source, item.media), item.ssrc)
            self._by_endpoint.drop(_endpoint(item.owner), item.ssrc)
            if _is_desktop(item):
                self._desktops.drop(item.source, item.ssrc)
        return [(events.RemoteSourceRemoved, item) for item in gone]


def _items(sources: SourceMap) -> list[RemoteSource]:
    """Each SSRC with media of its own: those of retransmissions are no sources."""
    return [
        RemoteSource(item.name or "", item.media, item.ssrc, item.owner, item.video_type)
        for item in jingle_names(sources)
    ]


def _endpoint(owner: str | None) -> str:
    return (owner or "").rpartition("/")[2]


def _is_desktop(item: RemoteSource) -> bool:
    return item.media == "video" and (item.video_type or "").startswith("desktop")


def _video_type(info: Mapping[str, object] | None, media: Media) -> str | None:
    """Jitsi's SourceInfo names the type of screens only; a camera is what is meant without it."""
    if media == "audio" or info is None:
        return None
    said = info.get("videoType")
    return said if isinstance(said, str) else "camera"
