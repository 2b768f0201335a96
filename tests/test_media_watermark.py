from __future__ import annotations

import itertools
import time
from collections.abc import Callable

import numpy as np
import pytest
from av import VideoFrame
from hypothesis import given, settings
from hypothesis import strategies as st

from bot.media.font import Luma
from bot.media.pattern import Planes, ident_of
from bot.media.synthetic import SyntheticVideoTrack, planes_of
from bot.media.watch import luma_of
from bot.media.watermark import Mark, check_of, read, top_of, write
from tests.codec_support import decoded, encoded, lossy, torn

Packets = list[tuple[int, bytes]]
Loss = Callable[[Packets, float, int], Packets]
NOON = 1_700_000_000 // 86400 * 86400 + 43200.0
IDENT = ident_of("bot")
SIZES = [(640, 360), (320, 180), (160, 90), (1280, 720), (640, 480), (426, 240), (360, 640), (1922, 182)]


def _pictures(count: int, width: int = 640, height: int = 360) -> list[VideoFrame]:
    wall = itertools.count()
    track = SyntheticVideoTrack("room", "bot", width, height, wall=lambda: NOON + next(wall) / 30)
    return [track.render(index) for index in range(count)]


def _scaled(luma: Luma, width: int, height: int) -> Luma:
    frame = VideoFrame(luma.shape[1], luma.shape[0], "yuv420p")
    planes_of(frame).y[...] = luma
    return luma_of(frame.reformat(width=width, height=height))


@pytest.mark.parametrize(("width", "height"), SIZES)
@given(index=st.integers(0, 0xFFFF), ident=st.integers(0, 0xFFFF))
@settings(max_examples=20, deadline=None)
def test_every_mark_is_read_back(width: int, height: int, index: int, ident: int) -> None:
    luma = np.full((height, width), 112, np.uint8)
    write(luma, index, ident)
    assert read(luma) == Mark(index, ident)


def test_numbers_wrap_at_16_bits() -> None:
    luma = np.zeros((90, 160), np.uint8)
    write(luma, 0x1_0005, 0x2_0007)
    assert read(luma) == Mark(5, 7)


@pytest.mark.parametrize(("width", "height"), SIZES)
def test_the_pattern_is_marked_below_all_that_is_in_it(width: int, height: int) -> None:
    track = SyntheticVideoTrack("room", "bot", width, height)
    for index in (0, 77, 65535):
        luma = planes_of(track.render(index)).y
        assert read(luma) == Mark(index, IDENT)
    layout = track.pattern.layout
    assert layout.rows(74, 84).stop <= top_of(height)


@pytest.mark.parametrize(("width", "height"), [(1280, 720), (640, 360), (320, 180), (426, 240), (212, 120)])
@pytest.mark.parametrize("source", [(1280, 720), (640, 360), (320, 180)])
def test_a_mark_is_read_at_any_size(source: tuple[int, int], width: int, height: int) -> None:
    luma = planes_of(SyntheticVideoTrack("room", "bot", *source).render(4711)).y
    assert read(_scaled(luma, width, height)) == Mark(4711, IDENT)


def test_a_mark_is_read_in_a_blurred_picture_and_one_of_less_contrast() -> None:
    luma = planes_of(_pictures(124)[123]).y
    blurred = _scaled(_scaled(luma, 160, 90), 640, 360)
    assert np.abs(blurred.astype(int) - luma).max() > 50
    assert read(blurred) == Mark(123, IDENT)
    assert read((luma * 0.4 + 90).astype(np.uint8)) == Mark(123, IDENT)
    noise = np.random.default_rng(1).normal(0, 20, luma.shape)
    assert read(np.clip(luma + noise, 0, 255).astype(np.uint8)) == Mark(123, IDENT)


def test_pictures_without_a_mark_read_as_none() -> None:
    rng = np.random.default_rng(7)
    assert read(np.full((360, 640), 128, np.uint8)) is None
    assert read(np.zeros((10, 10), np.uint8)) is None
    for _ in range(300):
        assert read(rng.integers(0, 256, (360, 640), dtype=np.uint8)) is None
        blocks = rng.choice(np.array([30, 220], np.uint8), (2, 32))
        luma = np.full((180, 320), 112, np.uint8)
        luma[168:] = np.repeat(np.repeat(blocks, 6, 0), 10, 1)
        assert read(luma) is None


def test_any_blocks_with_the_fixed_bits_are_no_mark_without_the_check() -> None:
    luma = np.full((180, 320), 112, np.uint8)
    for index in range(100):
        write(luma, index, 9)
        for block in range(8, 64):
            row, column = divmod(block, 32)
            broken = luma.copy()
            broken[168 + 6 * row : 174 + 6 * row, column * 10 : column * 10 + 10] ^= 32 ^ 224
            assert read(broken) is None


def test_no_part_of_one_number_with_the_check_of_another_passes() -> None:
    """The check is linear: a number that differs in any of its bits has another check, whatever the number."""
    zero = check_of(0, 0)
    assert all(check_of(difference, 0) != zero for difference in range(1, 0x10000))
    assert all(check_of(0, difference) != zero for difference in range(1, 0x10000))
    assert check_of(0x1234 ^ 0x0F0F, 77) ^ check_of(0x1234, 77) == check_of(0x0F0F, 0) ^ zero


def test_rows_of_two_pictures_are_no_mark() -> None:
    pictures = [planes_of(frame).y for frame in _pictures(60)]
    for one, two in itertools.pairwise(pictures):
        mixed = one.copy()
        mixed[348:] = two[348:]
        assert read(mixed) is None


CODECS = ["vp8", "vp9", "h264"]


@pytest.mark.parametrize("codec", CODECS)
@pytest.mark.parametrize(("width", "height"), [(640, 360), (320, 180)])
def test_pictures_are_read_after_a_codec_at_100_kbit_s(codec: str, width: int, height: int) -> None:
    """All but a few of H264's, which leaves no picture out for want of bits and spoils some instead."""
    packets = encoded(codec, _pictures(150, width, height), 100_000)
    assert sum(len(data) for _, data in packets) * 8 * 30 / 150 < 115_000
    marks = [(number, read(luma_of(frame))) for number, frame in decoded(codec, packets)]
    right = [mark == Mark(number, IDENT) for number, mark in marks]
    assert len(right) == len(packets) > 60
    assert sum(right) >= len(right) * (0.96 if codec == "h264" else 1)
    assert all(mark in {None, Mark(number, IDENT)} for number, mark in marks)


@pytest.mark.parametrize("codec", CODECS)
def test_a_layer_of_720p_is_read_after_a_codec_and_scaled(codec: str) -> None:
    packets = encoded(codec, _pictures(45, 1280, 720), 300_000)
    shown = [luma_of(frame.reformat(width=320, height=180)) for _, frame in decoded(codec, packets)]
    assert [read(luma) for luma in shown] == [Mark(number, IDENT) for number, _ in packets]


@pytest.mark.parametrize("codec", CODECS)
@pytest.mark.parametrize("loss", [lossy, torn])
def test_nothing_is_read_wrong_when_packets_are_lost(codec: str, loss: Loss) -> None:
    """The decoder goes on over what is missing: a picture may be broken or an old one, but its mark never lies."""
    packets = encoded(codec, _pictures(200), 100_000)
    sent = {number for number, _ in packets}
    marks = [(number, read(luma_of(frame))) for number, frame in decoded(codec, loss(packets, 0.05, 3))]
    whole = [(number, mark) for number, mark in marks if mark is not None]
    assert all(mark.ident == IDENT and mark.index in sent for _, mark in whole)
    assert all(0 <= number - mark.index <= 3 for number, mark in whole)
    assert len(whole) > 0.25 * len(packets)


def test_reading_and_writing_are_cheap() -> None:
    luma = planes_of(_pictures(1)[0]).y
    costs = []
    for _ in range(5):
        before = time.thread_time()
        for index in range(100):
            write(luma, index, 1)
            assert read(luma) is not None
        costs.append((time.thread_time() - before) / 100)
    assert min(costs) < 0.0003


def test_planes_need_not_lie_in_one_piece() -> None:
    wide = np.zeros((360, 768), np.uint8)
    planes = Planes(wide[:, :640], wide[:180, :320], wide[:180, :320])
    write(planes.y, 300, 4)
    assert read(planes.y) == Mark(300, 4)
    assert not wide[:, 640:].any()
