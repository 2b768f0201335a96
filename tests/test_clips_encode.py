"""Encoding, seen from the other end: real decoders show what was drawn, round the loop and across variants."""

from __future__ import annotations

import math
import os
from collections.abc import Iterator
from fractions import Fraction
from itertools import pairwise
from pathlib import Path
from typing import get_args

import numpy as np
import pytest
from aiortc.codecs.vpx import VpxPayloadDescriptor
from av import VideoFrame
from hypothesis import given
from hypothesis import strategies as st

from bot.clips.model import Clip, ClipFrame
from bot.clips.opus import SILENCE, level_of
from bot.clips.spec import LayerSpec, SoundSpec, VideoCodec, VideoSpec
from bot.errors import ConfigurationError
from bot.media.clipencode import ENCODERS, encode_sound, encode_video, next_target
from bot.media.clipsource import Decoration, Samples, picture_source, sound_of
from bot.media.pattern import Planes, read_clock, read_number
from bot.media.synthetic import planes_of
from tests.clips_support import Luma, Pictures, Receiver, bitrate, decoded, heard, luma_of, psnr, switched

SMALL = (LayerSpec(160, 90, 150_000),)
CODECS: list[VideoCodec] = ["vp8", "vp9", "h264", "av1"]
#: dB that these bitrates give at the least, and that a wrong picture never reaches: neighbours differ by more.
GOOD = 26.0


def ignore(_share: float) -> None:
    """Progress that nobody looks at."""


def spec_of(codec: VideoCodec) -> VideoSpec:
    return VideoSpec(codec=codec, layers=SMALL, fps=15, duration=Fraction(2))


def encoded(spec: VideoSpec) -> Clip:
    return encode_video(spec, picture_source(spec), "digest", ignore)


def originals(spec: VideoSpec) -> list[list[Luma]]:
    """The luma of all pictures, by layer."""
    drawn = [[luma_of(frame).copy() for frame in frames] for frames in picture_source(spec).pictures()]
    return [list(layer) for layer in zip(*drawn, strict=True)]


@pytest.fixture(scope="module", params=CODECS)
def video(request: pytest.FixtureRequest) -> tuple[Clip, list[Luma]]:
    spec = spec_of(request.param)
    return encoded(spec), originals(spec)[0]


def assert_shown(codec: str, frames: list[tuple[int, ClipFrame]], pictures: list[Luma]) -> None:
    """Each frame decodes to the picture of its place, and to no other."""
    shown = decoded(codec, (frame for _, frame in frames))
    assert len(shown) == len(frames)
    for (place, _), luma in zip(frames, shown, strict=True):
        found = psnr(luma, pictures[place])
        assert found > GOOD
        assert found > psnr(luma, pictures[place - 1]) + 3, f"picture {place} looks like the one before"


def test_pictures_come_through_every_variant_and_the_end_of_the_loop(video: tuple[Clip, list[Luma]]) -> None:
    clip, pictures = video
    for variant in clip.layers[0].variants:
        frames = list(enumerate(variant))
        assert_shown(clip.codec, frames + frames[:20], pictures)


def test_pictures_come_through_switches_between_variants(video: tuple[Clip, list[Luma]]) -> None:
    clip, pictures = video
    frames = list(switched(clip, 0, rounds=3, every=4))
    places = [place for place, _ in frames]
    assert places == [*range(30)] * 3
    changes = [
        (before in first, after in first)
        for first in [set(map(id, clip.layers[0].variants[0]))]
        for before, after in pairwise(id(frame) for _, frame in frames)
    ]
    assert sum(left != right for left, right in changes) >= 6
    assert_shown(clip.codec, frames, pictures)


def test_the_receiving_half_shows_it_and_recovers_from_loss_at_a_switch(video: tuple[Clip, list[Luma]]) -> None:
    """A packet of the second picture is lost: the other variant's next key frame brings the pictures back."""
    clip, pictures = video
    receiver, sequence = Receiver(clip.codec), 65_530
    shown: dict[int, Luma] = {}
    variant = clip.layers[0].variants[0]
    for place in range(30):
        now = place / 15
        if receiver.assembler.needs_key_frame and clip.layers[0].variants[1][place].key:
            variant = clip.layers[0].variants[1]
        payloads = variant[place].payloads
        for number, payload in enumerate(payloads):
            sequence += 1
            if place == 1 and number == 0:
                continue
            marker = number == len(payloads) - 1
            found = receiver.take(sequence, payload, timestamp=place * 6000, marker=marker, now=now)
            shown |= dict.fromkeys([place], found[-1]) if found else {}
    assert sorted(shown) == [0, *range(7, 30)]
    assert all(psnr(luma, pictures[place]) > GOOD for place, luma in shown.items())


def test_a_stream_may_begin_at_any_key_frame(video: tuple[Clip, list[Luma]]) -> None:
    clip, pictures = video
    for variant in clip.layers[0].variants:
        for begin in (place for place, frame in enumerate(variant) if frame.key):
            frames = list(enumerate(variant))[begin : begin + 2]
            assert_shown(clip.codec, frames, pictures)


def test_frames_stand_where_they_belong(video: tuple[Clip, list[Luma]]) -> None:
    clip, _ = video
    assert (clip.media, clip.clock_rate, float(clip.duration), clip.ticks) == ("video", 90000, 2.0, 180000)
    (layer,) = clip.layers
    assert (layer.width, layer.height, float(layer.fps), layer.bitrate) == (160, 90, 15.0, 150_000)
    assert [[place for place, frame in enumerate(variant) if frame.key] for variant in layer.variants] == [
        [0, 15],
        [0, 7, 22],
    ]
    for variant in layer.variants:
        assert [frame.timestamp for frame in variant] == [6000 * number for number in range(30)]
        assert all(frame.level is None for frame in variant)


def test_the_bitrate_is_that_asked_for(video: tuple[Clip, list[Luma]]) -> None:
    clip, _ = video
    for variant in range(2):
        assert bitrate(clip, 0, variant) == pytest.approx(150_000, rel=0.1)


def test_the_same_comes_out_again() -> None:
    for codec in CODECS:
        assert encoded(spec_of(codec)) == encoded(spec_of(codec)), codec


def test_h264_has_its_parameter_sets_before_every_key_frame() -> None:
    for variant in encoded(spec_of("h264")).layers[0].variants:
        for frame in variant:
            first = frame.payloads[0]
            assert (first[0] & 0x1F, first[3] & 0x1F) == (24, 7) if frame.key else first[0] & 0x1F in (1, 28)


def test_simulcast_layers_show_the_same_at_their_own_sizes_and_rates() -> None:
    sizes = (LayerSpec(160, 90, 120_000), LayerSpec(320, 180, 250_000), LayerSpec(640, 360, 500_000))
    spec = VideoSpec(layers=sizes, duration=Fraction(1))
    clip, pictures = encoded(spec), originals(spec)
    assert [(layer.width, layer.height, layer.bitrate) for layer in clip.layers] == [
        (size.width, size.height, size.bitrate) for size in sizes
    ]
    for number, layer in enumerate(clip.layers):
        shown = decoded("vp8", layer.variants[1])
        assert len(shown) == 30
        assert all(psnr(*pair) > GOOD for pair in zip(shown, pictures[number], strict=True))
        assert [bitrate(clip, number, variant) for variant in range(2)] == [
            pytest.approx(layer.bitrate, rel=0.1)
        ] * 2


def test_simulcast_layers_decode_without_their_upper_temporal_layers() -> None:
    """As web clients send VP8: 7.5, 15 and 30 frames a second, each temporal layer with bits of its own."""
    sizes = (LayerSpec(160, 90, 120_000), LayerSpec(320, 180, 250_000))
    spec = VideoSpec(layers=sizes, duration=Fraction(2))
    clip, pictures = encoded(spec), originals(spec)
    for number, layer in enumerate(clip.layers):
        for frames in layer.variants:
            parsed = [VpxPayloadDescriptor.parse(frame.payloads[0])[0].tid or (3, 0) for frame in frames]
            assert parsed[:8] == [(0, 0), (2, 1), (1, 1), (2, 0)] * 2
            for highest in range(3):
                kept = [at for at, (tid, _) in enumerate(parsed) if tid <= highest]
                shown = decoded("vp8", [frames[at] for at in kept])
                assert len(shown) == 15 * 2**highest
                assert all(psnr(luma, pictures[number][at]) > GOOD for luma, at in zip(shown, kept, strict=True))
            rates = [sum(frames[at].size for at, (tid, _) in enumerate(parsed) if tid == tl) for tl in range(3)]
            assert min(rates) > sum(rates) / 10
            assert all(parsed[at][0] == 0 for at, frame in enumerate(frames) if frame.key)


def test_the_pattern_tells_the_clips_time_and_the_frame_number() -> None:
    spec = VideoSpec(layers=(LayerSpec(640, 360, 500_000),), duration=Fraction(1))
    shown = decoded("vp8", encoded(spec).layers[0].variants[0])
    assert [read_number(luma) for luma in shown] == list(range(30))
    assert read_clock(shown[15]) == "00:00:00.500"


def test_what_decorates_is_drawn_in_every_size() -> None:
    seen: list[tuple[tuple[int, ...], int, Fraction]] = []

    def draw(planes: Planes, index: int, time: Fraction) -> None:
        seen.append((planes.y.shape, index, time))
        planes.y[:16, :16] = 235 if index % 2 else 16

    spec = VideoSpec(layers=(LayerSpec(160, 90, 80_000), LayerSpec(320, 180, 200_000)), duration=Fraction(1))
    source = picture_source(spec, Decoration("1", picture=draw))
    clip = encode_video(spec, source, "digest", ignore)
    assert seen[:4] == [
        ((90, 160), 0, Fraction(0)),
        ((180, 320), 0, Fraction(0)),
        ((90, 160), 1, Fraction(1, 30)),
        ((180, 320), 1, Fraction(1, 30)),
    ]
    for layer in clip.layers:
        marks = [float(luma[2:14, 2:14].mean()) > 128 for luma in decoded("vp8", layer.variants[0])]
        assert marks == [False, True] * 15


def test_what_identifies_the_pattern_follows_its_looks() -> None:
    spec = VideoSpec(layers=SMALL)
    found = picture_source(spec).identity()
    assert found == picture_source(spec).identity()
    other_title = VideoSpec(layers=SMALL, title="other")
    decorated = Decoration("2")
    assert len({found, picture_source(other_title).identity(), picture_source(spec, decorated).identity()}) == 3


@given(st.floats(0.4, 2.5), st.floats(0.5, 1.5))
def test_aims_close_in_on_what_is_asked_for(factor: float, power: float) -> None:
    """An encoder that gives ``factor`` times the ``power`` of its aim is within 10 % after six attempts."""
    outcomes: list[tuple[float, float]] = []
    aim = 500.0
    for _ in range(6):
        outcomes.append((aim, 500 * factor * (aim / 500) ** power))
        aim = next_target(500.0, outcomes)
    assert min(abs(got / 500 - 1) for _, got in outcomes) < 0.1


class _Blank:
    """Pictures that no encoder can spend bits on."""

    duration = Fraction(1)

    def identity(self) -> str:
        return "blank"

    def pictures(self) -> Iterator[list[object]]:
        for _ in range(30):
            frame = VideoFrame(160, 90, "yuv420p")
            for plane in planes_of(frame):
                plane[...] = 128
            yield [frame]


def test_a_bitrate_that_cannot_be_had_is_told(
    caplog: pytest.LogCaptureFixture, capsys: pytest.CaptureFixture[str]
) -> None:
    spec = VideoSpec(layers=(LayerSpec(160, 90, 1_000_000),), duration=Fraction(1))
    clip = encode_video(spec, _Blank(), "digest", ignore)  # type: ignore[arg-type]
    assert bitrate(clip, 0) < 500_000
    assert "clip_bitrate" in capsys.readouterr().out + caplog.text


def test_an_encoder_that_is_missing_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(ENCODERS, "av1", ("libmissing", {}))
    with pytest.raises(ConfigurationError, match="codec: av1 can't be encoded, libmissing is missing in PyAV"):
        encoded(spec_of("av1"))


def test_progress_goes_up_and_can_end_it() -> None:
    shares: list[float] = []
    spec = spec_of("vp8")
    encode_video(spec, picture_source(spec), "digest", shares.append)
    assert shares == sorted(shares)
    assert 0 <= shares[0] < shares[-1] <= 1

    def refuse(share: float) -> None:
        if share > 0.1:
            raise KeyError

    with pytest.raises(KeyError):
        encode_video(spec, picture_source(spec), "digest", refuse)


def test_a_decoder_that_misses_frames_shows_nothing_right() -> None:
    """Holds the other tests to account: what they compare does fail."""
    spec = spec_of("h264")
    clip, pictures = encoded(spec), originals(spec)[0]
    decoder = Pictures("h264")
    decoder.decode(clip.layers[0].variants[0][0])
    shown = [luma for frame in clip.layers[0].variants[0][20:23] for luma in decoder.decode(frame)]
    assert shown
    assert all(psnr(luma, pictures[20]) < GOOD for luma in shown)


# --- sound ---


def tone_clip(bits: int = 32_000) -> tuple[Clip, Samples]:
    spec = SoundSpec(mode="tone", pitch=440, duration=Fraction(1), bitrate=bits)
    samples = sound_of(spec)
    return encode_sound(spec, samples, "digest", ignore), samples


def test_sound_is_in_its_place_and_goes_round_without_a_seam() -> None:
    clip, samples = tone_clip()
    frames = clip.layers[0].variants[0]
    assert (clip.media, clip.codec, clip.clock_rate, float(clip.duration)) == ("audio", "opus", 48000, 1.0)
    assert [frame.timestamp for frame in frames] == [960 * number for number in range(50)]
    assert all(frame.key and len(frame.payloads) == 1 for frame in frames)
    got = heard([*frames, *frames, *frames])[: 3 * len(samples)].astype(np.float64)
    wanted = np.tile(samples, 3)[: len(got)].astype(np.float64)
    beyond = slice(len(samples), len(got) - 960)  # a decoder needs a moment to begin
    error = float(np.mean(np.square(got[beyond] - wanted[beyond])))
    assert 10 * math.log10(float(np.mean(np.square(wanted))) / error) > 15
    seams = np.square(got[beyond] - wanted[beyond]).reshape(-1, 960).mean(axis=1)
    assert seams.max() < 20 * max(1.0, float(np.median(seams)))


@pytest.mark.parametrize("bits", [16_000, 32_000, 64_000])
def test_sound_has_the_bitrate_asked_for(bits: int) -> None:
    assert bitrate(tone_clip(bits)[0], 0) == pytest.approx(bits, rel=0.1)


def test_levels_are_those_of_the_samples() -> None:
    clip, _ = tone_clip()
    assert {frame.level for frame in clip.layers[0].variants[0]} == {20}
    spec = SoundSpec(duration=Fraction(4))
    samples = sound_of(spec)
    levels = [frame.level for frame in encode_sound(spec, samples, "digest", ignore).layers[0].variants[0]]
    assert levels == [level_of(part) for part in samples.reshape(-1, 960)]
    assert 127 in levels, "a breath between phrases is silence"
    assert min(level for level in levels if level is not None) < 25


def test_levels_of_known_sounds() -> None:
    assert level_of(np.zeros(960, np.int16)) == 127
    assert level_of(np.full(960, -32768, np.int16)) == 0
    assert level_of(np.full(960, 3277, np.int16)) == 20


def test_the_frame_of_silence_is_silent() -> None:
    silence = heard([ClipFrame(0, True, (SILENCE,), 127)] * 10)
    assert len(silence) == 9600
    assert not silence.any()


def test_sound_is_decorated_before_it_is_encoded() -> None:
    def mark(samples: Samples) -> None:
        samples[:960] = 0

    spec = SoundSpec(mode="tone", duration=Fraction(1))
    clip = encode_sound(spec, sound_of(spec, Decoration("1", sound=mark)), "digest", ignore)
    levels = [frame.level for frame in clip.layers[0].variants[0]]
    assert levels == [127] + [20] * 49


@pytest.mark.skipif(not hasattr(os, "sched_getscheduler"), reason="the system has no such priorities")
def test_no_encoder_goes_before_everything_else_on_the_machine() -> None:
    for codec in get_args(VideoCodec):
        encoded(spec_of(codec))
        threads = [int(item.name) for item in Path("/proc/self/task").iterdir()]
        assert {os.sched_getscheduler(thread) for thread in threads} == {os.SCHED_OTHER}, codec
