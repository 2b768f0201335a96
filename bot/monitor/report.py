"""A result as text, as JSON, or as a line of the Monitoring Plugins' guidelines. Pure."""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence

from bot.monitor.model import PassResult, PathSeen, ProbeResult, Severity, Stage
from bot.monitor.thresholds import MEASURES, Threshold, show

#: The exit codes of the other formats; those of ``nagios`` are the severities themselves.
EXIT_FINE, EXIT_USAGE, EXIT_NO_CALL, EXIT_MISSED = 0, 2, 3, 99
_PERFDATA_UNIT = {"s": "s", "": "", "d": ""}


def exit_code(result: ProbeResult, form: str) -> int:
    """What the command ends with.

    For ``nagios`` 0 fine, 1 warning, 2 critical, 3 unknown. Else 0; 3 where there is no call that works; 99 where
    there is one and something is missed: quality, TURN, the bridge channel, or UDP; 1 where the probe failed.
    """
    verdict = result.verdict
    if form == "nagios":
        return int(verdict.severity)
    if verdict.ok:
        return EXIT_FINE
    if verdict.stage is Stage.PROBE:
        return EXIT_USAGE if verdict.code == "configuration" else 1
    works = verdict.stage.number > Stage.MEDIA.number or verdict.severity is Severity.WARNING
    return EXIT_MISSED if works else EXIT_NO_CALL


def as_json(result: ProbeResult) -> str:
    """One line of JSON."""
    return json.dumps(result.as_dict(), separators=(",", ":"))


def as_nagios(result: ProbeResult, thresholds: Sequence[Threshold]) -> str:
    """The plug-in's line with its performance data (Monitoring Plugins Development Guidelines, section 2)."""
    verdict = result.verdict
    said = verdict.text if verdict.ok else f"{verdict.text} - look at: {verdict.hint}"
    # A bar would begin the performance data.
    line = f"JITSI {verdict.severity.name} - {said}".replace("|", "/").replace("\n", " ")
    data = " ".join(_perfdata(result, thresholds))
    return f"{line} | {data}" if data else line


def _perfdata(result: ProbeResult, thresholds: Sequence[Threshold]) -> Iterator[str]:
    limits = {item.measure.name: item for item in thresholds}
    for name, measure in MEASURES.items():
        value = result.measures.get(name)
        if value is None:
            continue
        limit = limits.get(name)
        ends = "" if limit is None else f";{_range(limit, limit.warning)};{_range(limit, limit.critical)}"
        yield f"{name}={value:.6g}{_PERFDATA_UNIT[measure.unit]}{ends}"


def _range(threshold: Threshold, limit: float) -> str:
    """A range that alerts outside of it: ``10`` is 0 to 10, ``10:`` is 10 and more."""
    return f"{limit:.6g}" if threshold.measure.worse == "above" else f"{limit:.6g}:"


def as_text(result: ProbeResult) -> str:
    """For people."""
    verdict = result.verdict
    lines = [f"{verdict.severity.name}: {verdict.text}"]
    if not verdict.ok:
        lines.append(f"  look at: {verdict.hint}")
    for item in result.passes:
        lines += _pass(item)
    return "\n".join(lines) + "\n"


def _pass(item: PassResult) -> Iterator[str]:
    yield f"{item.name}: {item.verdict.text}"
    before = item.seen.preflight.seconds
    if before:
        yield "  before  " + "  ".join(f"{stage.value} {_ms(seconds)}" for stage, seconds in before.items())
    for bot in item.seen.bots:
        phases = "  ".join(f"{phase} {_ms(seconds)}" for phase, seconds in bot.phases.items())
        yield f"  {bot.name} {phases}"
    for path in item.seen.paths:
        yield f"  {path.where}: {_path(path)}"
    measures = [
        f"{name} {show(item.measures[name], measure.unit)}"
        for name, measure in MEASURES.items()
        if name in item.measures
    ]
    if measures:
        yield "  " + ", ".join(measures)


def _path(path: PathSeen) -> str:
    lost = path.audio_lost + path.video_lost
    parts = [f"{path.pictures} of {path.expected} pictures, {path.sounds} marks of sound, {lost} packets lost"]
    for name, delay in (("picture", path.picture_delay), ("sound", path.sound_delay)):
        if delay is not None:
            parts.append(f"{name} after {_ms(delay.p50)} (p95 {_ms(delay.p95)})")
    return ", ".join(parts)


def _ms(seconds: float) -> str:
    return f"{1000 * seconds:.0f} ms"
