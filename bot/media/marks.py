"""Marks in sound: a short two-tone beep for each half second of a clip, whose tones tell which half second it is.

What was coded, lost in part and decoded again is listened to as it comes, and the marks in it give the clip's time
to a few milliseconds. Pure; 48 kHz throughout.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.lib.stride_tricks import sliding_window_view
from numpy.typing import NDArray

from bot.media.sound import FRAME_SAMPLES, SAMPLE_RATE, frames_of, scaled, speech

Samples = NDArray[np.int16]
_Floats = NDArray[np.float32]

#: Seconds from mark to mark, and from the start of each such part of the clip to the middle of its mark: the 40 ms
#: around it are two frames of opus, between two syllables of the synthetic voice.
SPACING = 0.5
MIDDLE = 0.26
LENGTH = 0.04
#: Samples by which a decoder's sound is late on its encoder's (libopus at 48 kHz, but for its low-delay mode):
#: marks are drawn so much ahead to be heard on time.
OPUS_LOOKAHEAD = 312

# The tones are multiples of 200 Hz, of which whole periods fit a block of 5 ms: blocks can be added up as they
# are. They lie above the voice's harmonics and in what opus codes well at 24 kbit/s.
_BLOCK = SAMPLE_RATE // 200
_LOW = tuple(range(3200, 4400, 200))
_HIGH = tuple(range(4600, 5800, 200))
_TONES = len(_LOW) + len(_HIGH)
#: How many marks differ; they begin again after that.
CODES = len(_LOW) * len(_HIGH)

#: Peak of each tone against the RMS of the sound, and what is left of the sound under a mark.
_LOUDNESS = 0.6
_DUCKED = 0.1
#: Noise in a mark against its tones' peak: SILK's prediction (RFC 6716 section 4.2.7) makes of bare tones after a
#: voice filters of such gain that the decoder runs into full scale.
_HISS = 0.3
_DUCK_FADE = SAMPLE_RATE // 100

_WINDOW_BLOCKS = 8  # 40 ms, the length of a mark
_AROUND = 8  # blocks before and after a peak that show its shape
#: Amplitude (full scale is 1) below which a tone is not heard.
_AUDIBLE = 0.0008
#: How far the tones of a mark stand out of the other tones, and how much of all sound they are (energy).
_STANDS_OUT = 2.0
_PART_OF_ALL = 0.1
#: Standard deviation in blocks of a mark's loudness as the window slides over it (1.50 as drawn): what is narrower
#: lost one of its packets, what is wider is no beep.
_NARROWEST, _WIDEST = 1.36, 1.7
#: What is lop-sided lost a packet, too: blocks between a beep's loudest window and its middle, and the skewness.
_LOPSIDED = 0.5
_SKEWED = 0.2
#: A stamp that is so many seconds off what the samples before say begins anew.
_JUMP = 0.002


@dataclass(frozen=True, slots=True)
class MarkHeard:
    """Mark ``number`` (0 up to ``CODES``) had its middle at ``time``, on the clock of the stamps, in seconds.

    ``amplitude`` is that of its weaker tone; full scale is 1.
    """

    number: int
    time: float
    amplitude: float


def position_of(number: int) -> float:
    """Where in a clip the middle of mark ``number`` is, in seconds."""
    return number * SPACING + MIDDLE


def _hann(count: int) -> NDArray[np.float64]:
    return np.sin(np.pi * (np.arange(count) + 0.5) / count) ** 2


def mark_wave(number: int) -> NDArray[np.float64]:
    """The sound of mark ``number``: 40 ms, each of both tones with the peak 1, and some noise."""
    high, low = divmod(number % CODES, len(_LOW))
    count = round(LENGTH * SAMPLE_RATE)
    times = (np.arange(count) - count / 2) / SAMPLE_RATE
    tones = [np.cos(2 * np.pi * frequency * times) for frequency in (_LOW[low], _HIGH[high])]
    hiss = np.random.default_rng(number % CODES).normal(0, _HISS, count)
    return (tones[0] + tones[1] + hiss) * _hann(count)


def _duck() -> NDArray[np.float64]:
    """The factor for the sound under a mark, with a fade of 10 ms on either side."""
    fade = _hann(2 * _DUCK_FADE)[:_DUCK_FADE]
    shape = np.concatenate([fade, np.ones(round(LENGTH * SAMPLE_RATE)), fade[::-1]])
    return 1 - (1 - _DUCKED) * shape


def mix(samples: Samples, *, early: int = 0) -> None:
    """Put the marks into a clip of 48 kHz mono in place: one for each whole half second, ``early`` samples ahead.

    They are as loud as the clip is, so that a silent one gets none.
    """
    loudness = _LOUDNESS * float(np.sqrt(np.mean((samples / 1.0) ** 2))) if len(samples) else 0.0
    duck = _duck()
    for number in range(len(samples) // round(SPACING * SAMPLE_RATE)):
        middle = round(position_of(number) * SAMPLE_RATE) - early
        around = slice(middle - len(duck) // 2, middle + len(duck) // 2)
        mixed = samples[around] * duck
        mixed[_DUCK_FADE:-_DUCK_FADE] += loudness * mark_wave(number)
        samples[around] = np.clip(np.rint(mixed), -32768, 32767)


def clip_voice(
    duration: float = 8.0, *, seed: int = 0, pitch: int = 150, level: float = -20.0, early: int = OPUS_LOOKAHEAD
) -> list[bytes]:
    """A loop of synthetic voice with marks, ready for opus: 20 ms frames of 48 kHz mono s16.

    ``duration`` is in seconds, whole frames; ``level`` the RMS in dBFS before the marks. Raises ValueError.
    """
    count = round(duration * SAMPLE_RATE)
    if count <= 0 or count % FRAME_SAMPLES or abs(count / SAMPLE_RATE - duration) > 1e-9:
        raise ValueError(f"duration must be whole frames of 20 ms, not {duration:g} s")
    samples = np.resize(scaled(speech(pitch, seed), level), count)
    mix(samples, early=early)
    return frames_of(samples, 1)


def _probe() -> _Floats:
    """A block's samples to the real and imaginary parts of the tones: an amplitude of 1 gives 1 over a window."""
    times = np.arange(_BLOCK)[:, None] / SAMPLE_RATE
    turns = 2 * np.pi * times * np.array(_LOW + _HIGH)
    gain = 2 / (_BLOCK * _WINDOW_BLOCKS / 2)
    return np.concatenate([np.cos(turns), np.sin(turns)], axis=1).astype(np.float32) * np.float32(gain)


_PROBE = _probe()
_WINDOW = _hann(_WINDOW_BLOCKS).astype(np.float32)
_OFFSETS = np.arange(-_AROUND, _AROUND + 1)


class MarkDetector:
    """Listens for marks in a stream of samples, frame by frame.

    A mark is told some 60 ms of sound after its middle.
    """

    def __init__(self) -> None:
        self._start()

    def __repr__(self) -> str:
        return f"<MarkDetector at {self._next:.3f}>"

    def _start(self, stamp: float = 0.0) -> None:
        self._rest = np.zeros(0, np.float32)
        #: The stamp of what comes next.
        self._next = stamp
        self._blocks = np.zeros((0, 2 * _TONES), np.float32)
        self._powers = np.zeros(0, np.float32)
        self._tones = np.zeros((0, _TONES), np.float32)
        self._levels = np.zeros(0, np.float32)

    def feed(self, samples: NDArray[Any], stamp: float) -> list[MarkHeard]:
        """Take samples (mono; integers of 16 bits, or floats against 1) of which the first is due at ``stamp``.

        A stamp that does not follow from the samples before begins anew. Gives the marks that were completed.
        """
        if abs(stamp - self._next) > _JUMP:
            self._start(stamp)
        floats = samples.astype(np.float32)
        if samples.dtype.kind != "f":
            floats *= np.float32(1 / 32768)
        if len(self._rest):
            floats = np.concatenate([self._rest, floats])
        # Where the sound and the clock of the stamps drift apart, the stamps are right.
        self._next = stamp + len(samples) / SAMPLE_RATE
        whole = len(floats) // _BLOCK
        self._rest = floats[whole * _BLOCK :]
        if not whole:
            return []
        self._transform(floats[: whole * _BLOCK].reshape(whole, _BLOCK))
        return list(self._heard(whole))

    def _transform(self, blocks: _Floats) -> None:
        """From samples to the amplitudes of the tones, and the power of all sound, window by window."""
        keep = _WINDOW_BLOCKS - 1
        self._blocks = np.concatenate([self._blocks[-keep:], blocks @ _PROBE])
        self._powers = np.concatenate([self._powers[-keep:], np.einsum("ij,ij->i", blocks, blocks)])
        if len(self._blocks) <= keep:
            return
        tones = sliding_window_view(self._blocks, _WINDOW_BLOCKS, axis=0) @ _WINDOW
        tones = np.hypot(tones[:, :_TONES], tones[:, _TONES:])
        levels = np.convolve(self._powers, _WINDOW, "valid") / (_BLOCK * _WINDOW_BLOCKS / 2)
        self._tones = np.concatenate([self._tones[-4 * _AROUND :], tones])
        self._levels = np.concatenate([self._levels[-4 * _AROUND :], levels])

    def _heard(self, count: int) -> Iterator[MarkHeard]:
        """Marks whose loudest window is among the last ``count`` that have all of their surroundings."""
        end = len(self._tones) - _AROUND
        first = max(_AROUND, end - count)
        for at in range(first, end):
            mark = self._mark_at(at)
            if mark is not None:
                yield mark

    def _mark_at(self, at: int) -> MarkHeard | None:
        tones = self._tones[at]
        if float(tones.max()) < _AUDIBLE:
            return None
        low, high = tones[: len(_LOW)], tones[len(_LOW) :]
        best_low, best_high = int(low.argmax()), int(high.argmax())
        amplitude = float(min(low[best_low], high[best_high]))
        if amplitude < _AUDIBLE or not self._stands_out(at, best_low, best_high):
            return None
        shape = self._tones[at - _AROUND : at + _AROUND + 1][:, [best_low, len(_LOW) + best_high]]
        offset = _middle_of(shape.min(axis=1))
        if offset is None:
            return None
        number = best_high * len(_LOW) + best_low
        return MarkHeard(number, self._time_of(at) + offset * _BLOCK / SAMPLE_RATE, amplitude)

    def _stands_out(self, at: int, low: int, high: int) -> bool:
        """Whether both tones are much louder than the others of their kind, and a part of what is heard at all."""
        tones = self._tones[at]
        others = np.delete(tones, [low, len(_LOW) + high])
        chosen = tones[[low, len(_LOW) + high]]
        if float(chosen.min()) < _STANDS_OUT * float(others.max()):
            return False
        return float((chosen**2).sum()) / 2 >= _PART_OF_ALL * float(self._levels[at])

    def _time_of(self, at: int) -> float:
        """The stamp of the middle of a window."""
        behind = (len(self._tones) - 1 - at + _WINDOW_BLOCKS / 2) * _BLOCK + len(self._rest)
        return self._next - behind / SAMPLE_RATE


def _middle_of(loudness: _Floats) -> float | None:
    """Where a beep's middle is, in blocks from the middle of ``loudness``; None for what is no beep there.

    The centre of gravity of what is above a quarter of the peak.
    """
    if int(loudness.argmax()) != _AROUND:
        return None
    weights = np.maximum(loudness - 0.25 * loudness[_AROUND], 0)
    weights /= weights.sum()
    middle = float(weights @ _OFFSETS)
    off = _OFFSETS - middle
    deviation = float(np.sqrt(weights @ off**2))
    whole = _NARROWEST <= deviation <= _WIDEST and abs(middle) <= _LOPSIDED
    return middle if whole and abs(float(weights @ off**3)) <= _SKEWED * deviation**3 else None
