"""A participant for Python programs: join, hear, see, and know what happens in the room.

    async with Participant("wss://meet.example.com", "standup", domain="meet.example.com", decode="audio") as me:
        async for event in me.events():
            print(event.message)

Settings are those of the program (``bot.settings``), as keyword arguments; what is not given comes from the
environment (``JITSI_…``) and the defaults.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Iterable, Mapping
from types import TracebackType
from typing import Any, Self

from aiortc.mediastreams import MediaStreamTrack

from bot import events as contract
from bot.bridge.decode import DecodedStream
from bot.bridge.decoder import DecodedFrame
from bot.bridge.streams import RemoteStream
from bot.errors import BotError, BridgeMessageError, RoomError
from bot.media.remote import RemoteTrack, RemoteTracks
from bot.participant.citizen import Citizen
from bot.participant.config import expand
from bot.participant.own import OwnMedia
from bot.participant.participant import Participant as _Participant
from bot.participant.sources import SourceState
from bot.participant.states import State
from bot.settings import load
from bot.xmpp.occupants import Occupant

#: Events that wait for a reader of ``events()`` that is slow; the oldest are dropped beyond it.
BACKLOG = 1000


class Participant:
    """One participant of one room. ``async with`` joins (or raises why not) and leaves.

    It comes back by itself when the connection or the media session is lost; ``events()`` tells. ``url`` is the
    address of the deployment's WebSocket (``ws://localhost:8000``, ``wss://meet.example.com``). ``audio`` and
    ``video`` are what it publishes: a track of aiortc's, or one of the settings' words (``speech``, ``pattern``,
    ``file:PATH``, ``none`` …). Raises ConfigurationError for settings that are wrong.
    """

    def __init__(
        self,
        url: str,
        room: str,
        *,
        audio: MediaStreamTrack | str | None = None,
        video: MediaStreamTrack | str | None = None,
        **settings: Any,
    ) -> None:
        # A track is put in the place of what a setting would make.
        self._given = [item for item in (audio, video) if isinstance(item, MediaStreamTrack)]
        for kind, item in (("audio", audio), ("video", video)):
            settings[kind] = "none" if isinstance(item, MediaStreamTrack) else item
        self._config = expand(load(ws_url=url, room=room, bots=1, **settings))[0]
        self._inner = _Participant(self._config, emit=self._on_event, on_frame=self._on_frame)
        self._running: asyncio.Task[None] | None = None
        self._joined = asyncio.Event()
        #: The first call of ``events()`` hears from the very beginning, whenever it comes.
        self._first: _Reader | None = _Reader()
        self._readers: set[_Reader] = {self._first}
        self._tracks = RemoteTracks()

    def __repr__(self) -> str:
        return f"<Participant {self._config.name} in {self._config.room}: {self.state}>"

    async def __aenter__(self) -> Self:
        for track in self._given:
            await (self.own.set_audio(track) if track.kind == "audio" else self.own.set_video(track))
        self._running = asyncio.create_task(self._inner.run(), name=f"participant {self._config.name}")
        joined = asyncio.create_task(self._joined.wait())
        try:
            await asyncio.wait({self._running, joined}, return_when=asyncio.FIRST_COMPLETED)
        except BaseException:
            await self._leave()
            raise
        finally:
            joined.cancel()
        if self._running.done():
            self._end_readers()
            self._running.result()
            raise BotError("The participant ended before it had joined")
        self._running.add_done_callback(lambda _: self._end_readers())
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self._leave()

    async def _leave(self) -> None:
        running, self._running = self._running, None
        self._inner.stop()
        if running is not None:
            await asyncio.wait({running})
            if not running.cancelled():
                running.exception()  # told by wait_left and events(), to whoever asked
        self._tracks.close()

    # --- what there is ---

    @property
    def own(self) -> OwnMedia:
        """What we publish: mute, exchange, add and remove sources, before joining as well."""
        return self._inner.own

    @property
    def state(self) -> State:
        """Where the participant stands."""
        return self._inner.state

    @property
    def endpoint(self) -> str:
        """Our endpoint id, empty while there is none."""
        conference = self._inner.conference
        return conference.room.own.partition("/")[2] if conference is not None else ""

    @property
    def others(self) -> Mapping[str, Occupant]:
        """The other participants by endpoint id."""
        conference = self._inner.conference
        found = conference.room.occupants.others if conference is not None else ()
        return {occupant.endpoint: occupant for occupant in found}

    @property
    def tracks(self) -> Mapping[str, RemoteTrack]:
        """Remote tracks by source name; the setting ``decode`` says which of them have frames."""
        return self._tracks

    @property
    def streams(self) -> tuple[RemoteStream, ...]:
        """What is received of each remote source: packets, loss, jitter, bit rate, first frame."""
        return self._inner.streams

    @property
    def sources(self) -> Mapping[str, SourceState]:
        """Remote sources by name: whose they are, whether they are muted, and what was received of them."""
        conference = self._inner.conference
        return conference.remote_sources if conference is not None else {}

    # --- what we want ---

    def set_layout(self, **changes: Any) -> None:
        """Look at something else, now and after whatever is lost: fields of ``bot.participant.layout.Layout``.

        ``mode`` is ``tile``, ``stage``, ``audio-only`` or ``custom``; a ``stage`` of ``("speaker",)`` follows
        whoever speaks, ``height`` is that of the tallest picture.
        """
        self._inner.set_layout(**changes)

    def subscribe_audio(
        self, *, everyone: bool = True, include: Iterable[str] = (), exclude: Iterable[str] = ()
    ) -> None:
        """Choose whose sound to receive, by source names (``sources``)."""
        self._inner.subscribe_audio(everyone=everyone, include=include, exclude=exclude)

    def send_endpoint_message(self, payload: Mapping[str, Any], to: str = "") -> None:
        """Send a JSON object over the bridge to the endpoint ``to``, or to all. Raises BridgeMessageError."""
        conference = self._inner.conference
        if conference is None:
            raise BridgeMessageError("There is no media session")
        conference.session.bridge.send_message(payload, to)

    @property
    def room(self) -> Citizen:
        """What we do among the others: chat, raise a hand, change our name; ``meeting`` of it is for moderators.

        It is another one after a new join. Raises RoomError while we are in no room.
        """
        conference = self._inner.conference
        if conference is None:
            raise RoomError("The participant is in no room")
        return conference.citizen

    # --- what happens ---

    async def events(self) -> AsyncIterator[contract.Event]:
        """Every event (``bot.events``) until we leave: the first call from the start, further ones from then on.

        Raises the BotError that ended the stay.
        """
        reader, self._first = self._first or _Reader(), None
        self._readers.add(reader)
        running = self._running
        try:
            while running is not None and (event := await reader.next(running)) is not None:
                yield event
        finally:
            self._readers.discard(reader)
        if running is not None and running.done() and not running.cancelled():
            running.result()

    async def wait_left(self) -> None:
        """Return when the stay is over. Raises the BotError that ended it (kicked, room destroyed …)."""
        if self._running is not None:
            await asyncio.shield(self._running)

    def _on_event(self, event: contract.Event) -> None:
        match event:
            case contract.ConferenceJoined():
                self._joined.set()
            case contract.RemoteSourceAdded() if event.owner != "jvb":
                self._tracks.add(event.media, event.source, event.owner, event.ssrc)
            case contract.RemoteSourceRemoved():
                self._tracks.remove(event.source, event.ssrc)
            case _:
                pass
        for reader in self._readers:
            reader.put(event)

    def _on_frame(self, stream: DecodedStream, frame: DecodedFrame) -> None:
        self._tracks.frame(stream.ssrc, frame)

    def _end_readers(self) -> None:
        for reader in self._readers:
            reader.put(None)


class _Reader:
    """The events that one iterator has not taken yet; None ends it."""

    def __init__(self) -> None:
        self._queue: asyncio.Queue[contract.Event | None] = asyncio.Queue()

    def put(self, event: contract.Event | None) -> None:
        if self._queue.qsize() >= BACKLOG:
            self._queue.get_nowait()
        self._queue.put_nowait(event)

    async def next(self, running: asyncio.Task[None]) -> contract.Event | None:
        if running.done() and self._queue.empty():
            return None
        return await self._queue.get()
