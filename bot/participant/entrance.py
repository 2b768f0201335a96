"""By which server a participant comes into the meeting: the main room's, or a visitor node. Pure."""

from __future__ import annotations

from dataclasses import dataclass

from bot.errors import VisitorRedirectError
from bot.participant.config import ParticipantConfig
from bot.xmpp.connection import XmppConfig
from bot.xmpp.visitors import VisitorNode, main_room_url, visitor_node


@dataclass(frozen=True, slots=True)
class Entrance:
    """``node`` is the visitor node, None for the main room. ``username`` is a promoted visitor's, for that one."""

    node: VisitorNode | None = None
    username: str | None = None

    @property
    def asks_focus(self) -> bool:
        """Whether the focus is asked first: who was sent by it is not, else he would be sent again."""
        return self.node is None and self.username is None

    def url(self, config: ParticipantConfig) -> str:
        """Address of the WebSocket."""
        url = config.settings.ws_url
        return self.node.url if self.node is not None else main_room_url(url, self.username or "")

    def domain(self, config: ParticipantConfig) -> str:
        """Domain of the server."""
        return self.node.domain if self.node is not None else config.settings.domain

    def room_jid(self, config: ParticipantConfig) -> str:
        """The room: on a node the one of the same name."""
        if self.node is None:
            return config.room_jid
        return f"{config.room_jid.partition('@')[0]}@{self.node.muc_domain}"

    def xmpp(self, config: ParticipantConfig) -> XmppConfig:
        """How to connect. A node knows no accounts, and a promoted visitor has the name that he was given."""
        settings = config.settings
        secret = settings.password.get_secret_value() if settings.password else None
        account = (settings.username, secret) if self.asks_focus else (None, None)
        main = settings.login_domain if self.asks_focus else settings.anonymous_domain or settings.domain
        return XmppConfig(
            url=self.url(config),
            domain=self.node.domain if self.node is not None else main,
            room=config.room,
            username=account[0],
            password=account[1],
            token=config.token,
            ca_file=settings.ca_file,
            phase_timeout=settings.connect_timeout,
            ping_interval=settings.ping_interval,
        )


#: The main room, as everybody comes first.
MAIN = Entrance()


def redirected(config: ParticipantConfig, error: VisitorRedirectError) -> Entrance:
    """The entrance that the focus names. Raises ``error`` again where it is not to be followed."""
    settings = config.settings
    if settings.visitors == "refuse" or not error.vnode:
        raise error
    node = visitor_node(
        error.vnode,
        url=settings.ws_url,
        domain=settings.domain,
        muc_domain=settings.rooms_domain,
        template=settings.visitor_node_url,
    )
    return Entrance(node)
