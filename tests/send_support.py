"""Clips without meaning, a clock that is turned by hand, and the other end of what is sent."""

from __future__ import annotations

import random
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from fractions import Fraction
from functools import cache

from bot.bridge import rtp
from bot.bridge._aiortc import TransportSequence
from bot.clips.model import Clip, ClipFrame, ClipLayer
from bot.clips.packets import payloads_of
from bot.clips.spec import TEMPORAL_LAYERS
from bot.engine.bandwidth import Uplink
from bot.engine.headers import SendParameters
from bot.engine.pacer import Schedule
from bot.engine.send import ClipSender
from bot.engine.streams import Speech

VIDEO = SendParameters(100, rtx=96, abs_send_time=3, transport_cc=5)
SOUND = SendParameters(111, audio_level=1, abs_send_time=3, transport_cc=5)
UNIX = 1_700_000_000.0
#: Height and bit/s of the layers of a simulcast clip.
LAYERS = ((180, 150_000), (360, 500_000), (720, 2_500_000))


def picture_layer(height: int, bitrate: int, *, fps: int, seconds: int, variants: int) -> ClipLayer:
    """A layer of random bytes, a key frame a second; those of the second variant half a second later."""
    rng = random.Random(height)
    usual = bitrate // 8 // (fps + 3)
    made = []
    for variant in range(variants):
        frames, since_key = [], 0
        for number in range(fps * seconds):
            key = number == 0 or number % fps == variant * fps // 2
            data = rng.randbytes(usual * (4 if key else 1))
            since_key = 0 if key else since_key + 1
            temporal = TEMPORAL_LAYERS[since_key % len(TEMPORAL_LAYERS)]
            payloads = payloads_of("vp8", data, key=key, temporal=temporal)
            frames.append(ClipFrame(number * 90_000 // fps, key, payloads))
        made.append(tuple(frames))
    return ClipLayer(height * 16 // 9, height, Fraction(fps), bitrate, tuple(made))


@cache
def pictures(
    layers: tuple[tuple[int, int], ...] = ((360, 500_000),), *, fps: int = 30, seconds: int = 2, variants: int = 2
) -> Clip:
    """VP8 that no decoder would take."""
    made = tuple(
        picture_layer(height, rate, fps=fps, seconds=seconds, variants=variants) for height, rate in layers
    )
    return Clip("video", "vp8", 90_000, Fraction(seconds), made, "pictures", "noise")


@cache
def sound(seconds: int = 2) -> Clip:
    """Opus that no decoder would take; its level is its number, 0 to 99."""
    rng = random.Random(seconds)
    frames = tuple(
        ClipFrame(number * 960, True, (rng.randbytes(40 + number % 40),), number % 100)
        for number in range(50 * seconds)
    )
    layer = ClipLayer(0, 0, Fraction(50), 32_000, (frames,))
    return Clip("audio", "opus", 48_000, Fraction(seconds), (layer,), "sound", "noise")


@dataclass
class Far:
    """What arrives: each packet with its header and when it was sent."""

    clock: Callable[[], float]
    packets: list[tuple[bytes, rtp.RtpHeader, float]] = field(default_factory=list)
    batches: list[int] = field(default_factory=list)

    def send_many(self, packets: Sequence[bytes]) -> None:
        self.batches.append(len(packets))
        self.packets += [(data, rtp.parse_header(data), self.clock()) for data in packets]

    def of(self, ssrc: int) -> list[tuple[bytes, rtp.RtpHeader, float]]:
        return [item for item in self.packets if item[1].ssrc == ssrc]


class World:
    """Simulated time with a schedule in it that is run each ``tick`` seconds."""

    def __init__(self, *, tick: float = 0.004, start: float = 1000.0) -> None:
        self.now = start
        self.tick = tick
        self.schedule = Schedule(self.clock)
        self.far = Far(self.clock)
        self.uplink = Uplink(TransportSequence())
        self.on_tick: Callable[[], None] = lambda: None

    def clock(self) -> float:
        return self.now

    def wall(self) -> float:
        return self.now + UNIX

    def sender(
        self,
        clip: Clip,
        *,
        parameters: SendParameters | None = None,
        phase: float = 0.0,
        speech: Speech | None = None,
        seed: int = 1,
        start: bool = True,
    ) -> ClipSender:
        """A sender of ``clip`` with the SSRCs 10, 20 … and the RTX SSRCs 11, 21 …, started."""
        video = clip.media == "video"
        made = ClipSender(
            clip,
            ssrcs=[(10 * number, 10 * number + 1 if video else None) for number in range(1, len(clip.layers) + 1)],
            parameters=parameters or (VIDEO if video else SOUND),
            path=self.far,
            uplink=self.uplink,
            phase=phase,
            speech=speech,
            clock=self.clock,
            wall=self.wall,
            rng=random.Random(seed),
        )
        if start:
            made.start(self.schedule)
        return made

    def run(self, seconds: float) -> None:
        """Let time pass."""
        for _ in range(round(seconds / self.tick)):
            self.now += self.tick
            self.schedule.run(self.now)
            self.on_tick()
