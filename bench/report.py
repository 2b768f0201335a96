"""The table and the JSON of a run. Pure, but for what they say of the machine."""

from __future__ import annotations

import json
import os
import platform
from collections.abc import Mapping, Sequence
from importlib.metadata import version
from pathlib import Path
from typing import Any

from rich.table import Table

from bench.figures import Figure
from bench.measures import Measure

_LIBRARIES = ("aiortc", "aioice", "av", "numpy", "pylibsrtp", "uvloop")


def machine() -> dict[str, Any]:
    """What the run was made on: other numbers are to be expected elsewhere."""
    names = [
        line.partition(":")[2].strip()
        for line in Path("/proc/cpuinfo").read_text(encoding="utf-8", errors="replace").splitlines()
        if line.startswith("model name")
    ]
    return {
        "cpu": names[0] if names else platform.processor() or platform.machine(),
        "cores": len(os.sched_getaffinity(0)),
        "system": f"{platform.system()} {platform.release()}",
        "load_average": round(os.getloadavg()[0], 2),
    }


def versions() -> dict[str, str]:
    """Of the interpreter, the program and the libraries that the numbers depend on."""
    libraries = {name: version(name) for name in _LIBRARIES}
    return {"python": platform.python_version(), "jitsi-bot": version("jitsi-bot"), **libraries}


def as_json(
    wanted: Sequence[Measure],
    figures: Mapping[str, Figure],
    errors: Mapping[str, str],
    rows: Sequence[Mapping[str, float]],
    about: Mapping[str, Any],
) -> dict[str, Any]:
    """A flat map of the numbers (null where there is none), and beside them spread, errors and circumstances."""
    return {
        **{item.key: _rounded(figures[item.key].value) if item.key in figures else None for item in wanted},
        "growth": [{key: _rounded(value) for key, value in row.items()} for row in rows],
        "spread": {key: [_rounded(item.low), _rounded(item.high)] for key, item in figures.items()},
        "errors": dict(errors),
        "costs": _costs(figures),
        **about,
    }


def _costs(figures: Mapping[str, Figure]) -> dict[str, float]:
    """What :class:`bot.load.costs.Costs` can be told of this machine, in its units."""
    known = {"packet_received": ("receive_us_per_packet", 1e-6), "join": ("join_cpu_ms", 1e-3)}
    return {name: _rounded(figures[key].value * factor) for name, (key, factor) in known.items() if key in figures}


def _rounded(value: float) -> float:
    return value if isinstance(value, int) else float(f"{value:.4g}")


def write(path: Path, content: Mapping[str, Any]) -> None:
    """Write the JSON, and the directory where there is none."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(content, indent=2) + "\n", encoding="utf-8")


def table(wanted: Sequence[Measure], figures: Mapping[str, Figure], errors: Mapping[str, str]) -> Table:
    """All numbers with their spread and what is wanted of them."""
    found = Table(title="What a participant costs")
    for title in ("", "measured", "spread", "wanted", ""):
        found.add_column(title, justify="left" if not title else "right", overflow="fold")
    for item in wanted:
        figure = figures.get(item.key)
        target = str(item.target) if item.target is not None else ""
        if figure is None:
            found.add_row(item.title, "–", "", target, errors.get(item.key, ""))
            continue
        met = "" if item.target is None else ("yes" if item.target.met(figure.value) else "[red]no")
        spread = "" if figure.low == figure.high else f"{figure.low:.3g} … {figure.high:.3g}"
        found.add_row(item.title, f"{figure.value:.3g} {item.unit}".strip(), spread, target, met)
    return found


def growth_table(rows: Sequence[Mapping[str, float]], errors: Mapping[str, str]) -> Table:
    """The growth table; ``errors`` say which rows there are not, and why."""
    found = Table(title="Publishers of one process")
    for title in ("publishers", "core", "core each", "spread", "late p50", "late p99", "memory"):
        found.add_column(title, justify="right")
    for row in rows:
        found.add_row(
            f"{row['publishers']:g}",
            f"{row['core_percent']:.1f} %",
            f"{row['core_percent_per_publisher']:.3f} %",
            f"{row['low']:.3f} … {row['high']:.3f}",
            f"{row['pacing_p50_ms']:.1f} ms",
            f"{row['pacing_p99_ms']:.1f} ms",
            f"{row['memory_mb']:.0f} MB",
        )
    for name, error in errors.items():
        found.add_row(name.rpartition("-")[2], "–", "", "", "", "", "")
        found.caption = f"{found.caption or ''}{name}: {error}\n"
    return found
