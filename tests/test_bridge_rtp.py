"""RTP headers and their extensions, held against aiortc's own parser."""

import struct

import pytest
from aiortc.rtp import RtpPacket
from hypothesis import given
from hypothesis import strategies as st

from bot.bridge import rtp

PROFILE_ONE_BYTE, PROFILE_TWO_BYTE = 0xBEDE, 0x1000


def raw(
    extension: bytes = b"", profile: int = PROFILE_ONE_BYTE, payload: bytes = b"media", csrc: int = 0
) -> bytes:
    """A packet written by hand: RFC 3550 section 5.1, RFC 8285."""
    first = 0x80 | (0x10 if extension else 0) | csrc
    head = struct.pack("!BBHLL", first, 0x80 | 111, 7, 960, 42) + b"\0\0\0\1" * csrc
    if extension:
        extension += b"\0" * (-len(extension) % 4)
        head += struct.pack("!HH", profile, len(extension) // 4) + extension
    return head + payload


def test_a_header_by_hand() -> None:
    data = raw(bytes([0x10, 0x85, 0x51, 0x12, 0x34]), csrc=2)
    header = rtp.parse_header(data)
    assert (header.payload_type, header.marker, header.sequence, header.timestamp, header.ssrc) == (
        111,
        True,
        7,
        960,
        42,
    )
    assert data[header.length :] == b"media"
    assert rtp.payload(data, header) == b"media"
    assert rtp.transport_sequence(data, header, 5) == 0x1234
    assert rtp.audio_level(data, header, 1) == 5
    assert rtp.extension(data, header, 9) is None


def test_two_byte_headers() -> None:
    data = raw(bytes([5, 2, 0x12, 0x34, 0, 1, 1, 0x7F]), PROFILE_TWO_BYTE)
    header = rtp.parse_header(data)
    assert rtp.transport_sequence(data, header, 5) == 0x1234
    assert rtp.audio_level(data, header, 1) == 0x7F


@pytest.mark.parametrize(
    "data", [b"", b"\x80" * 11, b"\x00" * 20, b"\x8f" * 13, b"\x90" + b"\x00" * 11, raw(b"\0" * 4)[:14]]
)
def test_what_is_no_rtp_is_refused(data: bytes) -> None:
    with pytest.raises(rtp.RtpError):
        rtp.parse_header(data)


def test_rtp_and_rtcp_are_told_apart() -> None:
    assert rtp.is_rtp_or_rtcp(raw())
    assert not rtp.is_rtp_or_rtcp(b"\x16\xfe")
    assert rtp.is_rtcp(b"\x80\xc8\x00\x00")
    assert not rtp.is_rtcp(raw())


@given(
    st.integers(0, 127),
    st.integers(0, 0xFFFF),
    st.integers(0, 2**32 - 1),
    st.integers(0, 2**32 - 1),
    st.booleans(),
    st.binary(max_size=50),
)
def test_headers_agree_with_aiortc(
    kind: int, sequence: int, stamp: int, ssrc: int, marker: bool, body: bytes
) -> None:
    packet = RtpPacket(
        payload_type=kind, marker=int(marker), sequence_number=sequence, timestamp=stamp, payload=body
    )
    packet.ssrc = ssrc
    data = packet.serialize()
    header = rtp.parse_header(data)
    assert (header.payload_type, header.sequence, header.timestamp) == (kind, sequence, stamp)
    assert (header.ssrc, header.marker) == (ssrc, marker)
    assert rtp.payload(data, header) == body


def test_the_transport_sequence_is_replaced_in_place_or_added() -> None:
    data = raw(bytes([0x10, 0x85, 0x51, 0x12, 0x34]))
    changed = rtp.set_transport_sequence(data, rtp.parse_header(data), 5, 0xBEEF)
    header = rtp.parse_header(changed)
    assert rtp.transport_sequence(changed, header, 5) == 0xBEEF
    assert rtp.audio_level(changed, header, 1) == 5
    assert len(changed) == len(data)
    bare = raw()
    added = rtp.set_transport_sequence(bare, rtp.parse_header(bare), 5, 3)
    header = rtp.parse_header(added)
    assert rtp.transport_sequence(added, header, 5) == 3
    assert rtp.payload(added, header) == b"media"


def test_rtx_wraps_and_unwraps() -> None:
    data = raw()
    wrapped = rtp.wrap_rtx(data, rtp.parse_header(data), payload_type=96, sequence=9, ssrc=43)
    header = rtp.parse_header(wrapped)
    assert (header.payload_type, header.sequence, header.ssrc) == (96, 9, 43)
    assert rtp.unwrap_rtx(wrapped, header, payload_type=111, ssrc=42) == data


@given(st.integers(0, 0xFFFF), st.integers(0, 10**7))
def test_sequence_numbers_are_unwrapped_to_the_nearest(value: int, reference: int) -> None:
    found = rtp.unwrap_sequence(value, reference)
    assert found % 0x10000 == value
    assert abs(found - reference) <= 0x8000


def test_newer_is_modulo_65536() -> None:
    assert rtp.sequence_newer(0, 0xFFFF)
    assert not rtp.sequence_newer(0xFFFF, 0)


@pytest.mark.parametrize(
    ("elements", "profile"),
    [
        (bytes([0xF0, 0, 0x51, 1]), PROFILE_ONE_BYTE),  # 15 ends the elements
        (bytes([0x00, 0x5F, 1, 2]), PROFILE_ONE_BYTE),  # longer than what is there
        (bytes([0, 0, 0, 5]), PROFILE_TWO_BYTE),  # an id without a length
        (bytes([0, 5, 9, 1]), PROFILE_TWO_BYTE),  # longer than what is there
        (bytes([0x51, 1, 2, 0]), 0x1234),  # another profile
        (bytes([0x50, 1, 0, 0]), PROFILE_ONE_BYTE),  # one byte is no sequence number
    ],
)
def test_extensions_that_cannot_be_read_are_left_out(elements: bytes, profile: int) -> None:
    data = raw(elements, profile)
    assert rtp.transport_sequence(data, rtp.parse_header(data), 5) is None


def test_a_packet_without_the_extension_has_no_sequence_number() -> None:
    data = raw(bytes([0x10, 0x85]))
    assert rtp.transport_sequence(data, rtp.parse_header(data), 5) is None
    assert rtp.transport_sequence(raw(), rtp.parse_header(raw()), 5) is None


@pytest.mark.parametrize(
    ("body", "padding", "empty"), [(b"", 0, True), (b"", 9, True), (b"x", 0, False), (b"x", 9, False)]
)
def test_padding_only_packets(body: bytes, padding: int, empty: bool) -> None:
    data = rtp.build(payload_type=96, sequence=1, timestamp=0, ssrc=1, body=body, padding=padding)
    assert rtp.is_padding_only(data, rtp.parse_header(data)) == empty


def test_extensions_are_replaced_and_removed() -> None:
    data = rtp.build(payload_type=96, sequence=1, timestamp=0, ssrc=1, body=b"media", values={5: b"ab"})
    bare = rtp.replace_extensions(data, rtp.parse_header(data), {})
    assert bare == rtp.build(payload_type=96, sequence=1, timestamp=0, ssrc=1, body=b"media")
    wide = rtp.replace_extensions(data, rtp.parse_header(data), {20: b"x" * 17, 5: b""})
    header = rtp.parse_header(wide)
    assert header.profile == rtp.TWO_BYTE_PROFILE
    assert (rtp.extension(wide, header, 20), rtp.extension(wide, header, 5)) == (b"x" * 17, b"")
    assert rtp.payload(wide, header) == b"media"
