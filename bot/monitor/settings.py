"""The settings of ``jitsi-bot probe``: flags, ``JITSI_PROBE_…``, the table ``[probe]`` of the TOML file."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any, Literal
from urllib.parse import urlsplit

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, SecretStr, field_validator, model_validator

from bot.monitor.thresholds import Threshold, effective
from bot.settings import Seconds, load_job

JOB = "probe"


def split(separator: str) -> BeforeValidator:
    """Take a string of items as well as a list: environment variables are strings."""

    def take(value: object) -> object:
        if isinstance(value, str):
            return tuple(item.strip() for item in value.split(separator) if item.strip())
        return value

    return BeforeValidator(take)


class ProbeSettings(BaseModel):
    """What a probe does. What the bots are and where they go is said by the settings of the program."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    bots: int = Field(default=2, ge=2, le=10, description="Bots that see and hear each other")
    duration: float = Field(
        default=10.0, ge=2, le=600, description="Seconds in which media is measured, once all bots have it"
    )
    timeout: Seconds = Field(default=20.0, description="Limit for all bots to have media, and for ICE and DTLS")
    every: float = Field(
        default=0.0, ge=0, le=86_400, description="Seconds from the start of one probe to the next; 0 = once"
    )
    room_prefix: str = Field(
        default="jitsi-bot-probe",
        min_length=1,
        max_length=200,
        description="Name of the room, before a random end",
    )
    relay: Literal["auto", "off", "required"] = Field(
        default="auto",
        description="A pass over TURN alone: where the deployment (XEP-0215) or turn_url names a server (auto), "
        "never (off), or always, and no server is a fault (required)",
    )
    regions: Annotated[tuple[str, ...], split(",")] = Field(
        default=(), description="Regions of bridges; each gets a pass of bots that say that they are there"
    )
    thresholds: Annotated[tuple[str, ...], split(";")] = Field(
        default=(),
        description="Limits as 'delay < 400ms' or, to warn before, 'loss < 2%, 10%'; before the defaults, "
        "measure by measure; in the environment with ; between them",
    )
    webhook_url: str | None = Field(
        default=None, description="URL that is told of each change of state, by POST of JSON"
    )
    webhook_secret: SecretStr | None = Field(
        default=None, description="Secret that signs what the web-hook gets (HMAC-SHA256)"
    )
    webhook_after: int = Field(
        default=1, ge=1, le=100, description="Probes in a row with another result before the web-hook is told"
    )
    history_file: Path | None = Field(
        default=None, description="File that each result is added to, as a line of JSON"
    )
    history: int = Field(default=100, ge=1, le=100_000, description="Results that are kept, in memory and file")

    @field_validator("thresholds")
    @classmethod
    def _thresholds(cls, value: tuple[str, ...]) -> tuple[str, ...]:
        effective(value)
        return value

    @field_validator("webhook_url")
    @classmethod
    def _http(cls, value: str | None) -> str | None:
        if value is not None:
            parts = urlsplit(value)
            if parts.scheme not in ("http", "https") or not parts.hostname:
                raise ValueError("is no http:// or https:// URL")
        return value

    @model_validator(mode="after")
    def _consistent(self) -> ProbeSettings:
        if self.webhook_secret is not None and self.webhook_url is None:
            raise ValueError("webhook_secret signs what goes to webhook_url, which is not set")
        return self

    @property
    def limits(self) -> tuple[Threshold, ...]:
        """The thresholds that hold."""
        return effective(self.thresholds)


def load(config: Path | None = None, **flags: Any) -> ProbeSettings:
    """Read the settings of the probe; flags that are None are not given. Raises ConfigurationError."""
    return load_job(ProbeSettings, JOB, config, **flags)
