"""Which TURN server a media session uses: the one of the settings, else one that the deployment names."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable
from math import inf

from bot.errors import NoTurnServerError
from bot.settings import Settings
from bot.turn import TurnServer, parse_turn_url
from bot.xmpp.connection import XmppConnection
from bot.xmpp.extdisco import request_services

#: Seconds in which a deployment that knows nothing of XEP-0215 is not asked again by any participant: questions
#: delay a session where a server limits what clients send.
UNKNOWN_TIME = 600.0
_UNKNOWN: dict[tuple[str, str], float] = {}


class TurnLookup:
    """Finds the server for each media session of one connection: a deployment's credentials last for a while.

    ``domain`` is asked, the one of the settings unless another is given.
    """

    def __init__(
        self,
        settings: Settings,
        connection: XmppConnection,
        *,
        domain: str | None = None,
        clock: Callable[[], float] = time.monotonic,
        unknown: dict[tuple[str, str], float] | None = None,
    ) -> None:
        self._settings = settings
        self._connection = connection
        self._domain = domain or settings.domain
        self._clock = clock
        self._unknown = _UNKNOWN if unknown is None else unknown

    def __repr__(self) -> str:
        return f"<TurnLookup {self._settings.use_turn}>"

    async def find(self) -> TurnServer | None:
        """The server to use now, None for none. Raises NoTurnServerError where only relayed media may be used."""
        settings = self._settings
        if settings.use_turn == "off":
            return None
        if settings.turn_url is not None:
            secret = settings.turn_password
            return parse_turn_url(
                settings.turn_url, settings.turn_username, secret.get_secret_value() if secret else None
            )
        found = await self._ask()
        if found is None and settings.use_turn == "relay":
            raise NoTurnServerError("The deployment names no TURN server", hint="JITSI_TURN_URL names one")
        return found

    async def _ask(self) -> TurnServer | None:
        deployment = self._settings.ws_url, self._domain
        if self._clock() < self._unknown.get(deployment, -inf):
            return None
        services = await request_services(self._connection, self._domain)
        if services is None:
            self._unknown[deployment] = self._clock() + UNKNOWN_TIME
        return choose(item.turn for item in services or ())


def choose(servers: Iterable[TurnServer | None]) -> TurnServer | None:
    """The one that gets through most firewalls: TLS, then TCP, then UDP; web clients, too, prefer TCP."""
    found = [item for item in servers if item is not None]
    return min(found, key=lambda item: (not item.tls, item.transport != "tcp"), default=None)
