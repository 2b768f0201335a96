"""A load run: starts the processes, keeps what they measure, shows how it stands, and makes the report of it."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Coroutine, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any, Literal, Protocol

import structlog

from bot import logs
from bot.errors import ConfigurationError
from bot.load.crew import clips_of, configs_of
from bot.load.messages import Begin, Prepare, Progress, Ready, Share, Stop
from bot.load.plan import Plan
from bot.load.report.model import Client, Moment, Report, Server, make_report
from bot.load.seating import decode_of, prepare
from bot.load.standing import Standing
from bot.participant.clips import LibraryUse
from bot.participant.own import check_media
from bot.service.child import ChildProcess
from bot.settings import Settings
from bot.xmpp.address import redact

log = structlog.get_logger(__name__)

WORKER = "bot.load.worker"
#: Between the word to begin and the beginning (seconds): all processes hear of it in time.
LEAD = 0.5
#: Time to leave beside the setting ``leave_timeout``, after which a process is made to end (seconds).
GRACE = 15.0
Ended = Literal["duration", "threshold", "interrupted", "failed"]


class View(Protocol):
    """Who watches a run."""

    def say(self, text: str) -> None:
        """Tell what is going on before it begins."""
        ...

    def show(self, standing: Standing, at: float) -> None:
        """Show how it stands, once a second."""
        ...


@dataclass(frozen=True, slots=True)
class Job:
    """What is to be run, and how it is logged."""

    plan: Plan
    settings: Settings
    log_format: logs.LogFormat = "console"

    @property
    def shares(self) -> list[Share]:
        """The parts of the processes. Raises ConfigurationError where settings and scenario don't go together."""
        scenario = self.plan.scenario
        settings = prepare(self.settings, scenario)
        decode = decode_of(settings, scenario.parsed_thresholds)
        count = len(self.plan.processes)
        return [Share(scenario, settings, decode, process, count) for process in range(count)]


class LoadRun:
    """One run, once. ``stop`` ends it early: all leave, and what was measured until then is reported."""

    def __init__(self, job: Job, view: View) -> None:
        self._job = job
        self._view = view
        self.standing = Standing(job.plan.scenario)
        self._children: dict[int, ChildProcess] = {}
        self._ready: dict[int, asyncio.Future[Ready]] = {}
        self._finished: set[int] = set()
        self._stopping = asyncio.Event()
        self._ended: Ended = "duration"
        self._begins: float | None = None

    def __repr__(self) -> str:
        return f"<LoadRun of {self._job.plan.scenario.total} in {len(self._children)} processes>"

    @property
    def at(self) -> float:
        """Seconds of the run; 0 before it begins."""
        return max(0.0, time.time() - self._begins) if self._begins is not None else 0.0

    @property
    def pids(self) -> list[int]:
        """The ids of the processes that run."""
        return sorted(child.pid for child in self._children.values() if child.pid is not None)

    def stop(self, why: Ended = "interrupted") -> None:
        """Let everybody leave now."""
        if not self._stopping.is_set():
            self._ended = why
            self._stopping.set()
            for child in self._children.values():
                child.send(Stop())

    async def run(self) -> Report:
        """Run it to its end. Raises ConfigurationError for what can't be begun."""
        shares = self._job.shares
        await self._unless_stopped(self._warm(shares))
        started = datetime.now(UTC)
        if self._stopping.is_set():
            return self._report(started)
        problem: ConfigurationError | None = None
        async with asyncio.TaskGroup() as group:
            self._ready = {share.process: asyncio.get_running_loop().create_future() for share in shares}
            lives = [group.create_task(self._live(share), name="load process") for share in shares]
            try:
                started = await self._begin() or started
                await self._watch(lives)
            except ConfigurationError as error:
                problem = error
            finally:
                self.stop(self._ended)
        if problem is not None:
            raise problem
        return self._report(started)

    async def _warm(self, shares: Sequence[Share]) -> None:
        """Encode what is sent, once for all processes, before any of them needs it."""
        configs = [config for share in shares for config in configs_of(share).values()]
        await asyncio.to_thread(check_media, configs)
        specs = clips_of(configs)
        use = LibraryUse(self._job.settings.cache_dir)
        try:
            for number, spec in enumerate(sorted(specs, key=repr), 1):
                self._view.say(f"Preparing media {number} of {len(specs)}")
                await use.library.get(spec)
        finally:
            await use.close()

    async def _unless_stopped(self, work: Coroutine[Any, Any, None]) -> None:
        """Do ``work``; it is broken off when the run is stopped."""
        task, stop = asyncio.ensure_future(work), asyncio.ensure_future(self._stopping.wait())
        try:
            await asyncio.wait({task, stop}, return_when=asyncio.FIRST_COMPLETED)
            if task.done():
                task.result()
        finally:
            task.cancel()
            stop.cancel()
            await asyncio.gather(task, stop, return_exceptions=True)

    async def _begin(self) -> datetime | None:
        """Wait until all processes are ready, and let them begin together; None where one stops it before."""
        self._view.say(f"Starting {len(self._ready)} processes")
        stop = asyncio.ensure_future(self._stopping.wait())
        try:
            await asyncio.wait(
                {stop, asyncio.ensure_future(asyncio.wait(self._ready.values()))},
                return_when=asyncio.FIRST_COMPLETED,
            )
        finally:
            stop.cancel()
        errors = [item.result().error for item in self._ready.values() if item.done()]
        if error := next(filter(None, errors), ""):
            raise ConfigurationError(error)
        if self._stopping.is_set():
            return None
        self._begins = time.time() + LEAD
        for child in self._children.values():
            child.send(Begin(self._begins))
        return datetime.fromtimestamp(self._begins, UTC)

    # --- the processes ---

    async def _live(self, share: Share) -> None:
        number = share.process
        child = ChildProcess(WORKER, lambda message: self._take(number, message))
        try:
            await child.start()
        except OSError as error:
            self._ready[number].set_result(Ready(f"a process can't be started: {error}"))
            return
        self._children[number] = child
        child.send(Prepare(share, self._job.settings.log_level, self._job.log_format))
        code = await child.run()
        del self._children[number]
        if not self._ready[number].done():
            self._ready[number].set_result(Ready(f"a process ended before it began, exit code {code}"))
        elif number not in self._finished and self._begins is not None:
            self._died(number, code)

    def _died(self, number: int, code: int) -> None:
        how = f"signal {-code}" if code < 0 else f"exit code {code}"
        log.error("A process died", event_name="load_process_died", process=number + 1, how=how)
        self.standing.died(number, self.at, how)

    def _take(self, number: int, message: object) -> None:
        match message:
            case Ready():
                self._ready[number].set_result(message)
            case Progress():
                self.standing.feed(number, message)
                if message.last:
                    self._finished.add(number)
            case _:
                log.error("A process said what nobody understands", event_name="process_message_unknown")

    # --- while it runs ---

    async def _watch(self, lives: Sequence[asyncio.Task[None]]) -> None:
        """Look at how it stands until all processes have ended, or have had their time."""
        scenario = self._job.plan.scenario
        limit = scenario.duration + self._job.settings.leave_timeout + GRACE
        gone = asyncio.ensure_future(asyncio.wait(lives))
        ended = 0.0
        try:
            while not gone.done() and self._begins is not None:
                await asyncio.wait({gone}, timeout=1.0 - time.time() % 1.0)
                self._tick()
                if self._stopping.is_set():
                    ended = ended or time.monotonic()
                if self.at > limit or (ended and time.monotonic() - ended > limit - scenario.duration):
                    for life in lives:
                        life.cancel()
                    break
        finally:
            gone.cancel()

    def _tick(self) -> None:
        self.standing.tick(self.at)
        self._view.show(self.standing, self.at)
        scenario = self._job.plan.scenario
        counts = scenario.abort_on_fail and self.at > scenario.warm_up and not self._stopping.is_set()
        if counts and (missed := self.standing.broken):
            text = f"{missed[0].threshold}: {missed[0].reason}"
            self.standing.extra_moments.append(Moment(at=self.at, what="threshold_missed", text=text))
            self.stop("threshold")

    def _report(self, started: datetime) -> Report:
        standing, plan = self.standing, self._job.plan
        return make_report(
            plan.scenario,
            standing.measures,
            standing.verdicts,
            started=started,
            seconds=self.at,
            participants=standing.participants,
            server=Server(
                url=redact(self._job.settings.ws_url), versions=dict(sorted(standing.tally.versions.items()))
            ),
            client=Client.of(plan.machine, len(plan.processes), standing.client_limits),
            failures=standing.failures,
            moments=standing.moments,
            settings=self._job.settings.public(),
            ended=self._ended,
        )
