"""What a receiver that decodes can tell of the way from a clip to its screen: delay, rate, freezes, lip sync.

Clips are played on the wall clock (:mod:`bot.clips.model`), so that the marks in picture and sound
(:mod:`bot.media.watermark`, :mod:`bot.media.marks`) say when they were due. Pure: times are given.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from fractions import Fraction
from statistics import median
from typing import Literal, NamedTuple

import numpy as np
from av import AudioFrame, VideoFrame
from numpy.typing import NDArray

from bot.clips.model import position
from bot.media import freezes
from bot.media.marks import CODES, SPACING, MarkDetector, MarkHeard, position_of
from bot.media.sound import SAMPLE_RATE
from bot.media.watch import RateGauge, luma_of
from bot.media.watermark import Mark, read

#: Clocks of sender and receiver may be so many seconds apart the wrong way: a delay a little below 0 is told.
_SKEW = 0.5
#: Sound is held against the pictures shown so many seconds around it.
_TOGETHER = 0.25
_KEPT = 4096
#: How fast the time at which sound comes in follows (as RFC 3550's jitter), and where it begins anew (seconds).
_FOLLOWING = 1 / 16
_RESTART = 0.5

#: Hears each value as it comes, in seconds: how late picture or sound is, sound against picture, an ended freeze.
Kind = Literal["picture_delay", "sound_delay", "lip_sync", "freeze"]
OnValue = Callable[[Kind, float], None]


class Percentiles(NamedTuple):
    """The middle and the ends of many values, in seconds."""

    p5: float
    p50: float
    p95: float
    p99: float

    @classmethod
    def of(cls, values: Iterable[float]) -> Percentiles | None:
        """Those of ``values``, None if there are none."""
        taken = np.fromiter(values, np.float64)
        return cls(*map(float, np.percentile(taken, (5, 50, 95, 99)))) if len(taken) else None


class FreezeGauge:
    """Freezes as W3C's webrtc-stats counts them (freezeCount, totalFreezesDuration).

    A gap between two pictures is one if it is at least three times the average of the 30 before, and 150 ms more.
    """

    def __init__(self) -> None:
        self._gaps: deque[float] = deque(maxlen=freezes.WINDOW)
        self._last: float | None = None
        self.count = 0
        self.duration = 0.0

    def feed(self, now: float) -> float | None:
        """A new picture is shown at ``now`` (seconds). Gives the length of the freeze that it ends, if it does."""
        last, self._last = self._last, now
        if last is None or now - last >= freezes.PAUSE:
            return None
        gap = now - last
        frozen = self._is_freeze(gap)
        self._gaps.append(gap)
        if not frozen:
            return None
        self.count += 1
        self.duration += gap
        return gap

    def _is_freeze(self, gap: float) -> bool:
        if len(self._gaps) < freezes.NEEDED:
            return False
        return gap >= freezes.shortest(sum(self._gaps) / len(self._gaps))

    def frozen(self, now: float) -> float:
        """Seconds of all freezes, also one that lasts, until it is a pause."""
        gap = 0.0 if self._last is None else now - self._last
        return self.duration + (gap if gap < freezes.PAUSE and self._is_freeze(gap) else 0.0)


@dataclass(frozen=True, slots=True)
class PathMeasures:
    """What was seen of one endpoint so far. Times are seconds; percentiles are of the last 4096 values.

    ``pictures`` are those with a new mark; ``repeated`` had the mark before, ``unread`` none, ``foreign`` another
    clip's. ``fps`` is of the last two seconds. Delays are modulo the clip's duration, None without marks or where
    the phase is unknown. ``lip_sync`` is sound minus picture: positive where the sound is late.
    """

    pictures: int
    repeated: int
    unread: int
    foreign: int
    fps: float
    freezes: int
    frozen: float
    sounds: int
    picture_delay: Percentiles | None
    sound_delay: Percentiles | None
    lip_sync: Percentiles | None


class PathMeter:
    """Holds the marks that come from one endpoint against the wall clock.

    ``duration`` (seconds) and ``fps`` are those of the endpoint's clip, ``phase`` is what
    :func:`bot.clips.model.phase_of` gives for the endpoint, None where that is not known: then only lip sync, rate
    and freezes are told. ``ident`` is that of the clip (:func:`bot.media.pattern.ident_of`), None for any. Times
    (``at``) are Unix seconds on a clock kept by NTP. ``on_value`` hears each value as it comes.
    """

    def __init__(
        self,
        duration: Fraction,
        fps: Fraction,
        phase: float | None,
        *,
        ident: int | None = None,
        on_value: OnValue | None = None,
    ) -> None:
        if duration <= 0 or fps <= 0:
            raise ValueError(f"duration and fps must be above 0, not {float(duration):g} s and {float(fps):g}")
        self._duration = duration
        self._fps = fps
        self._phase = phase
        self._ident = ident
        self._on_value = on_value
        self._values: dict[Kind, deque[float]] = {
            kind: deque(maxlen=_KEPT) for kind in ("picture_delay", "sound_delay", "lip_sync")
        }
        self._rate = RateGauge(0.0)
        self._freezes = FreezeGauge()
        self._shown: deque[tuple[float, float]] = deque(maxlen=64)
        self._index: int | None = None
        self._repeated = self._unread = self._foreign = self._sounds = 0
        self._ear = MarkDetector()
        self._sound_clock: float | None = None

    def __repr__(self) -> str:
        return f"<PathMeter {self._rate.frames} pictures, {self._sounds} sounds>"

    def _tell(self, kind: Kind, value: float) -> None:
        if kind in self._values:
            self._values[kind].append(value)
        if self._on_value is not None:
            self._on_value(kind, value)

    def _late(self, at: float, due: float) -> float:
        """How late what is due at the clip's time ``due`` is at ``at``; from an unknown start without a phase."""
        late = (position(at, self._phase or 0.0, self._duration) - due) % float(self._duration)
        return late - float(self._duration) if late > float(self._duration) - _SKEW else late

    # --- pictures ---

    def feed_picture(self, mark: Mark | None, at: float) -> None:
        """A decoded picture with ``mark``, or none that could be read, is there to be shown at ``at``."""
        if mark is None:
            self._unread += 1
        elif self._ident is not None and mark.ident != self._ident:
            self._foreign += 1
        elif mark.index == self._index:
            self._repeated += 1
        else:
            self._new_picture(mark.index, at)

    def _new_picture(self, index: int, at: float) -> None:
        self._index = index
        self._rate.feed(at)
        freeze = self._freezes.feed(at)
        if freeze is not None:
            self._tell("freeze", freeze)
        late = self._late(at, float(index / self._fps))
        self._shown.append((at, late))
        if self._phase is not None:
            self._tell("picture_delay", late)

    # --- sound ---

    def feed_sound(self, heard: MarkHeard) -> None:
        """A mark was played at ``heard.time``."""
        self._sounds += 1
        pictures = [late for at, late in self._shown if abs(at - heard.time) <= _TOGETHER]
        picture = median(pictures) if pictures else None
        lates = [self._late(heard.time, due) for due in self._places_of(heard.number)]
        if not lates:
            return  # a mark of another clip
        late = (
            min(lates, key=abs) if picture is None else min(lates, key=lambda one: abs(self._turn(one - picture)))
        )
        if self._phase is not None:
            self._tell("sound_delay", late)
        if picture is not None:
            self._tell("lip_sync", self._turn(late - picture))

    def _places_of(self, number: int) -> list[float]:
        """Where in the clip the mark is: in long clips at more than one place."""
        count = int(self._duration / Fraction(SPACING))
        return [position_of(place) for place in range(number, count, CODES)]

    def _turn(self, seconds: float) -> float:
        """A difference of two places in the loop, the short way round."""
        half = float(self._duration) / 2
        return (seconds + half) % (2 * half) - half

    # --- decoded frames ---

    def feed_frame(self, frame: VideoFrame | AudioFrame, at: float) -> None:
        """A decoded frame that is there to be shown or played at ``at``; fits ``on_frame`` of FrameWatcher.

        Sound must be of 48 kHz and have time stamps (``pts``). Raises ValueError for other sound.
        """
        if isinstance(frame, VideoFrame):
            self.feed_picture(read(luma_of(frame)), at)
        else:
            self._feed_audio(frame, at)

    def _feed_audio(self, frame: AudioFrame, at: float) -> None:
        if frame.sample_rate != SAMPLE_RATE or frame.time is None:
            raise ValueError(f"sound must be of {SAMPLE_RATE} Hz and stamped, not {frame}")
        # Frames come in with jitter, their samples without a gap: the marks are found on the media's clock.
        offset = at - frame.time
        clock = self._sound_clock
        if clock is None or abs(offset - clock) > _RESTART:
            self._sound_clock = offset
        else:
            self._sound_clock = clock + (offset - clock) * _FOLLOWING
        for heard in self._ear.feed(_first_channel(frame), frame.time):
            self.feed_sound(MarkHeard(heard.number, heard.time + self._sound_clock, heard.amplitude))

    def measures(self, now: float) -> PathMeasures:
        """What was seen until ``now``."""
        return PathMeasures(
            pictures=self._rate.frames,
            repeated=self._repeated,
            unread=self._unread,
            foreign=self._foreign,
            fps=self._rate.rate(now),
            freezes=self._freezes.count,
            frozen=self._freezes.frozen(now),
            sounds=self._sounds,
            picture_delay=Percentiles.of(self._values["picture_delay"]),
            sound_delay=Percentiles.of(self._values["sound_delay"]),
            lip_sync=Percentiles.of(self._values["lip_sync"]),
        )


def _first_channel(frame: AudioFrame) -> NDArray[np.generic]:
    samples = frame.to_ndarray()
    return samples[0] if frame.format.is_planar else samples[0, :: len(frame.layout.channels)]
