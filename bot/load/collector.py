"""Makes measures of what participants report and of what they receive. Pure: time is a parameter.

Times are seconds since the start of the run. Levels over time (participants, cores) are not here: they are those
of all processes together.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Literal

from bot import events
from bot.jingle.model import Media
from bot.load.measures import Measures
from bot.load.overload import Whose, is_rationed, whose
from bot.participant.timing import PHASES

#: Notes that wait for the parent; what is beyond is counted.
MAX_NOTES = 500
#: Different causes of failures that are kept apart, and how much of what was said.
MAX_CAUSES = 100
MAX_TEXT = 300
OTHER = "other"


@dataclass(frozen=True, slots=True)
class StreamSample:
    """One received stream now. What counts up does so from when the stream began.

    ``first_frame`` is when its first frame was whole, in seconds of the run; ``height`` that of its newest one.
    """

    ssrc: int
    media: Media
    owner: str | None
    packets: int
    missing: int
    jitter: float
    bitrate: float
    fps: float | None = None
    height: int | None = None
    freezes: int | None = None
    frozen: float = 0.0
    first_frame: float | None = None


@dataclass(frozen=True, slots=True)
class Sample:
    """What a participant has moved until now, in its media session ``session``."""

    session: str | None
    packets_sent: int = 0
    bytes_sent: int = 0
    packets_received: int = 0
    bytes_received: int = 0
    round_trip: float | None = None
    bandwidth: float | None = None
    streams: Sequence[StreamSample] = ()


@dataclass(frozen=True, slots=True)
class WorstStream:
    """A stream that is not well, for whoever watches; ``loss`` is the share of its packets that never came."""

    room: str
    name: str
    owner: str | None
    media: Media
    loss: float
    fps: float | None
    bitrate: float


@dataclass(slots=True)
class FailureCount:
    """How often something failed, what one of them said, and whose limit it was."""

    count: int
    example: str
    whose: Whose


@dataclass(frozen=True, slots=True)
class Note:
    """Something that happened to one participant; ``text`` says how, where there is something to say."""

    at: float
    what: Literal["connection_lost", "connection_back", "media_lost", "media_back", "removed", "process_died"]
    who: str
    text: str = ""
    seconds: float = 0.0


@dataclass(slots=True)
class Tally:
    """What adds up beside the measures; it counts in the warm-up, too."""

    tried: int = 0
    joined: int = 0
    failures: dict[str, FailureCount] = field(default_factory=dict)
    notes: list[Note] = field(default_factory=list)
    versions: dict[str, str] = field(default_factory=dict)
    overflow: int = 0
    packets_received: int = 0
    bytes_sent: int = 0
    bytes_received: int = 0

    def fail(self, cause: str, example: str, owner: Whose, count: int = 1) -> None:
        """Count a failure."""
        cause = cause if cause in self.failures or len(self.failures) < MAX_CAUSES else OTHER
        known = self.failures.get(cause)
        if known is None:
            self.failures[cause] = FailureCount(count, example[:MAX_TEXT], owner)
            return
        known.count += count
        if known.whose != owner:
            known.whose = "unknown"

    def note(self, note: Note) -> None:
        """Keep what happened, while there is room."""
        if len(self.notes) < MAX_NOTES:
            self.notes.append(note)

    def merge(self, other: Tally) -> None:
        """Add what another process counted, or the same one since."""
        self.tried += other.tried
        self.joined += other.joined
        for cause, found in other.failures.items():
            self.fail(cause, found.example, found.whose, found.count)
        self.notes += other.notes
        self.versions.update(other.versions)
        self.overflow += other.overflow
        self.packets_received += other.packets_received
        self.bytes_sent += other.bytes_sent
        self.bytes_received += other.bytes_received


@dataclass(slots=True)
class _Stream:
    """How much of a stream was accounted for."""

    sample: StreamSample
    lost: int = 0


@dataclass(slots=True)
class _Seat:
    """What is known of one participant."""

    room: str
    name: str
    #: Whether it tells of what all of its conference hear.
    observer: bool
    endpoint: str = ""
    first_packet: float | None = None
    key_frame_seen: bool = False
    unmuted: float | None = None
    last: Sample = field(default_factory=lambda: Sample(None))
    sampled: float = 0.0
    streams: dict[int, _Stream] = field(default_factory=dict)

    @property
    def who(self) -> str:
        """For people."""
        return f"{self.name} of {self.room}"


class Collector:
    """Of one process. ``take`` gives what was measured since the last call, to be merged by the parent.

    ``overloaded`` tells whether the client is behind at the moment, so that its failures are not the server's.
    """

    def __init__(self, warm_up: float = 0.0, overloaded: Callable[[], bool] = lambda: False) -> None:
        self._warm_up = warm_up
        self._overloaded = overloaded
        self._seats: dict[int, _Seat] = {}
        self.measures = Measures(warm_up)
        self.tally = Tally()

    def __repr__(self) -> str:
        return f"<Collector of {len(self._seats)} seats {self.measures!r}>"

    def add(self, seat: int, room: str, name: str, *, observer: bool = False) -> None:
        """Know a participant."""
        self._seats[seat] = _Seat(room, name, observer)

    def take(self) -> tuple[Measures, Tally]:
        """What came since the last call; from now on it is counted anew."""
        found = self.measures, self.tally
        self.measures, self.tally = Measures(self._warm_up), Tally()
        return found

    # --- events ---

    def event(self, seat: int, event: events.Event, at: float) -> None:
        """Take what a participant reports."""
        known = self._seats[seat]
        match event:
            case events.PhaseDone():
                self._phase(known, event, at)
            case events.ConferenceJoined():
                self._joined(known, event, at)
            case events.MediaConnected():
                self.measures.value("join.media", event.seconds, at)
            case events.JoinFailed():
                self._join_failed(event, at)
            case events.AttemptFailed():
                self._attempt_failed(event, at)
            case events.MediaFailed():
                self._failed(f"media: {event.code}", event.code, event.cause, at)
                self.tally.note(Note(at, "media_lost", known.who, event.code))
            case events.RemovedFromRoom():
                self._removed(known, event, at)
            case events.DominantSpeakerChanged():
                self._speaks(known, event, at)
            case events.ConnectionDegraded() | events.ConnectionRecovered() | events.MediaRecovered():
                self._interrupted(known, event, at)
            case _:
                pass

    def _phase(self, known: _Seat, event: events.PhaseDone, at: float) -> None:
        if event.phase in PHASES:
            self.measures.value(f"join.{event.phase}", event.seconds, at)
        if event.phase == "first_packet_in":
            known.first_packet = at

    def _joined(self, known: _Seat, event: events.ConferenceJoined, at: float) -> None:
        known.endpoint = event.endpoint
        self.tally.tried += 1
        self.tally.joined += 1
        self.tally.versions.update(event.versions)
        self.measures.value("join", event.seconds, at)
        self.measures.share("success", 1, 1, at)
        self.measures.over_time("joins", 1, at)

    def _join_failed(self, event: events.JoinFailed, at: float) -> None:
        self.tally.tried += 1
        self.measures.share("success", 0, 1, at)
        self._failed(event.code, event.code, event.cause, at)

    def _failed(self, cause: str, code: str, said: str, at: float) -> None:
        self.measures.count("failures", at, cause)
        self.measures.over_time("failures", 1, at)
        self._ration(code, said, at)
        self.tally.fail(cause, said, whose(code, said, overloaded=self._overloaded()))

    def _attempt_failed(self, event: events.AttemptFailed, at: float) -> None:
        """An attempt that is followed by another: no failure yet, but seen in the report."""
        if event.delay is None:
            return  # JoinFailed follows
        self._ration(event.code, event.cause, at)
        found = whose(event.code, event.cause, overloaded=self._overloaded())
        self.tally.fail(f"{event.code}, tried again", event.cause, found)

    def _ration(self, code: str, said: str, at: float) -> None:
        if is_rationed(code, said):
            self.measures.count("rate_limited", at, code)

    def _removed(self, known: _Seat, event: events.RemovedFromRoom, at: float) -> None:
        self.measures.count("lost", at, event.code)
        self.tally.fail(
            f"removed: {event.code}",
            event.cause,
            whose(event.code, event.cause, overloaded=self._overloaded()),
        )
        self.tally.note(Note(at, "removed", known.who, event.code))

    def _interrupted(self, known: _Seat, event: events.Event, at: float) -> None:
        match event:
            case events.ConnectionDegraded():
                self.tally.note(Note(at, "connection_lost", known.who, event.cause[:MAX_TEXT]))
            case events.ConnectionRecovered():
                self._recovered(event.how, event.seconds, at)
                self.tally.note(Note(at, "connection_back", known.who, event.how, event.seconds))
            case _:
                self._recovered("media", event.seconds, at)
                self.tally.note(Note(at, "media_back", known.who, "", event.seconds))

    def _recovered(self, how: str, seconds: float, at: float) -> None:
        self.measures.count("reconnects", at, how)
        self.measures.value("reconnect", seconds, at)
        self.measures.over_time("reconnects", 1, at)

    def unmuted(self, seat: int, at: float) -> None:
        """The participant begins to speak."""
        self._seats[seat].unmuted = at

    def _speaks(self, known: _Seat, event: events.DominantSpeakerChanged, at: float) -> None:
        if event.silence:
            return
        if known.observer:
            self.measures.count("speaker_changes", at, "named")
        if event.endpoint == known.endpoint and known.unmuted is not None:
            self.measures.value("speaker_change", at - known.unmuted, at)
            known.unmuted = None

    # --- media ---

    def sample(self, seat: int, sample: Sample, at: float) -> list[WorstStream]:
        """Take what a participant has received by now; tells those of its streams that lose something."""
        known = self._seats[seat]
        if sample.session != known.last.session:
            self._end_streams(known, known.streams, at)
            known.last, known.key_frame_seen = Sample(sample.session), False
        self._flow(known, sample, at)
        self._path(known, sample, at)
        present = {item.ssrc for item in sample.streams}
        self._end_streams(known, [ssrc for ssrc in known.streams if ssrc not in present], at)
        worst = [found for item in sample.streams if (found := self._stream(known, item, at)) is not None]
        self._key_frame(known, sample, at)
        known.last, known.sampled = sample, at
        return worst

    def left(self, seat: int, at: float) -> None:
        """The participant's stay is over."""
        known = self._seats[seat]
        self._end_streams(known, known.streams, at)
        known.last, known.first_packet, known.key_frame_seen, known.unmuted = Sample(None), None, False, None
        self.measures.over_time("leaves", 1, at)

    def _flow(self, known: _Seat, sample: Sample, at: float) -> None:
        before, measures = known.last, self.measures
        sent, received = sample.bytes_sent - before.bytes_sent, sample.bytes_received - before.bytes_received
        measures.over_time("bits_sent", 8 * sent, at)
        measures.over_time("bits_received", 8 * received, at)
        measures.over_time("packets_sent", sample.packets_sent - before.packets_sent, at)
        packets = sample.packets_received - before.packets_received
        measures.over_time("packets_received", packets, at)
        self.tally.packets_received += packets
        self.tally.bytes_sent += sent
        self.tally.bytes_received += received
        seconds = at - known.sampled
        if sent > 0 and seconds > 0 and before.bytes_sent:
            measures.value("bitrate.sent", 8 * sent / seconds, at)

    def _path(self, known: _Seat, sample: Sample, at: float) -> None:
        del known
        if sample.round_trip is not None:
            self.measures.value("rtt", sample.round_trip, at)
            self.measures.over_time("rtt", sample.round_trip, at)
        if sample.bandwidth is not None:
            self.measures.value("bandwidth", sample.bandwidth, at)

    def _stream(self, known: _Seat, item: StreamSample, at: float) -> WorstStream | None:
        stream = known.streams.get(item.ssrc)
        if stream is not None and item.packets < stream.sample.packets:
            self._end_streams(known, [item.ssrc], at)  # the bridge has put another source on it
            stream = None
        if stream is None:
            stream = known.streams[item.ssrc] = _Stream(_begun(item))
        before, stream.sample = stream.sample, item
        packets = item.packets - before.packets
        if not packets:
            return None
        # What is missing may be on its way once more: only what was missing a second ago, too, is lost.
        lost = self._lose(stream, min(before.missing, item.missing), packets, at)
        self._quality(before, item, at)
        if not lost:
            return None
        return WorstStream(
            known.room, known.name, item.owner, item.media, lost / (lost + packets), item.fps, item.bitrate
        )

    def _lose(self, stream: _Stream, lost: int, packets: int, at: float) -> int:
        more = max(0, lost - stream.lost)
        stream.lost += more
        self.measures.share("loss", more, more + packets, at)
        self.measures.over_time("packets_lost", more, at)
        return more

    def _quality(self, before: StreamSample, item: StreamSample, at: float) -> None:
        measures = self.measures
        measures.value("jitter", item.jitter, at)
        measures.over_time("jitter", item.jitter, at)
        measures.value(f"bitrate.{item.media}", item.bitrate, at)
        if item.media != "video":
            return
        if item.fps is not None and before.packets:  # a stream of less than a second has no rate yet
            measures.value("fps", item.fps, at)
            measures.over_time("fps", item.fps, at)
        if item.height is not None:
            measures.value("height", item.height, at)
        if item.freezes is not None:
            freezes = max(0, item.freezes - (before.freezes or 0))
            measures.count("freezes", at, item.media, freezes)
            if freezes:
                measures.value("freeze", max(0.0, item.frozen - before.frozen) / freezes, at, freezes)

    def _key_frame(self, known: _Seat, sample: Sample, at: float) -> None:
        """The first picture of a session: the bridge begins each stream with a key frame."""
        if known.key_frame_seen or known.first_packet is None:
            return
        shown = [
            item.first_frame for item in sample.streams if item.media == "video" and item.first_frame is not None
        ]
        if shown:
            known.key_frame_seen = True
            self.measures.value("join.first_key_frame", max(0.0, min(shown) - known.first_packet), at)

    def _end_streams(self, known: _Seat, ssrcs: Iterable[int], at: float) -> None:
        for ssrc in list(ssrcs):
            stream = known.streams.pop(ssrc)
            self._lose(stream, stream.sample.missing, 0, at)
            if packets := stream.sample.packets:
                self.measures.value("loss", stream.lost / (stream.lost + packets), at)

    # --- decoded media ---

    def delay(self, seconds: float, at: float) -> None:
        """A picture was shown so long after its sender's clip had it."""
        self.measures.value("e2e_delay", seconds, at)
        self.measures.over_time("e2e_delay", seconds, at)

    def lip_sync(self, seconds: float, at: float) -> None:
        """Sound was so much later than its picture."""
        self.measures.value("lip_sync", abs(seconds), at)

    # --- the client ---

    def loop_lag(self, seconds: float, at: float) -> None:
        """The event loop was so late."""
        self.measures.value("client.loop_lag", seconds, at)
        self.measures.over_time("client_loop_lag", seconds, at)

    def client(self, *, cpu: float, late: Mapping[float, int], overflow: int, at: float) -> None:
        """CPU of the last second as a share of a core, how late packets were sent, datagrams turned away."""
        self.measures.value("client.cpu", cpu, at)
        for seconds, number in late.items():
            self.measures.value("client.pacing_late", seconds, at, number)
        self.tally.overflow += overflow


def _begun(item: StreamSample) -> StreamSample:
    """The stream before its first packet."""
    return StreamSample(
        item.ssrc, item.media, item.owner, 0, 0, 0.0, 0.0, freezes=None if item.freezes is None else 0
    )


def nothing_yet(measures: Measures) -> None:
    """Say that all counts were looked at: a threshold of ``lost < 1`` has data where nobody was lost."""
    for name in ("failures", "lost", "reconnects", "rate_limited", "speaker_changes"):
        measures.counts.setdefault(name, Counter())
