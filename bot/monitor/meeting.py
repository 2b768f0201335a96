"""What a monitor knows of a meeting: packets, events and the room's table in, a report each interval out. Pure.

Nothing is decoded. Loss is what never came, by retransmission either; times are in seconds, shares from 0 to 1.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass, field, replace
from enum import StrEnum
from typing import Any, TypeVar

from bot import events
from bot.bridge.messages import EndpointStatistics
from bot.bridge.payloads import PayloadFormat
from bot.bridge.rtp import RtpHeader, audio_level, is_padding_only
from bot.bridge.streams import NamedSource, RemoteStream
from bot.jingle.model import Media
from bot.monitor.flow import Flow, PictureFlow, SoundFlow
from bot.monitor.model import Severity
from bot.monitor.thresholds import Threshold, breaches
from bot.participant.sources import SourceState
from bot.xmpp.occupants import Occupant

#: Reports in a row that have to be better before somebody is called better.
CALM = 2
#: Sources that are followed; a hostile room must not fill the memory.
MAX_SOURCES = 4096
#: Fewer packets than this in an interval say nothing of loss.
MIN_PACKETS = 20
#: People who left that are remembered for the end.
MAX_LEFT = 1000


FlowType = TypeVar("FlowType", PictureFlow, SoundFlow)


class Quality(StrEnum):
    """How it is to see and hear somebody. ``unknown`` where nothing is sent, and nothing said."""

    UNKNOWN = "unknown"
    GOOD = "good"
    POOR = "poor"
    BAD = "bad"
    #: The bridge does not hear the endpoint any more.
    LOST = "lost"

    @property
    def rank(self) -> int:
        """Worse ones have higher ranks."""
        return list(Quality).index(self)


@dataclass(frozen=True, slots=True, kw_only=True)
class SourceSeen:
    """One source in the last interval. ``bitrate`` in bit/s, ``frame_rate`` in 1/s, ``voice`` a share of the time.

    ``muted`` is None where the owner's presence does not say; ``frozen`` and ``freezes`` are for cameras alone.
    """

    source: str
    media: Media
    codec: str = ""
    video_type: str | None = None
    muted: bool | None = None
    packets: int = 0
    lost: int = 0
    bitrate: float = 0.0
    jitter: float = 0.0
    frame_rate: float = 0.0
    freezes: int = 0
    frozen: float = 0.0
    voice: float = 0.0

    @property
    def loss(self) -> float | None:
        """The share of packets that never came; None where too few are due."""
        due = self.packets + self.lost
        return self.lost / due if due >= MIN_PACKETS else None


@dataclass(frozen=True, slots=True, kw_only=True)
class Told:
    """What a participant's client says of its own connection to all others (lib-jitsi-meet's EndpointStats)."""

    quality: float | None = None
    round_trip: float | None = None
    loss_up: float | None = None
    loss_down: float | None = None
    bitrate_up: float | None = None
    bitrate_down: float | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class ParticipantSeen:
    """One participant in the last interval, and for how much of the whole time it was of which quality."""

    endpoint: str
    nick: str
    quality: Quality
    cause: str
    sources: tuple[SourceSeen, ...] = ()
    told: Told | None = None
    speaking: bool = False
    present: float = 0.0
    qualities: Mapping[str, float] = field(default_factory=dict)
    packets: int = 0
    lost: int = 0
    freezes: int = 0
    frozen: float = 0.0
    voice: float = 0.0


@dataclass(frozen=True, slots=True, kw_only=True)
class MeetingSeen:
    """A report. ``own`` where everybody is as bad: the monitor's own way to the bridge is to be suspected.

    ``at`` is Unix time; totals of a participant are since it, or the monitor, came.
    """

    at: float
    seconds: float
    room: str
    connected: bool
    own: bool
    participants: tuple[ParticipantSeen, ...]

    def as_dict(self) -> dict[str, Any]:
        """For JSON."""
        found = asdict(self)
        for person, item in zip(found["participants"], self.participants, strict=True):
            for source, seen in zip(person["sources"], item.sources, strict=True):
                source["loss"] = seen.loss
        return found


@dataclass(slots=True)
class _Person:
    """What is kept of one participant."""

    since: float
    nick: str = ""
    quality: Quality = Quality.UNKNOWN
    calm: int = 0
    active: bool = True
    packets: int = 0
    lost: int = 0
    flow: Flow = field(default_factory=Flow)
    qualities: dict[str, float] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class _Count:
    """What came of a stream."""

    packets: int = 0
    lost: int = 0
    octets: int = 0

    def __add__(self, other: _Count) -> _Count:
        return _Count(self.packets + other.packets, self.lost + other.lost, self.octets + other.octets)

    def __sub__(self, other: _Count) -> _Count:
        # What was late and is found again makes no loss negative.
        lost = max(0, self.lost - other.lost)
        return _Count(self.packets - other.packets, lost, self.octets - other.octets)


@dataclass(frozen=True, slots=True)
class Change:
    """Something that is another now: the event's type and what it carries."""

    kind: type[events.Event]
    fields: Mapping[str, Any]


class MeetingWatch:
    """Follows one room. ``limits`` say from where on somebody is poor or bad; ``now`` in seconds, monotonic."""

    def __init__(self, room: str, limits: tuple[Threshold, ...], now: float) -> None:
        self._room = room
        self._limits = limits
        self._at = now
        self._people: dict[str, _Person] = {}
        self._pictures: dict[str, PictureFlow] = {}
        self._sounds: dict[str, SoundFlow] = {}
        self._muted: dict[str, bool] = {}
        #: Pictures that the bridge does not forward.
        self._held: set[str] = set()
        self._counted: dict[int, _Count] = {}
        self._left: list[ParticipantSeen] = []
        self._speaker = ""

    def __repr__(self) -> str:
        return f"<MeetingWatch {self._room} {len(self._people)} people>"

    # --- what comes ---

    def packet(
        self, named: NamedSource | None, known: PayloadFormat, header: RtpHeader, data: bytes, now: float
    ) -> None:
        """Take one unprotected packet of media."""
        if named is None or not named.name or is_padding_only(data, header):
            return
        if named.name in self._held or self._muted.get(named.name):
            return  # what still comes is the rest
        if known.media == "audio":
            if (
                sound := self._flow(self._sounds, named.name, SoundFlow)
            ) is not None and known.audio_level is not None:
                sound.packet(audio_level(data, header, known.audio_level))
        elif (picture := self._flow(self._pictures, named.name, PictureFlow)) is not None:
            picture.packet(header.ssrc, header.timestamp, now)

    def _flow(self, flows: dict[str, FlowType], name: str, make: type[FlowType]) -> FlowType | None:
        if name not in flows and len(flows) < MAX_SOURCES:
            flows[name] = make()
        return flows.get(name)

    def on_event(self, event: events.Event) -> None:
        """Take an event of the monitor's participant."""
        match event:
            case events.EndpointConnectivityChanged():
                if (person := self._people.get(event.endpoint)) is not None:
                    person.active = event.active
            case events.DominantSpeakerChanged():
                self._speaker = "" if event.silence else event.endpoint
            case events.ForwardedSourcesChanged():
                self._pause(event.gone)
                self._held = (self._held | set(event.gone)) - set(event.sources)
            case events.RemoteSourceRemoved():
                self._forget(event.source)
            case events.MediaEnded() | events.MediaFailed():
                self._pause(self._pictures)
                self._counted.clear()
                self._held.clear()
            case _:
                pass

    def _pause(self, names: Iterable[str]) -> None:
        for name in names:
            if (picture := self._pictures.get(name)) is not None:
                picture.pause()

    def _forget(self, name: str) -> None:
        for flows in (self._pictures, self._sounds, self._muted):
            flows.pop(name, None)
        self._held.discard(name)

    def look(self, others: Iterable[Occupant], sources: Mapping[str, SourceState], now: float) -> list[Change]:
        """Look at who is here and what is muted; call it some times a second."""
        here = {item.endpoint: item for item in others}
        for endpoint in [item for item in self._people if item not in here]:
            gone = self._people.pop(endpoint)
            if len(self._left) < MAX_LEFT:
                self._left.append(_person(endpoint, gone, now=now))
        for endpoint, occupant in here.items():
            self._people.setdefault(endpoint, _Person(now)).nick = occupant.nick
        return [change for state in sources.values() if (change := self._mute(state)) is not None]

    def _mute(self, state: SourceState) -> Change | None:
        before, muted = self._muted.get(state.source), bool(state.muted)
        if before is muted:
            return None
        self._muted[state.source] = muted
        if muted:
            self._pause([state.source])
        if before is None:
            return None  # as it was when it came
        fields = {"endpoint": state.endpoint, "source": state.source, "media": state.media, "muted": muted}
        return Change(events.RemoteMuteChanged, fields)

    # --- what is made of it ---

    def report(
        self,
        sources: Mapping[str, SourceState],
        streams: Iterable[RemoteStream],
        told: Mapping[str, EndpointStatistics],
        *,
        now: float,
        at: float,
        connected: bool,
    ) -> tuple[MeetingSeen, list[Change]]:
        """End an interval: what was seen in it, and who is better or worse by it."""
        seconds, self._at = max(now - self._at, 1e-3), now
        by_ssrc = {item.ssrc: self._new(item) for item in streams}
        of: dict[str, list[SourceSeen]] = {endpoint: [] for endpoint in self._people}
        for state in sources.values():
            if state.endpoint in of:
                of[state.endpoint].append(self._source(state, by_ssrc, seconds, now))
        judged = {
            endpoint: self._judge(person, of[endpoint], told.get(endpoint), connected=connected)
            for endpoint, person in self._people.items()
        }
        own = _everybody([quality for quality, _ in judged.values()])
        changes = []
        seen = []
        for endpoint, person in self._people.items():
            quality, cause = judged[endpoint]
            if (change := _moved(person, endpoint, quality, cause, own=own)) is not None:
                changes.append(change)
            self._count(person, of[endpoint], seconds)
            whole = _person(endpoint, person, cause, now=now, speaking=endpoint == self._speaker)
            said = _told(told[endpoint]) if endpoint in told else None
            seen.append(replace(whole, sources=tuple(of[endpoint]), told=said))
        found = MeetingSeen(
            at=at, seconds=seconds, room=self._room, connected=connected, own=own, participants=tuple(seen)
        )
        return found, changes

    def _new(self, item: RemoteStream) -> _Count:
        """What came of a stream since the last report; counters that went back began anew."""
        before, count = self._counted.get(item.ssrc, _Count()), _Count(item.packets, item.missing, item.bytes)
        self._counted[item.ssrc] = count
        return count if count.packets < before.packets else count - before

    def _source(self, state: SourceState, new: Mapping[int, _Count], seconds: float, now: float) -> SourceSeen:
        found = sum((new[ssrc] for ssrc in state.ssrcs if ssrc in new), _Count())
        flow = self._flowed(state, now)
        camera = state.media == "video" and state.video_type != "desktop"
        return SourceSeen(
            source=state.source,
            media=state.media,
            codec=state.stream.codec if state.stream is not None else "",
            video_type=state.video_type,
            muted=state.muted,
            packets=found.packets,
            lost=found.lost,
            bitrate=8 * found.octets / seconds,
            jitter=state.stream.jitter if state.stream is not None else 0.0,
            frame_rate=flow.frames / seconds,
            # What is on a shared screen may stand still, and then nothing is sent.
            freezes=flow.freezes if camera else 0,
            frozen=min(flow.frozen, seconds) / seconds if camera else 0.0,
            voice=min(1.0, flow.voice / seconds),
        )

    def _flowed(self, state: SourceState, now: float) -> Flow:
        if state.media == "audio":
            sound = self._sounds.get(state.source)
            return sound.take() if sound is not None else Flow()
        picture = self._pictures.get(state.source)
        return picture.take(now) if picture is not None else Flow()

    def _judge(
        self,
        person: _Person,
        sources: Iterable[SourceSeen],
        told: EndpointStatistics | None,
        *,
        connected: bool,
    ) -> tuple[Quality, str]:
        if not person.active:
            return Quality.LOST, "the bridge does not hear it"
        measures = _measures(sources, told)
        if not connected or not measures:
            return Quality.UNKNOWN, "nothing is measured"
        missed = breaches(self._limits, measures)
        if not missed:
            return Quality.GOOD, "within all limits"
        bad = missed[0].severity is Severity.CRITICAL
        return Quality.BAD if bad else Quality.POOR, ", ".join(item.text for item in missed)

    @staticmethod
    def _count(person: _Person, sources: Iterable[SourceSeen], seconds: float) -> None:
        name = person.quality.value
        person.qualities[name] = person.qualities.get(name, 0.0) + seconds
        for item in sources:
            person.packets += item.packets
            person.lost += item.lost
            person.flow = person.flow + Flow(
                freezes=item.freezes, frozen=item.frozen * seconds, voice=item.voice * seconds
            )

    def everybody(self, now: float) -> tuple[ParticipantSeen, ...]:
        """The whole time of everybody who was here, those who left first."""
        return (*self._left, *(_person(endpoint, person, now=now) for endpoint, person in self._people.items()))


def _person(
    endpoint: str, person: _Person, cause: str = "", *, now: float, speaking: bool = False
) -> ParticipantSeen:
    """The totals of one participant."""
    return ParticipantSeen(
        endpoint=endpoint,
        nick=person.nick,
        quality=person.quality,
        cause=cause,
        speaking=speaking,
        present=now - person.since,
        qualities=dict(person.qualities),
        packets=person.packets,
        lost=person.lost,
        freezes=person.flow.freezes,
        frozen=person.flow.frozen,
        voice=person.flow.voice,
    )


def _measures(sources: Iterable[SourceSeen], told: EndpointStatistics | None) -> dict[str, float]:
    """The worst of what comes, and of what the client says of its way to the bridge."""
    flowing = [item for item in sources if item.muted is not True and item.packets]
    losses = [item.loss for item in flowing if item.loss is not None]
    found = {}
    if told is not None and told.round_trip is not None:
        found["round_trip"] = told.round_trip / 1000
    if told is not None and told.loss_upload is not None:
        losses.append(told.loss_upload / 100)
    if losses:
        found["loss"] = max(losses)
    pictures = [item.frozen for item in flowing if item.media == "video"]
    if pictures:
        found["frozen"] = max(pictures)
    return found


def _everybody(qualities: Iterable[Quality]) -> bool:
    """Whether all of several are poor or bad at once."""
    known = [item for item in qualities if item is not Quality.UNKNOWN]
    return len(known) > 1 and all(item in (Quality.POOR, Quality.BAD) for item in known)


def _moved(person: _Person, endpoint: str, quality: Quality, cause: str, *, own: bool) -> Change | None:
    """Somebody is worse at once, and better only when it stays so; what is unknown says neither."""
    if quality is Quality.UNKNOWN or quality is person.quality:
        person.calm = 0
        return None
    previous = person.quality
    if previous.rank > quality.rank:
        person.calm += 1
        if person.calm < CALM:
            return None
    person.quality, person.calm = quality, 0
    if previous is Quality.UNKNOWN and quality is Quality.GOOD:
        return None
    fields = {"endpoint": endpoint, "nick": person.nick, "quality": quality.value, "previous": previous.value}
    return Change(events.QualityChanged, {**fields, "cause": cause, "own": own})


def _told(told: EndpointStatistics) -> Told:
    return Told(
        quality=_scaled(told.connection_quality, 0.01),
        round_trip=_scaled(told.round_trip, 0.001),
        loss_up=_scaled(told.loss_upload, 0.01),
        loss_down=_scaled(told.loss_download, 0.01),
        bitrate_up=_scaled(told.upload, 1000),
        bitrate_down=_scaled(told.download, 1000),
    )


def _scaled(value: float | None, factor: float) -> float | None:
    return None if value is None else value * factor
