"""VP9 in RTP packets (RFC 9628): the payload descriptor, and the layers of a picture. Pure."""

from __future__ import annotations

from itertools import pairwise
from typing import NamedTuple


class Vp9Descriptor(NamedTuple):
    """What a receiver needs of the descriptor (RFC 9628 section 4.2); ``length`` is where the payload starts.

    ``begins`` and ``ends`` frame one layer frame; ``predicted`` pictures need earlier ones, ``layer`` is the
    spatial layer.
    """

    length: int
    predicted: bool
    begins: bool
    ends: bool
    layer: int

    @property
    def starts_key(self) -> bool:
        """Whether a key picture begins here: nothing before it is needed, in no layer."""
        return self.begins and not self.predicted and self.layer == 0


def parse_descriptor(body: bytes) -> Vp9Descriptor:
    """The descriptor at the start of a payload. Raises ValueError where it is cut short."""
    try:
        return _parse(body)
    except IndexError:
        raise ValueError("VP9 payload descriptor is truncated") from None


def _parse(body: bytes) -> Vp9Descriptor:
    flags = body[0]
    flexible = bool(flags & 0x10)
    at, layer = 1, 0
    if flags & 0x80:  # I: picture id, 7 or 15 bit
        at += 2 if body[at] & 0x80 else 1
    if flags & 0x20:  # L: layer indices, and TL0PICIDX in non-flexible mode
        layer = body[at] >> 1 & 0x07
        at += 1 if flexible else 2
    if flags & 0x40 and flexible:  # P and F: up to three reference indices
        at = _references_end(body, at)
    if flags & 0x02:  # V: scalability structure
        at = _structure_end(body, at)
    if at > len(body):
        raise IndexError
    return Vp9Descriptor(at, bool(flags & 0x40), bool(flags & 0x08), bool(flags & 0x04), layer)


def _references_end(body: bytes, at: int) -> int:
    for _ in range(3):
        at += 1
        if not body[at - 1] & 0x01:
            return at
    raise ValueError("VP9 payload descriptor has more than three reference indices")


def _structure_end(body: bytes, at: int) -> int:
    """Where the scalability structure ends (RFC 9628 section 4.2.1)."""
    head = body[at]
    at += 1
    if head & 0x10:  # Y: width and height of each layer
        at += 4 * ((head >> 5) + 1)
    if head & 0x08:  # G: the pictures of a group, each with its references
        pictures = body[at]
        at += 1
        for _ in range(pictures):
            at += 1 + (body[at] >> 2 & 0x03)
    return at


def layer_frames(data: bytes, starts: tuple[int, ...]) -> list[bytes]:
    """The frames of the layers of one picture, lowest first; ``starts`` is where they begin."""
    edges = [*starts, len(data)] if starts and not starts[0] else [0, len(data)]
    return [data[start:end] for start, end in pairwise(edges)]
