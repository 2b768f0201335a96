"""The sound of a synthetic participant: pure, a loop of samples without a seam."""

from __future__ import annotations

from typing import Literal

import numpy as np
from numpy.typing import NDArray

SAMPLE_RATE = 48000
FRAME_SAMPLES = 960  # 20 ms
FRAMES_PER_SECOND = SAMPLE_RATE // FRAME_SAMPLES

Mode = Literal["tone", "speech"]
Wave = NDArray[np.float64]

_TONE_SECONDS = 1  # whole Hz fit a whole number of times
_SPEECH_SECONDS = 4
_SYLLABLES = 16  # 4 a second, as in calm speech
_HARMONICS = 10
#: First and second formant in Hz of five vowels (a, e, i, o, u), rounded from textbooks of phonetics.
_VOWELS = ((750, 1200), (500, 1800), (300, 2300), (480, 900), (320, 750))
_FORMANT_WIDTH = 220.0  # Hz
_FULL_SCALE = 32767
LEVEL_MIN = -90.0


def _times(seconds: int) -> Wave:
    return np.arange(seconds * SAMPLE_RATE, dtype=np.float64) / SAMPLE_RATE


def tone(frequency: int) -> Wave:
    """A sine of whole ``frequency`` Hz: one second, which repeats without a seam."""
    return np.sin(2 * np.pi * frequency * _times(_TONE_SECONDS))


def _intoned_phase(frequency: int, rng: np.random.Generator) -> Wave:
    """The phase (radians) of a fundamental that rises and falls by some 6 %, a whole number of turns in all."""
    times = _times(_SPEECH_SECONDS)
    phase = 2 * np.pi * frequency * times
    for cycles, share in ((1, 0.04), (3, 0.02)):
        depth = frequency * share * _SPEECH_SECONDS / cycles
        phase += depth * np.sin(2 * np.pi * cycles * times / _SPEECH_SECONDS + rng.uniform(0, 2 * np.pi))
    return phase


def _envelopes(rng: np.random.Generator) -> list[tuple[slice, Wave, tuple[int, int]]]:
    """Each syllable's samples, its loudness over them (0–1, from and to silence), and its vowel's formants."""
    length = _SPEECH_SECONDS * SAMPLE_RATE // _SYLLABLES
    syllables = []
    for number in range(_SYLLABLES):
        if number % 8 == 7:
            continue  # a breath between phrases
        spoken = int(length * rng.uniform(0.65, 0.95))
        start = number * length
        shape = np.sin(np.pi * np.arange(spoken) / spoken) ** 0.7 * rng.uniform(0.6, 1.0)
        vowel = _VOWELS[int(rng.integers(len(_VOWELS)))]
        syllables.append((slice(start, start + spoken), shape, vowel))
    return syllables


def _gain(frequency: float, formants: tuple[int, int]) -> float:
    """How strongly a vowel sounds at ``frequency`` Hz: two resonances over a falling slope."""
    peaks = sum(np.exp(-(((frequency - formant) / _FORMANT_WIDTH) ** 2)) for formant in formants)
    return float(0.1 + peaks) / (1 + frequency / 1000)


def speech(frequency: int, seed: int) -> Wave:
    """Four seconds of syllables over the harmonics of ``frequency`` Hz; the same for the same ``seed``."""
    rng = np.random.default_rng(seed)
    phase = _intoned_phase(frequency, rng)
    wave = np.zeros_like(phase)
    for samples, loudness, formants in _envelopes(rng):
        turn = phase[samples]
        double_cosine = 2 * np.cos(turn)
        before, now = np.zeros_like(turn), np.sin(turn)
        for harmonic in range(1, min(_HARMONICS, SAMPLE_RATE // 3 // frequency) + 1):
            wave[samples] += _gain(harmonic * frequency, formants) * now
            before, now = now, double_cosine * now - before  # sin((n+1)x) = 2 cos(x) sin(nx) - sin((n-1)x)
        wave[samples] *= loudness
    return wave


def scaled(wave: Wave, level: float) -> NDArray[np.int16]:
    """``wave`` as 16-bit samples of ``level`` dBFS.

    The level is the RMS over the whole loop against full scale (dBov of RFC 6464), lower where peaks would clip.
    """
    rms = float(np.sqrt(np.mean(wave**2)))
    peak = float(np.abs(wave).max())
    gain = min(10 ** (level / 20) / rms, 1 / peak)
    return np.rint(wave * gain * _FULL_SCALE).astype(np.int16)


def frames_of(samples: NDArray[np.int16], channels: int) -> list[bytes]:
    """The loop in packed 20 ms frames, the same sound on every channel."""
    packed = np.repeat(samples, channels).reshape(-1, FRAME_SAMPLES * channels)
    return [frame.tobytes() for frame in packed]


def sound_frames(mode: Mode, frequency: int, *, seed: int, level: float, channels: int) -> list[bytes]:
    """The whole loop as packed s16 frames of 20 ms. Raises ValueError for what can't be made, naming it."""
    if mode not in ("tone", "speech"):
        raise ValueError(f"mode must be 'tone' or 'speech', not {mode!r}")
    if channels not in (1, 2):
        raise ValueError(f"channels must be 1 or 2, not {channels}")
    if not LEVEL_MIN <= level <= 0:
        raise ValueError(f"level must be {LEVEL_MIN:g} to 0 dBFS, not {level:g}")
    if not 20 <= frequency <= SAMPLE_RATE // 4:
        raise ValueError(f"frequency must be 20 to {SAMPLE_RATE // 4} Hz, not {frequency}")
    wave = tone(frequency) if mode == "tone" else speech(frequency, seed)
    return frames_of(scaled(wave, level), channels)
