"""Operations on load runs."""

from __future__ import annotations

import asyncio
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from bot.control.auth import Scope
from bot.control.downloads import download, file_views, operations_on
from bot.control.jobmodel import LoadList, LoadPoint, LoadSpec, LoadView, ThresholdView
from bot.control.jobs import Job
from bot.control.model import Failure
from bot.control.openapi import PREFIX, Operation
from bot.control.participants import allowed_server
from bot.control.problems import conflict
from bot.control.service import Call, Reply, Service
from bot.errors import BotError, ConfigurationError
from bot.load import files as scenarios
from bot.load.command import plan_of
from bot.load.guard import refuse_public
from bot.load.machine import raise_file_limit
from bot.load.plan import Plan
from bot.load.report import files as reports
from bot.load.run import Job as LoadJob
from bot.load.run import LoadRun
from bot.load.seating import check_warm_up
from bot.load.standing import Standing
from bot.settings import Settings

KIND = "loads"
#: Points of a chart; with more every second one is left out.
POINTS = 400


class Load(Job):
    """One run. It is its own view."""

    spec: LoadSpec

    def __init__(self, name: str, spec: LoadSpec, job: LoadJob, folder: Path) -> None:
        super().__init__(name, spec)
        self.plan = job.plan
        self.folder = folder
        self.said = ""
        self.exit_code: int | None = None
        self.series: list[LoadPoint] = []
        self._step = 1
        self._shown = 0
        self._run = LoadRun(job, self)

    @property
    def standing(self) -> Standing:
        """What was measured until now."""
        return self._run.standing

    @property
    def at(self) -> float:
        """Seconds of the run."""
        return self.series[-1].at if self.over and self.series else self._run.at

    async def work(self) -> None:
        """Run it, and write the report."""
        report = await self._run.run()
        self.exit_code = report.exit_code
        await asyncio.to_thread(reports.write, report, self.folder)

    def halt(self) -> None:
        """Let all leave; what was measured is reported."""
        self._run.stop()

    def say(self, text: str) -> None:
        """Take what goes on before it begins."""
        self.said = text

    def show(self, standing: Standing, at: float) -> None:
        """Take how it stands, once a second."""
        self._shown += 1
        if self._shown % self._step:
            return
        _, sent, received = standing.rates
        self.series.append(
            LoadPoint(
                at=at,
                in_room=standing.in_room,
                joining=standing.joining,
                bitrate_sent=sent,
                bitrate_received=received,
                cpu=standing.cpu,
            )
        )
        if len(self.series) > POINTS:
            self.series = self.series[::2]
            self._step *= 2


async def list_all(service: Service, _: Call[None, None]) -> Reply:
    """All load runs of this daemon."""
    return Reply(200, LoadList(items=[view(service, item) for item in service.loads.jobs]))


async def create(service: Service, call: Call[LoadSpec, None]) -> Reply:
    """Begin one; again with the same body it changes nothing."""
    if (before := service.loads.known(call.id, call.body)) is not None:
        return Reply(200, view(service, before))
    if any(not job.over for job in service.loads.jobs):
        raise conflict("busy", "another load run is not over: two would measure each other")
    settings = service.settings.model_copy(update={"processes": 0})
    if call.body.server is not None:
        changes = {"ws_url": allowed_server(settings, service.api, call.body.server)}
        settings = settings.model_copy(update=changes)
    try:
        plan = planned(settings, call.body)
    except BotError as error:
        raise conflict(error.code, str(error)) from error
    seat = service.seats.take(plan.scenario.total)
    folder = service.report_shelf.root / f"{call.id}-{datetime.now(UTC):%Y%m%dT%H%M%SZ}"
    raise_file_limit()
    run = LoadJob(plan, settings, service.log_format)
    job = service.loads.start(Load(call.id, call.body, run, folder), seat)
    return Reply(201, view(service, job), headers={"Location": f"{PREFIX}/{KIND}/{call.id}"})


def planned(settings: Settings, spec: LoadSpec) -> Plan:
    """The plan of a run. Raises ConfigurationError for what can't be, or not by this machine, or not there."""
    given: dict[str, Any] = spec.model_dump(exclude_none=True, exclude={"profile", "server"})
    if "height" in given:
        given["height"] = int(given["height"])
    if "thresholds" in given:
        given["thresholds"] = tuple(given["thresholds"])
    if spec.profile is not None and spec.profile not in scenarios.profiles():
        raise ConfigurationError(f"there is no profile {spec.profile}", hint="jitsi-bot load --list")
    scenario = scenarios.load(spec.profile, **given)
    check_warm_up(scenario)
    refuse_public(settings.ws_url, scenario.total)
    plan = plan_of(scenario, settings)
    if not plan.fits:
        raise ConfigurationError(f"this machine can't carry it: {plan.problems[0].text}")
    return plan


async def show(service: Service, call: Call[None, None]) -> Reply:
    """One load run."""
    return Reply(200, view(service, service.loads.get(call.id)))


async def stop(service: Service, call: Call[None, None]) -> Reply:
    """End one early, with a report of what was measured."""
    job = service.loads.get(call.id)
    job.stop()
    return Reply(202, view(service, job))


async def forget(service: Service, call: Call[None, None]) -> Reply:
    """Free the id of one that has ended; its report stays."""
    service.loads.forget(call.id)
    return Reply(204)


async def get_file(service: Service, call: Call[None, None]) -> Reply:
    """A file of the report."""
    return download(service.loads.get(call.id).folder, call)


def view(service: Service, job: Load) -> LoadView:
    """A load run now."""
    standing, scenario = job.standing, job.plan.scenario
    return LoadView(
        id=job.id,
        state=job.state,
        began=job.began,
        ended=job.ended,
        error=Failure(code=job.error[0], message=job.error[1]) if job.error is not None else None,
        files=file_views(service, KIND, job.id, job.folder),
        said=job.said,
        at=min(job.at, scenario.duration),
        duration=scenario.duration,
        planned=scenario.total,
        joined=standing.tally.joined,
        in_room=standing.in_room,
        failures={item.cause: item.count for item in standing.failures},
        limits=standing.client_limits,
        thresholds=[
            ThresholdView(threshold=item.threshold.text, state=item.state.value, reason=item.reason)
            for item in standing.verdicts
        ],
        series=job.series,
        exit_code=job.exit_code,
        spec=job.spec,
    )


OPERATIONS = (
    Operation(
        method="get",
        path=f"/{KIND}",
        name="listLoads",
        summary="All load runs of this daemon",
        handler=list_all,
        answers={200: LoadList},
    ),
    Operation(
        method="put",
        path=f"/{KIND}/{{id}}",
        name="createLoad",
        summary="Load the deployment; again with the same body it changes nothing",
        handler=create,
        scope=Scope.OPERATE,
        body=LoadSpec,
        answers={200: LoadView, 201: LoadView},
        creates=True,
    ),
    *operations_on(KIND, noun="Load", view=LoadView, show=show, stop=stop, forget=forget, file=get_file),
)
