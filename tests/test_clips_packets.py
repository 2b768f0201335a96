"""Packetisation: what is cut for RTP comes together again, by the receiving side's own parsers and the RFCs."""

from __future__ import annotations

import time

import pytest
from aiortc.codecs.vpx import VpxPayloadDescriptor
from hypothesis import given
from hypothesis import strategies as st

from bot.clips.av1 import av1_payloads, dependency_descriptor, leb128, obus, read_leb128
from bot.clips.descriptor import descriptor, patch_of
from bot.clips.h264 import h264_payloads, nal_units
from bot.clips.model import MAX_PAYLOAD
from bot.clips.packets import payloads_of
from bot.clips.split import evenly
from tests.clips_support import depacketised, unpack_av1, unpack_vp9, vp9_structure, with_sizes

NUMBERS = bytes(number % 251 for number in range(9000))
FRAMES = st.binary(min_size=1, max_size=64) | st.integers(1, 9000).map(lambda size: NUMBERS[:size])
IDS = st.integers(0, 2**15 - 1)
INDICES = st.integers(0, 255)


def check_sizes(payloads: tuple[bytes, ...], spread: int) -> None:
    assert max(map(len, payloads)) <= MAX_PAYLOAD
    assert max(map(len, payloads)) - min(map(len, payloads)) <= spread


@given(st.binary(min_size=1, max_size=5000), st.integers(20, 1200), st.integers(0, 10))
def test_pieces_are_even_and_few(data: bytes, room: int, first: int) -> None:
    pieces = evenly(data, room, first=first)
    sizes = [len(piece) + (first if number == 0 else 0) for number, piece in enumerate(pieces)]
    assert b"".join(pieces) == data
    assert max(sizes) <= room
    assert max(sizes) - min(sizes) <= 1
    assert len(pieces) == -(-(len(data) + first) // room)


@pytest.mark.parametrize("codec", ["vp8", "vp9", "h264", "av1", "opus"])
def test_an_empty_frame_is_refused(codec: str) -> None:
    with pytest.raises(ValueError, match="an encoded frame"):
        payloads_of(codec, b"", key=True)


def test_an_unknown_codec_is_refused() -> None:
    with pytest.raises(ValueError, match="clips can't be in h265"):
        payloads_of("h265", b"x", key=True)


# --- VP8 ---


@given(FRAMES, IDS, INDICES)
def test_vp8_comes_together_again(frame: bytes, picture_id: int, tl0: int) -> None:
    payloads = payloads_of("vp8", frame, key=False)
    check_sizes(payloads, 1)
    assert depacketised("vp8", payloads) == frame
    patch = patch_of("vp8")
    assert patch is not None
    for number, payload in enumerate(payloads):
        found, rest = VpxPayloadDescriptor.parse(patch(payload, picture_id, tl0))
        assert (found.picture_id, found.tl0picidx, found.tid, found.keyidx) == (picture_id, tl0, (0, 0), None)
        assert (found.partition_start, found.partition_id) == (int(number == 0), 0)
        assert rest == payload[6:]


# --- VP9 ---


@given(FRAMES, st.booleans())
def test_vp9_comes_together_again(frame: bytes, key: bool) -> None:
    payloads = payloads_of("vp9", frame, key=key, size=(640, 360))
    check_sizes(payloads, 1)
    assert unpack_vp9(payloads) == frame
    assert all(bool(payload[0] & 0x40) != key for payload in payloads)
    assert [bool(payload[0] & 0x02) for payload in payloads] == [key] + [False] * (len(payloads) - 1)


def test_a_vp9_key_frame_tells_its_size() -> None:
    assert vp9_structure(payloads_of("vp9", b"frame", key=True, size=(640, 360))[0][5:]) == ((640, 360), 8)


@given(FRAMES, IDS, INDICES)
def test_vp9_fields_are_set_in_place(frame: bytes, picture_id: int, tl0: int) -> None:
    patch = patch_of("vp9")
    assert patch is not None
    for payload in payloads_of("vp9", frame, key=True, size=(640, 360)):
        patched = patch(payload, picture_id, tl0)
        assert int.from_bytes(patched[1:3], "big") == 0x8000 | picture_id
        assert patched[3:5] == bytes((0, tl0))
        assert (patched[0], patched[5:]) == (payload[0], payload[5:])


# --- running fields ---


@pytest.mark.parametrize("codec", ["vp8", "vp9"])
def test_fields_may_be_packed_once_a_frame(codec: str) -> None:
    found = descriptor(codec)
    assert found is not None
    for payload in payloads_of(codec, NUMBERS, key=True, size=(640, 360)):
        joined = payload[: found.start] + found.fields(12345, 67) + payload[found.stop :]
        assert joined == found.patch(payload, 12345, 67)
        assert found.patch(joined, 0, 0) == payload, "running fields are zero in a clip"


@pytest.mark.parametrize("codec", ["h264", "av1", "opus"])
def test_other_codecs_have_no_running_fields(codec: str) -> None:
    assert patch_of(codec) is None
    assert descriptor(codec) is None


def test_setting_fields_is_cheap() -> None:
    patch = patch_of("vp8")
    assert patch is not None
    payload = payloads_of("vp8", NUMBERS[:1000], key=False)[0]
    best = min(_seconds(patch, payload) for _ in range(20))
    assert best < 5e-6, f"{best * 1e6:.2f} µs"


def _seconds(patch: object, payload: bytes) -> float:
    assert callable(patch)
    began = time.process_time()
    for number in range(1000):
        patch(payload, number, number & 255)
    return (time.process_time() - began) / 1000


# --- H264 ---

# A NAL unit never holds a start code (emulation prevention) and ends with a stop bit.
UNITS = st.tuples(st.sampled_from([0x67, 0x68, 0x65, 0x41]), st.integers(1, 4000)).map(
    lambda found: bytes((found[0],)) + (b"\x55\xaa\x77" * 1400)[: found[1]]
)


@given(st.lists(UNITS, min_size=1, max_size=6), st.booleans())
def test_h264_comes_together_again(units: list[bytes], long: bool) -> None:
    code = b"\x00\x00\x00\x01" if long else b"\x00\x00\x01"
    payloads = h264_payloads(code + code.join(units))
    assert max(map(len, payloads)) <= MAX_PAYLOAD
    assert nal_units(depacketised("h264", payloads)) == units


def test_parameter_sets_go_together_and_what_nobody_needs_is_left_out() -> None:
    sps, pps, sei, delimiter, slice_ = (
        b"\x67\x42",
        b"\x68\xce",
        b"\x06\x05\x80",
        b"\x09\x10",
        b"\x65" + b"\x55" * 3000,
    )
    payloads = h264_payloads(b"\x00\x00\x01" + b"\x00\x00\x01".join([delimiter, sps, pps, sei, slice_]))
    assert payloads[0] == b"\x78\x00\x02\x67\x42\x00\x02\x68\xce"
    assert [payload[0] & 0x1F for payload in payloads] == [24, 28, 28, 28]
    check_sizes(payloads[1:], 1)


# --- AV1 ---


def obu(kind: int, body: bytes) -> bytes:
    return bytes((kind << 3 | 2,)) + leb128(len(body)) + body


AV1_UNITS = st.tuples(st.sampled_from([1, 3, 4, 6]), FRAMES).map(lambda found: obu(*found))


@given(st.lists(AV1_UNITS, min_size=1, max_size=5), st.booleans())
def test_av1_comes_together_again(units: list[bytes], key: bool) -> None:
    unit = obu(2, b"") + b"".join(units)
    payloads = av1_payloads(unit, key=key)
    assert max(map(len, payloads)) <= MAX_PAYLOAD
    assert with_sizes(unpack_av1(payloads)) == unit
    assert [bool(payload[0] & 0x08) for payload in payloads] == [key] + [False] * (len(payloads) - 1)


def test_obus_without_a_size_and_with_an_extension_are_read() -> None:
    with_extension = bytes((6 << 3 | 4 | 2, 0x20)) + leb128(3) + b"abc"
    assert list(obus(obu(15, b"padding") + with_extension + bytes((6 << 3,)) + b"rest")) == [
        bytes((6 << 3 | 4, 0x20)) + b"abc",
        bytes((6 << 3,)) + b"rest",
    ]


@pytest.mark.parametrize("frame", [b"\x32\xff", b"\x32\x05ab", b"\x32" + b"\x80" * 9, b"\x12\x00"])
def test_broken_av1_is_refused(frame: bytes) -> None:
    with pytest.raises(ValueError, match="an encoded frame"):
        av1_payloads(frame, key=False)


@given(st.integers(0, 2**32))
def test_lengths_come_back(value: int) -> None:
    assert read_leb128(leb128(value), 0) == (value, len(leb128(value)))


def test_a_dependency_descriptor_is_three_bytes() -> None:
    assert dependency_descriptor(0x1234, first=True, last=False, key=False) == b"\x81\x12\x34"
    assert dependency_descriptor(0x1FFFF, first=False, last=True, key=True) == b"\x40\xff\xff"


def test_a_key_frame_brings_the_structure() -> None:
    found = dependency_descriptor(1, first=True, last=True, key=True, size=(640, 360))
    read = Reader(found)
    assert read.many(1, 1, 6, 16) == [1, 1, 0, 1]
    assert read.many(1, 1, 1, 1, 1) == [1, 0, 0, 0, 0]
    assert read.many(6, 5) == [0, 0], "template ids from 0, one decode target"
    assert read.many(2, 2) == [0, 3], "two templates of one layer"
    assert read.many(2, 2) == [2, 2], "both are switch points"
    assert read.many(1, 1, 4, 1) == [0, 1, 0, 0], "only the second refers, to the frame before"
    assert read.many(1, 4, 4) == [1, 0, 1], "one chain"
    assert read.many(1, 16, 16) == [1, 639, 359]
    assert len(found) == 13


class Reader:
    def __init__(self, data: bytes) -> None:
        self._bits = "".join(f"{byte:08b}" for byte in data)

    def many(self, *widths: int) -> list[int]:
        found = []
        for width in widths:
            found.append(int(self._bits[:width], 2))
            self._bits = self._bits[width:]
        return found
