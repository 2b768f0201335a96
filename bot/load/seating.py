"""What each participant of a scenario is set to: the settings of the process, with what its seat says. Pure."""

from __future__ import annotations

from collections.abc import Sequence

from pydantic import SecretStr

from bot.errors import ConfigurationError
from bot.load.plan import BITRATES, WIDTHS, is_simulcast
from bot.load.scenario import Scenario
from bot.load.thresholds import Threshold
from bot.load.timetable import Seat, timetable
from bot.participant.config import ParticipantConfig
from bot.settings import Settings
from bot.xmpp.token import MintedToken

#: Decoded where a threshold asks for it and the settings say nothing: a picture with its sound.
SAMPLE = "sample:2"
#: Measured while they come.
_OF_JOINS = frozenset({"join", "success"})
_DECODED = frozenset({"e2e_delay", "lip_sync"})


def prepare(settings: Settings, scenario: Scenario) -> Settings:
    """The settings that all participants share. ConfigurationError where the scenario needs others."""
    if scenario.tokens == "room":
        if settings.jwt_app_id is None or settings.jwt_app_secret is None:
            raise ConfigurationError("tokens = 'room' needs jwt_app_id and jwt_app_secret, to make them with")
        settings = settings.model_copy(update={"token": None, "token_file": None})
    else:
        settings = settings.model_copy(update={"token": _shared_token(settings)})
    if settings.use_turn == "relay" and scenario.is_shaped:
        raise ConfigurationError(
            "shaping needs another use_turn than 'relay'", hint="the way over a TURN server is not shaped"
        )
    return settings


def uncounted(scenario: Scenario) -> Threshold | None:
    """A threshold on joins that can have no data, as the warm-up is over after the last join; None without one."""
    if any(item.what == "join" and item.at >= scenario.warm_up for item in timetable(scenario).actions):
        return None
    about_joins = (item for item in scenario.parsed_thresholds if item.measure.name.split(".")[0] in _OF_JOINS)
    return next(about_joins, None)


def check_warm_up(scenario: Scenario) -> None:
    """Raise ConfigurationError for a threshold that would be missed whatever the server does."""
    if (threshold := uncounted(scenario)) is not None:
        raise ConfigurationError(
            f"warm_up = {scenario.warm_up:g} s is over after the last join: {threshold} would have no data",
            hint="a shorter warm_up, or a slower join_rate",
        )


def _shared_token(settings: Settings) -> SecretStr | None:
    """The token of the settings; one for all rooms where they have a secret to make it with."""
    if settings.token is not None or settings.token_file is not None:
        return settings.token
    if settings.jwt_app_id is None or settings.jwt_app_secret is None:
        return None
    made = MintedToken(
        settings.jwt_app_id,
        settings.jwt_app_secret.get_secret_value(),
        room="*",
        subject=settings.jwt_subject or settings.domain,
        issuer=settings.jwt_issuer,
        audience=settings.jwt_audience,
        lifetime=settings.jwt_lifetime,
    )
    return SecretStr(made())


def decode_of(settings: Settings, thresholds: Sequence[Threshold]) -> str:
    """What the sampled participants decode: as the settings say, or what thresholds are about."""
    if settings.decode != "none":
        return settings.decode
    return SAMPLE if any(item.measure.name in _DECODED for item in thresholds) else "none"


def config_of(
    settings: Settings, scenario: Scenario, seat: Seat, *, decode: str = "none", muted: bool = False
) -> ParticipantConfig:
    """The participant of ``seat``; ``muted`` says that it joins silent, as another speaks."""
    codec = scenario.codec
    own = settings.model_copy(
        update={
            "room": seat.room,
            "name": seat.name,
            "width": WIDTHS[scenario.height],
            "height": scenario.height,
            "fps": scenario.fps,
            "simulcast": is_simulcast(scenario),
            "video_codec": codec,
            "video_bitrate": settings.video_bitrate or BITRATES[codec][scenario.height] // 1000,
            "layout": seat.layout,
            "last_n": seat.last_n,
            "receive_height": seat.receive_height,
            "region": seat.region or settings.region,
            "decode": decode,
            # Whoever has the word speaks without a pause: it is measured when the bridge notices.
            "talk": "always" if scenario.switch_speakers else settings.talk,
            # A relay would be the way around a bad network.
            "use_turn": "off" if seat.shaping else settings.use_turn,
        }
    )
    return ParticipantConfig(
        settings=own,
        room=seat.room,
        name=seat.name,
        audio=_content(settings.audio, "speech") if seat.audio else "none",
        video=_content(settings.video, "pattern") if seat.video else "none",
        start_muted_audio=settings.start_muted_audio or muted,
        start_muted_video=settings.start_muted_video,
        seat=seat.voice or 0,
        seats=max(1, seat.voices),
    )


def _content(wanted: str, default: str) -> str:
    return default if wanted == "none" else wanted


def observers(seats: Sequence[Seat]) -> set[int]:
    """One seat of each conference, who tells what all of it hear: the first one."""
    first: dict[int, int] = {}
    for seat in seats:
        first.setdefault(seat.conference, seat.index)
    return set(first.values())


def sampled(seats: Sequence[Seat], processes: int) -> set[int]:
    """Who decodes: the first of each process."""
    found: dict[int, int] = {}
    for seat in seats:
        found.setdefault(seat.process, seat.index)
    return {found[number] for number in range(processes) if number in found}
