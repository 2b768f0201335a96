"""What the focus is told, knows of its participants, and wants done. Plain values."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from xml.etree import ElementTree as ET

from bot.embedded.offer import Features
from bot.jingle.model import SourceMap, Transport


@dataclass(frozen=True, slots=True)
class FocusConfig:
    """Who the focus is and how long it waits (seconds)."""

    jid: str = "focus@auth.meet.jitsi/focus"
    muc_domain: str = "muc.meet.jitsi"
    min_participants: int = 2
    single_participant_timeout: float = 20.0
    owner_delay: float = 0.03
    disco_timeout: float = 5.0
    empty_room_timeout: float = 15.0
    #: SSRCs, and groups of them, that one participant may have (Jicofo's default).
    max_ssrcs: int = 20
    #: Participants in a room beyond whom others are sent to a visitor node, where there is one.
    max_participants: int = 20
    #: Domain of the rooms of each visitor node by its name, and the component that connects them.
    node_muc_domains: Mapping[str, str] = field(default_factory=dict)
    visitors_component: str = "visitors.meet.jitsi"


@dataclass(frozen=True, slots=True)
class Send:
    """Send this stanza; ``from`` and ``to`` are set."""

    stanza: ET.Element


@dataclass(frozen=True, slots=True)
class OpenEndpoint:
    """The bridge shall open its side of a transport, and say ``opened`` or ``failed``."""

    room: str
    endpoint: str
    sid: str
    features: Features
    bridge_sources: SourceMap


@dataclass(frozen=True, slots=True)
class ConnectEndpoint:
    """The bridge shall connect to the participant's side."""

    room: str
    endpoint: str
    sid: str
    transport: Transport


@dataclass(frozen=True, slots=True)
class SetSources:
    """The bridge shall take these as the participant's sources."""

    room: str
    endpoint: str
    sources: SourceMap


@dataclass(frozen=True, slots=True)
class CloseEndpoint:
    """The bridge shall close the participant's transport."""

    room: str
    endpoint: str
    sid: str


Output = Send | OpenEndpoint | ConnectEndpoint | SetSources | CloseEndpoint


@dataclass(eq=False, slots=True)
class Member:
    """A participant. ``sid`` is set from when his transport is opened; ``active`` once he has accepted."""

    nick: str
    jid: str
    #: The room that he is in: the main one, or for a visitor that of a node.
    room: str = ""
    visitor: bool = False
    affiliation: str = "none"
    features: Features | None = None
    disco_deadline: float | None = None
    owner_at: float | None = None
    sid: str | None = None
    offered: bool = False
    active: bool = False
    #: He ended his session himself, or asked for new ones too often: he gets no other while he stays.
    refused: bool = False
    sources: SourceMap = field(default_factory=SourceMap)
    #: What he was told, by owner.
    told: dict[str, SourceMap] = field(default_factory=dict)
    restarts: list[float] = field(default_factory=list)
