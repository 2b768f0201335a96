"""A recording of one meeting: packets and events in, orders for the disk out. Pure: time is a parameter.

``now`` is our monotonic clock in seconds everywhere; what the manifest says is in seconds since ``begin``.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from datetime import datetime
from math import inf
from typing import Protocol

from bot import __version__
from bot.bridge.payloads import PayloadFormat
from bot.bridge.rtcp import SenderReport
from bot.bridge.rtp import RtpHeader, audio_level, is_padding_only
from bot.bridge.streams import NamedSource
from bot.recording.clock import MeetingClock
from bot.recording.depacket import Depacketizer, Received
from bot.recording.disk import Order, Replace
from bot.recording.manifest import (
    MANIFEST,
    SPEAKERS,
    Cause,
    ChatLine,
    Manifest,
    Note,
    ParticipantEntry,
    SourceEntry,
    Span,
    Speaker,
    web_vtt,
)
from bot.recording.names import segment_file
from bot.recording.talk import TalkMeter, talk_time
from bot.recording.track import NEVER, Rotation, TrackRecorder

#: The manifest is written so often (seconds) while something changes.
MANIFEST_INTERVAL = 1.0
#: A picture of which nothing comes for so long (seconds) has its segment ended.
SILENCE = 10.0
#: The level of digital silence (RFC 6464).
SILENT = 127
#: What ended so short a time (seconds) before its owner left ended as the owner left.
MOMENT = 5.0
#: Lines of chat, speakers and notes that are kept; a hostile room must not fill the memory.
MAX_LINES = 20_000
#: Streams of one media session that are put together.
MAX_STREAMS = 1024
#: Owner of the bridge's own sources, which carry nothing.
_BRIDGE = "jvb"


class Requests(Protocol):
    """What a media session is asked for."""

    def want_key_frame(self, ssrc: int, now: float) -> None:
        """Ask for a key frame of ``ssrc`` until it comes."""
        ...

    def got_key_frame(self, ssrc: int) -> None:
        """It came."""
        ...


@dataclass(slots=True)
class _Stream:
    """One SSRC while it carries one source."""

    packets: Depacketizer
    track: TrackRecorder
    owner: str
    stamp: int | None = None
    asked: bool = False
    silent: bool = False


class RecordingSession:
    """Everything that a meeting's recording knows. Methods that have something for the disk return it.

    ``room`` and ``started`` (wall clock) are for the manifest; nothing is taken before ``begin``. ``video`` off
    leaves the pictures out, from the start or later (``drop_video``).
    """

    def __init__(
        self,
        room: str,
        *,
        started: datetime,
        video: bool = True,
        rotation: Rotation = NEVER,
        requests: Callable[[], Requests | None] = lambda: None,
    ) -> None:
        self.manifest = Manifest(program=f"jitsi-bot {__version__}", room=room, started=started)
        self.clock = MeetingClock()
        self.video = video
        self._started = started
        self._rotation = rotation
        self._requests = requests
        self._began: float | None = None
        self._ended = False
        self._streams: dict[int, _Stream] = {}
        self._tracks: dict[str, TrackRecorder] = {}
        self._stream_of: dict[str, int] = {}
        self._meters: dict[str, TalkMeter] = {}
        self._muted: set[str] = set()
        self._dirty = True
        self._write_at = -inf
        self._vtt = b""
        #: When the last packet of media came, None before the first.
        self.heard: float | None = None

    def __repr__(self) -> str:
        return f"<RecordingSession {self.manifest.room} {len(self._streams)} streams>"

    @property
    def active(self) -> bool:
        """Whether anything is recorded now."""
        return self._began is not None and not self._ended

    @property
    def begun(self) -> bool:
        """Whether anything was ever recorded, or would have been."""
        return self._began is not None

    @property
    def ended(self) -> bool:
        """Whether it was ended, begun or not."""
        return self._ended

    @property
    def size(self) -> int:
        """Bytes of all files so far."""
        return sum(item.bytes for item in self.manifest.segments())

    def at(self, now: float) -> float:
        """Seconds since the recording began."""
        return 0.0 if self._began is None else max(0.0, now - self._began)

    def begin(self, now: float, started: datetime) -> None:
        """Record from now on; ``started`` is the same moment on the wall clock."""
        self._began = now
        self._started = self.manifest.started = started
        self._dirty = True

    # --- media -----------------------------------------------------------------------------------------------

    def packet(
        self, named: NamedSource | None, format_: PayloadFormat, header: RtpHeader, data: bytes, now: float
    ) -> list[Order]:
        """Take one unprotected packet of media of a source, also one that repairs."""
        if not self.active or named is None or named.owner == _BRIDGE or is_padding_only(data, header):
            return []
        if format_.media == "video" and not self.video:
            return []
        self.heard = now
        stream = self._streams.get(header.ssrc)
        if stream is None or stream.packets.format is not format_:
            stream = self._new_stream(named, format_, header.ssrc)
            if stream is None:
                return []
        if header.timestamp != stream.stamp:
            stream.stamp = header.timestamp
            self.clock.packet(header.ssrc, stream.owner, format_.clock_rate, header.timestamp, now)
        if format_.audio_level is not None:
            self._level(stream, header, data, format_.audio_level, now)
        return self._frames(header.ssrc, stream, stream.packets.feed(header, data, now), now)

    def report(self, report: SenderReport, now: float) -> None:
        """Take a sender report."""
        if self.active:
            self.clock.report(report.ssrc, report.ntp, report.timestamp, now)

    def _new_stream(self, named: NamedSource, format_: PayloadFormat, ssrc: int) -> _Stream | None:
        endpoint = endpoint_of(named)
        if endpoint is None or (len(self._streams) >= MAX_STREAMS and ssrc not in self._streams):
            return None
        name = named.name or f"{endpoint}-{format_.media[0]}0"
        track = self._track(name, endpoint, format_, named.video_type)
        before = self._streams.get(ssrc)
        if before is None or before.track is not track:
            self.clock.forget(ssrc)
        stream = self._streams[ssrc] = _Stream(Depacketizer(format_), track, endpoint)
        return stream

    def _track(self, name: str, endpoint: str, format_: PayloadFormat, video_type: str | None) -> TrackRecorder:
        if (found := self._tracks.get(name)) is not None:
            return found
        who = self.manifest.participant(endpoint)
        entry = SourceEntry(name=name, media=format_.media, video_type=video_type)
        who.sources.append(entry)
        track = self._tracks[name] = TrackRecorder(
            entry,
            name_file=lambda suffix: segment_file(who.name or endpoint, name, len(entry.segments) + 1, suffix),
            started=self._started,
            title=f"{who.name or endpoint} {name}",
            rotation=self._rotation,
        )
        if format_.media == "audio":
            self._meters[name] = TalkMeter(who.talking)
        return track

    def _level(self, stream: _Stream, header: RtpHeader, data: bytes, extension: int, now: float) -> None:
        level = audio_level(data, header, extension)
        stream.silent = level == SILENT
        meter = self._meters.get(stream.track.entry.name)
        if level is not None and meter is not None:
            before = meter.talking
            meter.feed(level, self.at(now))
            self._dirty = self._dirty or before != meter.talking

    def _frames(self, ssrc: int, stream: _Stream, frames: Iterable[Received], now: float) -> list[Order]:
        orders: list[Order] = []
        for received in frames:
            if stream.silent and stream.track.entry.name in self._muted:
                continue  # senders go on with silence for a moment, or for as long as they are muted
            orders += self._turned(ssrc, stream)
            when = self.clock.time(ssrc, received.frame.timestamp) - (self._began or 0.0)
            orders += stream.track.frame(stream.packets.format.codec, received, when, now)
            if received.frame.key and stream.asked:
                stream.asked = False
                if (requests := self._requests()) is not None:
                    requests.got_key_frame(ssrc)
        self._ask(ssrc, stream, now)
        self._dirty = self._dirty or bool(orders)
        return orders

    def _turned(self, ssrc: int, stream: _Stream) -> list[Order]:
        """The source comes on another SSRC now: its old one is of another encoder state."""
        name = stream.track.entry.name
        before = self._stream_of.get(name)
        self._stream_of[name] = ssrc
        if before is None or before == ssrc:
            return []
        self._streams.pop(before, None)
        return stream.track.end("moved")

    def _ask(self, ssrc: int, stream: _Stream, now: float) -> None:
        """Ask for a key frame where nothing goes on without one, or a file is full."""
        if stream.packets.format.media != "video":
            return
        wanted = stream.packets.needs_key_frame or stream.track.wants_key_frame or not stream.track.recording
        requests = self._requests()
        if wanted and not stream.asked and requests is not None:
            stream.asked = True
            requests.want_key_frame(ssrc, now)

    # --- what ends segments ----------------------------------------------------------------------------------

    def moved(self, ssrcs: Iterable[int], cause: Cause = "moved") -> list[Order]:
        """These SSRCs carry another source from now on, or none."""
        orders: list[Order] = []
        for ssrc in ssrcs:
            stream = self._streams.pop(ssrc, None)
            self.clock.forget(ssrc)
            if stream is not None and self._stream_of.get(stream.track.entry.name) == ssrc:
                del self._stream_of[stream.track.entry.name]
                orders += self._end(stream.track, cause)
        return orders

    def session_lost(self) -> list[Order]:
        """The media session is over; another one has other SSRCs."""
        self._streams.clear()
        self._stream_of.clear()
        self.clock = MeetingClock()
        return [order for track in self._tracks.values() for order in self._end(track, "reconnect")]

    def mute(self, name: str, *, muted: bool) -> list[Order]:
        """The owner of a source muted it, or unmuted it."""
        if not muted:
            self._muted.discard(name)
            return []
        if name in self._muted:
            return []
        self._muted.add(name)
        track = self._tracks.get(name)
        return self._end(track, "muted") if track is not None else []

    @property
    def muted(self) -> frozenset[str]:
        """Names of the sources that are muted."""
        return frozenset(self._muted)

    def drop_video(self) -> list[Order]:
        """Record sound alone from now on, as the disk has no room for more."""
        self.video = False
        return [
            order
            for track in self._tracks.values()
            if track.entry.media == "video"
            for order in self._end(track, "disk")
        ]

    def failed(self, name: str) -> None:
        """A media file could not be written."""
        for track in self._tracks.values():
            track.failed(name)
        self._dirty = True

    def end(self, cause: str, now: float) -> list[Order]:
        """End the recording: all files whole, and the last manifest. May be called twice."""
        if self._ended:
            return []
        reason: Cause = "disk" if cause == "disk" else "end"
        orders = [order for track in self._tracks.values() for order in self._end(track, reason)]
        for who in self.manifest.participants:
            _leave(who, self.at(now))
        self.manifest.state = "finished"
        self.manifest.end_cause = cause
        self._ended = True
        self._dirty = True
        return orders + self._written(now)

    def _end(self, track: TrackRecorder, cause: Cause) -> list[Order]:
        if (meter := self._meters.get(track.entry.name)) is not None:
            meter.end()
        orders = track.end(cause)
        self._dirty = self._dirty or bool(orders)
        return orders

    # --- the room --------------------------------------------------------------------------------------------

    def joined(self, endpoint: str, name: str, now: float) -> None:
        """Somebody is in the room, or has another name."""
        who = self.manifest.participant(endpoint)
        who.name = name or who.name
        if not who.present or who.present[-1].end is not None:
            who.present.append(Span(start=round(self.at(now), 3)))
        self._dirty = True

    def left(self, endpoint: str, now: float) -> list[Order]:
        """Somebody left."""
        who = self.manifest.participant(endpoint)
        _leave(who, self.at(now))
        self._dirty = True
        names = [source.name for source in who.sources]
        self._muted.difference_update(names)
        orders: list[Order] = []
        for name in names:
            self._streams.pop(self._stream_of.pop(name, -1), None)
            orders += self._end(self._tracks[name], "left") if name in self._tracks else []
        for source in who.sources:
            # The focus takes the sources of one who leaves away, a moment before or after the room tells.
            last = source.segments[-1] if source.segments else None
            if last is not None and last.ended == "removed" and self.at(now) - last.end < MOMENT:
                last.ended = "left"
        return orders

    def speaker(self, endpoint: str, now: float) -> None:
        """The bridge named another dominant speaker."""
        if len(self.manifest.dominant_speakers) < MAX_LINES:
            self.manifest.dominant_speakers.append(Speaker(at=round(self.at(now), 3), endpoint=endpoint))
            self._dirty = True

    def chat(self, endpoint: str, name: str, text: str, now: float) -> None:
        """Somebody wrote to all."""
        if self.active and len(self.manifest.chat) < MAX_LINES:
            self.manifest.chat.append(ChatLine(at=round(self.at(now), 3), endpoint=endpoint, name=name, text=text))
            self._dirty = True

    def note(self, event: str, text: str, now: float) -> None:
        """Something happened to the recording itself."""
        if len(self.manifest.notes) < MAX_LINES:
            self.manifest.notes.append(Note(at=round(self.at(now), 3), event=event, text=text))
            self._dirty = True

    # --- time ------------------------------------------------------------------------------------------------

    def tick(self, now: float) -> list[Order]:
        """What is due: holes given up, clusters, silent segments, the manifest. Call it four times a second."""
        if not self.active:
            return []
        orders: list[Order] = []
        for ssrc, stream in list(self._streams.items()):
            if stream.packets.next_deadline() <= now:
                orders += self._frames(ssrc, stream, stream.packets.expire(now), now)
        for name, track in self._tracks.items():
            orders += track.flush(now)
            video = track.entry.media == "video"  # sound comes and goes with who speaks
            if video and track.recording and track.heard is not None and now - track.heard > SILENCE:
                orders += self._end(track, "silent")
            if (meter := self._meters.get(name)) is not None:
                meter.expire(self.at(now))
        return orders + self._written(now)

    def _written(self, now: float) -> list[Order]:
        if now < self._write_at and not self._ended:
            return []
        if not self._dirty:
            return []
        self._dirty = False
        self._write_at = now + MANIFEST_INTERVAL
        manifest = self.manifest
        manifest.duration = round(self.at(now), 3)
        for who in manifest.participants:
            who.talk_time = talk_time(who.talking, self.at(now))
        orders: list[Order] = [Replace(MANIFEST, manifest.to_json(), last=self._ended)]
        vtt = web_vtt(manifest)
        if vtt != self._vtt:
            self._vtt = vtt
            orders.append(Replace(SPEAKERS, vtt, last=self._ended))
        return orders


def endpoint_of(named: NamedSource) -> str | None:
    """Whose a source is: its owner, an endpoint id or an address in the room, or who its name says."""
    owner = named.owner.rpartition("/")[2] if named.owner else ""
    return owner or (named.name or "").rpartition("-")[0] or None


def _leave(who: ParticipantEntry, at: float) -> None:
    if who.present and who.present[-1].end is None:
        who.present[-1].end = round(at, 3)
