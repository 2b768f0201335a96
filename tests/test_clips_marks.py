from __future__ import annotations

from fractions import Fraction

import numpy as np
import pytest

from bot.clips.model import phase_of
from bot.clips.spec import SIMULCAST, LayerSpec, SoundSpec, VideoCodec, VideoSpec
from bot.media.clipencode import encode_sound, encode_video
from bot.media.clipsource import picture_source, sound_of
from bot.media.marks import MarkDetector, MarkHeard
from bot.media.measure import PathMeter
from bot.media.pattern import ident_of
from bot.media.watermark import Mark, read
from tests.clips_support import decoded
from tests.codec_support import opus_decoded

DURATION, FPS = Fraction(2), Fraction(30)
PHASE = phase_of("abcd1234", DURATION)
START = 1_700_000_000 - PHASE
IDENT = ident_of("jitsi-bot")
SMALL, LARGE = LayerSpec(320, 180, 100_000), LayerSpec(640, 360, 100_000)


def _marks(codec: VideoCodec, *layers: LayerSpec) -> list[list[Mark | None]]:
    """What is read of a clip, variant by variant of each layer."""
    spec = VideoSpec(codec=codec, layers=layers, duration=DURATION)
    clip = encode_video(spec, picture_source(spec), "digest", lambda _share: None)
    return [
        [read(luma) for luma in decoded(codec, variant)] for layer in clip.layers for variant in layer.variants
    ]


def test_every_picture_of_a_simulcast_clip_is_marked() -> None:
    assert _marks("vp8", *SIMULCAST[:2]) == [[Mark(index, IDENT) for index in range(60)]] * 4


@pytest.mark.parametrize("codec", ["vp8", "vp9", "h264"])
@pytest.mark.parametrize("layer", [SMALL, LARGE])
def test_marks_are_read_at_the_lowest_bitrates(codec: VideoCodec, layer: LayerSpec) -> None:
    """Key frames each second leave little of 100 kbit/s: some are spoilt, what is left undrawn is an old mark.

    All but H264's of 640x360, which is no more than a blur then.
    """
    for marks in _marks(codec, layer):
        assert len(marks) == 60
        assert all(mark is None or 0 <= index - mark.index <= 1 for index, mark in enumerate(marks))
        right = sum(mark == Mark(index, IDENT) for index, mark in enumerate(marks))
        assert right >= 57 or (codec, layer) == ("h264", LARGE)


def _heard(rounds: int) -> list[MarkHeard]:
    spec = SoundSpec(duration=DURATION, bitrate=24_000)
    clip = encode_sound(spec, sound_of(spec), "digest", lambda _share: None)
    packets = [frame.payloads[0] for frame in clip.layers[0].variants[0]]
    samples = np.concatenate(list(opus_decoded(packets * rounds)))
    return MarkDetector().feed(samples, START + 0.2)


def test_a_clips_sound_and_picture_are_on_one_clock() -> None:
    """As played in a loop, both 200 ms on the way: the delay is told, and that nothing is out of step."""
    heard = _heard(5)
    assert [mark.number for mark in heard] == [0, 1, 2, 3] * 5
    meter = PathMeter(DURATION, FPS, PHASE, ident=IDENT)
    events = [(START + index / 30 + 0.2, Mark(index % 60, IDENT)) for index in range(300)]
    sounds = iter([*heard, None])
    sound = next(sounds)
    for at, mark in events:
        meter.feed_picture(mark, at)
        if sound is not None and sound.time < at - 0.06:
            meter.feed_sound(sound)
            sound = next(sounds)
    measures = meter.measures(events[-1][0])
    assert measures.sounds == 20
    assert measures.picture_delay == pytest.approx((0.2,) * 4, abs=0.001)
    assert measures.sound_delay == pytest.approx((0.2,) * 4, abs=0.003)
    assert measures.lip_sync == pytest.approx((0,) * 4, abs=0.003)
