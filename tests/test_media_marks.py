from __future__ import annotations

import random
import time
from collections.abc import Iterable

import numpy as np
import pytest
from numpy.typing import NDArray

from bot.media.marks import (
    CODES,
    MIDDLE,
    OPUS_LOOKAHEAD,
    SPACING,
    MarkDetector,
    MarkHeard,
    clip_voice,
    mark_wave,
    mix,
    position_of,
)
from bot.media.sound import FRAME_SAMPLES, SAMPLE_RATE, frames_of, scaled, speech, tone
from tests.codec_support import opus_decoded, opus_encoded

FRAME = 0.02


def _samples(frames: Iterable[bytes]) -> NDArray[np.int16]:
    return np.frombuffer(b"".join(frames), np.int16)


def _heard(samples: NDArray[np.int16], start: float = 0.0, step: int = FRAME_SAMPLES) -> list[MarkHeard]:
    detector = MarkDetector()
    heard = []
    for at in range(0, len(samples), step):
        heard += detector.feed(samples[at : at + step], start + at / SAMPLE_RATE)
    return heard


def _errors(heard: list[MarkHeard]) -> list[float]:
    """Seconds by which each was heard off its place; a number at another place than its own fails."""
    places = [round((mark.time - MIDDLE) / SPACING) for mark in heard]
    assert [place % CODES for place in places] == [mark.number for mark in heard]
    return [mark.time - position_of(place) for place, mark in zip(places, heard, strict=True)]


def test_each_half_second_has_its_mark() -> None:
    heard = _heard(_samples(clip_voice(40.0, early=0)))
    assert [mark.number for mark in heard] == [number % CODES for number in range(80)]
    assert max(map(abs, _errors(heard))) < 0.001
    assert len({tuple(np.rint(mark_wave(number) * 1000)) for number in range(CODES)}) == CODES


@pytest.mark.parametrize("step", [77, 240, 480, 5000])
def test_samples_may_come_in_any_pieces(step: int) -> None:
    heard = _heard(_samples(clip_voice(early=0)), 1000.0, step)
    assert [mark.number for mark in heard] == list(range(16))
    assert [mark.time for mark in heard] == pytest.approx([1000 + position_of(n) for n in range(16)], abs=0.001)


def test_a_mark_is_told_soon() -> None:
    samples = _samples(clip_voice(early=0))
    detector = MarkDetector()
    for at in range(0, len(samples), FRAME_SAMPLES):
        for mark in detector.feed(samples[at : at + FRAME_SAMPLES], at / SAMPLE_RATE):
            assert 0.04 <= at / SAMPLE_RATE + FRAME - mark.time <= 0.09


@pytest.mark.parametrize("pitch", [100, 170, 300])
@pytest.mark.parametrize("application", ["voip", "audio"])
def test_marks_are_heard_after_opus_at_24_kbit_s(pitch: int, application: str) -> None:
    packets = opus_encoded(clip_voice(36.0, seed=pitch, pitch=pitch), 24_000, application)
    assert sum(map(len, packets)) * 8 / 36 < 27_000
    heard = _heard(np.concatenate(list(opus_decoded(packets))))
    assert len(heard) >= 0.97 * 72
    errors = _errors(heard)
    assert max(map(abs, errors)) < 0.005
    assert abs(float(np.mean(errors))) < 0.0015  # the codec's delay is made up for


def test_marks_are_heard_where_packets_are_lost() -> None:
    rng = random.Random(5)
    packets: list[bytes | None] = list(opus_encoded(clip_voice(72.0)))
    received = [None if rng.random() < 0.1 else packet for packet in packets]
    heard = _heard(np.concatenate(list(opus_decoded(received))))
    assert len(heard) >= 0.7 * 144
    assert max(map(abs, _errors(heard))) < 0.005


def test_half_a_mark_is_none() -> None:
    for part in (slice(0, 12), slice(13, 40)):  # the mark lies in frames 12 and 13
        frames = [np.frombuffer(frame, np.int16) for frame in clip_voice(0.8, early=0)]
        silence = np.zeros(FRAME_SAMPLES, np.int16)
        cut = [frame if part.start <= index < part.stop else silence for index, frame in enumerate(frames)]
        assert 0 not in [mark.number for mark in _heard(np.concatenate(cut))]


@pytest.mark.parametrize("level", [-60, -45, -6])
def test_marks_are_as_loud_as_the_voice(level: float) -> None:
    samples = _samples(clip_voice(level=level))
    assert len(_heard(samples)) == (16 if level > -60 else 0)


def test_nothing_is_heard_where_there_is_no_mark() -> None:
    rng = np.random.default_rng(3)
    for pitch in (100, 180, 260, 300):
        assert _heard(np.resize(scaled(speech(pitch, pitch), -20), 20 * SAMPLE_RATE)) == []
    for frequency in (440, 3200, 4600):
        assert _heard(np.resize(scaled(tone(frequency), -20), 2 * SAMPLE_RATE)) == []
    both = np.resize(scaled(tone(3200) + tone(4600), -20), 2 * SAMPLE_RATE)
    assert _heard(both) == []  # the tones of a mark, and no beep
    assert _heard(rng.normal(0, 3000, 60 * SAMPLE_RATE).astype(np.int16)) == []
    assert _heard(np.zeros(SAMPLE_RATE, np.int16)) == []


def test_a_jump_of_the_clock_begins_anew() -> None:
    samples = _samples(clip_voice(early=0))
    detector = MarkDetector()
    middle = 13 * FRAME_SAMPLES  # in the midst of mark 0
    assert detector.feed(samples[:middle], 0.0) == []
    late = [
        mark
        for at in range(middle, len(samples), FRAME_SAMPLES)
        for mark in detector.feed(samples[at : at + FRAME_SAMPLES], 5 + at / SAMPLE_RATE)
    ]
    assert [mark.number for mark in late] == list(range(1, 16))
    assert late[0].time == pytest.approx(5 + position_of(1), abs=0.001)


def test_floats_are_taken_too() -> None:
    samples = _samples(clip_voice(early=0))
    heard = MarkDetector().feed((samples / 32768).astype(np.float32), 0.0)
    assert [mark.number for mark in heard] == list(range(16))


@pytest.mark.parametrize("pitch", [100, 160, 220, 280])
@pytest.mark.parametrize("application", ["voip", "audio"])
def test_opus_plays_marks_as_loud_as_they_are(pitch: int, application: str) -> None:
    """Bare tones after a voice make SILK's decoder run into full scale: the noise in the marks is against that."""
    frames = clip_voice(16.0, seed=pitch, pitch=pitch)
    decoded = np.concatenate(list(opus_decoded(opus_encoded(frames, application=application))))
    count = min(len(decoded) // FRAME_SAMPLES, len(frames))
    loud = np.abs(decoded[: count * FRAME_SAMPLES].astype(np.int32)).reshape(count, -1).max(axis=1)
    sent = np.abs(_samples(frames).astype(np.int32)).reshape(len(frames), -1)[:count].max(axis=1)
    near = np.maximum(np.maximum(sent, np.roll(sent, 1)), np.roll(sent, -1))
    assert (loud <= 1.6 * near + 2000).all()


def test_the_voice_gives_way_to_a_mark_and_is_the_same_elsewhere() -> None:
    plain = np.resize(scaled(speech(150, 0), -20), 8 * SAMPLE_RATE)
    marked = plain.copy()
    mix(marked)
    changed = np.flatnonzero(marked != plain) / SAMPLE_RATE
    assert np.abs((changed % SPACING) - MIDDLE).max() <= 0.031
    early = plain.copy()
    mix(early, early=OPUS_LOOKAHEAD)
    first = int(np.flatnonzero(marked != plain)[0]), int(np.flatnonzero(early != plain)[0])
    assert first[0] - first[1] == OPUS_LOOKAHEAD


def test_silence_and_short_sounds_get_no_mark() -> None:
    for samples in (np.zeros(SAMPLE_RATE, np.int16), np.full(20_000, 99, np.int16), np.zeros(0, np.int16)):
        mixed = samples.copy()
        mix(mixed)
        assert (mixed == samples).all()


@pytest.mark.parametrize("duration", [0.0, -1.0, 0.015, 8.0001])
def test_a_clip_must_be_whole_frames(duration: float) -> None:
    with pytest.raises(ValueError, match="duration"):
        clip_voice(duration)


def test_a_clip_is_the_same_for_the_same_seed() -> None:
    assert clip_voice(seed=4) == clip_voice(seed=4)
    assert clip_voice(seed=4) != clip_voice(seed=5)
    assert [len(frame) for frame in clip_voice()] == [2 * FRAME_SAMPLES] * 400
    assert frames_of(_samples(clip_voice()), 1) == clip_voice()


def test_listening_is_cheap() -> None:
    """Below a hundredth of real time."""
    frames = [np.frombuffer(frame, np.int16) for frame in clip_voice()]
    costs = []
    for _ in range(3):
        detector = MarkDetector()
        before = time.thread_time()
        for index, frame in enumerate(frames):
            detector.feed(frame, index * FRAME)
        costs.append((time.thread_time() - before) / len(frames))
    assert min(costs) < 0.0002
