"""From XML elements to the Jingle model. Unknown elements are left out; what is broken raises JingleError."""

from __future__ import annotations

import xml.etree.ElementTree as ET
from collections.abc import Iterable, Iterator
from types import MappingProxyType
from typing import Final, TypeGuard

from bot.jingle import names
from bot.jingle.elements import children, flag, number, optional_number, required
from bot.jingle.jsonsources import sources_from_json
from bot.jingle.model import (
    EMPTY,
    Action,
    Candidate,
    Content,
    Fingerprint,
    HeaderExtension,
    Jingle,
    JingleError,
    Media,
    MediaSources,
    PayloadType,
    Reason,
    RtcpFeedback,
    SctpMap,
    Source,
    SourceGroup,
    SourceMap,
    Transport,
)
from bot.jingle.names import clark, local_name

_BRIDGE_SESSION: Final = clark(names.FOCUS, "bridge-session")
_JSON_MESSAGE: Final = clark(names.JITMEET, "json-message")
#: Contents are told apart by the name where they have no description (as in a web client's ``data``).
_MEDIA_BY_NAME: Final[dict[str, Media]] = {
    "audio": "audio",
    "video": "video",
    "data": "application",
    "application": "application",
}


def parse_jingle(element: ET.Element) -> Jingle:
    """Read a ``<jingle/>`` element (XEP-0166), in whatever order its children come.

    Sources come as elements (XEP-0339) or as Jitsi's JSON message; both end in ``Jingle.sources``. Raises
    JingleError, which names the element and the attribute.
    """
    if element.tag != clark(names.JINGLE, "jingle"):
        raise JingleError(f"<{local_name(str(element.tag))}> is not a Jingle element")
    action = required(element, "action")
    contents = children(element, clark(names.JINGLE, "content"))
    message = next(_json_messages(element), None)
    sources = _sources(contents)
    if message is not None:
        sources = _bounded(sources.merged(message))
    bridge = element.find(_BRIDGE_SESSION)
    return Jingle(
        action=action,
        sid=required(element, "sid"),
        initiator=element.get("initiator"),
        responder=element.get("responder"),
        contents=tuple(_content(child, media) for child in contents if (media := _media(child))),
        bundle=_bundle(element),
        sources=sources,
        bridge_session_id=None if bridge is None else bridge.get("id"),
        restart=None if bridge is None else flag(bridge, "restart"),
        ice_restart=None if bridge is None else flag(bridge, "ice-restart"),
        reason=_reason(element.find(clark(names.JINGLE, "reason"))),
        json_sources=message is not None,
        info=tuple(_info(element)) if action == Action.SESSION_INFO else (),
    )


# --- contents ----------------------------------------------------------------------------------------------


def _description(content: ET.Element) -> ET.Element | None:
    return content.find(clark(names.RTP, "description"))


def _media(content: ET.Element) -> Media | None:
    """Kind of a content: what its description says, else its name (as Jicofo does). None for foreign ones."""
    description = _description(content)
    if description is None:
        return _MEDIA_BY_NAME.get(required(content, "name").lower())
    return _MEDIA_BY_NAME.get(required(description, "media").lower())


def _content(element: ET.Element, media: Media) -> Content:
    description = _description(element)
    if description is None:
        description = ET.Element(clark(names.RTP, "description"))
    transport = element.find(clark(names.ICE_UDP, "transport"))
    extensions = children(description, clark(names.RTP_HDREXT, "rtp-hdrext"))
    return Content(
        name=required(element, "name"),
        media=media,
        creator=element.get("creator", "initiator"),
        senders=element.get("senders", "both"),
        payload_types=tuple(map(_payload_type, children(description, clark(names.RTP, "payload-type")))),
        header_extensions=tuple(
            HeaderExtension(number(extension, "id", 1, 255), required(extension, "uri"))
            for extension in extensions
        ),
        extmap_allow_mixed=description.find(clark(names.RTP_HDREXT, "extmap-allow-mixed")) is not None,
        rtcp_mux=description.find(clark(names.RTP, "rtcp-mux")) is not None,
        transport=None if transport is None else _transport(transport),
        maxptime=optional_number(description, "maxptime", 100_000),
        feedback=_feedback(description),
    )


def _payload_type(element: ET.Element) -> PayloadType:
    parameters = {
        name: parameter.get("value", "")
        for parameter in children(element, clark(names.RTP, "parameter"))
        if (name := parameter.get("name"))
    }
    return PayloadType(
        id=number(element, "id", 0, 127),
        name=element.get("name", ""),
        clockrate=number(element, "clockrate", 0, names.MAX_SSRC, default=0),
        channels=number(element, "channels", 1, 255, default=1),
        parameters=MappingProxyType(parameters) if parameters else EMPTY,
        feedback=_feedback(element),
    )


def _feedback(element: ET.Element) -> tuple[RtcpFeedback, ...]:
    found = children(element, clark(names.RTCP_FB, "rtcp-fb"))
    return tuple(RtcpFeedback(required(item, "type"), item.get("subtype")) for item in found)


# --- transport ---------------------------------------------------------------------------------------------


def _transport(element: ET.Element) -> Transport:
    web_socket = element.find(clark(names.COLIBRI, "web-socket"))
    sctp = element.find(clark(names.DTLS_SCTP, "sctpmap"))
    return Transport(
        ufrag=element.get("ufrag", ""),
        pwd=element.get("pwd", ""),
        candidates=tuple(map(_candidate, children(element, clark(names.ICE_UDP, "candidate")))),
        fingerprints=tuple(map(_fingerprint, children(element, clark(names.DTLS, "fingerprint")))),
        rtcp_mux=element.find(clark(names.ICE_UDP, "rtcp-mux")) is not None,
        web_socket_url=None if web_socket is None else web_socket.get("url"),
        sctp=None if sctp is None else _sctp(sctp),
    )


def _candidate(element: ET.Element) -> Candidate:
    return Candidate(
        foundation=required(element, "foundation"),
        component=number(element, "component", 1, 256),
        protocol=required(element, "protocol"),
        priority=number(element, "priority", 0, names.MAX_SSRC),
        ip=required(element, "ip"),
        port=number(element, "port", 0, 65_535),
        type=required(element, "type"),
        generation=number(element, "generation", 0, names.MAX_SSRC, default=0),
        id=element.get("id", ""),
        network=number(element, "network", 0, names.MAX_SSRC, default=0),
        rel_addr=element.get("rel-addr"),
        rel_port=optional_number(element, "rel-port", 65_535),
        tcptype=element.get("tcptype"),
    )


def _fingerprint(element: ET.Element) -> Fingerprint:
    value = (element.text or "").strip()
    if not value:
        raise JingleError("<fingerprint> is empty")
    return Fingerprint(required(element, "hash"), value, element.get("setup", "actpass"))


def _sctp(element: ET.Element) -> SctpMap:
    return SctpMap(
        number=number(element, "number", 0, 65_535),
        protocol=element.get("protocol", "webrtc-datachannel"),
        streams=number(element, "streams", 0, 65_536, default=1024),
    )


# --- sources -----------------------------------------------------------------------------------------------


def _json_messages(element: ET.Element) -> Iterator[SourceMap]:
    for child in children(element, _JSON_MESSAGE):
        sources = sources_from_json(child.text or "")
        if sources is not None:
            yield sources


def _bounded(sources: SourceMap) -> SourceMap:
    """``sources``; JingleError where they are more than a stanza may carry."""
    count = sum(len(media.sources) for media in (sources.audio, sources.video))
    groups = sum(len(media.groups) for media in (sources.audio, sources.video))
    if max(count, groups) > names.MAX_SOURCES:
        raise JingleError(f"<jingle> has more than {names.MAX_SOURCES} sources or groups", "resource-constraint")
    return sources


def _sources(contents: Iterable[ET.Element]) -> SourceMap:
    """Sources of all contents; Jicofo takes them from the description and from the content itself."""
    found = SourceMap()
    for content in contents:
        media = _media(content)
        for parent in (_description(content), content):
            if parent is None or media not in {"audio", "video"}:
                continue
            part = _media_sources(parent)
            found = _bounded(found.merged(SourceMap(audio=part) if media == "audio" else SourceMap(video=part)))
    return found


def _media_sources(parent: ET.Element) -> MediaSources:
    return MediaSources(
        tuple(map(_source, children(parent, clark(names.SSMA, "source"), names.MAX_SOURCES))),
        tuple(map(_group, children(parent, clark(names.SSMA, "ssrc-group"), names.MAX_SOURCES))),
    )


def _source(element: ET.Element) -> Source:
    # XEP-0339 has parameters in the source's own namespace; Jicofo's library writes them in RTP's.
    parameters = [
        item for space in (names.SSMA, names.RTP) for item in children(element, clark(space, "parameter"))
    ]
    info = element.find(clark(names.JITMEET, "ssrc-info"))
    owner = None if info is None else info.get("owner")
    return Source(
        ssrc=number(element, "ssrc", 0, names.MAX_SSRC),
        name=element.get("name"),
        # The owner was a full room JID once; its resource is the endpoint id that Jicofo writes today.
        owner=owner and owner.rpartition("/")[2],
        msid=next((item.get("value") for item in parameters if item.get("name") == "msid"), None),
        video_type=element.get("videoType"),
    )


def _group(element: ET.Element) -> SourceGroup:
    members = children(element, clark(names.SSMA, "source"), names.MAX_GROUP)
    ssrcs = tuple(number(member, "ssrc", 0, names.MAX_SSRC) for member in members)
    return SourceGroup(required(element, "semantics").upper(), ssrcs)


# --- the rest ----------------------------------------------------------------------------------------------


def _bundle(element: ET.Element) -> tuple[str, ...]:
    """Names in the BUNDLE group (XEP-0338), empty where there is none."""
    for group in children(element, clark(names.GROUPING, "group")):
        if group.get("semantics") == "BUNDLE":
            return tuple(required(child, "name") for child in children(group, clark(names.GROUPING, "content")))
    return ()


def _reason(element: ET.Element | None) -> Reason | None:
    if element is None:
        return None
    text = element.findtext(clark(names.JINGLE, "text"))
    named = (local_name(child.tag) for child in element if _is_named(child))
    return Reason(next((name for name in named if name != "text"), "general-error"), text)


def _is_named(element: ET.Element) -> TypeGuard[ET.Element]:
    """False for comments and processing instructions, which ElementTree keeps beside elements."""
    return isinstance(element.tag, str)


def _info(element: ET.Element) -> Iterator[str]:
    """Names of session-info payloads: children that are neither Jingle's own nor Jitsi's bridge session."""
    for child in element:
        if not _is_named(child) or child.tag in {_BRIDGE_SESSION, _JSON_MESSAGE}:
            continue
        if not child.tag.startswith((f"{{{names.JINGLE}}}", f"{{{names.GROUPING}}}", f"{{{names.TRACING}}}")):
            yield child.tag
