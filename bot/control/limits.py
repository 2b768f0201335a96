"""How many participants there may be at a time. Pure."""

from __future__ import annotations

from bot.control.problems import RequestError


class Seat:
    """Some of the seats, until ``free``."""

    def __init__(self, seats: Seats, count: int) -> None:
        self._seats = seats
        self._count = count

    def free(self) -> None:
        """Give them back; may be called twice."""
        self._seats.taken -= self._count
        self._count = 0


class Seats:
    """Those of all participants of the daemon, whoever runs them."""

    def __init__(self, limit: int) -> None:
        self.limit = limit
        self.taken = 0

    def __repr__(self) -> str:
        return f"<{self.taken} of {self.limit} seats>"

    def take(self, count: int, *, limited: bool = True) -> Seat:
        """Take ``count`` of them. Raises RequestError where there are not as many, unless nobody asks for that."""
        if limited and self.taken + count > self.limit:
            raise RequestError(
                409,
                "too_many_participants",
                f"{count} more are over the limit: {self.taken} of {self.limit} are there (api.max_participants)",
            )
        self.taken += count
        return Seat(self, count)
