"""Who looks at all packets of media, unprotected, beside statistics and decoders: recorders. Pure."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Protocol

from bot.bridge.payloads import PayloadFormat
from bot.bridge.rtcp import SenderReport
from bot.bridge.rtp import RtpHeader
from bot.bridge.streams import RemoteSources


class Tapped(Protocol):
    """The receiving half of a session, for its tap."""

    sources: RemoteSources

    def want_key_frame(self, ssrc: int, now: float) -> None:
        """Ask for a key frame of ``ssrc`` until it comes."""
        ...

    def got_key_frame(self, ssrc: int) -> None:
        """It came."""
        ...


class MediaTap(Protocol):
    """Hears everything of one media session after the other. All of it is called in the event loop, and is cheap.

    ``now`` is in seconds on the session's monotonic clock.
    """

    def opened(self, inbound: Tapped) -> None:
        """A session begins."""
        ...

    def closed(self) -> None:
        """The session is over; may be called twice."""
        ...

    def packet(self, known: PayloadFormat, header: RtpHeader, data: bytes, now: float) -> None:
        """One packet of media, also one that was repaired, and padding; never a retransmission as such."""
        ...

    def report(self, report: SenderReport, now: float) -> None:
        """A sender's report."""
        ...

    def moved(self, ssrcs: Iterable[int]) -> None:
        """These SSRCs carry another source from now on."""
        ...

    def gone(self, ssrcs: Iterable[int]) -> None:
        """These SSRCs carry nothing any more: their sources were removed, or their owners left."""
        ...
