"""What a run says to its processes, and they to it."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field

from bot.load.collector import Tally, WorstStream
from bot.load.measures import Measures
from bot.load.scenario import Scenario
from bot.logs import LogFormat
from bot.settings import Settings


@dataclass(frozen=True, slots=True)
class Share:
    """What one process is to run: number ``process`` of ``processes``."""

    scenario: Scenario
    settings: Settings
    decode: str
    process: int
    processes: int


@dataclass(frozen=True, slots=True)
class Prepare:
    """What the process is to run, once it is told to."""

    share: Share
    log_level: str
    log_format: LogFormat


@dataclass(frozen=True, slots=True)
class Ready:
    """All that is sent is at hand; ``error`` says why it can't be."""

    error: str = ""


@dataclass(frozen=True, slots=True)
class Begin:
    """The run begins, or began, at ``at`` (Unix seconds), for all processes and machines."""

    at: float


@dataclass(frozen=True, slots=True)
class Stop:
    """Everybody is to leave now."""


@dataclass(frozen=True, slots=True)
class Progress:
    """What was measured since the last one, and how things stand. ``last`` where nothing follows."""

    measures: Measures
    tally: Tally
    states: Counter[str] = field(default_factory=Counter)
    in_room: int = 0
    cpu: float = 0.0
    worst: tuple[WorstStream, ...] = ()
    last: bool = False
