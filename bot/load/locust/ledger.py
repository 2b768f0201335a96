"""The master's book of a run: who has which seat, what all workers have measured, who of them is gone. Pure.

Workers are known by their ids in Locust. Times are Unix seconds.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field

from bot.load.guard import public_service, refuse_public
from bot.load.locust.seats import Cloakroom
from bot.load.locust.wire import from_wire
from bot.load.report.model import Client, Moment, Report, Server, make_report
from bot.load.scenario import Scenario
from bot.load.standing import Standing
from bot.settings import Settings
from bot.xmpp.address import redact

Ended = Literal["duration", "threshold", "interrupted", "failed"]
_Text = Annotated[str, Field(max_length=200)]


class Host(BaseModel):
    """The machine, or container, that a worker is on."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    name: _Text
    cores: int = Field(ge=1)
    system: _Text
    python: _Text


@dataclass(slots=True)
class _Worker:
    """What is known of a worker."""

    index: int
    host: Host | None = None
    #: Whether participants of it may be there.
    busy: bool = True


@dataclass(frozen=True, slots=True)
class Run:
    """What is run where: the same for all workers. ``began`` tells one run from the next, too."""

    scenario: Scenario
    ws_url: str
    began: float

    def to_wire(self) -> dict[str, Any]:
        """All of it, for a worker."""
        return {"scenario": self.scenario.model_dump(mode="json"), "ws_url": self.ws_url, "began": self.began}

    @classmethod
    def from_wire(cls, data: Mapping[str, Any]) -> Run:
        """The opposite of ``to_wire``."""
        return cls(Scenario.model_validate(data["scenario"]), str(data["ws_url"]), float(data["began"]))


class Ledger:
    """The book of one run. ``own`` says that a public service is the user's own."""

    def __init__(self, run: Run, settings: Settings, *, own: bool = False) -> None:
        self.run = run
        self._settings = settings
        self._own = own
        self.standing = Standing(run.scenario)
        self.seats = Cloakroom()
        self._planned = 0
        self._workers: dict[str, _Worker] = {}
        self._started = datetime.fromtimestamp(run.began, UTC)

    def __repr__(self) -> str:
        return f"<Ledger of {len(self._workers)} workers: {self.seats!r}>"

    def at(self, now: float) -> float:
        """Seconds of the run."""
        return max(0.0, now - self.run.began)

    @property
    def busy(self) -> set[str]:
        """The workers that have not said their last word."""
        return {owner for owner, worker in self._workers.items() if worker.busy}

    # --- seats ---

    def expect(self, users: int) -> None:
        """So many are wanted now."""
        self._planned = max(self._planned, users)

    def seat(self, owner: str, index: int) -> int:
        """A seat for a user of ``owner``. Raises ConfigurationError for too many on a public service."""
        refuse_public(self.run.ws_url, len(self.seats) + 1, own=self._own)
        self._worker(owner, index).busy = True
        return self.seats.take(owner)

    def free(self, owner: str, seat: int) -> None:
        """The user who had the seat is gone."""
        self.seats.free(owner, seat)

    def _worker(self, owner: str, index: int) -> _Worker:
        return self._workers.setdefault(owner, _Worker(index))

    # --- what workers say ---

    def heard(self, owner: str, index: int, data: Mapping[str, Any]) -> None:
        """Take what a worker has measured. Raises ValueError for what can't be read."""
        progress, host = from_wire(data), Host.model_validate(data["host"])
        worker = self._worker(owner, index)
        worker.host = host
        self.standing.feed(worker.index, progress)
        if progress.last:
            self.ended(owner)

    def died(self, owner: str, index: int, now: float, how: str) -> None:
        """The bot process of a worker is gone; its users may start it anew."""
        self.standing.died(self._worker(owner, index).index, self.at(now), how[:200])

    def gone(self, owner: str, now: float, how: str) -> None:
        """A worker is gone without a last word. Its seats are free, but those of a public service.

        There its participants may still be, and no more than a few are allowed.
        """
        worker = self._workers[owner]
        if not worker.busy:
            return
        worker.busy = False
        self.standing.died(worker.index, self.at(now), how)
        if self._own or public_service(self.run.ws_url) is None:
            self.seats.drop(owner)

    def ended(self, owner: str) -> None:
        """A worker has no participants any more, and says so itself."""
        if owner in self._workers:
            self._workers[owner].busy = False
            self.seats.drop(owner)

    # --- as it stands ---

    def tick(self, now: float) -> str | None:
        """Note the levels, once a second; the reason to end the run, where a missed threshold is one."""
        at = self.at(now)
        self.standing.tick(at)
        scenario = self.run.scenario
        if not scenario.abort_on_fail or at <= scenario.warm_up or not (missed := self.standing.broken):
            return None
        text = f"{missed[0].threshold}: {missed[0].reason}"
        self.standing.extra_moments.append(Moment(at=at, what="threshold_missed", text=text))
        return text

    def report(self, now: float, ended: Ended = "duration") -> Report:
        """The report of the run until now."""
        standing, scenario = self.standing, self.run.scenario
        return make_report(
            scenario,
            standing.measures,
            standing.verdicts,
            started=self._started,
            seconds=self.at(now),
            participants=standing.participants.model_copy(update={"planned": self._planned}),
            server=Server(url=redact(self.run.ws_url), versions=dict(sorted(standing.tally.versions.items()))),
            client=self._client(),
            failures=standing.failures,
            moments=standing.moments,
            settings=self._settings.public(),
            ended=ended,
        )

    def _client(self) -> Client:
        """All machines together, each counted once however many workers it has."""
        hosts = {worker.host.name: worker.host for worker in self._workers.values() if worker.host is not None}
        limits = self.standing.client_limits
        return Client(
            limited=bool(limits),
            reasons=tuple(limits),
            processes=max(1, len(self._workers)),
            cores=max(1, sum(host.cores for host in hosts.values())),
            system=", ".join(sorted({host.system for host in hosts.values()})),
            python=", ".join(sorted({host.python for host in hosts.values()})),
        )
