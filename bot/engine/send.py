"""Sends the clips of one participant in all layers, and answers what the bridge asks for. Pure: clocks are given.

Per participant only headers and running fields are written: see :mod:`bot.engine.streams`.
"""

from __future__ import annotations

import random
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Protocol

from bot.bridge.rtcp import SenderReport
from bot.clips.model import Clip
from bot.engine.bandwidth import Uplink
from bot.engine.headers import SendParameters
from bot.engine.layers import layers_for_height
from bot.engine.pacer import Scheduled, Ticket
from bot.engine.streams import (
    KeyFrames,
    Path,
    PictureStream,
    SoundStream,
    Speech,
    StreamPosition,
    StreamSetup,
    Timeline,
    make_stream,
)
from bot.engine.templates import templates

#: A train of packets that looks for more bandwidth: bytes of it.
TRAIN_OCTETS = 12_000


class SendPacer(Protocol):
    """What the senders need of a pacer."""

    def add(self, stream: Scheduled, due: float, after: Ticket | None = None) -> Ticket:
        """Let ``stream`` send from ``due`` on."""
        ...

    def cancel(self, ticket: Ticket) -> None:
        """Don't ask it any more."""
        ...


class Train:
    """Packets that are sent again at a rate, to see whether the link carries it."""

    def __init__(self, stream: PictureStream, uplink: Uplink, rate: float, now: float) -> None:
        self._stream = stream
        self._uplink = uplink
        self._rate = rate
        self._started = now
        self._bits = 0.0
        self._sequences = iter(stream.latest(TRAIN_OCTETS))
        uplink.probe(rate, now)

    def send(self, now: float) -> float | None:
        """Send what the rate has come to."""
        while self._bits <= (now - self._started) * self._rate:
            sequence = next(self._sequences, None)
            if sequence is None:
                self._uplink.probed()
                return None
            self._bits += 8 * self._stream.repeat(sequence, now)
        return self._started + self._bits / self._rate


@dataclass(frozen=True, slots=True)
class SenderCounts:
    """What a sender sent: packets and payload bytes without retransmissions, and these; then what it left out.

    ``skipped`` frames came too late, ``left_out`` ones were silence, ``unanswered`` packets asked for in vain.
    """

    packets: int = 0
    octets: int = 0
    frames: int = 0
    key_frames: int = 0
    retransmitted: int = 0
    retransmitted_octets: int = 0
    unanswered: int = 0
    skipped: int = 0
    left_out: int = 0


class ClipSender:
    """One source of one participant: a clip, in all its layers, lowest first.

    ``ssrcs`` are those of the layers with their RTX SSRCs, as many as the clip has layers, lowest first; ``phase``
    is where in the loop the participant is (:func:`bot.clips.model.phase_of`). ``positions`` are those of an
    earlier sender of the same SSRCs. ``clock`` is monotonic, ``wall`` the Unix time.
    """

    def __init__(
        self,
        clip: Clip,
        *,
        ssrcs: Sequence[tuple[int, int | None]],
        parameters: SendParameters,
        path: Path,
        uplink: Uplink,
        phase: float,
        speech: Speech | None = None,
        positions: Mapping[int, StreamPosition] | None = None,
        clock: Callable[[], float] = time.monotonic,
        wall: Callable[[], float] = time.time,
        rng: random.Random | None = None,
    ) -> None:
        if len(ssrcs) != len(clip.layers):
            raise ValueError(f"the clip has {len(clip.layers)} layers, not the {len(ssrcs)} of the SSRCs")
        self.clip = clip
        self._clock = clock
        self._uplink = uplink
        self._templates = templates(clip)
        self._pacer: SendPacer | None = None
        self._train: Ticket | None = None
        self._muted = self._paused = False
        self._max_height: int | None = None
        self._allowed = len(clip.layers)
        #: The round trip to the bridge in seconds, where it is known.
        self.round_trip: float | None = None
        #: Bit/s of each layer on the wire, lowest first.
        self.rates = tuple(layer.rate for layer in self._templates.layers)
        self._key_frames = KeyFrames()
        timeline = Timeline(clip.duration, phase, wall() - clock())
        chooser, known = rng or random.Random(), positions or {}
        #: The layers, lowest first.
        self.streams = tuple(
            make_stream(
                StreamSetup(
                    layer=layer,
                    clip=clip,
                    ssrc=ssrc,
                    rtx_ssrc=rtx_ssrc,
                    parameters=parameters,
                    path=path,
                    uplink=uplink,
                    timeline=timeline,
                    position=known.get(ssrc) or StreamPosition.choose(chooser),
                    key_frames=self._key_frames,
                    speech=speech,
                )
            )
            for layer, (ssrc, rtx_ssrc) in zip(self._templates.layers, ssrcs, strict=True)
        )
        self._pictures = {item.ssrc: item for item in self.streams if isinstance(item, PictureStream)}

    def __repr__(self) -> str:
        return f"<ClipSender {self.clip!r} {self.layers_active} of {len(self.streams)} layers>"

    def start(self, pacer: SendPacer) -> None:
        """Begin to send; may be called again after ``stop``."""
        self._pacer = pacer
        for stream in reversed(self.streams):
            if stream.ticket is None:  # its place: highest layer first, as WebRTC sends them
                stream.ticket = pacer.add(stream, self._clock())
                pacer.cancel(stream.ticket)
        self._apply()

    def stop(self) -> None:
        """Send nothing more; may be called twice. RTCP BYE is the caller's."""
        self._switch(0)
        if self._pacer is not None and self._train is not None:
            self._pacer.cancel(self._train)
        self._pacer = self._train = None

    @property
    def muted(self) -> bool:
        """Whether nobody gets to see or hear it: of a picture nothing is sent, of sound some silence (DTX)."""
        return self._muted

    @muted.setter
    def muted(self, muted: bool) -> None:
        self._muted = muted
        for stream in self.streams:
            if isinstance(stream, SoundStream):
                stream.muted = muted
        self._apply()

    @property
    def paused(self) -> bool:
        """Whether nothing is sent for another reason than a mute."""
        return self._paused

    @paused.setter
    def paused(self, paused: bool) -> None:
        self._paused = paused
        self._apply()

    @property
    def max_height(self) -> int | None:
        """What SenderSourceConstraints asks for: pixels; 0 for nothing, None for no limit. Sound has no height."""
        return self._max_height

    @max_height.setter
    def max_height(self, max_height: int | None) -> None:
        self._max_height = max_height
        self._apply()

    @property
    def layers_allowed(self) -> int:
        """How many layers the link allows."""
        return self._allowed

    @layers_allowed.setter
    def layers_allowed(self, layers_allowed: int) -> None:
        if layers_allowed != self._allowed:
            self._allowed = layers_allowed
            self._apply(at_once=True)

    @property
    def layers_wanted(self) -> int:
        """How many layers would be sent on any link; 0 while muted or paused. Muted sound is silence."""
        if self.clip.media == "audio":
            return 0 if self._paused else len(self.streams)
        if self._muted or self._paused:
            return 0
        return layers_for_height([layer.height for layer in self.clip.layers], self._max_height)

    @property
    def layers_active(self) -> int:
        """How many layers are being sent."""
        return sum(stream.active for stream in self.streams)

    @property
    def bitrate(self) -> float:
        """Bit/s on the wire of the layers that are being sent, without retransmissions."""
        return sum(rate for rate, stream in zip(self.rates, self.streams, strict=True) if stream.active)

    def nack(self, ssrc: int, sequences: Sequence[int]) -> None:
        """Send packets of a layer again; nothing happens for an SSRC of others."""
        if (stream := self._pictures.get(ssrc)) is not None:
            stream.nack(sequences, self._clock(), self.round_trip)

    def request_key_frame(self, ssrc: int) -> None:
        """Let the next key frame of any variant be sent, in all layers; nothing happens for an SSRC of others."""
        if ssrc in self._pictures:
            self._key_frames.wanted = self._clock()

    def probe(self, rate: float, now: float) -> bool:
        """Send a train of packets at ``rate`` bit/s; whether there is anything to make it of."""
        stream = next((item for item in reversed(self.streams) if item.active and item.can_repair), None)
        if self._pacer is None or not isinstance(stream, PictureStream) or not stream.packets:
            return False
        if self._train is not None:
            self._pacer.cancel(self._train)
        self._train = self._pacer.add(Train(stream, self._uplink, rate, now), now)
        return True

    def positions(self) -> dict[int, StreamPosition]:
        """What another sender of the same SSRCs goes on with."""
        return {stream.ssrc: stream.position for stream in self.streams}

    def sender_reports(self, now: float) -> list[SenderReport]:
        """What sender reports say at ``now`` (RFC 3550 section 6.4.1) of the layers that are being sent."""
        return [stream.report(now) for stream in self.streams if stream.active and stream.packets]

    def counts(self) -> SenderCounts:
        """What was sent so far, all layers together."""
        pictures, sounds = (
            self._pictures.values(),
            [item for item in self.streams if isinstance(item, SoundStream)],
        )
        return SenderCounts(
            packets=sum(item.packets for item in self.streams),
            octets=sum(item.octets for item in self.streams),
            frames=sum(item.frames for item in self.streams),
            key_frames=sum(item.key_frames for item in pictures),
            retransmitted=sum(item.retransmitted for item in pictures),
            retransmitted_octets=sum(item.retransmitted_octets for item in pictures),
            unanswered=sum(item.unanswered for item in pictures),
            skipped=sum(item.skipped for item in self.streams),
            left_out=sum(item.left_out for item in sounds),
        )

    def _apply(self, *, at_once: bool = False) -> None:
        if self._pacer is not None:
            self._switch(min(self.layers_wanted, self._allowed), at_once=at_once)

    def _switch(self, layers: int, *, at_once: bool = True) -> None:
        """Send the lowest ``layers``. Where some are left those above end at the next key frame, or at once."""
        for number, stream in enumerate(self.streams):
            if number < layers:
                self._keep(stream)
            elif stream.active:
                self._key_frames.wanted = self._clock()
                self._end(stream, at_once=at_once or not layers)

    def _keep(self, stream: PictureStream | SoundStream) -> None:
        if isinstance(stream, PictureStream):
            stream.ending = False
        if not stream.active:
            self._start(stream)

    def _start(self, stream: PictureStream | SoundStream) -> None:
        assert self._pacer is not None
        stream.active = True
        stream.ticket = self._pacer.add(stream, stream.resume(self._clock()), stream.ticket)

    def _end(self, stream: PictureStream | SoundStream, *, at_once: bool) -> None:
        if isinstance(stream, PictureStream) and not at_once:
            stream.ending = True
            return
        stream.active = False
        if self._pacer is not None and stream.ticket is not None:
            self._pacer.cancel(stream.ticket)
        stream.finish(self._clock())
