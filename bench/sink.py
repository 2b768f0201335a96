"""The peer's end of one publisher: what came of it, and the feedback that a bridge gives. Pure."""

from __future__ import annotations

import struct
from dataclasses import dataclass

from bot.bridge import rtcp
from bot.bridge.rtp import RtpError, extensions, parse_header, unwrap_sequence
from bot.bridge.twcc import ArrivalRecorder
from bot.embedded.offer import TRANSPORT_CC_ID

#: Seconds between reports of each kind. Requests are far more frequent than a good link has them.
REPORTS, KEY_FRAMES, LOSSES = 1.0, 5.0, 2.0

_FIXED = struct.Struct("!BBHLL")
_SHORT = struct.Struct("!H")
_NUMBER = TRANSPORT_CC_ID << 4 | 1


class _Stream:
    """One SSRC: where its transport-wide number stands, and the sequence numbers that were seen."""

    __slots__ = ("highest", "last_sr", "number_at", "packets", "shape", "sr_at", "stamp", "ticks")

    def __init__(self) -> None:
        self.packets = 0
        self.highest = 0
        self.stamp: int | None = None
        self.ticks = 0
        self.number_at = 0
        self.shape = b""
        self.last_sr = 0
        self.sr_at = 0.0


@dataclass(slots=True)
class Seen:
    """Counts since the last look. ``late`` holds arrival less time stamp of each picture, in seconds."""

    packets: int
    bytes: int
    expected: int
    numbered: int
    frames: int
    repairs: int
    late: list[float]


class Sink:
    """Takes the packets of one publisher, still encrypted, and says what RTCP to send."""

    def __init__(self, own_ssrc: int, *, audio: int, video: int, repair: int, now: float) -> None:
        self._own_ssrc = own_ssrc
        self._streams = {ssrc: _Stream() for ssrc in (audio, video, repair)}
        self._video, self._repair = video, repair
        self._recorder = ArrivalRecorder()
        self._highest: int | None = None
        self._next_report = now + REPORTS
        self._next_key = now + KEY_FRAMES / 2
        self._next_loss = now + LOSSES
        self._seen = Seen(0, 0, 0, 0, 0, 0, [])
        #: Packets that were no RTP of this publisher.
        self.strange = 0

    def rtp(self, data: bytes, arrival: float) -> None:
        """Take one packet that came at ``arrival`` (monotonic seconds)."""
        _, _, sequence, stamp, ssrc = _FIXED.unpack_from(data)
        stream = self._streams.get(ssrc)
        if stream is None:
            self.strange += 1
            return
        seen = self._seen
        seen.packets += 1
        seen.bytes += len(data)
        stream.packets += 1
        stream.highest = unwrap_sequence(sequence, stream.highest) if stream.packets > 1 else sequence
        if ssrc == self._video:
            self._picture(stream, stamp, arrival)
        elif ssrc == self._repair:
            seen.repairs += 1
        self._number(stream, data, arrival)

    def _picture(self, stream: _Stream, stamp: int, arrival: float) -> None:
        if stream.stamp is None:
            stream.ticks = stamp
        elif stamp == stream.stamp:
            return
        else:
            stream.ticks += ((stamp - stream.stamp + 0x80000000) & 0xFFFFFFFF) - 0x80000000
        stream.stamp = stamp
        self._seen.frames += 1
        self._seen.late.append(arrival - stream.ticks / 90_000)

    def _number(self, stream: _Stream, data: bytes, arrival: float) -> None:
        if data[12:17] != stream.shape or data[stream.number_at - 1] != _NUMBER:
            self._find_number(stream, data)
        if not stream.number_at:
            return
        number = _SHORT.unpack_from(data, stream.number_at)[0]
        self._recorder.record(number, arrival)
        self._seen.numbered += 1
        if self._highest is None:
            self._highest = number - 1
        unwrapped = unwrap_sequence(number, self._highest)
        if unwrapped > self._highest:
            self._seen.expected += unwrapped - self._highest
            self._highest = unwrapped

    @staticmethod
    def _find_number(stream: _Stream, data: bytes) -> None:
        """Packets of a stream have their extensions in the same places, as long as they begin alike."""
        stream.number_at = 0
        try:
            found = extensions(data, parse_header(data))
        except RtpError:
            return
        for ext_id, start, end in found:
            if ext_id == TRANSPORT_CC_ID and end - start == 2:
                stream.number_at = start
        stream.shape = data[12:17]

    def sender_report(self, report: rtcp.SenderReport, now: float) -> None:
        """Note a report, which the next of ours tells of."""
        if (stream := self._streams.get(report.ssrc)) is not None:
            stream.last_sr, stream.sr_at = report.ntp >> 16 & 0xFFFFFFFF, now

    def due(self, now: float) -> tuple[list[bytes], bool]:
        """RTCP packets that are due (transport-wide-cc with each call); whether a key frame is asked for."""
        packets = self._recorder.build(self._own_ssrc, self._video, now)
        if now >= self._next_report:
            self._next_report = now + REPORTS
            packets.append(rtcp.receiver_reports(self._own_ssrc, self._blocks(now)))
        if now >= self._next_loss:
            self._next_loss = now + LOSSES
            packets += self._losses()
        asks = now >= self._next_key
        if asks:
            self._next_key = now + KEY_FRAMES
            packets.append(rtcp.pli(self._own_ssrc, self._video))
        return packets, asks

    def _blocks(self, now: float) -> list[rtcp.ReportBlock]:
        return [
            rtcp.ReportBlock(
                ssrc,
                0,
                0,
                stream.highest,
                20,
                stream.last_sr,
                int((now - stream.sr_at) * 65536) if stream.last_sr else 0,
            )
            for ssrc, stream in self._streams.items()
            if stream.packets and ssrc != self._repair
        ]

    def _losses(self) -> list[bytes]:
        """A request for the last packet of the picture, as if it had been lost."""
        video = self._streams[self._video]
        return [rtcp.nack(self._own_ssrc, self._video, [video.highest & 0xFFFF])] if video.packets else []

    def look(self) -> Seen:
        """What came since the last call."""
        seen, self._seen = self._seen, Seen(0, 0, 0, 0, 0, 0, [])
        return seen
