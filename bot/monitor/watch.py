"""What one probing bot sees: its events, and the marks in what the others send. Pure: times are given."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from fractions import Fraction

from av import AudioFrame, VideoFrame

from bot import events
from bot.bridge.streams import RemoteStream
from bot.clips.model import phase_of
from bot.clips.spec import DEFAULT_DURATION
from bot.media.measure import PathMeter
from bot.monitor.model import BotSeen, Failure, PathSeen

#: The focus's place among the owners of sources; its bridge sends no media of its own.
BRIDGE = "jvb"


@dataclass(slots=True)
class _Counts:
    """Packets of one path, by medium."""

    packets: int = 0
    lost: int = 0


class _Path:
    """What comes of one endpoint: counted all the time, measured since ``begin``."""

    def __init__(self, endpoint: str, fps: int) -> None:
        self._phase = phase_of(endpoint, DEFAULT_DURATION)
        self._fps = Fraction(fps)
        self.seen = {"audio": False, "video": False}
        self._meter = self._new()
        self._since: float | None = None
        self._decoded = 0
        self._before: dict[int, tuple[int, int]] = {}

    def _new(self) -> PathMeter:
        return PathMeter(DEFAULT_DURATION, self._fps, self._phase)

    def begin(self, now: float, streams: Iterable[RemoteStream]) -> None:
        """Measure anew from ``now`` (Unix seconds) on."""
        self._meter, self._since, self._decoded = self._new(), now, 0
        self._before = {item.ssrc: (item.packets, item.missing) for item in streams}

    def frame(self, frame: VideoFrame | AudioFrame, now: float) -> None:
        """A decoded frame came."""
        self.seen["video" if isinstance(frame, VideoFrame) else "audio"] = True
        self._decoded += isinstance(frame, VideoFrame)
        self._meter.feed_frame(frame, now)

    def result(self, sender: str, receiver: str, streams: Iterable[RemoteStream], now: float) -> PathSeen:
        """What was measured until ``now``."""
        counts = {"audio": _Counts(), "video": _Counts()}
        for item in streams:
            packets, missing = self._before.get(item.ssrc, (0, 0))
            counts[item.media].packets += max(0, item.packets - packets)
            counts[item.media].lost += max(0, item.missing - missing)
        found = self._meter.measures(now)
        seconds = now - self._since if self._since is not None else 0.0
        return PathSeen(
            sender=sender,
            receiver=receiver,
            seconds=seconds,
            audio_packets=counts["audio"].packets,
            video_packets=counts["video"].packets,
            audio_lost=counts["audio"].lost,
            video_lost=counts["video"].lost,
            pictures=found.pictures,
            decoded=self._decoded,
            expected=int(seconds * self._fps),
            sounds=found.sounds,
            freezes=found.freezes,
            frozen=found.frozen,
            picture_delay=found.picture_delay,
            sound_delay=found.sound_delay,
            lip_sync=found.lip_sync,
        )


class BotWatch:
    """Collects what one bot reports. ``on_event`` is an event sink; frames go in by the SSRC they came on."""

    def __init__(self, name: str, fps: int) -> None:
        self.name = name
        self._fps = fps
        self._paths: dict[str, _Path] = {}
        self._owners: dict[int, str] = {}
        self._phases: dict[str, float] = {}
        self.endpoint = ""
        self.joined = self.connected = self.ended = False
        self._offered = self._lobby = False
        self._focus_cause = ""
        self._channel_error: str | None = None
        self._others: set[str] = set()
        self.error: Failure | None = None
        self.media_error: Failure | None = None

    def __repr__(self) -> str:
        return f"<BotWatch {self.name} joined={self.joined} connected={self.connected} error={self.error}>"

    @property
    def failed(self) -> bool:
        """Whether it is in vain to wait any longer."""
        return self.error is not None or self.media_error is not None

    def hears(self, endpoint: str) -> bool:
        """Whether sound and pictures of ``endpoint`` were decoded."""
        path = self._paths.get(endpoint)
        return path is not None and all(path.seen.values())

    def on_event(self, event: events.Event) -> None:
        """Take one event of the bot."""
        match event:
            case events.PhaseDone():
                self._phases.setdefault(event.phase, event.seconds)
                self._offered = self._offered or event.phase == "offer"
            case events.ConferenceJoined():
                self.joined, self.endpoint = True, event.endpoint
            case events.MediaConnected():
                self.connected = True
            case events.LobbyWaiting():
                self._lobby = True
            case events.LobbyAdmitted():
                self._lobby = False
            case events.FocusUnavailable():
                self._focus_cause = event.cause
            case events.ParticipantJoined():
                self._others.add(event.endpoint)
            case _:
                self._more(event)

    def _more(self, event: events.Event) -> None:
        match event:
            case events.JoinFailed() | events.RemovedFromRoom():
                self.error = self.error or Failure(event.code, event.cause)
            case events.MediaFailed():
                self.media_error = self.media_error or Failure(event.code, event.cause)
            case events.ConnectionDegraded():
                self.error = self.error or Failure("connection_failed", f"the connection was lost: {event.cause}")
            case events.BridgeChannelDegraded():
                self._channel_error = event.cause
            case events.BridgeChannelRecovered():
                self._channel_error = None
            case events.RemoteSourceAdded() if event.owner not in (None, BRIDGE):
                self._owners[event.ssrc] = str(event.owner)
            case events.RemoteSourceRemoved():
                self._owners.pop(event.ssrc, None)
            case _:
                pass

    def frame(self, ssrc: int, frame: VideoFrame | AudioFrame, now: float) -> None:
        """A decoded frame came on ``ssrc`` at ``now`` (Unix seconds)."""
        owner = self._owners.get(ssrc)
        if owner is not None:
            self._path(owner).frame(frame, now)

    def _path(self, endpoint: str) -> _Path:
        return self._paths.setdefault(endpoint, _Path(endpoint, self._fps))

    def begin(self, now: float, streams: Iterable[RemoteStream], endpoints: Iterable[str]) -> None:
        """Measure what comes from ``endpoints`` from ``now`` on; ``streams`` are their counters until here."""
        known = tuple(streams)
        for endpoint in endpoints:
            self._path(endpoint).begin(now, [item for item in known if item.owner == endpoint])

    def paths(self, now: float, streams: Iterable[RemoteStream], names: Mapping[str, str]) -> list[PathSeen]:
        """What came until ``now``; ``names`` are those of the other bots by endpoint."""
        known = tuple(streams)
        return [
            self._path(endpoint).result(name, self.name, [i for i in known if i.owner == endpoint], now)
            for endpoint, name in names.items()
            if endpoint != self.endpoint
        ]

    def seen(
        self,
        *,
        focus: bool,
        sent: int = 0,
        acked: int = 0,
        unacked: int = 0,
        decoded: int = 0,
        dropped: int = 0,
        round_trip: float | None = None,
    ) -> BotSeen:
        """All of it, with what the media session and the room say at the end."""
        return BotSeen(
            name=self.name,
            endpoint=self.endpoint,
            phases=dict(self._phases),
            joined=self.joined,
            focus=focus,
            focus_cause=self._focus_cause,
            lobby=self._lobby,
            others=len(self._others),
            offered=self._offered,
            connected=self.connected,
            error=self.error,
            media_error=self.media_error,
            channel_error=self._channel_error,
            sent=sent,
            acked=acked,
            unacked=unacked,
            decoded=decoded,
            dropped=dropped,
            round_trip=round_trip,
        )
