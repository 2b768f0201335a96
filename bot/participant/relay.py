"""Which TURN server a media session uses: the one of the settings, else one that the deployment names."""

from __future__ import annotations

from collections.abc import Iterable

from bot.errors import IceFailedError
from bot.settings import Settings
from bot.turn import TurnServer, parse_turn_url
from bot.xmpp.connection import XmppConnection
from bot.xmpp.extdisco import request_services


class TurnLookup:
    """Finds the server for each media session of one connection: a deployment's credentials last for a while."""

    def __init__(self, settings: Settings, connection: XmppConnection) -> None:
        self._settings = settings
        self._connection = connection
        self._unknown = False

    def __repr__(self) -> str:
        return f"<TurnLookup {self._settings.use_turn}>"

    async def find(self) -> TurnServer | None:
        """The server to use now, None for none. Raises IceFailedError where only relayed media may be used."""
        settings = self._settings
        if settings.use_turn == "off":
            return None
        if settings.turn_url is not None:
            secret = settings.turn_password
            return parse_turn_url(
                settings.turn_url, settings.turn_username, secret.get_secret_value() if secret else None
            )
        found = None if self._unknown else await self._ask()
        if found is None and settings.use_turn == "relay":
            raise IceFailedError("The deployment names no TURN server", hint="JITSI_TURN_URL names one")
        return found

    async def _ask(self) -> TurnServer | None:
        services = await request_services(self._connection, self._settings.domain)
        self._unknown = services is None  # it will not learn it while we are connected
        return choose(item.turn for item in services or ())


def choose(servers: Iterable[TurnServer | None]) -> TurnServer | None:
    """The one that gets through most firewalls: TLS, then TCP, then UDP; web clients, too, prefer TCP."""
    found = [item for item in servers if item is not None]
    return min(found, key=lambda item: (not item.tls, item.transport != "tcp"), default=None)
