"""One stream for a receiver out of the layers of a simulcast sender, as Videobridge projects them. Pure.

The layer changes at a key frame of VP8; sequence numbers, time stamps, picture ids and TL0PICIDX go on as if one
encoder had made it all (RFC 7741 section 4.2). Packets of other codecs go on their first layer alone.
"""

from __future__ import annotations

import struct
from dataclasses import dataclass

from aiortc.codecs.vpx import VpxPayloadDescriptor

from bot.bridge.rtcp import SenderReport
from bot.bridge.rtp import RtpHeader, payload, rewrite, unwrap_sequence
from bot.jingle.model import MediaSources

#: The heights that Videobridge takes for the layers of a camera, lowest first.
HEIGHTS = (180, 360, 720)
#: A layer that sends nothing for so long (seconds) is not to be waited for.
SILENT = 0.5
_OSN = struct.Struct("!H")
_CLOCK_RATE = 90_000


@dataclass(frozen=True, slots=True)
class Simulcast:
    """The layers of a source, lowest first, and their repair streams (0 without one)."""

    name: str
    ssrcs: tuple[int, ...]
    repairs: tuple[int, ...]


def simulcasts(video: MediaSources) -> list[Simulcast]:
    """The simulcast sources among ``video``."""
    repairs = {group.ssrcs[0]: group.ssrcs[1] for group in video.groups if group.semantics == "FID"}
    names = {source.ssrc: source.name or "" for source in video.sources}
    return [
        Simulcast(names.get(group.ssrcs[0], ""), group.ssrcs, tuple(repairs.get(ssrc, 0) for ssrc in group.ssrcs))
        for group in video.groups
        if group.semantics == "SIM"
    ]


class _Layer:
    """What was seen of one layer. Sequence numbers are unwrapped."""

    __slots__ = ("highest", "last", "offset", "since", "stamp_offset")

    def __init__(self) -> None:
        self.highest: int | None = None
        self.last = float("-inf")
        #: What is added to sequence numbers and time stamps while it is the one that is forwarded.
        self.offset = self.stamp_offset = 0
        #: The first sequence number of its present turn.
        self.since = 0

    def unwrapped(self, sequence: int) -> int:
        return sequence if self.highest is None else unwrap_sequence(sequence, self.highest)

    def seen(self, sequence: int, now: float) -> int:
        number = self.unwrapped(sequence)
        self.highest = number if self.highest is None else max(self.highest, number)
        self.last = now
        return number


class Projection:
    """What one receiver gets of one simulcast source, on the SSRCs of its first layer."""

    def __init__(self, source: Simulcast) -> None:
        self.source = source
        self._layers = [_Layer() for _ in source.ssrcs]
        self._current: int | None = None
        self._highest = len(source.ssrcs) - 1
        # The last packet that went out, and the running fields of its descriptor.
        self._sequence = -1
        self._stamp = 0
        self._sent_at = 0.0
        self._picture = self._tl0 = -1
        self._picture_offset = self._tl0_offset = 0
        self._repair_sequence = 0

    def __repr__(self) -> str:
        return f"<Projection of {self.source.name} layer {self._current} of {self._highest}>"

    @property
    def current(self) -> int | None:
        """The layer that is forwarded, from 0; None before the first key frame."""
        return self._current

    def limit(self, height: int) -> None:
        """Forward no layer taller than ``height`` pixels, but the first."""
        heights = HEIGHTS[-len(self._layers) :]
        self._highest = max((at for at, tall in enumerate(heights) if tall <= height), default=0)

    def wanted(self, now: float) -> int:
        """The SSRC of the layer to forward as soon as it has a key frame: the tallest allowed that is sent."""
        return self.source.ssrcs[self._target(now)]

    def is_settled(self, now: float) -> bool:
        """Whether what is wanted is what is forwarded."""
        return self._current == self._target(now)

    def _target(self, now: float) -> int:
        sent = [at for at, layer in enumerate(self._layers) if now - layer.last < SILENT]
        return max((at for at in sent if at <= self._highest), default=min(sent, default=0))

    def rtp(self, data: bytes, header: RtpHeader, now: float, *, vp8: bool) -> bytes | None:
        """The packet as the receiver gets it, None when he does not."""
        at = self.source.ssrcs.index(header.ssrc)
        layer = self._layers[at]
        number = layer.seen(header.sequence, now)
        body = payload(data, header)
        if not body:
            return None  # a probe
        if not vp8:
            return data if at == 0 else None
        descriptor, rest = VpxPayloadDescriptor.parse(body)
        if at != self._current and (at != self._target(now) or not _starts_key_frame(descriptor, rest)):
            return None
        if at != self._current:
            self._turn_to(at, number, header.timestamp, descriptor, now)
        if number < layer.since:
            return None  # late, and of the turn before
        sequence = number + layer.offset
        stamp = (header.timestamp + layer.stamp_offset) & 0xFFFFFFFF
        if sequence > self._sequence:
            self._sequence, self._stamp, self._sent_at = sequence, stamp, now
        rest = self._renumbered(descriptor) + rest
        head = rewrite(data[: header.length], sequence=sequence, timestamp=stamp, ssrc=self.source.ssrcs[0])
        return head + rest

    def _turn_to(self, at: int, number: int, stamp: int, descriptor: VpxPayloadDescriptor, now: float) -> None:
        layer = self._layers[at]
        first = self._current is None
        layer.since = number
        layer.offset = 0 if first else self._sequence + 1 - number
        passed = max(1, round((now - self._sent_at) * _CLOCK_RATE))
        layer.stamp_offset = 0 if first else self._stamp + passed - stamp
        if descriptor.picture_id is not None:
            self._picture_offset = 0 if self._picture < 0 else self._picture + 1 - descriptor.picture_id
        if descriptor.tl0picidx is not None:
            self._tl0_offset = 0 if self._tl0 < 0 else self._tl0 + 1 - descriptor.tl0picidx
        self._current = at

    def _renumbered(self, descriptor: VpxPayloadDescriptor) -> bytes:
        if descriptor.picture_id is not None:
            self._picture = descriptor.picture_id = (descriptor.picture_id + self._picture_offset) & 0x7FFF
        if descriptor.tl0picidx is not None:
            self._tl0 = descriptor.tl0picidx = (descriptor.tl0picidx + self._tl0_offset) & 0xFF
        return bytes(descriptor)

    def rtx(self, data: bytes, header: RtpHeader) -> bytes | None:
        """A repair packet of the layer that is forwarded, with the number that the receiver knows; else None."""
        at = self.source.repairs.index(header.ssrc)
        body = payload(data, header)
        if at != self._current or len(body) <= _OSN.size:
            return None
        layer = self._layers[at]
        number = layer.unwrapped(_OSN.unpack_from(body)[0])
        if number < layer.since:
            return None
        descriptor, rest = VpxPayloadDescriptor.parse(body[_OSN.size :])
        kept = self._picture, self._tl0
        body = _OSN.pack((number + layer.offset) & 0xFFFF) + self._renumbered(descriptor) + rest
        self._picture, self._tl0 = kept  # an old picture is not the last one
        self._repair_sequence += 1
        head = rewrite(
            data[: header.length],
            sequence=self._repair_sequence,
            timestamp=header.timestamp + layer.stamp_offset,
            ssrc=self.source.repairs[0],
        )
        return head + body

    def nacked(self, sequences: list[int]) -> tuple[int, list[int]]:
        """Whom to ask for what a receiver misses: the SSRC, and the numbers there."""
        if self._current is None:
            return self.source.ssrcs[0], []
        layer = self._layers[self._current]
        numbers = [unwrap_sequence(item, self._sequence) - layer.offset for item in sequences]
        return self.source.ssrcs[self._current], [item & 0xFFFF for item in numbers if item >= layer.since]

    def report(self, report: SenderReport) -> SenderReport | None:
        """A sender report of the layer that is forwarded, as one of the receiver's stream; else None."""
        at = self.source.ssrcs.index(report.ssrc)
        if at != self._current:
            return None
        stamp = (report.timestamp + self._layers[at].stamp_offset) & 0xFFFFFFFF
        return SenderReport(self.source.ssrcs[0], report.ntp, stamp, report.packets, report.octets)


def _starts_key_frame(descriptor: VpxPayloadDescriptor, rest: bytes) -> bool:
    return bool(descriptor.partition_start and not descriptor.partition_id and rest and not rest[0] & 1)
