"""What a Locust worker and the bot process beside it say to each other, besides ``bot.load.messages``."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from bot import events


@dataclass(frozen=True, slots=True)
class Order:
    """The participant of ``seat`` shall join or leave now."""

    seat: int
    what: Literal["join", "leave"]


@dataclass(frozen=True, slots=True)
class Told:
    """An event of a participant."""

    seat: int
    event: events.Event


@dataclass(frozen=True, slots=True)
class Gone:
    """The stay of a participant is over, whatever ended it."""

    seat: int
