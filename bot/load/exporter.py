"""``/metrics`` of a load run: what was measured until now, under names of ``jitsi_bot_load_*``."""

from __future__ import annotations

from collections.abc import Callable, Iterator

from prometheus_client import CollectorRegistry, generate_latest
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, Metric
from prometheus_client.registry import Collector

from bot import __version__
from bot.load.standing import Standing
from bot.load.thresholds import State as Met
from bot.participant.states import State

PREFIX = "jitsi_bot_load"
QUANTILES = (0.5, 0.9, 0.95, 0.99)


class Exporter:
    """Renders a standing as it is at the moment; ``clock`` is in seconds of the run."""

    def __init__(self, standing: Standing, clock: Callable[[], float]) -> None:
        self._registry = CollectorRegistry(auto_describe=False)
        self._registry.register(_Families(standing, clock))

    def render(self) -> bytes:
        """The exposition format."""
        return generate_latest(self._registry)


class _Families(Collector):
    def __init__(self, standing: Standing, clock: Callable[[], float]) -> None:
        self._standing = standing
        self._clock = clock

    def collect(self) -> Iterator[Metric]:
        """All metrics of now."""
        yield from self._run()
        yield from self._participants()
        yield from self._traffic()
        yield from self._measures()
        yield from self._verdicts()

    def _run(self) -> Iterator[Metric]:
        scenario = self._standing.scenario
        info = GaugeMetricFamily(f"{PREFIX}_info", "Scenario and version", labels=["scenario", "version"])
        info.add_metric([scenario.name, __version__], 1)
        yield info
        yield GaugeMetricFamily(
            f"{PREFIX}_elapsed_seconds", "Time since the start of the run", value=self._clock()
        )
        yield GaugeMetricFamily(f"{PREFIX}_duration_seconds", "Planned length of the run", value=scenario.duration)
        yield GaugeMetricFamily(
            f"{PREFIX}_client_cpu_cores", "Cores that the client uses", value=self._standing.cpu
        )
        limited = float(bool(self._standing.client_limits))
        yield GaugeMetricFamily(f"{PREFIX}_client_limited", "Whether the client is the bottleneck", value=limited)

    def _participants(self) -> Iterator[Metric]:
        standing = self._standing
        planned = float(standing.scenario.total)
        yield GaugeMetricFamily(f"{PREFIX}_planned_participants", "Participants of the scenario", value=planned)
        yield GaugeMetricFamily(f"{PREFIX}_participants_in_room", "Participants in rooms", value=standing.in_room)
        states = GaugeMetricFamily(f"{PREFIX}_participants", "Participants by state", labels=["state"])
        for state in State:
            states.add_metric([state.value], standing.states[state.value])
        yield states
        joins = CounterMetricFamily(f"{PREFIX}_joins", "Joins that were tried", labels=["result"])
        joins.add_metric(["joined"], standing.tally.joined)
        joins.add_metric(["failed"], standing.tally.tried - standing.tally.joined)
        yield joins
        failures = CounterMetricFamily(f"{PREFIX}_failures", "Failures by cause", labels=["cause", "whose"])
        for cause, item in standing.tally.failures.items():
            failures.add_metric([cause, item.whose], item.count)
        yield failures

    def _traffic(self) -> Iterator[Metric]:
        tally = self._standing.tally
        octets = CounterMetricFamily(f"{PREFIX}_bytes", "Bytes of RTP", labels=["direction"])
        octets.add_metric(["sent"], tally.bytes_sent)
        octets.add_metric(["received"], tally.bytes_received)
        yield octets
        yield CounterMetricFamily(
            f"{PREFIX}_packets_received", "RTP packets received", value=tally.packets_received
        )
        yield CounterMetricFamily(
            f"{PREFIX}_client_overflow", "Datagrams that full socket buffers turned away", value=tally.overflow
        )

    def _measures(self) -> Iterator[Metric]:
        measures = self._standing.measures
        quantiles = GaugeMetricFamily(
            f"{PREFIX}_quantile",
            "Quantiles of measures in their base units (s, bit/s, share, frames/s, pixels), within 1 %",
            labels=["measure", "quantile"],
        )
        for name, values in measures.values.items():
            for share in QUANTILES:
                if (value := values.quantile(share)) is not None:
                    quantiles.add_metric([name, f"{share:g}"], value)
        yield quantiles
        shares = GaugeMetricFamily(f"{PREFIX}_share", "Measures that are a share of a whole", labels=["measure"])
        for name in measures.shares:
            if (value := measures.total(name)) is not None:
                shares.add_metric([name], value)
        yield shares
        counts = CounterMetricFamily(
            f"{PREFIX}_count", "Measures that count something", labels=["measure", "cause"]
        )
        for name, causes in measures.counts.items():
            for cause, number in causes.items():
                counts.add_metric([name, cause], number)
        yield counts

    def _verdicts(self) -> Iterator[Metric]:
        met = GaugeMetricFamily(f"{PREFIX}_threshold_met", "Whether a threshold is met now", labels=["threshold"])
        for verdict in self._standing.verdicts:
            if verdict.state is not Met.NO_DATA:
                met.add_metric([verdict.threshold.text], float(verdict.met))
        yield met
