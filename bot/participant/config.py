"""What one participant needs to know, derived from the settings."""

from __future__ import annotations

from dataclasses import dataclass

from bot.participant.retry import RetrySettings
from bot.settings import ParticipantSpec, Settings


@dataclass(frozen=True, slots=True)
class ParticipantConfig:
    """One participant: ``settings`` of the process, with what its own group overrides."""

    settings: Settings
    room: str
    name: str
    audio: str
    video: str

    @property
    def room_jid(self) -> str:
        """Bare JID of the room. Rooms are lower case on the wire, as web clients write them."""
        return f"{self.room.lower()}@{self.settings.rooms_domain}"

    @property
    def retry(self) -> RetrySettings:
        """The join policy's numbers."""
        return RetrySettings(retries=self.settings.retries, base=self.settings.retry_base)


def expand(settings: Settings) -> list[ParticipantConfig]:
    """All participants that the settings ask for; names are numbered where a group has several."""
    found = []
    for spec in settings.specs():
        found += [_one(settings, spec, number) for number in range(1, spec.count + 1)]
    return found


def _one(settings: Settings, spec: ParticipantSpec, number: int) -> ParticipantConfig:
    name = spec.name or settings.name
    return ParticipantConfig(
        settings=settings,
        room=spec.room,
        name=f"{name}-{number}" if spec.count > 1 else name,
        audio=spec.audio or settings.audio,
        video=spec.video or settings.video,
    )
