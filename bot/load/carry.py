"""The capacity mode: runs a scenario in several sizes, one after the other, and says which one was carried."""

from __future__ import annotations

from collections.abc import Awaitable, Callable

from bot.load.capacity import Outcome, Search, Trial
from bot.load.report.model import EXIT_FINE, Report
from bot.load.scenario import MAX_DURATION, Scenario
from bot.load.seating import uncounted

#: How long all are there together in each size, by plan, and how long they have to be for it to count (seconds):
#: joins take their time.
HOLD, HELD = 20.0, 10.0

#: Runs one size and gives its report.
RunOne = Callable[[Scenario], Awaitable[Report]]


class Sizes:
    """A scenario in sizes: more conferences where it has several, else more participants in its one."""

    def __init__(self, scenario: Scenario) -> None:
        self._scenario = scenario
        self._by_rooms = scenario.conferences > 1
        #: The largest size: the scenario itself.
        self.limit = scenario.conferences if self._by_rooms else scenario.participants
        #: Where to begin: nobody has media alone, and groups are there as a whole.
        grouped = sum(group.participants for group in scenario.groups)
        self.start = 1 if self._by_rooms else min(max(2, grouped), self.limit)

    def participants(self, size: int) -> int:
        """How many participants a size has."""
        return size * self._scenario.participants if self._by_rooms else size

    def of(self, size: int) -> Scenario:
        """The scenario in that size; senders are no more than there are participants. Raises ValueError.

        A small size has come before the warm-up is over: where thresholds are on joins it has none.
        """
        values = self._scenario.model_dump()
        values["thresholds"] = list(self._scenario.thresholds)
        if self._by_rooms:
            values["conferences"] = size
        else:
            values["participants"] = size
            for key in ("senders", "audio_senders"):
                if values[key] is not None:
                    values[key] = min(values[key], size)
        found = Scenario.model_validate(values)
        return _lasting(found if uncounted(found) is None else found.model_copy(update={"warm_up": 0.0}))


def _hold(scenario: Scenario) -> float:
    """Seconds that count with all there, if joins took no time."""
    return scenario.duration - scenario.down - max(scenario.up, scenario.warm_up)


def _lasting(scenario: Scenario) -> Scenario:
    """The scenario, as much longer as it takes to hold its size."""
    while (missing := HOLD - _hold(scenario)) > 0.01 and scenario.duration < MAX_DURATION:
        longer = min(MAX_DURATION, scenario.duration + missing)
        values = scenario.model_dump() | {"duration": longer, "thresholds": list(scenario.thresholds)}
        scenario = Scenario.model_validate(values)
    return scenario


def staying(scenario: Scenario) -> int:
    """How many are there all the time between the last join and the first leave."""
    churning = round(scenario.total * scenario.churn.share) if scenario.churn else 0
    return scenario.total - churning


def held(report: Report, number: int) -> int:
    """Seconds in which so many participants were in their rooms, those of the warm-up left out."""
    series = report.measured.series.get("participants")
    levels = series.values()[int(report.measured.warm_up) :] if series is not None else []
    return sum(level is not None and level >= number for level in levels)


def outcome_of(report: Report, number: int) -> tuple[Outcome, str]:
    """What a run of ``number`` says of its size: a client that was the limit says nothing of the server.

    Thresholds that were met while too few were there, or all for a moment, say nothing of the size either.
    """
    if report.client.limited:
        return "client", report.client.reasons[0]
    if report.exit_code == EXIT_FINE:
        seconds = held(report, number)
        if seconds >= HELD:
            return "carried", ""
        return "broken", f"{number} were there together for {seconds} s, less than {HELD:g} s"
    missed = [f"{item.expression}: {item.reason}" for item in report.thresholds if not item.met]
    return "broken", missed[0] if missed else "nobody could join"


async def search(scenario: Scenario, run: RunOne, say: Callable[[str], None]) -> tuple[Search, Report]:
    """Find the largest size that is carried, with the report of the last run; an interrupted one ends it."""
    sizes = Sizes(scenario)
    found = Search(sizes.start, sizes.limit)
    while (size := found.next()) is not None:
        wanted = sizes.of(size)
        report = await run(wanted)
        if report.ended == "interrupted":
            break
        outcome, why = outcome_of(report, staying(wanted))
        found.feed(Trial(size, outcome, why))
        say(f"{sizes.participants(size)} participants: {outcome}{f' ({why})' if why else ''}")
    return found, report


def exit_code(found: Search, last: Report) -> int:
    """0 where some were carried, else that of the last run."""
    return EXIT_FINE if found.carried else last.exit_code


def verdict(scenario: Scenario, found: Search) -> str:
    """For people: how many were carried, and what broke first."""
    sizes = Sizes(scenario)
    text = f"{sizes.participants(found.carried)} participants were carried"
    broken = found.broken
    if found.next() is not None:
        text = f"The search was interrupted: {text} until then"
    if broken is None:
        return text if found.carried < sizes.limit else f"{text}; nothing broke up to the scenario's size"
    number = sizes.participants(broken.size)
    if found.client_limited:
        return f"{text}; with {number} the client was the limit, the server may carry more: {broken.why}"
    return f"{text}; with {number} this broke first: {broken.why}"
