"""A clip as senders need it: payloads cut where their running fields are, shared by all its senders. Pure."""

from __future__ import annotations

from weakref import WeakValueDictionary

from bot.clips.av1 import FRAME_NUMBERS, dependency_descriptor
from bot.clips.descriptor import PICTURE_IDS, Descriptor, descriptor
from bot.clips.model import Clip, ClipFrame, ClipLayer
from bot.engine.headers import MARKER

#: Bytes that a packet adds to its payload on the wire, about: IP and UDP 28, RTP with extensions 24, SRTP 10.
PACKET_OVERHEAD = 62
#: Where VP8's descriptor has the temporal layer, in the two highest bits.
_VP8_TID = 5
#: Where the fields of a codec without a descriptor are.
NO_FIELDS = Descriptor(0, 0, lambda _picture, _tl0: b"", lambda payload, _picture, _tl0: payload)

#: AV1's running field is the frame number in its dependency descriptor, a header extension.
_AV1 = Descriptor(0, 0, lambda frame_number, _tl0: frame_number.to_bytes(2, "big"), NO_FIELDS.patch)

#: Marker (0 or 0x80), what stands before the running fields, and what stands behind them. Of AV1 the first of the
#: two is the dependency descriptor, of the frame number 0.
Piece = tuple[int, bytes, bytes]


class Template:
    """One frame. ``offset`` is its time in the loop in seconds, ``sizes`` are those of its packets on the wire."""

    __slots__ = ("base", "count", "frame", "key", "level", "octets", "offset", "pieces", "sizes", "timestamp")

    def __init__(self, frame: ClipFrame, clock_rate: int, fields: Descriptor, *, marked: bool) -> None:
        self.frame = frame
        self.timestamp = frame.timestamp
        self.offset = frame.timestamp / clock_rate
        self.key = frame.key
        self.level = frame.level
        self.count = len(frame.payloads)
        self.octets = frame.size
        #: 1 for a frame of the lowest temporal layer, which TL0PICIDX counts (RFC 7741 section 4.2), else 0.
        self.base = 1
        self.sizes = tuple(len(payload) + PACKET_OVERHEAD for payload in frame.payloads)
        self.pieces: tuple[Piece, ...] = tuple(
            (
                MARKER if marked and number == self.count else 0,
                payload[: fields.start],
                payload[fields.stop :] if fields.stop else payload,
            )
            for number, payload in enumerate(frame.payloads, 1)
        )


def _described(template: Template, size: tuple[int, int]) -> tuple[Piece, ...]:
    """The pieces of a frame of AV1, with their dependency descriptors."""
    last = template.count - 1
    return tuple(
        (mark, dependency_descriptor(0, first=not at, last=at == last, key=template.key, size=size), body)
        for at, (mark, _, body) in enumerate(template.pieces)
    )


class LayerTemplates:
    """One layer. ``keyed`` names for each frame the variants that have a key frame there."""

    def __init__(self, layer: ClipLayer, clip: Clip) -> None:
        #: Whether packets have a dependency descriptor.
        self.described = clip.codec == "av1"
        fields = _AV1 if self.described else descriptor(clip.codec) or NO_FIELDS
        marked = clip.media == "video"
        self.layer = layer
        self.fields = fields.fields
        #: Picture ids, or frame numbers, count to this.
        self.picture_ids = FRAME_NUMBERS if self.described else PICTURE_IDS
        self.start, self.width = fields.start, fields.stop - fields.start
        self.variants = tuple(
            tuple(Template(frame, clip.clock_rate, fields, marked=marked) for frame in variant)
            for variant in layer.variants
        )
        for template in (item for frames in self.variants for item in frames if self.described):
            template.pieces = _described(template, (layer.width, layer.height))
        for template in (item for frames in self.variants for item in frames if clip.codec == "vp8"):
            template.base = int(template.frame.payloads[0][_VP8_TID] < 1 << 6)
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
