"""What a frame's first packet says of it: whether it begins a key frame, and its picture's size. Pure."""

from __future__ import annotations

from bot.bridge.depacketize import unpack
from bot.bridge.rtp import RtpError, RtpHeader

_VP8_START = b"\x9d\x01\x2a"


def starts_key_frame(codec: str, header: RtpHeader, data: bytes) -> bool:
    """Whether an unprotected packet begins a key frame; False for what can't be read."""
    try:
        return unpack(codec, header, data).starts_key
    except (RtpError, ValueError):
        return False


def picture_size(codec: str, header: RtpHeader, data: bytes) -> tuple[int, int] | None:
    """Width and height if the unprotected packet begins a VP8 key frame (RFC 6386 section 9.1), else None."""
    if codec != "vp8":
        return None
    try:
        piece = unpack(codec, header, data)
    except (RtpError, ValueError):
        return None
    frame = piece.data
    if not piece.starts_key or len(frame) < 10 or frame[3:6] != _VP8_START:
        return None
    width, height = (int.from_bytes(frame[at : at + 2], "little") & 0x3FFF for at in (6, 8))
    return width, height
