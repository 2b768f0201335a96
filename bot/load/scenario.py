"""What a load run does, in the words of those who run Jitsi: the model of a scenario. Pure."""

from __future__ import annotations

import difflib
from collections.abc import Iterable
from functools import cached_property
from typing import Annotated, Any, Literal, Self

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, field_validator, model_validator

from bot.load.shaping import Shaping
from bot.load.thresholds import Threshold, parse
from bot.load.units import Duration, Fraction

#: More than any machine carries, and few enough to be planned at once.
MAX_PARTICIPANTS = 100_000
MAX_CHURNS = 1_000_000
#: Seconds.
MAX_DURATION = 86_400.0

Layout = Literal["tile", "stage", "audio-only"]
Codec = Literal["vp8", "vp9", "h264", "av1"]
Count = Annotated[int, Field(strict=True, ge=0, le=MAX_PARTICIPANTS)]
Positive = Annotated[int, Field(strict=True, ge=1, le=MAX_PARTICIPANTS)]
Number = Annotated[float, Field(strict=True, allow_inf_nan=False)]


class _Table(BaseModel):
    """Base of every table of the file."""

    model_config = ConfigDict(extra="forbid", frozen=True)


class Ramp(_Table):
    """How the participants come, and go at the end."""

    shape: Literal["linear", "steps", "up-down"] = Field(
        default="linear",
        description="Evenly (linear), in equal groups with a pause after each (steps), or evenly in and, at the "
        "end, out again (up-down)",
    )
    up: Duration | None = Field(
        default=None,
        ge=0,
        le=86_400,
        description="Time until all have come [default: that of join_rate; of steps: half of the duration]",
    )
    steps: int = Field(default=5, ge=2, le=1000, strict=True, description="Number of groups of the shape steps")
    down: Duration | None = Field(
        default=None,
        ge=0,
        le=86_400,
        description="Time in which all leave at the end [default: of up-down that of up, else 0]",
    )


class Churn(_Table):
    """Those who leave and join again."""

    share: Fraction = Field(default=0.2, description="Share of the participants who do, as 0.2 or '20%'")
    stay: Duration = Field(
        default=60.0, ge=1, le=86_400, description="How long a stay is, on average; half to one and a half of it"
    )
    away: Duration = Field(default=5.0, ge=0, le=86_400, description="How long until the next join, likewise")


class Group(_Table):
    """Some of the participants of each conference, for what is different about them."""

    name: str = Field(min_length=1, max_length=64, description="Name of the group in reports")
    participants: Positive = Field(description="How many of each conference's participants belong to it")
    senders: Count | None = Field(
        default=None, description="How many of them send pictures [default: as many as the scenario's are left]"
    )
    audio_senders: Count | None = Field(
        default=None, description="How many of them send sound [default: likewise]"
    )
    layout: Layout | None = Field(default=None, description="Layout of theirs [default: that of the scenario]")
    last_n: Annotated[int, Field(strict=True, ge=-1)] | None = Field(default=None, description="Likewise")
    receive_height: Annotated[int, Field(strict=True, ge=0, le=4320)] | None = Field(
        default=None, description="Likewise"
    )
    region: Annotated[str, Field(min_length=1, max_length=255)] | None = Field(
        default=None, description="Likewise"
    )
    shaping: Shaping | None = Field(default=None, description="Their network ([groups.shaping])")

    @model_validator(mode="after")
    def _senders_are_participants(self) -> Self:
        for name in ("senders", "audio_senders"):
            number = getattr(self, name)
            if number is not None and number > self.participants:
                raise ValueError(f"{name} = {number} are more than the group's participants = {self.participants}")
        return self


def _texts(value: object) -> object:
    """One text is as good as a list of one."""
    return (value,) if isinstance(value, str) else value


class Scenario(_Table):
    """A load run. Counts are per conference; times are seconds or texts such as ``90s``."""

    name: str = Field(default="", max_length=255, description="Name in reports")
    description: str = Field(default="", max_length=2000, description="What it is good for")
    room_prefix: str = Field(
        default="jitsi-bot-load",
        pattern=r"^[a-z0-9][a-z0-9._-]*$",
        max_length=200,
        description="Rooms are called PREFIX-1, PREFIX-2 …; small letters, digits, dots, dashes",
    )

    # --- who ---
    conferences: Positive = Field(default=1, description="Number of rooms")
    participants: Positive = Field(default=2, description="Participants of each conference")
    senders: Count | None = Field(
        default=None, description="How many of them send pictures [default: all; of an audio-only layout none]"
    )
    audio_senders: Count | None = Field(default=None, description="How many of them send sound [default: all]")
    groups: tuple[Group, ...] = Field(default=(), max_length=100, description="Those who differ ([[groups]])")

    # --- what is sent ---
    codec: Codec = Field(default="vp8", description="Codec of the pictures")
    simulcast: bool = Field(
        default=True,
        strict=True,
        description="Pictures of VP8 in a quarter and a half of the size, too, or in one as those of other codecs "
        "and of 180 lines",
    )
    height: Literal[180, 360, 720, 1080] = Field(default=720, description="Lines of the largest picture sent")
    fps: int = Field(default=30, ge=1, le=60, strict=True, description="Frames per second")
    switch_speakers: Duration = Field(
        default=0.0,
        ge=0,
        le=86_400,
        description="One of a conference speaks for so long, then the next; 0 = each as it likes",
    )

    # --- what is looked at ---
    layout: Layout = Field(
        default="tile", description="Layout of the receivers: tile, stage (the speaker large) or audio-only"
    )
    last_n: int = Field(default=-1, ge=-1, strict=True, description="Most pictures that each receives; -1 = all")
    receive_height: int = Field(
        default=720, ge=0, le=4320, strict=True, description="Tallest picture that each asks for"
    )
    loudest: int = Field(
        default=3,
        ge=-1,
        strict=True,
        description="Sounds that the bridge routes at a time, for what is expected (num-loudest); -1 = all",
    )

    # --- when ---
    duration: Duration = Field(
        default=60.0, gt=0, le=MAX_DURATION, description="Length of the whole run, coming and going included"
    )
    join_delay: Duration | None = Field(
        default=None, ge=0, le=3600, description="Time between two joins; the same as join_rate = 1/join_delay"
    )
    join_rate: Number | None = Field(default=None, gt=0, le=10_000, description="Joins per second [default: 5]")
    join_order: Literal["spread", "fill"] = Field(
        default="spread", description="Each conference gets one in turn (spread), or one is filled after the other"
    )
    ramp: Ramp = Field(default_factory=Ramp, description="How they come and go ([ramp])")
    churn: Churn | None = Field(default=None, description="Leaving and joining again ([churn])")
    warm_up: Duration = Field(
        default=0.0, ge=0, le=86_400, description="What is measured in this time does not count"
    )

    # --- how ---
    tokens: Literal["shared", "room"] = Field(
        default="shared",
        description="One token for all (that of the settings, or none), or one made for each room "
        "(jwt_app_secret)",
    )
    region: str | None = Field(
        default=None, min_length=1, max_length=255, description="Region that the participants say they are in"
    )
    shaping: Shaping | None = Field(
        default=None, description="Network of all whose group has none of its own ([shaping])"
    )
    seed: int = Field(default=1, strict=True, description="Seed of all that is left to chance")

    # --- result ---
    thresholds: Annotated[tuple[str, ...], BeforeValidator(_texts)] = Field(
        default=(), max_length=100, description="What has to be reached, as 'p95(join) < 3s'"
    )
    abort_on_fail: bool = Field(
        default=False, strict=True, description="End the run as soon as a threshold is missed, after the warm-up"
    )

    @field_validator("thresholds")
    @classmethod
    def _readable(cls, value: tuple[str, ...]) -> tuple[str, ...]:
        return tuple(parse(item).text for item in value)

    @model_validator(mode="after")
    def _possible(self) -> Self:
        for problem in _problems(self):
            raise ValueError(problem)
        return self

    @property
    def total(self) -> int:
        """Participants of all conferences."""
        return self.conferences * self.participants

    @property
    def is_shaped(self) -> bool:
        """Whether anybody's network is made worse than it is."""
        return self.shaping is not None or any(group.shaping for group in self.groups)

    @cached_property
    def parsed_thresholds(self) -> tuple[Threshold, ...]:
        """The thresholds, to be evaluated."""
        return tuple(map(parse, self.thresholds))

    @cached_property
    def video_senders(self) -> int:
        """``senders`` with its default filled in."""
        if self.senders is not None:
            return self.senders
        return 0 if self.layout == "audio-only" else self.participants

    @cached_property
    def sound_senders(self) -> int:
        """``audio_senders`` with its default filled in."""
        return self.participants if self.audio_senders is None else self.audio_senders

    @cached_property
    def rate(self) -> float:
        """Joins per second where the ramp names no time; infinite where all come at once."""
        if self.join_delay is not None:
            return 1 / self.join_delay if self.join_delay else float("inf")
        return 5.0 if self.join_rate is None else self.join_rate

    @cached_property
    def up(self) -> float:
        """Seconds until the last of them has been told to join."""
        if self.ramp.up is not None:
            return self.ramp.up
        if self.ramp.shape == "steps":
            return self.duration / 2
        return (self.total - 1) / self.rate

    @property
    def step_size(self) -> int:
        """Participants of a step, where they come in steps."""
        return -(-self.total // self.ramp.steps)

    @property
    def step_length(self) -> float:
        """Seconds from one step to the next."""
        return self.up / self.ramp.steps

    @property
    def churns(self) -> float:
        """Stays that end before the run does, about."""
        if self.churn is None:
            return 0.0
        return self.total * self.churn.share * self.duration / (self.churn.stay + self.churn.away)

    @cached_property
    def down(self) -> float:
        """Seconds in which they leave."""
        if self.ramp.down is not None:
            return self.ramp.down
        return self.up if self.ramp.shape == "up-down" else 0.0


def _problems(scenario: Scenario) -> Iterable[str]:
    """What can't be, each with the numbers that clash."""
    yield from _crowd_problems(scenario)
    yield from _group_problems(scenario)
    yield from _time_problems(scenario)


def _crowd_problems(scenario: Scenario) -> Iterable[str]:
    if scenario.total > MAX_PARTICIPANTS:
        yield (f"conferences x participants = {scenario.total}, more than {MAX_PARTICIPANTS} in one run")
    for name in ("senders", "audio_senders"):
        number = getattr(scenario, name)
        if number is not None and number > scenario.participants:
            yield f"{name} = {number} are more than participants = {scenario.participants} of a conference"


def _group_problems(scenario: Scenario) -> Iterable[str]:
    members = sum(group.participants for group in scenario.groups)
    if members > scenario.participants:
        yield f"the groups have {members} participants, more than participants = {scenario.participants}"
    names = [group.name for group in scenario.groups]
    for name in {name for name in names if names.count(name) > 1}:
        yield f"two groups are called {name!r}"


def _time_problems(scenario: Scenario) -> Iterable[str]:
    if scenario.join_delay is not None and scenario.join_rate is not None:
        yield "join_delay and join_rate exclude each other: they say the same"
    if scenario.ramp.up is not None and scenario.ramp.shape != "steps" and _paced(scenario):
        yield "ramp.up and join_delay or join_rate exclude each other: both say how fast they come"
    if scenario.up + scenario.down > scenario.duration:
        down = f" and {scenario.down:g} s until all have left" if scenario.down else ""
        yield (
            f"duration = {scenario.duration:g} s is too short: it takes {scenario.up:g} s until all have come"
            f"{down} (join_rate, ramp.up, ramp.down)"
        )
    if scenario.ramp.shape == "steps" and scenario.step_size / scenario.rate > scenario.step_length:
        yield (
            f"a step of {scenario.step_size} participants takes longer than the {scenario.step_length:g} s until "
            f"the next one at {scenario.rate:g} joins per second (join_rate, ramp.up, ramp.steps)"
        )
    if scenario.churns > MAX_CHURNS:
        yield f"churn: about {scenario.churns:.0f} stays are more than {MAX_CHURNS} (share, stay, duration)"
    if scenario.warm_up >= scenario.duration:
        yield f"warm_up = {scenario.warm_up:g} s leaves nothing of duration = {scenario.duration:g} s"


def _paced(scenario: Scenario) -> bool:
    return scenario.join_delay is not None or scenario.join_rate is not None


def nearest_key(key: str, place: tuple[Any, ...]) -> str:
    """``, did you mean …?`` for a key that the table at ``place`` does not have; empty where nothing is near."""
    models: dict[str, type[BaseModel]] = {"ramp": Ramp, "churn": Churn, "groups": Group, "shaping": Shaping}
    tables = [part for part in place if isinstance(part, str)]
    fields = (models[tables[-1]] if tables else Scenario).model_fields
    close = difflib.get_close_matches(key, list(fields), n=1)
    return f", did you mean {close[0]!r}?" if close else f"; known are {', '.join(fields)}"
