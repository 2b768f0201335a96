"""Which codec our pictures are sent with. Pure."""

from __future__ import annotations

from collections.abc import Collection, Iterable

from bot.jingle.model import Jingle

#: What can be encoded here, best first.
ENCODABLE = ("vp8", "h264")


def send_codec(
    wanted: str, own: Collection[str], others: Iterable[Collection[str]], offered: Collection[str]
) -> str:
    """The codec to send with; ``wanted`` is a name, or ``auto`` for the first that everybody can take.

    ``own`` and ``others`` are the lists that participants name to the room (``jitsi_participant_codecList``); who
    names nothing has no say. ``offered`` is what the focus offers. Where nothing suits all, it is the first of
    those: web clients decode all of them.
    """
    if wanted != "auto":
        return wanted
    usable = [codec for codec in ENCODABLE if codec in own and codec in offered] or [ENCODABLE[0]]
    lists = [codecs for codecs in others if codecs]
    return next((codec for codec in usable if all(codec in codecs for codecs in lists)), usable[0])


def offered_codecs(offer: Jingle) -> tuple[str, ...]:
    """Names of the picture codecs of an offer, in lower case."""
    content = offer.content("video")
    return tuple(item.name.lower() for item in content.payload_types) if content is not None else ()
