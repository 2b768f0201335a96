"""The bridge channels of one room: what the bridge says by itself, and what it passes on. Pure."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from bot.embedded.offer import strip_simulcast
from bot.jingle.model import MediaSources, SourceMap

Message = Mapping[str, Any]
Messages = list[tuple[str, Message]]

STATS_INTERVAL = 10.0
#: Asked for by a receiver who names no height (Videobridge's default), and by one without any channel.
DEFAULT_HEIGHT, HEIGHT_WITHOUT_CHANNEL = 180, 720


@dataclass(eq=False, slots=True)
class _Endpoint:
    rewriting: bool
    sources: SourceMap = field(default_factory=SourceMap)
    constraints: Message | None = None
    open: bool = False
    #: What was told last, by kind of message, to tell only what is new.
    told: dict[str, Any] = field(default_factory=dict)
    next_stats: float = 0.0


class ChannelHub:
    """Endpoints by id. Methods return ``(endpoint, message)`` to send."""

    def __init__(self) -> None:
        self._endpoints: dict[str, _Endpoint] = {}
        self._speakers: list[str] = []

    def add(self, endpoint: str, *, rewriting: bool) -> None:
        """Let an endpoint in; its channel opens later."""
        self._endpoints[endpoint] = _Endpoint(rewriting)

    def remove(self, endpoint: str) -> Messages:
        """Forget an endpoint."""
        self._endpoints.pop(endpoint, None)
        if endpoint in self._speakers:
            self._speakers.remove(endpoint)
        return self._news()

    def set_sources(self, endpoint: str, sources: SourceMap) -> Messages:
        """Take these as what the endpoint sends."""
        if endpoint not in self._endpoints:
            return []
        self._endpoints[endpoint].sources = strip_simulcast(sources)
        return self._news()

    def opened(self, endpoint: str, now: float, *, web_socket: bool) -> Messages:
        """Greet an endpoint whose channel is open now."""
        state = self._endpoints.get(endpoint)
        if state is None:
            return []
        state.open = True
        state.told.clear()
        state.next_stats = now + STATS_INTERVAL
        greeting: Messages = [(endpoint, {"colibriClass": "ServerHello"})] if web_socket else []
        if self._speakers:
            greeting.append((endpoint, self._speaker_event()))
        return [*greeting, *self._news()]

    def closed(self, endpoint: str) -> Messages:
        """Note that an endpoint's last channel is gone."""
        if (state := self._endpoints.get(endpoint)) is not None:
            state.open = False
        return self._news()

    # --- from the endpoints -------------------------------------------------------------------------------

    def feed(self, endpoint: str, message: Message) -> Messages:
        """Take a message of an endpoint; what is unknown is ignored."""
        state = self._endpoints.get(endpoint)
        if state is None:
            return []
        match message.get("colibriClass"):
            case "ClientHello":
                return [(endpoint, {"colibriClass": "ServerHello"})]
            case "ReceiverVideoConstraints":
                state.constraints = message
                return self._news()
            case "EndpointMessage":
                return self._relay(endpoint, message)
            case "EndpointStats":
                return self._to_others(endpoint, {**message, "from": endpoint})
            case _:
                return []

    def _relay(self, sender: str, message: Message) -> Messages:
        target = message.get("to")
        stamped = {**message, "from": sender}
        if not target:
            return self._to_others(sender, stamped)
        state = self._endpoints.get(target) if isinstance(target, str) else None
        return [(str(target), stamped)] if state is not None and state.open else []

    def _to_others(self, sender: str, message: Message) -> Messages:
        return [(name, message) for name, state in self._endpoints.items() if name != sender and state.open]

    # --- from the bridge -----------------------------------------------------------------------------------

    def speaker(self, endpoint: str) -> Messages:
        """Tell everybody who speaks now."""
        if endpoint in self._speakers:
            self._speakers.remove(endpoint)
        self._speakers.insert(0, endpoint)
        del self._speakers[10:]
        event = self._speaker_event()
        return [(name, event) for name, state in self._endpoints.items() if state.open]

    def _speaker_event(self) -> Message:
        return {
            "colibriClass": "DominantSpeakerEndpointChangeEvent",
            "dominantSpeakerEndpoint": self._speakers[0],
            "previousSpeakers": self._speakers[1:],
            "silence": False,
        }

    def statistics(self, endpoint: str, now: float, bandwidth: int) -> Messages:
        """ConnectionStats for an endpoint whose time it is; ``bandwidth`` in bit/s."""
        state = self._endpoints.get(endpoint)
        if state is None or not state.open or now < state.next_stats:
            return []
        state.next_stats = now + STATS_INTERVAL
        return [(endpoint, {"colibriClass": "ConnectionStats", "estimatedDownlinkBandwidth": bandwidth})]

    def _news(self) -> Messages:
        """What has changed for each endpoint since it was told last."""
        found: Messages = []
        for name, state in self._endpoints.items():
            if state.open:
                found += [(name, message) for message in self._news_for(name, state)]
        return found

    def _news_for(self, name: str, state: _Endpoint) -> list[Message]:
        news: list[Message] = []
        for source in _primaries(state.sources.video):
            height = self._wanted_height(name, source[0])
            if _new(state, f"constraints {source[0]}", height):
                news.append(
                    {"colibriClass": "SenderSourceConstraints", "sourceName": source[0], "maxHeight": height}
                )
        if state.rewriting:
            news += self._maps(name, state)
        forwarded = [] if state.constraints is None else self._names_of_others(name)
        if _new(state, "forwarded", forwarded):
            news.append({"colibriClass": "ForwardedSources", "forwardedSources": forwarded})
        return news

    def _maps(self, name: str, state: _Endpoint) -> list[Message]:
        news: list[Message] = []
        video = [
            {"source": source, "owner": other, "ssrc": ssrc, "rtx": rtx, "videoType": kind.upper()}
            for other, theirs in self._endpoints.items()
            if other != name
            for source, ssrc, rtx, kind in _primaries(theirs.sources.video)
        ]
        audio = [
            {"source": source.name, "owner": other, "ssrc": source.ssrc}
            for other, theirs in self._endpoints.items()
            if other != name
            for source in theirs.sources.audio.sources
        ]
        for kind, mapped in (("VideoSourcesMap", video), ("AudioSourcesMap", audio)):
            if _new(state, kind, mapped) and (mapped or kind in state.told.get("mapped", ())):
                state.told.setdefault("mapped", set()).add(kind)
                news.append({"colibriClass": kind, "mappedSources": mapped})
        return news

    def _names_of_others(self, name: str) -> list[str]:
        return [
            source[0]
            for other, theirs in self._endpoints.items()
            if other != name
            for source in _primaries(theirs.sources.video)
        ]

    def height(self, receiver: str, owner: str, source: str) -> int:
        """Height in pixels that ``receiver`` asks of a source."""
        state = self._endpoints.get(receiver)
        return 0 if state is None else _height(state, owner, source)

    def _wanted_height(self, owner: str, source: str) -> int:
        heights = [_height(state, owner, source) for name, state in self._endpoints.items() if name != owner]
        return max(heights, default=0)


def _new(state: _Endpoint, key: str, value: object) -> bool:
    if key in state.told and state.told[key] == value:
        return False
    state.told[key] = value
    return True


def _primaries(video: MediaSources) -> list[tuple[str, int, int, str]]:
    """Name, SSRC, RTX SSRC (0 without one) and video type of each video source."""
    repairs = {group.ssrcs[0]: group.ssrcs[1] for group in video.groups if group.semantics == "FID"}
    secondary = set(repairs.values())
    return [
        (source.name or "", source.ssrc, repairs.get(source.ssrc, 0), source.video_type or "camera")
        for source in video.sources
        if source.ssrc not in secondary
    ]


def _height(state: _Endpoint, owner: str, source: str) -> int:
    """Height in pixels that one receiver asks of ``source``. Older clients name endpoints, not sources."""
    if not state.open:
        return HEIGHT_WITHOUT_CHANNEL
    constraints = state.constraints
    if constraints is None or constraints.get("lastN") == 0:
        return 0
    named = constraints.get("constraints")
    entry = named.get(source, named.get(owner)) if isinstance(named, dict) else None
    if not isinstance(entry, dict):
        entry = constraints.get("defaultConstraints")
    height = entry.get("maxHeight") if isinstance(entry, dict) else None
    if isinstance(height, bool) or not isinstance(height, int | float) or not math.isfinite(height):
        return DEFAULT_HEIGHT  # JSON as Python reads it has NaN and Infinity, too
    return 2160 if height < 0 else min(int(height), 2160)
