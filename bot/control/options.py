"""The settings of the HTTP API: ``JITSI_API_…``, the table ``[api]`` of the TOML file."""

from __future__ import annotations

import ipaddress
from pathlib import Path
from typing import Annotated, Any

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, SecretStr, field_validator

from bot.control.auth import Tokens, split_tokens
from bot.errors import ConfigurationError
from bot.settings import Seconds, load_job

JOB = "api"


def _split(value: object) -> object:
    """Take a string of items as well as a list: environment variables are strings."""
    if isinstance(value, str):
        return tuple(item.strip() for item in value.split(",") if item.strip())
    return value


class ApiSettings(BaseModel):
    """What the HTTP API allows. Where it listens is said by ``http_host`` and ``http_port`` of the program."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    read_tokens: SecretStr | None = Field(
        default=None, description="Bearer tokens that may look; several with spaces, commas or lines between them"
    )
    operate_tokens: SecretStr | None = Field(
        default=None, description="Bearer tokens that may look, create, change and stop; likewise"
    )
    max_participants: int = Field(
        default=50,
        ge=1,
        le=10_000,
        description="Most participants at a time, those of recordings, load runs and probes counted",
    )
    max_body: int = Field(default=65_536, ge=1024, le=16_777_216, description="Most bytes of a request's body")
    servers: Annotated[tuple[str, ...], BeforeValidator(_split)] = Field(
        default=(), description="Addresses that a request may name in the place of ws_url, each as it is written"
    )
    media_dir: Path | None = Field(
        default=None, description="Folder of the files that a request may publish as file:NAME [default: none]"
    )
    recordings_dir: Path = Field(default=Path("recordings"), description="Folder of the recordings")
    reports_dir: Path = Field(default=Path("reports"), description="Folder of the load runs' reports")
    drain_timeout: Seconds = Field(
        default=15.0, description="Most seconds for everybody to leave when the daemon is told to end"
    )
    event_history: int = Field(
        default=2000, ge=10, le=1_000_000, description="Events that are kept for who comes later"
    )

    @field_validator("read_tokens", "operate_tokens")
    @classmethod
    def _are_tokens(cls, value: SecretStr | None) -> SecretStr | None:
        if value is not None:
            split_tokens(value.get_secret_value())
        return value

    @property
    def tokens(self) -> Tokens:
        """Who may do what."""
        read, operate = (
            split_tokens(item.get_secret_value()) if item is not None else ()
            for item in (self.read_tokens, self.operate_tokens)
        )
        return Tokens(read, operate)


def load(config: Path | None = None, **flags: Any) -> ApiSettings:
    """Read the settings of the API; flags that are None are not given. Raises ConfigurationError."""
    return load_job(ApiSettings, JOB, config, **flags)


def is_loopback(host: str) -> bool:
    """Whether only this machine reaches ``host``, an address or a name."""
    try:
        return ipaddress.ip_address(host.strip("[]")).is_loopback
    except ValueError:
        return host.lower().rstrip(".") == "localhost"


def check_listens(host: str, api: ApiSettings) -> None:
    """Raise ConfigurationError where others than this machine could operate the bots without a token."""
    if api.tokens.open and not is_loopback(host):
        raise ConfigurationError(
            f"http_host {host}: the API listens only on loopback without a token",
            hint="JITSI_API_OPERATE_TOKENS, or JITSI_API_OPERATE_TOKENS_FILE",
        )
