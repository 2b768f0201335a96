"""What a participant hears of the people in its room and does among them: chat, hands, rights, mutes, lobby."""

from __future__ import annotations

import time
from collections.abc import Callable

from bot import events
from bot.errors import BotError, OwnSourceError
from bot.media.feed import Kind
from bot.participant.stay import Stay
from bot.xmpp.breakout import BreakoutRoom, BreakoutRoomsChanged, MoveRequested
from bot.xmpp.lobby import Knocked, KnockEnded, LobbyDesk
from bot.xmpp.meeting import Meeting, MeetingEvent
from bot.xmpp.messages import ChatReceived, MessageRefused, SubjectChanged
from bot.xmpp.moderation import (
    AvModerationChanged,
    MediaKind,
    MutedByModerator,
    StartMuted,
    UnmuteApproved,
    UnmuteRejected,
)
from bot.xmpp.occupants import Occupant, OccupantChanged, SelfChanged
from bot.xmpp.room import Room, RoomEvent


class Citizen:
    """One participant among the others. ``on_move(room_jid)`` hears when a moderator sends us to another room."""

    def __init__(self, stay: Stay, room: Room, *, on_move: Callable[[str], None]) -> None:
        self._stay = stay
        self._room = room
        self._on_move = on_move
        self._subject = ""
        self._desk: LobbyDesk | None = None
        #: A moderator's orders.
        self.meeting = Meeting(stay.connection, room, stay.domain, on_event=self._meeting_event)
        #: The rooms of the meeting, once there are breakout rooms.
        self.rooms: tuple[BreakoutRoom, ...] = ()
        stay.own.may_unmute = self._may_unmute

    def __repr__(self) -> str:
        return f"<Citizen of {self._room.jid}>"

    @property
    def moderator(self) -> bool:
        """Whether we may moderate."""
        me = self._room.occupants.me
        return me is not None and me.moderator

    # --- what we do ---

    def send_chat(self, text: str, to: str = "") -> None:
        """Write to all, or to the endpoint ``to`` alone. Raises ValueError for a text that can't be sent."""
        self._room.send_chat(text, to=to or None)

    def raise_hand(self, *, raised: bool = True) -> None:
        """Raise our hand, or lower it. Under AV moderation this asks for the right to unmute."""
        self._stay.profile.raised_hand = int(time.time() * 1000) if raised else 0
        self._room.update(raised_hand=self._stay.profile.raised_hand)

    def set_name(self, name: str) -> None:
        """Have another display name, in later stays, too."""
        self._stay.profile.name = name
        self._room.update(nick=name)

    async def keep_lobby(self) -> LobbyDesk:
        """Enter the lobby as a moderator: events then tell who knocks. Raises RoomError or ActionRefusedError."""
        if self._desk is None:
            info = await self.meeting.info()
            if info.lobby_jid is None or self._room.presence is None:
                raise BotError("The room has no lobby now")
            desk = LobbyDesk(self._stay.connection, info.lobby_jid, self._room, on_event=self._lobby_event)
            await desk.open(self._room.presence, self._stay.settings.join_timeout)
            self._desk = desk
        return self._desk

    async def close(self) -> None:
        """Hear nothing more; may be called twice."""
        self.meeting.close()
        desk, self._desk = self._desk, None
        if desk is not None:
            await desk.close(timeout=0.0)

    # --- what we hear ---

    def room_event(self, event: RoomEvent) -> None:
        """Take an event of the room."""
        emit = self._stay.emit
        match event:
            case ChatReceived():
                emit(
                    events.ChatMessageReceived,
                    endpoint=event.endpoint,
                    nick=event.nick or self._name(event.endpoint),
                    body=event.text,
                    private=event.private,
                    stamp=event.stamp,
                )
            case MessageRefused(condition, text):
                emit(events.ChatMessageRefused, cause=f"{condition}: {text}" if text else condition)
            case SubjectChanged(subject) if subject != self._subject:
                self._subject = subject
                emit(events.SubjectChanged, subject=subject)
            case OccupantChanged(now, before):
                self._changed(now, before)
            case SelfChanged(now, before) if now.role != before.role:
                emit(events.RoleChanged, endpoint=now.endpoint, role=now.role, own=True)
            case _:
                pass

    def _changed(self, now: Occupant, before: Occupant) -> None:
        emit = self._stay.emit
        if (now.nick, now.email, now.avatar_url) != (before.nick, before.email, before.avatar_url):
            emit(
                events.ParticipantChanged,
                endpoint=now.endpoint,
                nick=now.nick,
                email=now.email,
                avatar_url=now.avatar_url,
            )
        if (now.raised_hand is None) != (before.raised_hand is None):
            emit(events.HandChanged, endpoint=now.endpoint, nick=now.nick, raised=now.raised_hand is not None)
        if now.role != before.role:
            emit(events.RoleChanged, endpoint=now.endpoint, role=now.role, own=False)

    def _lobby_event(self, event: Knocked | KnockEnded) -> None:
        who = {"endpoint": event.occupant.endpoint, "nick": event.occupant.nick}
        self._stay.emit(events.LobbyKnocked if isinstance(event, Knocked) else events.LobbyKnockEnded, **who)

    def _meeting_event(self, event: MeetingEvent) -> None:
        emit = self._stay.emit
        match event:
            case MutedByModerator(media, actor):
                self._mute(media)
                emit(events.MutedByModerator, media=media, endpoint=actor, nick=self._name(actor or ""))
            case AvModerationChanged(media, enabled, actor):
                emit(events.AvModerationChanged, media=media, enabled=enabled, endpoint=actor)
            case UnmuteApproved(media):
                emit(events.UnmuteApproved, media=media)
            case UnmuteRejected(media):
                emit(events.UnmuteRejected, media=media)
            case StartMuted(audio, video):
                self._start_muted(audio=audio, video=video)
            case BreakoutRoomsChanged(rooms):
                self.rooms = rooms
                emit(events.BreakoutRoomsChanged, rooms={room.jid: room.name for room in rooms})
            case MoveRequested(room_jid):
                self._on_move(room_jid)

    def _start_muted(self, *, audio: bool, video: bool) -> None:
        """The policy is for those who come: it is told before our own presence, and says nothing afterwards."""
        if self._room.occupants.me is None:
            wanted: list[tuple[bool, MediaKind]] = [(audio, "audio"), (video, "video")]
            for media in (media for muted, media in wanted if muted):
                self._mute(media)
        self._stay.emit(events.StartMutedChanged, audio=audio, video=video)

    def _mute(self, media: MediaKind) -> None:
        for source in self._stay.own.sources:
            kind = "desktop" if source.video_type == "desktop" else source.kind
            if kind == media:
                self._stay.own.mute(source.label)

    def _may_unmute(self, kind: Kind, video_type: str | None) -> None:
        media: MediaKind = "desktop" if video_type == "desktop" else kind
        if not self.meeting.av_moderation.may_unmute(media, moderator=self.moderator):
            raise OwnSourceError(
                f"A moderator has to approve our {media} first (AV moderation); a raised hand asks"
            )

    def _name(self, endpoint: str) -> str:
        found = self._room.occupants.get(endpoint)
        return found.nick if found is not None else ""
