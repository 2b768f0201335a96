"""When another media session may be asked for: Jicofo's limits, and ours. Pure: time is a parameter."""

from __future__ import annotations

from collections import deque

#: Two requests take ways of different length to the focus, who measures where they arrive (seconds).
SLACK = 0.5
#: Jicofo ends the session and offers no other for requests that are closer than 5 s, or more than these a minute
#: (``jicofo.conference.restart-request-rate-limits``).
MIN_INTERVAL = 5.0 + SLACK
MAX_A_MINUTE = 5
#: Requests in a row, without a session that connected, after which only a new join is left.
MAX_IN_A_ROW = 3


class RestartBudget:
    """``ask`` before each request, ``recovered`` when a session is connected."""

    def __init__(self) -> None:
        self._asked: deque[float] = deque(maxlen=MAX_A_MINUTE)
        self._in_a_row = 0

    def __repr__(self) -> str:
        return f"<RestartBudget {self._in_a_row} of {MAX_IN_A_ROW} used>"

    def ask(self, now: float) -> float | None:
        """Seconds to wait before the request may be sent; it counts as sent then. None: no further one."""
        if self._in_a_row >= MAX_IN_A_ROW:
            return None
        self._in_a_row += 1
        at = now
        if self._asked:
            at = max(at, self._asked[-1] + MIN_INTERVAL)
        if len(self._asked) == MAX_A_MINUTE:
            at = max(at, self._asked[0] + 60.0 + SLACK)
        self._asked.append(at)
        return at - now

    def recovered(self) -> None:
        """A session is connected: the next failure begins a new row."""
        self._in_a_row = 0
