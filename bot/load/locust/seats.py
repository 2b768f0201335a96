"""Who sits where: Locust says how many users there are, the scenario what the meetings are like. Pure."""

from __future__ import annotations

import heapq
from collections.abc import Sequence
from dataclasses import replace

from bot.load.timetable import Seat


class Seats:
    """The seats of a scenario, and on and on: more users than its conferences hold fill further ones alike."""

    def __init__(self, seats: Sequence[Seat]) -> None:
        self._seats = seats
        self._conferences = 1 + max(seat.conference for seat in seats)

    def __repr__(self) -> str:
        return f"<Seats {len(self._seats)} of {self._conferences} conferences, and on>"

    def place(self, number: int) -> int:
        """The seat of the scenario that seat ``number`` is like."""
        return number % len(self._seats)

    def seat(self, number: int) -> Seat:
        """Seat ``number``, from 0, in the order in which they are taken."""
        block, place = divmod(number, len(self._seats))
        like = self._seats[place]
        conference = like.conference + block * self._conferences
        prefix = like.room.removesuffix(f"-{like.conference + 1}")
        own = like.name.rpartition("-")[2]
        return replace(
            like,
            index=number,
            conference=conference,
            room=f"{prefix}-{conference + 1}",
            name=f"bot-{conference + 1}-{own}",
        )


class Cloakroom:
    """Gives numbers out: always the lowest that nobody has. Those of a worker that is gone are free for others."""

    def __init__(self) -> None:
        self._owners: dict[int, str] = {}
        self._free: list[int] = []
        self._next = 0

    def __repr__(self) -> str:
        return f"<Cloakroom: {len(self._owners)} of {self._next} taken>"

    def __len__(self) -> int:
        return len(self._owners)

    def take(self, owner: str) -> int:
        """A number for ``owner``."""
        if self._free:
            number = heapq.heappop(self._free)
        else:
            number, self._next = self._next, self._next + 1
        self._owners[number] = owner
        return number

    def free(self, owner: str, number: int) -> None:
        """Take a number back; one that ``owner`` has no more is left to who has it."""
        if self._owners.get(number) == owner:
            del self._owners[number]
            heapq.heappush(self._free, number)

    def drop(self, owner: str) -> int:
        """Take all numbers of ``owner`` back; how many they were."""
        numbers = [number for number, who in self._owners.items() if who == owner]
        for number in numbers:
            self.free(owner, number)
        return len(numbers)
