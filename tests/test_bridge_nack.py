"""Which packets are asked for again, with simulated time."""

import random
from itertools import pairwise
from math import inf

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bot.bridge.nack import (
    KEY_FRAME_INTERVAL,
    MAX_AGE,
    MAX_KEY_FRAME_INTERVAL,
    MAX_MISSING,
    MAX_TRIES,
    MIN_SPACING,
    REORDER_TOLERANCE,
    KeyFrameRequests,
    NackTracker,
)


def tracker_of(*sequences: int, now: float = 0.0) -> NackTracker:
    tracker = NackTracker()
    for sequence in sequences:
        tracker.received(sequence, now)
    return tracker


def test_a_gap_is_asked_for_after_the_tolerance_and_then_once_a_round_trip() -> None:
    tracker = tracker_of(65534, 1)
    assert tracker.missing == 2
    assert tracker.next_deadline() == REORDER_TOLERANCE
    assert tracker.due(REORDER_TOLERANCE - 0.001, 0.1) == []
    assert tracker.due(REORDER_TOLERANCE, 0.1) == [65535, 0]
    assert tracker.due(REORDER_TOLERANCE + 0.05, 0.1) == []
    assert tracker.next_deadline() == pytest.approx(REORDER_TOLERANCE + 0.1)
    assert tracker.due(REORDER_TOLERANCE + 0.11, 0.1) == [65535, 0]


def test_what_is_only_late_is_never_asked_for() -> None:
    tracker = NackTracker()
    assert not tracker.received(1, 0.0)
    assert tracker.received(3, 0.0)
    assert not tracker.received(2, 0.01)
    assert not tracker.received(3, 0.01)
    assert tracker.next_deadline() == inf
    assert tracker.due(1.0, 0.1) == []
    assert tracker.given_up == 0


def test_a_retransmission_repairs_once() -> None:
    tracker = tracker_of(1, 3)
    assert not tracker.repaired(1)
    assert tracker.repaired(2)
    assert not tracker.repaired(2)
    assert not NackTracker().repaired(2)
    assert tracker.missing == 0


def test_age_and_number_of_requests_are_bounded() -> None:
    tracker, now, asked = tracker_of(1, 3), 0.0, 0
    while tracker.missing:
        now = tracker.next_deadline()
        asked += len(tracker.due(now, 0.0))
    assert asked == MAX_TRIES
    assert now == pytest.approx(REORDER_TOLERANCE + MAX_TRIES * MIN_SPACING)
    slow = tracker_of(1, 3)
    assert slow.due(0.5, 0.3) == [2]
    assert slow.due(MAX_AGE, 0.3) == []
    assert (tracker.given_up, slow.given_up, slow.missing) == (1, 1, 0)


def test_the_oldest_gives_way_when_too_much_is_missing() -> None:
    tracker = NackTracker()
    for number in range(0, 2 * MAX_MISSING + 4, 2):
        tracker.received(number, 0.0)
    assert (tracker.missing, tracker.given_up) == (MAX_MISSING, 1)
    assert tracker.due(1.0 - 0.01, 0.1)[0] == 3


@pytest.mark.parametrize("sequence", [5000, 60000])
def test_a_stream_that_began_anew_is_not_asked_for(sequence: int) -> None:
    tracker = tracker_of(1, 3, sequence)
    assert tracker.missing == 0
    assert tracker.given_up >= 1
    assert tracker.received(sequence + 2, 0.0)
    assert tracker.due(0.5, 0.1) == [sequence + 1]
    assert repr(tracker) == f"<NackTracker missing 1 given up {tracker.given_up}>"


@given(
    st.integers(0, 0xFFFF),
    st.lists(st.booleans(), min_size=2, max_size=120),
    st.integers(0, 2**32),
    st.floats(0.0, 0.5),
)
def test_just_the_missing_are_asked_for(first: int, came: list[bool], seed: int, round_trip: float) -> None:
    """In any order of arrival: what lies before the highest and never came is asked for, in bounds."""
    rng = random.Random(seed)
    arrived = [number for number, here in enumerate(came) if here and number] or [1]
    rng.shuffle(arrived)
    tracker = NackTracker()
    tracker.received(first, 0.0)
    for number in arrived:
        tracker.received((first + number) & 0xFFFF, rng.uniform(0.0, REORDER_TOLERANCE / 2))
    wanted = {(first + number) & 0xFFFF for number in range(1, max(arrived)) if number not in arrived}
    asked: list[int] = []
    now = 0.0
    while (deadline := tracker.next_deadline()) < inf:
        assert deadline >= now
        now = deadline
        asked += tracker.due(now, round_trip)
    assert set(asked) == wanted
    assert all(asked.count(sequence) <= MAX_TRIES for sequence in wanted)
    assert now <= MAX_AGE + REORDER_TOLERANCE + 0.5
    assert tracker.given_up == len(wanted)


def test_key_frames_are_asked_for_until_they_come_less_and_less_often() -> None:
    requests = KeyFrameRequests()
    assert requests.next_deadline() == inf
    assert requests.want(7, 1.0)
    assert not requests.want(7, 1.0)
    times: list[float] = []
    while len(times) < 8:
        now = requests.next_deadline()
        assert requests.due(now) == [7]
        times.append(now)
    gaps = [later - earlier for earlier, later in pairwise(times)]
    assert times[0] == 1.0
    assert gaps == [0.5, 1.0, 2.0, 4.0, 8.0, 8.0, 8.0]
    assert (gaps[0], gaps[-1]) == (KEY_FRAME_INTERVAL, MAX_KEY_FRAME_INTERVAL)
    requests.done(7)
    assert requests.next_deadline() == inf


def test_a_key_frame_needed_soon_again_waits() -> None:
    requests = KeyFrameRequests()
    requests.want(7, 1.0)
    assert requests.due(1.0) == [7]
    requests.done(7)
    requests.want(7, 1.1)
    assert requests.due(1.2) == []
    assert requests.due(1.5) == [7]
    requests.forget(7)
    requests.want(7, 1.6)
    assert requests.due(1.6) == [7]
