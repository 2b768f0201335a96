"""The settings of a recording: flags, ``JITSI_RECORD_…``, the table ``[record]`` of the TOML file."""

from __future__ import annotations

import shlex
from datetime import datetime, time
from pathlib import Path
from typing import Annotated, Any, Literal, Self
from urllib.parse import urlsplit

from pydantic import (
    AfterValidator,
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    SecretStr,
    ValidationError,
    model_validator,
)

from bot.errors import ConfigurationError
from bot.recording.compose_plan import Format, Layout
from bot.settings import load_job

JOB = "record"
MEBIBYTE = 1024 * 1024
Seconds = Annotated[float, Field(ge=0, le=31 * 86_400)]


def _as_text(value: object) -> object:
    """TOML has times and dates of its own."""
    return value.isoformat() if isinstance(value, datetime | time) else value


def _is_moment(value: str) -> str:
    for kind in (time, datetime):
        try:
            kind.fromisoformat(value)
        except ValueError:
            continue
        return value
    raise ValueError(f"{value!r} is neither a time as 09:30 nor a date and time as 2026-01-02T09:30")


#: A time of the day, or a date and time of ISO 8601, local where no zone is named.
Moment = Annotated[str, BeforeValidator(_as_text), AfterValidator(_is_moment)]


def _is_http(value: str) -> str:
    if urlsplit(value).scheme not in ("http", "https") or not urlsplit(value).netloc:
        raise ValueError("is no address as https://example.com/hook")
    return value


def _is_command(value: str) -> str:
    if not shlex.split(value):
        raise ValueError("is empty")
    return value


Address = Annotated[str, AfterValidator(_is_http)]


class RoomSpec(BaseModel):
    """A room of ``[[record.rooms]]``. What is left out comes from ``[record]``."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    room: str = Field(min_length=1, max_length=1023)
    start: Moment | None = None
    end: Moment | None = None
    standby: bool | None = None
    audio_only: bool | None = None


class RecordOptions(BaseModel):
    """Each is a flag of ``jitsi-bot record`` with a twin in the environment: ``JITSI_RECORD_`` + its name."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    out: Path = Field(default=Path("recordings"), description="Folder that each recording gets a folder in")
    rooms: tuple[RoomSpec, ...] = Field(
        default=(), description="Rooms to record, [[record.rooms]] in the TOML file, where --room names none"
    )
    start: Moment | None = Field(
        default=None,
        description="When the recorder joins: a time of the day, or a date and time of ISO 8601, local without a "
        "zone",
    )
    end: Moment | None = Field(default=None, description="When it ends, likewise")
    standby: bool = Field(
        default=False, description="Stand in the room, and record once a moderator writes !record start"
    )
    chat_commands: bool = Field(
        default=True, description="Do what moderators write in the chat: !record start, stop, status"
    )
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
    live: bool = Field(
        default=False, description="Make a composite while recording, in a process of its own, some seconds behind"
    )
    live_layout: Layout = Field(default="tile", description="Layout of that composite: tile or speaker")
    live_format: Format = Field(default="mp4", description="Format of that composite: mp4 or webm")
    live_height: int = Field(default=720, ge=144, le=2160, description="Height of that composite")

    audio: Literal["none", "wav", "flac"] = Field(
        default="none", description="Each voice in one file of 16 kHz for transcription, too, made after the end"
    )
    deliver_folder: Path | None = Field(default=None, description="Folder that finished recordings are copied to")
    s3_bucket: str | None = Field(default=None, min_length=1, description="Bucket that they are uploaded to")
    s3_prefix: str = Field(default="", max_length=512, description="What their keys begin with")
    s3_endpoint: Address | None = Field(default=None, description="Address of another store than Amazon's")
    s3_region: str | None = Field(default=None, description="Region of the bucket [default: boto3's]")
    s3_access_key: str | None = Field(default=None, description="Key [default: where boto3 looks for one]")
    s3_secret_key: SecretStr | None = Field(default=None, description="Its secret")
    s3_part_size: int = Field(
        default=16, ge=5, le=5120, description="MiB of a part; larger files are uploaded in several"
    )
    hook_command: Annotated[str, AfterValidator(_is_command)] | None = Field(
        default=None, description="Command that is run with the folder of each finished recording"
    )
    webhook_url: Address | None = Field(
        default=None, description="URL that is told of each finished recording, by POST of JSON"
    )
    webhook_secret: SecretStr | None = Field(
        default=None, description="Secret that signs what the web-hook gets (HMAC-SHA256)"
    )
    deliver_for: Seconds = Field(
        default=300.0,
        description="Seconds that a process which is to end goes on delivering; the next one does the rest",
    )
    remove_delivered: bool = Field(
        default=False, description="Remove a recording here once deliver_folder or s3_bucket has all of it"
    )

    @property
    def delivers(self) -> bool:
        """Whether anything is done with recordings that are finished."""
        wanted = (self.deliver_folder, self.s3_bucket, self.hook_command, self.webhook_url)
        return self.audio != "none" or any(item is not None for item in wanted)

    @model_validator(mode="after")
    def _deliverable(self) -> Self:
        if self.remove_delivered and self.deliver_folder is None and self.s3_bucket is None:
            raise ValueError("remove_delivered needs deliver_folder or s3_bucket: else nothing would be left")
        if (self.s3_access_key is None) != (self.s3_secret_key is None):
            raise ValueError("s3_access_key and s3_secret_key need each other")
        if self.webhook_secret is not None and self.webhook_url is None:
            raise ValueError("webhook_secret signs what goes to webhook_url, which is not set")
        return self

    @model_validator(mode="after")
    def _consistent(self) -> Self:
        if self.disk_hard > self.disk_soft:
            raise ValueError(f"disk_hard ({self.disk_hard}) is more than disk_soft ({self.disk_soft})")
        return self

    @classmethod
    def of(cls, **given: object) -> RecordOptions:
        """The options that are given; None is the default. Raises ConfigurationError that names what is wrong."""
        try:
            return cls.model_validate({key: value for key, value in given.items() if value is not None})
        except ValidationError as error:
            raise ConfigurationError(_explained(error)) from error

    def changed(self, **given: object) -> RecordOptions:
        """The same with what is given and not None. Raises ConfigurationError."""
        return self.of(**(dict(self) | {key: value for key, value in given.items() if value is not None}))

    def of_room(self, spec: RoomSpec) -> RecordOptions:
        """What counts for one of ``rooms``."""
        return self.changed(**spec.model_dump(exclude={"room"}))


def load_options(config: Path | None = None, **flags: Any) -> RecordOptions:
    """Read the options. Raises ConfigurationError which names the setting and what is wrong with it."""
    return load_job(RecordOptions, JOB, config, **flags)


def _explained(error: ValidationError) -> str:
    lines = [
        (" ".join(map(str, item["loc"])), item["msg"].removeprefix("Value error, ")) for item in error.errors()
    ]
    return "; ".join(f"{JOB} {where}: {text}" if where else f"{JOB} {text}" for where, text in lines)
