"""The quality of our connection as web clients tell each other (lib-jitsi-meet's ConnectionQuality). Pure."""

from __future__ import annotations

from bot.bridge.channel import Message
from bot.bridge.session import MediaTotals

#: Seconds between two of them (``pcStatsInterval``).
INTERVAL = 10.0
#: Quality by percent of our packets that are lost: up to the first number it is the second.
_BY_LOSS = ((2, 100), (4, 70), (6, 50), (8, 30), (12, 10))
#: It climbs by so much a second at most.
_CLIMB = 2.0


class QualityMeter:
    """Makes the EndpointStats of each interval out of running totals; ``now`` in seconds, monotonic.

    The quality is that of packet loss. Web clients with a camera compare their bit rate with their encoder's
    target, too: our pictures are encoded once and have none.
    """

    def __init__(self, totals: MediaTotals, now: float) -> None:
        self._totals = totals
        self._at = now
        self._quality = 100.0

    def feed(self, totals: MediaTotals, now: float) -> Message:
        """The message for what went on since the last call."""
        before, self._totals = self._totals, totals
        seconds, self._at = now - self._at, now
        up = _loss(totals.sent_lost - before.sent_lost, totals.sent_acked - before.sent_acked)
        down = _loss(totals.received_lost - before.received_lost, totals.received - before.received)
        both = _loss(
            totals.sent_lost - before.sent_lost + totals.received_lost - before.received_lost,
            totals.sent_acked - before.sent_acked + totals.received - before.received,
        )
        self._quality = min(_quality(up), self._quality + seconds * _CLIMB, 100.0)
        rates = {
            "audio": {
                "download": _kilobits(totals.audio_received - before.audio_received, seconds),
                "upload": _kilobits(totals.audio_sent - before.audio_sent, seconds),
            },
            "video": {
                "download": _kilobits(totals.video_received - before.video_received, seconds),
                "upload": _kilobits(totals.video_sent - before.video_sent, seconds),
            },
        }
        sums = {way: rates["audio"][way] + rates["video"][way] for way in ("download", "upload")}
        message: dict[str, object] = {
            "colibriClass": "EndpointStats",
            "bitrate": {**sums, **rates},
            "connectionQuality": round(self._quality),
            "packetLoss": {"download": down, "total": both, "upload": up},
            "serverRegion": None,
        }
        if totals.round_trip is not None:
            message["jvbRTT"] = round(totals.round_trip * 1000)
        return message


def _kilobits(octets: int, seconds: float) -> int:
    return max(0, round(octets * 8 / seconds / 1000)) if seconds > 0 else 0


def _loss(lost: int, came: int) -> int:
    """Percent; what was late and is found again makes none negative."""
    lost, came = max(0, lost), max(0, came)
    return round(100 * lost / (lost + came)) if lost + came else 0


def _quality(loss: int) -> float:
    return float(next((quality for limit, quality in _BY_LOSS if loss <= limit), 0))
