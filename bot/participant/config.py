"""What one participant needs to know, derived from the settings."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, replace

from bot.participant.retry import RetrySettings
from bot.settings import ParticipantSpec, Settings
from bot.xmpp.focus import FocusAddress, conference_url
from bot.xmpp.token import GivenToken, MintedToken, TokenFile, TokenSource


@dataclass(frozen=True, slots=True)
class ParticipantConfig:
    """One participant: ``settings`` of the process, with what its own group overrides.

    ``seat`` is its number among the ``seats`` participants of the run that go into the same room.
    """

    settings: Settings
    room: str
    name: str
    audio: str
    video: str
    start_muted_audio: bool = False
    start_muted_video: bool = False
    seat: int = 0
    seats: int = 1

    @property
    def room_jid(self) -> str:
        """Bare JID of the room. Rooms are lower case on the wire, as web clients write them."""
        return f"{self.room.lower()}@{self.settings.rooms_domain}"

    @property
    def focus(self) -> FocusAddress:
        """Where the focus is asked for the room."""
        settings = self.settings
        return FocusAddress(
            jid=settings.focus,
            url=conference_url(settings.ws_url, self.room.lower()),
            how=settings.conference_request,
            timeout=settings.connect_timeout,
            ca_file=settings.ca_file,
        )

    @property
    def token(self) -> TokenSource | None:
        """Where the token of each connect comes from."""
        settings = self.settings
        if settings.token is not None:
            return GivenToken(settings.token.get_secret_value())
        if settings.token_file is not None:
            return TokenFile(settings.token_file)
        if settings.jwt_app_id is None or settings.jwt_app_secret is None:
            return None
        return MintedToken(
            settings.jwt_app_id,
            settings.jwt_app_secret.get_secret_value(),
            room=self.room.lower(),
            subject=settings.jwt_subject or settings.domain,
            name=self.name,
            issuer=settings.jwt_issuer,
            audience=settings.jwt_audience,
            lifetime=settings.jwt_lifetime,
        )

    @property
    def retry(self) -> RetrySettings:
        """The join policy's numbers."""
        return RetrySettings(retries=self.settings.retries, base=self.settings.retry_base)


def expand(settings: Settings) -> list[ParticipantConfig]:
    """All participants that the settings ask for; names are numbered where a group has several."""
    found = []
    for spec in settings.specs():
        found += [_one(settings, spec, number) for number in range(1, spec.count + 1)]
    rooms = Counter(item.room_jid for item in found)
    taken = Counter[str]()
    for at, item in enumerate(found):
        found[at] = replace(item, seat=taken[item.room_jid], seats=rooms[item.room_jid])
        taken[item.room_jid] += 1
    return found


def _one(settings: Settings, spec: ParticipantSpec, number: int) -> ParticipantConfig:
    name = spec.name or settings.name
    return ParticipantConfig(
        settings=settings,
        room=spec.room,
        name=f"{name}-{number}" if spec.count > 1 else name,
        audio=spec.audio or settings.audio,
        video=spec.video or settings.video,
        start_muted_audio=_first(spec.start_muted_audio, settings.start_muted_audio),
        start_muted_video=_first(spec.start_muted_video, settings.start_muted_video),
    )


def _first(own: bool | None, general: bool) -> bool:
    return general if own is None else own
