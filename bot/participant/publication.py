"""Our sources in one media session: their SSRCs, their senders, and what the focus knows of them."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from typing import Protocol

import structlog

from bot.bridge.session import MediaSession, OwnSource, OwnSsrcs
from bot.engine.session import SharedSession
from bot.errors import BotError
from bot.jingle.model import Action, SourceMap
from bot.media.feed import Feed
from bot.participant.clips import ClipSource

log = structlog.get_logger(__name__)

#: Asks the focus for a source-add or source-remove. Raises a BotError where it refuses.
Request = Callable[[Action, SourceMap], Awaitable[None]]


class Publishable(Protocol):
    """The part of a local source that a session needs.

    ``clip`` makes what is sent instead of a track, where there is one; ``max_height`` is what the bridge wants.
    """

    label: str
    feed: Feed
    video_type: str | None
    clip: ClipSource | None
    max_height: int | None


_Send = Callable[[Publishable, OwnSource], Awaitable[None]]


class Publication:
    """``allocate`` before the session-accept, ``accepted`` after it, ``start`` when the transport is connected.

    ``codec`` names what pictures are sent with. Later sources come and go by ``add`` and ``remove``. ``moved`` is
    the publication of a session that goes on over another bridge: the focus knows its sources by their SSRCs.
    """

    def __init__(
        self,
        media: MediaSession,
        endpoint: str,
        codec: str,
        request: Request,
        *,
        moved: Publication | None = None,
    ) -> None:
        self._media = media
        self._endpoint = endpoint
        self.codec = codec
        self._request = request
        self._sources: dict[str, tuple[Publishable, OwnSource]] = {}
        #: What the focus knows of a session that was moved and is not ours again yet.
        self._known = {} if moved is None else {label: own for label, (_, own) in moved._sources.items()}
        self._is_moved = moved is not None
        #: What came and went while the session was between two bridges.
        self._unsaid: list[tuple[Action, OwnSource]] = []
        #: Labels that had their SSRCs in this session.
        self._used = set(self._known)
        self._sending: set[str] = set()
        self._accepted = asyncio.Event()
        self._connected = False
        self._closed = False
        self._tasks: set[asyncio.Task[None]] = set()

    def __repr__(self) -> str:
        return f"<Publication {', '.join(self._sources) or 'nothing'} {self.codec}>"

    @property
    def ssrcs(self) -> OwnSsrcs:
        """The SSRCs of the first sources."""
        return self._media.ssrcs

    @property
    def sources(self) -> SourceMap:
        """What the session-accept names."""
        found = SourceMap()
        for _, own in self._sources.values():
            found = found.merged(own.sources)
        return found

    def allocate(self, source: Publishable) -> OwnSource:
        """Give a source its SSRCs."""
        own = self._known.pop(source.label, None)
        if own is None:
            own = self._new(source)
            if self._is_moved and not self._accepted.is_set():
                self._unsaid.append((Action.SOURCE_ADD, own))
        self._sources[source.label] = source, own
        return own

    def _new(self, source: Publishable) -> OwnSource:
        fresh = source.label in self._used
        self._used.add(source.label)
        layers = source.clip.layers(self.codec) if source.clip is not None and source.feed.kind == "video" else 1
        return self._media.ssrcs.source(
            self._endpoint, source.label, source.video_type or "camera", fresh=fresh, layers=layers
        )

    def accepted(self) -> None:
        """The session-accept is on its way: from now on sources can be added and removed."""
        self._unsaid[:0] = [(Action.SOURCE_REMOVE, own) for own in self._known.values()]
        self._known.clear()
        self._accepted.set()

    async def start(self) -> None:
        """Send all sources. Raises UnsupportedMediaError, or what the focus has against one."""
        self._connected = True
        for action, own in self._unsaid:
            await self._request(action, own.sources)
        for source, _ in list(self._sources.values()):
            await self._publish(source)

    async def add(self, source: Publishable) -> None:
        """Announce a source and send it. Raises the focus's refusal; a session that is over has none to give."""
        await self._accepted.wait()
        if self._is_over():
            return
        own = self.allocate(source)
        try:
            await self._request(Action.SOURCE_ADD, own.sources)
        except BotError:
            self._sources.pop(source.label, None)
            if self._is_over():
                return
            raise
        if self._connected and not self._is_over():
            await self._publish(source)

    async def remove(self, source: Publishable) -> None:
        """Stop a source and tell the focus that it is gone; its refusal changes nothing."""
        await self._accepted.wait()
        _, own = self._sources.pop(source.label, (source, None))
        if own is None or self._is_over():
            return
        self._sending.discard(source.label)
        await self._media.unpublish(own.name)
        try:
            await self._request(Action.SOURCE_REMOVE, own.sources)
        except BotError as error:
            log.info("A source-remove was refused", event_name="source_remove_refused", cause=str(error))

    def use_codec(self, codec: str) -> None:
        """Send pictures with another codec from now on. Nothing is negotiated: all offered ones are accepted."""
        self.codec = codec
        for source, own in self._sources.values():
            if own.media == "video" and source.clip is not None:
                if source.label in self._sending:
                    self._spawn(self._send_clip, source, own)
            elif own.media == "video":
                self._media.switch_codec(own.name, codec)

    def adjust(self, source: Publishable) -> None:
        """A clip was muted, or is wanted in another height."""
        found = self._sources.get(source.label)
        if found is not None and isinstance(self._media, SharedSession):
            self._media.adjust(found[1].name, muted=source.feed.muted, max_height=source.max_height)

    def exchange(self, source: Publishable) -> None:
        """Send what the feed of a source gives, in place of its clip."""
        found = self._sources.get(source.label)
        if found is None or source.label not in self._sending or not isinstance(self._media, SharedSession):
            return
        self._media.end_clip(found[1].name)
        self._spawn(self._send_track, source, found[1])

    def resume(self, source: Publishable) -> None:
        """Begin again with a key frame: nobody has the frames since the pause."""
        if (found := self._sources.get(source.label)) is not None:
            self._media.request_key_frame(found[1].name)

    def close(self) -> None:
        """The session is over: whoever waits for it need not."""
        self._closed = True
        self._accepted.set()
        for task in self._tasks:
            task.cancel()

    def _is_over(self) -> bool:
        return self._closed

    async def _publish(self, source: Publishable) -> None:
        if source.label in self._sending:
            return
        self._sending.add(source.label)
        own = self._sources[source.label][1]
        if source.clip is not None and isinstance(self._media, SharedSession):
            self._media.check(own, "opus" if own.media == "audio" else self.codec)
            self._spawn(self._send_clip, source, own)  # it may have to be encoded first
        else:
            await self._send_track(source, own)

    async def _send_track(self, source: Publishable, own: OwnSource) -> None:
        await self._media.publish(own, source.feed.outlet(), "opus" if own.media == "audio" else self.codec)

    async def _send_clip(self, source: Publishable, own: OwnSource) -> None:
        """Send the clip, which may have to be made; by then the source can have a track, or be gone."""
        media, codec = self._media, self.codec
        if source.clip is None or not isinstance(media, SharedSession):
            return
        clip = await source.clip.get(codec)
        known = self._sources.get(source.label)
        if self._closed or source.clip is None or known is None or known[1] is not own or codec != self.codec:
            return
        media.publish_clip(own, clip, red=source.clip.red, speech=source.clip.speech)
        self.adjust(source)

    def _spawn(self, send: _Send, source: Publishable, own: OwnSource) -> None:
        # Called in the task: one cancelled before its first step leaves no coroutine behind that nobody awaits.
        task = asyncio.get_running_loop().create_task(self._guarded(send, source, own), name="publish")
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def _guarded(self, send: _Send, source: Publishable, own: OwnSource) -> None:
        try:
            await send(source, own)
        except (BotError, ConnectionError) as error:
            log.warning("A source can't be sent", event_name="source_not_sent", cause=str(error))
