"""The session with the focus: its offers accepted, the media held, another one asked for when it is lost."""

from __future__ import annotations

import asyncio
import xml.etree.ElementTree as ET
from collections.abc import Callable, Mapping
from functools import partial

import structlog

from bot import events
from bot.bridge.channel import BridgeChannel
from bot.bridge.messages import SourcesMapped
from bot.bridge.session import MediaSession, OwnSource
from bot.engine.session import SharedSession
from bot.errors import BotError, MediaError, MediaLostError
from bot.jingle import names
from bot.jingle.codec import JingleError, build_jingle, parse_jingle
from bot.jingle.model import Action, Jingle, SourceMap
from bot.jingle.session import (
    FOCUS_NICK,
    Choices,
    IllegalTransitionError,
    JingleSession,
    OfferReceived,
    Output,
    ReplyError,
    ReplyResult,
    SessionState,
    SessionTerminated,
    SourcesAdded,
    SourcesRemoved,
    TransportInfo,
    TransportReplaced,
    refuse_p2p,
)
from bot.participant.bridge import BridgeDialogue
from bot.participant.limits import TokenBucket
from bot.participant.publication import Publication
from bot.participant.relay import TurnLookup
from bot.participant.restarts import MAX_IN_A_ROW, RestartBudget
from bot.participant.sources import Change, RemoteSources, SourceState
from bot.participant.states import State
from bot.participant.stay import Stay
from bot.xmpp.connection import IqRequest, ssl_context
from bot.xmpp.stanza_errors import StanzaError

log = structlog.get_logger(__name__)

JINGLE = "{urn:xmpp:jingle:1}jingle"
#: What the focus wants and is not done yet.
MAX_WAITING = 1000
#: Direct sessions that are refused politely: so many a second, and so many at once.
P2P_RATE, P2P_BURST = 1.0, 20


class FocusSession:
    """The Jingle session of one stay, and the media of it. ``run`` does what the focus asks, one after the other.

    ``codec`` says what pictures are sent with. ``on_published`` is told when our sources are signalled,
    ``on_idle`` when no session is held any more, and ``on_lost`` when only a new join can bring media back;
    ``on_offer`` sees each offer first.
    """

    def __init__(
        self,
        stay: Stay,
        room_jid: str,
        *,
        codec: Callable[[Jingle], str],
        on_published: Callable[[], None],
        on_idle: Callable[[], None],
        on_lost: Callable[[MediaLostError], None],
        on_offer: Callable[[Jingle], None] = lambda _: None,
    ) -> None:
        self._stay = stay
        self._room_jid = room_jid
        self._focus = f"{room_jid}/{FOCUS_NICK}"
        self._own = stay.own
        self._codec = codec
        self._on_published = on_published
        self._on_idle = on_idle
        self._on_lost = on_lost
        self._on_offer = on_offer
        self._session = JingleSession(responder=stay.connection.jid)
        self._outputs: asyncio.Queue[Output] = asyncio.Queue(MAX_WAITING)
        self._p2p = TokenBucket(P2P_RATE, P2P_BURST)
        self._sources = RemoteSources()
        self._restarts = RestartBudget()
        self._turn = TurnLookup(stay.settings, stay.connection, domain=stay.domain, clock=stay.clock)
        self._task: asyncio.Future[None] | None = None
        self._publication: Publication | None = None
        #: When the last packet of a session that was lost came, None while nothing is missed.
        self._silent_since: float | None = None
        #: The talk with the bridge.
        self.bridge = BridgeDialogue(stay, stay.own, self._sources, on_map=self._mapped)
        #: The media session while there is one.
        self.media: MediaSession | None = None
        stay.connection.on_iq(JINGLE, self._jingle)

    def __repr__(self) -> str:
        return f"<FocusSession {self._session!r} {self.media!r}>"

    @property
    def active(self) -> bool:
        """Whether a media session is held that the focus knows of."""
        return self.media is not None and self._session.state is SessionState.ACTIVE

    @property
    def idle(self) -> bool:
        """Whether there is no session, and none being set up."""
        return self.media is None and self._session.state in (SessionState.IDLE, SessionState.ENDED)

    def occupants(self, others: int) -> None:
        """So many others are in the room; nobody is silent for us where there is nobody."""
        self.bridge.occupants(others)
        if not others:
            self._silent_since = None

    def room_changed(self) -> None:
        """Somebody came, went or names other codecs: send with what all can take."""
        offer, publication = self._session.offer, self._publication
        if not self.active or offer is None or publication is None:
            return
        codec = self._codec(offer)
        if codec != publication.codec:
            publication.use_codec(codec)
            self._stay.emit(events.SendCodecChanged, codec=codec)

    def left(self, endpoint: str) -> None:
        """Forget an endpoint that left the room, and its sources."""
        self.bridge.left(endpoint)
        self._report(self._sources.left(endpoint))

    def remote_sources(self, presence: Mapping[str, Mapping[str, object]]) -> Mapping[str, SourceState]:
        """The remote sources by name; ``presence`` has the SourceInfo of each endpoint."""
        return self._sources.states(self.media.snapshot() if self.media is not None else (), presence)

    async def close(self) -> None:
        """End the session without a stanza; may be called twice."""
        self._session.end()
        await self._end_media()

    # --- the focus ---

    def _jingle(self, request: IqRequest) -> None:
        """Feed the session machine; what follows is done by ``run``, one output after the other."""
        try:
            jingle = parse_jingle(request.payload)
        except JingleError as error:
            kind = "wait" if error.condition == "resource-constraint" else "modify"
            raise StanzaError(error.condition, error.message, kind=kind) from error
        # Only the room can vouch for the focus: a JID outside may call itself so, too.
        if request.sender != self._focus:
            self._refuse_p2p(request.sender, jingle)
            return
        if self._outputs.qsize() > MAX_WAITING - 2:  # an offer in place of another makes two
            raise StanzaError("resource-constraint", "too many changes at once", kind="wait")
        for output in self._session.feed(jingle, self._stay.timer.total):
            if isinstance(output, ReplyError):
                raise StanzaError(
                    output.condition, output.text, kind=output.type, details=_details(output.application)
                )
            if not isinstance(output, ReplyResult):
                self._outputs.put_nowait(output)

    def _refuse_p2p(self, sender: str, jingle: Jingle) -> None:
        """A direct session is refused (XEP-0166 section 6.3.2): this participant speaks with the bridge only."""
        if jingle.action != Action.SESSION_INITIATE:
            raise StanzaError(
                "item-not-found", f"No session '{jingle.sid[:40]}'", details=_details("unknown-session")
            )
        if not self._p2p.take(self._stay.clock()):
            raise StanzaError("resource-constraint", "too many direct sessions at once", kind="wait")
        self._stay.connection.ask(sender, build_jingle(refuse_p2p(jingle, responder=self._stay.connection.jid)))

    async def run(self) -> None:
        """Handle what the focus sends, until cancelled."""
        while True:
            output = await self._outputs.get()
            try:
                await self._handle(output)
            except Exception:
                # What nobody thought of in one stanza must not end the call.
                log.exception(
                    "A stanza could not be handled", event_name="stanza_failed", what=type(output).__name__
                )

    async def _handle(self, output: Output) -> None:
        match output:
            case OfferReceived(offer):
                self._on_offer(offer)
                await self._end_media()
                self._report(self._sources.clear())
                self._task = asyncio.ensure_future(self._attempt(offer))
                await asyncio.sleep(0)  # it takes the offer's sources before what changes them
            case SessionTerminated():
                await self._end_media()
                self._publication = None
                self._report(self._sources.clear())
                condition = output.reason.condition if output.reason else "no reason given"
                self._stay.emit(events.MediaEnded, cause=condition)
                self._stay.timer.restart()
                self._on_idle()
            case TransportReplaced(offer):
                # The session goes on over another bridge; the focus knows our sources by their SSRCs.
                await self._end_media()
                self._report(self._sources.clear())
                self._stay.timer.restart()
                self._task = asyncio.ensure_future(self._attempt(offer, self._publication))
                await asyncio.sleep(0)
            case TransportInfo(jingle) if self.media is not None:
                for content in jingle.contents:
                    if content.transport is not None:
                        await self.media.add_candidates(content.transport)
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
            self._stay.emit(kind, **item._asdict())
        if changes:
            self.bridge.sources_changed()

    def _mapped(self, told: SourcesMapped) -> None:
        self._report(self._sources.mapped(told.media, told.sources))
        if self.media is not None:
            self.media.map_sources(told.sources)

    # --- the media session ---

    async def _attempt(self, offer: Jingle, moved: Publication | None = None) -> None:
        """Hold the session of ``offer``. What nobody thought of ends that session and is told, never the stay."""
        try:
            await self._media(offer, moved)
        except IllegalTransitionError:
            log.info("The offer was withdrawn before it was answered", event_name="offer_withdrawn", sid=offer.sid)
        except Exception as error:
            log.exception("The media session could not be held", event_name="media_session_failed")
            await self._media_failed("internal", f"{type(error).__name__}: {error}")

    async def _media(self, offer: Jingle, moved: Publication | None = None) -> None:
        """Accept ``offer`` and hold the session until its transport is gone; a moved one goes on as published."""
        settings = self._stay.settings
        self._stay.on_phase("offer")
        self._stay.on_state(State.NEGOTIATING)
        self._report(self._sources.added(offer.sources))
        try:
            session: Callable[..., MediaSession] = MediaSession
            if settings.media_engine == "shared":
                session = partial(SharedSession, endpoint=self._stay.connection.endpoint_id)
            media = self.media = session(
                offer,
                addresses=settings.ice_addresses,
                relay_only=settings.use_turn == "relay",
                on_phase=self._media_phase,
                on_encoding_failed=self._encoding_failed,
                on_message=self.bridge.take,
                channel=settings.bridge_channel,
                tls=ssl_context(settings.ca_file),
                decode=settings.decode,
                on_frame=self._stay.on_frame,
                tap=self._stay.tap,
                open_socket=self._stay.open_socket,
                ssrcs=moved.ssrcs if moved is not None else None,
            )
            transport = await media.gather(await self._turn.find())
            codec = self._codec(offer)
            publication = Publication(
                media, self._stay.connection.endpoint_id, codec, self._change_sources, moved=moved
            )
            self._own.publish(publication)
            if moved is not None:
                accept = self._session.transport_accept(transport)
            else:
                choices: Choices = {"video_codecs": (codec,), "data": _is_sctp(media.channel)}
                accept = self._session.accept(transport, publication.sources, choices)
            self._publication = publication
            self._stay.connection.ask(self._focus, build_jingle(accept))
            await asyncio.sleep(0)  # the accept goes first: servers that limit what we send let the second wait
            publication.accepted()
            self._on_published()
            await media.connect(timeout=settings.media_timeout)
            await publication.start()
        except BotError as error:
            await self._media_failed(error.code, str(error), restart=error.retryable)
            return
        self._restarts.recovered()
        self._stay.on_state(State.ACTIVE)
        self._stay.emit(
            events.MediaConnected,
            channel=media.channel.name if media.channel else "none",
            seconds=self._stay.timer.total,
            phases=self._stay.timer.picked("offer", "ice", "dtls"),
        )
        await self._hold(media)
        await self._media_failed("media_failed", "the bridge closed the transport or does not answer any more")

    def _media_phase(self, phase: str) -> None:
        """Hear of the session's phases: its first packet ends the gap that a lost one left."""
        self._stay.on_phase(phase)
        if phase == "first_packet_in" and self._silent_since is not None:
            seconds, self._silent_since = self._stay.clock() - self._silent_since, None
            self._stay.emit(events.MediaRecovered, seconds=seconds)

    def _encoding_failed(self, source: OwnSource, cause: str) -> None:
        label = source.name.rpartition("-")[2]
        self._stay.emit(events.LocalEncodingFailed, source=label, media=source.media, cause=cause)

    async def _change_sources(self, action: Action, sources: SourceMap) -> None:
        """Ask the focus for a source-add or source-remove. Raises a BotError where it refuses."""
        change = self._session.source_add if action is Action.SOURCE_ADD else self._session.source_remove
        try:
            stanza = build_jingle(change(sources))
        except IllegalTransitionError as error:
            raise MediaError(str(error)) from error
        try:
            await self._stay.connection.iq("set", self._focus, stanza)
        except BotError:
            if action is Action.SOURCE_ADD and self._session.state is SessionState.ACTIVE:
                self._session.source_remove(sources)  # it never was
            raise

    async def _hold(self, media: MediaSession) -> None:
        """Keep the bridge channel open as long as the transport lives."""
        channel = asyncio.ensure_future(self.bridge.hold(media))
        try:
            await media.wait_ended()
        finally:
            channel.cancel()
            await asyncio.gather(channel, return_exceptions=True)

    async def _media_failed(self, code: str, cause: str, *, restart: bool = True) -> None:
        """Say it, and ask the focus for another session within its limits; beyond ours the stay is over."""
        self._stay.emit(events.MediaFailed, code=code, cause=cause)
        self._stay.timer.restart()
        await self._close_media()
        self._on_idle()
        if self._session.state not in (SessionState.PENDING, SessionState.ACTIVE):
            return
        if restart:
            await self._ask_restart(cause)
        else:
            stanza = self._session.terminate("connectivity-error", cause)
            self._stay.connection.ask(self._focus, build_jingle(stanza))

    async def _ask_restart(self, cause: str) -> None:
        """End the session with a request for another one, until the focus takes it; then that is waited for."""
        stanza: ET.Element | None = None
        while (delay := self._restarts.ask(self._stay.clock())) is not None:
            await self._stay.sleep(delay)
            stanza = stanza if stanza is not None else self._restart_request(cause)
            try:
                await self._stay.connection.iq("set", self._focus, stanza)
            except BotError as error:
                self._stay.emit(events.MediaFailed, code="restart_refused", cause=str(error))
            else:
                return
        self._on_lost(MediaLostError(f"No media session after {MAX_IN_A_ROW} requests: {cause}"))

    def _restart_request(self, cause: str) -> ET.Element:
        return build_jingle(self._session.terminate("connectivity-error", cause, restart=True))

    async def _end_media(self) -> None:
        task, self._task = self._task, None
        if task is not None:
            task.cancel()
            await asyncio.gather(task, return_exceptions=True)
        await self._close_media()

    async def _close_media(self) -> None:
        if (media := self.media) is not None:
            self._own.withdraw()
            if self._silent_since is None and media.silence is not None:
                self._silent_since = self._stay.clock() - media.silence
            await media.close()  # whoever is cancelled here leaves the rest to who cancelled him
            self.media = None
            self.bridge.ended()


def _details(application: str | None) -> tuple[ET.Element, ...]:
    """The Jingle error beside a stanza error (XEP-0166 section 10)."""
    return (ET.Element(names.clark(names.JINGLE_ERRORS, application)),) if application else ()


def _is_sctp(channel: BridgeChannel | None) -> bool:
    return channel is not None and channel.name == "sctp"
