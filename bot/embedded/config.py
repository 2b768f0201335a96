"""Names, limits and rooms of the embedded deployment."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from bot.embedded.services import ExternalService
from bot.xmpp.visitors import NODES_DOMAIN


@dataclass(frozen=True, slots=True)
class RoomPolicy:
    """Who may enter a room. ``banned`` holds bare addresses or domains; ``members_only`` sends to the lobby."""

    password: str | None = None
    max_occupants: int | None = None
    banned: frozenset[str] = frozenset()
    members_only: bool = False


OPEN_ROOM = RoomPolicy()


@dataclass(frozen=True, slots=True)
class EmbeddedConfig:
    """What the embedded server is; the names are docker-jitsi-meet's. Times in seconds, sizes in bytes.

    ``rooms`` are policies by room name (the part before ``@``). ``accounts`` are user names with passwords for
    SASL PLAIN. ``restrict_room_creation`` lets only the focus create rooms, as docker-jitsi-meet does.
    ``visitor_nodes`` are names of visitor nodes, which clients reach with ``?vnode=NAME``.
    """

    domain: str = "meet.jitsi"
    auth_domain: str = "auth.meet.jitsi"
    muc_domain: str = "muc.meet.jitsi"
    focus_domain: str = "focus.meet.jitsi"
    lobby_domain: str = "lobby.meet.jitsi"
    accounts: Mapping[str, str] = field(default_factory=dict)
    rooms: Mapping[str, RoomPolicy] = field(default_factory=dict)
    restrict_room_creation: bool = False
    #: STUN and TURN servers that the domain names (XEP-0215); without any it knows nothing of them.
    services: tuple[ExternalService, ...] = ()
    resume_timeout: float = 60.0
    #: Stanzas, and characters of them, that wait for an acknowledgement of a client.
    max_unacked: int = 2000
    max_unacked_size: int = 16 * 1024 * 1024
    max_frame_bytes: int = 512 * 1024
    #: Stanzas sent before the server asks for an acknowledgement (XEP-0198 section 4).
    ack_every: int = 5
    #: How long the last participant keeps the media session.
    single_participant_timeout: float = 20.0
    #: Participants needed before anybody gets a media session.
    min_participants: int = 2
    visitor_nodes: tuple[str, ...] = ()
    #: Participants in a room beyond whom others are sent to a visitor node.
    max_participants: int = 20
    #: Whether a visitor's raised hand opens the main room to him at once, as in docker-jitsi-meet, or never does.
    promote_visitors: bool = True
    #: How long after the first join the focus gives ownership.
    owner_delay: float = 0.03
    disco_timeout: float = 5.0
    #: How long the focus waits for participants in a room that nobody enters.
    empty_room_timeout: float = 15.0

    @property
    def focus_jid(self) -> str:
        """Full address of the focus in the embedded server."""
        return f"focus@{self.auth_domain}/focus"

    def node_domain(self, node: str | None) -> str:
        """Domain of the login at a visitor node, or at the main server."""
        return f"{node}.{NODES_DOMAIN}" if node in self.visitor_nodes else self.domain

    @property
    def domains(self) -> frozenset[str]:
        """All domains that clients log in to."""
        return frozenset({self.domain, *(self.node_domain(node) for node in self.visitor_nodes)})

    @property
    def node_muc_domains(self) -> Mapping[str, str]:
        """Domain of the rooms of each visitor node: the main one's prefix before the node's domain."""
        prefix = self.muc_domain.partition(".")[0]
        return {node: f"{prefix}.{self.node_domain(node)}" for node in self.visitor_nodes}
