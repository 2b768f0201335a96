"""Remote sources: their names, their repair streams, and what was received of each. Pure."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any, Protocol

from bot.bridge.payloads import PayloadFormat
from bot.jingle.model import Media, MediaSources, SourceMap

#: Names kept; with SSRC rewriting a bridge uses few SSRCs over and over.
MAX_NAMES = 8192


@dataclass(frozen=True, slots=True)
class NamedSource:
    """An SSRC with what signalling says of it; ``rtx`` is the SSRC of its retransmissions (RFC 4588)."""

    ssrc: int
    media: Media
    name: str | None = None
    owner: str | None = None
    rtx: int | None = None
    video_type: str | None = None


@dataclass(frozen=True, slots=True)
class RemoteStream:
    """What was received of one remote source until now. Times in seconds, rates in bit/s.

    ``packets`` are those with media; ``lost`` were lost on the way (RFC 3550), of which ``repaired`` came by RTX;
    ``rtx`` are the RTX packets with media, also those that repeat what was there. ``first_frame`` is when the
    first frame was complete, since the start of the session, None before; ``idle`` is the time since the last one.
    """

    ssrc: int
    media: Media
    codec: str
    source: str | None
    owner: str | None
    video_type: str | None
    packets: int
    bytes: int
    frames: int
    lost: int
    reordered: int
    repaired: int
    rtx: int
    jitter: float
    bitrate: float
    first_frame: float | None
    idle: float

    @property
    def missing(self) -> int:
        """Packets that never came."""
        return max(0, self.lost - self.repaired)


def jingle_names(sources: SourceMap) -> list[NamedSource]:
    """The sources of a session-initiate or source-add; FID groups give the repair streams (RFC 5576)."""
    return [*_jingle_names("audio", sources.audio), *_jingle_names("video", sources.video)]


def _jingle_names(media: Media, found: MediaSources) -> list[NamedSource]:
    repairs = {
        group.ssrcs[0]: group.ssrcs[1]
        for group in found.groups
        if group.semantics == "FID" and len(group.ssrcs) == 2
    }
    seconds = set(repairs.values())
    return [
        NamedSource(item.ssrc, media, item.name, item.owner, repairs.get(item.ssrc), item.video_type)
        for item in found.sources
        if item.ssrc not in seconds
    ]


def mapped_names(message: Mapping[str, Any]) -> list[NamedSource]:
    """The sources of a VideoSourcesMap or AudioSourcesMap; broken entries are left out."""
    media: Media = "audio" if message.get("colibriClass") == "AudioSourcesMap" else "video"
    entries = message.get("mappedSources")
    return [
        NamedSource(
            entry["ssrc"],
            media,
            _text(entry.get("source")),
            _text(entry.get("owner")),
            entry["rtx"] if _is_ssrc(entry.get("rtx")) else None,
            (_text(entry.get("videoType")) or "").lower() or None,
        )
        for entry in (entries if isinstance(entries, list) else ())
        if isinstance(entry, dict) and _is_ssrc(entry.get("ssrc"))
    ]


def _is_ssrc(value: object) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and 0 < value < 2**32


def _text(value: object) -> str | None:
    return value if isinstance(value, str) and value else None


class SourceCounters(Protocol):
    """What is counted of a stream, as :class:`bot.bridge.receive.StreamStats` has it."""

    first_frame: float | None

    @property
    def ssrc(self) -> int:
        """Synchronisation source."""
        ...

    @property
    def packets(self) -> int:
        """Packets that came."""
        ...

    @property
    def padding(self) -> int:
        """Those without media."""
        ...

    @property
    def bytes(self) -> int:
        """Bytes of the others."""
        ...

    @property
    def frames(self) -> int:
        """Frames that ended."""
        ...

    @property
    def lost(self) -> int:
        """Cumulative loss."""
        ...

    @property
    def reordered(self) -> int:
        """Packets that came late."""
        ...

    @property
    def jitter_seconds(self) -> float:
        """Interarrival jitter."""
        ...

    @property
    def last(self) -> float:
        """When the last packet came."""
        ...

    def bitrate(self, now: float) -> float:
        """Media in bit/s, over the last second."""
        ...

    def media(self, size: int, now: float, *, frame_ends: bool) -> None:
        """Count the media in a packet."""
        ...


class RemoteSource:
    """One received SSRC with media: its counters, and how far they were when it began to carry this source."""

    __slots__ = ("base", "format", "gone", "repaired", "rtx", "stats")

    def __init__(self, stats: SourceCounters, format_: PayloadFormat) -> None:
        self.stats = stats
        self.format = format_
        self.repaired = 0
        self.rtx = 0
        self.base = (0, 0, 0, 0, 0, 0, 0)
        #: Whether nothing came since it was removed.
        self.gone = False

    def counters(self) -> tuple[int, int, int, int, int, int, int]:
        """All that counts up, in the order of :class:`RemoteStream`."""
        stats = self.stats
        return (
            stats.packets - stats.padding,
            stats.bytes,
            stats.frames,
            stats.lost,
            stats.reordered,
            self.repaired,
            self.rtx,
        )

    def begin_anew(self) -> None:
        """Count from here: the bridge has put another source on this SSRC."""
        self.base = self.counters()
        self.stats.first_frame = None

    def view(self, named: NamedSource | None, started: float, now: float) -> RemoteStream:
        """What was received; ``started`` is the session's start on the same clock."""
        stats = self.stats
        packets, octets, frames, lost, reordered, repaired, rtx = (
            max(0, value - base) for value, base in zip(self.counters(), self.base, strict=True)
        )
        return RemoteStream(
            ssrc=stats.ssrc,
            media=named.media if named else self.format.media,
            codec=self.format.codec,
            source=named.name if named else None,
            owner=named.owner if named else None,
            video_type=named.video_type if named else None,
            packets=packets,
            bytes=octets,
            frames=frames,
            lost=lost,
            reordered=reordered,
            repaired=repaired,
            rtx=rtx,
            jitter=stats.jitter_seconds,
            bitrate=stats.bitrate(now),
            first_frame=None if stats.first_frame is None else stats.first_frame - started,
            idle=max(0.0, now - stats.last),
        )


class RemoteSources:
    """All received sources of a session, named as signalling comes, before or after their packets."""

    def __init__(self, started: float) -> None:
        self._started = started
        self._names: dict[int, NamedSource] = {}
        self._by_name: dict[str, dict[int, None]] = {}
        self._repairs: dict[int, int] = {}
        self._sources: dict[int, RemoteSource] = {}

    def name(self, named: Iterable[NamedSource]) -> list[int]:
        """Take names; returns the SSRCs that carry another source from now on."""
        moved = []
        for item in named:
            before = self._unname(item.ssrc)
            self._names[item.ssrc] = item
            if item.name is not None:
                self._by_name.setdefault(item.name, {})[item.ssrc] = None
            if before is not None and before.rtx is not None and self._repairs.get(before.rtx) == item.ssrc:
                del self._repairs[before.rtx]
            if item.rtx is not None:
                self._repairs[item.rtx] = item.ssrc
            if before is not None and (before.name, before.owner) != (item.name, item.owner):
                moved.append(item.ssrc)
                if item.ssrc in self._sources:
                    self._sources[item.ssrc].begin_anew()
        while len(self._names) > MAX_NAMES:
            self.forget([next(iter(self._names))])
        return moved

    def forget(self, ssrcs: Iterable[int]) -> None:
        """Drop the names of sources that are gone; if their SSRCs come again, they are counted from there."""
        for ssrc in ssrcs:
            named = self._unname(ssrc)
            if named is not None and named.rtx is not None and self._repairs.get(named.rtx) == ssrc:
                del self._repairs[named.rtx]
            source = self._sources.get(ssrc)
            if source is not None:
                source.begin_anew()
                source.gone = True

    def retire(self, ssrcs: Iterable[int]) -> None:
        """Drop what was received on SSRCs that are silent for long; their names stay."""
        for ssrc in ssrcs:
            self._sources.pop(ssrc, None)

    def _unname(self, ssrc: int) -> NamedSource | None:
        named = self._names.pop(ssrc, None)
        if named is not None and named.name is not None:
            mine = self._by_name[named.name]
            del mine[ssrc]
            if not mine:
                del self._by_name[named.name]
        return named

    def named(self, ssrc: int) -> NamedSource | None:
        """What signalling says of ``ssrc``."""
        return self._names.get(ssrc)

    def endpoint_of(self, ssrc: int) -> str | None:
        """Whose ``ssrc`` is: its owner, or who its name says (``endpoint-v0``); None where that is not known."""
        named = self._names.get(ssrc)
        if named is None:
            return None
        return named.owner or (named.name or "").rpartition("-")[0] or None

    def received(self, stats: SourceCounters, format_: PayloadFormat) -> RemoteSource:
        """The source of a stream with media, a new one if it must be."""
        source = self._sources.get(stats.ssrc)
        if source is None:
            source = self._sources[stats.ssrc] = RemoteSource(stats, format_)
            return source
        if source.format is not format_:
            source.format = format_  # another codec, in the middle of a stream
        source.gone = False
        return source

    def repaired_by(self, rtx: int) -> RemoteSource | None:
        """The received source whose retransmissions come on the SSRC ``rtx``."""
        ssrc = self._repairs.get(rtx)
        return None if ssrc is None else self._sources.get(ssrc)

    def ssrc_of(self, name: str) -> int | None:
        """The SSRC that carries the source ``name``; the one received last where there are several."""
        found = self._by_name.get(name, {})
        heard = [ssrc for ssrc in found if ssrc in self._sources]
        return max(heard or found, key=self._last, default=None)

    def _last(self, ssrc: int) -> float:
        source = self._sources.get(ssrc)
        return source.stats.last if source else 0.0

    def snapshot(self, now: float) -> tuple[RemoteStream, ...]:
        """What was received of each source, in the order they were first heard."""
        return tuple(
            source.view(self._names.get(ssrc), self._started, now)
            for ssrc, source in self._sources.items()
            if not source.gone
        )
