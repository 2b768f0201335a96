"""AV1 in RTP packets (RTP Payload Format For AV1, version 1.0, aomediacodec.github.io/av1-rtp-spec). Pure."""

from __future__ import annotations

from itertools import pairwise

from bot.clips.av1 import leb128, read_leb128

_TEMPORAL_DELIMITER, _TILE_LIST = 2, 8
_HAS_EXTENSION, _HAS_SIZE = 0x04, 0x02


def starts_key(body: bytes) -> bool:
    """Whether a coded video sequence begins with this packet: N is set, and Z not (section 4.4)."""
    return bool(body) and bool(body[0] & 0x08) and not body[0] & 0x80


def temporal_unit(data: bytes, starts: tuple[int, ...]) -> bytes:
    """The temporal unit of whole payloads that stand one behind the other, as a decoder takes it.

    ``starts`` is where each begins. OBUs get their sizes (low-overhead format); temporal delimiters and tile
    lists are left out (section 5). Raises ValueError where the payloads do not fit together.
    """
    obus: list[bytes] = []
    open_part = b""
    continues = False
    edges = [*starts, len(data)]
    for start, end in pairwise(edges):
        body = data[start:end]
        if bool(body[0] & 0x80) != continues:
            raise ValueError("AV1 fragments do not fit together")
        elements = _elements(body)
        elements[0] = open_part + elements[0]
        continues = bool(body[0] & 0x40)
        open_part = elements.pop() if continues else b""
        obus += elements
    if continues:
        raise ValueError("The last AV1 fragment is missing")
    return b"".join(_with_size(obu) for obu in obus if obu and not _is_left_out(obu))


def _elements(body: bytes) -> list[bytes]:
    """The OBU elements of a payload: W of them, the last without a length; W = 0 gives a length to each."""
    count, at = body[0] >> 4 & 0x03, 1
    elements: list[bytes] = []
    while at < len(body):
        if count and len(elements) == count - 1:
            size = len(body) - at
        else:
            size, at = read_leb128(body, at)
        if at + size > len(body):
            raise ValueError(f"AV1 OBU element of {size} bytes does not fit the packet")
        elements.append(body[at : at + size])
        at += size
    if not elements or (count and len(elements) != count):
        raise ValueError("AV1 payload has fewer OBU elements than it says")
    return elements


def _is_left_out(obu: bytes) -> bool:
    return obu[0] >> 3 & 0x0F in (_TEMPORAL_DELIMITER, _TILE_LIST)


def _with_size(obu: bytes) -> bytes:
    if obu[0] & _HAS_SIZE:
        return obu
    head = 2 if obu[0] & _HAS_EXTENSION else 1
    return bytes((obu[0] | _HAS_SIZE,)) + obu[1:head] + leb128(len(obu) - head) + obu[head:]
