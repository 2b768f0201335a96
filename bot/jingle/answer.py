"""The answer to an offer (RFC 3264 in Jingle's words): which of the offered things a participant takes.

Every id of a payload type is the offer's. What is only received needs no decoder, so all offered payload types are
kept unless told otherwise; what is sent is chosen by name.

The answer is written short, because deployments limit what a client may send to about 10 kB/s: behind a proxy that
passes it on in pieces of 4096 bytes, each piece waits until the one before it has had its time. Jicofo reads
transport and sources of an answer, and tells the bridge the formats of its own offer. So feedback stands once for
all payload types of a content, what a bundle has in common once in all, and header extensions, which are those of
the offer, not at all. Nor are candidates named: as with web clients, the bridge learns addresses from the checks
(RFC 8445 section 7.3.1.3), however many there are.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import replace

from bot.errors import UnsupportedMediaError
from bot.jingle.model import (
    Action,
    Content,
    Jingle,
    Media,
    MediaSources,
    PayloadType,
    SourceMap,
    Transport,
)


class UnsupportedOfferError(UnsupportedMediaError, ValueError):
    """The offer lacks what this participant needs; the message names it."""


def build_answer(
    offer: Jingle,
    *,
    responder: str,
    transport: Transport,
    own: SourceMap,
    audio_codecs: Sequence[str] = ("opus",),
    video_codecs: Sequence[str] = ("vp8",),
    receive_codecs: Collection[str] | None = None,
    data: bool = True,
    action: Action = Action.SESSION_ACCEPT,
) -> Jingle:
    """The session-accept (or transport-accept) for ``offer``.

    ``audio_codecs`` and ``video_codecs`` are those that we can send, best first; the first one offered leads the
    answer's payload types, followed by its RTX. ``receive_codecs`` are names of further payload types to keep;
    None keeps all. A kind that the offer does not have is left out together with our sources of it; ``data`` asks
    for the bridge channel over SCTP where it is offered. Raises UnsupportedOfferError where there is nothing to
    answer, or where we have sources and none of their codecs is offered.
    """
    if offer.content("audio") is None and offer.content("video") is None:
        raise UnsupportedOfferError("the offer has neither audio nor video")
    bundle_transport(offer)
    codecs: dict[Media, Sequence[str]] = {"audio": audio_codecs, "video": video_codecs}
    contents = [
        _media_content(content, codecs[content.media], receive_codecs, sends=bool(_of_kind(own, content.media)))
        for content in (offer.content("audio"), offer.content("video"))
        if content is not None
    ]
    channel = offer.content("application")
    if data and channel is not None:
        contents.append(_data_content(channel))
    return Jingle(
        action=action,
        sid=offer.sid,
        initiator=offer.initiator,
        responder=responder,
        contents=tuple(_with_transport(content, offer, transport, contents[0].name) for content in contents),
        bundle=tuple(name for name in offer.bundle if name in {content.name for content in contents}),
        sources=_offered_only(own, offer),
    )


def choose_payload_type(content: Content, codecs: Sequence[str]) -> PayloadType | None:
    """The payload type of ``content`` to send with: the first of ``codecs`` (names) that it has, or None."""
    return next((found for codec in codecs if (found := content.payload_type(codec))), None)


def bundle_transport(jingle: Jingle) -> Transport:
    """The one transport of a bundled session, with the bridge channel's parts from whichever content has them.

    Raises UnsupportedOfferError where no content has ICE credentials and a DTLS fingerprint.
    """
    transports = [content.transport for content in jingle.contents if content.transport is not None]
    main = next((item for item in transports if item.ufrag and item.pwd and item.fingerprints), None)
    if main is None:
        raise UnsupportedOfferError(f"{jingle.action} lacks a transport with ufrag, pwd and fingerprint")
    return replace(
        main,
        web_socket_url=next((item.web_socket_url for item in transports if item.web_socket_url), None),
        sctp=next((item.sctp for item in transports if item.sctp), None),
    )


def _of_kind(own: SourceMap, media: Media) -> MediaSources:
    return own.audio if media == "audio" else own.video


def _offered_only(own: SourceMap, offer: Jingle) -> SourceMap:
    return SourceMap(
        audio=own.audio if offer.content("audio") else MediaSources(),
        video=own.video if offer.content("video") else MediaSources(),
    )


def _media_content(
    offered: Content,
    codecs: Sequence[str],
    receive_codecs: Collection[str] | None,
    *,
    sends: bool,
) -> Content:
    preferred = choose_payload_type(offered, codecs)
    if preferred is None and sends:
        names = ", ".join(item.name for item in offered.payload_types) or "none"
        raise UnsupportedOfferError(
            f"the offer's {offered.media} has none of the codecs {', '.join(codecs)} (offered: {names})",
            hint="other codecs can be set for sending, or sending be turned off",
        )
    kept = _kept_payload_types(offered, preferred, receive_codecs)
    return replace(
        offered,
        creator="responder",
        senders="both",
        payload_types=tuple(replace(item, feedback=()) for item in kept),
        feedback=tuple(dict.fromkeys([*offered.feedback, *(entry for item in kept for entry in item.feedback)])),
        header_extensions=(),
        extmap_allow_mixed=False,
        rtcp_mux=True,
        maxptime=None,
    )


def _kept_payload_types(
    offered: Content, preferred: PayloadType | None, receive_codecs: Collection[str] | None
) -> tuple[PayloadType, ...]:
    """``preferred`` and its RTX, then the others in the offer's order; RTX only of what is kept."""
    wanted = None if receive_codecs is None else {name.lower() for name in receive_codecs}
    events = "telephone-event"  # keys of telephones (RFC 4733) mean nothing here
    kept = {
        item.id
        for item in offered.payload_types
        if item == preferred or (item.name.lower() != events if wanted is None else item.name.lower() in wanted)
    }
    lead = () if preferred is None else (preferred, offered.rtx_for(preferred.id))
    first = [item for item in lead if item is not None]
    rest = [
        item
        for item in offered.payload_types
        if item not in first and (item.apt in kept if item.name.lower() == "rtx" else item.id in kept)
    ]
    return (*first, *rest)


def _data_content(offered: Content) -> Content:
    return replace(offered, creator="responder", senders="both", rtcp_mux=False)


def _with_transport(content: Content, offer: Jingle, transport: Transport, first: str) -> Content:
    """``content`` with our transport; whoever answers is never actpass (RFC 5763 section 5).

    The contents of a bundle have theirs by the first one (RFC 8843 section 7.1.3), but for the bridge channel.
    """
    sctp = bundle_transport(offer).sctp if content.media == "application" else None
    if content.name != first and {content.name, first} <= set(offer.bundle):
        return replace(content, transport=Transport(sctp=sctp) if sctp else None)
    fingerprints = tuple(
        replace(item, setup="active") if item.setup == "actpass" else item for item in transport.fingerprints
    )
    return replace(
        content,
        transport=replace(transport, fingerprints=fingerprints, candidates=(), web_socket_url=None, sctp=sctp),
    )
