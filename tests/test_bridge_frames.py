"""Frames from packets in any order, with simulated time."""

import random
from math import inf

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bot.bridge import frames
from bot.bridge.frames import MAX_WAITING, EncodedFrame, FrameAssembler, Piece


def piece(frame: int, text: str, *, key: bool = False, last: bool = False) -> Piece:
    return Piece(frame * 3000, last, text.encode(), key)


def texts(found: list[EncodedFrame]) -> list[str]:
    return [frame.data.decode() for frame in found]


def test_packets_become_frames_at_the_marker_or_the_next_timestamp() -> None:
    video = FrameAssembler(video=True, patience=1.0)
    assert video.feed(10, piece(1, "a", key=True), 0.0) == []
    assert video.feed(11, piece(1, "b", last=True), 0.0) == [EncodedFrame(b"ab", 3000, key=True)]
    assert video.feed(12, piece(2, "c"), 0.0) == []
    assert video.feed(13, piece(3, "d", last=True), 0.0) == [
        EncodedFrame(b"c", 6000, key=False),
        EncodedFrame(b"d", 9000, key=False),
    ]


def test_video_begins_with_a_key_frame() -> None:
    video = FrameAssembler(video=True, patience=1.0)
    assert video.feed(1, piece(1, "x", last=True), 0.0) == []
    assert video.needs_key_frame
    assert texts(video.feed(2, piece(2, "k", key=True, last=True), 0.0)) == ["k"]
    assert not video.needs_key_frame


def test_a_frame_without_an_end_is_given_up(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(frames, "MAX_FRAME_BYTES", 100)
    video = FrameAssembler(video=True, patience=1.0)
    for sequence in range(50):
        assert video.feed(sequence, piece(1, "x" * 60, key=sequence == 0), 0.0) == []
        assert sum(map(len, video._parts)) <= 100
    assert video.needs_key_frame
    assert texts(video.feed(50, piece(2, "k", key=True, last=True), 0.0)) == ["k"]


def test_a_repaired_hole_loses_nothing() -> None:
    video = FrameAssembler(video=True, patience=1.0)
    video.feed(1, piece(1, "k", key=True, last=True), 0.0)
    assert video.feed(3, piece(3, "c", last=True), 0.1) == []
    assert video.next_deadline() == 1.1
    assert video.expire(1.0) == []
    assert texts(video.feed(2, piece(2, "b", last=True), 1.0)) == ["b", "c"]
    assert video.feed(2, piece(2, "b", last=True), 1.0) == []
    assert (video.next_deadline(), video.skipped) == (inf, 0)


def test_an_unrepaired_hole_costs_all_up_to_the_next_key_frame() -> None:
    video = FrameAssembler(video=True, patience=1.0)
    video.feed(1, piece(1, "k", key=True, last=True), 0.0)
    video.feed(2, piece(2, "torn"), 0.0)
    video.feed(4, piece(2, "torn", last=True), 0.1)
    video.feed(5, piece(3, "delta", last=True), 0.2)
    assert video.expire(1.1) == []
    assert video.needs_key_frame
    assert texts(video.feed(6, piece(4, "K", key=True, last=True), 1.2)) == ["K"]
    assert video.skipped == 1
    assert repr(video) == "<FrameAssembler waiting 0 skipped 1>"


def test_each_of_two_holes_has_its_own_time() -> None:
    sound = FrameAssembler(video=False, patience=0.1)
    assert texts(sound.feed(1, piece(1, "a"), 0.0)) == ["a"]
    sound.feed(3, piece(3, "c"), 0.02)
    sound.feed(5, piece(5, "e"), 0.04)
    assert texts(sound.expire(0.121)) == ["c"]
    assert texts(sound.feed(4, piece(4, "d"), 0.13)) == ["d", "e"]
    sound.feed(7, piece(7, "g"), 0.2)
    sound.feed(9, piece(9, "i"), 0.2)
    assert texts(sound.expire(0.5)) == ["g"]
    assert texts(sound.expire(0.6)) == ["i"]
    assert sound.skipped == 3


def test_padding_fills_its_place() -> None:
    video = FrameAssembler(video=True, patience=1.0)
    video.feed(1, piece(1, "k", key=True, last=True), 0.0)
    assert video.feed(2, piece(1, ""), 0.0) == []
    assert texts(video.feed(3, piece(2, "b", last=True), 0.0)) == ["b"]


def test_too_much_behind_a_hole_is_not_waited_for() -> None:
    sound = FrameAssembler(video=False, patience=60.0)
    sound.feed(1, piece(1, "a"), 0.0)
    frames: list[EncodedFrame] = []
    for number in range(3, 3 + MAX_WAITING + 1):
        frames += sound.feed(number, piece(number, "x"), 0.0)
    assert len(frames) == MAX_WAITING + 1


def test_a_stream_that_began_anew_far_behind() -> None:
    video = FrameAssembler(video=True, patience=1.0)
    video.feed(30_000, piece(1, "k", key=True, last=True), 0.0)
    assert texts(video.feed(5, piece(2, "K", key=True, last=True), 0.0)) == ["K"]


def test_timestamps_do_not_wrap() -> None:
    sound = FrameAssembler(video=False, patience=1.0)
    stamps = [
        frame.timestamp
        for number, stamp in enumerate((2**32 - 960, 0, 960))
        for frame in sound.feed(number, Piece(stamp, marker=False, data=b"x"), 0.0)
    ]
    assert stamps == [2**32 - 960, 2**32, 2**32 + 960]


@given(st.integers(0, 0xFFFF), st.lists(st.integers(1, 4), min_size=1, max_size=30), st.integers(0, 2**32))
def test_any_order_gives_the_same_frames(first: int, sizes: list[int], seed: int) -> None:
    """As long as the very first packet is first, order and duplicates change nothing."""
    packets: list[tuple[int, Piece]] = []
    for number, size in enumerate(sizes):
        for part in range(size):
            text = f"{number}.{part} "
            made = piece(number, text, key=not number and not part, last=part == size - 1)
            packets.append(((first + len(packets)) & 0xFFFF, made))
    wanted = ["".join(f"{number}.{part} " for part in range(size)) for number, size in enumerate(sizes)]
    rest = packets[1:] * 2
    random.Random(seed).shuffle(rest)
    video = FrameAssembler(video=True, patience=1.0)
    frames: list[EncodedFrame] = []
    for sequence, made in [packets[0], *rest]:
        frames += video.feed(sequence, made, 0.0)
    assert texts(frames) == wanted
    assert video.next_deadline() == inf
