"""Results of load runs that never took place, by a seed."""

import math
import random
from datetime import UTC, datetime

from bot.load import files
from bot.load.machine import Machine
from bot.load.measures import Measures
from bot.load.report.model import Client, Failure, Moment, Participants, Report, Server, make_report
from bot.load.scenario import Scenario
from bot.load.thresholds import evaluate_all
from bot.participant.timing import PHASES

SECONDS = 180
MACHINE = Machine(cores=2, memory=2**34, open_files=1024, addresses=1, system="Linux 6.1 x86_64", python="3.11.7")


def measures(
    *, seed: int = 1, slower: float = 1.0, lossy: float = 1.0, joins: int = 400, warm_up: float = 15
) -> Measures:
    """Three minutes: joins of about a second, loss of half a percent, all of it times the factors."""
    chance = random.Random(seed)
    found = Measures(warm_up)
    for number in range(joins):
        at = SECONDS * number / joins
        join = chance.lognormvariate(-0.2, 0.35) * slower
        found.value("join", join, at)
        for phase in PHASES:
            found.value(f"join.{phase}", join * chance.uniform(0.02, 0.12), at)
        found.share("success", 1, 1, at)
    for at in range(SECONDS):
        _second(found, chance, at, slower, lossy)
    return found


def _second(found: Measures, chance: random.Random, at: int, slower: float, lossy: float) -> None:
    there = min(40, at * 4)
    received, lost = there * 320 + chance.randrange(50), int(there * 1.6 * lossy * chance.uniform(0.3, 1.9))
    found.share("loss", lost, received + lost, at)
    for name, value in (
        ("participants", there),
        ("joining", 3 if at < 12 else 0),
        ("joins", 4 if at < 10 else 0),
        ("failures", 2 if at == 100 else 0),
        ("bits_received", received * 8000 + 1),
        ("bits_sent", there * 900_000 * chance.uniform(0.95, 1.05)),
        ("packets_received", received),
        ("packets_lost", lost),
        ("client_cpu", 0.2 + there / 80 + chance.uniform(0, 0.1)),
        ("client_loop_lag", chance.expovariate(500)),
    ):
        found.over_time(name, value, at)
    if there and not 100 <= at < 108:  # a gap, as of a server that is away
        for name, value in (
            ("rtt", 0.021 + 0.004 * math.sin(at / 9) + chance.uniform(0, 0.003)),
            ("jitter", 0.004 + chance.uniform(0, 0.002)),
            ("e2e_delay", 0.14 * slower + chance.uniform(0, 0.05)),
            ("fps", 29.7 + chance.uniform(-0.8, 0.3)),
        ):
            found.over_time(name, value, at)
            found.value(name, value, at, count=5)


def report(
    *,
    scenario: Scenario | None = None,
    measured: Measures | None = None,
    joined: int = 400,
    limited: tuple[str, ...] = (),
    failures: tuple[Failure, ...] = (),
    moments: tuple[Moment, ...] = (),
) -> Report:
    """A report of the profile many-small-rooms."""
    found = measures() if measured is None else measured
    what = scenario or files.load("many-small-rooms")
    return make_report(
        what,
        found,
        evaluate_all(what.parsed_thresholds, found),
        started=datetime(2026, 3, 5, 14, 30, tzinfo=UTC),
        seconds=SECONDS,
        participants=Participants(planned=40, tried=400, joined=joined, peak=40 if joined else 0),
        server=Server(url="wss://meet.example.com", versions={"prosody": "0.12.4", "jicofo": "1.1", "jvb": "2.3"}),
        client=Client.of(MACHINE, 2, limited),
        failures=failures,
        moments=moments,
    )


def eventful() -> Report:
    """A report with something in every part of it."""
    return report(
        limited=("the event loop was late by 180 ms at p99", "a core was used by 97 %"),
        failures=(
            Failure(cause="ice_failed", count=2, example="No pair of ICE candidates works", whose="server"),
            Failure(cause="rate_limited", count=7, example="429 <Too many> | requests", whose="rate limit"),
        ),
        moments=(
            Moment(at=100.2, what="server_lost", text="40 participants lost wss://meet.example.com (1006)"),
            Moment(at=108.4, what="server_back", text="38 of 40 participants are back after 8.2 s"),
        ),
    )
