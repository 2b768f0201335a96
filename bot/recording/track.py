"""One source of a participant in files: a segment each, begun and ended as the source does. Pure."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime, timedelta

from bot.bridge.frames import EncodedFrame
from bot.recording.codecs import format_of, stored
from bot.recording.depacket import Received
from bot.recording.disk import Append, Finish, Open, Order
from bot.recording.manifest import CONTINUED, Cause, Gap, Segment, SourceEntry
from bot.recording.matroska import Muxer, TrackFormat, suffix_of

#: A cluster is given to the disk when it is this old (seconds), full or not.
CLUSTER_AGE = 1.0
#: A clock that goes back further (seconds) begins another segment; less is held.
BACKWARDS = 1.0
#: A longer time (seconds) between two frames is a gap, though nothing was lost: senders of sound with pauses send
#: something each 400 ms, but bridges forward the loudest alone, and pictures as the way to us is wide enough.
PAUSE = 2.0
#: Gaps of one source that are listed; further ones lengthen the last.
MAX_GAPS = 10_000


@dataclass(frozen=True, slots=True)
class Rotation:
    """When a file is long or large enough: seconds and bytes, 0 for never."""

    seconds: float = 0.0
    size: int = 0

    def due(self, length: float, octets: int) -> bool:
        """Whether a file of that length and size is."""
        return bool((self.seconds and length >= self.seconds) or (self.size and octets >= self.size))


#: One file for as long as the source goes on.
NEVER = Rotation()


class _File:
    """The segment that is being written."""

    def __init__(self, segment: Segment, format_: TrackFormat, muxer: Muxer) -> None:
        self.segment = segment
        self.format = format_
        self.muxer = muxer
        self.last = 0
        self.since: float | None = None


class TrackRecorder:
    """Gives the disk orders for one source; ``entry`` of the manifest is kept up to date.

    ``name_file(suffix)`` gives each segment's file its name. Times are seconds since the recording began, at
    ``started`` on the wall clock.
    """

    def __init__(
        self,
        entry: SourceEntry,
        *,
        name_file: Callable[[str], str],
        started: datetime,
        title: str = "",
        rotation: Rotation = NEVER,
    ) -> None:
        self.entry = entry
        self.title = title
        self._name_file = name_file
        self._started = started
        self._rotation = rotation
        self._file: _File | None = None
        #: When the newest frame was captured, and when it came; None before the first.
        self.last: float | None = None
        self.heard: float | None = None
        #: Frames that could not be stored: broken ones.
        self.broken = 0

    def __repr__(self) -> str:
        return f"<TrackRecorder {self.entry.name} {len(self.entry.segments)} segments>"

    @property
    def recording(self) -> bool:
        """Whether a segment is being written."""
        return self._file is not None

    @property
    def wants_key_frame(self) -> bool:
        """Whether the next key frame would begin another file that is due."""
        file = self._file
        return file is not None and file.format.video and self._rotates(file)

    def frame(self, codec: str, received: Received, at: float, now: float) -> list[Order]:
        """Take a frame that was captured at ``at`` and came at ``now``; returns what the disk has to do."""
        frame = received.frame
        try:
            format_ = format_of(codec, frame) if frame.key else None
            data = stored(codec, frame)
        except ValueError:
            self.broken += 1
            return []
        if self._file is None and format_ is None:
            return []
        at = max(0.0, at)
        orders = self._before(format_, at)
        if self._file is not None and self.last is not None:
            if received.lost:
                self._gap(self.last, at, "loss")
            elif at - self.last > PAUSE:
                self._gap(self.last, at, "silent")
        if self._file is None:
            assert format_ is not None
            orders += self._open(format_, at)
        return orders + self._add(frame, data, at, now)

    def flush(self, now: float) -> list[Order]:
        """Give the disk a cluster that is old enough at ``now``."""
        file = self._file
        if file is None or file.since is None or now - file.since < CLUSTER_AGE:
            return []
        return self._appended(file, file.muxer.flush())

    def end(self, cause: Cause) -> list[Order]:
        """End the segment; nothing happens without one."""
        file, self._file = self._file, None
        if file is None:
            return []
        orders = self._appended(file, file.muxer.flush())
        file.segment.ended = cause
        return [*orders, Finish(file.segment.file, file.muxer.size, file.muxer.ending())]

    def failed(self, name: str) -> None:
        """The file ``name`` can't be written; the next frame begins another one."""
        if self._file is not None and self._file.segment.file == name:
            self._file.segment.ended = "disk"
            self._file = None

    def _before(self, format_: TrackFormat | None, at: float) -> list[Order]:
        """End the segment where this frame can't be of it."""
        file = self._file
        if file is None:
            return []
        if format_ is not None and format_ != file.format:
            return self.end("format")
        if format_ is not None and self._rotates(file):
            return self.end("rotation")
        if format_ is not None and self.last is not None and self.last - at > BACKWARDS:
            return self.end("clock")
        return []

    def _rotates(self, file: _File) -> bool:
        return self._rotation.due(file.segment.end - file.segment.start, file.muxer.size)

    def _open(self, format_: TrackFormat, at: float) -> list[Order]:
        entry = self.entry
        if entry.segments:
            before = entry.segments[-1]
            if before.ended is not None and before.ended not in CONTINUED and at > before.end:
                self._gap(before.end, at, before.ended)
        muxer = Muxer([format_], started=self._started + timedelta(seconds=at), title=self.title)
        segment = Segment(
            file=self._name_file(suffix_of([format_])),
            codec=format_.codec,
            width=format_.width or None,
            height=format_.height or None,
            start=round(at, 3),
            end=round(at, 3),
            bytes=muxer.size,
        )
        entry.segments.append(segment)
        self._file = _File(segment, format_, muxer)
        return [Open(segment.file, muxer.header)]

    def _add(self, frame: EncodedFrame, data: bytes, at: float, now: float) -> list[Order]:
        file = self._file
        assert file is not None
        when = max(file.last, round((at - file.segment.start) * 1000))
        cluster = file.muxer.add(1, when, data, key=frame.key)
        file.last = when
        self.last, self.heard = at, now
        if cluster:
            orders = self._appended(file, cluster)
            file.since = now
        else:
            orders = []
            file.since = now if file.since is None else file.since
        segment = file.segment
        segment.frames += 1
        segment.end = round(segment.start + max(when, file.muxer.duration) / 1000, 3)
        return orders

    @staticmethod
    def _appended(file: _File, cluster: bytes) -> list[Order]:
        file.since = None
        file.segment.bytes = file.muxer.size
        return [Append(file.segment.file, cluster)] if cluster else []

    def _gap(self, start: float, end: float, cause: Cause) -> None:
        gaps = self.entry.gaps
        if len(gaps) >= MAX_GAPS:
            gaps[-1].end = round(end, 3)
        else:
            gaps.append(Gap(start=round(start, 3), end=round(end, 3), cause=cause))
