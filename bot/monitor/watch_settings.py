"""The settings of ``jitsi-bot watch``: flags, ``JITSI_WATCH_…``, the table ``[watch]`` of the TOML file."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

from pydantic import BaseModel, ConfigDict, Field, field_validator

from bot.monitor.settings import split
from bot.monitor.thresholds import Threshold, parse
from bot.settings import load_job

JOB = "watch"
#: What is judged of a participant, by the names of the probe's measures.
JUDGED = ("loss", "frozen", "round_trip")
DEFAULTS = ("loss < 2%, 10%", "frozen < 5%, 20%", "round_trip < 400ms, 1s")


class WatchSettings(BaseModel):
    """How a meeting is watched. Where it is, and who the monitor is, is said by the settings of the program."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    interval: float = Field(default=10.0, ge=0.5, le=3600, description="Seconds between two reports")
    height: int = Field(
        default=180,
        ge=0,
        le=4320,
        description="Height of the pictures that the bridge is asked to send; 0 = sound alone",
    )
    thresholds: Annotated[tuple[str, ...], split(";")] = Field(
        default=(),
        description="Limits of poor and bad, as 'loss < 2%, 10%', for loss, frozen and round_trip; before the "
        "defaults, measure by measure; in the environment with ; between them",
    )

    @field_validator("thresholds")
    @classmethod
    def _thresholds(cls, value: tuple[str, ...]) -> tuple[str, ...]:
        limits(value)
        return value

    @property
    def limits(self) -> tuple[Threshold, ...]:
        """The thresholds that hold."""
        return limits(self.thresholds)


def limits(given: tuple[str, ...]) -> tuple[Threshold, ...]:
    """``given`` before the defaults. Raises ValueError."""
    found = {item.measure.name: item for item in map(parse, (*DEFAULTS, *given))}
    if strange := set(found) - set(JUDGED):
        raise ValueError(f"a participant has no {min(strange)}; known are {', '.join(JUDGED)}")
    return tuple(found[name] for name in JUDGED)


def load(config: Path | None = None, **flags: Any) -> WatchSettings:
    """Read the settings of a watch; flags that are None are not given. Raises ConfigurationError."""
    return load_job(WatchSettings, JOB, config, **flags)
