"""One participant's life: connect, join, stand in the room, hold a media session, leave.

The participant is the wiring of four folders: XMPP, Jingle, bridge and media. What may follow what is in
``states``, when to try again in ``retry``; this file owns the tasks.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Coroutine, Iterable, Mapping
from dataclasses import dataclass
from typing import Any

import structlog

from bot import events
from bot.bridge.decode import OnFrame
from bot.bridge.streams import RemoteStream
from bot.bridge.tap import MediaTap
from bot.engine.sockets import Opener
from bot.errors import (
    ActionRefusedError,
    BotError,
    ConnectionFailedError,
    MediaLostError,
    MovedError,
    PromotedError,
    ResumeRefusedError,
    RoomError,
    VisitorRedirectError,
)
from bot.participant.conference import Conference
from bot.participant.config import ParticipantConfig
from bot.participant.entrance import MAIN, Entrance, redirected
from bot.participant.layout import Wishes
from bot.participant.own import OwnMedia
from bot.participant.retry import RejoinPause, Sleep, join_policy, resume_policy
from bot.participant.states import FINAL, State, StateGraph
from bot.participant.stay import Profile, Stay
from bot.participant.timing import PhaseTimer
from bot.xmpp.address import redact
from bot.xmpp.breakout import SWITCH_ROOM
from bot.xmpp.connection import ConnectionLost, XmppConfig, XmppConnection
from bot.xmpp.keepalive import keep_alive

log = structlog.get_logger(__name__)


@dataclass(frozen=True, slots=True)
class Traffic:
    """Running totals of one media session; ``session`` tells sessions apart, None where there is none."""

    session: str | None
    packets_sent: int = 0
    bytes_sent: int = 0
    packets_received: int = 0
    bytes_received: int = 0
    #: Packets of the remote sources that never came, by retransmission either.
    lost: int = 0
    #: Remote sources that were heard.
    streams: int = 0
    #: Frames that were decoded, and those that were dropped because decoding could not keep up.
    decoded: int = 0
    dropped: int = 0
    #: The bridge's estimate of the way to us in bit/s, None before the first.
    bandwidth: float | None = None


Connect = Callable[[XmppConfig, Callable[[str], None]], XmppConnection]


class Participant:
    """A participant of one room. ``run`` is its whole life; ``stop`` ends it from outside.

    ``emit`` gets every event, ``on_frame`` each decoded frame (the setting ``decode`` says of what), ``tap`` all
    packets of media; ``open_socket`` opens its UDP sockets in another way; ``properties`` are Jitsi's participant
    properties, told in our presence. ``sleep`` and ``clock`` (monotonic seconds) can be injected.
    """

    def __init__(
        self,
        config: ParticipantConfig,
        *,
        emit: events.EventSink,
        sleep: Sleep = asyncio.sleep,
        clock: Callable[[], float] = time.monotonic,
        connect: Connect | None = None,
        on_frame: OnFrame | None = None,
        tap: MediaTap | None = None,
        open_socket: Opener | None = None,
        properties: Mapping[str, str] | None = None,
    ) -> None:
        self.config = config
        self._emit_event = emit
        self._sleep = sleep
        self._clock = clock
        self._connect = connect or (lambda conf, on_phase: XmppConnection(conf, on_phase=on_phase))
        self._on_frame = on_frame
        #: What it publishes, in whatever session; what is set here stays.
        self.own = OwnMedia(config, self._emit)
        self._tap = tap
        self._open_socket = open_socket
        self._profile = Profile(properties=dict(properties or {}))
        self._wishes = Wishes.of(config.settings)
        self._graph = StateGraph(clock())
        self._timer = PhaseTimer(clock)
        self._attempt = 0
        self._pause = RejoinPause()
        self._joined_at = clock()
        self._stopping = asyncio.Event()
        self._connection: XmppConnection | None = None
        self._conference: Conference | None = None
        self._entrance = MAIN

    def __repr__(self) -> str:
        return f"<Participant {self.config.name} in {self.config.room}: {self.state}>"

    @property
    def state(self) -> State:
        """Where the participant stands."""
        return self._graph.state

    @property
    def in_room(self) -> bool:
        """Whether the room has the participant among its occupants."""
        return self._graph.in_room and self._conference is not None and self._conference.joined

    @property
    def visitor(self) -> bool:
        """Whether it is, or is about to be, a visitor: it sees and hears, and sends nothing."""
        return self._entrance.node is not None

    @property
    def conference(self) -> Conference | None:
        """The room and the media session while they exist."""
        return self._conference

    @property
    def traffic(self) -> Traffic:
        """What the present media session has moved so far."""
        return self.sample()[0]

    def sample(self) -> tuple[Traffic, tuple[RemoteStream, ...]]:
        """``traffic`` and ``streams`` of one moment; a snapshot costs time for each remote source."""
        media = self._conference.media if self._conference is not None else None
        if self._conference is None or media is None:
            return Traffic(session=None), ()
        packets, octets = media.sent
        streams, decoded = media.snapshot(), media.inbound.decoders.totals
        traffic = Traffic(
            session=media.id,
            packets_sent=packets,
            bytes_sent=octets,
            packets_received=media.received.packets,
            bytes_received=media.received.bytes,
            lost=sum(item.missing for item in streams),
            streams=len(streams),
            decoded=decoded.frames,
            dropped=decoded.dropped,
            bandwidth=self._conference.session.bridge.downlink,
        )
        return traffic, streams

    @property
    def streams(self) -> tuple[RemoteStream, ...]:
        """What is received of each remote source in the present media session."""
        media = self._conference.media if self._conference is not None else None
        return media.snapshot() if media is not None else ()

    def set_layout(self, **changes: Any) -> None:
        """Look at something else, now and in all later stays: fields of :class:`bot.participant.layout.Layout`."""
        self._wishes.set_layout(**changes)
        self._refresh()

    def subscribe_audio(
        self, *, everyone: bool = True, include: Iterable[str] = (), exclude: Iterable[str] = ()
    ) -> None:
        """Choose whose sound to receive (source names), now and in all later stays."""
        self._wishes.subscribe_audio(everyone=everyone, include=include, exclude=exclude)
        self._refresh()

    def set_property(self, name: str, value: str) -> None:
        """Say a participant property in our presence, now and in all later stays."""
        if self._profile.properties.get(name) == value:
            return
        self._profile.properties[name] = value
        if self.in_room and self._conference is not None:
            self._conference.say_properties()

    def _refresh(self) -> None:
        if self._conference is not None:
            self._conference.session.bridge.refresh()

    def stop(self) -> None:
        """Ask the participant to leave; ``run`` then returns."""
        self._stopping.set()

    async def run(self) -> None:
        """Join, stay until ``stop``, leave. Raises the last BotError where it could not join or was removed.

        Cancelled, it goes at once, without waiting for the room to see it.
        """
        try:
            await self._live()
        except BotError as error:
            self._fail(error)
            raise
        finally:
            await self._end()

    async def _live(self) -> None:
        joined = await self._until_stopped(self._join())
        while joined and not self._stopping.is_set():
            lost = await self._stay()
            if lost is None:
                return
            joined = await self._until_stopped(self._go_on(lost))

    async def _go_on(self, lost: ConnectionLost | MovedError | PromotedError) -> None:
        """Do what follows a stay that ended."""
        match lost:
            case MovedError():
                await self._move(lost)
            case PromotedError():
                await self._promoted(lost)
            case _:
                await self._come_back(lost)

    async def _until_stopped(self, work: Any) -> bool:
        """Run ``work`` unless ``stop`` comes first; True when it ended by itself."""
        task = asyncio.ensure_future(work)
        stop = asyncio.ensure_future(self._stopping.wait())
        try:
            await asyncio.wait({task, stop}, return_when=asyncio.FIRST_COMPLETED)
            if task.done():
                task.result()
                return True
            return False
        finally:
            await _end_tasks(task, stop)

    # --- joining ---

    async def _join(self) -> None:
        self._attempt = 0
        async for attempt in join_policy(self.config.retry, sleep=self._sleep, on_failure=self._attempt_failed):
            with attempt:
                self._attempt = attempt.retry_state.attempt_number
                await self._join_once()

    async def _join_once(self) -> None:
        """Join the main room, or as a visitor where the focus says so."""
        try:
            await self._enter(MAIN)
        except VisitorRedirectError as error:
            entrance = redirected(self.config, error)
            assert entrance.node is not None
            self._emit(events.RedirectedToVisitorNode, node=entrance.node.name, domain=entrance.node.domain)
            await self._enter(entrance)

    async def _enter(self, entrance: Entrance) -> None:
        self._entrance = entrance
        self._to(State.CONNECTING)
        self._timer.restart()
        self._emit(events.ConnectionCreating, url=redact(entrance.url(self.config)))
        connection = self._connection = self._connect(entrance.xmpp(self.config), self._phase)
        try:
            await connection.connect()
            self._emit(
                events.ConnectionEstablished,
                jid=connection.jid,
                seconds=self._timer.total,
                phases=self._timer.picked("websocket", "sasl", "bind"),
            )
            self._to(State.JOINING)
            self._conference = Conference(self._new_stay(connection))
            await _unless_lost(connection, self._conference.join())
            self._joined_at = self._clock()
        except BaseException as error:
            # Stopped a moment after the room let us in: it is left like any other (``_end``).
            if not (isinstance(error, asyncio.CancelledError) and self.in_room):
                await self._drop()
            raise

    def _new_stay(self, connection: XmppConnection) -> Stay:
        return Stay(
            config=self.config,
            connection=connection,
            emit=self._emit,
            on_phase=self._phase,
            on_state=self._stands,
            timer=self._timer,
            own=self.own,
            wishes=self._wishes,
            profile=self._profile,
            entrance=self._entrance,
            sleep=self._sleep,
            clock=self._clock,
            on_frame=self._on_frame,
            tap=self._tap,
            open_socket=self._open_socket,
        )

    def _attempt_failed(self, attempt: int, error: BaseException, delay: float | None) -> None:
        self._attempt_event(attempt, error, delay)
        self._to(State.RETRYING)

    def _attempt_event(self, attempt: int, error: BaseException, delay: float | None) -> None:
        code = error.code if isinstance(error, BotError) else "internal"
        self._attempt = attempt
        self._emit(events.AttemptFailed, code=code, cause=str(error), delay=delay, seconds=self._timer.total)

    # --- staying ---

    async def _stay(self) -> ConnectionLost | MovedError | PromotedError | None:
        """Stand in the room until something ends that: None for ``stop``, else how it was lost, or where to go."""
        if self._connection is None or self._conference is None:
            raise RuntimeError("a participant stays only in a room that it joined")
        lost = asyncio.ensure_future(self._connection.wait_lost())
        stop = asyncio.ensure_future(self._stopping.wait())
        removed = asyncio.ensure_future(self._conference.run())
        settings = self.config.settings
        polling = asyncio.ensure_future(
            keep_alive(
                settings.keepalive_url,
                settings.keepalive_interval,
                self._keep_alive_failed,
                ca_file=settings.ca_file,
            )
        )
        try:
            await asyncio.wait({lost, stop, removed}, return_when=asyncio.FIRST_COMPLETED)
            if removed.done():
                return _why_over(removed)
            return None if stop.done() else lost.result()
        finally:
            await _end_tasks(lost, stop, removed, polling)

    def _keep_alive_failed(self, cause: str) -> None:
        self._emit(events.KeepAliveFailed, cause=cause)

    async def _come_back(self, lost: ConnectionLost) -> None:
        """Resume the stream while media goes on; where the server refuses, join anew."""
        began = self._clock()
        self._to(State.RESUMING)
        self._emit(events.ConnectionDegraded, cause=lost.reason)
        how = "resumed"
        try:
            await self._resume(lost)
        except BotError as error:
            if not isinstance(error, ResumeRefusedError) and not error.retryable:
                raise
            how = "rejoined"
            await self._drop()
            await self._sleep(self._pause.after(began - self._joined_at))
            await self._join()
        else:
            if self._conference is not None:
                self._conference.resumed()
        self._emit(events.ConnectionRecovered, how=how, seconds=self._clock() - began)

    def move_to_room(self, room_jid: str | None = None) -> None:
        """Go to another room of the meeting on the same connection; None is the room of the settings.

        Raises ActionRefusedError for a visitor: his server has the one room.
        """
        if self.visitor:
            raise ActionRefusedError(
                "A visitor can't go to another room of the meeting", hint="raise the hand first"
            )
        if self._conference is not None:
            self._conference.move(room_jid or self.config.room_jid)

    async def _move(self, moved: MovedError) -> None:
        """Leave one room of the meeting for another; where that fails, come anew into the room of the settings."""
        connection, conference = self._connection, self._conference
        if connection is None or conference is None:
            raise RuntimeError("a participant moves only from a room that it joined")
        began = self._clock()
        try:
            await conference.leave(self.config.settings.leave_timeout, status=SWITCH_ROOM)
            await conference.close()
            self._to(State.JOINING)
            self._timer.restart()
            self._conference = Conference(self._new_stay(connection), moved.room_jid)
            await _unless_lost(connection, self._conference.join())
        except BotError as error:
            await self._come_back(ConnectionLost(f"{moved.room_jid} can't be entered: {error}", resumable=False))
        else:
            self._emit(events.MovedToRoom, address=moved.room_jid, seconds=self._clock() - began)

    async def _promoted(self, promoted: PromotedError) -> None:
        """Leave the visitor node for the main room; where that fails, come anew."""
        began = self._clock()
        self._profile.raised_hand = None
        if self._conference is not None:
            await self._conference.leave(self.config.settings.leave_timeout)
        await self._drop()
        try:
            await self._enter(Entrance(username=promoted.username))
        except BotError as error:
            delay = self._pause.after(began - self._joined_at)
            self._attempt_event(1, error, delay)
            await self._sleep(delay)
            await self._join()
        else:
            self._emit(events.PromotedToParticipant, seconds=self._clock() - began)

    async def _resume(self, lost: ConnectionLost) -> None:
        connection = self._connection
        if not lost.resumable:
            raise ResumeRefusedError(lost.reason)
        if connection is None or not connection.resumable:
            raise ResumeRefusedError("the server did not offer to resume the stream")
        async for attempt in resume_policy(
            within=connection.resume_seconds, sleep=self._sleep, on_failure=self._attempt_event
        ):
            with attempt:
                await connection.resume()

    # --- the end ---

    def _fail(self, error: BotError) -> None:
        if isinstance(error, RoomError) and self.in_room:
            self._emit(events.RemovedFromRoom, code=error.code, cause=str(error))
        else:
            self._emit(
                events.JoinFailed,
                code=error.code,
                cause=str(error),
                attempts=self._attempt,
                seconds=self._timer.total,
            )
        self._to(State.FAILED)

    async def _end(self) -> None:
        clean = False
        was_in_room = self.in_room
        if self.state not in FINAL:
            self._to(State.LEAVING)
        try:
            if self._conference is not None and was_in_room and self._stopping.is_set():
                clean = await self._conference.leave(self.config.settings.leave_timeout)
        finally:
            await self._drop()
            await self.own.close()
            if self.state is State.LEAVING:
                self._to(State.LEFT)
                self._emit(events.Left, clean=clean)

    async def _drop(self) -> None:
        """Close whatever is open: media first, then the connection.

        No ghost stays behind: closing the stream makes the server send our leave to the room.
        """
        conference, self._conference = self._conference, None
        connection, self._connection = self._connection, None
        try:
            if conference is not None:
                await conference.close()
        finally:
            if connection is not None:
                await connection.close()

    # --- small things ---

    def _to(self, state: State) -> None:
        if state is self.state:
            return
        previous = self._graph.to(state, self._clock())
        self._emit(events.StateChanged, previous=previous.value, state=state.value)

    def _stands(self, state: State) -> None:
        """What a stay says of itself; nothing while it is left: its media session may still have come up then."""
        if self.state is not State.LEAVING and self.state not in FINAL:
            self._to(state)

    def _phase(self, phase: str) -> None:
        self._emit(events.PhaseDone, phase=phase, seconds=self._timer.done(phase))

    def _emit(self, kind: type[events.Event], **fields: Any) -> None:
        event = kind(room=self.config.room, participant=self.config.name, attempt=max(self._attempt, 1), **fields)
        try:
            self._emit_event(event)
        except Exception:
            # A broken receiver of events (metrics, web-hook) never touches the call.
            log.exception("An event receiver failed", event_name="event_receiver_failed", failed=event.name)


async def _unless_lost(connection: XmppConnection, work: Coroutine[Any, Any, None]) -> None:
    """Do ``work``; raises ConnectionFailedError as soon as the connection is lost, whatever is waited for."""
    task, lost = asyncio.ensure_future(work), asyncio.ensure_future(connection.wait_lost())
    try:
        await asyncio.wait({task, lost}, return_when=asyncio.FIRST_COMPLETED)
        if not task.done():
            raise ConnectionFailedError(f"The connection was lost: {lost.result().reason}")
        task.result()
    finally:
        await _end_tasks(task, lost)


def _why_over(removed: asyncio.Future[None]) -> ConnectionLost | MovedError | PromotedError:
    """A stay that ended for want of media is as good as a lost connection; what is no move either is raised."""
    try:
        removed.result()
    except (MovedError, PromotedError) as followed:
        return followed
    except MediaLostError as error:
        return ConnectionLost(str(error), resumable=False)
    raise RuntimeError("a stay ended without a reason")


async def _end_tasks(*tasks: asyncio.Future[Any]) -> None:
    """Cancel what still runs and wait for it; results and errors of what is done were taken before."""
    for task in tasks:
        task.cancel()
    await asyncio.gather(*tasks, return_exceptions=True)
