"""The participant's state graph. Pure: it knows which step may follow which, and since when."""

from __future__ import annotations

from collections.abc import Mapping
from enum import StrEnum
from types import MappingProxyType


class State(StrEnum):
    """Where a participant stands. Waiting (for the focus, for peers) is a state, never an error."""

    IDLE = "idle"
    CONNECTING = "connecting"
    RETRYING = "retrying"
    JOINING = "joining"
    WAITING_IN_LOBBY = "waiting_in_lobby"
    WAITING_FOR_FOCUS = "waiting_for_focus"
    WAITING_FOR_PEERS = "waiting_for_peers"
    NEGOTIATING = "negotiating"
    ACTIVE = "active"
    RESUMING = "resuming"
    LEAVING = "leaving"
    LEFT = "left"
    FAILED = "failed"


#: States in which the participant is visible in the room (waiting for the focus: where it may create the room).
IN_ROOM = frozenset(
    {State.WAITING_FOR_FOCUS, State.WAITING_FOR_PEERS, State.NEGOTIATING, State.ACTIVE, State.RESUMING}
)
#: States from which nothing follows but a new cycle.
FINAL = frozenset({State.LEFT, State.FAILED})

_STANDING = frozenset({State.WAITING_FOR_FOCUS, State.WAITING_FOR_PEERS, State.NEGOTIATING, State.ACTIVE})
_ENDING = frozenset({State.LEAVING, State.FAILED})
#: From a room: the stream is lost, all is begun anew, or another room of the meeting is entered.
_AWAY = frozenset({State.RESUMING, State.CONNECTING, State.JOINING})

TRANSITIONS: Mapping[State, frozenset[State]] = MappingProxyType(
    {
        State.IDLE: frozenset({State.CONNECTING}) | _ENDING,
        State.CONNECTING: frozenset({State.JOINING, State.RETRYING}) | _ENDING,
        State.RETRYING: frozenset({State.CONNECTING}) | _ENDING,
        State.JOINING: frozenset(
            {
                State.RETRYING,
                State.RESUMING,
                State.CONNECTING,  # to the visitor node that the focus redirects to
                State.WAITING_IN_LOBBY,
                State.WAITING_FOR_FOCUS,
                State.WAITING_FOR_PEERS,
            }
        )
        | _ENDING,
        State.WAITING_IN_LOBBY: frozenset({State.JOINING, State.RETRYING, State.RESUMING}) | _ENDING,
        # Where only the focus may create rooms it is waited for outside: what follows then may be another attempt.
        State.WAITING_FOR_FOCUS: (_STANDING | _ENDING | _AWAY | {State.RETRYING, State.WAITING_IN_LOBBY})
        - {State.WAITING_FOR_FOCUS},
        State.WAITING_FOR_PEERS: (_STANDING | _ENDING | _AWAY) - {State.WAITING_FOR_PEERS},
        State.NEGOTIATING: (_STANDING | _ENDING | _AWAY) - {State.NEGOTIATING},
        State.ACTIVE: (_STANDING | _ENDING | _AWAY) - {State.ACTIVE},
        State.RESUMING: _STANDING | _ENDING | {State.CONNECTING},
        State.LEAVING: frozenset({State.LEFT}),
        State.LEFT: frozenset({State.CONNECTING}),
        State.FAILED: frozenset({State.CONNECTING, State.LEAVING}),
    }
)


class IllegalTransitionError(RuntimeError):
    """The graph has no such edge: a defect of the program, never of its input."""


class StateGraph:
    """The current state and since when; ``to`` raises on a step that the graph does not have."""

    def __init__(self, now: float = 0.0) -> None:
        self._state = State.IDLE
        self._since = now

    def __repr__(self) -> str:
        return f"<StateGraph {self._state} since {self._since:.3f}>"

    @property
    def state(self) -> State:
        """The current state."""
        return self._state

    @property
    def since(self) -> float:
        """When the current state was entered, on the caller's clock, in seconds."""
        return self._since

    @property
    def in_room(self) -> bool:
        """Whether others see the participant in the room."""
        return self._state in IN_ROOM

    def can(self, state: State) -> bool:
        """Whether ``state`` may follow the current one."""
        return state in TRANSITIONS[self._state]

    def to(self, state: State, now: float) -> State:
        """Go to ``state`` and return the one that was left; raises IllegalTransitionError."""
        if not self.can(state):
            raise IllegalTransitionError(f"no step from {self._state} to {state}")
        previous, self._state, self._since = self._state, state, now
        return previous
