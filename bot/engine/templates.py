"""A clip as senders need it: payloads cut where their running fields are, shared by all its senders. Pure."""

from __future__ import annotations

from weakref import WeakValueDictionary

from bot.clips.descriptor import Descriptor, descriptor
from bot.clips.model import Clip, ClipFrame, ClipLayer
from bot.engine.headers import MARKER

#: Bytes that a packet adds to its payload on the wire, about: IP and UDP 28, RTP with extensions 24, SRTP 10.
PACKET_OVERHEAD = 62
#: Where the fields of a codec without a descriptor are.
NO_FIELDS = Descriptor(0, 0, lambda _picture, _tl0: b"", lambda payload, _picture, _tl0: payload)

#: Marker (0 or 0x80), what stands before the running fields, and what stands behind them.
Piece = tuple[int, bytes, bytes]


class Template:
    """One frame. ``offset`` is its time in the loop in seconds, ``sizes`` are those of its packets on the wire."""

    __slots__ = ("count", "frame", "key", "level", "octets", "offset", "pieces", "sizes", "timestamp")

    def __init__(self, frame: ClipFrame, clock_rate: int, fields: Descriptor, *, marked: bool) -> None:
        self.frame = frame
        self.timestamp = frame.timestamp
        self.offset = frame.timestamp / clock_rate
        self.key = frame.key
        self.level = frame.level
        self.count = len(frame.payloads)
        self.octets = frame.size
        self.sizes = tuple(len(payload) + PACKET_OVERHEAD for payload in frame.payloads)
        self.pieces: tuple[Piece, ...] = tuple(
            (
                MARKER if marked and number == self.count else 0,
                payload[: fields.start],
                payload[fields.stop :] if fields.stop else payload,
            )
            for number, payload in enumerate(frame.payloads, 1)
        )


class LayerTemplates:
    """One layer. ``keyed`` names for each frame the variants that have a key frame there."""

    def __init__(self, layer: ClipLayer, clip: Clip) -> None:
        fields, marked = descriptor(clip.codec) or NO_FIELDS, clip.media == "video"
        self.layer = layer
        self.fields = fields.fields
        self.start, self.width = fields.start, fields.stop - fields.start
        self.variants = tuple(
            tuple(Template(frame, clip.clock_rate, fields, marked=marked) for frame in variant)
            for variant in layer.variants
        )
        self.keyed = tuple(
            tuple(number for number, frame in enumerate(frames) if frame.key)
            for frames in zip(*self.variants, strict=True)
        )
        #: Bit/s on the wire, all headers included, of the variant that needs most.
        self.rate = max(
            8 * sum(sum(item.sizes) for item in frames) / float(clip.duration) for frames in self.variants
        )


class ClipTemplates:
    """All layers of a clip, lowest first."""

    def __init__(self, clip: Clip) -> None:
        self.clip = clip
        self.layers = tuple(LayerTemplates(layer, clip) for layer in clip.layers)


_shared: WeakValueDictionary[int, ClipTemplates] = WeakValueDictionary()


def templates(clip: Clip) -> ClipTemplates:
    """The templates of ``clip``: one object for all its senders, as long as there is one."""
    found = _shared.get(id(clip))  # it holds its clip: as long as it lives, the id is taken
    if found is None:
        found = _shared[id(clip)] = ClipTemplates(clip)
    return found
