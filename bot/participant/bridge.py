"""The talk with the Videobridge: what we want, what it tells, and what participants tell each other over it.

It goes through the whole stay, over one channel after the other: each new one is told everything again.
"""

from __future__ import annotations

import asyncio
import json
from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import Any

import structlog

from bot import events
from bot.bridge import messages
from bot.bridge.channel import MAX_MESSAGE_BYTES, BridgeChannel, Message
from bot.bridge.session import MediaSession
from bot.errors import BridgeMessageError
from bot.participant.channel import ChannelKeeper
from bot.participant.layout import AudioSubscription, Scene, constraints
from bot.participant.limits import TokenBucket
from bot.participant.own import OwnMedia
from bot.participant.quality import INTERVAL, QualityMeter
from bot.participant.sources import RemoteSources
from bot.participant.stay import Stay

log = structlog.get_logger(__name__)

#: Seconds between two constraints: speakers and tiles may change faster than the bridge can follow.
PAUSE = 0.5
#: Wishes are not held up by it, so many a second, and so many at once.
CHANGES, MAX_CHANGES = 2.0, 5
#: Messages to other participants: so many a second, and so many at once.
RATE, BURST = 10.0, 20
#: Participants whose statistics are kept.
MAX_STATISTICS = 500


class BridgeDialogue:
    """Speaks over the channel of each media session. ``on_map`` takes the sources that the bridge puts on SSRCs.

    ``sources`` are those that are known, for layouts that name them.
    """

    def __init__(
        self,
        stay: Stay,
        own: OwnMedia,
        sources: RemoteSources,
        *,
        on_map: Callable[[messages.SourcesMapped], None],
    ) -> None:
        self._stay = stay
        self._wishes = stay.wishes
        self._own = own
        self._sources = sources
        self._on_map = on_map
        self._channel: BridgeChannel | None = None
        self._told: dict[str, messages.VideoType] = {}
        self._sent: Message | None = None
        self._heard: AudioSubscription | None = None
        self._next = 0.0
        self._news = asyncio.Event()
        self._bucket = TokenBucket(RATE, BURST)
        self._changes = TokenBucket(CHANGES, MAX_CHANGES)
        self._scene = Scene(sources_of=sources.videos_of)
        #: The bridge's estimate of the way to us in bit/s, None before the first; lost with the media session.
        self.downlink: float | None = None
        #: The video sources that the bridge forwards to us.
        self.forwarded: tuple[str, ...] = ()
        #: Who speaks, ourselves included; None before the first.
        self.speaker: messages.DominantSpeaker | None = None
        #: What others last said of their connections, by endpoint.
        self.statistics: dict[str, messages.EndpointStatistics] = {}

    def __repr__(self) -> str:
        return f"<BridgeDialogue {self._wishes.layout.mode} {'open' if self.is_open else 'closed'}>"

    @property
    def is_open(self) -> bool:
        """Whether messages can be sent now."""
        return self._channel is not None

    # --- the channel ---

    async def hold(self, media: MediaSession) -> None:
        """Keep the channel of ``media`` open and speak over it, until cancelled."""
        if media.channel is None:
            return
        settings = self._stay.settings
        keeper = ChannelKeeper(
            media.channel,
            on_open=lambda away: self._opened(media, away),
            on_lost=lambda cause: self._lost(media, cause),
            timeout=settings.connect_timeout,
            sleep=self._stay.sleep,
            clock=self._stay.clock,
        )
        # Of a visitor nobody knows: web clients tell no statistics either.
        works = (self._follow(),) if self._stay.visitor else (self._follow(), self._measure(media))
        telling = [asyncio.ensure_future(work) for work in works]
        try:
            await keeper.run()
        finally:
            self._channel = None
            for task in telling:
                task.cancel()
            await asyncio.gather(*telling, return_exceptions=True)

    def ended(self) -> None:
        """The media session is over: what the bridge said of it does not hold any more."""
        self._channel, self.downlink = None, None
        self._forward(())

    def _opened(self, media: MediaSession, away: float) -> None:
        """Say all we want at once: before that the bridge sends no video."""
        channel = self._channel = media.channel
        assert channel is not None
        if away:
            self._stay.emit(events.BridgeChannelRecovered, channel=channel.name, seconds=away)
        else:
            self._stay.on_phase("channel")
        self._told, self._sent, self._heard, self._next = {}, None, None, 0.0
        self.published()
        self._subscribe()
        self._tell()

    def _lost(self, media: MediaSession, cause: str) -> None:
        self._channel = None
        name = media.channel.name if media.channel is not None else "none"
        self._stay.emit(events.BridgeChannelDegraded, channel=name, cause=cause)

    # --- what we want ---

    def refresh(self) -> None:
        """Tell the bridge what is wished now: at once, unless that changes all the time."""
        if self._changes.take(self._stay.clock()):
            self._next = 0.0
        self._tell()
        self._subscribe()

    def _subscribe(self) -> None:
        """Without a wish nothing is sent: older bridges do not know the message."""
        audio = self._wishes.audio
        if self._channel is not None and audio is not None and audio != self._heard:
            self._heard = audio
            self._channel.send(
                messages.audio_subscription(everyone=audio.everyone, include=audio.include, exclude=audio.exclude)
            )

    def occupants(self, others: int) -> None:
        """So many others are in the room."""
        if others != self._scene.others:
            self._scene = replace(self._scene, others=others)
            self._tell()

    def sources_changed(self) -> None:
        """Other remote sources are known than before."""
        self._tell()

    def _tell(self) -> None:
        """Send what is wanted now where that is something else; soon, if the last change was a moment ago."""
        channel, now = self._channel, self._stay.clock()
        if channel is None:
            return
        if now < self._next:
            self._news.set()
            return
        message = constraints(self._wishes.layout, replace(self._scene, desktops=self._sources.desktops))
        if message != self._sent:
            self._sent, self._next = message, now + PAUSE
            channel.send(message)

    async def _follow(self) -> None:
        """Send changes that had to wait."""
        while True:
            await self._news.wait()
            self._news.clear()
            await asyncio.sleep(max(0.0, self._next - self._stay.clock()))
            self._tell()

    # --- what we tell ---

    def send_message(self, payload: Mapping[str, Any], to: str = "") -> None:
        """Send a JSON object to the endpoint ``to``, or to all. Raises BridgeMessageError when that can't be."""
        message = messages.endpoint_message(to, payload)
        try:
            size = len(json.dumps(message, allow_nan=False))
        except (TypeError, ValueError, RecursionError) as error:
            raise BridgeMessageError(f"The message is no JSON object: {error}") from error
        if size > MAX_MESSAGE_BYTES:
            raise BridgeMessageError(f"The message has {size} bytes; {MAX_MESSAGE_BYTES} are the limit")
        if self._channel is None:
            raise BridgeMessageError("The bridge channel is not open")
        if not self._bucket.take(self._stay.clock()):
            raise BridgeMessageError(f"More than {RATE:g} messages a second, {BURST} at once")
        self._channel.send(message)

    def published(self) -> None:
        """Tell the bridge what our video sources show, where that is not what it was told before."""
        if self._channel is None:
            return
        for source, video_type in video_types(self._own.source_info).items():
            if self._told.get(source) != video_type:
                self._told[source] = video_type
                self._channel.send(messages.source_video_type(source, video_type))

    async def _measure(self, media: MediaSession) -> None:
        """Tell the others how our connection is, as often as web clients do."""
        meter = QualityMeter(media.totals(), self._stay.clock())
        while True:
            await asyncio.sleep(INTERVAL)
            message = meter.feed(media.totals(), self._stay.clock())
            if self._channel is not None:
                self._channel.send(message)

    # --- what the bridge tells ---

    def take(self, message: Message) -> None:
        """Take one message of the bridge: of a class that nobody knows, or malformed, it changes nothing."""
        try:
            told = messages.read(message)
        except messages.MalformedMessageError as error:
            log.warning(
                "A malformed bridge message was ignored",
                event_name="bridge_message_malformed",
                what=message["colibriClass"],
                cause=str(error),
            )
            return
        match told:
            case messages.SourcesMapped():
                self._on_map(told)
            case messages.DominantSpeaker():
                self._speaks(told)
            case messages.ForwardedSources(sources):
                self._forward(sources)
            case messages.ConnectionStatistics(downlink):
                self.downlink = downlink
            case messages.EndpointStatistics():
                self._keep(told)
            case messages.SenderConstraints(source, max_height):
                self._own.constrain(source, max_height)
            case messages.EndpointConnectivity(endpoint, active):
                self._stay.emit(events.EndpointConnectivityChanged, endpoint=endpoint, active=active)
            case messages.EndpointMessage(sender, payload):
                self._stay.emit(events.EndpointMessageReceived, endpoint=sender, payload=payload)
            case _:
                pass

    def left(self, endpoint: str) -> None:
        """Forget an endpoint that left the room."""
        self.statistics.pop(endpoint, None)
        if self._scene.speaker == endpoint:
            self._scene = replace(self._scene, speaker=None)
            self._tell()

    def _speaks(self, speaker: messages.DominantSpeaker) -> None:
        self.speaker = speaker
        self._stay.emit(
            events.DominantSpeakerChanged,
            endpoint=speaker.endpoint,
            previous=speaker.previous,
            silence=speaker.silence,
        )
        me = self._stay.connection.endpoint_id
        # While we speak ourselves, who spoke before stays on stage, as web clients have it.
        seen = next((name for name in (speaker.endpoint, *speaker.previous) if name != me), None)
        if seen is not None and seen != self._scene.speaker:
            self._scene = replace(self._scene, speaker=seen)
            self._tell()

    def _forward(self, sources: tuple[str, ...]) -> None:
        before, self.forwarded = self.forwarded, sources
        if set(before) != set(sources):
            entered = tuple(name for name in sources if name not in set(before))
            gone = tuple(name for name in before if name not in set(sources))
            self._stay.emit(events.ForwardedSourcesChanged, sources=sources, entered=entered, gone=gone)

    def _keep(self, told: messages.EndpointStatistics) -> None:
        self.statistics.pop(told.sender, None)
        self.statistics[told.sender] = told
        while len(self.statistics) > MAX_STATISTICS:
            del self.statistics[next(iter(self.statistics))]


def video_types(source_info: Mapping[str, object]) -> dict[str, messages.VideoType]:
    """What the bridge is told of our video sources: a muted one shows nothing."""
    found: dict[str, messages.VideoType] = {}
    for source, info in source_info.items():
        if isinstance(info, Mapping) and source.rpartition("-")[2].startswith("v"):
            shown: messages.VideoType = "desktop" if info.get("videoType") == "desktop" else "camera"
            found[source] = "none" if info.get("muted") is True else shown
    return found
