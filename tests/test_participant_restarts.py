"""Restart requests stay within the focus's limits, whatever comes."""

import itertools

from hypothesis import given
from hypothesis import strategies as st

from bot.participant.restarts import MAX_A_MINUTE, MAX_IN_A_ROW, MIN_INTERVAL, RestartBudget


def test_the_first_goes_at_once_and_the_next_one_waits() -> None:
    budget = RestartBudget()
    assert budget.ask(100.0) == 0.0
    assert budget.ask(101.0) == MIN_INTERVAL - 1.0
    assert repr(budget) == "<RestartBudget 2 of 3 used>"


def test_three_in_a_row_are_all_and_a_connected_session_begins_a_new_row() -> None:
    budget = RestartBudget()
    assert [budget.ask(now) for now in (0.0, 100.0, 200.0, 300.0)] == [0.0, 0.0, 0.0, None]
    budget.recovered()
    assert budget.ask(300.0) == 0.0


@given(st.lists(st.floats(0.0, 30.0), min_size=1, max_size=40))
def test_requests_are_never_closer_or_more_than_the_focus_takes(pauses: list[float]) -> None:
    budget, now, sent = RestartBudget(), 0.0, []
    for pause in pauses:
        now += pause
        delay = budget.ask(now)
        assert delay is not None
        assert delay >= 0
        now += delay
        sent.append(now)
        budget.recovered()
    slack = 1e-6
    assert all(later - earlier >= MIN_INTERVAL - slack for earlier, later in itertools.pairwise(sent))
    crowded = zip(sent, sent[MAX_A_MINUTE:], strict=False)
    assert all(later - earlier >= 60.0 - slack for earlier, later in crowded)
    assert MAX_IN_A_ROW == 3
