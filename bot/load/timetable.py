"""Who joins and leaves when: a scenario as a timetable, the same for the same seed on every machine. Pure."""

from __future__ import annotations

import random
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import chain, count, groupby
from typing import Literal

from bot.load.scenario import Group, Layout, Scenario
from bot.load.shaping import Shaping

#: Name of the group of all who belong to none.
REST = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Seat:
    """One participant: where it belongs, what it sends and sees. ``index`` is its place in the order of joins."""

    index: int
    conference: int
    room: str
    name: str
    group: str
    video: bool
    audio: bool
    #: Which of the ``voices`` that its conference hears it is, from 0; None for none of them.
    voice: int | None
    voices: int
    layout: Layout
    last_n: int
    receive_height: int
    region: str | None
    shaping: Shaping | None
    process: int

    def shaping_seed(self, direction: str, seed: int) -> str:
        """The seed of one direction of its network; ``seed`` is the scenario's."""
        own = self.shaping.seed if self.shaping and self.shaping.seed is not None else seed
        return f"{own}/{self.room}/{self.name}/{direction}"


@dataclass(frozen=True, slots=True)
class Action:
    """At ``at`` seconds of the run the participant of ``seat`` joins or leaves."""

    at: float
    seat: int
    what: Literal["join", "leave"]


@dataclass(frozen=True, slots=True)
class Timetable:
    """All seats, and what they do when, in order of time."""

    seats: Sequence[Seat]
    actions: Sequence[Action]

    def of_process(self, process: int) -> Timetable:
        """The part of one process; seats keep their index."""
        seats = [seat for seat in self.seats if seat.process == process]
        mine = {seat.index for seat in seats}
        return Timetable(seats, [action for action in self.actions if action.seat in mine])

    def present(self) -> Iterator[tuple[float, int]]:
        """How many shall be there after each time at which something happens."""
        number = 0
        for at, actions in groupby(self.actions, key=lambda action: action.at):
            number += sum(1 if action.what == "join" else -1 for action in actions)
            yield at, number

    @property
    def peak(self) -> int:
        """Most participants at a time."""
        return max((number for _, number in self.present()), default=0)

    def joins_per_second(self) -> int:
        """Most joins within one second."""
        times = [action.at for action in self.actions if action.what == "join"]
        most, first = 0, 0
        for last, at in enumerate(times):
            while times[first] <= at - 1:
                first += 1
            most = max(most, last - first + 1)
        return most


def timetable(scenario: Scenario, processes: int = 1) -> Timetable:
    """Plan the run; ``processes`` share the participants evenly, in the order of their joins."""
    seats = _seats(scenario, processes)
    churning = _churning(scenario)
    stays = chain.from_iterable(_stays(scenario, seat.index, seat.index in churning) for seat in seats)
    # A stable sort: one who joins again at once leaves first.
    return Timetable(seats, sorted(stays, key=lambda action: (action.at, action.seat)))


# --- who ----------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class _Member:
    """A place in each conference."""

    group: Group | None
    video: bool
    voice: int | None


def _seats(scenario: Scenario, processes: int) -> list[Seat]:
    members = _members(scenario)
    voices = sum(member.voice is not None for member in members)
    return [
        _seat(
            scenario, members[number], (conference, number), index=index, process=index % processes, voices=voices
        )
        for index, (conference, number) in enumerate(_order(scenario))
    ]


def _order(scenario: Scenario) -> Iterator[tuple[int, int]]:
    """Conference and number within it of each participant, from 0, in the order of joins."""
    if scenario.join_order == "fill":
        return ((room, number) for room in range(scenario.conferences) for number in range(scenario.participants))
    return ((room, number) for number in range(scenario.participants) for room in range(scenario.conferences))


def _members(scenario: Scenario) -> list[_Member]:
    """The places of a conference: those who belong to no group first: they are seen and heard."""
    rest = scenario.participants - sum(group.participants for group in scenario.groups)
    groups: list[tuple[Group | None, int]] = [
        (None, rest),
        *((group, group.participants) for group in scenario.groups),
    ]
    video = _shares([(group.senders if group else None, size) for group, size in groups], scenario.video_senders)
    audio = _shares(
        [(group.audio_senders if group else None, size) for group, size in groups], scenario.sound_senders
    )
    voices = count()
    return [
        _Member(group, number < seen, next(voices) if number < heard else None)
        for (group, size), seen, heard in zip(groups, video, audio, strict=True)
        for number in range(size)
    ]


def _shares(groups: Iterable[tuple[int | None, int]], senders: int) -> list[int]:
    """How many of each group send: what it says itself, else as many of ``senders`` as are left and fit."""
    found = []
    for own, size in groups:
        if own is None:
            own = min(senders, size)  # noqa: PLW2901 -- its own from now on
            senders -= own
        found.append(own)
    return found


def _seat(
    scenario: Scenario, member: _Member, place: tuple[int, int], *, index: int, process: int, voices: int
) -> Seat:
    conference, number = place
    group = member.group
    return Seat(
        index=index,
        conference=conference,
        room=f"{scenario.room_prefix}-{conference + 1}",
        name=f"bot-{conference + 1}-{number + 1}",
        group=group.name if group else REST,
        video=member.video,
        audio=member.voice is not None,
        voice=member.voice,
        voices=voices,
        layout=(group and group.layout) or scenario.layout,
        last_n=scenario.last_n if group is None or group.last_n is None else group.last_n,
        receive_height=(
            scenario.receive_height if group is None or group.receive_height is None else group.receive_height
        ),
        region=(group and group.region) or scenario.region,
        shaping=(group and group.shaping) or scenario.shaping,
        process=process,
    )


# --- when ---------------------------------------------------------------------------------------------------


def _joins_at(scenario: Scenario, index: int) -> float:
    if scenario.ramp.shape == "steps":
        step, place = divmod(index, scenario.step_size)
        return step * scenario.step_length + place / scenario.rate
    return scenario.up * index / (scenario.total - 1) if scenario.total > 1 else 0.0


def _leaves_at(scenario: Scenario, index: int) -> float:
    """Who came first leaves first; the last one at the end of the run."""
    first = scenario.duration - scenario.down
    return first + (scenario.down * (index + 1) / scenario.total)


def _churning(scenario: Scenario) -> set[int]:
    if scenario.churn is None:
        return set()
    number = round(scenario.total * scenario.churn.share)
    return set(random.Random(f"{scenario.seed}/churn").sample(range(scenario.total), number))


def _stays(scenario: Scenario, index: int, churns: bool) -> Iterator[Action]:
    """The joins and leaves of one participant, in order."""
    at, end = _joins_at(scenario, index), _leaves_at(scenario, index)
    chance = random.Random(f"{scenario.seed}/churn/{index}")
    while True:
        yield Action(at, index, "join")
        leaves = at + scenario.churn.stay * chance.uniform(0.5, 1.5) if scenario.churn and churns else end
        if leaves >= end:
            yield Action(end, index, "leave")
            return
        yield Action(leaves, index, "leave")
        assert scenario.churn is not None
        at = leaves + scenario.churn.away * chance.uniform(0.5, 1.5)
        if at >= end:
            return


def is_silent(scenario: Scenario, seat: Seat, at: float) -> bool:
    """Whether it is another's turn to speak at ``at``; never where each speaks as it likes."""
    if not scenario.switch_speakers or not seat.voices:
        return False
    return int(max(0.0, at) / scenario.switch_speakers) % seat.voices != seat.voice
