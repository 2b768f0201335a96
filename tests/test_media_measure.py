from __future__ import annotations

import random
from collections.abc import Iterator
from fractions import Fraction

import numpy as np
import pytest
from av import AudioFrame, VideoFrame

from bot.clips.model import phase_of
from bot.media.marks import MarkHeard, clip_voice, position_of
from bot.media.measure import FreezeGauge, PathMeter, Percentiles
from bot.media.pattern import ident_of
from bot.media.sound import FRAME_SAMPLES, SAMPLE_RATE
from bot.media.synthetic import SyntheticVideoTrack
from bot.media.watermark import Mark
from tests.codec_support import decoded, encoded, lossy, opus_decoded, opus_encoded, torn

DURATION, FPS = Fraction(8), Fraction(30)
ENDPOINT = "abcd1234"
PHASE = phase_of(ENDPOINT, DURATION)
IDENT = ident_of("bot")
#: A moment at which the endpoint's clip begins.
START = 1_700_000_000 // 8 * 8 + 8 - PHASE
FRAME = 1 / 30


def _meter(phase: float | None = PHASE, ident: int | None = None) -> PathMeter:
    return PathMeter(DURATION, FPS, phase, ident=ident)


def _show(meter: PathMeter, indexes: range, delay: float, start: float = START) -> float:
    at = start
    for index in indexes:
        at = start + index / 30 + delay
        meter.feed_picture(Mark(index % 240, IDENT), at)
    return at


@pytest.mark.parametrize("delay", [0.0, 0.12, 1.5, 7.2, -0.05])
def test_the_delay_of_pictures_is_told(delay: float) -> None:
    meter = _meter()
    end = _show(meter, range(600), delay)
    measures = meter.measures(end)
    assert measures.picture_delay is not None
    assert measures.picture_delay == pytest.approx((delay,) * 4, abs=1e-5)
    assert measures.pictures == 600
    assert measures.fps == pytest.approx(30)
    assert (measures.freezes, measures.frozen) == (0, 0)


def test_another_endpoint_is_elsewhere_in_its_clip() -> None:
    meter = _meter(phase_of("other", DURATION))
    end = _show(meter, range(30), 0.1)
    delay = meter.measures(end).picture_delay
    assert delay is not None
    assert delay.p50 != pytest.approx(0.1, abs=0.01)


@pytest.mark.parametrize("phase", [PHASE, None])
@pytest.mark.parametrize("apart", [0.0, 0.06, -0.2])
def test_lip_sync_is_sound_minus_picture(phase: float | None, apart: float) -> None:
    meter = _meter(phase)
    for index in range(480):
        meter.feed_picture(Mark(index % 240, IDENT), START + index / 30 + 0.25)
        if index % 15 == 14:
            number = index // 15
            meter.feed_sound(MarkHeard(number % 16, START + position_of(number) + 0.25 + apart, 0.1))
    measures = meter.measures(START + 16)
    assert measures.lip_sync is not None
    assert measures.lip_sync.p50 == pytest.approx(apart, abs=1e-5)
    if phase is None:
        assert (measures.picture_delay, measures.sound_delay) == (None, None)
    else:
        assert measures.sound_delay is not None
        assert measures.sound_delay.p50 == pytest.approx(0.25 + apart, abs=1e-5)


def test_sound_alone_has_a_delay_and_no_lip_sync() -> None:
    meter = _meter()
    meter.feed_sound(MarkHeard(3, START + position_of(3) + 0.3, 0.1))
    meter.feed_sound(MarkHeard(35, START + position_of(3) + 0.3, 0.1))  # the clip has no such mark
    measures = meter.measures(START + 3)
    assert measures.sounds == 2
    assert measures.lip_sync is None
    assert measures.sound_delay is not None
    assert measures.sound_delay.p99 == pytest.approx(0.3)


def test_marks_that_come_twice_in_a_long_clip_are_told_apart() -> None:
    meter = PathMeter(Fraction(30), FPS, 0.0)
    start = 1_700_000_010.0  # a multiple of 30
    for index in range(765):  # 25.5 s
        meter.feed_picture(Mark(index, IDENT), start + index / 30 + 0.2)
    meter.feed_sound(MarkHeard(50 % 36, start + position_of(50) + 0.24, 0.1))
    lip_sync = meter.measures(start + 29).lip_sync
    assert lip_sync is not None
    assert lip_sync.p50 == pytest.approx(0.04, abs=1e-5)


def test_pictures_are_told_apart() -> None:
    meter = _meter(ident=IDENT)
    for mark in (Mark(0, IDENT), Mark(0, IDENT), None, Mark(1, IDENT ^ 1), Mark(2, IDENT)):
        meter.feed_picture(mark, START)
    measures = meter.measures(START)
    assert (measures.pictures, measures.repeated, measures.unread, measures.foreign) == (2, 1, 1, 1)


def test_a_freeze_is_a_gap_much_longer_than_usual() -> None:
    """webrtc-stats, freezeCount: max(3 times the average, average + 150 ms)."""
    gauge = FreezeGauge()
    for index in range(40):
        assert gauge.feed(index * FRAME) is None
    last = 39 * FRAME
    assert gauge.frozen(last + 0.18) == 0
    assert gauge.frozen(last + 0.2) == pytest.approx(0.2)
    assert gauge.feed(last + 0.5) == pytest.approx(0.5)
    assert gauge.count == 1
    assert gauge.duration == pytest.approx(0.5)
    assert gauge.feed(last + 0.55) is None
    assert gauge.feed(last + 6.55) is None  # a pause of the sender
    assert gauge.frozen(last + 20) == pytest.approx(0.5)


def test_few_pictures_have_no_usual_gap() -> None:
    gauge = FreezeGauge()
    assert [gauge.feed(at) for at in (0, 1, 2, 2.1, 2.2)] == [None] * 5


def test_a_repeated_picture_does_not_end_a_freeze() -> None:
    told: list[tuple[str, float]] = []
    meter = PathMeter(DURATION, FPS, None, on_value=lambda kind, value: told.append((kind, value)))
    _show(meter, range(60), 0.1)
    for late in range(1, 11):
        meter.feed_picture(Mark(59, IDENT), START + 59 / 30 + 0.1 + late / 30)
    meter.feed_picture(Mark(72, IDENT), START + 72 / 30 + 0.1)
    measures = meter.measures(START + 2.6)
    assert measures.freezes == 1
    assert measures.frozen == pytest.approx(13 / 30, abs=1e-5)
    assert [kind for kind, _ in told] == ["freeze"]
    assert told[0][1] == pytest.approx(13 / 30, abs=1e-5)


def _video(codec: str, loss: float) -> Iterator[tuple[float, VideoFrame]]:
    """A round of the clip through a codec: each picture with its due time."""
    track = SyntheticVideoTrack("room", "bot", wall=lambda: START)
    packets = encoded(codec, (track.render(index) for index in range(240)), 100_000)
    for number, frame in decoded(codec, lossy(torn(packets, loss / 2, 1), loss, 2)):
        yield START + number / 30, frame


def _sound(loss: float) -> Iterator[tuple[float, AudioFrame]]:
    rng = random.Random(4)
    packets: list[bytes | None] = list(opus_encoded(clip_voice()))
    received = [None if rng.random() < loss else packet for packet in packets]
    for index, samples in enumerate(opus_decoded(received)):
        frame = AudioFrame.from_ndarray(samples.reshape(1, -1), format="s16", layout="mono")
        frame.sample_rate, frame.pts = SAMPLE_RATE, index * FRAME_SAMPLES
        frame.time_base = Fraction(1, SAMPLE_RATE)
        yield START + index * 0.02, frame


@pytest.mark.parametrize("codec", ["vp8", "vp9", "h264"])
@pytest.mark.parametrize("loss", [0.0, 0.05])
def test_delay_and_lip_sync_are_right_within_a_frame_through_codecs_and_loss(codec: str, loss: float) -> None:
    """Sound by 180 ms late, pictures by 240 ms, both with some jitter: what is told is that, to one frame."""
    rng = random.Random(6)
    frames: list[tuple[float, VideoFrame | AudioFrame]] = [
        *((due + 0.24 + rng.uniform(-0.01, 0.01), frame) for due, frame in _video(codec, loss)),
        *((due + 0.18 + rng.uniform(-0.01, 0.01), frame) for due, frame in _sound(loss)),
    ]
    meter = _meter(ident=IDENT)
    for at, frame in sorted(frames, key=lambda item: item[0]):
        meter.feed_frame(frame, at)
    measures = meter.measures(START + 8.2)
    assert measures.foreign == 0
    assert measures.picture_delay is not None
    assert measures.sound_delay is not None
    assert measures.lip_sync is not None
    assert measures.picture_delay.p50 == pytest.approx(0.24, abs=0.015)
    assert measures.picture_delay.p5 == pytest.approx(0.24, abs=FRAME)
    assert measures.picture_delay.p95 == pytest.approx(0.24, abs=FRAME)
    assert measures.sound_delay == pytest.approx((0.18,) * 4, abs=0.015)
    assert measures.lip_sync == pytest.approx((-0.06,) * 4, abs=FRAME)
    assert measures.sounds >= (15 if not loss else 10)


def test_stereo_is_listened_to_as_well() -> None:
    meter = _meter()
    for index, data in enumerate(clip_voice(early=0)):
        stereo = np.repeat(np.frombuffer(data, np.int16), 2).reshape(1, -1)
        frame = AudioFrame.from_ndarray(stereo, format="s16", layout="stereo")
        frame.sample_rate, frame.pts = SAMPLE_RATE, index * FRAME_SAMPLES
        frame.time_base = Fraction(1, SAMPLE_RATE)
        meter.feed_frame(frame, START + index * 0.02)
    measures = meter.measures(START + 8)
    assert measures.sounds == 16
    assert measures.sound_delay == pytest.approx((0.0,) * 4, abs=0.001)


def test_other_sound_is_refused() -> None:
    frame = AudioFrame(format="s16", layout="mono", samples=160)
    frame.sample_rate = 8000
    with pytest.raises(ValueError, match="48000 Hz"):
        _meter().feed_frame(frame, START)
    with pytest.raises(ValueError, match="fps"):
        PathMeter(DURATION, Fraction(0), None)


def test_percentiles() -> None:
    assert Percentiles.of([]) is None
    assert Percentiles.of(range(101)) == (5, 50, 95, 99)


def test_nothing_seen_is_nothing_told() -> None:
    measures = _meter().measures(START)
    assert (measures.pictures, measures.fps, measures.frozen, measures.picture_delay) == (0, 0, 0, None)
