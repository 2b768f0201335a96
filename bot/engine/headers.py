"""What each RTP packet of a sender begins with: ids from the offer, header extensions at fixed places. Pure.

A stream's header extensions are the same in all its packets (RFC 8285), so that a packet is one ``struct`` call:
the sound's level (RFC 6464), the time of sending and the transport-wide sequence number, which comes last.
"""

from __future__ import annotations

import struct
from collections.abc import Callable
from dataclasses import dataclass

from bot.bridge.rtp import HEADER_LENGTH, ONE_BYTE_PROFILE, TWO_BYTE_PROFILE
from bot.errors import UnsupportedMediaError
from bot.jingle.model import (
    EXT_ABS_SEND_TIME,
    EXT_AUDIO_LEVEL,
    EXT_DEPENDENCY_DESCRIPTOR,
    EXT_TRANSPORT_CC,
    Content,
)

_TWO_WORDS = struct.Struct("!LL")
_PAIR = struct.Struct("!HH")
#: Version 2 with a header extension, and without: the high byte of the first 16 bits.
_WITH, _WITHOUT = 0x9000, 0x8000
MARKER = 0x80
#: Ids above 14 need the two-byte form (RFC 8285 section 4.2).
_MAX_SHORT_ID = 14

_OCTETS = tuple(bytes((value,)) for value in range(256))

Pack = Callable[..., bytes]


@dataclass(frozen=True, slots=True)
class SendParameters:
    """The ids that an offer gives to one kind of media; None for what is not offered or not wanted.

    ``payload_type`` is that of the codec, ``rtx`` of its retransmissions (RFC 4588), ``red`` of redundant sound
    (RFC 2198); the others are ids of header extensions.
    """

    payload_type: int
    rtx: int | None = None
    red: int | None = None
    audio_level: int | None = None
    abs_send_time: int | None = None
    transport_cc: int | None = None
    dependency_descriptor: int | None = None


def send_parameters(content: Content, codec: str, *, red: bool = False) -> SendParameters:
    """The ids of ``content`` for ``codec``; ``red`` wants redundancy where it is offered.

    Raises UnsupportedMediaError where the codec is not offered, or AV1 without its dependency descriptor, by which
    alone bridges route it.
    """
    offered = content.payload_type(codec)
    if offered is None:
        hint = "JITSI_VIDEO_CODEC" if content.media == "video" else None
        raise UnsupportedMediaError(f"the offer's {content.media} has no {codec}", hint=hint)
    descriptor = content.extension_id(EXT_DEPENDENCY_DESCRIPTOR) if codec == "av1" else None
    if codec == "av1" and descriptor is None:
        raise UnsupportedMediaError("the offer has no dependency descriptor for AV1", hint="JITSI_VIDEO_CODEC")
    rtx = content.rtx_for(offered.id)
    redundant = content.payload_type("red") if red and content.media == "audio" else None
    return SendParameters(
        payload_type=offered.id,
        rtx=rtx.id if rtx is not None else None,
        red=redundant.id if redundant is not None else None,
        audio_level=content.extension_id(EXT_AUDIO_LEVEL) if content.media == "audio" else None,
        abs_send_time=content.extension_id(EXT_ABS_SEND_TIME),
        transport_cc=content.extension_id(EXT_TRANSPORT_CC),
        dependency_descriptor=descriptor,
    )


class HeaderLayout:
    """Where things stand in the headers of one SSRC. ``middle`` is what all packets of a frame share.

    A packet is ``pack(first, sequence, middle, number)``, without ``number`` where transport-wide sequence numbers
    are not offered (``numbered``); ``first`` is :attr:`first` with payload type and marker in its low byte.
    ``described`` are the bytes of the dependency descriptor in the packet, which only AV1 has.
    """

    def __init__(self, ssrc: int, parameters: SendParameters, described: int = 0) -> None:
        ids = {
            "level": parameters.audio_level,
            "time": parameters.abs_send_time,
            "descriptor": parameters.dependency_descriptor if described else None,
            "number": parameters.transport_cc,
        }
        sizes = {"level": 1, "time": 3, "descriptor": described, "number": 2}
        used = {name: ext_id for name, ext_id in ids.items() if ext_id is not None}
        short = all(ext_id <= _MAX_SHORT_ID for ext_id in used.values())
        heads = {name: _element_head(ext_id, sizes[name], short=short) for name, ext_id in used.items()}
        body = sum(len(head) + sizes[name] for name, head in heads.items())
        self._padding = -body % 4 if used else 0
        words = (body + self._padding) // 4
        profile = ONE_BYTE_PROFILE if short else TWO_BYTE_PROFILE
        self._ssrc = _TWO_WORDS.pack(ssrc, profile << 16 | words) if used else ssrc.to_bytes(4, "big")
        self._ssrc += heads.get("level", b"")
        self._time, self._descriptor = heads.get("time", b""), heads.get("descriptor", b"")
        self._number = heads.get("number", b"")
        #: Whether packets have transport-wide sequence numbers.
        self.numbered = "number" in used
        #: The first 16 bits without payload type and marker.
        self.first = _WITH if used else _WITHOUT
        #: Bytes of a header.
        self.length = HEADER_LENGTH + (4 + 4 * words if used else 0)
        self._middle = self.length - 4 - self._padding - (2 if self.numbered else 0)
        level, moment = "level" in used, 3 if self._time else 0
        # What is not offered has the length 0: struct takes its value all the same.
        self._pack_middle = struct.Struct(
            f"!L{len(self._ssrc)}s{int(level)}s{len(self._time)}s{moment}s"
            f"{len(self._descriptor)}s{described if self._descriptor else 0}s{len(self._number)}s"
        ).pack
        #: Packs the header of one packet.
        self.pack: Pack = self.packer()

    def packer(self, *sizes: int) -> Pack:
        """As ``pack``, with byte strings of these sizes behind the header."""
        number = "H" if self.numbered else ""
        more = "".join(f"{size}s" for size in sizes)
        return struct.Struct(f"!HH{self._middle}s{number}{self._padding}x{more}").pack

    def middle(self, timestamp: int, wall: float, level: int = 0, descriptor: bytes = b"") -> bytes:
        """Time stamp, SSRC and extensions. ``wall`` is the Unix time, ``level`` as in RFC 6464, with V bit."""
        # Seconds with 18 bits of fraction, modulo 64: what lies between 1900 and 1970 is a multiple of that.
        moment = (int(wall * 262_144) & 0xFFFFFF).to_bytes(3, "big")
        return self._pack_middle(
            timestamp,
            self._ssrc,
            _OCTETS[level],
            self._time,
            moment,
            self._descriptor,
            descriptor,
            self._number,
        )


class DescribedHeaders:
    """The headers of one SSRC of AV1, whose dependency descriptors differ in length."""

    def __init__(self, ssrc: int, parameters: SendParameters) -> None:
        self._ssrc, self._parameters = ssrc, parameters
        self._layouts: dict[int, HeaderLayout] = {}

    def pack(
        self, first: int, sequence: int, timestamp: int, wall: float, descriptor: bytes, *number: int
    ) -> bytes:
        """The header of one packet with ``descriptor``; the rest is as in :class:`HeaderLayout`."""
        layout = self._layouts.get(len(descriptor))
        if layout is None:
            layout = self._layouts[len(descriptor)] = HeaderLayout(self._ssrc, self._parameters, len(descriptor))
        return layout.pack(first | layout.first, sequence, layout.middle(timestamp, wall, 0, descriptor), *number)


def _element_head(ext_id: int, size: int, *, short: bool) -> bytes:
    """What stands before the value of one extension (RFC 8285 sections 4.2 and 4.3)."""
    return bytes((ext_id << 4 | size - 1,)) if short else bytes((ext_id, size))


def retransmission(sequence: int, payload: bytes) -> bytes:
    """The payload of an RTX packet (RFC 4588 section 4): the original sequence number, then the original."""
    return sequence.to_bytes(2, "big") + payload


def redundant(primary: bytes, payload_type: int, previous: bytes | None, offset: int) -> bytes:
    """A RED payload (RFC 2198 section 3) with the frame before, ``offset`` ticks older, where there is one.

    What the fields of 14 and 10 bits can't say is left out.
    """
    last = payload_type.to_bytes(1, "big")
    if previous is None or not 0 < offset < 1 << 14 or len(previous) >= 1 << 10:
        return last + primary
    head = (0x80 | payload_type) << 24 | offset << 10 | len(previous)
    return head.to_bytes(4, "big") + last + previous + primary
