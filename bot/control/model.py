"""What the API takes and gives. The OpenAPI document is made of these classes."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field

from bot.participant.states import State

#: Names that a client chooses for what it creates.
ID = r"^[A-Za-z0-9][A-Za-z0-9._-]{0,63}$"
#: Rooms as they are on the wire: web clients percent-encode whatever else a name has.
ROOM = r"^[A-Za-z0-9._~%+-]{1,200}$"
#: No control characters, and nothing that no XML document has (XML 1.0, section 2.2).
_LINE = r"^[^\u0000-\u001f\u007f-\u009f\ufffe\uffff]+$"
_TEXT = r"^[^\u0000-\u0008\u000b-\u001f\u007f-\u009f\ufffe\uffff]+$"
#: A file of the folder ``api.media_dir``: one name, no path.
_FILE = r"file:[A-Za-z0-9_][A-Za-z0-9._ -]{0,199}"


def _whole(value: object) -> object:
    return int(value) if isinstance(value, float) and value.is_integer() else value


#: 42.0 is an integer, too (JSON Schema, core, section 4.2.3).
WHOLE = BeforeValidator(_whole)
Id = Annotated[str, Field(pattern=ID)]
RoomName = Annotated[str, Field(pattern=ROOM, examples=["standup"])]
Line = Annotated[str, Field(pattern=_LINE, min_length=1, max_length=255)]
Audio = Annotated[str, Field(pattern=rf"^(speech|tone|none|{_FILE})$", examples=["speech"])]
Video = Annotated[str, Field(pattern=rf"^(pattern|none|{_FILE})$", examples=["pattern"])]
Height = Annotated[int, Field(ge=0, le=4320), WHOLE]
Names = Annotated[list[Annotated[str, Field(pattern=r"^[A-Za-z0-9._-]{1,100}$")]], Field(max_length=50)]
Mode = Literal["tile", "stage", "audio-only", "custom"]


class Body(BaseModel):
    """What a client sends: JSON's own types, and no field that is unknown."""

    model_config = ConfigDict(extra="forbid", strict=True, frozen=True)


class Answer(BaseModel):
    """What it gets."""

    model_config = ConfigDict(extra="forbid")


# --- participants --------------------------------------------------------------------------------------------


class ParticipantSpec(Body):
    """A participant as it is asked for. What is left out comes from the daemon's settings."""

    room: RoomName
    name: Line | None = Field(default=None, description="Display name")
    audio: Audio | None = Field(default=None, description="speech, tone, none, or file:NAME of api.media_dir")
    video: Video | None = Field(default=None, description="pattern, none, or file:NAME of api.media_dir")
    start_muted_audio: bool | None = None
    start_muted_video: bool | None = None
    layout: Mode | None = None
    receive_height: Height | None = Field(default=None, description="Tallest picture asked of the bridge")
    server: Annotated[str, Field(max_length=2048)] | None = Field(
        default=None, description="Address of the deployment, one of those that api.servers allows"
    )
    rejoin: bool = Field(default=True, description="Begin anew after a cool-down when a join or the stay fails")
    duration: float = Field(default=0.0, ge=0, le=31 * 86_400, description="Seconds to stay; 0 = until stopped")


class LayoutChange(Body):
    """What to look at; what is left out stays."""

    mode: Mode | None = None
    height: Height | None = None
    last_n: Annotated[int, Field(ge=-1, le=1000), WHOLE] | None = None
    stage: Names | None = Field(default=None, description="Sources or endpoints, or speaker")
    selected: Names | None = None


class ParticipantChange(Body):
    """A change of a participant; what is left out stays."""

    audio_muted: bool | None = None
    video_muted: bool | None = None
    audio: Audio | None = Field(default=None, description="Publish this sound in the place of what there is")
    video: Video | None = Field(default=None, description="Publish this picture in the place of what there is")
    layout: LayoutChange | None = None
    name: Line | None = Field(default=None, description="Another display name")
    raised_hand: bool | None = None


class ChatText(Body):
    """A message to the room, or to one endpoint of it."""

    text: Annotated[str, Field(pattern=_TEXT, min_length=1, max_length=4000)]
    to: Annotated[str, Field(pattern=r"^[A-Za-z0-9._-]{1,100}$")] | None = Field(
        default=None, description="Endpoint id; without one, all read it"
    )


class OwnSource(Answer):
    """What the participant publishes."""

    source: str
    media: str
    muted: bool


class Stream(Answer):
    """What comes of one remote source; ``bitrate`` in bit/s, ``jitter`` in seconds."""

    source: str | None
    owner: str | None
    media: str
    codec: str
    packets: int
    lost: int
    repaired: int
    jitter: float
    bitrate: float


class Media(Answer):
    """What goes each way now: bit/s, and the share of packets that was lost of those that should have come."""

    bitrate_sent: float
    bitrate_received: float
    loss: float
    packets_sent: int
    packets_received: int
    packets_lost: int
    bandwidth: float | None = Field(description="The bridge's estimate of the way to us in bit/s")
    streams: list[Stream]


class Failure(Answer):
    """Why it failed last; ``code`` as in the events."""

    code: str
    message: str


class ParticipantView(Answer):
    """A participant now."""

    id: str
    origin: Literal["api", "settings"]
    room: str
    name: str
    state: State
    since: float = Field(description="When the state was entered, Unix seconds")
    in_room: bool
    leaving: bool = Field(description="It was told to leave, and is forgotten when it has")
    endpoint: str = Field(description="Endpoint id in the room, empty while there is none")
    others: int = Field(description="Other occupants of the room")
    attempt: int
    phases: dict[str, float] = Field(description="Seconds of each phase of joining that is done")
    sources: list[OwnSource]
    layout: Mode
    media: Media | None
    error: Failure | None
    spec: ParticipantSpec


class ParticipantList(Answer):
    """All participants."""

    items: list[ParticipantView]


# --- events --------------------------------------------------------------------------------------------------


class EventQuery(BaseModel):
    """Which events; what is empty does not matter."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    owner: Annotated[str, Field(max_length=64)] = Field(default="", description="Id of a participant or a job")
    room: Annotated[str, Field(max_length=200)] = Field(default="", description="Name of a room")
    name: Annotated[str, Field(max_length=64)] = Field(default="", description="Name of the event")


class LogQuery(EventQuery):
    """Which of the last events, and how many at most."""

    limit: int = Field(default=200, ge=1, le=2000)


class EventView(Answer):
    """An event; ``fields`` are those of its class in ``bot.events``."""

    at: float
    owner: str
    name: str
    level: str
    message: str
    fields: dict[str, Any]


class EventList(Answer):
    """Events, the oldest first."""

    items: list[EventView]


# --- the daemon ----------------------------------------------------------------------------------------------


class Status(Answer):
    """The daemon itself."""

    version: str
    ready: bool
    draining: bool
    scope: Literal["read", "operate"] = Field(description="What the request's token is for")
    participants: int = Field(description="Participants that count for the limit")
    max_participants: int
    server: str = Field(description="Where participants go that name no other")
    uptime: float
