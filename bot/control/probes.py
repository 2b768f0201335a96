"""Operations on probes."""

from __future__ import annotations

import asyncio
import time
from collections import deque
from contextlib import suppress

from bot.control.auth import Scope
from bot.control.downloads import operations_on
from bot.control.jobmodel import ProbeList, ProbeResultView, ProbeSpec, ProbeView, VerdictView
from bot.control.jobs import Job
from bot.control.model import Failure
from bot.control.openapi import PREFIX, Operation
from bot.control.participants import allowed_server
from bot.control.problems import conflict
from bot.control.service import Call, Reply, Service
from bot.errors import ConfigurationError
from bot.events import Event
from bot.monitor import settings as options
from bot.monitor.model import ProbeResult
from bot.monitor.probe import Probe
from bot.monitor.settings import ProbeSettings

KIND = "probes"
#: Results that are kept of each.
HISTORY = 100


class Probing(Job):
    """A probe, once or on a schedule."""

    spec: ProbeSpec

    def __init__(self, name: str, spec: ProbeSpec, probe: Probe) -> None:
        super().__init__(name, spec)
        self.results: deque[ProbeResult] = deque(maxlen=HISTORY)
        self._probe = probe
        self._stopping = asyncio.Event()

    async def work(self) -> None:
        """Probe until it is stopped, or once."""
        due = time.monotonic()
        while await self._once() and self.spec.every:
            # A probe that took longer than the interval begins the next one at once.
            due = max(due + self.spec.every, time.monotonic())
            with suppress(TimeoutError):
                await asyncio.wait_for(self._stopping.wait(), due - time.monotonic())
            if self._stopping.is_set():
                return

    async def _once(self) -> bool:
        """Probe; False where it was stopped meanwhile."""
        work, stop = asyncio.ensure_future(self._probe.run()), asyncio.ensure_future(self._stopping.wait())
        try:
            await asyncio.wait({work, stop}, return_when=asyncio.FIRST_COMPLETED)
            if not work.done():
                return False
            self.results.append(work.result())
            return True
        finally:
            work.cancel()
            stop.cancel()
            await asyncio.gather(work, stop, return_exceptions=True)

    def halt(self) -> None:
        """Break off what goes on."""
        self._stopping.set()


async def list_all(service: Service, _: Call[None, None]) -> Reply:
    """All probes."""
    return Reply(200, ProbeList(items=[view(item) for item in service.probes.jobs]))


async def create(service: Service, call: Call[ProbeSpec, None]) -> Reply:
    """Begin one; again with the same body it changes nothing."""
    if (before := service.probes.known(call.id, call.body)) is not None:
        return Reply(200, view(before))
    settings = service.settings
    if call.body.server is not None:
        changes = {"ws_url": allowed_server(settings, service.api, call.body.server)}
        settings = settings.model_copy(update=changes)
    try:
        found = settings_of(service, call.body)
    except ConfigurationError as error:
        raise conflict(error.code, str(error)) from error
    name, seat = call.id, service.seats.take(found.bots)

    def emit(event: Event) -> None:
        service.tell(name, event)

    job = service.probes.start(Probing(name, call.body, Probe(settings, found, emit=emit)), seat)
    return Reply(201, view(job), headers={"Location": f"{PREFIX}/{KIND}/{call.id}"})


def settings_of(service: Service, spec: ProbeSpec) -> ProbeSettings:
    """The settings of the probe with what is asked for. Raises ConfigurationError."""
    given = spec.model_dump(exclude_none=True, exclude={"server", "every"})
    if "thresholds" in given:
        given["thresholds"] = tuple(given["thresholds"])
    return options.load(service.config, **given)


async def show(service: Service, call: Call[None, None]) -> Reply:
    """One probe."""
    return Reply(200, view(service.probes.get(call.id)))


async def stop(service: Service, call: Call[None, None]) -> Reply:
    """End one, and keep its results."""
    job = service.probes.get(call.id)
    job.stop()
    return Reply(202, view(job))


async def forget(service: Service, call: Call[None, None]) -> Reply:
    """Forget one that has ended."""
    service.probes.forget(call.id)
    return Reply(204)


def view(job: Probing) -> ProbeView:
    """A probe now."""
    last = job.results[-1].as_dict() if job.results else {"passes": []}
    return ProbeView(
        id=job.id,
        state=job.state,
        began=job.began,
        ended=job.ended,
        error=Failure(code=job.error[0], message=job.error[1]) if job.error is not None else None,
        files=[],
        results=[_result(item) for item in job.results],
        passes=last["passes"],
        spec=job.spec,
    )


def _result(item: ProbeResult) -> ProbeResultView:
    return ProbeResultView(
        at=item.at,
        seconds=item.seconds,
        verdict=VerdictView.model_validate(item.verdict.as_dict()),
        measures=dict(item.measures),
    )


OPERATIONS = (
    Operation(
        method="get",
        path=f"/{KIND}",
        name="listProbes",
        summary="All probes, with their history",
        handler=list_all,
        answers={200: ProbeList},
    ),
    Operation(
        method="put",
        path=f"/{KIND}/{{id}}",
        name="createProbe",
        summary="Probe the deployment, once or on a schedule; again with the same body it changes nothing",
        handler=create,
        scope=Scope.OPERATE,
        body=ProbeSpec,
        answers={200: ProbeView, 201: ProbeView},
        creates=True,
    ),
    *operations_on(KIND, noun="Probe", view=ProbeView, show=show, stop=stop, forget=forget),
)
