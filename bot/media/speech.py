"""Who talks when: ITU-T P.59's model of conversation, extended from two parties to the members of a room.

P.59 "Artificial conversational speech" (03/93) has four states: A talks, B talks, both talk, nobody does. Each
lasts exponentially long; a talker is interrupted or falls silent, and after double talk or silence either party
goes on. A room of more than two is taken as such a conversation between its main speaker (A) and all others
together (B): whenever it is B's turn to begin, one of the others is drawn. The main speaker changes, in a moment
of silence, after an exponentially distributed time. With two members this is P.59.

All of it follows from the seed, the room and its members: whoever knows them, in whatever process, computes the
same conversation without a message, from any moment on.
"""

from __future__ import annotations

import math
import random
from bisect import bisect_right
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property, lru_cache
from itertools import accumulate, chain
from typing import NamedTuple

from bot.media.identity import stable_hash

#: P.59's table of temporal parameters: mean durations in seconds.
TALKSPURT = 1.004
PAUSE = 1.587
DOUBLE_TALK = 0.228
MUTUAL_SILENCE = 0.508

#: The conversation is drawn in pieces of so many seconds, each from a seed of its own; what is said over the end
#: of one is cut there. Long enough that this is seldom, short enough to be drawn in a millisecond.
PIECE = 300.0
_MAX_MEMBERS = 100_000


class Spurt(NamedTuple):
    """A stretch of talk, in seconds of Unix time."""

    start: float
    end: float


@dataclass(frozen=True, slots=True)
class Rates:
    """Mean durations of the states in seconds, and the probability that single talk ends by an interruption."""

    single: float
    double: float
    silence: float
    interruption: float

    @classmethod
    def of_means(cls, talkspurt: float, pause: float, double: float, silence: float) -> Rates:
        """The rates that give a party talkspurts and pauses of these mean lengths.

        In the chain's equilibrium a party starts to talk once in two visits of single talk, so that
        ``talkspurt = single + 2 * interruption * double``, and pauses take the rest of both visits.
        """
        interruption = ((talkspurt - pause) / 2 + silence) / (double + silence)
        if not 0 <= interruption <= 1:
            raise ValueError(f"no conversation has talkspurts of {talkspurt:g} s and pauses of {pause:g} s")
        return cls(talkspurt - 2 * interruption * double, double, silence, interruption)

    @property
    def talkspurt(self) -> float:
        """The mean talkspurt of a party, in seconds."""
        return self.single + 2 * self.interruption * self.double

    @property
    def pause(self) -> float:
        """The mean pause of a party, in seconds."""
        return self.single + 2 * (1 - self.interruption) * self.silence


#: Holds all four durations of P.59's table.
P59 = Rates.of_means(TALKSPURT, PAUSE, DOUBLE_TALK, MUTUAL_SILENCE)
#: The constants that P.59 gives for its generator. They come near the table's shares of time, and less near to
#: its durations: talkspurts of 1.03 s, pauses of 1.40 s, mutual silence of 0.46 s.
P59_GENERATOR = Rates(single=0.854, double=0.226, silence=0.456, interruption=0.4)


@dataclass(frozen=True)
class Conversation:
    """The conversation of a room; equal ones are the same, in every process.

    ``members`` are names, in an order that all agree on. ``talk_share`` says for the first of them how much of
    the time each is the main speaker (0 to 1, the sum at most 1); the others share what is left equally.
    ``main_share`` is the probability that it is the main speaker who breaks a silence or outlasts double talk:
    0.5 is P.59's, 0.9 a lecture. ``turn`` is the mean time in seconds until the main speaker changes.
    A single member holds a conversation with somebody unheard. Raises ValueError for what makes no sense.
    """

    room: str
    members: tuple[str, ...]
    seed: int = 0
    talk_share: tuple[float, ...] = ()
    main_share: float = 0.5
    turn: float = 20.0
    rates: Rates = P59

    def __post_init__(self) -> None:
        if not 1 <= len(set(self.members)) == len(self.members) <= _MAX_MEMBERS:
            raise ValueError("members must be one or more different names")
        if not 0 < self.main_share <= 1:
            raise ValueError(f"main_share must be above 0 and at most 1, not {self.main_share:g}")
        if not self.turn > 0:
            raise ValueError(f"turn must be above 0 s, not {self.turn:g}")
        self._check_shares()

    def _check_shares(self) -> None:
        given = len(self.talk_share)
        if given > len(self.members):
            raise ValueError(f"talk_share names {given} members of a room of {len(self.members)}")
        if not all(share >= 0 for share in self.talk_share):
            raise ValueError("talk_share must be 0 or more")
        total = math.fsum(self.talk_share)
        if total > 1 + 1e-9:
            raise ValueError(f"talk_share must add up to at most 1, not {total:g}")
        if given == len(self.members) and total <= 0:
            raise ValueError("talk_share leaves nobody to talk")

    @classmethod
    def of_size(cls, room: str, size: int, *, seed: int = 0, talk_share: tuple[float, ...] = ()) -> Conversation:
        """The conversation of a room with ``size`` members called "0", "1" and so on."""
        return cls(room, tuple(map(str, range(size))), seed, talk_share)

    @cached_property
    def _offset(self) -> float:
        """Where this room's pieces begin: rooms draw theirs at different moments, not all at once."""
        return stable_hash(f"{self.seed}/{self.room}") / 2**64 * PIECE

    @cached_property
    def shares(self) -> tuple[float, ...]:
        """How much of the time each member is the main speaker: 0 to 1, the sum is 1."""
        given = len(self.talk_share)
        left = len(self.members) - given
        total = math.fsum(self.talk_share)
        if not left:
            return tuple(share / total for share in self.talk_share)
        return self.talk_share + (max(0.0, 1 - total) / left,) * left

    @cached_property
    def _bounds(self) -> list[float]:
        return list(accumulate(self.shares, initial=0.0))

    def piece_of(self, time: float) -> int:
        """The number of the piece that ``time`` (Unix seconds) falls into."""
        return math.floor((time - self._offset) / PIECE)

    def piece_start(self, piece: int) -> float:
        """When the piece begins, in Unix seconds."""
        return piece * PIECE + self._offset

    def spurts_in(self, piece: int) -> dict[int, tuple[Spurt, ...]]:
        """What is said in a piece, by the number of the member; who says nothing is left out."""
        return _spurts_in(self, piece)

    def talk(self, member: str) -> Talk:
        """The part of ``member`` in it. Raises ValueError for a name that is not in the room."""
        if member not in self._numbers:
            raise ValueError(f"{member!r} is no member of the conversation in {self.room!r}")
        return Talk(self, self._numbers[member])

    @cached_property
    def _numbers(self) -> dict[str, int]:
        return {name: number for number, name in enumerate(self.members)}

    def draw_main(self, rng: random.Random) -> int:
        """A main speaker."""
        return self._member_at(rng.random() * self._bounds[-1])

    def draw_other(self, rng: random.Random, main: int) -> int | None:
        """One of the others, None where there are none."""
        count = len(self.members)
        if count == 1:
            return None
        low, high = self._bounds[main], self._bounds[main + 1]
        left = self._bounds[-1] - (high - low)
        if left < 1e-9:  # the main speaker has all of the share: the others are alike
            return (main + 1 + int(rng.random() * (count - 1))) % count
        place = rng.random() * left
        other = self._member_at(place if place < low else place + high - low)
        return other if other != main else (main + 1) % count  # rounding at the bounds

    def _member_at(self, place: float) -> int:
        return min(bisect_right(self._bounds, place), len(self.members)) - 1


class _Floor:
    """Draws one piece of a conversation; times are seconds from its start."""

    def __init__(self, conversation: Conversation, piece: int) -> None:
        self._conversation = conversation
        self._rates = conversation.rates
        self._rng = random.Random(stable_hash(f"{conversation.seed}/{conversation.room}/{piece}"))
        self._now = 0.0
        self._begun: dict[int | None, float] = {}
        self._main = conversation.draw_main(self._rng)
        self._turn_ends = self._exponential(conversation.turn)
        self.said: dict[int, list[tuple[float, float]]] = {}

    def _exponential(self, mean: float) -> float:
        return -mean * math.log(1 - self._rng.random())

    def _begin(self, main: bool) -> int | None:
        talker = self._main if main else self._conversation.draw_other(self._rng, self._main)
        self._begun[talker] = self._now
        return talker

    def _end(self, talker: int | None) -> None:
        start = self._begun.pop(talker)
        if talker is not None:
            self.said.setdefault(talker, []).append((start, min(self._now, PIECE)))

    def _main_goes_on(self) -> bool:
        return self._rng.random() < self._conversation.main_share

    def run(self) -> None:
        """Draw until the piece is full."""
        while self._now < PIECE:
            self._silence()
            if self._now < PIECE:
                self._talk(self._begin(self._main_goes_on()))

    def _silence(self) -> None:
        if self._now >= self._turn_ends:
            self._main = self._conversation.draw_main(self._rng)
            self._turn_ends = self._now + self._exponential(self._conversation.turn)
        self._now += self._exponential(self._rates.silence)

    def _talk(self, talker: int | None) -> None:
        """From the first who talks until nobody does."""
        while True:
            self._now += self._exponential(self._rates.single)
            if self._now >= PIECE or self._rng.random() >= self._rates.interruption:
                return self._end(talker)
            other = self._begin(main=talker != self._main)
            self._now += self._exponential(self._rates.double)
            if self._main_goes_on() != (talker == self._main):
                talker, other = other, talker
            self._end(other)


@lru_cache(maxsize=256)  # what its members in this process ask for at about the same time is drawn once
def _spurts_in(conversation: Conversation, piece: int) -> dict[int, tuple[Spurt, ...]]:
    floor = _Floor(conversation, piece)
    floor.run()
    start = conversation.piece_start(piece)
    return {
        talker: tuple(Spurt(start + begin, start + end) for begin, end in said)
        for talker, said in floor.said.items()
    }


class Talk:
    """One member's part in a conversation. Times are Unix seconds and best asked for in rising order."""

    def __init__(self, conversation: Conversation, number: int) -> None:
        self._conversation = conversation
        self._number = number
        self._talking = False
        self._since = self._until = -math.inf
        self._piece: int | None = None
        self._changes: list[float] = []

    def __repr__(self) -> str:
        return f"<Talk {self._conversation.members[self._number]!r} in {self._conversation.room!r}>"

    def is_talking(self, time: float) -> bool:
        """Whether the member talks at ``time``."""
        if not self._since <= time < self._until:
            self._seek(time)
        return self._talking

    def next_change(self, time: float) -> float:
        """Until when the answer of :meth:`is_talking` stays what it is at ``time``; it may stay so for longer."""
        if not self._since <= time < self._until:
            self._seek(time)
        return self._until

    def _seek(self, time: float) -> None:
        piece = self._conversation.piece_of(time)
        if piece != self._piece:
            spurts = self._conversation.spurts_in(piece).get(self._number, ())
            bounds = self._conversation.piece_start(piece), self._conversation.piece_start(piece + 1)
            self._changes = [bounds[0], *chain.from_iterable(spurts), bounds[1]]
            self._piece = piece
        place = min(max(bisect_right(self._changes, time), 1), len(self._changes) - 1)
        self._since, self._until = self._changes[place - 1], self._changes[place]
        self._talking = place % 2 == 0

    def spurts(self, start: float, end: float) -> Iterator[Spurt]:
        """The talkspurts that reach into ``start`` to ``end``, whole and in order."""
        for piece in range(self._conversation.piece_of(start), self._conversation.piece_of(end) + 1):
            for spurt in self._conversation.spurts_in(piece).get(self._number, ()):
                if spurt.end > start and spurt.start < end:
                    yield spurt
