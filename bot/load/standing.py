"""How a run stands: what all its processes have measured until now, and what follows from it. Pure."""

from __future__ import annotations

from collections import Counter, deque
from collections.abc import Sequence

from bot.load.collector import Note, Tally, WorstStream, nothing_yet
from bot.load.measures import Measures
from bot.load.messages import Progress
from bot.load.moments import moments_of
from bot.load.overload import reasons
from bot.load.report.model import Failure, Moment, Participants
from bot.load.scenario import Scenario
from bot.load.thresholds import Verdict, broken, evaluate_all
from bot.participant.states import State

#: Seconds over which rates are taken for whoever watches.
RECENT = 5.0
#: Streams that are shown as the worst.
WORST = 5
_JOINING = (
    State.CONNECTING,
    State.RETRYING,
    State.JOINING,
    State.WAITING_IN_LOBBY,
)


class Standing:
    """All processes of a run together. Times are seconds of the run."""

    def __init__(self, scenario: Scenario) -> None:
        self.scenario = scenario
        self.measures = Measures(scenario.warm_up)
        nothing_yet(self.measures)
        self.tally = Tally()
        self._processes: dict[int, Progress] = {}
        self.peak = 0
        #: Processes that died, and participants lost with them.
        self.dead = 0
        self._worst: dict[int, tuple[WorstStream, ...]] = {}
        self._history: deque[tuple[float, int, int, int]] = deque()
        self.extra_moments: list[Moment] = []

    def __repr__(self) -> str:
        return f"<Standing {self.in_room} in rooms, {self.tally.joined} of {self.tally.tried} joins>"

    # --- what comes ---

    def feed(self, process: int, progress: Progress) -> None:
        """Take what a process says; nobody of it is there after its last word."""
        self.measures.merge(progress.measures)
        self.tally.merge(progress.tally)
        if progress.last:
            self._processes.pop(process, None)
            self._worst.pop(process, None)
        else:
            self._processes[process] = progress
            self._worst[process] = progress.worst

    def died(self, process: int, at: float, how: str) -> None:
        """A process ended with its participants, as it was told to do by nobody."""
        self.dead += 1
        gone = self._processes.pop(process, None)
        self._worst.pop(process, None)
        number = sum(gone.states.values()) if gone is not None else 0
        self.measures.count("lost", at, "process_died", max(1, number))
        self.tally.fail("process_died", how, "client", max(1, number))
        self.tally.note(Note(at, "process_died", f"all {number} of process {process + 1}", how))

    def tick(self, at: float) -> None:
        """Note the levels, once a second."""
        there, joining = self.in_room, self.joining
        self.peak = max(self.peak, there)
        self.measures.over_time("participants", there, at)
        self.measures.over_time("joining", joining, at)
        self.measures.over_time("client_cpu", self.cpu, at)
        self._history.append((at, self.tally.joined, self.tally.bytes_sent, self.tally.bytes_received))
        while at - self._history[0][0] > RECENT:
            self._history.popleft()

    # --- what is ---

    @property
    def states(self) -> Counter[str]:
        """Participants by state."""
        return sum((item.states for item in self._processes.values()), Counter())

    @property
    def in_room(self) -> int:
        """How many are visible in their rooms."""
        return sum(item.in_room for item in self._processes.values())

    @property
    def joining(self) -> int:
        """How many are on their way in."""
        return sum(self.states[state.value] for state in _JOINING)

    @property
    def cpu(self) -> float:
        """Cores that all processes use together."""
        return sum(item.cpu for item in self._processes.values())

    @property
    def rates(self) -> tuple[float, float, float]:
        """Joins per second, bit/s sent and received, of late."""
        if len(self._history) < 2 or self._history[-1][0] <= self._history[0][0]:
            return 0.0, 0.0, 0.0
        first, last = self._history[0], self._history[-1]
        seconds = last[0] - first[0]
        joins, sent, received = (last[place] - first[place] for place in (1, 2, 3))
        return joins / seconds, 8 * sent / seconds, 8 * received / seconds

    @property
    def worst(self) -> list[WorstStream]:
        """The streams that lost most in the last second."""
        found = [item for streams in self._worst.values() for item in streams]
        return sorted(found, key=lambda item: -item.loss)[:WORST]

    @property
    def verdicts(self) -> list[Verdict]:
        """How the thresholds stand."""
        return evaluate_all(self.scenario.parsed_thresholds, self.measures)

    @property
    def broken(self) -> list[Verdict]:
        """Thresholds that are missed already."""
        return broken(self.scenario.parsed_thresholds, self.measures)

    @property
    def client_limits(self) -> list[str]:
        """What of the client was overloaded: nothing of what was measured is the server's fault then."""
        return reasons(
            self.measures, overflow=self.tally.overflow, received=self.tally.packets_received, dead=self.dead
        )

    @property
    def participants(self) -> Participants:
        """How many there were."""
        lost = self.measures.total("lost") or 0
        return Participants(
            planned=self.scenario.total,
            tried=self.tally.tried,
            joined=self.tally.joined,
            peak=self.peak,
            lost=int(lost),
        )

    @property
    def failures(self) -> Sequence[Failure]:
        """Failures by cause."""
        return [
            Failure(cause=cause, count=item.count, example=item.example, whose=item.whose)
            for cause, item in self.tally.failures.items()
        ]

    @property
    def moments(self) -> Sequence[Moment]:
        """What happened."""
        return sorted([*moments_of(self.tally.notes), *self.extra_moments], key=lambda item: item.at)
