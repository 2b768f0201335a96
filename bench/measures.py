"""The numbers, each from the cases that it needs. Pure."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass

from bench.figures import Figure, Target, percentile
from bench.messages import JoinMeasured, Measured
from bench.plan import Scale, cases, growth_name

#: What a case gave: of each process what it measured, or what its joins cost.
Results = Mapping[str, tuple[Measured, ...] | JoinMeasured]


@dataclass(frozen=True, slots=True)
class Measure:
    """One number: from which ``cases``, what is wanted of it, and how its value is told."""

    key: str
    title: str
    unit: str
    needs: tuple[str, ...]
    compute: Callable[[Results, Scale], Figure]
    target: Target | None = None


def _measured(results: Results, name: str) -> tuple[Measured, ...]:
    found = results[name]
    assert not isinstance(found, JoinMeasured)
    return found


def cost(results: Results, scale: Scale, name: str) -> Figure:
    """Share of a core that a participant of a case takes (of its first process)."""
    return _cost(results, scale, name, 0)


def _cost(results: Results, scale: Scale, name: str, process: int) -> Figure:
    job = cases(scale)[name].job
    assert job is not None
    windows = _measured(results, name)[process].windows
    return Figure.of(window.cpu / window.seconds / job.participants for window in windows)


def _per_core(name: str) -> Callable[[Results, Scale], Figure]:
    return lambda results, scale: cost(results, scale, name).inverse()


def _publish_ratio(baseline: str) -> Callable[[Results, Scale], Figure]:
    return lambda results, scale: cost(results, scale, baseline).over(
        cost(results, scale, growth_name(scale.crowd))
    )


def _per_packet(results: Results, scale: Scale) -> Figure:
    """µs of CPU a received packet, all of the receiving process included."""
    windows = _measured(results, "receive-20")[0].windows
    del scale
    return Figure.of(window.cpu / window.received * 1e6 for window in windows)


def _receive20(results: Results, scale: Scale) -> Figure:
    return cost(results, scale, "receive-20").scaled(100)


def _receive_ratio(results: Results, scale: Scale) -> Figure:
    """Aiortc's cost a stream, with fewer than 20, against ours with 20."""
    ours = cost(results, scale, "receive-20").scaled(1 / 20)
    return cost(results, scale, "aiortc-receiving").scaled(1 / scale.aiortc_streams).over(ours)


def _pacing(results: Results, scale: Scale) -> Figure:
    """How late the 99th percentile of the pictures came, in ms; with the spread of the windows."""
    windows = _measured(results, growth_name(scale.crowd))[0].windows
    late = [[value * 1000 for view in window.far for value in view.lateness] for window in windows]
    spread = [percentile(item, 0.99) for item in late]
    return Figure(percentile([value for item in late for value in item], 0.99), min(spread), max(spread))


def _memory(results: Results, scale: Scale) -> Figure:
    """MB of each participant beyond the small crowd."""
    large, small = scale.crowd, scale.small_crowd
    grown = _measured(results, growth_name(large))[0].memory - _measured(results, growth_name(small))[0].memory
    return Figure.of([grown / (large - small) / 1e6])


def _join(results: Results, scale: Scale) -> Figure:
    """CPU ms of a join, less what those who had joined took for standing in the room meanwhile."""
    found = results["join"]
    del scale
    assert isinstance(found, JoinMeasured)
    return Figure.of([(found.cpu - found.steady * found.stood) / found.participants * 1000])


def _speedup(results: Results, scale: Scale) -> Figure:
    """Publishers that two processes carry at once against those of one, by their CPU time."""
    both = [_cost(results, scale, "publish-two-processes", number).inverse() for number in range(2)]
    return both[0].plus(both[1]).over(cost(results, scale, growth_name(scale.crowd)).inverse())


def measures(scale: Scale) -> tuple[Measure, ...]:
    """All numbers, in the order of the table."""
    crowd, small = growth_name(scale.crowd), growth_name(scale.small_crowd)
    encoding, packets = "aiortc-encoding", "aiortc-packets"
    return (
        Measure("publishers_per_core", "Publishers per core", "", (crowd,), _per_core(crowd), Target(500)),
        Measure(
            "publish_ratio_aiortc_encoding",
            "… cheaper than aiortc that encodes",
            "×",
            (encoding, crowd),
            _publish_ratio(encoding),
            Target(60),
        ),
        Measure(
            "publish_ratio_aiortc_packets",
            "… cheaper than aiortc with encoded packets",
            "×",
            (packets, crowd),
            _publish_ratio(packets),
            Target(4),
        ),
        Measure(
            "receive_us_per_packet",
            "Receiving, CPU a packet",
            "µs",
            ("receive-20",),
            _per_packet,
            Target(4, at_most=True),
        ),
        Measure(
            "receive20_core_percent",
            "Receiving 20 streams, share of a core",
            "%",
            ("receive-20",),
            _receive20,
            Target(1, at_most=True),
        ),
        Measure(
            "receive_ratio_aiortc",
            "… cheaper than aiortc's receivers",
            "×",
            ("aiortc-receiving", "receive-20"),
            _receive_ratio,
            Target(50),
        ),
        Measure(
            "participants_per_core_4",
            "Participants per core, receiving 4",
            "",
            ("both-4",),
            _per_core("both-4"),
            Target(200),
        ),
        Measure(
            "participants_per_core_20",
            "Participants per core, receiving 20",
            "",
            ("both-20",),
            _per_core("both-20"),
            Target(90),
        ),
        Measure(
            "pacing_p99_ms",
            f"Pacing late with {scale.crowd} publishers, 99th percentile",
            "ms",
            (crowd,),
            _pacing,
            Target(10, at_most=True),
        ),
        Measure(
            "memory_mb_per_participant",
            "Memory a participant",
            "MB",
            (small, crowd),
            _memory,
            Target(1, at_most=True),
        ),
        Measure("join_cpu_ms", "A join, CPU", "ms", ("join",), _join, Target(20, at_most=True)),
        Measure(
            "process_speedup_2",
            "Two processes carry",
            "×",
            (crowd, "publish-two-processes"),
            _speedup,
            Target(1.8),
        ),
        # For reference: what the ratios are made of.
        Measure(
            "aiortc_encoding_core_percent",
            "aiortc that encodes, a publisher's share of a core",
            "%",
            (encoding,),
            lambda results, scale: cost(results, scale, encoding).scaled(100),
        ),
        Measure(
            "aiortc_packets_core_percent",
            "aiortc with encoded packets, a publisher's share of a core",
            "%",
            (packets,),
            lambda results, scale: cost(results, scale, packets).scaled(100),
        ),
        Measure(
            "aiortc_receiving_core_percent",
            "aiortc's receivers, a stream's share of a core",
            "%",
            ("aiortc-receiving",),
            lambda results, scale: cost(results, scale, "aiortc-receiving").scaled(100 / scale.aiortc_streams),
        ),
    )


def growth(results: Results, scale: Scale) -> list[dict[str, float]]:
    """The growth table: what a publisher takes, and how late pictures are, by the number of publishers."""
    rows = []
    for size in scale.growth:
        name = growth_name(size)
        if name not in results:
            continue
        measured = _measured(results, name)[0]
        share = cost(results, scale, name)
        late = [value * 1000 for window in measured.windows for view in window.far for value in view.lateness]
        rows.append(
            {
                "publishers": size,
                "core_percent": share.value * size * 100,
                "core_percent_per_publisher": share.value * 100,
                "low": share.low * 100,
                "high": share.high * 100,
                "pacing_p50_ms": percentile(late, 0.5),
                "pacing_p99_ms": percentile(late, 0.99),
                "memory_mb": measured.memory / 1e6,
            }
        )
    return rows
