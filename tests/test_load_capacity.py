"""The search for the largest size that is carried."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bot.load import files
from bot.load.capacity import Search, Trial
from bot.load.carry import HOLD, Sizes, outcome_of, staying, verdict
from bot.load.measures import Measures
from bot.load.seating import uncounted
from tests.load_support import measures, report


def searched(start: int, limit: int, capacity: int, step: int = 1, client: int = 10**9) -> Search:
    found = Search(start, limit, step)
    for _ in range(100):
        if (size := found.next()) is None:
            return found
        assert start <= size <= limit
        assert size not in {item.size for item in found.trials}
        outcome = "client" if size > client else "carried" if size <= capacity else "broken"
        found.feed(Trial(size, outcome, "why"))  # type: ignore[arg-type]
    raise AssertionError("it does not end")


@given(st.integers(1, 500), st.integers(0, 500), st.integers(0, 700), st.integers(1, 10))
def test_the_capacity_is_found_to_within_a_step(start: int, more: int, capacity: int, step: int) -> None:
    limit = start + more
    found = searched(start, limit, capacity, step)
    right = min(capacity, limit) if capacity >= start else 0  # nothing below the start is tried
    assert found.carried <= right
    assert right - found.carried < step
    assert (found.broken is None) == (capacity >= limit)
    assert len(found.trials) <= 24


@given(st.integers(1, 300), st.integers(1, 300))
def test_a_limited_client_is_not_taken_for_the_servers_limit(client: int, capacity: int) -> None:
    found = searched(1, 300, capacity, client=client)
    assert found.carried == min(client, capacity, 300)
    assert found.client_limited == (client <= capacity and client < 300)


@pytest.mark.parametrize(("start", "limit", "step"), [(0, 5, 1), (6, 5, 1), (1, 5, 0)])
def test_impossible_searches_are_refused(start: int, limit: int, step: int) -> None:
    with pytest.raises(ValueError, match="can't search"):
        Search(start, limit, step)


def test_sizes_are_rooms_or_participants() -> None:
    rooms = Sizes(files.load(None, conferences=10, participants=4, senders=2))
    assert (rooms.start, rooms.limit, rooms.participants(3), rooms.of(3).total) == (1, 10, 12, 12)
    one = Sizes(files.load(None, participants=50, senders=5, duration="2m", thresholds=("loss < 1%",)))
    assert (one.start, one.limit, one.of(3).senders, one.of(20).senders) == (2, 50, 3, 5)
    assert one.of(20).thresholds == ("loss < 1%",)


def test_every_profile_can_meet_its_thresholds_in_every_size() -> None:
    for name, scenario in files.profiles().items():
        assert uncounted(scenario) is None, name
        for size in (Sizes(scenario).start, Sizes(scenario).limit):
            assert uncounted(Sizes(scenario).of(size)) is None, name
    late = files.load(None, participants=10, warm_up="30s", thresholds=("success > 99%",))
    assert str(uncounted(late)) == "success > 99%"
    assert Sizes(late).of(2).warm_up == 0
    assert uncounted(files.load(None, participants=10, warm_up="30s", thresholds=("loss < 1%",))) is None


def test_a_size_is_held_for_some_time_however_short_the_scenario_is() -> None:
    short = files.load(None, participants=40, duration="10s", warm_up="5s")
    assert Sizes(short).of(2).duration == 25  # the warm-up is the longer wait
    assert Sizes(short).of(40).duration == pytest.approx(39 / 5 + HOLD)
    away = files.load(None, participants=40, duration="20s", ramp={"shape": "up-down"})
    assert Sizes(away).of(40).duration == pytest.approx(2 * 39 / 5 + HOLD)
    steps = files.load(None, participants=40, duration="20s", ramp={"shape": "steps"})
    assert Sizes(steps).of(40).duration == pytest.approx(2 * HOLD, abs=0.1)
    long = files.load(None, participants=40, duration="2m")
    assert Sizes(long).of(40).duration == 120


def test_a_size_that_was_held_for_a_moment_is_not_carried() -> None:
    there = measures()  # 40 from the tenth second on
    passing = files.load(None, participants=40, thresholds=("success > 99%",))
    assert outcome_of(report(scenario=passing, measured=there), 40) == ("carried", "")
    assert outcome_of(report(scenario=passing, measured=there), 41) == (
        "broken",
        "41 were there together for 0 s, less than 10 s",
    )
    short = Measures()
    short.share("success", 1, 1, 0)
    for at in range(12):
        short.over_time("participants", 0 if at < 3 else 40, at)
    assert outcome_of(report(scenario=passing, measured=short), 40)[1].startswith("40 were there together for 9 s")
    churning = files.load(None, participants=40, churn={"share": 0.25})
    assert staying(churning) == 30
    assert outcome_of(report(measured=there, limited=("late",)), 40) == ("client", "late")


def test_the_verdict_says_what_broke_first() -> None:
    scenario = files.load(None, conferences=10, participants=4)
    assert verdict(scenario, searched(1, 10, 6)) == "24 participants were carried; with 28 this broke first: why"
    assert "nothing broke" in verdict(scenario, searched(1, 10, 10))
    begun = Search(1, 10)
    begun.feed(Trial(1, "carried"))
    assert verdict(scenario, begun) == "The search was interrupted: 4 participants were carried until then"
    assert "the server may carry more" in verdict(scenario, searched(1, 10, 10, client=4))
