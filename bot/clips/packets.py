"""From an encoded frame to RTP payloads, for every codec of a clip. Pure."""

from __future__ import annotations

from bot.clips.av1 import av1_payloads
from bot.clips.h264 import h264_payloads
from bot.clips.opus import opus_payloads
from bot.clips.spec import LOWEST, TemporalLayer
from bot.clips.vpx import vp8_payloads, vp9_payloads


def payloads_of(
    codec: str, frame: bytes, *, key: bool, size: tuple[int, int] = (0, 0), temporal: TemporalLayer = LOWEST
) -> tuple[bytes, ...]:
    """``frame`` in RTP payloads of ``codec``; ``size`` is the picture's (width, height), ``temporal`` VP8's layer.

    Raises ValueError for an empty or broken frame, and for a codec that clips can't be in.
    """
    match codec:
        case "vp8":
            return vp8_payloads(frame, temporal)
        case "vp9":
            return vp9_payloads(frame, key=key, size=size)
        case "h264":
            return h264_payloads(frame)
        case "av1":
            return av1_payloads(frame, key=key)
        case "opus":
            return opus_payloads(frame)
    raise ValueError(f"clips can't be in {codec}")
