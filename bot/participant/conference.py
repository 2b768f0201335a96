"""The room and the media session of one connection: join, answer the focus, leave."""

from __future__ import annotations

import asyncio
import time
import uuid
import xml.etree.ElementTree as ET
from collections.abc import Callable
from typing import Protocol

from bot import events
from bot.bridge.channel import BridgeChannel, Message, mapped_sources, receiver_constraints
from bot.bridge.session import MediaSession
from bot.errors import BotError, ConnectionFailedError, MediaLostError, RoomError, RoomRestrictedError
from bot.jingle.codec import JingleError, build_jingle, parse_jingle
from bot.jingle.model import Action, Jingle, Media
from bot.jingle.session import (
    FOCUS_NICK,
    JingleSession,
    OfferReceived,
    Output,
    ReplyError,
    ReplyResult,
    SessionState,
    SessionTerminated,
    SourcesAdded,
    SourcesRemoved,
    TransportReplaced,
    refuse_p2p,
)
from bot.media.synthetic import SyntheticAudioTrack, SyntheticVideoTrack
from bot.participant.channel import ChannelKeeper
from bot.participant.config import ParticipantConfig
from bot.participant.restarts import MAX_IN_A_ROW, RestartBudget
from bot.participant.retry import Sleep
from bot.participant.sources import Change, RemoteSources
from bot.participant.states import State
from bot.participant.timing import PhaseTimer
from bot.xmpp import features
from bot.xmpp.connection import IqRequest, XmppConnection, ssl_context
from bot.xmpp.focus import FocusUnavailableError, request_conference
from bot.xmpp.occupants import (
    OccupantJoined,
    OccupantLeft,
    RoomEvent,
    SelfLeft,
)
from bot.xmpp.room import Room, RoomPresence
from bot.xmpp.stanza_errors import StanzaError

JINGLE = "{urn:xmpp:jingle:1}jingle"
#: Seconds between two conference requests while the focus does not answer, and while it is on its way to the room.
FOCUS_PATIENCE = 10.0
FOCUS_MOMENT = 1.0


class Emit(Protocol):
    """Reports one event of this participant; the participant adds who it is."""

    def __call__(self, kind: type[events.Event], **fields: object) -> None:
        """Report."""
        ...


class Conference:
    """One stay in one room. ``run`` lasts until the room is over for us and then raises why.

    That is a RoomError, or MediaLostError where only a new join can bring media back.
    """

    def __init__(
        self,
        config: ParticipantConfig,
        connection: XmppConnection,
        *,
        emit: Emit,
        on_phase: Callable[[str], None],
        on_state: Callable[[State], None],
        timer: PhaseTimer,
        sleep: Sleep = asyncio.sleep,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._config = config
        self._connection = connection
        self._emit = emit
        self._on_phase = on_phase
        self._on_state = on_state
        self._timer = timer
        self._sleep = sleep
        self._clock = clock
        self._features = features.features(sctp=config.settings.bridge_channel in ("auto", "sctp"))
        self._machine_uid = uuid.uuid4().hex
        self._focus_answered = False
        self._focus_patience = FOCUS_PATIENCE
        self._restarts = RestartBudget()
        self._over: asyncio.Future[BotError] = asyncio.get_running_loop().create_future()
        self.room = Room(connection, config.room_jid, on_event=self._room_event)
        self._session = JingleSession(responder=connection.jid)
        self._outputs: asyncio.Queue[Output] = asyncio.Queue(1000)
        self._sources = RemoteSources()
        self._media_task: asyncio.Future[None] | None = None
        #: Whether the room has admitted us.
        self.joined = False
        #: The media session while there is one.
        self.media: MediaSession | None = None
        self.tracks: list[SyntheticAudioTrack | SyntheticVideoTrack] = []
        connection.on_iq(JINGLE, self._jingle)
        connection.on_iq(features.DISCO_INFO, lambda ask: features.disco_answer(ask.payload, self._features))

    def __repr__(self) -> str:
        return f"<Conference {self.room!r}>"

    async def join(self) -> None:
        """Ask for the focus, enter the room, make the tracks. A focus that is away is waited for."""
        while not await self._enter():
            self._on_state(State.WAITING_FOR_FOCUS)
            await self._wait_outside()
        self.joined = True
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
        self.tracks = self._new_tracks()
        self._emit(events.TracksCreated, count=len(self.tracks))
        self._timer.restart()
        self._stand()

    async def _enter(self) -> bool:
        """Ask for the focus and enter; False where only the focus may create the room, and is not there yet."""
        await self._ask_focus()
        self._on_phase("focus")
        settings = self._config.settings
        password = settings.room_password.get_secret_value() if settings.room_password else None
        try:
            await self.room.join(self._presence(), password=password, timeout=settings.join_timeout)
        except RoomRestrictedError:
            if self._focus_answered:
                raise
            return False
        return True

    async def _wait_outside(self) -> None:
        """Wait before the focus is asked again. Raises ConnectionFailedError when the connection is lost."""
        lost = asyncio.ensure_future(self._connection.wait_lost())
        rest = asyncio.ensure_future(self._sleep(self._focus_patience))
        try:
            await asyncio.wait({lost, rest}, return_when=asyncio.FIRST_COMPLETED)
            if lost.done():
                raise ConnectionFailedError(f"The connection was lost: {lost.result().reason}")
        finally:
            lost.cancel()
            rest.cancel()
            await asyncio.gather(lost, rest, return_exceptions=True)

    async def run(self) -> None:
        """Stand in the room; asks for the focus again while it is away. Raises the error that ends it."""
        worker = asyncio.ensure_future(self._work())
        try:
            await self._stay()
        finally:
            worker.cancel()
            await asyncio.gather(worker, return_exceptions=True)
        raise self._over.result()

    async def _stay(self) -> None:
        while not self._over.done():
            if self.room.occupants.focus is None and not self._focus_answered:
                await self._ask_focus()
            await asyncio.wait({self._over}, timeout=self._focus_patience)

    def resumed(self) -> None:
        """The stream is back: the state is what the media session and the room say."""
        if self.media is not None and self._session.state is SessionState.ACTIVE:
            self._on_state(State.ACTIVE)
        else:
            self._stand()

    async def leave(self, timeout: float) -> bool:
        """Leave the room; True when our own unavailable presence was seen."""
        return await self.room.leave(timeout)

    async def close(self) -> None:
        """End the media session and stop the tracks; may be called twice."""
        self.room.close()
        self._session.end()
        await self._end_media()
        self._over.cancel()
        self._stop_tracks()

    # --- joining ---

    async def _ask_focus(self) -> None:
        settings = self._config.settings
        try:
            answer = await request_conference(
                self._connection,
                settings.focus,
                self.room.jid,
                machine_uid=self._machine_uid,
                timeout=settings.connect_timeout,
            )
        except FocusUnavailableError as error:
            self._focus_patience = FOCUS_PATIENCE
            self._emit(events.FocusUnavailable, cause=str(error))
        else:
            # Not ready yet: it is about to enter the room, for whoever asked a moment before us.
            self._focus_answered = answer.ready
            self._focus_patience = FOCUS_MOMENT

    def _presence(self, *, published: bool = False) -> RoomPresence:
        """Our presence; SourceInfo names our sources from the first session on, as web clients do it."""
        endpoint = self._connection.endpoint_id
        names = [f"{endpoint}-{track.kind[0]}0" for track in self.tracks] if published else []
        return RoomPresence(
            nick=self._config.name,
            stats_id=self._config.name,
            caps=features.caps_element(self._features),
            codecs=self._config.settings.codecs,
            sources={name: {"muted": False} for name in names},
        )

    def _new_tracks(self) -> list[SyntheticAudioTrack | SyntheticVideoTrack]:
        tracks: list[SyntheticAudioTrack | SyntheticVideoTrack] = []
        config, settings = self._config, self._config.settings
        if config.audio == "speech":
            tracks.append(SyntheticAudioTrack(config.name, mode="speech"))
        elif config.audio == "tone":
            tracks.append(SyntheticAudioTrack(config.name, mode="tone"))
        if config.video != "none":
            tracks.append(
                SyntheticVideoTrack(
                    config.room, config.name, width=settings.width, height=settings.height, fps=settings.fps
                )
            )
        return tracks

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
                self._count_from_now()
                self._emit(events.ParticipantJoined, endpoint=occupant.endpoint, nick=occupant.nick)
            case OccupantLeft(occupant):
                self._report(self._sources.left(occupant.endpoint))
                self._emit(events.ParticipantLeft, endpoint=occupant.endpoint)
            case SelfLeft(error) if not self._over.done():
                self._over.set_result(error or RoomError("The room ended our stay without a reason"))
            case _:
                pass

    def _count_from_now(self) -> None:
        """Let the phases of a media session begin: whoever was alone has had none to wait for."""
        if self.joined and self.media is None and len(self.room.occupants.others) == 1:
            self._timer.restart()

    def _focus_moved(self) -> None:
        """The focus came or went while we stand in the room; media goes on without it."""
        if self.room.occupants.me is not None and self.media is None:
            self._stand()

    # --- the focus ---

    def _jingle(self, request: IqRequest) -> None:
        """Feed the session machine; what follows is done by ``run``, one output after the other."""
        try:
            jingle = parse_jingle(request.payload)
        except JingleError as error:
            raise StanzaError(error.condition, str(error), kind="modify") from error
        # Only the room can vouch for the focus: a JID outside may call itself so, too.
        if request.sender != f"{self.room.jid}/{FOCUS_NICK}":
            self._refuse_p2p(request.sender, jingle)
            return
        for output in self._session.feed(jingle, self._timer.total):
            if isinstance(output, ReplyError):
                raise StanzaError(output.condition, output.text, kind=output.type)
            if not isinstance(output, ReplyResult):
                self._enqueue(output)

    def _enqueue(self, output: Output) -> None:
        try:
            self._outputs.put_nowait(output)
        except asyncio.QueueFull:
            raise StanzaError("resource-constraint", "too many changes at once", kind="wait") from None

    def _refuse_p2p(self, sender: str, jingle: Jingle) -> None:
        """A direct session is refused (XEP-0166 section 6.3.2): this participant speaks with the bridge only."""
        if jingle.action != Action.SESSION_INITIATE:
            raise StanzaError("item-not-found", f"no session {jingle.sid}")
        self._connection.ask(sender, build_jingle(refuse_p2p(jingle, responder=self._connection.jid)))

    async def _work(self) -> None:
        while True:
            await self._handle(await self._outputs.get())

    async def _handle(self, output: Output) -> None:
        match output:
            case OfferReceived(offer):
                await self._end_media()
                self._report(self._sources.clear())
                self._media_task = asyncio.ensure_future(self._media(offer))
                await asyncio.sleep(0)  # it takes the offer's sources before what changes them
            case SessionTerminated():
                await self._end_media()
                self._report(self._sources.clear())
                condition = output.reason.condition if output.reason else "no reason given"
                self._emit(events.MediaEnded, cause=condition)
                self._timer.restart()
                self._stand()
            case TransportReplaced():
                # Not taken in place: another session comes from where the bridge is now.
                await self._end_media()
                cause = "the focus moved the session to another bridge"
                self._media_task = asyncio.ensure_future(self._media_failed("transport_replaced", cause))
            case SourcesAdded(sources):
                self._report(self._sources.added(sources))
                if self.media is not None:
                    self.media.name_sources(sources)
            case SourcesRemoved(sources):
                self._report(self._sources.removed(sources))
            case _:
                pass

    def _report(self, changes: list[Change]) -> None:
        for kind, item in changes:
            if kind is events.RemoteSourceRemoved and self.media is not None:
                self.media.forget_source(item.ssrc)
            self._emit(kind, **item._asdict())

    # --- the media session ---

    async def _media(self, offer: Jingle) -> None:
        """Accept ``offer`` and hold the session until its transport is gone."""
        settings = self._config.settings
        self._on_phase("offer")
        self._on_state(State.NEGOTIATING)
        self._report(self._sources.added(offer.sources))
        self.tracks = self.tracks or self._new_tracks()
        try:
            media = self.media = MediaSession(
                offer,
                addresses=settings.ice_addresses,
                on_phase=self._on_phase,
                on_message=self._bridge_message,
                channel=settings.bridge_channel,
                tls=ssl_context(settings.ca_file),
                decode=settings.decode,
            )
            own = media.ssrcs.sources(self._connection.endpoint_id, [track.kind for track in self.tracks])
            transport = await media.gather()
            accept = self._session.accept(
                transport, own, {"video_codecs": (settings.video_codec,), "data": _is_sctp(media.channel)}
            )
            self._connection.ask(f"{self.room.jid}/{FOCUS_NICK}", build_jingle(accept))
            self.room.update_presence(self._presence(published=True))
            await media.connect(self.tracks, video_codec=settings.video_codec, timeout=settings.media_timeout)
        except BotError as error:
            await self._media_failed(error.code, str(error), restart=error.retryable)
            return
        self._restarts.recovered()
        self._on_state(State.ACTIVE)
        self._emit(
            events.MediaConnected,
            channel=media.channel.name if media.channel else "none",
            seconds=self._timer.total,
            phases=self._timer.picked("offer", "ice", "dtls"),
        )
        await self._hold(media)
        await self._media_failed("media_failed", "the bridge closed the transport or does not answer any more")

    async def _hold(self, media: MediaSession) -> None:
        """Keep the bridge channel open as long as the transport lives."""
        channel = asyncio.ensure_future(self._hold_channel(media.channel)) if media.channel else None
        try:
            await media.wait_ended()
        finally:
            if channel is not None:
                channel.cancel()
                await asyncio.gather(channel, return_exceptions=True)

    async def _hold_channel(self, channel: BridgeChannel) -> None:
        settings = self._config.settings

        def opened(away: float) -> None:
            """Say what we want at once: before that the bridge sends no video."""
            if away:
                self._emit(events.BridgeChannelRecovered, channel=channel.name, seconds=away)
            else:
                self._on_phase("channel")
            channel.send(receiver_constraints(max_height=settings.receive_height, last_n=settings.last_n))

        def lost(cause: str) -> None:
            self._emit(events.BridgeChannelDegraded, channel=channel.name, cause=cause)

        keeper = ChannelKeeper(
            channel,
            on_open=opened,
            on_lost=lost,
            timeout=settings.connect_timeout,
            sleep=self._sleep,
            clock=self._clock,
        )
        await keeper.run()

    def _bridge_message(self, message: Message) -> None:
        match message["colibriClass"]:
            case "DominantSpeakerEndpointChangeEvent":
                endpoint = str(message.get("dominantSpeakerEndpoint", ""))
                self._emit(events.DominantSpeakerChanged, endpoint=endpoint)
            case "VideoSourcesMap" | "AudioSourcesMap" as kind:
                media: Media = "video" if kind == "VideoSourcesMap" else "audio"
                self._report(self._sources.mapped(media, mapped_sources(message)))
                if self.media is not None:
                    self.media.map_sources(message)
            case _:
                pass  # newer bridges say more than we know

    async def _media_failed(self, code: str, cause: str, *, restart: bool = True) -> None:
        """Say it, and ask the focus for another session within its limits; beyond ours the stay is over."""
        self._emit(events.MediaFailed, code=code, cause=cause)
        self._timer.restart()
        await self._close_media()
        self._stand()
        if self._session.state not in (SessionState.PENDING, SessionState.ACTIVE):
            return
        if restart:
            await self._ask_restart(cause)
        else:
            stanza = self._session.terminate("connectivity-error", cause)
            self._connection.ask(f"{self.room.jid}/{FOCUS_NICK}", build_jingle(stanza))

    async def _ask_restart(self, cause: str) -> None:
        """End the session with a request for another one, until the focus takes it; then that is waited for."""
        stanza: ET.Element | None = None
        while (delay := self._restarts.ask(self._clock())) is not None:
            await self._sleep(delay)
            stanza = stanza if stanza is not None else self._restart_request(cause)
            try:
                await self._connection.iq("set", f"{self.room.jid}/{FOCUS_NICK}", stanza)
            except BotError as error:
                self._emit(events.MediaFailed, code="restart_refused", cause=str(error))
            else:
                return
        if not self._over.done():
            self._over.set_result(MediaLostError(f"No media session after {MAX_IN_A_ROW} requests: {cause}"))

    def _restart_request(self, cause: str) -> ET.Element:
        return build_jingle(self._session.terminate("connectivity-error", cause, restart=True))

    async def _end_media(self) -> None:
        task, self._media_task = self._media_task, None
        if task is not None:
            task.cancel()
            await asyncio.gather(task, return_exceptions=True)
        await self._close_media()

    async def _close_media(self) -> None:
        if (media := self.media) is not None:
            await media.close()  # whoever is cancelled here leaves the rest to who cancelled him
            self.media = None
            self._stop_tracks()

    def _stop_tracks(self) -> None:
        """Aiortc's senders stop their tracks at their end: the next session makes new ones."""
        for track in self.tracks:
            track.stop()
        self.tracks.clear()


def _is_sctp(channel: BridgeChannel | None) -> bool:
    return channel is not None and channel.name == "sctp"
