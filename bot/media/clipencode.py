"""Encoding clips: every layer and variant of the pictures in one pass, until each has the bitrate asked for.

The encoders are set as a WebRTC sender sets them (no lookahead, no reordering, one reference after the other), but
for their speed, which does not hang on the machine's, so that the same clip comes out everywhere.
"""

from __future__ import annotations

import math
import os
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from fractions import Fraction
from typing import Any

import av
import numpy as np
import structlog
from av import AudioFrame, VideoFrame
from av.video.frame import PictureType

from bot.clips.model import OPUS_CLOCK_RATE, VIDEO_CLOCK_RATE, Clip, ClipFrame, ClipLayer
from bot.clips.opus import FRAME_TICKS, level_of
from bot.clips.packets import payloads_of
from bot.clips.spec import SOUND_FPS, TEMPORAL_LAYERS, LayerSpec, SoundSpec, VideoSpec
from bot.errors import ConfigurationError
from bot.media.clipsource import PictureSource, Samples
from bot.media.priority import ordinary_priority
from bot.media.sound import FRAME_SAMPLES, SAMPLE_RATE

log = structlog.get_logger(__name__)

#: Hears of the share that is done (0 to 1); raises to end the encoding.
Progress = Callable[[float], None]

#: A bitrate this near is taken; what is farther off is encoded again for a corrected one, so many times.
_NEAR = 0.05
_PASSES = 6
#: What is farther off in the end is worth a warning: pictures with nothing in them, or too much for the bitrate.
_TOLERATED = 0.1
#: Bit/s that opus can be asked for (RFC 6716 section 2.1.1).
_OPUS_LEAST, _OPUS_MOST = 6_000, 510_000
#: Frames of sound before the loop, from its end: the encoder is in the middle of it when the loop begins.
_WARM_UP = 25
_NEVER = "9999"
#: What a temporal layer takes of the bitrate, with those below it, as WebRTC shares it out.
_TEMPORAL_SHARES = (0.4, 0.6, 1.0)

_VPX = {
    "deadline": "realtime",
    "lag-in-frames": "0",
    "auto-alt-ref": "0",
    "keyint_min": _NEVER,  # as large as the largest distance: no key frame but those asked for
    "qmin": "2",
    "qmax": "63",  # WebRTC stops at 56 and leaves frames out instead; a clip has them all
}
#: Encoder of FFmpeg and its options, by codec.
ENCODERS: dict[str, tuple[str, dict[str, str]]] = {
    # A positive cpu-used would let the speed follow the time that encoding took.
    "vp8": ("libvpx", {**_VPX, "cpu-used": "-6", "error-resilient": "default"}),
    "vp9": ("libvpx-vp9", {**_VPX, "cpu-used": "7", "error-resilient": "1"}),
    "h264": (
        "libx264",
        {
            "preset": "veryfast",
            "tune": "zerolatency",
            "profile": "baseline",
            "forced-idr": "1",
            "x264-params": "scenecut=0:keyint=infinite:level=3.1",
        },
    ),
    "av1": ("libsvtav1", {"preset": "10", "svtav1-params": "pred-struct=1:rc=2:force-key-frames=1:lp=1:scd=0"}),
    "opus": ("libopus", {"application": "audio", "vbr": "constrained", "frame_duration": "20"}),
}


def encoder_versions() -> str:
    """What the result of encoding depends on beside its input."""
    return f"{av.__version__} {av.library_versions.get('libavcodec')}"


def _temporal_layers(rate: int) -> str:
    """The setting of libvpx for TEMPORAL_LAYERS at ``rate`` bit/s."""
    ids = ",".join(str(layer.tid) for layer in TEMPORAL_LAYERS)
    targets = ",".join(str(round(share * rate / 1000)) for share in _TEMPORAL_SHARES)
    return (
        f"ts_number_layers=3:ts_target_bitrate={targets}:ts_rate_decimator=4,2,1:ts_periodicity=4:"
        f"ts_layer_id={ids}:ts_layering_mode=3"
    )


def _context(codec: str) -> Any:
    name, options = ENCODERS[codec]
    if codec == "av1":
        os.environ.setdefault("SVT_LOG", "1")  # it writes to standard error otherwise; 1 leaves its errors
    try:
        context: Any = av.CodecContext.create(name, "w")
    except ValueError as error:  # UnknownCodecError: PyAV was built without it
        raise ConfigurationError(f"codec: {codec} can't be encoded, {name} is missing in PyAV") from error
    context.options = dict(options)
    return context


def next_target(asked: float, outcomes: list[tuple[float, float]]) -> float:
    """What to aim at for ``asked`` bit/s after aims and outcomes so far: between one too low and one too high.

    Encoders follow an aim roughly and not always in the same direction, so that it has to be enclosed.
    """
    outcomes = [(aim, max(1.0, got)) for aim, got in outcomes]
    low = max(((aim, got) for aim, got in outcomes if got < asked), default=None)
    high = min(((aim, got) for aim, got in outcomes if got >= asked), default=None)
    if low and high and low[0] < high[0]:
        share = math.log(asked / low[1]) / math.log(high[1] / low[1])
        return float(low[0] * (high[0] / low[0]) ** min(0.9, max(0.1, share)))
    aim, got = outcomes[-1]
    return float(aim * min(4.0, max(0.25, (asked / got) ** 1.25)))


@dataclass(slots=True)
class _Encoding:
    """One variant of one layer: encoded for ``target`` bit/s, which is corrected until the outcome is near."""

    spec: VideoSpec
    layer: LayerSpec
    keys: frozenset[int]
    target: float
    #: What was aimed at so far, and what came out, in bit/s.
    outcomes: list[tuple[float, float]] = field(default_factory=list)
    context: Any = None
    packets: list[tuple[bytes, bool]] = field(default_factory=list)
    #: How far off the best outcome was, and the outcome.
    best: float = math.inf
    bitrate: float = 0.0
    frames: tuple[ClipFrame, ...] = ()

    def begin(self) -> None:
        """Begin another pass."""
        self.packets = []
        self.context = context = _context(self.spec.codec)
        context.width, context.height, context.pix_fmt = self.layer.width, self.layer.height, "yuv420p"
        context.time_base, context.framerate = Fraction(1, self.spec.fps), Fraction(self.spec.fps)
        context.gop_size, context.thread_count = int(_NEVER), 1
        context.bit_rate = rate = round(self.target)
        if self.spec.codec != "av1":  # SVT-AV1 has constant bitrate in its options, and these would contradict
            # A buffer of a second, half full: what WebRTC gives VP8 and VP9.
            limits = {"minrate": rate, "maxrate": rate, "bufsize": rate, "rc_init_occupancy": rate // 2}
            context.options = {**context.options, **{name: str(value) for name, value in limits.items()}}
        if len(self.spec.temporal_layers) > 1:
            context.options = {**context.options, "ts-parameters": _temporal_layers(rate)}
        with ordinary_priority():
            context.open()

    def add(self, frame: VideoFrame | None, index: int) -> None:
        """Encode the picture ``index``, or what the encoder still holds."""
        if frame is not None:
            frame.pts, frame.time_base = index, Fraction(1, self.spec.fps)
            frame.pict_type = PictureType.I if index in self.keys else PictureType.NONE
        self.packets += [(bytes(packet), bool(packet.is_keyframe)) for packet in self.context.encode(frame)]

    def end(self, duration: Fraction) -> None:
        """End the pass; take its outcome if it is the best so far, and aim better if there is another."""
        self.add(None, 0)
        self.context = None
        frames = tuple(self._packetised())
        got = sum(frame.size for frame in frames) * 8 / float(duration)
        off = abs(got / self.layer.bitrate - 1)
        if got and off < self.best:  # aimed too low, an encoder gives nothing at all
            self.best, self.bitrate, self.frames = off, got, frames
        self.outcomes.append((self.target, got))
        self.target = next_target(self.layer.bitrate, self.outcomes)

    def _packetised(self) -> Iterator[ClipFrame]:
        size, layers = (self.layer.width, self.layer.height), self.spec.temporal_layers
        for index, (data, key) in enumerate(self.packets):
            timestamp = round(Fraction(index * VIDEO_CLOCK_RATE, self.spec.fps))
            layer = layers[index % len(layers)]
            payloads = payloads_of(self.spec.codec, data, key=key, size=size, temporal=layer)
            yield ClipFrame(timestamp, key, payloads)


def encode_video(spec: VideoSpec, source: PictureSource, digest: str, progress: Progress) -> Clip:
    """The clip of ``source`` as ``spec`` asks for it. Raises ConfigurationError, and what ``progress`` raises."""
    count = int(source.duration * spec.fps)
    layers = [
        [_Encoding(spec, layer, spec.key_frames(number, count), layer.bitrate) for number in range(spec.variants)]
        for layer in spec.layers
    ]
    for number in range(_PASSES):
        left = [[item for item in encodings if item.best > _NEAR] for encodings in layers]
        if not any(left):
            break
        _encode_pass(left, source, count, _part(progress, number))
    return Clip(
        media="video",
        codec=spec.codec,
        clock_rate=VIDEO_CLOCK_RATE,
        duration=source.duration,
        layers=tuple(map(_layer, layers)),
        digest=digest,
        name=spec.name,
    )


def _part(progress: Progress, number: int) -> Progress:
    """The progress of one pass as that of the whole."""
    return lambda share: progress((number + share) / _PASSES)


def _encode_pass(layers: list[list[_Encoding]], source: PictureSource, count: int, progress: Progress) -> None:
    """Once through the pictures, for all encodings that are not near enough yet."""
    encodings = [item for layer in layers for item in layer]
    for item in encodings:
        item.begin()
    for index, frames in enumerate(source.pictures()):
        progress(index / count)
        for frame, layer in zip(frames, layers, strict=True):
            for item in layer:
                item.add(frame, index)
    for item in encodings:
        item.end(source.duration)


def _layer(encodings: list[_Encoding]) -> ClipLayer:
    first = encodings[0]
    worst = max(encodings, key=lambda item: item.best)
    if worst.best > _TOLERATED:
        log.warning(
            "A clip has another bitrate than asked for",
            event_name="clip_bitrate",
            clip=first.spec.name,
            height=first.layer.height,
            asked=first.layer.bitrate,
            got=round(worst.bitrate),
        )
    return ClipLayer(
        first.layer.width,
        first.layer.height,
        Fraction(first.spec.fps),
        first.layer.bitrate,
        tuple(item.frames for item in encodings),
    )


def encode_sound(spec: SoundSpec, samples: Samples, digest: str, progress: Progress) -> Clip:
    """``samples`` as a clip whose end goes over into its beginning without a seam. Raises as encode_video does."""
    best: tuple[float, tuple[ClipFrame, ...]] = (math.inf, ())
    target = float(spec.bitrate)
    outcomes: list[tuple[float, float]] = []
    for number in range(_PASSES):
        frames = tuple(_encode_sound(samples, round(target), _part(progress, number)))
        got = sum(frame.size for frame in frames) * 8 * SOUND_FPS / len(frames)
        best = min(best, (abs(got / spec.bitrate - 1), frames), key=lambda found: found[0])
        if best[0] <= _NEAR:
            break
        outcomes.append((target, got))
        target = min(_OPUS_MOST, max(_OPUS_LEAST, next_target(spec.bitrate, outcomes)))
    return Clip(
        media="audio",
        codec="opus",
        clock_rate=OPUS_CLOCK_RATE,
        duration=Fraction(len(samples), SAMPLE_RATE),
        layers=(ClipLayer(0, 0, Fraction(SOUND_FPS), spec.bitrate, (best[1],)),),
        digest=digest,
        name=spec.name,
    )


def _encode_sound(samples: Samples, bitrate: int, progress: Progress) -> Iterator[ClipFrame]:
    context = _context("opus")
    context.sample_rate, context.layout, context.format, context.bit_rate = SAMPLE_RATE, "mono", "s16", bitrate
    context.open()
    # The decoder gives sound that many samples late (RFC 7845 section 5.1), so it is put in that much early.
    skip = int.from_bytes(context.extradata[10:12], "little")
    early = np.roll(samples, -skip)
    count = len(samples) // FRAME_SAMPLES
    packets: list[bytes] = []
    for index in range(-_WARM_UP, count):
        progress(max(0, index) / count)
        at = index % count * FRAME_SAMPLES
        packets += [
            bytes(packet) for packet in context.encode(_sound_frame(early[at : at + FRAME_SAMPLES], index))
        ]
    packets += [bytes(packet) for packet in context.encode(None)]
    for index, packet in enumerate(packets[_WARM_UP : _WARM_UP + count]):
        level = level_of(samples[index * FRAME_SAMPLES : (index + 1) * FRAME_SAMPLES])
        yield ClipFrame(index * FRAME_TICKS, True, payloads_of("opus", packet, key=True), level)


def _sound_frame(samples: Samples, index: int) -> AudioFrame:
    frame = AudioFrame.from_ndarray(np.ascontiguousarray(samples).reshape(1, -1), format="s16", layout="mono")
    frame.sample_rate, frame.time_base = SAMPLE_RATE, Fraction(1, SAMPLE_RATE)
    frame.pts = (index + _WARM_UP) * FRAME_SAMPLES
    return frame
