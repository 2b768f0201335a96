"""The one reader of the environment: flag > environment > TOML file > default."""

from __future__ import annotations

import difflib
import ipaddress
import os
import re
import tomllib
from collections.abc import Mapping
from functools import cached_property
from pathlib import Path
from typing import Annotated, Any, Literal, Self, TypeVar, get_args

from pydantic import (
    AfterValidator,
    AliasChoices,
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    SecretStr,
    ValidationError,
    field_validator,
    model_validator,
)
from pydantic.fields import FieldInfo
from pydantic_settings import BaseSettings, NoDecode, PydanticBaseSettingsSource, SettingsConfigDict

from bot.errors import ConfigurationError
from bot.turn import parse_turn_url

ENV_PREFIX = "JITSI_"
#: Secrets whose ``*_FILE`` is read once, here; ``token_file`` is a setting of its own, read at each connect.
FILE_SECRETS = ("password", "jwt_app_secret", "room_password", "turn_password")
SECRETS = (*FILE_SECRETS, "token")
#: Tables of the TOML file that belong to a job, which reads them by :func:`load_job`.
JOBS = ("api", "probe", "record")
M = TypeVar("M", bound=BaseModel)

Port = Annotated[int, Field(ge=0, le=65535)]
Seconds = Annotated[float, Field(gt=0, le=86_400)]


def _number_or_auto(value: object) -> object:
    return 0 if isinstance(value, str) and value.strip().lower() == "auto" else value


#: What stands before the path of a file to publish.
FILE = "file:"


def _source(*named: str) -> AfterValidator:
    """One of ``named``, or ``file:PATH`` of a file that is there."""

    def check(value: str) -> str:
        if value not in named and not value.startswith(FILE):
            raise ValueError(f"must be {', '.join(named)} or {FILE}PATH, not {value!r}")
        if value.startswith(FILE) and not Path(value.removeprefix(FILE)).is_file():
            raise ValueError(f"no such file: {value.removeprefix(FILE)}")
        return value

    return AfterValidator(check)


AudioSource = Annotated[str, _source("speech", "tone", "none")]
VideoSource = Annotated[str, _source("pattern", "none")]


class ParticipantSpec(BaseModel):
    """A group of alike participants in the TOML file's ``[[participants]]``. What is left out comes from above."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    room: str = Field(min_length=1, max_length=1023)
    name: str | None = Field(default=None, max_length=255)
    count: int = Field(default=1, ge=1, le=1000)
    audio: AudioSource | None = None
    video: VideoSource | None = None
    start_muted_audio: bool | None = None
    start_muted_video: bool | None = None


class Settings(BaseSettings):
    """Every setting of the program. Each has a twin in the environment: ``JITSI_`` + its name in capitals."""

    # An empty variable is one that is not set, as compose files hand them on.
    model_config = SettingsConfigDict(
        env_prefix=ENV_PREFIX, env_ignore_empty=True, extra="forbid", frozen=True, populate_by_name=True
    )

    # --- server ---
    ws_url: str = Field(
        default="ws://localhost:8000",
        validation_alias=AliasChoices("ws_url", "JITSI_WS_URL", "NEXT_PUBLIC_JITSI_WS_URL"),
        description="Address of the proxied XMPP WebSocket; the path /xmpp-websocket is added",
    )
    domain: str = Field(
        default="meet.jitsi",
        min_length=1,
        validation_alias=AliasChoices("domain", "JITSI_DOMAIN", "XMPP_DOMAIN"),
        description="XMPP domain of the deployment",
    )
    muc_domain: str | None = Field(
        default=None,
        validation_alias=AliasChoices("muc_domain", "JITSI_MUC_DOMAIN", "XMPP_MUC_DOMAIN"),
        description="Domain of the rooms [default: muc.DOMAIN]",
    )
    anonymous_domain: str | None = Field(
        default=None,
        validation_alias=AliasChoices("anonymous_domain", "JITSI_ANONYMOUS_DOMAIN", "XMPP_GUEST_DOMAIN"),
        description="Domain that guests log in to where accounts are asked for (guest.meet.jitsi in "
        "docker-jitsi-meet) [default: DOMAIN]",
    )
    focus_jid: str | None = Field(default=None, description="Address of the focus [default: focus.DOMAIN]")
    username: str | None = Field(default=None, description="Account name; without one the login is anonymous")
    password: SecretStr | None = Field(default=None, description="Password of the account")
    conference_request: Literal["auto", "xmpp", "http"] = Field(
        default="auto", description="How the focus is asked for; auto: by HTTP where XMPP has no answer"
    )
    token: SecretStr | None = Field(default=None, description="JWT, sent as ?token= of the WebSocket")
    token_file: Path | None = Field(default=None, description="File with the JWT, read again at each connect")
    jwt_app_id: str | None = Field(
        default=None,
        validation_alias=AliasChoices("jwt_app_id", "JITSI_JWT_APP_ID", "JWT_APP_ID"),
        description="Application id of JWTs that the bot makes itself, one for each connect",
    )
    jwt_app_secret: SecretStr | None = Field(
        default=None,
        validation_alias=AliasChoices("jwt_app_secret", "JITSI_JWT_APP_SECRET", "JWT_APP_SECRET"),
        description="Secret that signs them (HS256)",
    )
    jwt_issuer: str | None = Field(default=None, description="Their iss claim [default: the application id]")
    jwt_audience: str | None = Field(default=None, description="Their aud claim [default: the application id]")
    jwt_subject: str | None = Field(default=None, description="Their sub claim [default: DOMAIN]")
    jwt_lifetime: Seconds = Field(default=3600.0, description="Seconds that such a JWT counts")
    ca_file: Path | None = Field(default=None, description="PEM file of a private CA that signed the server")
    visitors: Literal["follow", "refuse"] = Field(
        default="follow",
        description="Where the focus wants a visitor: follow it to a visitor node, to see and hear but not send "
        "(as web clients do), or refuse and stay a participant",
    )
    visitor_node_url: str | None = Field(
        default=None,
        description="Address of a visitor node's XMPP WebSocket, {vnode} stands for its name "
        "[default: ws_url with ?vnode=NAME]",
    )
    keepalive_url: str | None = Field(default=None, description="URL polled while connected [default: off]")
    keepalive_interval: Seconds = Field(default=60.0, description="Seconds between two keep-alive requests")

    # --- room and participants ---
    room: str = Field(default="jitsi-bot", min_length=1, max_length=1023, description="Room to join")
    room_password: SecretStr | None = Field(default=None, description="Password of the room")
    name: str = Field(default="jitsi-bot", min_length=1, max_length=255, description="Display name")
    email: str | None = Field(default=None, max_length=255, description="E-mail address shown to others")
    avatar_url: str | None = Field(
        default=None, max_length=2048, description="Address of the picture shown to others"
    )
    region: str | None = Field(
        default=None,
        min_length=1,
        max_length=255,
        description="Region that we say we are in: the focus may choose a bridge near it",
    )
    bots: int = Field(default=1, ge=1, le=1000, description="Number of participants to start")
    duration: float = Field(default=0.0, ge=0, description="Seconds to stay; 0 = until stopped")
    participants: tuple[ParticipantSpec, ...] = Field(
        default=(), description="Groups of participants ([[participants]] in the TOML file)"
    )

    # --- media ---
    media_engine: Literal["shared", "aiortc"] = Field(
        default="shared",
        description="Who sends and counts media: the process for all its participants together (shared), or "
        "aiortc for each by itself",
    )
    audio: AudioSource = Field(
        default="speech", description="Sound to publish: speech, tone, none or file:PATH (looped)"
    )
    talk: Literal["conversation", "always"] = Field(
        default="conversation",
        description="When the voice of speech is heard: in turns with the others of the run in its room, as "
        "people do (conversation), or always",
    )
    video: VideoSource = Field(
        default="pattern", description="Picture to publish: pattern, none or file:PATH (looped, in its own size)"
    )
    start_muted_audio: bool = Field(default=False, description="Join with the sound muted")
    start_muted_video: bool = Field(default=False, description="Join with the picture muted")
    width: int = Field(default=640, ge=160, le=3840, multiple_of=2, description="Width of the picture in pixels")
    height: int = Field(default=360, ge=90, le=2160, multiple_of=2, description="Height in pixels")
    simulcast: bool = Field(
        default=False, description="Publish a half and a quarter of the size, too (VP8 only), as web clients do"
    )
    video_bitrate: int = Field(
        default=0,
        ge=0,
        le=20_000,
        description="Kilobit/s of the picture in its full size; 0 = by the size, 500 for 640x360 at 30 frames",
    )
    opus_red: bool = Field(
        default=False, description="Send each packet of sound twice where that is offered (RED, RFC 2198)"
    )
    cache_dir: Path | None = Field(
        default=None, description="Where encoded media is kept between runs [default: ~/.cache/jitsi-bot/clips]"
    )
    fps: int = Field(default=30, ge=1, le=60, description="Frames per second")
    video_codec: Literal["auto", "vp8", "vp9", "h264", "av1"] = Field(
        default="auto",
        description="Codec of the published picture; auto = the first of vp8 and h264 that all in the room can "
        "take",
    )
    codecs: Annotated[tuple[str, ...], NoDecode] = Field(
        default=("av1", "vp9", "vp8", "h264"),
        description="Codecs named to the room as receivable; a short list moves the whole room off the others",
    )
    ice_addresses: Annotated[tuple[str, ...], NoDecode] = Field(
        default=(), description="Host addresses that ICE offers, 127.0.0.1 allowed [default: all but loopback]"
    )
    use_turn: Literal["auto", "off", "relay"] = Field(
        default="auto",
        description="Media over a TURN server where nothing else works (auto), never (off), or always (relay); "
        "the deployment names the server (XEP-0215), or turn_url",
    )
    turn_url: str | None = Field(
        default=None, description="TURN server, as turns:turn.example.com:443 or turn:HOST:3478?transport=udp"
    )
    turn_username: str | None = Field(default=None, description="User name at the TURN server of turn_url")
    turn_password: SecretStr | None = Field(default=None, description="Password at the TURN server of turn_url")

    bridge_channel: Literal["auto", "sctp", "websocket", "none"] = Field(
        default="auto",
        description="Bridge channel; auto takes what is offered, SCTP first; websocket for a bridge that has SCTP "
        "off",
    )
    receive_height: int = Field(default=360, ge=0, le=4320, description="Tallest picture asked of the bridge")
    last_n: int = Field(default=-1, ge=-1, description="Most video sources asked of the bridge; -1 = all")
    layout: Literal["tile", "stage", "audio-only", "custom"] = Field(
        default="tile",
        description="What to look at, as a web client does: tiles (lower the more there are), a stage with "
        "thumbnails, no pictures, or everybody in receive_height",
    )
    stage_sources: Annotated[tuple[str, ...], NoDecode] = Field(
        default=(),
        description="Sources or endpoints on the stage, or speaker for whoever speaks [default: speaker]",
    )
    selected_sources: Annotated[tuple[str, ...], NoDecode] = Field(
        default=(), description="Sources or endpoints that the bridge serves before the others"
    )
    assumed_bandwidth: int = Field(
        default=-1,
        ge=-1,
        description="Bit/s that the bridge takes for the way to us, where it allows that; -1 = its own estimate",
    )
    receive_audio: bool = Field(default=True, description="Whether the bridge sends sound")
    decode: str = Field(
        default="none",
        description="What of the received media is decoded (opus, VP8, VP9, H.264, AV1): none, audio, video, all, "
        "or sample:K for K streams at a time, others each 10 s; it is counted anyhow",
    )

    # --- time ---
    connect_timeout: Seconds = Field(default=10.0, description="Limit of each connection phase")
    join_timeout: Seconds = Field(default=20.0, description="Limit for the room to answer the join")
    lobby_timeout: Seconds = Field(default=600.0, description="Longest wait in the lobby for a moderator")
    media_timeout: Seconds = Field(default=30.0, description="Limit for ICE and DTLS each")
    retries: int = Field(default=3, ge=0, le=20, description="Retries after the first try: after 1, 2, 4 s")
    retry_base: Seconds = Field(default=1.0, description="Seconds before the first retry; doubled each time")
    cool_down: Seconds = Field(default=60.0, description="Seconds before the daemon begins a new retry cycle")
    ping_interval: Seconds = Field(default=10.0, description="Seconds between two XMPP pings")
    leave_timeout: Seconds = Field(default=5.0, description="Longest wait for our own leave to be seen")

    # --- process ---
    processes: Annotated[int, Field(ge=0, le=256), BeforeValidator(_number_or_auto)] = Field(
        default=1, description="Processes that share the participants; auto = one for each core"
    )
    http_host: str = Field(default="127.0.0.1", description="Address of /healthz, /readyz and /metrics")
    http_port: Port = Field(default=8080, description="Port of /healthz, /readyz and /metrics; 0 = any free one")
    embedded_port: Port | None = Field(
        default=None, description="Port of the embedded server; 0 = any free one [default: 8000, else a free one]"
    )
    statistics_interval: float = Field(
        default=10.0, ge=0, le=86_400, description="Seconds between two lines of media statistics; 0 = none"
    )
    traces_endpoint: str | None = Field(
        default=None,
        description="Address that OpenTelemetry traces of each join are sent to (OTLP over HTTP), as "
        "http://localhost:4318/v1/traces; needs the extra otel [default: off]",
    )
    log_level: Literal["debug", "info", "warning", "error"] = Field(default="info", description="Least level")
    log_format: Literal["auto", "json", "console"] = Field(
        default="auto", description="Log form; auto = console on a terminal, else JSON"
    )

    @field_validator("codecs", "ice_addresses", "stage_sources", "selected_sources", mode="before")
    @classmethod
    def _split(cls, value: object) -> object:
        """Take ``a, b`` as well as a list: environment variables are strings."""
        if isinstance(value, str):
            return tuple(item.strip() for item in value.split(",") if item.strip())
        return value

    @field_validator("ice_addresses")
    @classmethod
    def _addresses(cls, value: tuple[str, ...]) -> tuple[str, ...]:
        for item in value:
            address = ipaddress.ip_address(item)
            if address.version == 6 and address.is_link_local:
                raise ValueError(f"{item} is link-local: nobody beyond the link can reach it")
        return value

    @field_validator("turn_url")
    @classmethod
    def _turn_url(cls, value: str | None) -> str | None:
        if value is not None:
            parse_turn_url(value)
        return value

    @field_validator("decode")
    @classmethod
    def _decode(cls, value: str) -> str:
        if not re.fullmatch(r"none|audio|video|all|sample:([1-9]|[1-5]\d|6[0-4])", value):
            raise ValueError("is none, audio, video, all, or sample:1 to sample:64")
        return value

    @field_validator("codecs")
    @classmethod
    def _codecs(cls, value: tuple[str, ...]) -> tuple[str, ...]:
        known = ("av1", "vp9", "vp8", "h264")
        value = tuple(item.lower() for item in value)
        for item in value:
            if item not in known:
                raise ValueError(f"unknown codec {item!r}; known are {', '.join(known)}")
        return value

    @field_validator("ca_file", "token_file")
    @classmethod
    def _readable(cls, value: Path | None) -> Path | None:
        if value is not None and not value.is_file():
            raise ValueError(f"no such file: {value}")
        return value

    @model_validator(mode="after")
    def _consistent(self) -> Self:
        if self.username and self.password is None:
            raise ValueError("username needs password (JITSI_PASSWORD or JITSI_PASSWORD_FILE)")
        if self.turn_url is None and (self.turn_username or self.turn_password):
            raise ValueError("turn_username and turn_password are those of turn_url")
        if (self.turn_username is None) != (self.turn_password is None):
            raise ValueError("turn_username and turn_password need each other")
        if (self.jwt_app_id is None) != (self.jwt_app_secret is None):
            raise ValueError("jwt_app_id and jwt_app_secret need each other")
        tokens = {"token": self.token, "token_file": self.token_file, "jwt_app_secret": self.jwt_app_secret}
        given = [name for name, value in tokens.items() if value is not None]
        if len(given) > 1:
            raise ValueError(f"{' and '.join(given)} exclude each other")
        if self.video_codec != "auto" and self.video != "none" and self.video_codec not in self.codecs:
            raise ValueError(f"video_codec {self.video_codec} is not among codecs {','.join(self.codecs)}")
        return self

    @model_validator(mode="after")
    def _sendable(self) -> Self:
        if self.media_engine == "aiortc":
            if self.video_codec in ("vp9", "av1"):
                raise ValueError(f"video_codec {self.video_codec} needs media_engine shared")
            if self.simulcast or self.opus_red:
                raise ValueError("simulcast and opus_red need media_engine shared")
        if self.simulcast and (self.width < 640 or self.height < 360):
            raise ValueError(f"simulcast needs a picture of 640x360 or larger, not {self.width}x{self.height}")
        if self.simulcast and self.video_codec not in ("auto", "vp8"):
            raise ValueError(f"simulcast is for vp8, {self.video_codec} is sent in one layer")
        return self

    @classmethod
    def settings_customise_sources(
        cls,
        settings_cls: type[BaseSettings],
        init_settings: PydanticBaseSettingsSource,
        env_settings: PydanticBaseSettingsSource,
        dotenv_settings: PydanticBaseSettingsSource,
        file_secret_settings: PydanticBaseSettingsSource,
    ) -> tuple[PydanticBaseSettingsSource, ...]:
        """Flags, then the environment, then ``*_FILE`` secrets; the TOML file is merged in by ``load``."""
        del dotenv_settings, file_secret_settings
        return init_settings, env_settings, _SecretFiles(settings_cls), _toml_source(settings_cls)

    @cached_property
    def rooms_domain(self) -> str:
        """Domain of the rooms."""
        return self.muc_domain or f"muc.{self.domain}"

    @cached_property
    def focus(self) -> str:
        """Address of the focus component."""
        return self.focus_jid or f"focus.{self.domain}"

    @cached_property
    def login_domain(self) -> str:
        """Domain of the login: the anonymous one for guests where it is set."""
        return self.domain if self.username else (self.anonymous_domain or self.domain)

    def specs(self) -> tuple[ParticipantSpec, ...]:
        """The participants to start: those of the TOML file, else ``bots`` in ``room``."""
        return self.participants or (ParticipantSpec(room=self.room, count=self.bots),)

    @property
    def unused(self) -> tuple[str, ...]:
        """Settings that were given and say nothing, since ``[[participants]]`` says it."""
        given = ("room", "bots") if self.participants else ()
        return tuple(name for name in given if name in self.model_fields_set)

    def public(self) -> dict[str, Any]:
        """All settings for display, secrets masked."""
        values = self.model_dump(mode="json")
        for secret in SECRETS:
            if values[secret] is not None:
                values[secret] = "**********"
        return values


class _SecretFiles(PydanticBaseSettingsSource):
    """``JITSI_PASSWORD_FILE`` and its like: the secret is the file's content, without the newline at its end."""

    def get_field_value(self, field: FieldInfo, field_name: str) -> tuple[Any, str, bool]:
        """Not used: all values are given at once by the call."""
        del field
        return None, field_name, False

    def __call__(self) -> dict[str, Any]:
        found: dict[str, Any] = {}
        for secret in FILE_SECRETS:
            variable = f"{ENV_PREFIX}{secret.upper()}_FILE"
            path = os.environ.get(variable)
            if path:
                try:
                    found[secret] = Path(path).read_text(encoding="utf-8").rstrip("\r\n")
                except OSError as error:
                    raise ConfigurationError(f"{variable}: cannot read {path}: {error.strerror}") from error
        return found


class _TomlSource(PydanticBaseSettingsSource):
    """The values of the TOML file, read before by ``load``."""

    def __init__(self, settings_cls: type[BaseSettings], values: Mapping[str, Any]) -> None:
        super().__init__(settings_cls)
        self._values = values

    def get_field_value(self, field: FieldInfo, field_name: str) -> tuple[Any, str, bool]:
        """Value of one setting in the file."""
        del field
        return self._values.get(field_name), field_name, False

    def __call__(self) -> dict[str, Any]:
        return {key: value for key, value in self._values.items() if key not in JOBS}


_toml_values: Mapping[str, Any] = {}


def _toml_source(settings_cls: type[BaseSettings]) -> PydanticBaseSettingsSource:
    return _TomlSource(settings_cls, _toml_values)


def load(config: Path | None = None, **flags: Any) -> Settings:
    """Read the settings from flags (None = not given), the environment and the TOML file ``config``.

    Raises ConfigurationError which names the setting, what is wrong with it, and the nearest known name for an
    unknown one.
    """
    global _toml_values  # noqa: PLW0603 -- pydantic-settings builds its sources from the class alone
    _toml_values = _read_toml(config) if config else {}
    try:
        return Settings(**{key: value for key, value in flags.items() if value is not None})
    except ValidationError as error:
        raise ConfigurationError(_explain(error)) from error
    finally:
        _toml_values = {}


def _read_toml(path: Path) -> dict[str, Any]:
    try:
        values = tomllib.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise ConfigurationError(f"cannot read {path}: {error.strerror}", hint="--config") from error
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise ConfigurationError(f"{path} is not valid TOML: {error}", hint="--config") from error
    for key in values:
        if key not in Settings.model_fields and key not in JOBS:
            raise ConfigurationError(f"{path}: unknown setting {key!r}{_nearest(key, Settings.model_fields)}")
    return values


def load_job(model: type[M], job: str, config: Path | None = None, **flags: Any) -> M:
    """Read the settings ``model`` of a job, as :func:`load` does: flags, ``JITSI_JOB_…``, the table ``[job]``.

    Fields of ``SecretStr`` can come from a file named by ``JITSI_JOB_…_FILE``. Raises ConfigurationError.
    """
    table = _read_toml(config).get(job, {}) if config else {}
    if not isinstance(table, dict):
        raise ConfigurationError(f"{config}: {job} is a table, [{job}]")
    values = dict(table)
    for field, info in model.model_fields.items():
        variable = environment_name(f"{job}_{field}")
        if value := os.environ.get(variable) or _secret_file(variable, info):
            values[field] = value
    values.update({key: value for key, value in flags.items() if value is not None})
    try:
        return model.model_validate(values)
    except ValidationError as error:
        raise ConfigurationError(_explain(error, model, f"{job}.")) from error


def _secret_file(variable: str, field: FieldInfo) -> str | None:
    path = os.environ.get(f"{variable}_FILE")
    if not path or SecretStr not in (field.annotation, *get_args(field.annotation)):
        return None
    try:
        return Path(path).read_text(encoding="utf-8").rstrip("\r\n")
    except OSError as error:
        raise ConfigurationError(f"{variable}_FILE: cannot read {path}: {error.strerror}") from error


def _nearest(key: str, known: Mapping[str, Any]) -> str:
    close = difflib.get_close_matches(key, list(known), n=1)
    return f", did you mean {close[0]!r}?" if close else ""


def _explain(error: ValidationError, model: type[BaseModel] = Settings, prefix: str = "") -> str:
    lines = []
    for item in error.errors():
        place = ".".join(str(part) for part in item["loc"])
        text = item["msg"].removeprefix("Value error, ")
        if item["type"] == "extra_forbidden":
            known = ParticipantSpec.model_fields if "." in place else model.model_fields
            text = f"unknown setting{_nearest(str(item['loc'][-1]), known)}"
        lines.append(f"{prefix}{place}: {text}" if place else text)
    return "; ".join(lines)


def environment_name(field: str) -> str:
    """The environment twin of a setting, as ``JITSI_ROOM`` of ``room``."""
    return f"{ENV_PREFIX}{field.upper()}"
