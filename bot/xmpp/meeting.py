"""What goes on in a meeting beyond its room: the components' messages in, a moderator's orders out."""

from __future__ import annotations

import xml.etree.ElementTree as ET
from collections.abc import Callable, Mapping

from bot.errors import ActionRefusedError, BotError
from bot.jingle.session import FOCUS_NICK
from bot.xmpp import owner
from bot.xmpp.breakout import BreakoutEvent, breakout_message, read_breakout
from bot.xmpp.connection import IqRequest, XmppConnection
from bot.xmpp.framing import NS_CLIENT
from bot.xmpp.messages import read_component
from bot.xmpp.moderation import (
    MUTE_TAGS,
    AvModeration,
    MediaKind,
    ModerationEvent,
    StartMuted,
    av_moderation_message,
    mute_request,
    read_mute,
    read_start_muted,
)
from bot.xmpp.occupants import Occupant
from bot.xmpp.room import Room
from bot.xmpp.roominfo import RoomInfo, read_room_info, room_info_query
from bot.xmpp.services import address_of, discover
from bot.xmpp.stanza_errors import StanzaError

MeetingEvent = ModerationEvent | BreakoutEvent


class Meeting:
    """The meeting of ``room``. Its orders raise ActionRefusedError where the room or a component says no.

    ``domain`` is the deployment's, which names its components.
    """

    def __init__(
        self, connection: XmppConnection, room: Room, domain: str, *, on_event: Callable[[MeetingEvent], None]
    ) -> None:
        self._connection = connection
        self._room = room
        self._domain = domain
        self._on_event = on_event
        self._services: Mapping[str, str] | None = None
        self._start_muted = StartMuted(audio=False, video=False)
        self.av_moderation = AvModeration()
        self._stop = connection.on_message(self._message)
        for tag in MUTE_TAGS:
            connection.on_iq(tag, self._mute)

    def __repr__(self) -> str:
        return f"<Meeting {self._room.jid} {self.av_moderation!r}>"

    def close(self) -> None:
        """Hear nothing more."""
        self._stop()

    # --- what comes in ---

    def _message(self, stanza: ET.Element) -> None:
        data = read_component(stanza, self._room.jid)
        match data and data.get("type"):
            case "av_moderation" if data and data.get("room") == self._room.jid:
                for event in self.av_moderation.feed(data):
                    self._on_event(event)
            case "breakout_rooms" if data and (moved := read_breakout(data)):
                self._on_event(moved)
            case "room_metadata" if data and isinstance(data.get("metadata"), dict):
                self._policy(read_start_muted(data["metadata"]))
            case _:
                pass

    def _policy(self, policy: StartMuted | None) -> None:
        policy = policy or StartMuted(audio=False, video=False)
        if policy != self._start_muted:
            self._start_muted = policy
            self._on_event(policy)

    def _mute(self, request: IqRequest) -> None:
        if request.sender != f"{self._room.jid}/{FOCUS_NICK}":
            raise StanzaError("not-allowed", "only the focus mutes", kind="auth")
        self._on_event(read_mute(request.payload))

    # --- orders ---

    async def info(self) -> RoomInfo:
        """What the room says of itself."""
        return read_room_info(await self._ask("get", room_info_query(), "the room's description"))

    async def kick(self, endpoint: str, reason: str | None = None) -> None:
        """Take somebody out."""
        await self._ask("set", owner.kick_query(endpoint, reason), f"kicking {endpoint}")

    async def ban(self, endpoint: str) -> None:
        """Take somebody out for good."""
        await self._affiliate(endpoint, "outcast")

    async def grant_moderator(self, endpoint: str) -> None:
        """Make somebody a moderator, too."""
        await self._affiliate(endpoint, "owner")

    async def _affiliate(self, endpoint: str, affiliation: str) -> None:
        jid = self._occupant(endpoint).jid
        if jid is None:
            raise ActionRefusedError(f"The room does not tell the address of {endpoint}")
        await self._ask("set", owner.affiliation_query([jid], affiliation), f"making {endpoint} {affiliation}")

    async def lock(self, password: str | None) -> None:
        """Give the room a password, or take it away."""
        current = await self._config()
        await self._ask("set", owner.config_form(owner.lock_fields(current, password)), "the password")

    async def set_lobby(self, *, enabled: bool) -> None:
        """Open or close the lobby. Who is in the room becomes a member first, else he would be put out."""
        if enabled:
            jids = [item.jid for item in self._room.occupants.others if item.jid and item.affiliation == "none"]
            if jids:
                await self._ask("set", owner.affiliation_query(jids, "member"), "the lobby")
        fields = owner.members_only_fields(await self._config(), enabled=enabled)
        await self._ask("set", owner.config_form(fields), "the lobby")

    async def mute(self, endpoint: str, media: MediaKind) -> None:
        """Mute somebody else."""
        jid = f"{self._room.jid}/{self._occupant(endpoint).endpoint}"
        await self._ask("set", mute_request(jid, media), f"muting {endpoint}", to=f"{self._room.jid}/{FOCUS_NICK}")

    async def set_av_moderation(self, media: MediaKind, *, enabled: bool) -> None:
        """Forbid participants to unmute themselves, or allow it again; the room is told, not we alone."""
        await self._order_av(media, enable="true" if enabled else "false")

    async def approve_unmute(self, endpoint: str, media: MediaKind) -> None:
        """Let somebody unmute, or ask him to."""
        await self._order_av(media, jidToWhitelist=f"{self._room.jid}/{self._occupant(endpoint).endpoint}")

    async def reject_unmute(self, endpoint: str, media: MediaKind) -> None:
        """Take that back."""
        await self._order_av(media, jidToBlacklist=f"{self._room.jid}/{self._occupant(endpoint).endpoint}")

    async def _order_av(self, media: MediaKind, **attributes: str) -> None:
        self._connection.send(av_moderation_message(await self._service("av_moderation"), media, **attributes))

    async def end(self) -> None:
        """End the meeting for all: the room is destroyed."""
        message = ET.Element(f"{{{NS_CLIENT}}}message", {"to": await self._service("end_conference")})
        ET.SubElement(message, f"{{{NS_CLIENT}}}end_conference")
        self._connection.send(message)

    async def add_breakout_room(self, subject: str) -> None:
        """Make a breakout room; the meeting's rooms are then told as BreakoutRoomsChanged."""
        await self._order_breakout("add", subject=subject)

    async def remove_breakout_room(self, room_jid: str) -> None:
        """Take a breakout room away."""
        await self._order_breakout("remove", breakoutRoomJid=room_jid)

    async def send_to_room(self, endpoint: str, room_jid: str) -> None:
        """Send somebody to another room of the meeting."""
        jid = self._occupant(endpoint).jid
        await self._order_breakout("move-to-room", participantJid=jid or "", roomJid=room_jid)

    async def _order_breakout(self, action: str, **attributes: str) -> None:
        self._connection.send(breakout_message(await self._service("breakout_rooms"), action, **attributes))

    # --- small things ---

    async def _service(self, kind: str) -> str:
        if self._services is None:
            self._services = await discover(self._connection, self._domain)
        return address_of(self._services, kind)

    async def _config(self) -> dict[str, str]:
        return owner.read_config(await self._ask("get", owner.config_query(), "the room's configuration"))

    async def _ask(self, kind: str, payload: ET.Element, what: str, *, to: str | None = None) -> ET.Element | None:
        try:
            return await self._connection.iq(kind, to or self._room.jid, payload)
        except BotError as error:
            raise ActionRefusedError(f"Refused was {what}: {error}") from error

    def _occupant(self, endpoint: str) -> Occupant:
        found = self._room.occupants.get(endpoint)
        if found is None:
            raise ActionRefusedError(f"{endpoint} is not in the room")
        return found
