"""A plan as people and programs read it: the text and the JSON of ``--dry-run``. Pure."""

from __future__ import annotations

from collections.abc import Iterable
from itertools import groupby
from typing import Any

from bot.load import units
from bot.load.plan import Demand, Flow, Plan, groups_of, layers
from bot.load.scenario import Scenario
from bot.load.timetable import Action

#: Lines of the timetable shown at each end, in the text.
_SHOWN = 5


def as_json(plan: Plan) -> dict[str, Any]:
    """All of the plan; bit/s, packets/s, bytes, cores."""
    return {
        "scenario": plan.scenario.model_dump(mode="json"),
        "participants": plan.total.participants,
        "peak": plan.timetable.peak,
        "client": {**_demand(plan.total), "processes": [_demand(item) for item in plan.processes]},
        "server": {"received": _flow(plan.total.up), "sent": _flow(plan.total.down)},
        "machine": {
            "cores": plan.machine.cores,
            "memory": plan.machine.memory,
            "open_files": plan.machine.open_files,
            "addresses": plan.machine.addresses,
        },
        "costs": {"from": plan.costs_from, **plan.costs.model_dump()},
        "fits": plan.fits,
        "problems": [{"resource": item.resource, "text": item.text} for item in plan.problems],
        "seats": [
            {
                "seat": seat.index,
                "room": seat.room,
                "name": seat.name,
                "group": seat.group,
                "process": seat.process,
            }
            for seat in plan.timetable.seats
        ],
        "actions": [[round(item.at, 3), item.seat, item.what] for item in plan.timetable.actions],
    }


def _demand(demand: Demand) -> dict[str, Any]:
    return {
        "participants": demand.participants,
        "sent": _flow(demand.up),
        "received": _flow(demand.down),
        "cores": demand.cores,
        "cores_joining": demand.joining,
        "memory": demand.memory,
        "open_files": demand.files,
    }


def _flow(flow: Flow) -> dict[str, float]:
    return {"packets": flow.packets, "bits": flow.bits}


def as_text(plan: Plan) -> str:
    """The plan in lines for people."""
    lines = [*_who(plan), "", *_when(plan), "", *_media(plan), "", *_client(plan), "", *_judgement(plan)]
    return "\n".join(lines) + "\n"


def _row(name: str, text: str) -> str:
    return f"{name:<14} {text}".rstrip()


def _who(plan: Plan) -> Iterable[str]:
    scenario = plan.scenario
    yield _row("scenario", scenario.name or "of the flags alone")
    yield _row(
        "participants", f"{scenario.total}: {scenario.conferences} x {scenario.participants}, {_senders(plan)}"
    )
    for name, number in groups_of(plan).items():
        if name:
            yield _row("", f"{number} of them in group {name}")
    sizes = " + ".join(f"{layer.height}p" for layer in layers(scenario))
    yield _row("pictures", f"{scenario.codec}, {sizes}, {scenario.fps} frames/s")
    yield _row("layout", scenario.layout + (f", last-n {scenario.last_n}" if scenario.last_n >= 0 else ""))
    for text in scenario.thresholds:
        yield _row("threshold", text)


def _senders(plan: Plan) -> str:
    seats = plan.timetable.seats
    return f"{sum(seat.video for seat in seats)} send pictures, {sum(seat.audio for seat in seats)} sound"


def _when(plan: Plan) -> Iterable[str]:
    scenario = plan.scenario
    yield _row("duration", f"{units.show_seconds(scenario.duration)}{_warm_up(scenario)}")
    yield _row(
        "peak", f"{plan.timetable.peak} at a time, {plan.timetable.joins_per_second()} joins in the busiest second"
    )
    actions = plan.timetable.actions
    changes = [f"{at:8.1f} s  {text}" for at, text in _changes(plan, actions)]
    if len(changes) > 2 * _SHOWN:
        left_out = f"{'':10}  … {len(changes) - 2 * _SHOWN} more"
        changes = [*changes[:_SHOWN], left_out, *changes[-_SHOWN:]]
    for number, text in enumerate(changes):
        yield _row("" if number else "timetable", text)


def _warm_up(scenario: Scenario) -> str:
    return f", of which {units.show_seconds(scenario.warm_up)} don't count" if scenario.warm_up else ""


def _changes(plan: Plan, actions: Iterable[Action]) -> Iterable[tuple[float, str]]:
    """One line for each time at which participants join or leave."""
    seats = plan.timetable.seats
    for (at, what), group in groupby(actions, key=lambda action: (action.at, action.what)):
        them = [seats[action.seat] for action in group]
        who = f"{them[0].name} of {them[0].room}" if len(them) == 1 else f"{len(them)} participants"
        yield at, f"{what}  {who}"


def _media(plan: Plan) -> Iterable[str]:
    yield _row("while all are there, RTP with its headers:", "")
    yield _row("client sends", _rate(plan.total.up))
    yield _row("server sends", _rate(plan.total.down))


def _rate(flow: Flow) -> str:
    return f"{units.show_scaled(flow.bits, 'bit/s')}, {flow.packets:,.0f} packets/s"


def _client(plan: Plan) -> Iterable[str]:
    total, machine = plan.total, plan.machine
    files = max(item.files for item in plan.processes)
    yield _row("processes", str(len(plan.processes)))
    joining = f", {total.joining:.2f} more while they join" if total.joining else ""
    yield _row("CPU", f"{total.cores:.2f} cores{joining}, of {machine.cores}")
    yield _row("memory", f"{total.memory / 2**20:,.0f} MiB of {machine.memory / 2**20:,.0f} available")
    yield _row("open files", f"{files} in a process, of {machine.open_files}")
    yield _row("costs", plan.costs_from)


def _judgement(plan: Plan) -> Iterable[str]:
    if plan.fits:
        yield "This machine can carry it."
    for problem in plan.problems:
        yield f"This machine can't carry it: {problem.text}."
