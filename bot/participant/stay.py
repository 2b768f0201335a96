"""What every part of one stay in a room works with."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Protocol

from bot import events
from bot.bridge.decode import OnFrame
from bot.bridge.tap import MediaTap
from bot.engine.sockets import Opener
from bot.participant.config import ParticipantConfig
from bot.participant.entrance import MAIN, Entrance
from bot.participant.layout import Wishes
from bot.participant.own import OwnMedia
from bot.participant.retry import Sleep
from bot.participant.states import State
from bot.participant.timing import PhaseTimer
from bot.settings import Settings
from bot.xmpp.connection import XmppConnection


class Emit(Protocol):
    """Reports one event of this participant; the participant adds who it is."""

    def __call__(self, kind: type[events.Event], **fields: object) -> None:
        """Report."""
        ...


@dataclass(slots=True)
class Profile:
    """What we say of ourselves in every stay; None is what the settings say; fields as in RoomPresence."""

    name: str | None = None
    raised_hand: int | None = None
    #: Jitsi's participant properties besides those that we set ourselves.
    properties: dict[str, str] = field(default_factory=dict)


@dataclass(frozen=True, slots=True, kw_only=True)
class Stay:
    """One connection of one participant, and whom to tell; ``sleep`` and ``clock`` (seconds) can be injected."""

    config: ParticipantConfig
    connection: XmppConnection
    emit: Emit
    on_phase: Callable[[str], None]
    on_state: Callable[[State], None]
    timer: PhaseTimer
    own: OwnMedia
    wishes: Wishes
    profile: Profile = field(default_factory=Profile)
    entrance: Entrance = MAIN
    sleep: Sleep = asyncio.sleep
    clock: Callable[[], float] = time.monotonic
    on_frame: OnFrame | None = None
    tap: MediaTap | None = None
    open_socket: Opener | None = None

    @property
    def settings(self) -> Settings:
        """The settings of the process."""
        return self.config.settings

    @property
    def visitor(self) -> bool:
        """Whether it is a visitor's stay: it sees and hears, and publishes nothing."""
        return self.entrance.node is not None

    @property
    def domain(self) -> str:
        """The domain of the server that it stays at."""
        return self.entrance.domain(self.config)
