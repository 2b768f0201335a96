"""What is run, and how large. Pure."""

from __future__ import annotations

from dataclasses import dataclass, replace

from bench.messages import Job


@dataclass(frozen=True, slots=True, kw_only=True)
class Scale:
    """Sizes of a run. Times in seconds."""

    growth: tuple[int, ...] = (1, 10, 50, 200, 500)
    encoding: int = 4
    packets: int = 50
    #: Participants that receive 20 streams, that receive 4 and publish, and that receive 20 and publish.
    receiving: int = 15
    both4: int = 50
    both20: int = 15
    #: Streams of the one participant with aiortc's receivers: 20 would be more than a core.
    aiortc_streams: int = 5
    joining: int = 16
    room_size: int = 4
    warm_up: float = 3.0
    windows: int = 3
    window: float = 3.0

    @property
    def crowd(self) -> int:
        """The size at which publishers are compared: 200, or the largest below."""
        return max(size for size in self.growth if size <= 200)

    @property
    def small_crowd(self) -> int:
        """The size that memory is told apart with: 50, or the smallest."""
        return max((size for size in self.growth if size <= 50 and size < self.crowd), default=self.growth[0])


FULL = Scale()
QUICK = Scale(
    growth=(1, 4),
    encoding=1,
    packets=2,
    receiving=2,
    both4=2,
    both20=1,
    aiortc_streams=2,
    joining=4,
    room_size=2,
    warm_up=1.0,
    windows=1,
    window=2.0,
)


@dataclass(frozen=True, slots=True)
class Case:
    """One arrangement that is run: ``job`` in each of ``processes``; None is the case of joins."""

    name: str
    job: Job | None
    processes: int = 1


def growth_name(size: int) -> str:
    """The case with so many publishers."""
    return f"publish-{size}"


def _publish(base: Job, size: int) -> Case:
    return Case(growth_name(size), replace(base, participants=size))


def cases(scale: Scale) -> dict[str, Case]:
    """All cases by name: those that belong together one after another, and first what most numbers need."""
    base = Job(way="engine", participants=1, warm_up=scale.warm_up, windows=scale.windows, window=scale.window)
    found = [
        Case("aiortc-encoding", replace(base, way="aiortc-encoding", participants=scale.encoding)),
        Case("aiortc-packets", replace(base, way="aiortc-packets", participants=scale.packets)),
        *(_publish(base, size) for size in (scale.crowd, scale.small_crowd)),
        Case("publish-two-processes", replace(base, participants=scale.crowd), processes=2),
        Case(
            "aiortc-receiving", replace(base, way="aiortc-receiving", publish=False, streams=scale.aiortc_streams)
        ),
        Case("receive-20", replace(base, participants=scale.receiving, publish=False, streams=20)),
        Case("both-4", replace(base, participants=scale.both4, streams=4)),
        Case("both-20", replace(base, participants=scale.both20, streams=20)),
        Case("join", None),
        *(_publish(base, size) for size in scale.growth if size not in {scale.crowd, scale.small_crowd}),
    ]
    return {case.name: case for case in found}
