"""The media session of one participant on the shared engine; to its owner it is as one of aiortc's."""

from __future__ import annotations

import time
from collections.abc import Mapping
from typing import Any

from bot.bridge import rtcp
from bot.bridge.decode import Decode, OnFrame
from bot.bridge.inbound import Inbound
from bot.bridge.payloads import PayloadFormat
from bot.bridge.session import MediaSession, OwnSource
from bot.bridge.twcc import TransportFeedback
from bot.clips.model import OPUS_CLOCK_RATE, VIDEO_CLOCK_RATE, Clip, phase_of
from bot.engine import sockets
from bot.engine.bandwidth import Uplink
from bot.engine.calm import calm
from bot.engine.headers import send_parameters
from bot.engine.inbound import EngineInbound
from bot.engine.layers import LayerControl
from bot.engine.pacer import Ticket, running_pacer
from bot.engine.path import MediaPath
from bot.engine.receiver import Attachment, running_receiver
from bot.engine.send import ClipSender
from bot.engine.sockets import Opener
from bot.engine.streams import Speech, StreamPosition
from bot.jingle.model import Media

#: Seconds between two sender reports of all streams (RFC 3550 section 6.2 would allow more seldom ones).
REPORT_INTERVAL = 1.0


class SharedSession(MediaSession):
    """As :class:`bot.bridge.session.MediaSession`, over sockets that the process reads together.

    Clips go by ``publish_clip``: what was encoded once is sent by the pacer of the process, in all the layers that
    the bridge wants and the link carries. Tracks go by ``publish``, as everywhere. ``endpoint`` says where in a
    clip the participant is; ``open_socket`` opens another kind of EngineSocket.
    """

    def __init__(self, *args: Any, endpoint: str = "", open_socket: Opener | None = None, **options: Any) -> None:
        self._attachment: Attachment | None = None
        self._receiver = running_receiver()
        super().__init__(*args, **options, open_socket=open_socket or sockets.open_socket)
        self._endpoint = endpoint
        #: The estimate of the way to the bridge.
        self.uplink = Uplink(self.transport.sequence)
        self._layers = LayerControl(self.uplink)
        self._clips: dict[str, ClipSender] = {}
        self._by_ssrc: dict[int, ClipSender] = {}
        self._positions: dict[int, StreamPosition] = {}
        #: Of clips that were stopped: the time stamp at that moment, and when it was.
        self._stopped: dict[int, tuple[int, float]] = {}
        self._intra_requests: dict[int, tuple[int, int]] = {}
        self._path: MediaPath | None = None
        self._reports: Ticket | None = None

    @property
    def clips(self) -> dict[str, ClipSender]:
        """What is sent of clips, by source name."""
        return dict(self._clips)

    def check(self, source: OwnSource, codec: str) -> None:
        """Raise UnsupportedMediaError where ``codec`` can't be sent as ``source``."""
        if (content := self._offer.content(source.media)) is not None:
            send_parameters(content, codec)

    def publish_clip(
        self, source: OwnSource, clip: Clip, *, red: bool = False, speech: Speech | None = None
    ) -> ClipSender | None:
        """Send ``clip`` as ``source``, muted or not as it was; in place of another clip it goes on where that was.

        ``red`` sends sound twice where that is offered (RFC 2198). Nothing happens where its kind is not offered.
        Raises UnsupportedMediaError for a codec that is not.
        """
        content = self._offer.content(source.media)
        if content is None:
            return None
        parameters = send_parameters(content, clip.codec, red=red)
        before = self._stop_clip(source.name)
        sender = ClipSender(
            clip,
            ssrcs=source.layers[: len(clip.layers)],
            parameters=parameters,
            path=self._opened(),
            uplink=self.uplink,
            phase=phase_of(self._endpoint, clip.duration),
            speech=speech,
            positions=self._positions,
            clock=self._clock,
        )
        if before is not None:
            sender.muted, sender.max_height = before.muted, before.max_height
        first = not self._clips and not self._senders
        self._clips[source.name] = sender
        self._by_ssrc.update(dict.fromkeys((ssrc for ssrc, _ in source.layers), sender))
        if source.media == "video":
            self._layers.add(sender)
        else:
            self._layers.reserved += sum(sender.rates)
        sender.start(running_pacer())
        if first:
            self._on_phase("first_packet_out")
        return sender

    def adjust(self, name: str, *, muted: bool, max_height: int | None) -> None:
        """Mute a clip, or send it up to ``max_height`` pixels (None is all); nothing happens without one."""
        if (sender := self._clips.get(name)) is not None:
            sender.muted, sender.max_height = muted, max_height

    async def unpublish(self, name: str) -> None:
        """Stop sending a source, a clip or a track, with RTCP BYE."""
        if (sender := self._stop_clip(name)) is not None and self._path is not None:
            ssrcs = [stream.ssrc for stream in sender.streams if stream.packets]
            if ssrcs:
                self._path.send_rtcp(rtcp.receiver_reports(ssrcs[0], []) + rtcp.bye(ssrcs))
        await super().unpublish(name)

    def end_clip(self, name: str) -> None:
        """Send no more of a clip, as a track goes on as the same source."""
        self._stop_clip(name)

    def request_key_frame(self, name: str) -> None:
        """Let the next picture of a source that can be one be a key frame."""
        if (sender := self._clips.get(name)) is not None:
            for stream in sender.streams:
                sender.request_key_frame(stream.ssrc)
        else:
            super().request_key_frame(name)

    async def close(self) -> None:
        """Stop sending and close the transport; may be called twice."""
        for name in list(self._clips):
            self._stop_clip(name)
        if self._reports is not None:
            running_pacer().cancel(self._reports)
            self._reports = None
            calm.went()
        if self._attachment is not None:
            self._attachment.detach()
        try:
            await super().close()
        finally:
            self._path = None
            self._engine_inbound.release(self._clock())

    # --- receiving ---

    def _make_inbound(
        self, formats: Mapping[int, PayloadFormat], decode: Decode, on_frame: OnFrame | None
    ) -> Inbound:
        self._engine_inbound = EngineInbound(
            formats,
            ssrc=self.ssrcs.audio,
            started=self._clock(),
            table=self._receiver.table,
            decode=decode,
            on_frame=on_frame,
            wake=self._chase,
            round_trip=lambda: self._round_trips.value,
            tap=self._tap,
            on_first=lambda: self._on_phase("first_packet_in") if self._attachment is not None else None,
        )
        return self._engine_inbound

    def _connected(self) -> None:
        path = self._path = MediaPath(*self.transport.route())
        self._reports = running_pacer().add(self, time.monotonic() + REPORT_INTERVAL)
        calm.came()
        if path.socket is None:  # a relay's: its packets come one by one
            super()._connected()
            return
        self._attachment = self._receiver.attach(
            self._engine_inbound, path, cname=self._cname, on_rtcp=self.transport.dtls.take_rtcp
        )

    def _read_rtcp(self, data: bytes, now: float) -> list[rtcp.Packet]:
        if self._attachment is None:
            return super()._read_rtcp(data, now)
        return self._attachment.feedback.rtcp(data, now)

    # --- sending ---

    def _opened(self) -> MediaPath:
        """The way of the packets. Raises ConnectionError before there is one."""
        if self._path is None:
            raise ConnectionError("The transport is not connected")
        return self._path

    def send(self, now: float) -> float | None:
        """Send the reports that are due; for the pacer."""
        if self._path is None:
            return None
        for sender in self._clips.values():
            for report in sender.sender_reports(now):
                self._round_trips.sent(report.ssrc, report.ntp, self._clock())
                self._path.send_rtcp(rtcp.sender_report(report) + rtcp.sdes(report.ssrc, self._cname))
        return now + REPORT_INTERVAL

    def _stop_clip(self, name: str) -> ClipSender | None:
        sender = self._clips.pop(name, None)
        if sender is None:
            return None
        sender.stop()
        now = self._clock()
        self._positions.update(sender.positions())
        self._stopped.update((item.ssrc, (item.report(now).timestamp, now)) for item in sender.streams)
        self._by_ssrc = {ssrc: item for ssrc, item in self._by_ssrc.items() if item is not sender}
        if sender.clip.media == "video":
            self._layers.remove(sender)
        else:
            self._layers.reserved -= sum(sender.rates)
        counts = sender.counts()
        before = self._sent_before[sender.clip.media]
        self._sent_before[sender.clip.media] = before[0] + counts.packets, before[1] + counts.octets
        return sender

    def _sent_of(self, media: Media) -> tuple[int, int]:
        packets, octets = super()._sent_of(media)
        counts = [item.counts() for item in self._clips.values() if item.clip.media == media]
        return packets + sum(item.packets for item in counts), octets + sum(item.octets for item in counts)

    def _continued(self, source: OwnSource) -> tuple[int, int] | None:
        position, stopped = self._positions.get(source.ssrc), self._stopped.get(source.ssrc)
        if position is None or stopped is None:
            return None
        stamp, when = stopped
        passed = (self._clock() - when) * (OPUS_CLOCK_RATE if source.media == "audio" else VIDEO_CLOCK_RATE)
        return position.sequence, (stamp + int(passed)) & 0xFFFFFFFF

    # --- what the bridge says ---

    def _take_feedback(self, packet: rtcp.Feedback, now: float) -> None:
        super()._take_feedback(packet, now)
        if packet.kind == rtcp.RTPFB and packet.fmt == rtcp.FMT_NACK:
            if (sender := self._by_ssrc.get(packet.media_ssrc)) is not None:
                sender.round_trip = self.round_trip
                sender.nack(packet.media_ssrc, rtcp.nacked(packet))
        elif packet.kind == rtcp.PSFB:
            self._take_requests(packet, now)

    def _take_requests(self, packet: rtcp.Feedback, now: float) -> None:
        estimate = rtcp.remb(packet)
        if estimate is not None:
            self.uplink.remb(estimate[0], now)
            self._layers.update(now)
            return
        numbers = dict(rtcp.intra_requests(packet))
        for ssrc in rtcp.keyframe_requests(packet):
            sender = self._by_ssrc.get(ssrc)
            request = (packet.sender_ssrc, numbers[ssrc]) if ssrc in numbers else None
            if sender is None or (request is not None and self._intra_requests.get(ssrc) == request):
                continue  # of others, or the same request once more (RFC 5104 section 4.3.1.1)
            if request is not None:
                self._intra_requests[ssrc] = request
            sender.request_key_frame(ssrc)

    def _take_arrivals(self, feedback: TransportFeedback, now: float) -> None:
        super()._take_arrivals(feedback, now)
        self.uplink.feedback(feedback, now)
        self._layers.update(now)
