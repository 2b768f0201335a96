"""One SSRC of a clip: headers and running fields are written, the payloads are shared. Pure: time is a parameter.

A clip is played in a loop on the wall clock, so that RTP time stamps follow from it alone and go on over loops,
mutes, layers that pause and changes between the clip's variants.
"""

from __future__ import annotations

import math
import random
from collections.abc import Sequence
from dataclasses import dataclass
from fractions import Fraction
from typing import NamedTuple, Protocol

from bot.bridge.rtcp import SenderReport
from bot.clips.descriptor import TL0_INDICES
from bot.clips.model import OPUS_CLOCK_RATE, SILENCE_LEVEL, VOICE_LEVEL, Clip, ClipFrame
from bot.engine.bandwidth import Uplink
from bot.engine.headers import MARKER, DescribedHeaders, HeaderLayout, SendParameters, redundant, retransmission
from bot.engine.history import History, Sent
from bot.engine.pacer import PATIENCE, Ticket
from bot.engine.templates import NO_FIELDS, LayerTemplates, Piece, Template

#: Packets that leave at once. A longer frame goes in at most ``PARTS`` parts, ``SPREAD`` seconds apart.
BURST, PARTS, SPREAD = 16, 4, 0.004
#: Frames of 20 ms between two packets in silence: 400 ms, as opus does (RFC 7587 section 3.1.3).
DTX_FRAMES = 20
#: 20 ms of silence: CELT, full band, mono (RFC 6716 section 3.1), the frame that its decoder makes nothing of.
OPUS_SILENCE = b"\xf8\xff\xfe"
#: RFC 3550 section 4: NTP counts from 1900.
_NTP_EPOCH = 2_208_988_800
_VOICE = 0x80


class Path(Protocol):
    """The way to the bridge: protects and sends; raises nothing for a peer that is gone."""

    def send_many(self, packets: Sequence[bytes]) -> None:
        """Send RTP packets."""
        ...


class Speech(Protocol):
    """A model of who talks when."""

    def is_talking(self, t: float) -> bool:
        """Whether the 20 ms of sound at the Unix time ``t`` are talk."""
        ...


class StreamPosition(NamedTuple):
    """Where an SSRC is in its numbers, for another sender of it, be it of another clip.

    ``offset`` is the RTP time stamp of the Unix time 0.
    """

    sequence: int
    offset: int
    picture_id: int = 0
    tl0: int = 0
    rtx_sequence: int = 0

    @classmethod
    def choose(cls, rng: random.Random) -> StreamPosition:
        """Random ones (RFC 3550 section 5.1)."""
        # libsrtp guesses the roll-over counter from the first number it sees: it is below half the range.
        return cls(
            rng.randrange(1, 1 << 15),
            rng.getrandbits(32),
            rng.getrandbits(15),
            rng.getrandbits(8),
            rng.randrange(1, 1 << 15),
        )


class Timeline:
    """Where in the loop a participant is. ``anchor`` is the Unix time at 0 of the monotonic clock.

    Taken once: the monotonic clock is slewed together with the wall clock, and a step of the latter is no reason
    to break a stream.
    """

    __slots__ = ("_start", "anchor", "duration", "phase")

    def __init__(self, duration: Fraction, phase: float, anchor: float) -> None:
        self.duration = float(duration)
        self.anchor, self.phase = anchor, phase
        self._start = phase + anchor

    def loop(self, now: float) -> int:
        """The number of the loop that is played at ``now``."""
        return int((now + self._start) // self.duration)

    def start(self, loop: int) -> float:
        """When a loop starts, in monotonic seconds."""
        return loop * self.duration - self._start

    def wall(self, now: float) -> float:
        """The Unix time at ``now``."""
        return now + self.anchor

    def ticks(self, now: float, clock_rate: int) -> int:
        """RTP ticks from loop 0 to ``now``."""
        return int((now + self._start) * clock_rate)


class KeyFrames:
    """When a key frame was last asked for, in any layer of a picture: all of them go to the same variant then.

    Videobridge goes from layer to layer by key frames that come together, as those of web clients do.
    """

    __slots__ = ("wanted",)

    def __init__(self) -> None:
        self.wanted = -math.inf


@dataclass(frozen=True, slots=True, kw_only=True)
class StreamSetup:
    """What a stream is made of. ``rtx_ssrc`` is for what is sent again; without ``speech`` all sound is talk."""

    layer: LayerTemplates
    clip: Clip
    ssrc: int
    parameters: SendParameters
    path: Path
    uplink: Uplink
    timeline: Timeline
    position: StreamPosition
    key_frames: KeyFrames
    rtx_ssrc: int | None = None
    speech: Speech | None = None


class SendStream:
    """One SSRC. ``send`` sends the frame that is due; ``resume`` says when it is to be called first."""

    def __init__(self, setup: StreamSetup) -> None:
        parameters, layer = setup.parameters, setup.layer
        self.ssrc = setup.ssrc
        self.layer = layer
        self.ticket: Ticket | None = None
        self.active = False
        self._path, self._uplink, self._timeline = setup.path, setup.uplink, setup.timeline
        self._clock_rate, self._clip_ticks = setup.clip.clock_rate, setup.clip.ticks
        self._header = HeaderLayout(setup.ssrc, parameters)
        self._numbered = self._header.numbered
        self._pack = self._header.packer(layer.start, layer.width)
        self._first = self._header.first | (parameters.payload_type if parameters.red is None else parameters.red)
        self._sequence, offset, self._picture_id, self._tl0, self._rtx_sequence = setup.position
        self._offset = offset - self._phase_ticks
        self._frames = layer.variants[0]
        self._index = self._loop = 0
        self._loop_start = 0.0
        self._stamp = 0
        self.packets = self.octets = self.frames = self.skipped = 0

    def __repr__(self) -> str:
        return f"<{type(self).__name__} {self.ssrc} {'on' if self.active else 'off'} sent {self.packets}>"

    @property
    def position(self) -> StreamPosition:
        """What another sender of this SSRC goes on with."""
        offset = (self._offset + self._phase_ticks) & 0xFFFFFFFF
        return StreamPosition(self._sequence, offset, self._picture_id, self._tl0, self._rtx_sequence)

    @property
    def _phase_ticks(self) -> int:
        return round(self._timeline.phase * self._clock_rate)

    def resume(self, now: float) -> float:
        """Go to the first frame that is due at ``now`` or later; returns when that is."""
        self._enter(self._timeline.loop(now))
        offset = now - self._loop_start
        self._index = next(
            (at for at, item in enumerate(self._frames) if item.offset >= offset), len(self._frames)
        )
        if self._index == len(self._frames):
            self._enter(self._loop + 1)
        return self._due()

    def send(self, now: float) -> float | None:
        """Send what is due at ``now``; returns when the next is due."""
        raise NotImplementedError

    def finish(self, now: float) -> None:
        """Send the rest of a frame that has begun: its sequence numbers are taken."""
        del now

    def report(self, now: float) -> SenderReport:
        """What a sender report says at ``now``."""
        ntp = int((self._timeline.wall(now) + _NTP_EPOCH) * (1 << 32))
        stamp = (self._offset + self._timeline.ticks(now, self._clock_rate)) & 0xFFFFFFFF
        return SenderReport(self.ssrc, ntp & (1 << 64) - 1, stamp, self.packets, self.octets)

    def _enter(self, loop: int) -> None:
        self._index, self._loop = 0, loop
        self._loop_start = self._timeline.start(loop)
        self._stamp = self._offset + loop * self._clip_ticks

    def _due(self) -> float:
        return self._loop_start + self._frames[self._index].offset

    def _skip_to(self, now: float) -> float:
        """Leave out what is too late; returns when the next frame is due."""
        before = self._loop * len(self._frames) + self._index
        due = self.resume(now)
        self.skipped += self._loop * len(self._frames) + self._index - before
        return due

    def _emit(
        self,
        pieces: Sequence[Piece],
        sizes: Sequence[int],
        timestamp: int,
        now: float,
        sequence: int,
        *,
        fields: bytes,
        first: int,
        level: int = 0,
    ) -> None:
        """Send packets of one frame, all of them or a part: the innermost loop of all sending."""
        count, pack = len(pieces), self._pack
        middle = self._header.middle(timestamp, now + self._timeline.anchor, level)
        if not self._numbered:
            self._path.send_many(
                [
                    pack(first | mark, sequence + at & 0xFFFF, middle, start, fields) + body
                    for at, (mark, start, body) in enumerate(pieces)
                ]
            )
            return
        wide = self._uplink.take(sizes, now)
        if count == 1:
            mark, start, body = pieces[0]
            self._path.send_many([pack(first | mark, sequence, middle, wide, start, fields) + body])
            return
        self._path.send_many(
            [
                pack(first | mark, sequence + at & 0xFFFF, middle, wide + at & 0xFFFF, start, fields) + body
                for at, (mark, start, body) in enumerate(pieces)
            ]
        )


class PictureStream(SendStream):
    """One layer of a picture. It begins with a key frame, after each pause, too."""

    def __init__(self, setup: StreamSetup) -> None:
        super().__init__(setup)
        rtx = setup.parameters.rtx
        repairs = setup.rtx_ssrc is not None and rtx is not None
        self._rtx_header = HeaderLayout(setup.rtx_ssrc or 0, setup.parameters) if repairs else None
        self._rtx_first = self._header.first | (rtx or 0)
        self._history = History()
        self._key_frames = setup.key_frames
        self._served = -math.inf
        self._waits = True
        #: Whether it ends where the other layers have a key frame: who watches it goes to one of them there.
        self.ending = False
        self._rest: tuple[Sent, int, int] | None = None
        self.key_frames = self.retransmitted = self.retransmitted_octets = 0

    @property
    def unanswered(self) -> int:
        """Packets that were asked for and not sent again."""
        return self._history.unknown + self._history.limited

    @property
    def can_repair(self) -> bool:
        """Whether packets can be sent again."""
        return self._rtx_header is not None

    def resume(self, now: float) -> float:
        """As :meth:`SendStream.resume`; nothing is sent before the next key frame of any variant."""
        self._waits = True
        self._rest = None
        self._key_frames.wanted = now
        return super().resume(now)

    def send(self, now: float) -> float | None:
        """As :meth:`SendStream.send`; a frame of many packets is sent in parts."""
        if self._rest is not None:
            return self._send_rest(self._rest, now)
        if now - self._loop_start - self._frames[self._index].offset > PATIENCE:
            due = self._skip_to(now)
            if due > now:
                return due
        if self._served < self._key_frames.wanted <= self._due() and self._take_key() and self.ending:
            self.active = False
            return None
        frame = self._frames[self._index]
        stamp = (self._stamp + frame.timestamp) & 0xFFFFFFFF
        self._index += 1
        if self._index == len(self._frames):
            self._enter(self._loop + 1)
        due = self._loop_start + self._frames[self._index].offset
        return due if self._waits else self._send_frame(frame, stamp, now, due)

    def _take_key(self) -> bool:
        """Go to the variant that has a key frame here, if there is one: the first of them, as the other layers."""
        keyed = self.layer.keyed[self._index]
        if keyed:
            self._frames = self.layer.variants[keyed[0]]
            self._waits = False
            self._served = self._key_frames.wanted
        return bool(keyed)

    def _send_frame(self, frame: Template, stamp: int, now: float, due: float) -> float:
        count, sequence = frame.count, self._sequence
        tl0 = (self._tl0 - 1 + frame.base) % TL0_INDICES  # of the newest frame of the lowest temporal layer
        fields = self.layer.fields(self._picture_id, tl0)
        self._history.add((sequence, frame, stamp, fields))
        self._sequence = (sequence + count) & 0xFFFF
        self._picture_id = (self._picture_id + 1) % self.layer.picture_ids
        self._tl0 = (tl0 + 1) % TL0_INDICES
        self.packets += count
        self.octets += frame.octets
        self.frames += 1
        if frame.key:
            self.key_frames += 1
        if count > BURST:
            sent = Sent(sequence, frame, stamp, fields)
            return self._send_rest((sent, 0, max(BURST, -(-count // PARTS))), now)
        self._emit(frame.pieces, frame.sizes, stamp, now, sequence, fields=fields, first=self._first)
        return due

    def _send_rest(self, rest: tuple[Sent, int, int], now: float) -> float:
        """Send the next part of a long frame; all of it where the next frame is due."""
        sent, start, size = rest
        frame, due = sent.template, self._due()
        stop = frame.count if now >= due else start + size
        self._rest = (sent, stop, size) if stop < frame.count else None
        self._emit(
            frame.pieces[start:stop],
            frame.sizes[start:stop],
            sent.timestamp,
            now,
            (sent.first + start) & 0xFFFF,
            fields=sent.fields,
            first=self._first,
        )
        return due if self._rest is None else min(due, now + SPREAD)

    def finish(self, now: float) -> None:
        """As :meth:`SendStream.finish`."""
        while self._rest is not None:
            self._send_rest(self._rest, max(now, self._due()))

    def nack(self, sequences: Sequence[int], now: float, round_trip: float | None) -> None:
        """Send again what is asked for, within limits (see :class:`History`)."""
        if self._rtx_header is None:
            return
        for sequence in sequences:
            found = self._history.again(sequence, now, round_trip=round_trip, rate=self.layer.rate)
            if found is not None:
                self._retransmit(sequence, *found, now)

    def latest(self, octets: int) -> list[int]:
        """Sequence numbers of packets of about ``octets`` bytes that could be sent again."""
        return self._history.newest(octets) if self._rtx_header is not None else []

    def repeat(self, sequence: int, now: float) -> int:
        """Send a packet again that nobody asked for; returns its size on the wire."""
        found = self._history.find(sequence)
        return 0 if found is None else self._retransmit(sequence, *found, now)

    def _retransmit(self, sequence: int, sent: Sent, number: int, now: float) -> int:
        size = sent.template.sizes[number] + 2
        numbers = (self._uplink.take((size,), now),) if self._numbered else ()
        header, payload = self._repair(sent, number, now, numbers)
        self._rtx_sequence = (self._rtx_sequence + 1) & 0xFFFF
        self.retransmitted += 1
        self.retransmitted_octets += len(payload) + 2
        self._path.send_many((header + retransmission(sequence, payload),))
        return size

    def _repair(self, sent: Sent, number: int, now: float, numbers: tuple[int, ...]) -> tuple[bytes, bytes]:
        """Header and original payload of a retransmission."""
        header = self._rtx_header
        assert header is not None
        mark, start, body = sent.template.pieces[number]
        middle = header.middle(sent.timestamp, self._timeline.wall(now))
        packed = header.pack(self._rtx_first | mark, self._rtx_sequence, middle, *numbers)
        return packed, start + sent.fields + body


class DescribedStream(PictureStream):
    """A layer of AV1, whose packets have a dependency descriptor in their headers."""

    def __init__(self, setup: StreamSetup) -> None:
        super().__init__(setup)
        self._headers = DescribedHeaders(setup.ssrc, setup.parameters)
        self._rtx_headers = DescribedHeaders(setup.rtx_ssrc or 0, setup.parameters)

    def _emit(
        self,
        pieces: Sequence[Piece],
        sizes: Sequence[int],
        timestamp: int,
        now: float,
        sequence: int,
        *,
        fields: bytes,
        first: int,
        level: int = 0,
    ) -> None:
        """As :meth:`SendStream._emit`; the first packet of a key frame has a longer header."""
        del level
        wide, wall = self._uplink.take(sizes, now) if self._numbered else 0, self._timeline.wall(now)
        self._path.send_many(
            [
                self._headers.pack(
                    first | mark,
                    (sequence + at) & 0xFFFF,
                    timestamp,
                    wall,
                    start[:1] + fields + start[3:],
                    *((wide + at & 0xFFFF,) if self._numbered else ()),
                )
                + body
                for at, (mark, start, body) in enumerate(pieces)
            ]
        )

    def _repair(self, sent: Sent, number: int, now: float, numbers: tuple[int, ...]) -> tuple[bytes, bytes]:
        mark, start, body = sent.template.pieces[number]
        described = start[:1] + sent.fields + start[3:]
        first, wall = self._rtx_first | mark, self._timeline.wall(now)
        header = self._rtx_headers.pack(first, self._rtx_sequence, sent.timestamp, wall, described, *numbers)
        return header, body


class SoundStream(SendStream):
    """Sound: silence is left out (DTX) where a model of speech says so, redundancy (RED) added where wanted."""

    def __init__(self, setup: StreamSetup) -> None:
        super().__init__(setup)
        parameters = setup.parameters
        self._speech = setup.speech
        self._payload_type = parameters.payload_type
        self._redundancy = parameters.red is not None
        self._previous: tuple[bytes, int] | None = None
        self._spurt = True
        self._silent_frames = 0
        #: Whether it is silence whatever the clip has.
        self.muted = False
        #: Frames that were not sent because nobody talks.
        self.left_out = 0

    @property
    def can_repair(self) -> bool:
        """Whether packets can be sent again."""
        return False

    def resume(self, now: float) -> float:
        """As :meth:`SendStream.resume`; the first packet begins a talk spurt."""
        self._spurt, self._silent_frames, self._previous = True, 0, None
        return super().resume(now)

    def send(self, now: float) -> float | None:
        """As :meth:`SendStream.send`."""
        frame = self._frames[self._index]
        due = self._loop_start + frame.offset
        if now - due > PATIENCE:
            due = self._skip_to(now)
            if due > now:
                return due
            frame = self._frames[self._index]
        stamp = (self._stamp + frame.timestamp) & 0xFFFFFFFF
        self._index += 1
        if self._index == len(self._frames):
            self._enter(self._loop + 1)
        if not self.muted and (self._speech is None or self._speech.is_talking(due + self._timeline.anchor)):
            level = SILENCE_LEVEL if frame.level is None else frame.level
            self._send_sound(
                frame, stamp, now, level | _VOICE if level < VOICE_LEVEL else level, spurt=self._spurt
            )
            self._spurt, self._silent_frames = False, 0
        else:
            self._send_silence(stamp, now)
        return self._loop_start + self._frames[self._index].offset

    def _send_silence(self, stamp: int, now: float) -> None:
        """Silence once, then each 400 ms: the receiver's decoder must not go on with what it heard last."""
        if self._silent_frames % DTX_FRAMES:
            self.left_out += 1
        else:
            self._send_sound(_SILENCE, stamp, now, SILENCE_LEVEL, spurt=False)
        self._silent_frames += 1
        self._spurt = True

    def _send_sound(self, frame: Template, stamp: int, now: float, level: int, *, spurt: bool) -> None:
        """``spurt`` is whether a talk spurt begins, which the marker says (RFC 3551 section 4.1)."""
        sequence = self._sequence
        self._sequence = (sequence + 1) & 0xFFFF
        self.packets += 1
        self.frames += 1
        pieces, sizes, octets = frame.pieces, frame.sizes, frame.octets
        if self._redundancy:
            pieces, sizes, octets = self._with_redundancy(frame, stamp)
        self.octets += octets
        first = self._first | MARKER if spurt else self._first
        self._emit(pieces, sizes, stamp, now, sequence, fields=b"", first=first, level=level)

    def _with_redundancy(self, frame: Template, stamp: int) -> tuple[tuple[Piece, ...], tuple[int, ...], int]:
        payload = frame.frame.payloads[0]
        previous, before = self._previous or (None, 0)
        self._previous = payload, stamp
        body = redundant(payload, self._payload_type, previous, (stamp - before) & 0xFFFFFFFF)
        return ((0, b"", body),), (frame.sizes[0] + len(body) - len(payload),), len(body)


_SILENCE = Template(
    ClipFrame(0, key=True, payloads=(OPUS_SILENCE,), level=SILENCE_LEVEL), OPUS_CLOCK_RATE, NO_FIELDS, marked=False
)


def make_stream(setup: StreamSetup) -> PictureStream | SoundStream:
    """The stream of one layer of a clip."""
    if setup.clip.media == "audio":
        return SoundStream(setup)
    return DescribedStream(setup) if setup.layer.described else PictureStream(setup)
