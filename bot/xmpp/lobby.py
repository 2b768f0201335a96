"""The lobby of a members-only room: waiting in it, and letting in who waits (Jitsi's mod_muc_lobby_rooms)."""

from __future__ import annotations

import asyncio
import secrets
import xml.etree.ElementTree as ET
from collections.abc import Callable
from dataclasses import dataclass

from bot.errors import (
    ActionRefusedError,
    BotError,
    KickedError,
    LobbyDeniedError,
    LobbyTimeoutError,
    RoomDestroyedError,
    RoomError,
    RoomRestrictedError,
)
from bot.xmpp import owner
from bot.xmpp.connection import XmppConnection
from bot.xmpp.framing import NS_CLIENT
from bot.xmpp.messages import Invited, read_message
from bot.xmpp.occupants import NS_MUC_USER, Occupant, OccupantJoined, OccupantLeft, SelfLeft
from bot.xmpp.presence import RoomPresence
from bot.xmpp.room import Room, RoomEvent


@dataclass(frozen=True, slots=True)
class Admitted:
    """The main room lets us in now; ``password`` is its own, where the invitation brings one."""

    password: str | None = None


class Lobby:
    """We wait in the lobby ``lobby_jid`` of the room ``main_jid`` until somebody decides."""

    def __init__(self, connection: XmppConnection, lobby_jid: str, main_jid: str) -> None:
        self._connection = connection
        self._main_jid = main_jid
        self._verdict: asyncio.Future[Admitted] = asyncio.get_running_loop().create_future()
        self._room = Room(connection, lobby_jid, on_event=self._event)
        self._stop = connection.on_message(self._message)

    def __repr__(self) -> str:
        return f"<Lobby {self._room.jid} of {self._main_jid}>"

    async def knock(
        self, presence: RoomPresence, *, on_waiting: Callable[[], None], join_timeout: float, timeout: float
    ) -> Admitted:
        """Enter and wait. Raises LobbyDeniedError, LobbyTimeoutError, or what ended the room or the connection."""
        try:
            await self._room.join(presence.in_lobby(), timeout=join_timeout)
        except RoomRestrictedError:
            return Admitted()  # the lobby was closed a moment ago: the main room is open
        if presence.email is not None:
            self._room.update(email=presence.email)  # after the join, as web clients do it
        on_waiting()
        try:
            async with asyncio.timeout(timeout):
                return await self._connection.unless_lost(self._verdict)
        except TimeoutError:
            raise LobbyTimeoutError(
                f"Nobody admitted us to {self._main_jid} within {timeout:g} s", hint="JITSI_LOBBY_TIMEOUT"
            ) from None

    async def leave(self, timeout: float = 5.0) -> None:
        """Leave the lobby, and hear nothing more of it; may be called twice."""
        try:
            await self._room.leave(timeout)
        finally:
            self._stop()
            self._room.close()
            self._verdict.cancel()

    def _message(self, stanza: ET.Element) -> None:
        """The invitation comes from the main room, which we are not in."""
        event = read_message(stanza, self._main_jid)
        if isinstance(event, Invited):
            self._decide(Admitted(event.password))

    def _event(self, event: RoomEvent) -> None:
        if isinstance(event, SelfLeft) and event.error is not None:
            self._decide(lobby_verdict(event.error, self._main_jid))

    def _decide(self, verdict: Admitted | BotError) -> None:
        if self._verdict.done():
            return
        if isinstance(verdict, Admitted):
            self._verdict.set_result(verdict)
        else:
            self._verdict.set_exception(verdict)


def lobby_verdict(error: RoomError, main_jid: str) -> Admitted | BotError:
    """What it means to be put out of the lobby: kicked is denied; a lobby closed for the main room lets us in."""
    if isinstance(error, KickedError):
        return LobbyDeniedError(f"Not admitted to {main_jid}: {error.message}")
    if isinstance(error, RoomDestroyedError) and error.alternative:
        return Admitted()
    return error


@dataclass(frozen=True, slots=True)
class Knocked:
    """Somebody waits in the lobby."""

    occupant: Occupant


@dataclass(frozen=True, slots=True)
class KnockEnded:
    """Somebody does not wait any more: admitted, denied, or gone."""

    occupant: Occupant


class LobbyDesk:
    """A moderator's side: ``on_event`` hears who waits. ``lobby_jid`` is what the main room tells (RoomInfo)."""

    def __init__(
        self,
        connection: XmppConnection,
        lobby_jid: str,
        main: Room,
        *,
        on_event: Callable[[Knocked | KnockEnded], None],
    ) -> None:
        self._connection = connection
        self._main = main
        self._on_event = on_event
        self._gone = asyncio.Event()
        self._room = Room(connection, lobby_jid, on_event=self._event)

    def __repr__(self) -> str:
        return f"<LobbyDesk {self._room.jid}: {len(self.waiting)} waiting>"

    @property
    def waiting(self) -> tuple[Occupant, ...]:
        """Who waits. Moderators are in the lobby, too."""
        return tuple(item for item in self._room.occupants.others if self._waits(item))

    async def open(self, presence: RoomPresence, timeout: float = 20.0) -> None:
        """Enter the lobby. Raises RoomError."""
        await self._room.join(presence.in_lobby(), timeout=timeout)

    def admit(self, *endpoints: str) -> None:
        """Let people in. Raises ActionRefusedError for who does not wait."""
        message = ET.Element(f"{{{NS_CLIENT}}}message", {"to": self._main.jid})
        x = ET.SubElement(message, f"{{{NS_MUC_USER}}}x")
        for endpoint in endpoints:
            ET.SubElement(x, f"{{{NS_MUC_USER}}}invite", {"to": self._waiting(endpoint).jid or ""})
        self._connection.send(message)

    async def deny(self, endpoint: str, timeout: float = 5.0) -> None:
        """Send somebody away. Raises ActionRefusedError.

        Jitsi's Prosody lets nobody hear an answer from a lobby: that he goes is the answer.
        """
        kick = ET.Element(f"{{{NS_CLIENT}}}iq", {"type": "set", "to": self._room.jid, "id": secrets.token_hex(8)})
        kick.append(owner.kick_query(self._waiting(endpoint).endpoint))
        self._gone.clear()
        self._connection.send(kick)
        try:
            async with asyncio.timeout(timeout):
                while self._room.occupants.get(endpoint) is not None:
                    await self._gone.wait()
                    self._gone.clear()
        except TimeoutError:
            raise ActionRefusedError(f"{endpoint} still waits in the lobby after {timeout:g} s") from None

    async def close(self, timeout: float = 5.0) -> None:
        """Leave the lobby; may be called twice."""
        try:
            await self._room.leave(timeout)
        finally:
            self._room.close()

    def _waiting(self, endpoint: str) -> Occupant:
        found = next((item for item in self.waiting if item.endpoint == endpoint), None)
        if found is None or found.jid is None:
            raise ActionRefusedError(f"{endpoint} does not wait in the lobby")
        return found

    def _waits(self, occupant: Occupant) -> bool:
        return not occupant.moderator and self._main.occupants.get(occupant.endpoint) is None

    def _event(self, event: RoomEvent) -> None:
        match event:
            case OccupantJoined(occupant) if self._waits(occupant):
                self._on_event(Knocked(occupant))
            case OccupantLeft(occupant):
                self._gone.set()
                self._on_event(KnockEnded(occupant))
            case _:
                pass
