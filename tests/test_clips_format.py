"""Clips as bytes: they come back as they were, or not at all."""

from __future__ import annotations

import hashlib
from fractions import Fraction

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bot.clips import format as clip_format
from bot.clips.format import FormatError, dump, load
from bot.clips.model import Clip, ClipFrame, ClipLayer
from tests.test_clips_model import small_clip

FRAMES = st.builds(
    ClipFrame,
    timestamp=st.integers(0, 2**32 - 1),
    key=st.booleans(),
    payloads=st.lists(st.binary(max_size=40), max_size=4).map(tuple),
    level=st.none() | st.integers(0, 127),
)
LAYERS = st.builds(
    ClipLayer,
    width=st.integers(0, 4096),
    height=st.integers(0, 4096),
    fps=st.integers(1, 60).map(Fraction),
    bitrate=st.integers(1, 10**7),
    variants=st.lists(st.lists(FRAMES, max_size=4).map(tuple), max_size=3).map(tuple),
)
CLIPS = st.builds(
    Clip,
    media=st.sampled_from(["audio", "video"]),
    codec=st.sampled_from(["vp8", "opus"]),
    clock_rate=st.sampled_from([90000, 48000]),
    duration=st.fractions(Fraction(1, 50), 60),
    layers=st.lists(LAYERS, max_size=3).map(tuple),
    digest=st.text("0123456789abcdef", max_size=64),
    name=st.text(),
)


@given(CLIPS)
def test_a_clip_comes_back(clip: Clip) -> None:
    assert load(dump(clip)) == clip


@given(CLIPS, st.data())
def test_whatever_is_changed_is_noticed(clip: Clip, data: st.DataObject) -> None:
    written = bytearray(dump(clip))
    written[data.draw(st.integers(0, len(written) - 1))] ^= data.draw(st.integers(1, 255))
    with pytest.raises(FormatError):
        load(bytes(written))


@given(CLIPS, st.data())
def test_whatever_is_missing_is_noticed(clip: Clip, data: st.DataObject) -> None:
    written = dump(clip)
    with pytest.raises(FormatError):
        load(written[: data.draw(st.integers(0, len(written) - 1))])


@given(st.binary(max_size=200))
def test_other_bytes_are_no_clip(data: bytes) -> None:
    with pytest.raises(FormatError, match="no clip of this version"):
        load(data)


def signed(body: bytes) -> bytes:
    return clip_format._MAGIC + hashlib.sha256(body).digest() + body


@given(st.binary(max_size=100))
def test_a_right_checksum_does_not_make_a_clip(body: bytes) -> None:
    with pytest.raises(FormatError, match="the description is wrong"):
        load(signed(body))


def test_an_index_of_other_payloads_is_noticed() -> None:
    body = dump(small_clip())[clip_format._BODY :]
    with pytest.raises(FormatError, match="its payloads are not those of the index"):
        load(signed(body + b"x"))
