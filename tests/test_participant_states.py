"""The state graph: legal steps only, and every state has a way out."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bot.participant.states import FINAL, IN_ROOM, TRANSITIONS, IllegalTransitionError, State, StateGraph


def test_the_normal_life() -> None:
    graph = StateGraph(now=1.0)
    life = [
        State.CONNECTING,
        State.JOINING,
        State.WAITING_FOR_PEERS,
        State.NEGOTIATING,
        State.ACTIVE,
        State.RESUMING,
        State.ACTIVE,
        State.LEAVING,
        State.LEFT,
    ]
    for second, state in enumerate(life, start=2):
        graph.to(state, float(second))
        assert graph.in_room == (state in IN_ROOM)
    assert graph.since == 10.0
    assert repr(graph) == "<StateGraph left since 10.000>"


def test_an_illegal_step_raises_and_changes_nothing() -> None:
    graph = StateGraph()
    with pytest.raises(IllegalTransitionError, match="from idle to active"):
        graph.to(State.ACTIVE, 5.0)
    assert (graph.state, graph.since) == (State.IDLE, 0.0)


def test_every_state_is_in_the_graph_and_can_end() -> None:
    assert set(TRANSITIONS) == set(State)
    for state, following in TRANSITIONS.items():
        assert following, state
        assert state not in following or state is State.RESUMING
        if state not in FINAL and state is not State.LEAVING:
            assert State.LEAVING in following, state


@given(st.lists(st.sampled_from(State), max_size=30))
def test_whatever_is_asked_the_graph_stays_on_its_edges(steps: list[State]) -> None:
    graph = StateGraph()
    for now, step in enumerate(steps):
        before = graph.state
        if graph.can(step):
            assert graph.to(step, now) is before
            assert step in TRANSITIONS[before]
        else:
            with pytest.raises(IllegalTransitionError):
                graph.to(step, now)
            assert graph.state is before
