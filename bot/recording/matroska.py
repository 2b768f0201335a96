"""Matroska and WebM (RFC 9559) for recordings that may be cut off at any byte. Pure, but for ``repair``.

FFmpeg's muxer (PyAV) writes whole clusters, too. It is not used: what a crash or a full disk leaves has to be made
good in place, without room for a copy, and what does that is all that a writer needs. PyAV reads them in tests.

A file: header with reserved space; clusters of a second, each whole and with a checksum; at the end cues and tags.
Then the reserved space is filled: duration, where cues are, and last the size of the segment, which says that all
is there. A file without is cut off: ``repair`` finds its last whole cluster and writes the same end.
"""

from __future__ import annotations

import os
import struct
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import BinaryIO, Literal, NamedTuple

from bot import __version__
from bot.recording import ebml
from bot.recording.ebml import EbmlError, Element

_EBML, _SEGMENT, _SEEK_HEAD, _INFO, _TRACKS = 0x1A45DFA3, 0x18538067, 0x114D9B74, 0x1549A966, 0x1654AE6B
_CLUSTER, _CUES, _TAGS = 0x1F43B675, 0x1C53BB6B, 0x1254C367
_DURATION, _TIMESTAMP, _SIMPLE_BLOCK, _TRACK_TYPE, _TRACK_NUMBER = 0x4489, 0xE7, 0xA3, 0x83, 0xD7
_TRACK_ENTRY, _WRITING_APP = 0xAE, 0x5741

#: Media of one cluster in milliseconds, and bytes of it; what comes after is another's.
CLUSTER_MS = 1000
CLUSTER_BYTES = 4 * 1024 * 1024
#: One cue each so many milliseconds of sound; pictures have one for each cluster with a key frame.
SOUND_CUES_MS = 10_000
#: Largest head of a file that is looked for when one is repaired.
MAX_HEAD = 64 * 1024

_SEEK_SPACE = 128
_DURATION_SPACE = 11
_PROGRAM = f"jitsi-bot {__version__}"
_VIDEO, _AUDIO = 1, 2
#: Codec ids (RFC 9559 section 12, and codec mappings of the Matroska project).
_CODEC_IDS = {"vp8": "V_VP8", "vp9": "V_VP9", "h264": "V_MPEG4/ISO/AVC", "av1": "V_AV1", "opus": "A_OPUS"}
#: What opus decoders throw away after a seek in nanoseconds: 80 ms (RFC 7845 section 4.6).
_OPUS_PRE_ROLL = 80_000_000


@dataclass(frozen=True, slots=True)
class TrackFormat:
    """One track. ``codec`` is vp8, vp9, h264, av1 or opus; ``private`` is avcC, av1C or OpusHead.

    ``width`` and ``height`` in pixels, ``channels`` of sound.
    """

    codec: str
    width: int = 0
    height: int = 0
    channels: int = 2
    private: bytes = b""

    @property
    def video(self) -> bool:
        """Whether it is a picture."""
        return self.codec != "opus"


def suffix_of(tracks: Sequence[TrackFormat]) -> str:
    """What files of these tracks are called: WebM has no H264."""
    return ".mkv" if any(track.codec == "h264" for track in tracks) else ".webm"


class Ending(NamedTuple):
    """What ends a file: bytes to append, then bytes to put at offsets, in this order."""

    append: bytes
    patches: tuple[tuple[int, bytes], ...]


class _Index:
    """What the end of a file says: cues, and how long the file is. Times in milliseconds."""

    def __init__(self, video: frozenset[int]) -> None:
        self._video = video
        self._cues: list[tuple[int, int, int]] = []
        self._last: dict[int, int] = {}
        self._end = 0
        self._next_sound = 0

    @property
    def duration(self) -> int:
        return self._end

    def last(self, track: int) -> int | None:
        return self._last.get(track)

    def block(self, track: int, when: int, *, key: bool, cluster: int) -> None:
        """Note a frame in the cluster at ``cluster`` (from the start of the segment's data)."""
        before = self._last.get(track)
        self._last[track] = when
        # The last frame is taken to be as long as the one before, 100 ms at most.
        self._end = max(self._end, when + (min(when - before, 100) if before is not None else 0))
        if self._cues and self._cues[-1][2] == cluster:
            return
        if track in self._video and key:
            self._cues.append((when, track, cluster))
        elif not self._video and when >= self._next_sound:
            self._next_sound = when + SOUND_CUES_MS
            self._cues.append((when, track, cluster))

    def ending(self, layout: _Layout, size: int, *, recovered: bool) -> Ending:
        """The end of a file of ``size`` bytes."""
        cues = self._cue_element() if self._cues else b""
        places = [(_INFO, layout.info), (_TRACKS, layout.tracks)]
        places += [(_CUES, size)] if cues else []
        append = cues
        if recovered:
            places.append((_TAGS, size + len(cues)))
            append += _tags({"RECOVERED": "1"})
        head = _seek_head([(number, at - layout.data) for number, at in places])
        return Ending(
            append,
            (
                (layout.seek, head + ebml.void(_SEEK_SPACE - len(head))),
                (layout.duration, ebml.real(_DURATION, float(self._end))),
                (layout.data - 8, ebml.size(size + len(append) - layout.data, 8)),
            ),
        )

    def _cue_element(self) -> bytes:
        return ebml.element(
            _CUES,
            b"".join(
                ebml.element(
                    0xBB,  # CuePoint: CueTime, CueTrackPositions
                    ebml.unsigned(0xB3, when)
                    + ebml.element(0xB7, ebml.unsigned(0xF7, track) + ebml.unsigned(0xF1, cluster)),
                )
                for when, track, cluster in self._cues
            ),
        )


class _Layout(NamedTuple):
    """Offsets in a file: the segment's data, the reserved spaces, and the elements that a reader looks for."""

    data: int
    seek: int
    info: int
    duration: int
    tracks: int
    end: int


class Muxer:
    """One file. ``header`` comes first, then what ``add`` and ``flush`` return, then ``ending``.

    ``started`` is the wall-clock time of its time stamp 0, ``title`` what players show.
    """

    def __init__(self, tracks: Sequence[TrackFormat], *, started: datetime, title: str = "") -> None:
        self.tracks = tuple(tracks)
        self.header = _header(self.tracks, started, title)
        self._layout = _read_layout(self.header)
        video = frozenset(number for number, track in enumerate(self.tracks, 1) if track.video)
        self._index = _Index(video)
        #: Bytes that were handed out so far.
        self.size = len(self.header)
        self._begin: int | None = None
        self._blocks: list[bytes] = []
        self._waiting = 0

    def __repr__(self) -> str:
        return f"<Muxer {'+'.join(track.codec for track in self.tracks)} {self.size} bytes>"

    @property
    def duration(self) -> int:
        """Milliseconds of media so far."""
        return self._index.duration

    def add(self, track: int, when: int, data: bytes, *, key: bool) -> bytes:
        """Take one frame of the ``track``-th track (from 1) at ``when`` ms; returns a cluster that is full.

        Raises ValueError for a time before the track's last one: whoever has the clock has the order, too.
        """
        if when < (self._index.last(track) or 0):
            raise ValueError(f"frame at {when} ms comes after one at {self._index.last(track)} ms")
        done = b""
        if self._begin is not None and not 0 <= when - self._begin < CLUSTER_MS:
            done = self.flush()
        if self._begin is None:
            self._begin = when
        self._index.block(track, when, key=key, cluster=self.size - self._layout.data)
        head = bytes((0x80 | track,)) + (when - self._begin).to_bytes(2, "big") + (b"\x80" if key else b"\0")
        self._blocks.append(ebml.element(_SIMPLE_BLOCK, head + data))
        self._waiting += len(data)
        return done + self.flush() if self._waiting >= CLUSTER_BYTES else done

    def flush(self) -> bytes:
        """The cluster that is open, whole; empty where there is none."""
        if self._begin is None:
            return b""
        cluster = ebml.checked(_CLUSTER, ebml.unsigned(_TIMESTAMP, self._begin) + b"".join(self._blocks))
        self._begin = None
        self._blocks.clear()
        self._waiting = 0
        self.size += len(cluster)
        return cluster

    def ending(self) -> Ending:
        """What makes the file whole, after the last ``flush``."""
        return self._index.ending(self._layout, self.size, recovered=False)


# --- the head of a file ----------------------------------------------------------------------------------


def _document(doc_type: str) -> bytes:
    return ebml.element(
        _EBML,
        ebml.unsigned(0x4286, 1)  # EBMLVersion, EBMLReadVersion, EBMLMaxIDLength, EBMLMaxSizeLength
        + ebml.unsigned(0x42F7, 1)
        + ebml.unsigned(0x42F2, 4)
        + ebml.unsigned(0x42F3, 8)
        + ebml.text(0x4282, doc_type)
        + ebml.unsigned(0x4287, 4)  # DocTypeVersion, DocTypeReadVersion: SimpleBlock is of version 2
        + ebml.unsigned(0x4285, 2),
    )


def _header(tracks: Sequence[TrackFormat], started: datetime, title: str) -> bytes:
    entries = b"".join(_track_entry(number, track) for number, track in enumerate(tracks, 1))
    return (
        _document("matroska" if suffix_of(tracks) == ".mkv" else "webm")
        + ebml.element_id(_SEGMENT)
        + ebml.size(ebml.UNKNOWN_SIZE, 8)
        + ebml.void(_SEEK_SPACE)
        + ebml.element(_INFO, _info(started, title))
        + ebml.element(_TRACKS, entries)
    )


def _info(started: datetime, title: str) -> bytes:
    since = started - datetime(2001, 1, 1, tzinfo=UTC)  # the epoch of EBML's dates
    return (
        ebml.unsigned(0x2AD7B1, 1_000_000)  # TimestampScale: milliseconds
        + ebml.signed(0x4461, (since.days * 86_400 + since.seconds) * 1_000_000_000 + since.microseconds * 1000)
        + (ebml.text(0x7BA9, title) if title else b"")
        + ebml.text(0x4D80, _PROGRAM)  # MuxingApp
        + ebml.text(_WRITING_APP, _PROGRAM)
        + ebml.void(_DURATION_SPACE)
    )


def _track_entry(number: int, track: TrackFormat) -> bytes:
    entry = (
        ebml.unsigned(_TRACK_NUMBER, number)
        + ebml.unsigned(0x73C5, number)  # TrackUID
        + ebml.unsigned(_TRACK_TYPE, _VIDEO if track.video else _AUDIO)
        + ebml.unsigned(0x9C, 0)  # FlagLacing
        + ebml.text(0x22B59C, "und")  # Language
        + ebml.text(0x86, _CODEC_IDS[track.codec])
    )
    private = track.private or (opus_head(track.channels) if track.codec == "opus" else b"")
    if private:
        entry += ebml.element(0x63A2, private)
    if track.video:
        picture = ebml.unsigned(0xB0, track.width) + ebml.unsigned(0xBA, track.height)
        return ebml.element(_TRACK_ENTRY, entry + ebml.element(0xE0, picture))
    entry += ebml.unsigned(0x56BB, _OPUS_PRE_ROLL)  # SeekPreRoll
    sound = ebml.real(0xB5, 48_000.0) + ebml.unsigned(0x9F, track.channels)
    return ebml.element(_TRACK_ENTRY, entry + ebml.element(0xE1, sound))


def opus_head(channels: int) -> bytes:
    """The identification header of opus (RFC 7845 section 5.1), without samples to skip."""
    return b"OpusHead" + bytes((1, channels, 0, 0)) + (48_000).to_bytes(4, "little") + bytes(3)


def _seek_head(places: Sequence[tuple[int, int]]) -> bytes:
    return ebml.element(
        _SEEK_HEAD,
        b"".join(
            ebml.element(0x4DBB, ebml.element(0x53AB, ebml.element_id(number)) + ebml.unsigned(0x53AC, at))
            for number, at in places
        ),
    )


def _tags(values: dict[str, str]) -> bytes:
    simple = b"".join(
        ebml.element(0x67C8, ebml.text(0x45A3, name) + ebml.text(0x4487, value)) for name, value in values.items()
    )
    return ebml.element(_TAGS, ebml.element(0x7373, ebml.element(0x63C0, b"") + simple))


def _read_layout(head: bytes) -> _Layout:
    """Where everything is in a file of ours that begins with ``head``. Raises EbmlError."""
    first = ebml.parse_element(head, 0)
    if first.id != _EBML or first.end is None:
        raise EbmlError("no Matroska file")
    segment = ebml.parse_element(head, first.end)
    if segment.id != _SEGMENT or segment.data - segment.start != 12:
        raise EbmlError("no segment as this program writes it")
    found: dict[int, Element] = {}
    at = segment.data
    while _TRACKS not in found:
        item = ebml.parse_element(head, at)
        if item.end is None or item.end > len(head):
            raise EbmlError("the head of the file is cut off")
        if at == segment.data and item.id not in (ebml.VOID, _SEEK_HEAD):
            raise EbmlError("no space was reserved by this program")
        found[item.id] = item
        at = item.end
    info, tracks = found.get(_INFO), found[_TRACKS]
    if info is None or info.end is None:
        raise EbmlError("the file has no info")
    return _Layout(segment.data, segment.data, info.start, info.end - _DURATION_SPACE, tracks.start, at)


# --- files that were cut off -----------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Repair:
    """What was done to a file. ``duration`` in milliseconds, ``dropped`` the bytes behind the last whole cluster.

    ``whole`` needed nothing; ``empty`` has no cluster, or not even a head: nothing of it can be played.
    """

    outcome: Literal["whole", "recovered", "empty"]
    duration: int = 0
    dropped: int = 0


def repair(path: Path) -> Repair:
    """Make a file of this program whole that may have been cut off anywhere. What was whole stays as it is.

    Raises EbmlError for what is no file of ours, OSError where it can't be written.
    """
    with path.open("r+b") as file:
        size = file.seek(0, os.SEEK_END)
        file.seek(0)
        head = file.read(MAX_HEAD)
        try:
            layout = _read_layout(head)
        except EbmlError:
            if not _begins_as_ours(head) or size >= MAX_HEAD:
                raise
            return Repair("empty", dropped=size)
        if ebml.parse_element(head, layout.data - 12).end == size:
            return Repair("whole", _told_duration(head, layout))
        return _finish(file, layout, head, size)


def _begins_as_ours(head: bytes) -> bool:
    """Whether a short file is the beginning of one of ours, empty ones included."""
    begins = [_document(doc_type)[: len(head)] for doc_type in ("webm", "matroska")]
    return any(head.startswith(begin) for begin in begins)


def _told_duration(head: bytes, layout: _Layout) -> int:
    return int(struct.unpack_from("!d", head, layout.duration + 3)[0])


def _finish(file: BinaryIO, layout: _Layout, head: bytes, size: int) -> Repair:
    """Find the last whole cluster, cut what is behind it, and write the end."""
    index = _Index(_video_tracks(head, layout))
    end = layout.end
    while (found := _next_cluster(file, end)) is not None:
        cluster, data = found
        try:
            _read_cluster(index, data, cluster.start - layout.data)
        except EbmlError:
            break
        assert cluster.end is not None
        end = cluster.end
    if end == layout.end:
        return Repair("empty", dropped=size - end)
    ending = index.ending(layout, end, recovered=True)
    file.truncate(end)
    write_ending(file, end, ending)
    return Repair("recovered", index.duration, size - end)


def _video_tracks(head: bytes, layout: _Layout) -> frozenset[int]:
    tracks = ebml.parse_element(head, layout.tracks)
    assert tracks.end is not None
    found = set()
    for entry in ebml.children(head, tracks.data, tracks.end):
        assert entry.end is not None
        values = {
            item.id: int.from_bytes(head[item.data : item.end], "big")
            for item in ebml.children(head, entry.data, entry.end)
        }
        if values.get(_TRACK_TYPE) == _VIDEO:
            found.add(values.get(_TRACK_NUMBER, 0))
    return frozenset(found)


def _next_cluster(file: BinaryIO, at: int) -> tuple[Element, bytes] | None:
    """The cluster at ``at`` with its data; None where there is none, or no whole one."""
    file.seek(at)
    head = file.read(12)
    try:
        found = ebml.parse_element(head, 0)
    except EbmlError:
        return None
    # The largest cluster is one frame beyond the limit: what claims to be larger is none of ours.
    if found.id != _CLUSTER or found.end is None or found.end > 8 * CLUSTER_BYTES:
        return None
    file.seek(at + found.data)
    data = file.read(found.end - found.data)
    if len(data) < found.end - found.data or not ebml.is_whole(data):
        return None
    return Element(found.id, at, at + found.data, at + found.end), data


def _read_cluster(index: _Index, data: bytes, position: int) -> None:
    begin = 0
    blocks = []
    for item in ebml.children(data, 0, len(data)):
        if item.id == _TIMESTAMP:
            begin = int.from_bytes(data[item.data : item.end], "big")
        elif item.id == _SIMPLE_BLOCK:
            if item.data + 4 > len(data):
                raise EbmlError("a block has no head")
            blocks.append((data[item.data] & 0x7F, data[item.data + 1 : item.data + 4]))
    for track, head in blocks:
        when = begin + int.from_bytes(head[:2], "big", signed=True)
        index.block(track, when, key=bool(head[2] & 0x80), cluster=position)


def write_ending(file: BinaryIO, size: int, ending: Ending) -> None:
    """Write the end of a file of ``size`` bytes to the disk; what says that it is whole comes last."""
    file.seek(size)
    write_all(file, ending.append)
    for at, data in ending.patches[:-1]:
        file.seek(at)
        write_all(file, data)
    _sync(file)
    at, data = ending.patches[-1]
    file.seek(at)
    write_all(file, data)
    file.flush()


def write_all(file: BinaryIO, data: bytes) -> None:
    """Write everything: a disk that fills up takes a part of it first. Raises OSError."""
    view = memoryview(data)
    while view:
        view = view[file.write(view) :]


def _sync(file: BinaryIO) -> None:
    file.flush()
    os.fsync(file.fileno())
