"""A watched meeting as Prometheus metrics. Never a participant as a label: counts, sums, and the worst."""

from __future__ import annotations

from prometheus_client import CollectorRegistry, Counter, Gauge, generate_latest

from bot import __version__
from bot.monitor.meeting import MeetingSeen, Quality, SourceSeen


class MeetingMetrics:
    """Shows the last report; ``render`` is the text of ``/metrics``."""

    def __init__(self) -> None:
        self.registry = CollectorRegistry()
        self._gauge("jitsi_bot_info", "Version of the program", ["version"]).labels(version=__version__).set(1)
        self._connected = self._gauge("jitsi_bot_watch_connected", "1 while the monitor has media", [])
        self._people = self._gauge("jitsi_bot_watch_participants", "Others in the room by quality", ["quality"])
        self._changes = Counter(
            "jitsi_bot_watch_quality_changes", "Changes to this quality", ["quality"], registry=self.registry
        )
        for quality in Quality:
            self._people.labels(quality=quality.value).set(0)
            self._changes.labels(quality=quality.value)
        self._packets = self._counter("jitsi_bot_watch_packets", "RTP packets that came")
        self._lost = self._counter("jitsi_bot_watch_packets_lost", "RTP packets that never came")
        self._freezes = Counter(
            "jitsi_bot_watch_freezes", "Freezes of cameras (webrtc-stats)", registry=self.registry
        )
        self._bitrate = self._gauge("jitsi_bot_watch_bits_per_second", "Media of all sources", ["media"])
        self._worst = self._gauge("jitsi_bot_watch_worst_loss_ratio", "Loss of the worst source", ["media"])
        self._trip = self._gauge(
            "jitsi_bot_watch_worst_round_trip_seconds", "To the bridge and back, as the worst client tells", []
        )

    def _gauge(self, name: str, text: str, labels: list[str]) -> Gauge:
        return Gauge(name, text, labels, registry=self.registry)

    def _counter(self, name: str, text: str) -> Counter:
        counter = Counter(name, text, ["media"], registry=self.registry)
        for media in ("audio", "video"):
            counter.labels(media=media)
        return counter

    def changed(self, quality: str) -> None:
        """Somebody is of this quality now."""
        self._changes.labels(quality=quality).inc()

    def show(self, seen: MeetingSeen) -> None:
        """Take ``seen`` in place of the one before."""
        self._connected.set(seen.connected)
        for quality in Quality:
            self._people.labels(quality=quality.value).set(
                sum(item.quality is quality for item in seen.participants)
            )
        sources = [source for item in seen.participants for source in item.sources]
        for media in ("audio", "video"):
            self._media(media, [source for source in sources if source.media == media])
        self._freezes.inc(sum(item.freezes for item in sources))
        trips = [item.told.round_trip for item in seen.participants if item.told is not None]
        self._trip.set(max((trip for trip in trips if trip is not None), default=0.0))

    def _media(self, media: str, sources: list[SourceSeen]) -> None:
        self._packets.labels(media).inc(sum(item.packets for item in sources))
        self._lost.labels(media).inc(sum(item.lost for item in sources))
        self._bitrate.labels(media).set(sum(item.bitrate for item in sources))
        self._worst.labels(media).set(max((item.loss for item in sources if item.loss is not None), default=0.0))

    def render(self) -> bytes:
        """The exposition format."""
        return generate_latest(self.registry)
