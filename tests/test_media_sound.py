from __future__ import annotations

import numpy as np
import pytest
from numpy.typing import NDArray

from bot.media.sound import FRAME_SAMPLES, SAMPLE_RATE, Mode, scaled, sound_frames, speech, tone


def _samples(frames: list[bytes]) -> NDArray[np.int16]:
    return np.frombuffer(b"".join(frames), dtype=np.int16)


def _level(samples: NDArray[np.int16]) -> float:
    return float(10 * np.log10(np.mean((samples / 32767.0) ** 2)))


def _peak_frequency(samples: NDArray[np.int16]) -> float:
    spectrum = np.abs(np.fft.rfft(samples * np.hanning(len(samples))))
    return float(np.argmax(spectrum)) * SAMPLE_RATE / len(samples)


@pytest.mark.parametrize("frequency", [100, 217, 300, 1000])
def test_a_tone_has_its_frequency(frequency: int) -> None:
    samples = _samples(sound_frames("tone", frequency, seed=0, level=-20, channels=1))
    assert _peak_frequency(samples) == frequency


@pytest.mark.parametrize("mode", ["tone", "speech"])
@pytest.mark.parametrize("level", [-60.0, -35.5, -20.0])
def test_the_level_is_the_rms(mode: Mode, level: float) -> None:
    samples = _samples(sound_frames(mode, 150, seed=1, level=level, channels=1))
    assert _level(samples) == pytest.approx(level, abs=0.1)


@pytest.mark.parametrize("mode", ["tone", "speech"])
def test_a_level_too_high_is_lowered_and_never_clips(mode: Mode) -> None:
    samples = _samples(sound_frames(mode, 150, seed=1, level=0, channels=1))
    assert int(np.abs(samples.astype(np.int32)).max()) == 32767
    assert np.count_nonzero(np.abs(samples.astype(np.int32)) == 32767) < 2000


@pytest.mark.parametrize("frequency", [100, 233, 300])
def test_the_loops_have_no_seam(frequency: int) -> None:
    """The step over the seam is no larger than those within the loop."""
    for wave in (tone(frequency), speech(frequency, 5)):
        steps = np.abs(np.diff(wave))
        assert abs(wave[0] - wave[-1]) <= steps.max() * 1.001


def test_the_loops_are_whole_frames() -> None:
    assert [len(sound_frames(mode, 200, seed=0, level=-20, channels=1)) for mode in ("tone", "speech")] == [
        50,
        200,
    ]
    assert {len(frame) for frame in sound_frames("tone", 200, seed=0, level=-20, channels=1)} == {
        FRAME_SAMPLES * 2
    }


def test_speech_has_syllables_and_pauses() -> None:
    wave = speech(150, 3).reshape(-1, FRAME_SAMPLES)
    loudness = np.sqrt((wave**2).mean(axis=1))
    spectrum = np.abs(np.fft.rfft(loudness - loudness.mean()))
    rate = np.argmax(spectrum) / (len(loudness) * 0.02)
    assert 3 <= rate <= 5  # syllables a second
    assert np.count_nonzero(loudness == 0) >= 10


def test_speech_is_voiced_at_its_fundamental() -> None:
    """The strongest period between 60 and 500 Hz is that of the fundamental, give or take its intonation."""
    wave = speech(160, 3)[: SAMPLE_RATE // 8]
    spectrum = np.abs(np.fft.rfft(wave, 4 * SAMPLE_RATE)) ** 2
    correlation = np.fft.irfft(spectrum)
    first, last = SAMPLE_RATE // 500, SAMPLE_RATE // 60
    period = first + int(np.argmax(correlation[first:last]))
    assert SAMPLE_RATE / period == pytest.approx(160, rel=0.12)


def test_speech_depends_on_its_seed_alone() -> None:
    assert (speech(150, 1) == speech(150, 1)).all()
    assert not np.allclose(speech(150, 1), speech(150, 2))


def test_high_speech_has_no_harmonics_beyond_what_can_be_sampled() -> None:
    spectrum = np.abs(np.fft.rfft(speech(9000, 1)))
    assert spectrum[: 4 * 8000].max() < spectrum.max() / 50


def test_stereo_is_the_same_on_both_channels() -> None:
    mono = _samples(sound_frames("tone", 200, seed=0, level=-20, channels=1))
    stereo = _samples(sound_frames("tone", 200, seed=0, level=-20, channels=2)).reshape(-1, 2)
    assert (stereo[:, 0] == mono).all()
    assert (stereo[:, 1] == mono).all()


def test_scaled_reaches_full_scale() -> None:
    assert int(scaled(tone(300), 0.0).max()) == 32767


@pytest.mark.parametrize(
    ("mode", "frequency", "level", "channels", "named"),
    [
        ("noise", 200, -20.0, 1, "mode"),
        ("tone", 200, -20.0, 3, "channels"),
        ("tone", 200, 0.5, 1, "level"),
        ("tone", 200, -91.0, 1, "level"),
        ("tone", 200, float("nan"), 1, "level"),
        ("tone", 19, -20.0, 1, "frequency"),
        ("tone", 12001, -20.0, 1, "frequency"),
    ],
)
def test_nonsense_is_refused(mode: Mode, frequency: int, level: float, channels: int, named: str) -> None:
    with pytest.raises(ValueError, match=named):
        sound_frames(mode, frequency, seed=0, level=level, channels=channels)
