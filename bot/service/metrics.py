"""Prometheus metrics out of the event contract. Never a participant id as a label."""

from __future__ import annotations

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, generate_latest

from bot import __version__
from bot.events import (
    AttemptFailed,
    ConferenceJoined,
    Event,
    JoinFailed,
    MediaFailed,
    MediaStatistics,
    PhaseDone,
    StateChanged,
)
from bot.participant.states import State

_BUCKETS = (0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0)
_RATES = (100e3, 250e3, 500e3, 1e6, 2.5e6, 5e6, 10e6, 25e6, 50e6, 100e6)


class Metrics:
    """Counts events. ``on_event`` is an event sink; ``render`` is the text of ``/metrics``."""

    content_type = "text/plain; version=0.0.4; charset=utf-8"

    def __init__(self) -> None:
        self.registry = CollectorRegistry()
        info = Gauge("jitsi_bot_info", "Version of the program", ["version"], registry=self.registry)
        info.labels(version=__version__).set(1)
        self._events = Counter("jitsi_bot_events", "Events by name", ["event"], registry=self.registry)
        self._failures = Counter(
            "jitsi_bot_failures",
            "Failed attempts, joins and media sessions",
            ["stage", "code"],
            registry=self.registry,
        )
        self._phases = Histogram(
            "jitsi_bot_phase_seconds",
            "Length of each phase of joining",
            ["phase"],
            buckets=_BUCKETS,
            registry=self.registry,
        )
        self._joins = Histogram(
            "jitsi_bot_join_seconds", "Start of the attempt to joined", buckets=_BUCKETS, registry=self.registry
        )
        self._states = Gauge("jitsi_bot_participants", "Participants by state", ["state"], registry=self.registry)
        self._packets = self._both_ways("jitsi_bot_packets", "RTP packets")
        self._bytes = self._both_ways("jitsi_bot_bytes", "Bytes of RTP")
        self._lost = Counter("jitsi_bot_packets_lost", "RTP packets that never came", registry=self.registry)
        self._frames = Counter(
            "jitsi_bot_frames", "Frames that were decoded or dropped", ["result"], registry=self.registry
        )
        for result in ("decoded", "dropped"):
            self._frames.labels(result=result)
        self._late = Gauge(
            "jitsi_bot_participants_behind",
            "Participants that dropped frames in the last interval: decoding can't keep up",
            registry=self.registry,
        )
        self._behind: set[tuple[str, str]] = set()
        self._bandwidth = Histogram(
            "jitsi_bot_downlink_bits_per_second",
            "The bridge's estimates of the ways to the participants, one an interval",
            buckets=_RATES,
            registry=self.registry,
        )
        for state in State:
            self._states.labels(state=state.value).set(0)

    def _both_ways(self, name: str, text: str) -> Counter:
        counter = Counter(name, text, ["direction"], registry=self.registry)
        for direction in ("sent", "received"):
            counter.labels(direction=direction)
        return counter

    def on_event(self, event: Event) -> None:
        """Count one event."""
        self._events.labels(event=event.name).inc()
        match event:
            case PhaseDone():
                self._phases.labels(phase=event.phase).observe(event.seconds)
            case ConferenceJoined():
                self._joins.observe(event.seconds)
            case StateChanged():
                self._moved(event)
            case AttemptFailed():
                self._failures.labels(stage="attempt", code=event.code).inc()
            case JoinFailed():
                self._failures.labels(stage="join", code=event.code).inc()
            case MediaFailed():
                self._failures.labels(stage="media", code=event.code).inc()
            case MediaStatistics():
                self._moved_media(event)

    def _moved_media(self, event: MediaStatistics) -> None:
        self._packets.labels(direction="sent").inc(event.packets_sent)
        self._packets.labels(direction="received").inc(event.packets_received)
        self._bytes.labels(direction="sent").inc(event.bytes_sent)
        self._bytes.labels(direction="received").inc(event.bytes_received)
        self._lost.inc(event.packets_lost)
        self._frames.labels(result="decoded").inc(event.frames_decoded)
        self._frames.labels(result="dropped").inc(event.frames_dropped)
        self._keeps_up(event.room, event.participant, up=not event.frames_dropped)
        if event.bandwidth is not None:
            self._bandwidth.observe(event.bandwidth)

    def _keeps_up(self, room: str, participant: str, *, up: bool) -> None:
        (self._behind.discard if up else self._behind.add)((room, participant))
        self._late.set(len(self._behind))

    def _moved(self, event: StateChanged) -> None:
        if event.state != State.ACTIVE:
            self._keeps_up(event.room, event.participant, up=True)
        if event.previous not in (State.IDLE, State.LEFT, State.FAILED):
            self._states.labels(state=event.previous).dec()
        if event.state not in (State.LEFT, State.FAILED):
            self._states.labels(state=event.state).inc()

    def render(self) -> bytes:
        """The exposition format."""
        return generate_latest(self.registry)
