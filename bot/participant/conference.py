"""The room and the media session of one connection: join, answer the focus, leave."""

from __future__ import annotations

import asyncio
import uuid
import xml.etree.ElementTree as ET
from collections.abc import Callable
from typing import Protocol

from bot import events
from bot.errors import RoomError
from bot.jingle.codec import build_jingle
from bot.jingle.model import Action, Jingle, JingleError, Reason
from bot.jingle.parse import parse_jingle
from bot.media.synthetic import SyntheticAudioTrack, SyntheticVideoTrack
from bot.participant.config import ParticipantConfig
from bot.participant.states import State
from bot.participant.timing import PhaseTimer
from bot.xmpp import features
from bot.xmpp.connection import IqRequest, XmppConnection
from bot.xmpp.focus import FocusUnavailableError, request_conference
from bot.xmpp.occupants import (
    FOCUS_NICK,
    OccupantJoined,
    OccupantLeft,
    RoomEvent,
    SelfLeft,
)
from bot.xmpp.room import Room, RoomPresence
from bot.xmpp.stanza_errors import StanzaError

JINGLE = "{urn:xmpp:jingle:1}jingle"
#: Seconds between two conference requests while the focus does not answer.
FOCUS_PATIENCE = 10.0


class Emit(Protocol):
    """Reports one event of this participant; the participant adds who it is."""

    def __call__(self, kind: type[events.Event], **fields: object) -> None:
        """Report."""
        ...


class Conference:
    """One stay in one room. ``run`` lasts until the room is over for us and then raises why."""

    def __init__(
        self,
        config: ParticipantConfig,
        connection: XmppConnection,
        *,
        emit: Emit,
        on_phase: Callable[[str], None],
        on_state: Callable[[State], None],
        timer: PhaseTimer,
    ) -> None:
        self._config = config
        self._connection = connection
        self._emit = emit
        self._on_phase = on_phase
        self._on_state = on_state
        self._timer = timer
        self._features = features.features(sctp=False)
        self._machine_uid = uuid.uuid4().hex
        self._focus_answered = False
        self._over: asyncio.Future[RoomError] = asyncio.get_running_loop().create_future()
        self.room = Room(connection, config.room_jid, on_event=self._room_event)
        self.tracks: list[SyntheticAudioTrack | SyntheticVideoTrack] = []
        connection.on_iq(JINGLE, self._jingle)
        connection.on_iq(features.DISCO_INFO, lambda ask: features.disco_answer(ask.payload, self._features))

    def __repr__(self) -> str:
        return f"<Conference {self.room!r}>"

    async def join(self) -> None:
        """Ask for the focus, enter the room, make the tracks. The focus being away hinders nothing."""
        await self._ask_focus()
        self._on_phase("focus")
        settings = self._config.settings
        password = settings.room_password.get_secret_value() if settings.room_password else None
        await self.room.join(self._presence(), password=password, timeout=settings.join_timeout)
        self._on_phase("muc")
        focus = self.room.occupants.focus
        self._emit(
            events.ConferenceJoined,
            endpoint=self._connection.endpoint_id,
            occupants=len(self.room.occupants.others) + 1,
            versions=dict(focus.versions) if focus else {},
            seconds=self._timer.total,
            phases=self._timer.picked("focus", "muc"),
        )
        self._make_tracks()
        self._stand()

    async def run(self) -> None:
        """Stand in the room; asks for the focus again while it is away. Raises the RoomError that ends it."""
        while not self._over.done():
            if self.room.occupants.focus is None and not self._focus_answered:
                await self._ask_focus()
            await asyncio.wait({self._over}, timeout=FOCUS_PATIENCE)
        raise self._over.result()

    def resumed(self) -> None:
        """The stream is back: the state is what the room says."""
        self._stand()

    async def leave(self, timeout: float) -> bool:
        """Leave the room; True when our own unavailable presence was seen."""
        return await self.room.leave(timeout)

    async def close(self) -> None:
        """Stop the tracks; may be called twice."""
        self.room.close()
        self._over.cancel()
        for track in self.tracks:
            track.stop()
        self.tracks.clear()

    # --- joining ---

    async def _ask_focus(self) -> None:
        settings = self._config.settings
        try:
            await request_conference(
                self._connection,
                settings.focus,
                self.room.jid,
                machine_uid=self._machine_uid,
                timeout=settings.connect_timeout,
            )
        except FocusUnavailableError as error:
            self._emit(events.FocusUnavailable, cause=str(error))
        else:
            self._focus_answered = True

    def _presence(self) -> RoomPresence:
        """Nothing is published before a session asks for it: both sources begin muted (as web clients say it)."""
        return RoomPresence(
            nick=self._config.name,
            stats_id=self._config.name,
            caps=features.caps_element(self._features),
            codecs=self._config.settings.codecs,
        )

    def _make_tracks(self) -> None:
        config, settings = self._config, self._config.settings
        if config.audio == "speech":
            self.tracks.append(SyntheticAudioTrack(config.name, mode="speech"))
        elif config.audio == "tone":
            self.tracks.append(SyntheticAudioTrack(config.name, mode="tone"))
        if config.video != "none":
            self.tracks.append(
                SyntheticVideoTrack(
                    config.room, config.name, width=settings.width, height=settings.height, fps=settings.fps
                )
            )
        self._emit(events.TracksCreated, count=len(self.tracks))

    # --- the room ---

    def _stand(self) -> None:
        waiting = State.WAITING_FOR_PEERS if self.room.occupants.focus else State.WAITING_FOR_FOCUS
        self._on_state(waiting)

    def _room_event(self, event: RoomEvent) -> None:
        match event:
            case OccupantJoined(occupant) if occupant.endpoint == FOCUS_NICK:
                self._focus_moved()
            case OccupantLeft(occupant) if occupant.endpoint == FOCUS_NICK:
                self._focus_answered = False
                self._focus_moved()
            case OccupantJoined(occupant):
                self._emit(events.ParticipantJoined, endpoint=occupant.endpoint, nick=occupant.nick)
            case OccupantLeft(occupant):
                self._emit(events.ParticipantLeft, endpoint=occupant.endpoint)
            case SelfLeft(error) if not self._over.done():
                self._over.set_result(error or RoomError("The room ended our stay without a reason"))
            case _:
                pass

    def _focus_moved(self) -> None:
        """The focus came or went while we stand in the room."""
        if self.room.occupants.me is not None:
            self._stand()

    # --- the focus ---

    def _jingle(self, request: IqRequest) -> ET.Element | None:
        try:
            jingle = parse_jingle(request.payload)
        except JingleError as error:
            raise StanzaError(error.condition, str(error), kind="modify") from error
        if jingle.action == Action.SESSION_INITIATE:
            asyncio.get_running_loop().call_soon(self._refuse, request.sender, jingle)
        return None

    def _refuse(self, sender: str, offer: Jingle) -> None:
        """Media sessions are not supported yet: the offer is refused cleanly (XEP-0166 section 7.4)."""
        cause = "this version does not take media sessions"
        self._emit(events.MediaFailed, code="media_unsupported", cause=cause)
        end = Jingle(
            action=Action.SESSION_TERMINATE, sid=offer.sid, reason=Reason("unsupported-applications", cause)
        )
        self._connection.ask(sender, build_jingle(end))
