"""What the API takes and gives of recordings, load runs and probes."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field

from bot.control.jobs import JobState
from bot.control.model import WHOLE, Answer, Body, Failure, Height, Line, RoomName

Server = Annotated[str, Field(max_length=2048)]
_SERVER = "Address of the deployment, one of those that api.servers allows"
Thresholds = Annotated[list[Annotated[str, Field(min_length=1, max_length=200)]], Field(max_length=50)]


class FileView(Answer):
    """A file; ``url`` has a ticket in it, and needs no token for some hours."""

    name: str
    bytes: int
    url: str


class FileQuery(BaseModel):
    """How a file is asked for."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    ticket: Annotated[str, Field(max_length=200)] = Field(default="", description="In the place of a token")


class JobView(Answer):
    """What every job has; times are Unix seconds."""

    id: str
    state: JobState
    began: float
    ended: float | None
    error: Failure | None
    files: list[FileView]


# --- recordings ----------------------------------------------------------------------------------------------


class RecordingSpec(Body):
    """A recording as it is asked for; what is left out is as with ``jitsi-bot record``."""

    room: RoomName
    name: Line | None = Field(default=None, description="Display name of the recorder")
    audio_only: bool = Field(default=False, description="Record sound alone")
    max_height: Height = Field(default=0, description="Tallest picture asked of the bridge; 0 = as there is")
    max_length: float = Field(
        default=0.0, ge=0, le=31 * 86_400, description="Longest recording in seconds; 0 = any"
    )
    alone: float = Field(default=30.0, ge=0, le=86_400, description="Seconds alone that end it; 0 = never")
    server: Server | None = Field(default=None, description=_SERVER)


class RecordingView(JobView):
    """A recording now, or one of before: that has no ``spec``."""

    room: str
    folder: str
    seconds: float
    end_cause: str | None
    participants: list[str] = Field(description="Who was recorded, by display name or endpoint")
    spec: RecordingSpec | None


class RecordingList(Answer):
    """All recordings, the oldest first."""

    items: list[RecordingView]


# --- load runs -----------------------------------------------------------------------------------------------


class LoadSpec(Body):
    """A load run: a shipped profile, and what is to be another way; the keys are those of a scenario."""

    profile: Annotated[str, Field(pattern=r"^[a-z0-9-]{1,64}$")] | None = None
    conferences: Annotated[int, Field(ge=1, le=1000), WHOLE] | None = None
    participants: Annotated[int, Field(ge=1, le=1000), WHOLE] | None = None
    senders: Annotated[int, Field(ge=0, le=1000), WHOLE] | None = None
    audio_senders: Annotated[int, Field(ge=0, le=1000), WHOLE] | None = None
    simulcast: bool | None = None
    codec: Literal["vp8", "vp9", "h264", "av1"] | None = None
    height: Literal["180", "360", "720", "1080"] | None = None
    layout: Literal["tile", "stage", "audio-only"] | None = None
    last_n: Annotated[int, Field(ge=-1, le=1000), WHOLE] | None = None
    duration: Annotated[float, Field(ge=1, le=86_400)] | None = Field(default=None, description="Seconds")
    join_rate: Annotated[float, Field(gt=0, le=1000)] | None = Field(default=None, description="Joins per second")
    warm_up: Annotated[float, Field(ge=0, le=86_400)] | None = Field(default=None, description="Seconds")
    room_prefix: Annotated[str, Field(pattern=r"^[a-z0-9][a-z0-9._-]{0,99}$")] | None = None
    thresholds: Thresholds | None = Field(default=None, description="As p95(join) < 3s")
    abort_on_fail: bool | None = None
    server: Server | None = Field(default=None, description=_SERVER)


class ThresholdView(Answer):
    """A threshold, how it stands, and why."""

    threshold: str
    state: str
    reason: str


class LoadPoint(Answer):
    """A moment of the run: participants, bit/s of all together, cores in use."""

    at: float
    in_room: int
    joining: int
    bitrate_sent: float
    bitrate_received: float
    cpu: float


class LoadView(JobView):
    """A load run now."""

    said: str = Field(description="What goes on before it begins")
    at: float = Field(description="Seconds of the run")
    duration: float
    planned: int
    joined: int
    in_room: int
    failures: dict[str, int] = Field(description="By cause")
    limits: list[str] = Field(description="What of this machine was overloaded: no fault of the server's")
    thresholds: list[ThresholdView]
    series: list[LoadPoint]
    exit_code: int | None = Field(description="0 fine, 3 nobody could join, 99 thresholds missed; of the report")
    spec: LoadSpec


class LoadList(Answer):
    """All load runs."""

    items: list[LoadView]


# --- probes --------------------------------------------------------------------------------------------------


class ProbeSpec(Body):
    """A probe; what is left out comes from the daemon's settings."""

    every: float = Field(default=0.0, ge=0, le=86_400, description="Seconds from one to the next; 0 = once")
    bots: Annotated[int, Field(ge=2, le=10), WHOLE] | None = None
    duration: Annotated[float, Field(ge=2, le=600)] | None = Field(default=None, description="Seconds of media")
    timeout: Annotated[float, Field(gt=0, le=600)] | None = None
    relay: Literal["auto", "off", "required"] | None = None
    thresholds: Thresholds | None = Field(default=None, description="As delay < 400ms")
    server: Server | None = Field(default=None, description=_SERVER)


class VerdictView(Answer):
    """Where it broke, and what to look at."""

    stage: str
    severity: str
    code: str
    cause: str
    hint: str
    where: str


class ProbeResultView(Answer):
    """One result; ``measures`` are those of docs/probe.md."""

    at: float
    seconds: float
    verdict: VerdictView
    measures: dict[str, float]


class ProbeView(JobView):
    """A probe, with its history, the oldest first."""

    results: list[ProbeResultView]
    passes: list[dict[str, Any]] = Field(description="All of the last result, as in jitsi-bot probe --format json")
    spec: ProbeSpec


class ProbeList(Answer):
    """All probes."""

    items: list[ProbeView]
