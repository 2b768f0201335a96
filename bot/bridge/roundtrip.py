"""The round-trip time from the reports about our own streams (RFC 3550 section 6.4.1). Pure."""

from __future__ import annotations

from collections import OrderedDict

from bot.bridge import rtcp

#: Sender reports remembered; the other end answers within a second or two.
MAX_REPORTS = 32
#: The weight of a new measurement (RFC 6298 section 2).
_ALPHA = 0.125


class RoundTrips:
    """``sent`` our sender reports, ``feed`` what comes; ``value`` is the smoothed round trip in s, None before."""

    def __init__(self) -> None:
        self._sent: OrderedDict[tuple[int, int], float] = OrderedDict()
        self.value: float | None = None

    def __repr__(self) -> str:
        return f"<RoundTrips {self.value}>"

    def sent(self, ssrc: int, ntp: int, now: float) -> None:
        """Note a sender report of ours; ``ntp`` in 1/2³² s, ``now`` monotonic in s."""
        key = (ssrc, ntp >> 16 & 0xFFFFFFFF)
        self._sent.pop(key, None)
        self._sent[key] = now
        if len(self._sent) > MAX_REPORTS:
            self._sent.popitem(last=False)

    def feed(self, packet: rtcp.Packet, now: float) -> None:
        """Take one packet; report blocks about our streams are measured, all else is left alone."""
        if not isinstance(packet, (rtcp.SenderReport, rtcp.ReceiverReport)):
            return
        for block in packet.blocks:
            sent = self._sent.get((block.ssrc, block.last_sr)) if block.last_sr else None
            if sent is not None:
                self._measured(now - sent - block.delay / 65_536)

    def _measured(self, seconds: float) -> None:
        seconds = max(0.0, seconds)  # the other end rounds, and its clock runs differently
        self.value = seconds if self.value is None else self.value + _ALPHA * (seconds - self.value)
