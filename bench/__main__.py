"""``python -m bench``: run all cases, print one table and write ``build/bench.json``."""

from __future__ import annotations

import asyncio
import os
import time
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Annotated

import typer
from rich.console import Console

from bench import report
from bench.checks import faults
from bench.figures import Figure
from bench.measures import Measure, growth, measures
from bench.messages import JoinJob, JoinMeasured, Measured
from bench.plan import FULL, QUICK, Case, Scale, cases, growth_name
from bench.processes import CaseError, run_job, run_joins
from bot.engine import streams

#: Seconds after which no further case is begun.
TIME_LIMIT = {FULL: 420.0, QUICK: 80.0}
#: Share of it after which no case is tried once more.
_PATIENCE = 0.6

Result = tuple[Measured, ...] | JoinMeasured


async def _once(case: Case, scale: Scale) -> Result:
    if case.job is None:
        job = JoinJob(url="", participants=scale.joining, room_size=scale.room_size, steady=scale.window)
        return await run_joins(job)
    found = await run_job(case.job, case.processes)
    wrong = [item for measured in found for item in faults(case.job, measured)]
    if wrong:
        raise CaseError(f"the media was not real: {wrong[0]}")
    return found


async def _run(case: Case, scale: Scale, console: Console, *, again: bool) -> Result:
    """A case, once more if it failed: whoever else uses the machine may have taken it for a moment."""
    try:
        return await _once(case, scale)
    except CaseError as error:
        if not again:
            raise
        console.print(f"{case.name}: once more, {error}", highlight=False, markup=False)
    return await _once(case, scale)


async def run_all(
    wanted: list[Case], scale: Scale, console: Console
) -> tuple[dict[str, Result], dict[str, CaseError]]:
    """What each case gave, and why some gave nothing."""
    results: dict[str, Result] = {}
    errors: dict[str, CaseError] = {}
    began = time.monotonic()
    for case in wanted:
        if time.monotonic() - began > TIME_LIMIT[scale]:
            errors[case.name] = CaseError("the time was over")
            continue
        start = time.monotonic()
        try:
            again = start - began < _PATIENCE * TIME_LIMIT[scale]
            results[case.name] = await _run(case, scale, console, again=again)
            said = "done"
        except CaseError as error:
            errors[case.name] = error
            said = str(error)
        console.print(f"{case.name}: {said} ({time.monotonic() - start:.0f} s)", highlight=False, markup=False)
    return results, errors


def needed(wanted: tuple[Measure, ...], scale: Scale, *, with_growth: bool) -> list[Case]:
    """The cases of these measures, in their order."""
    names = {name for item in wanted for name in item.needs}
    if with_growth:
        names |= {growth_name(size) for size in scale.growth}
    return [case for name, case in cases(scale).items() if name in names]


def notes(results: dict[str, Result]) -> dict[str, list[dict[str, float]]]:
    """What the processes under test told of themselves, by case."""
    return {
        name: [item.notes for item in found]
        for name, found in results.items()
        if not isinstance(found, JoinMeasured)
    }


def main(
    *,
    quick: Annotated[
        bool, typer.Option("--quick", help="Small and short: shows that it works, no numbers")
    ] = False,
    only: Annotated[list[str] | None, typer.Option("--only", help="Measure this alone, or 'growth'")] = None,
    output: Annotated[Path, typer.Option("--output", help="Where the JSON goes")] = Path("build/bench.json"),
) -> None:
    """Measure what participants cost, beside aiortc as it is in the same run."""
    scale = QUICK if quick else FULL
    chosen = tuple(item for item in measures(scale) if not only or item.key in only)
    if unknown := set(only or ()) - {item.key for item in chosen} - {"growth"}:
        raise typer.BadParameter(f"there is no {', '.join(sorted(unknown))}")
    console = Console(stderr=True)
    wanted = needed(chosen, scale, with_growth=not only or "growth" in only)
    compiled = not streams.__file__.endswith(".py")
    about = {"versions": report.versions(), "compiled": compiled, "quick": quick}
    circumstances = {"machine": report.machine()} | about
    began = time.monotonic()
    with TemporaryDirectory(prefix="bench-clips-") as directory:
        os.environ["XDG_CACHE_HOME"] = directory  # of all processes: the first one makes the clips
        results, failed = asyncio.run(run_all(wanted, scale, console))
    figures: dict[str, Figure] = {}
    errors: dict[str, str] = {}
    for item in chosen:
        lacking = [name for name in item.needs if name in failed]
        if lacking:
            errors[item.key] = f"{lacking[0]}: {failed[lacking[0]]}"
        else:
            figures[item.key] = item.compute(results, scale)
    unused = set(failed) - {name for item in chosen for name in item.needs}
    without_rows = {name: str(failed[name]) for name in sorted(unused)}
    rows = growth(results, scale)
    noted = circumstances | {"notes": notes(results), "seconds": round(time.monotonic() - began, 1)}
    report.write(output, report.as_json(chosen, figures, errors | without_rows, rows, noted))
    out = Console()
    out.print(report.table(chosen, figures, errors))
    if rows or without_rows:
        out.print(report.growth_table(rows, without_rows))
    if failed:
        raise typer.Exit(1)


if __name__ == "__main__":
    typer.run(main)
