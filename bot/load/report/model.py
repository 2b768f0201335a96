"""The result of a run: the model of ``report.json``, whose schema is ``docs/report.schema.json``. Pure."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import datetime
from functools import cached_property
from typing import Annotated, Any, Literal, Self

from pydantic import AwareDatetime, BaseModel, BeforeValidator, ConfigDict, Field, model_validator

from bot import __version__
from bot.load.catalogue import MEASURES
from bot.load.distribution import Distribution
from bot.load.machine import Machine
from bot.load.measures import Measures
from bot.load.scenario import Scenario
from bot.load.thresholds import State, Verdict

#: Changes when a program that reads reports of before would read them wrong.
SCHEMA_VERSION: Literal[1] = 1
EXIT_FINE, EXIT_NOBODY, EXIT_MISSED = 0, 3, 99


def _encodable(value: object) -> object:
    """Without lone surrogates, which JSON of a server can hold and no file can."""
    return value.encode("utf-8", "replace").decode() if isinstance(value, str) else value


#: What servers say.
Text = Annotated[str, BeforeValidator(_encodable)]


class _Part(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class Participants(_Part):
    """How many there were."""

    planned: int = Field(ge=0, description="Participants of the scenario")
    tried: int = Field(ge=0, description="Joins that were tried, also of those who came again")
    joined: int = Field(ge=0, description="Joins that succeeded")
    peak: int = Field(ge=0, description="Most participants at a time")
    lost: int = Field(default=0, ge=0, description="Participants lost during the run who did not come back")


class Failure(_Part):
    """One cause of failures, and whose limit it was."""

    cause: Text = Field(description="Error code, as in logs and metrics")
    count: int = Field(ge=1, description="How often")
    example: Text = Field(default="", description="What one of them said")
    whose: Literal["server", "client", "rate limit", "unknown"] = Field(
        default="unknown", description="Whose limit it was: a rate limit is told apart from slowness"
    )


class Moment(_Part):
    """Something that happened to the run: a server lost and back, a threshold missed, an early end."""

    at: float = Field(ge=0, description="Seconds since the start")
    what: Text = Field(description="A short stable name, as server_lost")
    text: Text = Field(description="For people: what, who, how long")


class Server(_Part):
    """What was loaded."""

    url: Text = Field(description="Address of the XMPP WebSocket, without a token")
    versions: dict[Text, Text] = Field(default_factory=dict, description="Versions of the servers, by their name")


class Client(_Part):
    """The machine that the participants ran on. A limited client says nothing of the server."""

    limited: bool = Field(default=False, description="Whether the client, and not the server, was the bottleneck")
    reasons: tuple[Text, ...] = Field(default=(), description="What of it was overloaded")
    processes: int = Field(default=1, ge=1, description="Processes that shared the participants")
    cores: int = Field(default=1, ge=1, description="Cores of the machine")
    system: str = Field(default="", description="Operating system and architecture")
    python: str = Field(default="", description="Version of Python")

    @classmethod
    def of(cls, machine: Machine, processes: int, reasons: Sequence[str] = ()) -> Self:
        """What is to be said of ``machine``, limited where there are reasons."""
        return cls(
            limited=bool(reasons),
            reasons=tuple(reasons),
            processes=processes,
            cores=machine.cores,
            system=machine.system,
            python=machine.python,
        )


class ThresholdResult(_Part):
    """How a threshold came out."""

    expression: str = Field(description="As in the scenario")
    state: State = Field(description="met, missed, or no data, which is not met either")
    value: float | None = Field(description="What was compared, in the measure's base unit")
    reason: str = Field(description="The same for people")

    @classmethod
    def of(cls, verdict: Verdict) -> Self:
        """The result of ``verdict``."""
        return cls(
            expression=verdict.threshold.text, state=verdict.state, value=verdict.value, reason=verdict.reason
        )

    @property
    def met(self) -> bool:
        """Whether the run reached it."""
        return self.state is State.MET


class Values(_Part):
    """Many values of one measure, in its base unit (s, bit/s, a share of 1, frames/s, pixels)."""

    unit: str
    count: int
    min: float
    mean: float
    p50: float
    p90: float
    p95: float
    p99: float
    max: float

    @classmethod
    def of(cls, name: str, values: Distribution) -> Self:
        """What there is to say of ``values``, which are not empty."""
        found = {key: values.quantile(int(key[1:]) / 100) for key in ("p50", "p90", "p95", "p99")}
        return cls.model_validate(
            {
                "unit": MEASURES[name].unit,
                "count": values.count,
                "min": values.min,
                "mean": values.mean,
                "max": values.max,
                **found,
            }
        )


class Report(_Part):
    """One run. ``measures`` holds all that was measured so that reports can be merged and compared."""

    schema_version: Literal[1] = Field(default=SCHEMA_VERSION, description="Version of this schema")
    program: str = Field(default=f"jitsi-bot {__version__}", description="Program and version that made the run")
    name: str = Field(description="Name of the scenario")
    started: AwareDatetime = Field(description="Start of the run")
    seconds: float = Field(ge=0, description="Length of the run")
    ended: Literal["duration", "threshold", "interrupted", "failed"] = Field(
        default="duration", description="Why it ended: as planned, abort_on_fail, Ctrl-C, or an error"
    )
    exit_code: int = Field(description="0 fine, 3 nobody could join, 99 thresholds missed")
    participants: Participants
    thresholds: tuple[ThresholdResult, ...] = ()
    failures: tuple[Failure, ...] = Field(default=(), description="By cause, the most frequent first")
    moments: tuple[Moment, ...] = Field(default=(), description="What happened, in order of time")
    client: Client = Field(default_factory=Client)
    server: Server
    scenario: dict[str, Any] = Field(description="The scenario with all its defaults filled in")
    settings: dict[str, Any] = Field(default_factory=dict, description="Effective settings, without secrets")
    summary: dict[str, Values] = Field(default_factory=dict, description="Measures with many values")
    totals: dict[str, float] = Field(default_factory=dict, description="Measures that are one number")
    measures: dict[str, Any] = Field(
        description="Histograms (DDSketch), shares, counts by cause, and series of one second"
    )

    @model_validator(mode="after")
    def _readable(self) -> Self:
        assert self.measured is not None
        return self

    @cached_property
    def measured(self) -> Measures:
        """The measures to work with."""
        try:
            return Measures.from_json(self.measures)
        except (KeyError, TypeError, AttributeError) as error:
            raise ValueError(f"measures can't be read: {error!r}") from error

    @property
    def passed(self) -> bool:
        """Whether somebody joined and every threshold was met."""
        return self.exit_code == EXIT_FINE


def exit_code(participants: Participants, thresholds: Sequence[ThresholdResult]) -> int:
    """0 fine, 3 where nobody could join, 99 where a threshold was missed or had no data."""
    if participants.tried and not participants.joined:
        return EXIT_NOBODY
    return EXIT_FINE if all(item.met for item in thresholds) else EXIT_MISSED


def make_report(
    scenario: Scenario,
    measures: Measures,
    verdicts: Sequence[Verdict],
    *,
    started: datetime,
    seconds: float,
    participants: Participants,
    server: Server,
    client: Client,
    failures: Sequence[Failure] = (),
    moments: Sequence[Moment] = (),
    settings: Mapping[str, Any] | None = None,
    ended: Literal["duration", "threshold", "interrupted", "failed"] = "duration",
) -> Report:
    """Put the report together."""
    thresholds = tuple(map(ThresholdResult.of, verdicts))
    totals = {name: measures.total(name) for name in (*measures.shares, *measures.counts)}
    return Report(
        name=scenario.name,
        started=started,
        seconds=seconds,
        ended=ended,
        exit_code=exit_code(participants, thresholds),
        participants=participants,
        thresholds=thresholds,
        failures=tuple(sorted(failures, key=lambda item: -item.count)),
        moments=tuple(sorted(moments, key=lambda item: item.at)),
        client=client,
        server=server,
        scenario=scenario.model_dump(mode="json"),
        settings=dict(settings or {}),
        summary={name: Values.of(name, values) for name, values in measures.values.items() if values.count},
        totals={name: value for name, value in totals.items() if value is not None},
        measures=measures.to_json(),
    )
