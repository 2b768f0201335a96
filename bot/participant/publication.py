"""Our sources in one media session: their SSRCs, their senders, and what the focus knows of them."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from typing import Protocol

import structlog

from bot.bridge.session import MediaSession, OwnSource, OwnSsrcs
from bot.errors import BotError
from bot.jingle.model import Action, SourceMap
from bot.media.feed import Feed

log = structlog.get_logger(__name__)

#: Asks the focus for a source-add or source-remove. Raises a BotError where it refuses.
Request = Callable[[Action, SourceMap], Awaitable[None]]


class Publishable(Protocol):
    """The part of a local source that a session needs."""

    label: str
    feed: Feed
    video_type: str | None


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
        video_type = source.video_type or "camera"
        return self._media.ssrcs.source(self._endpoint, source.label, video_type, fresh=fresh)

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
        for _, own in self._sources.values():
            if own.media == "video":
                self._media.switch_codec(own.name, codec)

    def resume(self, source: Publishable) -> None:
        """Begin again with a key frame: nobody has the frames since the pause."""
        if (found := self._sources.get(source.label)) is not None:
            self._media.request_key_frame(found[1].name)

    def close(self) -> None:
        """The session is over: whoever waits for it need not."""
        self._closed = True
        self._accepted.set()

    def _is_over(self) -> bool:
        return self._closed

    async def _publish(self, source: Publishable) -> None:
        if source.label in self._sending:
            return
        self._sending.add(source.label)
        own = self._sources[source.label][1]
        await self._media.publish(own, source.feed.outlet(), "opus" if own.media == "audio" else self.codec)
