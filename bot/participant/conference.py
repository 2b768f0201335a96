"""The room and the media session of one connection: join, answer the focus, leave."""

from __future__ import annotations

import asyncio
import uuid
import xml.etree.ElementTree as ET
from collections.abc import Mapping
from typing import Any

from bot import events
from bot.bridge.session import MediaSession
from bot.errors import (
    BotError,
    MediaLostError,
    MembersOnlyError,
    MovedError,
    PromotedError,
    RoomDestroyedError,
    RoomError,
    RoomRestrictedError,
)
from bot.jingle.model import Jingle
from bot.jingle.session import FOCUS_NICK
from bot.participant.citizen import Citizen
from bot.participant.codecs import offered_codecs, send_codec
from bot.participant.expectation import SessionExpectation, sctp_advertising
from bot.participant.focus import FocusSession
from bot.participant.opening import after_the_first
from bot.participant.sources import SourceState
from bot.participant.states import State
from bot.participant.stay import Stay
from bot.xmpp import features
from bot.xmpp.connection import IqRequest
from bot.xmpp.focus import ConferenceAnswer, ConferenceRequest, FocusUnavailableError, ask_focus
from bot.xmpp.lobby import Admitted, Lobby
from bot.xmpp.occupants import (
    OccupantChanged,
    OccupantJoined,
    OccupantLeft,
    SelfLeft,
)
from bot.xmpp.presence import RoomPresence, property_element
from bot.xmpp.room import Room, RoomEvent
from bot.xmpp.stanza_errors import StanzaError
from bot.xmpp.visitors import VISITORS, read_promotion

#: Seconds between two conference requests while the focus does not answer, and while it is on its way to the room.
FOCUS_PATIENCE = 10.0
FOCUS_MOMENT = 1.0


class Conference:
    """One stay in one room. ``run`` lasts until the room is over for us and then raises why.

    That is a RoomError (MovedError among them), or MediaLostError where only a new join can bring media back.
    ``room_jid`` is another room of the meeting than the one of the settings.
    """

    def __init__(self, stay: Stay, room_jid: str | None = None) -> None:
        self._stay = stay
        self._connection = stay.connection
        settings = stay.settings
        self._sctp = sctp_advertising(settings.ws_url, settings.domain, settings.bridge_channel)
        self._tried_sctp = self._sctp.advertised
        self._features = features.features(sctp=self._tried_sctp, red=settings.opus_red)
        self._expectation = SessionExpectation()
        self._machine_uid = uuid.uuid4().hex
        self._focus_answered = False
        self._focus_patience = FOCUS_PATIENCE
        self._over: asyncio.Future[BotError] = asyncio.get_running_loop().create_future()
        address = room_jid or stay.entrance.room_jid(stay.config)
        self._asks_focus = stay.entrance.asks_focus
        #: Only who comes as others do, and into the main room, may be made a visitor.
        self._may_visit = room_jid is None and settings.visitors == "follow"
        self.room = Room(stay.connection, address, on_event=self._room_event)
        self.own = stay.own
        self._published = False
        self.session = FocusSession(
            stay,
            self.room.jid,
            codec=self._send_codec,
            on_published=self._publish,
            on_idle=self._stand,
            on_lost=self._end,
            on_offer=self._offered,
        )
        #: Whether the room has admitted us.
        self.joined = False
        self.own.enter(
            stay.connection.endpoint_id,
            on_presence=self._own_changed,
            on_video_types=self.session.bridge.published,
            receive_only=stay.visitor,
        )
        #: What we do and hear among the others.
        self.citizen = Citizen(stay, self.room, on_move=self.move)
        if stay.visitor:
            stay.connection.on_iq(VISITORS, self._answered)
        stay.connection.on_iq(features.DISCO_INFO, lambda ask: features.disco_answer(ask.payload, self._features))

    def __repr__(self) -> str:
        return f"<Conference {self.room!r}>"

    @property
    def media(self) -> MediaSession | None:
        """The media session while there is one."""
        return self.session.media

    @property
    def remote_sources(self) -> Mapping[str, SourceState]:
        """Every remote source by its name: whose it is, whether it is muted, and what was received of it."""
        presence = {item.endpoint: item.sources for item in self.room.occupants.others}
        return self.session.remote_sources(presence)

    async def join(self) -> None:
        """Ask for the focus, enter the room, make the tracks. A focus that is away is waited for."""
        while not await self._enter():
            self._stay.on_state(State.WAITING_FOR_FOCUS)
            await self._stay.sleep(self._focus_patience)
        self.joined = True
        self._stay.on_phase("muc")
        focus = self.room.occupants.focus
        self._stay.emit(
            events.ConferenceJoined,
            endpoint=self._connection.endpoint_id,
            occupants=len(self.room.occupants.others) + 1,
            versions=dict(focus.versions) if focus else {},
            seconds=self._stay.timer.total,
            phases=self._stay.timer.picked("focus", "muc"),
        )
        self._stay.emit(events.TracksCreated, count=len(self.own.start()))
        self._stay.timer.restart()
        self._stand()

    async def _enter(self) -> bool:
        """Ask for the focus and enter; False where only the focus may create the room, and is not there yet."""
        if self._asks_focus:
            answer = await self._ask_first()
            self._stay.on_phase("focus")
            if answer is not None and not answer.ready and (answer.vnode is not None or not answer.live):
                self._wait_until_live(answer)
                return False
        try:
            await self._join_room()
        except RoomRestrictedError:
            if self._focus_answered or not self._asks_focus:
                raise
            return False
        return True

    def _wait_until_live(self, answer: ConferenceAnswer) -> None:
        """Stay outside: visitors are let in later, or the node is not ready yet."""
        if not answer.live:
            self._focus_patience = FOCUS_PATIENCE
            self._stay.emit(events.MeetingNotLive, delay=FOCUS_PATIENCE)

    async def _join_room(self) -> None:
        """Enter, by way of the lobby where the room has one. Raises RoomError."""
        settings = self._stay.settings
        password = settings.room_password.get_secret_value() if settings.room_password else None
        try:
            await self.room.join(self._presence(), password=password, timeout=settings.join_timeout)
        except MembersOnlyError as error:
            if error.lobby is None:
                raise
            admitted = await self._wait_in_lobby(error.lobby)
            self._stay.on_state(State.JOINING)
            # The focus leaves a room that nobody enters: it is asked again after what may have been long.
            if self._asks_focus:
                await self._ask_focus()
            await self.room.join(
                self._presence(), password=admitted.password or password, timeout=settings.join_timeout
            )

    async def _wait_in_lobby(self, lobby_jid: str) -> Admitted:
        settings, began = self._stay.settings, self._stay.clock()

        def waiting() -> None:
            self._stay.on_state(State.WAITING_IN_LOBBY)
            self._stay.emit(events.LobbyWaiting, timeout=settings.lobby_timeout)

        lobby = Lobby(self._connection, lobby_jid, self.room.jid)
        try:
            admitted = await lobby.knock(
                self._presence(),
                on_waiting=waiting,
                join_timeout=settings.join_timeout,
                timeout=settings.lobby_timeout,
            )
        finally:
            await lobby.leave(settings.leave_timeout)
        self._stay.emit(events.LobbyAdmitted, seconds=self._stay.clock() - began)
        return admitted

    async def run(self) -> None:
        """Stand in the room; asks for the focus again while it is away. Raises the error that ends it."""
        works = (self.session.run(), self._watch_focus(), self._watch_session())
        tasks = [asyncio.ensure_future(work) for work in works]
        waiting: list[asyncio.Future[Any]] = [self._over, *tasks]
        try:
            await asyncio.wait(waiting, return_when=asyncio.FIRST_COMPLETED)
            for task in tasks:
                if task.done():
                    task.result()  # neither ends by itself: a defect shall be seen
        finally:
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)
        raise self._over.result()

    async def _watch_focus(self) -> None:
        while True:
            if self._asks_focus and self.room.occupants.focus is None and not self._focus_answered:
                await self._ask_focus()
            await asyncio.sleep(self._focus_patience)

    async def _watch_session(self) -> None:
        """Join anew when no session comes for too long though it could."""
        while True:
            await asyncio.sleep(1.0)
            occupants = self.room.occupants
            expected = self.session.idle and occupants.focus is not None and bool(occupants.others)
            patience = self._sctp.patience(tried=self._tried_sctp)
            in_vain = self._expectation.feed(self._stay.clock(), expected=expected, patience=patience)
            if in_vain and self._sctp.given_up(self._who, tried=self._tried_sctp):
                others = "others get one by another bridge channel"
                self._join_anew(f"none came within {patience:g} s" if patience else others)

    def _offered(self, offer: Jingle) -> None:
        """Learn from an offer what the deployment takes."""
        web_socket = any(item.transport is not None and item.transport.web_socket_url for item in offer.contents)
        if not self._sctp.offered(self._who, tried=self._tried_sctp, web_socket=web_socket):
            self._join_anew("the bridge has no channel but SCTP")

    @property
    def _who(self) -> str:
        return f"{self._stay.config.name} in {self._stay.config.room}"

    def _join_anew(self, cause: str) -> None:
        self._stay.emit(events.SessionMissing, cause=cause, sctp=self._sctp.advertised)
        self._end(MediaLostError(f"No media session: {cause}"))

    def resumed(self) -> None:
        """The stream is back: the state is what the media session and the room say."""
        if self.session.active:
            self._stay.on_state(State.ACTIVE)
        else:
            self._stand()

    async def leave(self, timeout: float, *, status: str | None = None) -> bool:
        """Leave the room; True when our own unavailable presence was seen."""
        return await self.room.leave(timeout, status=status)

    def move(self, room_jid: str) -> None:
        """End this stay for one in another room of the meeting: ``run`` raises MovedError."""
        if room_jid != self.room.jid:
            self._end(MovedError(f"Moved to {room_jid}", room_jid=room_jid))

    async def close(self) -> None:
        """End the media session; may be called twice."""
        await self.citizen.close()
        self.room.close()
        self.own.leave()
        await self.session.close()
        self._over.cancel()

    # --- joining ---

    async def _ask_first(self) -> ConferenceAnswer | None:
        """Ask before the join; where we may be made a visitor, not while another one of ours opens the room."""
        if not self._may_visit:
            return await self._ask_focus()
        room = self._stay.settings.ws_url, self.room.jid
        return await after_the_first(room, lambda: self._ask_focus(visitors=True))

    async def _ask_focus(self, *, visitors: bool = False) -> ConferenceAnswer | None:
        """Ask it; None where it does not answer. With ``visitors`` it may raise VisitorRedirectError."""
        request = ConferenceRequest(
            self.room.jid, self._machine_uid, token=self._connection.token, visitors=visitors
        )
        try:
            answer = await ask_focus(self._connection, self._stay.config.focus, request)
        except FocusUnavailableError as error:
            self._focus_patience = FOCUS_PATIENCE
            self._stay.emit(events.FocusUnavailable, cause=str(error))
            return None
        # Not ready yet: it is about to enter the room, for whoever asked a moment before us.
        self._focus_answered = answer.ready
        self._focus_patience = FOCUS_MOMENT
        return answer

    def _answered(self, request: IqRequest) -> None:
        """Hear whether our raised hand opens the main room; only the room's word counts."""
        answer = read_promotion(request.payload) if request.sender == self.room.jid else None
        if answer is None:
            raise StanzaError("not-allowed", "no answer of the room to a raised hand", kind="auth")
        if answer.allowed:
            self._end(PromotedError("The main room is open to us", username=answer.username))
        else:
            self._stay.emit(events.PromotionRefused)

    def _presence(self) -> RoomPresence:
        """Our presence; SourceInfo names our sources from the first session on, as web clients do it."""
        return RoomPresence(
            nick=self._stay.profile.name or self._stay.config.name,
            stats_id=self._stay.config.name,
            caps=features.caps_element(self._features),
            codecs=self._stay.settings.codecs,
            email=self._stay.settings.email,
            avatar_url=self._stay.settings.avatar_url,
            raised_hand=self._stay.profile.raised_hand,
            region=self._stay.settings.region,
            extra=self._properties(),
            sources=self.own.source_info if self._published else {},
        )

    def _properties(self) -> tuple[ET.Element, ...]:
        return tuple(property_element(*item) for item in self._stay.profile.properties.items())

    def say_properties(self) -> None:
        """Tell the participant properties that we have by now."""
        self.room.update(extra=self._properties())

    def _publish(self) -> None:
        self._published = True
        self._own_changed()

    def _own_changed(self) -> None:
        """Say what our sources are by now, once they have been said at all."""
        if self._published:
            self.room.update(sources=self.own.source_info)

    def _send_codec(self, offer: Jingle) -> str:
        settings = self._stay.settings
        others = [occupant.codecs for occupant in self.room.occupants.others]
        return send_codec(settings.video_codec, settings.codecs, others, offered_codecs(offer))

    # --- the room ---

    def _stand(self) -> None:
        waiting = State.WAITING_FOR_PEERS if self.room.occupants.focus else State.WAITING_FOR_FOCUS
        self._stay.on_state(waiting)

    def _room_event(self, event: RoomEvent) -> None:
        match event:
            case OccupantJoined(occupant) if occupant.endpoint == FOCUS_NICK:
                self._focus_moved()
            case OccupantLeft(occupant) if occupant.endpoint == FOCUS_NICK:
                self._focus_answered = False
                self._focus_moved()
            case OccupantJoined(occupant):
                self._count_from_now()
                self.session.occupants(self.room.occupants.count)
                self._stay.emit(events.ParticipantJoined, endpoint=occupant.endpoint, nick=occupant.nick)
                self.session.room_changed()
            case OccupantChanged(occupant, previous):
                if occupant.codecs != previous.codecs:
                    self.session.room_changed()
                self.citizen.room_event(event)
            case OccupantLeft(occupant):
                self.session.left(occupant.endpoint)
                self.session.occupants(self.room.occupants.count)
                self._stay.emit(events.ParticipantLeft, endpoint=occupant.endpoint)
                self.session.room_changed()
            case SelfLeft(RoomDestroyedError(alternative=str(room_jid))) if room_jid == self._stay.config.room_jid:
                self.move(room_jid)  # a breakout room was closed
            case SelfLeft(error):
                self._end(error or RoomError("The room ended our stay without a reason"))
            case _:
                self.citizen.room_event(event)

    def _end(self, error: BotError) -> None:
        if not self._over.done():
            self._over.set_result(error)

    def _count_from_now(self) -> None:
        """Let the phases of a media session begin: whoever was alone has had none to wait for."""
        if self.joined and self.media is None and self.room.occupants.count == 1:
            self._stay.timer.restart()

    def _focus_moved(self) -> None:
        """The focus came or went while we stand in the room; media goes on without it."""
        if self.room.occupants.me is not None and self.media is None:
            self._stand()
