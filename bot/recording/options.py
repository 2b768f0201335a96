"""The settings of a recording, beside those of the participant that makes it."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from bot.errors import ConfigurationError

ENV_PREFIX = "JITSI_RECORD_"
MEBIBYTE = 1024 * 1024
Seconds = Annotated[float, Field(ge=0, le=31 * 86_400)]


class RecordOptions(BaseModel):
    """Each is a flag of ``jitsi-bot record`` with a twin in the environment: ``JITSI_RECORD_`` + its name."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    out: Path = Field(default=Path("recordings"), description="Folder that each recording gets a folder in")
    max_height: int = Field(
        default=0, ge=0, le=4320, description="Tallest picture asked of the bridge; 0 = as tall as there is"
    )
    audio_only: bool = Field(default=False, description="Record sound alone")
    announcement: str = Field(
        default="This meeting is being recorded.",
        max_length=1000,
        description="Chat line that says so before anything is recorded; empty = none",
    )
    alone: Seconds = Field(default=30.0, description="Seconds without anybody else that end it; 0 = never")
    no_media: Seconds = Field(default=180.0, description="Seconds without a packet that end it; 0 = never")
    all_muted: Seconds = Field(default=600.0, description="Seconds with everybody muted that end it; 0 = never")
    max_length: Seconds = Field(default=0.0, description="Longest recording in seconds; 0 = any")
    disk_soft: int = Field(
        default=2048, ge=0, description="MiB that are free at the least for pictures to be recorded"
    )
    disk_hard: int = Field(
        default=512, ge=0, description="MiB that are free at the least; with less all files are closed"
    )
    rotate_after: Seconds = Field(
        default=0.0, description="Seconds after which a file is followed by another; 0 = never"
    )
    rotate_size: int = Field(
        default=0, ge=0, description="MiB after which a file is followed by another; 0 = never"
    )

    @classmethod
    def of(cls, **given: object) -> RecordOptions:
        """The options that are given; None is the default. Raises ConfigurationError that names what is wrong."""
        try:
            found = cls.model_validate({key: value for key, value in given.items() if value is not None})
        except ValidationError as error:
            lines = [f"record {item['loc'][0]}: {item['msg']}" for item in error.errors()]
            raise ConfigurationError("; ".join(lines)) from error
        if found.disk_hard > found.disk_soft:
            raise ConfigurationError(
                f"record disk_hard ({found.disk_hard}) is more than disk_soft ({found.disk_soft})"
            )
        return found
