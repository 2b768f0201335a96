"""From the Jingle model to XML elements: what a participant sends and what a focus sends."""

from __future__ import annotations

import xml.etree.ElementTree as ET
from typing import Final

from bot.jingle import names
from bot.jingle.jsonsources import sources_to_json
from bot.jingle.model import (
    Candidate,
    Content,
    Jingle,
    MediaSources,
    PayloadType,
    RtcpFeedback,
    Source,
    SourceGroup,
    Transport,
)
from bot.jingle.names import clark

_NO_SOURCES: Final = MediaSources()


def build_jingle(jingle: Jingle) -> ET.Element:
    """Write a ``<jingle/>`` element, its children in the order that Jicofo writes them.

    Sources go into the contents of their kind (made where they are missing), or into one JSON message where
    ``json_sources`` is set.
    """
    element = ET.Element(clark(names.JINGLE, "jingle"), {"action": str(jingle.action)})
    _set(element, initiator=jingle.initiator, responder=jingle.responder, sid=jingle.sid)
    _add_reason(element, jingle)
    _add_contents(element, jingle)
    _add_bundle(element, jingle.bundle)
    _add_bridge_session(element, jingle)
    if jingle.json_sources:
        _add(element, names.JITMEET, "json-message").text = sources_to_json(jingle.sources)
    for name in jingle.info:
        ET.SubElement(element, name)
    return element


def _set(element: ET.Element, /, **attributes: object) -> None:
    """Set attributes, ``_`` in their names for ``-``; None leaves one out."""
    for name, value in attributes.items():
        if value is not None:
            element.set(name.replace("_", "-"), str(value))


def _add(parent: ET.Element, namespace: str, tag: str, /, **attributes: object) -> ET.Element:
    child = ET.SubElement(parent, clark(namespace, tag))
    _set(child, **attributes)
    return child


def _word(flag: bool | None) -> str | None:
    return None if flag is None else str(flag).lower()


def _add_reason(element: ET.Element, jingle: Jingle) -> None:
    if jingle.reason is None:
        return
    reason = _add(element, names.JINGLE, "reason")
    _add(reason, names.JINGLE, jingle.reason.condition)
    if jingle.reason.text is not None:
        _add(reason, names.JINGLE, "text").text = jingle.reason.text


def _add_bundle(element: ET.Element, bundle: tuple[str, ...]) -> None:
    if bundle:
        group = _add(element, names.GROUPING, "group", semantics="BUNDLE")
        for name in bundle:
            _add(group, names.GROUPING, "content", name=name)


def _add_bridge_session(element: ET.Element, jingle: Jingle) -> None:
    if (jingle.bridge_session_id, jingle.restart, jingle.ice_restart) != (None, None, None):
        _add(
            element,
            names.FOCUS,
            "bridge-session",
            id=jingle.bridge_session_id,
            restart=_word(jingle.restart),
            ice_restart=_word(jingle.ice_restart),
        )


# --- contents ----------------------------------------------------------------------------------------------


def _add_contents(element: ET.Element, jingle: Jingle) -> None:
    waiting = {} if jingle.json_sources else {"audio": jingle.sources.audio, "video": jingle.sources.video}
    for content in jingle.contents:
        _add_content(element, content, waiting.pop(content.media, _NO_SOURCES))
    for media, sources in waiting.items():
        if sources:
            child = _add(element, names.JINGLE, "content", creator="initiator", name=media, senders="both")
            _add_sources(_add(child, names.RTP, "description", media=media), sources)


def _add_content(parent: ET.Element, content: Content, sources: MediaSources) -> None:
    # Both is the default (XEP-0166 section 7.3): Jicofo writes it all the same, an answer is short.
    senders = None if (content.creator, content.senders) == ("responder", "both") else content.senders
    element = _add(parent, names.JINGLE, "content", creator=content.creator, name=content.name, senders=senders)
    description = _add(element, names.RTP, "description", media=content.media, maxptime=content.maxptime)
    for payload_type in content.payload_types:
        _add_payload_type(description, payload_type)
    _add_feedback(description, content.feedback)
    for extension in content.header_extensions:
        _add(description, names.RTP_HDREXT, "rtp-hdrext", id=extension.id, uri=extension.uri)
    if content.extmap_allow_mixed:
        _add(description, names.RTP_HDREXT, "extmap-allow-mixed")
    _add_sources(description, sources)
    if content.rtcp_mux:
        _add(description, names.RTP, "rtcp-mux")
    if content.transport is not None:
        _add_transport(element, content.transport)


def _add_payload_type(parent: ET.Element, payload_type: PayloadType) -> None:
    element = _add(parent, names.RTP, "payload-type", id=payload_type.id, name=payload_type.name or None)
    channels = payload_type.channels if payload_type.channels != 1 else None
    _set(element, clockrate=payload_type.clockrate or None, channels=channels)
    for name, value in payload_type.parameters.items():
        _add(element, names.RTP, "parameter", name=name, value=value)
    _add_feedback(element, payload_type.feedback)


def _add_feedback(parent: ET.Element, feedback: tuple[RtcpFeedback, ...]) -> None:
    for item in feedback:
        _add(parent, names.RTCP_FB, "rtcp-fb", type=item.type, subtype=item.subtype)


def _add_sources(description: ET.Element, sources: MediaSources) -> None:
    for source in sources.sources:
        _add_source(description, source)
    for group in sources.groups:
        _add_group(description, group)


def _add_source(description: ET.Element, source: Source) -> None:
    element = _add(
        description, names.SSMA, "source", ssrc=source.ssrc, name=source.name, videoType=source.video_type
    )
    if source.owner is not None:
        _add(element, names.JITMEET, "ssrc-info", owner=source.owner)
    if source.msid is not None:
        # XEP-0339's namespace; Jicofo, who alone names owners, writes RTP's.
        space = names.SSMA if source.owner is None else names.RTP
        _add(element, space, "parameter", name="msid", value=source.msid)


def _add_group(description: ET.Element, group: SourceGroup) -> None:
    element = _add(description, names.SSMA, "ssrc-group", semantics=group.semantics)
    for ssrc in group.ssrcs:
        _add(element, names.SSMA, "source", ssrc=ssrc)


# --- transport ---------------------------------------------------------------------------------------------


def _add_transport(content: ET.Element, transport: Transport) -> None:
    element = _add(content, names.ICE_UDP, "transport", ufrag=transport.ufrag or None, pwd=transport.pwd or None)
    if transport.web_socket_url is not None:
        _add(element, names.COLIBRI, "web-socket", url=transport.web_socket_url)
    if transport.rtcp_mux:
        _add(element, names.ICE_UDP, "rtcp-mux")
    for fingerprint in transport.fingerprints:
        child = _add(element, names.DTLS, "fingerprint", hash=fingerprint.hash, setup=fingerprint.setup)
        _set(child, required="false")
        child.text = fingerprint.value
    if transport.sctp is not None:
        sctp = transport.sctp
        _add(element, names.DTLS_SCTP, "sctpmap", number=sctp.number, protocol=sctp.protocol, streams=sctp.streams)
    for candidate in transport.candidates:
        _add_candidate(element, candidate)


def _add_candidate(transport: ET.Element, candidate: Candidate) -> None:
    _add(
        transport,
        names.ICE_UDP,
        "candidate",
        foundation=candidate.foundation,
        component=candidate.component,
        protocol=candidate.protocol,
        priority=candidate.priority,
        ip=candidate.ip,
        port=candidate.port,
        type=candidate.type,
        generation=candidate.generation,
        id=candidate.id or None,
        network=candidate.network,
        rel_addr=candidate.rel_addr,
        rel_port=candidate.rel_port,
        tcptype=candidate.tcptype,
    )
