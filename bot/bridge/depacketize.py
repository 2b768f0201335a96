"""What packetisation added to a codec's frames, taken off again; no packet changes anything but its own. Pure."""

from __future__ import annotations

from collections.abc import Callable

from aiortc.codecs.h264 import H264PayloadDescriptor
from aiortc.codecs.vpx import VpxPayloadDescriptor

from bot.bridge import av1, vp9
from bot.bridge.frames import Piece
from bot.bridge.rtp import RtpHeader, payload


def unpack(codec: str, header: RtpHeader, data: bytes) -> Piece:
    """The payload of an unprotected packet without its packetisation. Raises ValueError where it is broken.

    VP8 by RFC 7741, H.264 by RFC 6184, VP9 by RFC 9628, RED by RFC 2198. Payloads of AV1 stay whole: an OBU may go
    over several, and ``av1.temporal_unit`` puts them together.
    """
    body = payload(data, header)
    unpacked = _UNPACK.get(codec)
    if unpacked is None or not body:
        return Piece(header.timestamp, header.marker, body)
    body, starts_key, begins = unpacked(body)
    return Piece(header.timestamp, header.marker, body, starts_key, begins)


_Unpacked = tuple[bytes, bool, bool]


def _vp8(body: bytes) -> _Unpacked:
    descriptor, body = VpxPayloadDescriptor.parse(body)
    starts = bool(descriptor.partition_start and not descriptor.partition_id)
    return body, bool(starts and body and not body[0] & 1), False


def _vp9(body: bytes) -> _Unpacked:
    descriptor = vp9.parse_descriptor(body)
    return body[descriptor.length :], descriptor.starts_key, descriptor.begins


def _av1(body: bytes) -> _Unpacked:
    return body, av1.starts_key(body), True


def _h264(body: bytes) -> _Unpacked:
    starts_key = _starts_h264_key(body)
    _, body = H264PayloadDescriptor.parse(body)
    return body, starts_key, False


def _starts_h264_key(body: bytes) -> bool:
    """A sequence parameter set or the start of an IDR picture, also in a STAP-A or FU-A (RFC 6184 section 5)."""
    kind = body[0] & 0x1F
    if kind == 24 and len(body) > 3:
        kind = body[3] & 0x1F
    elif kind == 28 and len(body) > 1 and body[1] & 0x80:
        kind = body[1] & 0x1F
    return kind in (5, 7)


def _red(body: bytes) -> _Unpacked:
    """The newest block alone (RFC 2198 section 3): the others repeat what came in packets before."""
    at = older = 0
    while at < len(body) and body[at] & 0x80:
        older += int.from_bytes(body[at + 2 : at + 4], "big") & 0x3FF
        at += 4
    start = at + 1 + older
    if start > len(body):
        raise ValueError("RED blocks do not fit the packet")
    return body[start:], False, False


_UNPACK: dict[str, Callable[[bytes], _Unpacked]] = {
    "vp8": _vp8,
    "vp9": _vp9,
    "av1": _av1,
    "h264": _h264,
    "red": _red,
}
