"""The Jingle model (XEP-0166, 0167, 0176, 0320, 0338, 0339, 0343 and Jitsi's own elements), as plain values."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from types import MappingProxyType
from typing import Literal

from bot.errors import ProtocolError

Media = Literal["audio", "video", "application"]

EXT_AUDIO_LEVEL = "urn:ietf:params:rtp-hdrext:ssrc-audio-level"
EXT_ABS_SEND_TIME = "http://www.webrtc.org/experiments/rtp-hdrext/abs-send-time"
EXT_TRANSPORT_CC = "http://www.ietf.org/id/draft-holmer-rmcat-transport-wide-cc-extensions-01"
EXT_DEPENDENCY_DESCRIPTOR = (
    "https://aomediacodec.github.io/av1-rtp-spec/#dependency-descriptor-rtp-header-extension"
)

EMPTY: Mapping[str, str] = MappingProxyType({})


class JingleError(ProtocolError):
    """A Jingle stanza that can't be used; ``condition`` is the stanza error (RFC 6120 section 8.3.3) to answer."""

    def __init__(self, message: str, condition: str = "bad-request") -> None:
        super().__init__(message)
        self.condition = condition


class Action(StrEnum):
    """Jingle actions (XEP-0166 section 7.2; ``source-*`` from XEP-0339's predecessor as Jitsi uses them)."""

    SESSION_INITIATE = "session-initiate"
    SESSION_ACCEPT = "session-accept"
    SESSION_INFO = "session-info"
    SESSION_TERMINATE = "session-terminate"
    TRANSPORT_INFO = "transport-info"
    TRANSPORT_REPLACE = "transport-replace"
    TRANSPORT_ACCEPT = "transport-accept"
    TRANSPORT_REJECT = "transport-reject"
    SOURCE_ADD = "source-add"
    SOURCE_REMOVE = "source-remove"


@dataclass(frozen=True, slots=True)
class RtcpFeedback:
    """A feedback message type that the payload type may use (RFC 4585, XEP-0293)."""

    type: str
    subtype: str | None = None


@dataclass(frozen=True, slots=True)
class PayloadType:
    """A payload type of the description (XEP-0167): ``id`` 0–127, ``clockrate`` in Hz."""

    id: int
    name: str
    clockrate: int
    channels: int = 1
    #: Left out of the hash: read-only mappings have none before Python 3.12.
    parameters: Mapping[str, str] = field(default_factory=lambda: EMPTY, hash=False)
    feedback: tuple[RtcpFeedback, ...] = ()

    @property
    def apt(self) -> int | None:
        """The payload type that an RTX payload type repairs (RFC 4588 section 8.1), None for others."""
        value = self.parameters.get("apt", "")
        return int(value) if value.isascii() and value.isdecimal() and len(value) <= 3 else None


@dataclass(frozen=True, slots=True)
class HeaderExtension:
    """An RTP header extension (RFC 8285, XEP-0294). Ids are per media in Jitsi's offers."""

    id: int
    uri: str


@dataclass(frozen=True, slots=True)
class Candidate:
    """An ICE candidate (XEP-0176 section 5.2)."""

    foundation: str
    component: int
    protocol: str
    priority: int
    ip: str
    port: int
    type: str
    generation: int = 0
    id: str = ""
    network: int = 0
    rel_addr: str | None = None
    rel_port: int | None = None
    tcptype: str | None = None


@dataclass(frozen=True, slots=True)
class Fingerprint:
    """A DTLS fingerprint (XEP-0320): ``setup`` is actpass, active or passive (RFC 5763)."""

    hash: str
    value: str
    setup: str


@dataclass(frozen=True, slots=True)
class SctpMap:
    """The SCTP association of the bridge channel (XEP-0343)."""

    number: int = 5000
    protocol: str = "webrtc-datachannel"
    streams: int = 1024


@dataclass(frozen=True, slots=True)
class Transport:
    """The ICE-UDP transport of a content (XEP-0176) with its DTLS, SCTP and colibri WebSocket parts."""

    ufrag: str = ""
    pwd: str = ""
    candidates: tuple[Candidate, ...] = ()
    fingerprints: tuple[Fingerprint, ...] = ()
    rtcp_mux: bool = False
    web_socket_url: str | None = None
    sctp: SctpMap | None = None


@dataclass(frozen=True, slots=True)
class Source:
    """One SSRC of a media source (XEP-0339). ``name`` is Jitsi's source name, as in ``7e4902cb-v0``.

    ``owner`` is the endpoint id of the participant it belongs to (``jvb`` for the bridge's own), None when the
    element does not say. ``video_type`` is ``camera`` or ``desktop``.
    """

    ssrc: int
    name: str | None = None
    owner: str | None = None
    msid: str | None = None
    video_type: str | None = None


@dataclass(frozen=True, slots=True)
class SourceGroup:
    """A group of SSRCs (RFC 5576 section 4.2, XEP-0339): FID (video + RTX) or SIM (simulcast layers)."""

    semantics: str
    ssrcs: tuple[int, ...]


@dataclass(frozen=True, slots=True)
class MediaSources:
    """Sources and groups of one media kind."""

    sources: tuple[Source, ...] = ()
    groups: tuple[SourceGroup, ...] = ()

    def __bool__(self) -> bool:
        return bool(self.sources or self.groups)

    def merged(self, other: MediaSources) -> MediaSources:
        """These and then ``other``'s."""
        return MediaSources(self.sources + other.sources, self.groups + other.groups)


@dataclass(frozen=True, slots=True)
class SourceMap:
    """Sources by media kind, whatever encoding they came in (XML elements or Jitsi's JSON)."""

    audio: MediaSources = MediaSources()
    video: MediaSources = MediaSources()

    def __bool__(self) -> bool:
        return bool(self.audio or self.video)

    def merged(self, other: SourceMap) -> SourceMap:
        """These and then ``other``'s."""
        return SourceMap(self.audio.merged(other.audio), self.video.merged(other.video))


@dataclass(frozen=True, slots=True)
class Content:
    """One content of a session (XEP-0166): ``audio``, ``video`` or ``data``. Its sources are in Jingle.sources."""

    name: str
    media: Media
    creator: str = "initiator"
    senders: str = "both"
    payload_types: tuple[PayloadType, ...] = ()
    header_extensions: tuple[HeaderExtension, ...] = ()
    extmap_allow_mixed: bool = False
    rtcp_mux: bool = False
    transport: Transport | None = None
    #: Longest packet, in milliseconds, that the sender of this description takes (XEP-0167 section 4).
    maxptime: int | None = None
    #: Feedback for all payload types of the content (XEP-0293 section 3), beside each one's own.
    feedback: tuple[RtcpFeedback, ...] = ()

    def extension_id(self, uri: str) -> int | None:
        """Id of the header extension ``uri`` in this content, None if it is not offered."""
        return next((ext.id for ext in self.header_extensions if ext.uri == uri), None)

    def payload_type(self, name: str) -> PayloadType | None:
        """First payload type with codec ``name`` (case-insensitive, RFC 3551), None if it is not offered."""
        wanted = name.lower()
        return next((pt for pt in self.payload_types if pt.name.lower() == wanted), None)

    def rtx_for(self, payload_type: int) -> PayloadType | None:
        """The RTX payload type that repairs ``payload_type`` (RFC 4588), None if it is not offered."""
        return next((pt for pt in self.payload_types if pt.name.lower() == "rtx" and pt.apt == payload_type), None)


@dataclass(frozen=True, slots=True)
class Reason:
    """Why a session ends (XEP-0166 section 7.4)."""

    condition: str
    text: str | None = None


@dataclass(frozen=True, slots=True)
class Jingle:
    """A whole ``<jingle/>`` element."""

    action: str
    sid: str
    initiator: str | None = None
    responder: str | None = None
    contents: tuple[Content, ...] = ()
    bundle: tuple[str, ...] = ()
    sources: SourceMap = SourceMap()
    bridge_session_id: str | None = None
    #: On session-terminate: ask the focus for a new session (``<bridge-session restart='true'>``).
    restart: bool | None = None
    #: On session-info: ask the focus to restart ICE in place (``<bridge-session ice-restart='true'>``).
    ice_restart: bool | None = None
    reason: Reason | None = None
    #: Set when the sources were, or shall be, written as Jitsi's JSON message.
    json_sources: bool = False
    #: session-info payloads, as names of child elements with their namespaces: ``{ns}name``.
    info: tuple[str, ...] = field(default=())

    def content(self, media: Media) -> Content | None:
        """First content of kind ``media``, None if there is none."""
        return next((content for content in self.contents if content.media == media), None)
