"""What is said on the bridge channel, each class of message as a type, and what we say. Pure.

Classes and fields are those of Videobridge's ``BridgeChannelMessage`` and lib-jitsi-meet's ``BridgeChannel``. What
comes was relayed from other participants or is another bridge's: every value is checked and bounded here.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import Any, Literal

from bot.bridge.channel import Message
from bot.bridge.streams import NamedSource, mapped_names
from bot.jingle.model import Media

#: Longest endpoint id or source name, and most of them in one message.
MAX_NAME = 256
MAX_NAMES = 4096
#: Deepest nesting of what another participant sends.
MAX_DEPTH = 32

VideoType = Literal["camera", "desktop", "desktop_high_fps", "none"]


class MalformedMessageError(ValueError):
    """A message of a known class does not have the fields that it must have; names the field."""


@dataclass(frozen=True, slots=True)
class DominantSpeaker:
    """Who speaks; ``previous`` spoke before, the latest first. ``silence``: nobody does now."""

    endpoint: str
    previous: tuple[str, ...] = ()
    silence: bool = False


@dataclass(frozen=True, slots=True)
class ForwardedSources:
    """The video sources that the bridge sends us now."""

    sources: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class EndpointConnectivity:
    """Whether the bridge still hears an endpoint."""

    endpoint: str
    active: bool


@dataclass(frozen=True, slots=True)
class EndpointMessage:
    """What another participant sends to us or to all."""

    sender: str
    payload: Mapping[str, Any]


@dataclass(frozen=True, slots=True)
class EndpointStatistics:
    """How another participant's connection is, as it says: kbit/s, percent, milliseconds. None: not said."""

    sender: str
    connection_quality: float | None = None
    round_trip: float | None = None
    upload: float | None = None
    download: float | None = None
    loss_upload: float | None = None
    loss_download: float | None = None
    max_height: float | None = None
    region: str | None = None


@dataclass(frozen=True, slots=True)
class ConnectionStatistics:
    """The bridge's estimate of the way to us in bit/s."""

    downlink: float


@dataclass(frozen=True, slots=True)
class SenderConstraints:
    """How tall a picture of our source is asked for; 0 is none."""

    source: str
    max_height: int


@dataclass(frozen=True, slots=True)
class SourcesMapped:
    """The SSRCs that the bridge has put sources on."""

    media: Media
    sources: tuple[NamedSource, ...]


Incoming = (
    DominantSpeaker
    | ForwardedSources
    | EndpointConnectivity
    | EndpointMessage
    | EndpointStatistics
    | ConnectionStatistics
    | SenderConstraints
    | SourcesMapped
)


def read(message: Message) -> Incoming | None:
    """The typed message; None for a class that we do not know. Raises MalformedMessageError."""
    reader = _READERS.get(message["colibriClass"])
    return None if reader is None else reader(message)


def _speaker(message: Message) -> DominantSpeaker:
    return DominantSpeaker(
        _name(message, "dominantSpeakerEndpoint"),
        _names(message.get("previousSpeakers") or (), "previousSpeakers"),
        message.get("silence") is True,
    )


def _forwarded(message: Message) -> ForwardedSources:
    return ForwardedSources(_names(message.get("forwardedSources"), "forwardedSources"))


def _connectivity(message: Message) -> EndpointConnectivity:
    """The bridge writes the boolean as a string."""
    active = message.get("active")
    if active not in ("true", "false", True, False):
        raise MalformedMessageError("active is no boolean")
    return EndpointConnectivity(_name(message, "endpoint"), active in ("true", True))


def _endpoint_message(message: Message) -> EndpointMessage:
    payload = message.get("msgPayload")
    if not isinstance(payload, Mapping):
        raise MalformedMessageError("msgPayload is no object")
    if _is_deeper(payload, MAX_DEPTH):
        raise MalformedMessageError(f"msgPayload is nested deeper than {MAX_DEPTH}")
    return EndpointMessage(_name(message, "from"), payload)


def _statistics(message: Message) -> EndpointStatistics:
    rate, loss = _object(message.get("bitrate")), _object(message.get("packetLoss"))
    region = message.get("serverRegion")
    return EndpointStatistics(
        _name(message, "from"),
        connection_quality=_number(message.get("connectionQuality")),
        round_trip=_number(message.get("jvbRTT")),
        upload=_number(rate.get("upload")),
        download=_number(rate.get("download")),
        loss_upload=_number(loss.get("upload")),
        loss_download=_number(loss.get("download")),
        max_height=_number(message.get("maxEnabledResolution")),
        region=region if _is_name(region) else None,
    )


def _connection(message: Message) -> ConnectionStatistics:
    downlink = _number(message.get("estimatedDownlinkBandwidth"))
    if downlink is None or downlink < 0:
        raise MalformedMessageError("estimatedDownlinkBandwidth is no rate")
    return ConnectionStatistics(downlink)


def _sender_constraints(message: Message) -> SenderConstraints:
    height = _number(message.get("maxHeight"))
    if height is None:
        raise MalformedMessageError("maxHeight is no number")
    return SenderConstraints(_name(message, "sourceName"), int(height))


def _mapped(message: Message) -> SourcesMapped:
    """Broken entries are left out: one source of many is no reason to lose the others."""
    entries = message.get("mappedSources")
    if not isinstance(entries, list) or len(entries) > MAX_NAMES:
        raise MalformedMessageError("mappedSources is no list, or too long")
    media: Media = "audio" if message["colibriClass"] == "AudioSourcesMap" else "video"
    named = (item for item in mapped_names(message) if _is_name(item.name) and _is_name(item.owner or "-"))
    return SourcesMapped(media, tuple(named))


_READERS: Mapping[str, Callable[[Message], Incoming]] = {
    "DominantSpeakerEndpointChangeEvent": _speaker,
    "ForwardedSources": _forwarded,
    "EndpointConnectivityStatusChangeEvent": _connectivity,
    "EndpointMessage": _endpoint_message,
    "EndpointStats": _statistics,
    "ConnectionStats": _connection,
    "SenderSourceConstraints": _sender_constraints,
    "VideoSourcesMap": _mapped,
    "AudioSourcesMap": _mapped,
}


# --- values --------------------------------------------------------------------------------------------------


def _is_name(value: object) -> bool:
    return isinstance(value, str) and 0 < len(value) <= MAX_NAME and value.isprintable()


def _name(message: Message, key: str) -> str:
    value = message.get(key)
    if not isinstance(value, str) or not _is_name(value):
        raise MalformedMessageError(f"{key} is no name")
    return value


def _names(values: object, key: str) -> tuple[str, ...]:
    if not isinstance(values, (list, tuple)) or len(values) > MAX_NAMES or not all(map(_is_name, values)):
        raise MalformedMessageError(f"{key} is no list of names, or too long")
    return tuple(values)


def _number(value: object) -> float | None:
    """A finite number, exact as a double; anything else is as good as none."""
    if isinstance(value, bool) or not isinstance(value, (int, float)):
        return None
    return float(value) if abs(value) <= 2**53 else None  # false for NaN


def _object(value: object) -> Mapping[str, Any]:
    return value if isinstance(value, Mapping) else {}


def _is_deeper(value: object, depth: int) -> bool:
    level: list[object] = [value]
    for _ in range(depth):
        level = [child for item in level for child in _children(item)]
        if not level:
            return False
    return True


def _children(value: object) -> Iterable[object]:
    if isinstance(value, Mapping):
        return value.values()
    return value if isinstance(value, list) else ()


# --- what we say ---------------------------------------------------------------------------------------------


def endpoint_message(to: str, payload: Mapping[str, Any]) -> Message:
    """A message to the endpoint ``to``, or to all where it is empty."""
    return {"colibriClass": "EndpointMessage", "msgPayload": dict(payload), "to": to}


def source_video_type(source: str, video_type: VideoType) -> Message:
    """What our video source shows: the bridge treats shared screens in another way than cameras."""
    return {"colibriClass": "SourceVideoTypeMessage", "sourceName": source, "videoType": video_type}


def audio_subscription(*, everyone: bool, include: Iterable[str] = (), exclude: Iterable[str] = ()) -> Message:
    """Whose sound we want: ``everyone``, and ``include`` besides, but never ``exclude``."""
    return {
        "colibriClass": "ReceiverAudioSubscription",
        "all": everyone,
        "exclude": list(exclude),
        "include": list(include),
    }
