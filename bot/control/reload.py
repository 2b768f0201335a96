"""Settings that are read again while the daemon runs: taken as a whole, or not at all."""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Callable, Mapping
from dataclasses import dataclass

import structlog

from bot import logs
from bot.control.fleet import Member
from bot.control.model import ParticipantSpec
from bot.control.options import ApiSettings, check_listens
from bot.control.service import Service
from bot.control.shelf import Shelf
from bot.errors import BotError, ConfigurationError
from bot.participant.config import ParticipantConfig, expand
from bot.participant.own import check_media
from bot.recording.names import sanitised
from bot.settings import Settings

log = structlog.get_logger(__name__)

Read = Callable[[], tuple[Settings, ApiSettings]]
#: What was decided when the process began.
_FIXED = ("http_host", "http_port", "processes", "embedded_port", "duration", "log_format", "statistics_interval")
_FIXED_API = ("max_body", "event_history")
#: What is no participant's own: another value of it moves nobody out of a room.
_NOBODYS = frozenset({*_FIXED, "log_level", "room", "name", "bots", "participants"})


@dataclass(frozen=True, slots=True)
class Change:
    """What new settings mean, found to be possible."""

    settings: Settings
    api: ApiSettings
    configs: Mapping[str, ParticipantConfig]


def wanted(settings: Settings) -> dict[str, ParticipantConfig]:
    """The participants that the settings ask for, by id; without any word of them, none."""
    asked = settings.participants or ("bots" in settings.model_fields_set and settings.bots)
    return named(expand(settings)) if asked else {}


def named(configs: list[ParticipantConfig]) -> dict[str, ParticipantConfig]:
    """Ids for participants of the settings: room and name, numbered where two are alike."""
    taken: Counter[str] = Counter()
    found: dict[str, ParticipantConfig] = {}
    for config in configs:
        name = f"{sanitised(config.room)}.{sanitised(config.name)}"
        name = "".join(item if item.isascii() else "_" for item in name)[:60].strip("._-") or "participant"
        taken[name] += 1
        found[name if taken[name] == 1 else f"{name}-{taken[name]}"] = config
    return found


async def prepare(service: Service, settings: Settings, api: ApiSettings) -> Change:
    """See that ``settings`` can be taken. Raises BotError, and has changed nothing."""
    if service.served:
        check_listens(service.settings.http_host, api)
    configs = wanted(settings)
    own = [item for item in service.fleet.members if item.origin == "settings"]
    others = service.seats.taken - len([item for item in own if not service.fleet.ended(item)])
    if service.begun and len(configs) > len(own) and others + len(configs) > api.max_participants:
        raise ConfigurationError(
            f"{len(configs)} participants with {others} others are more than api.max_participants, "
            f"{api.max_participants}"
        )
    for name in configs:
        there = service.fleet.get(name)
        if there is not None and there.origin == "api":
            raise ConfigurationError(f"the participant {name} of the settings was created by the API already")
    await asyncio.to_thread(check_media, list(configs.values()))
    return Change(settings, api, configs)


async def apply(service: Service, change: Change) -> None:
    """Take the new settings: who is not asked for any more leaves, who is another one joins anew."""
    service.settings, service.api, service.tokens = change.settings, change.api, change.api.tokens
    service.seats.limit = change.api.max_participants
    service.recording_shelf, service.report_shelf = Shelf(change.api.recordings_dir), Shelf(change.api.reports_dir)
    own = [item for item in service.fleet.members if item.origin == "settings"]
    kept = {item.id for item in own if item.id in change.configs and _same(item, change.configs[item.id])}
    await service.fleet.let_go([item for item in own if item.id not in kept])
    for name, config in change.configs.items():
        if service.fleet.get(name) is None and not service.draining:
            spec = ParticipantSpec.model_construct(room=config.room, name=config.name)
            service.fleet.add(name, config, spec, origin="settings", cool_down=change.settings.cool_down)
    service.begun = True


async def reload(service: Service, read: Read) -> bool:
    """Read the settings again; whether they were taken. What is wrong with them is logged, and changes nothing."""
    try:
        settings, api = read()
        change = await prepare(service, settings, api)
    except BotError as error:
        return _refused(error)
    late = [name for name in _FIXED if getattr(settings, name) != getattr(service.settings, name)]
    late += [f"api.{name}" for name in _FIXED_API if getattr(api, name) != getattr(service.api, name)]
    if late:
        log.warning("Not before a restart", event_name="settings_need_restart", settings=late)
    if settings.log_level != service.settings.log_level:
        logs.configure(settings.log_level, settings.log_format)
    await apply(service, change)
    log.info("New settings", event_name="settings_reloaded", participants=len(change.configs))
    return True


def _refused(error: BotError) -> bool:
    log.error("The new settings are wrong: the old ones stay", event_name="settings_refused", cause=str(error))
    return False


def _same(member: Member, config: ParticipantConfig) -> bool:
    return not member.leaving and _own(member.config) == _own(config)


def _own(config: ParticipantConfig) -> tuple[object, ...]:
    """What makes a participant the one that it is."""
    settings = config.settings
    rest = {name: getattr(settings, name) for name in Settings.model_fields if name not in _NOBODYS}
    media = (config.audio, config.video, config.start_muted_audio, config.start_muted_video)
    return (config.room, config.name, *media, rest)
