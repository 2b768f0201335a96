"""What a file has to know of an encoded stream, read from its key frames, and frames as files hold them. Pure."""

from __future__ import annotations

from collections.abc import Callable, Iterator

from bot.bridge import av1, vp9
from bot.bridge.frames import EncodedFrame
from bot.clips.av1 import leb128, read_leb128
from bot.clips.h264 import nal_units
from bot.recording.matroska import TrackFormat

_IDR, _SPS, _PPS, _DELIMITER = 5, 7, 8, 9
_SEQUENCE_HEADER = 1
#: Profiles whose sequence parameter sets tell the chroma format (ITU-T H.264 section 7.3.2.1.1).
_HIGH_PROFILES = (100, 110, 122, 244, 44, 83, 86, 118, 128)


class BitReader:
    """Reads numbers of some bits each, highest first. Raises ValueError at the end."""

    def __init__(self, data: bytes) -> None:
        self._value = int.from_bytes(data, "big")
        self._left = 8 * len(data)

    def bits(self, count: int) -> int:
        """An unsigned number of ``count`` bits."""
        self._left -= count
        if self._left < 0:
            raise ValueError("an encoded frame ends inside its head")
        return self._value >> self._left & (1 << count) - 1

    def exp_golomb(self) -> int:
        """An unsigned Exp-Golomb number (ITU-T H.264 section 9.1)."""
        zeros = 0
        while not self.bits(1):
            zeros += 1
            if zeros > 32:
                raise ValueError("a number of H.264 is too long")
        return (1 << zeros) - 1 + self.bits(zeros)

    def signed_exp_golomb(self) -> int:
        """A signed one (section 9.1.1)."""
        value = self.exp_golomb()
        return (value + 1) // 2 if value & 1 else -(value // 2)


def format_of(codec: str, frame: EncodedFrame) -> TrackFormat:
    """The format that a key frame tells; that of opus is always the same. Raises ValueError for a broken one."""
    if codec in ("opus", "red"):
        return TrackFormat("opus")
    reader = _FORMATS.get(codec)
    if reader is None:
        raise ValueError(f"no file has {codec}")
    return reader(frame)


def stored(codec: str, frame: EncodedFrame) -> bytes:
    """A frame as a file holds it. Raises ValueError for a broken one."""
    if codec == "h264":
        return b"".join(len(unit).to_bytes(4, "big") + unit for unit in _pictures(frame.data))
    if codec == "av1":
        unit = av1.temporal_unit(frame.data, frame.starts)
        return _with_layers_there(unit) if frame.key else unit
    if codec == "vp9":
        return _superframe(vp9.layer_frames(frame.data, frame.starts))
    return frame.data


# --- VP8 (RFC 6386 section 9.1) --------------------------------------------------------------------------


def _vp8(frame: EncodedFrame) -> TrackFormat:
    data = frame.data
    if len(data) < 10 or data[3:6] != b"\x9d\x01\x2a":
        raise ValueError("a VP8 key frame has no start code")
    width, height = int.from_bytes(data[6:8], "little"), int.from_bytes(data[8:10], "little")
    return _sized("vp8", width & 0x3FFF, height & 0x3FFF)


def _sized(codec: str, width: int, height: int, private: bytes = b"") -> TrackFormat:
    if not width or not height:
        raise ValueError(f"a key frame of {codec} has no size")
    return TrackFormat(codec, width, height, private=private)


# --- VP9 (VP9 bitstream specification, sections 6.1 and 6.2, annex B) ------------------------------------


def _vp9(frame: EncodedFrame) -> TrackFormat:
    """The size is that of the highest layer: the lower ones are not shown."""
    sizes = [found for layer in vp9.layer_frames(frame.data, frame.starts) if (found := _vp9_size(layer))]
    if not sizes:
        raise ValueError("a VP9 key frame tells no size")
    return _sized("vp9", *sizes[-1])


def _vp9_size(data: bytes) -> tuple[int, int] | None:
    """Width and height that a frame tells, None where it takes them from another."""
    reader = BitReader(data[:32])
    if reader.bits(2) != 2:
        raise ValueError("no VP9 frame")
    profile = reader.bits(1) | reader.bits(1) << 1
    if profile == 3:
        reader.bits(1)
    if reader.bits(1):  # show_existing_frame
        return None
    inter, shown, resilient = reader.bits(1), reader.bits(1), reader.bits(1)
    if not inter:
        _vp9_start(reader)
        _vp9_colours(reader, profile)
        return reader.bits(16) + 1, reader.bits(16) + 1
    return _vp9_inter_size(reader, shown, resilient)


def _vp9_start(reader: BitReader) -> None:
    if reader.bits(24) != 0x498342:
        raise ValueError("a VP9 key frame has no sync code")


def _vp9_colours(reader: BitReader, profile: int) -> None:
    if profile >= 2:
        reader.bits(1)  # ten_or_twelve_bit
    if reader.bits(3) == 7:  # sRGB
        reader.bits(1 if profile in (1, 3) else 0)
        return
    reader.bits(1)  # color_range
    if profile in (1, 3):
        reader.bits(3)  # subsampling, reserved


def _vp9_inter_size(reader: BitReader, shown: int, resilient: int) -> tuple[int, int] | None:
    """A higher layer of a key picture, which is predicted from the lower one and tells a size of its own."""
    intra_only = 0 if shown else reader.bits(1)
    if not resilient:
        reader.bits(2)  # reset_frame_context
    if intra_only:
        return None
    reader.bits(8 + 3 * 4)  # refresh_frame_flags, three references each with a sign
    if any(reader.bits(1) for _ in range(3)):  # found_ref: stops at the first
        return None
    return reader.bits(16) + 1, reader.bits(16) + 1


def _superframe(layers: list[bytes]) -> bytes:
    """The layers of one picture with the index that tells a decoder where each ends (annex B)."""
    if len(layers) == 1:
        return layers[0]
    if len(layers) > 8:
        raise ValueError("a VP9 picture has more than eight layers")
    width = max(1, -(-max(len(layer) for layer in layers).bit_length() // 8))
    mark = bytes((0xC0 | (width - 1) << 3 | len(layers) - 1,))
    sizes = b"".join(len(layer).to_bytes(width, "little") for layer in layers)
    return b"".join(layers) + mark + sizes + mark


# --- H.264 (ITU-T H.264 section 7.3.2.1, ISO/IEC 14496-15 section 5.3.3) ---------------------------------


def _h264(frame: EncodedFrame) -> TrackFormat:
    units = nal_units(frame.data)
    sets = {kind: [unit for unit in units if unit[0] & 0x1F == kind] for kind in (_SPS, _PPS)}
    if not sets[_SPS] or not sets[_PPS] or len(sets[_SPS][0]) < 4:
        raise ValueError("an H264 key frame comes without its parameter sets")
    sps, pps = sets[_SPS][-1], sets[_PPS][-1]
    return _sized("h264", *_h264_size(sps), avc_configuration(sps, pps))


def avc_configuration(sps: bytes, pps: bytes) -> bytes:
    """The avcC of one sequence and one picture parameter set, for NAL units with sizes of four bytes."""
    one = b"\x01" + sps[1:4] + b"\xff\xe1" + len(sps).to_bytes(2, "big") + sps
    return one + b"\x01" + len(pps).to_bytes(2, "big") + pps


def _pictures(data: bytes) -> list[bytes]:
    """The NAL units but those that the file's head has, or needs not."""
    units = [unit for unit in nal_units(data) if unit[0] & 0x1F not in (_SPS, _PPS, _DELIMITER)]
    if not units:
        raise ValueError("an H264 frame has no picture")
    return units


def _h264_size(sps: bytes) -> tuple[int, int]:
    reader = BitReader(sps[1:].replace(b"\0\0\x03", b"\0\0"))
    profile = reader.bits(8)
    reader.bits(16)  # constraints, level
    reader.exp_golomb()  # seq_parameter_set_id
    chroma = _h264_high(reader) if profile in _HIGH_PROFILES else 1
    reader.exp_golomb()  # log2_max_frame_num_minus4
    _h264_order(reader)
    reader.exp_golomb()  # max_num_ref_frames
    reader.bits(1)  # gaps_in_frame_num_value_allowed_flag
    width, height = reader.exp_golomb() + 1, reader.exp_golomb() + 1
    frames_only = reader.bits(1)
    if not frames_only:
        reader.bits(1)  # mb_adaptive_frame_field_flag
    reader.bits(1)  # direct_8x8_inference_flag
    crop = [reader.exp_golomb() for _ in range(4)] if reader.bits(1) else [0] * 4
    across = 2 if chroma in (1, 2) else 1
    down = (2 if chroma == 1 else 1) * (2 - frames_only)
    return 16 * width - across * (crop[0] + crop[1]), 16 * height * (2 - frames_only) - down * (crop[2] + crop[3])


def _h264_high(reader: BitReader) -> int:
    chroma = reader.exp_golomb()
    if chroma == 3:
        reader.bits(1)
    reader.exp_golomb()  # bit depths
    reader.exp_golomb()
    reader.bits(1)
    if reader.bits(1):
        raise ValueError("H264 scaling matrices are not read")
    return chroma


def _h264_order(reader: BitReader) -> None:
    kind = reader.exp_golomb()
    if kind == 0:
        reader.exp_golomb()
    elif kind == 1:
        reader.bits(1)
        reader.signed_exp_golomb()
        reader.signed_exp_golomb()
        for _ in range(reader.exp_golomb()):
            reader.signed_exp_golomb()


# --- AV1 (AV1 bitstream specification section 5.5, AV1 in ISOBMFF section 2.3) ---------------------------


def _av1(frame: EncodedFrame) -> TrackFormat:
    header = _sequence_header(_with_layers_there(av1.temporal_unit(frame.data, frame.starts)))
    profile, level, tier, colours, size = _av1_sequence(BitReader(header[:64]))
    private = bytes((0x81, profile << 5 | level, tier << 7 | colours, 0))
    obu = bytes((_SEQUENCE_HEADER << 3 | 0x02,)) + leb128(len(header)) + header
    return _sized("av1", *size, private + obu)


def _sequence_header(unit: bytes) -> bytes:
    for head, begin, end in _obus(unit):
        if unit[head] >> 3 & 0x0F == _SEQUENCE_HEADER:
            return unit[begin:end]
    raise ValueError("an AV1 key frame comes without its sequence header")


def _obus(unit: bytes) -> Iterator[tuple[int, int, int]]:
    """Where each OBU of a temporal unit has its header, and where its payload begins and ends."""
    at = 0
    while at < len(unit):
        size, begin = read_leb128(unit, at + (2 if unit[at] & 0x04 else 1))
        yield at, begin, begin + size
        at = begin + size


def _with_layers_there(unit: bytes) -> bytes:
    """A key picture whose first operating point has the spatial layers that are there, and no more.

    While a bridge sends lower layers alone, decoders wait for the highest one of the operating point, and some
    show nothing (AV1 bitstream specification, section 7.18.1). Higher layers come with another key picture.
    """
    header, there = None, 0
    for head, begin, _ in _obus(unit):
        if unit[head] >> 3 & 0x0F == _SEQUENCE_HEADER:
            header = begin
        elif unit[head] & 0x04:  # obu_extension_flag
            there |= 1 << (unit[head + 1] >> 3 & 0x03)
    if header is None or not there:
        return unit
    return unit[:header] + _with_layers(unit[header:], there)


def _with_layers(header: bytes, there: int) -> bytes:
    """A sequence header, and what is behind it, with the spatial layers of which ``there`` has bits."""
    reader = BitReader(header[:2])
    reader.bits(4)  # seq_profile, still_picture
    if reader.bits(2):  # reduced_still_picture_header, timing_info_present_flag: not in calls
        return header
    reader.bits(6)  # initial_display_delay_present_flag, operating_points_cnt_minus_1
    layers = reader.bits(4)  # the upper bits of operating_point_idc, which begins at bit 12
    if not layers & there:
        return header
    return header[:1] + bytes((header[1] & 0xF0 | layers & there,)) + header[2:]


def _av1_sequence(reader: BitReader) -> tuple[int, int, int, int, tuple[int, int]]:
    """Profile, level, tier, the colour bits of av1C, and width and height."""
    profile = reader.bits(3)
    reader.bits(1)  # still_picture
    if reader.bits(1):  # reduced_still_picture_header
        level, tier = reader.bits(5), 0
    else:
        level, tier = _av1_points(reader)
    width_bits, height_bits = reader.bits(4) + 1, reader.bits(4) + 1
    size = reader.bits(width_bits) + 1, reader.bits(height_bits) + 1
    # Eight bits of 4:2:0, all that Jitsi's clients send (profile 0): the colour bits stand far behind here.
    return profile, level, tier, 0x0C, size


def _av1_points(reader: BitReader) -> tuple[int, int]:
    """Level and tier of the first operating point."""
    decoder_model = 0
    if reader.bits(1):  # timing_info_present_flag
        decoder_model = _av1_timing(reader)
    delay = reader.bits(1)  # initial_display_delay_present_flag
    first = None
    for _ in range(reader.bits(5) + 1):
        reader.bits(12)
        level = reader.bits(5)
        tier = reader.bits(1) if level > 7 else 0
        if decoder_model and reader.bits(1):
            reader.bits(2 * decoder_model + 1)
        if delay and reader.bits(1):
            reader.bits(4)
        first = first or (level, tier)
    assert first is not None
    return first


def _av1_timing(reader: BitReader) -> int:
    """The bits of a delay where a decoder model follows, else 0."""
    reader.bits(64)
    if reader.bits(1):
        reader.exp_golomb()  # uvlc
    if not reader.bits(1):
        return 0
    length = reader.bits(5) + 1
    reader.bits(32 + 10)
    return length


_FORMATS: dict[str, Callable[[EncodedFrame], TrackFormat]] = {"vp8": _vp8, "vp9": _vp9, "h264": _h264, "av1": _av1}
