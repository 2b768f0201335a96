"""How much went each way since last time: intervals out of the running totals. Pure: time is a parameter."""

from __future__ import annotations

from dataclasses import dataclass

from bot.participant.participant import Traffic


@dataclass(frozen=True, slots=True)
class Interval:
    """What one participant moved in ``seconds``."""

    seconds: float
    packets_sent: int
    packets_received: int
    bytes_sent: int
    bytes_received: int
    lost: int
    decoded: int
    dropped: int

    @property
    def bitrate_sent(self) -> float:
        """Bit/s that were sent."""
        return self.bytes_sent * 8 / self.seconds if self.seconds else 0.0

    @property
    def bitrate_received(self) -> float:
        """Bit/s that came."""
        return self.bytes_received * 8 / self.seconds if self.seconds else 0.0


class TrafficMeter:
    """Keeps the last totals of one participant; a new media session counts from zero."""

    def __init__(self, now: float) -> None:
        self._at = now
        self._last = Traffic(session=None)

    def feed(self, traffic: Traffic, now: float) -> Interval:
        """The interval since the last call, or since the meter was made."""
        seconds, self._at = now - self._at, now
        before = self._last if self._last.session == traffic.session else Traffic(session=traffic.session)
        self._last = traffic
        return Interval(
            seconds=seconds,
            packets_sent=traffic.packets_sent - before.packets_sent,
            packets_received=traffic.packets_received - before.packets_received,
            bytes_sent=traffic.bytes_sent - before.bytes_sent,
            bytes_received=traffic.bytes_received - before.bytes_received,
            # Late packets are found after they were counted as lost: that is no negative loss.
            lost=max(0, traffic.lost - before.lost),
            decoded=traffic.decoded - before.decoded,
            dropped=traffic.dropped - before.dropped,
        )
