"""The last result as Prometheus metrics. Labels are passes, stages, phases, measures: bounded all of them."""

from __future__ import annotations

from prometheus_client import CollectorRegistry, Counter, Gauge, generate_latest

from bot import __version__
from bot.monitor.model import PassResult, ProbeResult, Severity, Stage
from bot.monitor.thresholds import MEASURES
from bot.participant.timing import PHASES

_UNITS = {"s": "seconds", "": "ratio", "d": "days"}
_TEXTS = {name: measure.text for name, measure in MEASURES.items()}


class ProbeMetrics:
    """Shows the last result; ``render`` is the text of ``/metrics``."""

    def __init__(self) -> None:
        self.registry = CollectorRegistry()
        self._gauge("jitsi_bot_info", "Version of the program", ["version"]).labels(version=__version__).set(1)
        self._runs = Counter("jitsi_bot_probe_runs", "Probes that were made", ["severity"], registry=self.registry)
        for severity in Severity:
            self._runs.labels(severity=severity.name.lower())
        self._up = self._gauge("jitsi_bot_probe_success", "1 where all was fine", ["pass"])
        self._severity = self._gauge(
            "jitsi_bot_probe_severity", "0 fine, 1 warning, 2 critical, 3 unknown", ["pass"]
        )
        self._stage = self._gauge("jitsi_bot_probe_stage", "1 for where it broke", ["stage"])
        self._at = self._gauge("jitsi_bot_probe_last_run_timestamp_seconds", "When the last probe began", [])
        self._took = self._gauge("jitsi_bot_probe_run_seconds", "How long the last probe took", [])
        self._phase = self._gauge(
            "jitsi_bot_probe_phase_seconds", "Each phase of joining, the slowest bot", ["pass", "phase"]
        )
        self._delays = self._gauge(
            "jitsi_bot_probe_path_delay_seconds",
            "From the clip to the decoded frame, the worst path",
            ["pass", "media", "quantile"],
        )
        self._measures = {
            name: self._gauge(_name(name, measure.unit), _TEXTS[name], ["pass"])
            for name, measure in MEASURES.items()
        }

    def _gauge(self, name: str, text: str, labels: list[str]) -> Gauge:
        return Gauge(name, text, labels, registry=self.registry)

    def show(self, result: ProbeResult) -> None:
        """Take ``result`` in place of the one before: what it did not measure is not there any more."""
        self._runs.labels(severity=result.verdict.severity.name.lower()).inc()
        for gauge in (self._up, self._severity, self._phase, self._delays, *self._measures.values()):
            gauge.clear()
        self._at.set(result.at)
        self._took.set(result.seconds)
        for stage in Stage:
            self._stage.labels(stage=stage.value).set(stage is result.verdict.stage)
        self._severity.labels("all").set(result.verdict.severity)
        self._up.labels("all").set(result.verdict.ok)
        for item in result.passes:
            self._pass(item)

    def _pass(self, item: PassResult) -> None:
        self._severity.labels(item.name).set(item.verdict.severity)
        self._up.labels(item.name).set(item.verdict.ok)
        phases = {stage.value: seconds for stage, seconds in item.seen.preflight.seconds.items()}
        for phase in PHASES:
            found = [bot.phases[phase] for bot in item.seen.bots if phase in bot.phases]
            if found:
                phases[phase] = max(found)
        for phase, seconds in phases.items():
            self._phase.labels(item.name, phase).set(seconds)
        for name, value in item.measures.items():
            self._measures[name].labels(item.name).set(value)
        self._worst_delays(item)

    def _worst_delays(self, item: PassResult) -> None:
        for media in ("picture", "sound"):
            found = [getattr(path, f"{media}_delay") for path in item.seen.paths]
            for quantile, name in (("0.5", "p50"), ("0.95", "p95")):
                values = [getattr(delay, name) for delay in found if delay is not None]
                if values:
                    self._delays.labels(item.name, media, quantile).set(max(values))

    def render(self) -> bytes:
        """The exposition format."""
        return generate_latest(self.registry)


def _name(measure: str, unit: str) -> str:
    return f"jitsi_bot_probe_{measure}_{_UNITS[unit]}"
