"""What the payload types of an offer mean to a receiver. Ids are the offer's, and per media. Pure."""

from __future__ import annotations

from dataclasses import dataclass

from bot.jingle.model import EXT_AUDIO_LEVEL, EXT_TRANSPORT_CC, Content, Jingle, Media, PayloadType

VIDEO_CLOCK = 90_000
#: The RTP clock of opus (RFC 7587 section 4.1), for sound whose offer names none.
_AUDIO_CLOCK = 48_000


@dataclass(frozen=True, slots=True)
class PayloadFormat:
    """One payload type. ``codec`` in lower case, ``clock_rate`` in Hz.

    ``apt`` is the payload type that it repairs (RFC 4588 section 8.1), None for media. ``transport_cc`` is the id
    of the transport-wide-cc extension, ``audio_level`` that of the sound's level (RFC 6464). ``nack``, ``pli`` and
    ``fir`` are what the offer lets us ask for (RFC 4585 section 4.2, RFC 5104 section 7.1).
    """

    id: int
    media: Media
    codec: str
    clock_rate: int
    apt: int | None = None
    transport_cc: int | None = None
    nack: bool = False
    pli: bool = False
    fir: bool = False
    audio_level: int | None = None


def payload_formats(offer: Jingle) -> dict[int, PayloadFormat]:
    """The formats of all payload types of ``offer``, by id."""
    return {
        item.id: _format(content, item)
        for content in offer.contents
        if content.media in ("audio", "video")
        for item in content.payload_types
    }


def _format(content: Content, item: PayloadType) -> PayloadFormat:
    feedback = {(entry.type, entry.subtype) for entry in (*item.feedback, *content.feedback)}
    codec = item.name.lower()
    return PayloadFormat(
        id=item.id,
        media=content.media,
        codec=codec,
        clock_rate=item.clockrate or (VIDEO_CLOCK if content.media == "video" else _AUDIO_CLOCK),
        apt=item.apt if codec == "rtx" else None,
        transport_cc=content.extension_id(EXT_TRANSPORT_CC),
        nack=("nack", None) in feedback,
        pli=("nack", "pli") in feedback,
        fir=("ccm", "fir") in feedback,
        audio_level=content.extension_id(EXT_AUDIO_LEVEL),
    )
