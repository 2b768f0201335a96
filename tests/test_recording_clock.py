"""The clock of a recording, in simulated hours: drift, jitter, restarts. No test sleeps."""

from __future__ import annotations

import random
from collections.abc import Iterator
from itertools import pairwise
from typing import NamedTuple

import pytest

from bot.recording.clock import Fastest, Line, MeetingClock, Slewed, unwrap_timestamp

NTP = 1 << 32
#: A wall clock of today, in NTP's seconds.
TODAY = 3_970_000_000.0


class Source:
    """A stream as its sender has it: true time is ours, and what it captures then."""

    def __init__(
        self, ssrc: int, sender: str, rate: int, *, skew: float, wall_skew: float, seed: int, delay: float
    ) -> None:
        self.ssrc, self.sender, self.rate = ssrc, sender, rate
        self.skew, self.wall_skew, self.delay = skew, wall_skew, delay
        self.rng = random.Random(seed)
        self.first = self.rng.randrange(2**32)
        self.step = 0.0

    def timestamp(self, true: float) -> int:
        return (self.first + round(true * (1 + self.skew) * self.rate)) & 0xFFFFFFFF

    def wall(self, true: float) -> float:
        return TODAY + true * (1 + self.wall_skew) + self.step

    def packet(self, clock: MeetingClock, true: float, jitter: float = 0.03) -> None:
        came = true + self.delay + self.rng.expovariate(1 / jitter) if jitter else true + self.delay
        clock.packet(self.ssrc, self.sender, self.rate, self.timestamp(true), came)

    def report(self, clock: MeetingClock, true: float, noise: float = 0.005) -> None:
        ntp = self.wall(true + self.rng.uniform(-noise, noise))
        clock.report(self.ssrc, int(ntp * NTP), self.timestamp(true), true + self.delay)

    def time(self, clock: MeetingClock, true: float) -> float:
        return clock.time(self.ssrc, self.timestamp(true))


class Instant(NamedTuple):
    true: float
    sound: float
    picture: float


def pair(
    *, skew: float = 100e-6, wall_skew: float = -100e-6, picture_delay: float = 0.12
) -> tuple[Source, Source]:
    """Sound and picture of one sender, their clocks 200 ppm apart, the picture's way the longer one."""
    sound = Source(1, "a", 48_000, skew=skew, wall_skew=wall_skew, seed=1, delay=0.05)
    return sound, Source(2, "a", 90_000, skew=-skew, wall_skew=wall_skew, seed=2, delay=picture_delay)


def run(
    clock: MeetingClock, sound: Source, picture: Source, begin: float, end: float, *, reports: bool = True
) -> Iterator[Instant]:
    """Packets each 100 ms, reports each 2 s, both of each stream by themselves."""
    step = round(begin * 10)
    while step < end * 10:
        true = step / 10
        for number, source in enumerate((sound, picture)):
            source.packet(clock, true)
            if reports and (step + 7 * number) % 20 == 0:
                source.report(clock, true)
        yield Instant(true, sound.time(clock, true), picture.time(clock, true))
        step += 1


def test_lips_and_voice_stay_together_for_an_hour_of_drifting_clocks() -> None:
    clock = MeetingClock()
    found = list(run(clock, *pair(), 0.0, 3600.0))
    settled = [item for item in found if item.true > 5]
    assert max(abs(item.sound - item.picture) for item in settled) < 0.02
    # All streams of a meeting are on our clock, late by the fastest way.
    assert max(abs(item.sound - item.true - 0.05) for item in settled if item.true > 60) < 0.04


def test_what_is_written_goes_on_smoothly() -> None:
    clock = MeetingClock()
    found = [item for item in run(clock, *pair(), 0.0, 600.0) if item.true > 5]
    for name in ("sound", "picture"):
        times = [getattr(item, name) for item in found]
        steps = [after - before for before, after in pairwise(times)]
        assert min(steps) > 0.097
        assert max(steps) < 0.103


def test_two_senders_with_clocks_of_their_own_are_on_one() -> None:
    clock = MeetingClock()
    one = pair(wall_skew=-100e-6)
    other = pair(wall_skew=100e-6)
    for source in other:
        source.ssrc, source.sender, source.step = source.ssrc + 2, "b", 5000.0
    for first, second in zip(run(clock, *one, 0.0, 900.0), run(clock, *other, 0.0, 900.0), strict=True):
        if first.true > 60:
            assert abs(first.sound - second.sound) < 0.04


def test_without_reports_time_is_that_of_the_fastest_packets() -> None:
    clock = MeetingClock()
    found = list(run(clock, *pair(), 0.0, 300.0, reports=False))
    assert max(abs(item.sound - item.true - 0.05) for item in found if item.true > 60) < 0.04
    assert max(abs(item.picture - item.true - 0.12) for item in found if item.true > 60) < 0.04


def test_a_sender_that_begins_anew_is_in_time_again_after_its_first_reports() -> None:
    clock = MeetingClock()
    sound, picture = pair()
    list(run(clock, sound, picture, 0.0, 100.0))
    sound.first = (sound.first + 2**31) & 0xFFFFFFFF
    after = list(run(clock, sound, picture, 100.0, 160.0))
    assert max(abs(item.sound - item.true - 0.05) for item in after) < 0.25
    assert max(abs(item.sound - item.picture) for item in after if item.true > 105) < 0.04


def test_a_wall_clock_that_is_set_moves_nothing_for_long() -> None:
    clock = MeetingClock()
    sound, picture = pair()
    list(run(clock, sound, picture, 0.0, 100.0))
    sound.step = picture.step = 30.0
    after = list(run(clock, sound, picture, 100.0, 200.0))
    assert max(abs(item.sound - item.picture) for item in after if item.true > 110) < 0.04
    assert max(abs(item.sound - item.true - 0.05) for item in after if item.true > 110) < 0.1


def test_time_stamps_go_round() -> None:
    clock = MeetingClock()
    sound, picture = pair()
    sound.first = picture.first = 2**32 - 48_000 * 30
    found = list(run(clock, sound, picture, 0.0, 120.0))
    assert max(abs(item.sound - item.picture) for item in found if item.true > 5) < 0.03


def test_an_ssrc_that_carries_another_source_has_another_clock() -> None:
    clock = MeetingClock()
    sound, picture = pair()
    list(run(clock, sound, picture, 0.0, 60.0))
    clock.forget(picture.ssrc)
    other = Source(picture.ssrc, "b", 90_000, skew=0, wall_skew=0, seed=5, delay=0.2)
    other.step = -900.0
    for step in range(600, 900):
        other.packet(clock, step / 10)
        if step % 20 == 0:
            other.report(clock, step / 10)
    assert abs(other.time(clock, 89.9) - 90.1) < 0.05
    assert repr(clock) == "<MeetingClock of 2 streams>"


def test_reports_of_nobody_and_without_a_clock_are_left_out() -> None:
    clock = MeetingClock()
    clock.report(7, int(TODAY * NTP), 0, 0.0)
    clock.packet(7, "a", 90_000, 1000, 10.0)
    clock.report(7, 0, 1000, 10.0)
    assert clock.time(7, 1000) == pytest.approx(10.0)
    with pytest.raises(KeyError):
        clock.time(8, 0)


def test_reports_of_other_time_stamps_than_the_packets_are_left_out() -> None:
    """As Videobridge has them of H264: minutes away, and each as far as the others."""
    clock = MeetingClock()
    sound, picture = pair(picture_delay=0.07)
    found = []
    for instant in run(clock, sound, picture, 0.0, 120.0, reports=False):
        if round(instant.true * 10) % 20 == 0:
            sound.report(clock, instant.true)
            stamp = (picture.timestamp(instant.true) - 719 * 90_000) & 0xFFFFFFFF
            clock.report(picture.ssrc, int(picture.wall(instant.true) * NTP), stamp, instant.true + 0.07)
        found.append(instant)
    assert clock.foreign == 60
    assert max(abs(item.sound - item.picture) for item in found if item.true > 30) < 0.04


def test_where_reports_end_drift_does_not_add_up() -> None:
    """As Videobridge has them of VP8 after it went to another layer."""
    clock = MeetingClock()
    sound, picture = pair(picture_delay=0.07)
    list(run(clock, sound, picture, 0.0, 20.0))
    found = []
    for instant in run(clock, sound, picture, 20.0, 3600.0, reports=False):
        if round(instant.true * 10) % 20 == 0:
            sound.report(clock, instant.true)
        found.append(instant)
    assert max(abs(item.sound - item.picture) for item in found) < 0.04


def test_one_wrong_report_changes_nothing_and_three_begin_anew() -> None:
    line = Line(1000)
    for number in range(10):
        line.feed(1000 * number, 50.0 + number)
    assert not line.feed(10_000, 99.0)
    assert line.time(10_000) == pytest.approx(60.0)
    assert not line.feed(11_000, 61.0)
    assert [line.feed(12_000 + 1000 * number, 99.0 + number) for number in range(3)] == [False, False, True]
    assert line.time(14_000) == pytest.approx(101.0)
    assert not line.feed(13_000, 100.0)  # overtaken
    assert line.time(14_000) == pytest.approx(101.0)


def test_the_least_of_a_minute_is_forgotten_after_it() -> None:
    fastest = Fastest()
    assert fastest.least is None
    assert fastest.feed(5.0, 0.0) == 5.0
    assert fastest.feed(7.0, 1.0) == 5.0
    assert fastest.feed(7.0, 59.0) == 5.0
    assert fastest.feed(7.0, 61.0) == 7.0


def test_corrections_are_slow_but_for_jumps() -> None:
    slewed = Slewed()
    assert slewed.feed(1.0, 0.0) == 1.0
    assert slewed.feed(1.1, 1.0) == pytest.approx(1.01)
    assert slewed.feed(0.9, 2.0) == pytest.approx(1.0)
    assert slewed.feed(9.0, 2.0) == 9.0


def test_unwrapping() -> None:
    assert unwrap_timestamp(5, 2**32 + 1) == 2**32 + 5
    assert unwrap_timestamp(2**32 - 5, 2**32 + 1) == 2**32 - 5
