"""What a receiver tells the bridge: receiver reports once a second, transport-wide-cc feedback ten times.

Requests for lost packets and for key frames are sent when they are due.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable, Mapping
from contextlib import suppress
from math import inf
from typing import Protocol

from bot.bridge import rtcp
from bot.bridge.rtp import RtpError, RtpHeader, parse_header, transport_sequence
from bot.bridge.twcc import ArrivalRecorder

FEEDBACK_INTERVAL = 0.1
REPORT_INTERVAL = 1.0
#: A stream that was silent for longer is left out of the reports (RFC 3550 section 6.2.1: five intervals).
SILENT_AFTER = 5.0


class CountedStream(Protocol):
    """What a report says of a stream, as :class:`bot.bridge.receive.StreamStats` has it."""

    @property
    def ssrc(self) -> int:
        """Synchronisation source."""
        ...

    @property
    def payload_type(self) -> int:
        """That of the last packet."""
        ...

    @property
    def first_frame(self) -> float | None:
        """When the first frame was complete (seconds), None before."""
        ...

    @property
    def last(self) -> float:
        """When the last packet came (seconds)."""
        ...

    @property
    def packets(self) -> int:
        """Packets that came."""
        ...

    @property
    def expected(self) -> int:
        """Packets that were sent."""
        ...

    @property
    def lost(self) -> int:
        """Cumulative loss."""
        ...

    @property
    def highest(self) -> int:
        """Highest sequence number, with its cycles."""
        ...

    @property
    def jitter(self) -> float:
        """In units of the RTP clock."""
        ...


class StreamCounters(Protocol):
    """All streams of a transport by SSRC, as :class:`bot.bridge.receive.ReceiveStatistics` has them."""

    @property
    def streams(self) -> Mapping[int, CountedStream]:
        """By SSRC."""
        ...


class ReceiverReports:
    """Report blocks from the statistics. Pure: ``now`` in seconds, monotonic, is a parameter."""

    def __init__(self, statistics: StreamCounters) -> None:
        self._statistics = statistics
        self._prior: dict[int, tuple[int, int]] = {}
        self._sender_reports: dict[int, tuple[int, float]] = {}

    def feed(self, packet: rtcp.Packet, now: float) -> None:
        """Note a sender report of a stream that is known; anything else is none of its business."""
        if isinstance(packet, rtcp.SenderReport) and packet.ssrc in self._statistics.streams:
            self._sender_reports[packet.ssrc] = (packet.ntp >> 16 & 0xFFFFFFFF, now)

    def blocks(self, now: float) -> list[rtcp.ReportBlock]:
        """One block for each stream heard lately; each call begins a new interval."""
        streams = self._statistics.streams
        if len(self._prior) > len(streams):  # some were retired
            self._prior = {ssrc: prior for ssrc, prior in self._prior.items() if ssrc in streams}
            self._sender_reports = {ssrc: item for ssrc, item in self._sender_reports.items() if ssrc in streams}
        return [self._block(stream, now) for stream in streams.values() if now - stream.last < SILENT_AFTER]

    def _block(self, stream: CountedStream, now: float) -> rtcp.ReportBlock:
        prior_expected, prior_packets = self._prior.get(stream.ssrc, (0, 0))
        self._prior[stream.ssrc] = (stream.expected, stream.packets)
        expected = stream.expected - prior_expected
        missing = expected - (stream.packets - prior_packets)
        last_sr, came = self._sender_reports.get(stream.ssrc, (0, now))
        return rtcp.ReportBlock(
            ssrc=stream.ssrc,
            fraction_lost=min(255, (missing << 8) // expected) if expected > 0 and missing > 0 else 0,
            lost=stream.lost,
            highest=stream.highest,
            jitter=int(stream.jitter),
            last_sr=last_sr,
            delay=max(0, int((now - came) * 65_536)),  # who counts in batches hears of one after the tick began
        )


class Requests(Protocol):
    """What else is asked of the sender, as NACK and PLI are."""

    def due(self, now: float) -> list[bytes]:
        """RTCP packets to send at ``now``."""
        ...

    def next_deadline(self) -> float:
        """When ``due`` is to be called next; infinity when nothing is open."""
        ...


class MediaFeedback:
    """Sends the feedback of one transport. ``rtp`` and ``rtcp`` take what comes, decrypted, and are cheap.

    ``transport_cc_ids`` gives the id of the transport-wide-cc extension for each payload type of the offer: ids
    are per media. ``send`` sends one RTCP packet and raises nothing when the peer is gone. ``requests`` are sent
    when they are due; ``chase`` is called when something new is.
    """

    def __init__(
        self,
        send: Callable[[bytes], Awaitable[None]],
        statistics: StreamCounters,
        *,
        ssrc: int,
        cname: str,
        transport_cc_ids: Mapping[int, int],
        clock: Callable[[], float] = time.monotonic,
        requests: Requests | None = None,
    ) -> None:
        self._send = send
        self._ssrc = ssrc
        self._cname = cname
        self._ids = transport_cc_ids
        self._clock = clock
        self._requests = requests
        self._arrivals = ArrivalRecorder()
        self._reports = ReceiverReports(statistics)
        self._media_ssrc = 0
        self._next_report = clock() + REPORT_INTERVAL
        self._task: asyncio.Task[None] | None = None
        self._chaser: asyncio.Task[None] | None = None
        self._news = asyncio.Event()
        #: RTCP packets that could not be read.
        self.malformed = 0

    def rtp(self, data: bytes) -> None:
        """Take one RTP packet. Padding-only probes count like any other; what is no RTP is left out."""
        try:
            header = parse_header(data)
        except RtpError:
            return
        self.arrived(data, header, self._clock())

    def arrived(self, data: bytes, header: RtpHeader, now: float) -> None:
        """Take one RTP packet whose header was parsed before."""
        ext_id = self._ids.get(header.payload_type)
        sequence = None if ext_id is None else transport_sequence(data, header, ext_id)
        if sequence is not None:
            self._media_ssrc = header.ssrc
            self._arrivals.record(sequence, now)

    def rtcp(self, data: bytes) -> list[rtcp.Packet]:
        """Take one RTCP packet: sender reports give the round trip its reference. Returns what was in it."""
        try:
            packets = rtcp.parse(data)
        except rtcp.RtcpError:
            self.malformed += 1
            return []
        for packet in packets:
            self._reports.feed(packet, self._clock())
        return packets

    def due(self, now: float) -> list[bytes]:
        """What is to be sent at ``now``: feedback on each call, reports once a second."""
        packets = self._arrivals.build(self._ssrc, self._media_ssrc, now)
        if now >= self._next_report:
            self._next_report = now + REPORT_INTERVAL
            blocks = self._reports.blocks(now)
            compound = rtcp.sdes(self._ssrc, self._cname)
            for start in range(0, max(1, len(blocks)), rtcp.MAX_BLOCKS):
                report = rtcp.receiver_reports(self._ssrc, blocks[start : start + rtcp.MAX_BLOCKS])
                packets.append(report + compound)
        return packets

    def start(self) -> None:
        """Begin to send; ``close`` ends it."""
        if self._task is None:
            self._task = asyncio.create_task(self._run(), name="media-feedback")

    def chase(self) -> None:
        """Something new is to be requested. The task for it lives only while there is something to wait for."""
        self._news.set()
        if self._task is not None and (self._chaser is None or self._chaser.done()):
            self._chaser = asyncio.create_task(self._chase(), name="media-requests")

    async def close(self) -> None:
        """Stop sending; may be called twice."""
        tasks = {task for task in (self._task, self._chaser) if task is not None}
        self._task = self._chaser = None
        for task in tasks:
            task.cancel()
        if tasks:
            await asyncio.wait(tasks)  # a cancellation of the caller goes through, the tasks' own does not

    async def _run(self) -> None:
        while True:
            await asyncio.sleep(FEEDBACK_INTERVAL)
            for packet in self.due(self._clock()):
                await self._send(packet)

    async def _chase(self) -> None:
        while self._requests is not None and (deadline := self._requests.next_deadline()) < inf:
            self._news.clear()
            with suppress(TimeoutError):
                async with asyncio.timeout(max(0.0, deadline - self._clock())):
                    await self._news.wait()
            for packet in self._requests.due(self._clock()):
                await self._send(packet)
