"""What the focus offers to a participant with given features (Jicofo's offers as recorded). Pure."""

from __future__ import annotations

import random
from collections.abc import Iterable
from dataclasses import dataclass, replace
from types import MappingProxyType
from xml.etree import ElementTree as ET

from bot.embedded.stanza import element
from bot.jingle.codec import build_jingle
from bot.jingle.model import (
    EXT_ABS_SEND_TIME,
    EXT_AUDIO_LEVEL,
    EXT_DEPENDENCY_DESCRIPTOR,
    EXT_TRANSPORT_CC,
    Action,
    Content,
    HeaderExtension,
    Jingle,
    Media,
    MediaSources,
    PayloadType,
    RtcpFeedback,
    SctpMap,
    Source,
    SourceGroup,
    SourceMap,
    Transport,
)

TRANSPORT_CC_ID = 5
AUDIO_LEVEL_ID = 1
BRIDGE = "jvb"

_FIR, _NACK, _PLI = RtcpFeedback("ccm", "fir"), RtcpFeedback("nack"), RtcpFeedback("nack", "pli")
_TRANSPORT_CC = RtcpFeedback("transport-cc")
_H264_PROFILE = {"profile-level-id": "42e01f;level-asymmetry-allowed=1;packetization-mode=1;"}

#: Name, payload type and, for video, the one of its retransmissions.
VP8_ID = 100
_VIDEO_CODECS = (("AV1", 41, 42), ("VP8", VP8_ID, 96), ("H264", 107, 99), ("VP9", 101, 97))
CLOCK_RATES = MappingProxyType(
    {111: 48_000, 126: 8_000, **{number: 90_000 for _, *both in _VIDEO_CODECS for number in both}}
)


@dataclass(frozen=True, slots=True)
class Features:
    """What decides about an offer, from the features that a participant advertises (XEP-0030)."""

    audio: bool = True
    video: bool = True
    rtx: bool = False
    transport_cc: bool = True
    sctp: bool = False
    json_sources: bool = False
    rewriting: bool = False

    @classmethod
    def parse(cls, advertised: Iterable[str]) -> Features:
        """Features by name. The SCTP channel needs JSON sources too: Jicofo leaves it out otherwise."""
        known = frozenset(advertised)
        json_sources = "http://jitsi.org/json-encoded-sources" in known
        return cls(
            audio="urn:xmpp:jingle:apps:rtp:audio" in known,
            video="urn:xmpp:jingle:apps:rtp:video" in known,
            rtx="urn:ietf:rfc:4588" in known,
            transport_cc="http://jitsi.org/tcc" in known,
            sctp=json_sources and "urn:xmpp:jingle:transports:dtls-sctp:1" in known,
            json_sources=json_sources,
            rewriting="http://jitsi.org/ssrc-rewriting-1" in known,
        )


def build_offer(
    features: Features,
    transport: Transport,
    *,
    sid: str,
    initiator: str,
    bridge_session: str,
    sources: SourceMap,
) -> ET.Element:
    """The session-initiate for one participant. ``sources`` have their owners as the encoding wants them."""
    contents = []
    if features.audio:
        contents.append(_content("audio", "audio", transport, _audio_types(features), _audio_extensions(features)))
    if features.video:
        contents.append(_content("video", "video", transport, _video_types(features), _video_extensions(features)))
    if features.sctp:
        data = Content("data", "application", rtcp_mux=True, transport=replace(transport, sctp=SctpMap()))
        contents.append(data)
    jingle = Jingle(
        action=Action.SESSION_INITIATE,
        sid=sid,
        initiator=initiator,
        contents=tuple(contents),
        bundle=tuple(content.name for content in contents),
        sources=sources,
        bridge_session_id=bridge_session,
        json_sources=features.json_sources,
    )
    return _as_jicofo_does(build_jingle(jingle))


def _as_jicofo_does(jingle: ET.Element) -> ET.Element:
    """Add what only offers have: the cryptex flag of the fingerprint and the trace parent."""
    for fingerprint in jingle.iter("{urn:xmpp:jingle:apps:dtls:0}fingerprint"):
        fingerprint.set("cryptex", "false")
    none = {"parent_id": "0" * 16, "trace_id": "0" * 32, "trace_flags": "00"}
    jingle.append(element("traceparent", "jitsi:opentelemetry", none))
    return jingle


def _content(
    name: str,
    media: Media,
    transport: Transport,
    payload_types: list[PayloadType],
    extensions: list[HeaderExtension],
) -> Content:
    return Content(
        name,
        media,
        payload_types=tuple(payload_types),
        header_extensions=tuple(extensions),
        extmap_allow_mixed=True,
        rtcp_mux=True,
        transport=transport,
        maxptime=60 if media == "audio" else None,
    )


def _audio_types(features: Features) -> list[PayloadType]:
    feedback = (_TRANSPORT_CC,) if features.transport_cc else ()
    opus = PayloadType(111, "opus", 48_000, 2, {"minptime": "10", "useinbandfec": "1"}, feedback)
    return [opus, PayloadType(126, "telephone-event", 8_000)]


def _video_types(features: Features) -> list[PayloadType]:
    feedback = (_FIR, _NACK, _PLI, *((_TRANSPORT_CC,) if features.transport_cc else ()))
    codecs = [
        PayloadType(number, name, 90_000, 1, _H264_PROFILE if name == "H264" else {}, feedback)
        for name, number, _ in _VIDEO_CODECS
    ]
    if not features.rtx:
        return codecs
    repairs = [
        PayloadType(rtx, "rtx", 90_000, 1, {"apt": str(number)}, () if name == "H264" else (_FIR, _NACK, _PLI))
        for name, number, rtx in sorted(_VIDEO_CODECS, key=lambda codec: codec[2])
    ]
    return [*codecs, *repairs]


def _audio_extensions(features: Features) -> list[HeaderExtension]:
    found = [HeaderExtension(AUDIO_LEVEL_ID, EXT_AUDIO_LEVEL)]
    return [*found, HeaderExtension(TRANSPORT_CC_ID, EXT_TRANSPORT_CC)] if features.transport_cc else found


def _video_extensions(features: Features) -> list[HeaderExtension]:
    found = [HeaderExtension(11, EXT_DEPENDENCY_DESCRIPTOR), HeaderExtension(3, EXT_ABS_SEND_TIME)]
    return [*found, HeaderExtension(TRANSPORT_CC_ID, EXT_TRANSPORT_CC)] if features.transport_cc else found


# --- sources ------------------------------------------------------------------------------------------------


def bridge_sources(rng: random.Random) -> SourceMap:
    """The bridge's own sources, on whose SSRCs it sends feedback."""
    video, audio = rng.sample(range(1, 2**32), 2)
    return SourceMap(
        audio=MediaSources((Source(audio, "jvb-a0", BRIDGE, "mixedmslabel mixedlabelaudio0"),)),
        video=MediaSources((Source(video, "jvb-v0", BRIDGE, "mixedmslabel mixedlabelvideo0"),)),
    )


def owned(sources: SourceMap, endpoint: str) -> SourceMap:
    """The sources of a participant, with his id as owner, and with names where his client gives none."""
    return SourceMap(
        audio=_owned(sources.audio, endpoint, f"{endpoint}-a0"),
        video=_owned(sources.video, endpoint, f"{endpoint}-v0"),
    )


def _owned(sources: MediaSources, endpoint: str, name: str) -> MediaSources:
    return MediaSources(
        tuple(replace(source, owner=endpoint, name=source.name or name) for source in sources.sources),
        sources.groups,
    )


def with_owner(sources: SourceMap, owner: str) -> SourceMap:
    """The same sources with another spelling of their owner."""
    return SourceMap(
        audio=MediaSources(tuple(replace(s, owner=owner) for s in sources.audio.sources), sources.audio.groups),
        video=MediaSources(tuple(replace(s, owner=owner) for s in sources.video.sources), sources.video.groups),
    )


def strip_simulcast(sources: SourceMap) -> SourceMap:
    """What receivers are told of a simulcast sender: its first layer with the RTX of that."""
    dropped: set[int] = set()
    for group in sources.video.groups:
        if group.semantics == "SIM":
            dropped.update(group.ssrcs[1:])
    for group in sources.video.groups:
        if group.semantics == "FID" and group.ssrcs[0] in dropped:
            dropped.update(group.ssrcs)
    groups = tuple(
        group for group in sources.video.groups if group.semantics != "SIM" and dropped.isdisjoint(group.ssrcs)
    )
    kept = tuple(source for source in sources.video.sources if source.ssrc not in dropped)
    return SourceMap(sources.audio, MediaSources(kept, groups))


def subtract(sources: SourceMap, other: SourceMap) -> SourceMap:
    """What of ``sources`` is not in ``other`` (sources by SSRC)."""
    return SourceMap(_subtract(sources.audio, other.audio), _subtract(sources.video, other.video))


def _subtract(sources: MediaSources, other: MediaSources) -> MediaSources:
    known = {source.ssrc for source in other.sources}
    groups: set[SourceGroup] = set(other.groups)
    return MediaSources(
        tuple(source for source in sources.sources if source.ssrc not in known),
        tuple(group for group in sources.groups if group not in groups),
    )


def without(sources: SourceMap, removed: SourceMap) -> SourceMap:
    """``sources`` less those of ``removed``, by SSRC, and less the groups that name one of them or are removed."""
    return SourceMap(_without(sources.audio, removed.audio), _without(sources.video, removed.video))


def _without(sources: MediaSources, removed: MediaSources) -> MediaSources:
    gone = {source.ssrc for source in removed.sources}
    return MediaSources(
        tuple(source for source in sources.sources if source.ssrc not in gone),
        tuple(group for group in sources.groups if gone.isdisjoint(group.ssrcs) and group not in removed.groups),
    )


def ssrcs(sources: SourceMap) -> set[int]:
    """All SSRCs of the map."""
    return {source.ssrc for part in (sources.audio, sources.video) for source in part.sources}
