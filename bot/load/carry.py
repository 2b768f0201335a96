"""The capacity mode: runs a scenario in several sizes, one after the other, and says which one was carried."""

from __future__ import annotations

from collections.abc import Awaitable, Callable

from bot.load.capacity import Outcome, Search, Trial
from bot.load.report.model import EXIT_FINE, Report
from bot.load.scenario import Scenario
from bot.load.seating import uncounted

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
        return found if uncounted(found) is None else found.model_copy(update={"warm_up": 0.0})


def outcome_of(report: Report) -> tuple[Outcome, str]:
    """What a run says of its size: a client that was the limit says nothing of the server."""
    if report.client.limited:
        return "client", report.client.reasons[0]
    if report.exit_code == EXIT_FINE:
        return "carried", ""
    missed = [f"{item.expression}: {item.reason}" for item in report.thresholds if not item.met]
    return "broken", missed[0] if missed else "nobody could join"


async def search(scenario: Scenario, run: RunOne, say: Callable[[str], None]) -> tuple[Search, Report]:
    """Find the largest size that is carried, with the report of the last run; an interrupted one ends it."""
    sizes = Sizes(scenario)
    found = Search(sizes.start, sizes.limit)
    while (size := found.next()) is not None:
        report = await run(sizes.of(size))
        if report.ended == "interrupted":
            break
        outcome, why = outcome_of(report)
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
