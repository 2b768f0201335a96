"""Clips of files: whatever FFmpeg reads, at the clip's rate, size and length."""

from __future__ import annotations

from collections.abc import Callable
from fractions import Fraction
from pathlib import Path
from typing import Any

import av
import numpy as np
import pytest
from av import AudioFrame, VideoFrame

from bot.clips.spec import LayerSpec, SoundSpec, VideoSpec
from bot.errors import ConfigurationError
from bot.media.clipencode import encode_video
from bot.media.clipsource import picture_source, sound_of
from bot.media.marks import MIDDLE, SPACING
from bot.media.synthetic import planes_of
from tests.clips_support import Luma, decoded, luma_of, psnr

LAYERS = (LayerSpec(160, 90, 150_000),)
Captured = pytest.CaptureFixture[str]


def brightness(number: int) -> int:
    """The luma of picture ``number``: neighbours differ."""
    return 40 + number * 47 % 160


def picture(number: int, width: int, height: int) -> VideoFrame:
    frame = VideoFrame(width, height, "yuv420p")
    for plane, value in zip(planes_of(frame), (brightness(number), 128, 128), strict=True):
        plane[...] = value
    return frame


def write_pictures(
    path: Path,
    codec: str,
    *,
    count: int = 20,
    fps: int = 10,
    size: tuple[int, int] = (320, 180),
    options: dict[str, str] | None = None,
) -> Path:
    with av.open(str(path), "w") as container:
        stream: Any = container.add_stream(codec, rate=fps, options=options or {})
        stream.width, stream.height, stream.pix_fmt = *size, "yuv420p"
        for number in range(count):
            container.mux(stream.encode(picture(number, *size)))
        container.mux(stream.encode(None))
    return path


def write_sound(path: Path, codec: str, seconds: float, *, rate: int = 44100) -> Path:
    """A tone that is loud in its first half only."""
    with av.open(str(path), "w") as container:
        stream: Any = container.add_stream(codec, rate=rate, layout="stereo")
        samples = np.sin(2 * np.pi * 440 * np.arange(int(seconds * rate)) / rate) * 8000
        samples[len(samples) // 2 :] = 0
        packed = np.repeat(samples.astype(np.int16), 2).reshape(1, -1)
        frame = AudioFrame.from_ndarray(packed, format="s16", layout="stereo")
        frame.sample_rate = rate
        resampler = av.AudioResampler(stream.format, stream.layout, rate, stream.codec_context.frame_size or 1024)
        for part in [*resampler.resample(frame), *resampler.resample(None)]:
            container.mux(stream.encode(part))
        container.mux(stream.encode(None))
    return path


def shown(spec: VideoSpec) -> list[Luma]:
    return [luma_of(frames[0]).copy() for frames in picture_source(spec).pictures()]


FILES: dict[str, tuple[str, dict[str, str]]] = {
    "film.mp4": ("libx264", {}),
    "film.mkv": ("libx264", {"bf": "2"}),
    "film.webm": ("libvpx-vp9", {"deadline": "realtime", "cpu-used": "8"}),
    "film.ivf": ("libvpx", {"deadline": "realtime"}),
    "film.y4m": ("rawvideo", {}),
    "film.h264": ("libx264", {}),
}


@pytest.mark.parametrize("name", FILES)
def test_pictures_of_a_file(tmp_path: Path, name: str) -> None:
    codec, options = FILES[name]
    path = write_pictures(tmp_path / name, codec, fps=25, count=50, options=options)
    spec = VideoSpec(file=path, layers=LAYERS, fps=25)
    source = picture_source(spec)
    assert source.duration == 2
    found = [round(float(luma.mean())) for luma in shown(spec)]
    assert len(found) == 50
    assert all(abs(mean - brightness(number)) <= 3 for number, mean in enumerate(found))


@pytest.mark.parametrize(("fps", "numbers"), [(5, [0, 2, 4, 6, 8]), (20, [number // 2 for number in range(20)])])
def test_a_file_is_shown_at_the_clips_rate(tmp_path: Path, fps: int, numbers: list[int]) -> None:
    path = write_pictures(tmp_path / "film.mkv", "libx264", count=10)
    found = [float(luma.mean()) for luma in shown(VideoSpec(file=path, layers=LAYERS, fps=fps))]
    assert [round(mean) for mean in found] == pytest.approx([brightness(number) for number in numbers], abs=3)


@pytest.mark.parametrize(
    ("size", "bars"),
    [((320, 180), None), ((180, 180), (slice(None), slice(0, 30))), ((320, 90), (slice(0, 18), slice(None)))],
)
def test_shapes_are_kept(tmp_path: Path, size: tuple[int, int], bars: tuple[slice, slice] | None) -> None:
    path = write_pictures(tmp_path / "film.y4m", "rawvideo", count=10, size=size)
    luma = shown(VideoSpec(file=path, layers=LAYERS))[0]
    assert luma.shape == (90, 160)
    assert abs(int(luma[45, 80]) - brightness(0)) <= 1
    if bars is None:
        assert luma.min() > 30
    else:
        assert (luma[bars] == 16).all()


def test_the_last_picture_fills_the_time(tmp_path: Path) -> None:
    path = write_pictures(tmp_path / "film.mkv", "libx264", count=3)
    source = picture_source(VideoSpec(file=path, layers=LAYERS, fps=10))
    assert source.duration == 1
    longer = shown(VideoSpec(file=path, layers=LAYERS, fps=10, duration=Fraction(2)))
    assert [round(float(luma.mean())) for luma in longer] == pytest.approx(
        [brightness(min(number, 2)) for number in range(20)], abs=3
    )


def test_a_still_picture_is_a_film_of_one(tmp_path: Path) -> None:
    path = tmp_path / "still.png"
    encoder: Any = av.CodecContext.create("png", "w")
    encoder.width, encoder.height, encoder.pix_fmt, encoder.time_base = 320, 180, "rgb24", Fraction(1, 25)
    packets = encoder.encode(picture(0, 320, 180).reformat(format="rgb24")) + encoder.encode(None)
    path.write_bytes(b"".join(bytes(packet) for packet in packets))
    assert len(shown(VideoSpec(file=path, layers=LAYERS))) == 30


def test_a_long_file_is_cut(tmp_path: Path, capsys: Captured) -> None:
    path = write_pictures(tmp_path / "film.mkv", "libx264", count=140, fps=2, size=(32, 32))
    spec = VideoSpec(file=path, layers=(LayerSpec(32, 32, 20_000),), fps=2)
    assert picture_source(spec).duration == 60
    assert "clip_cut" in capsys.readouterr().out
    assert len(shown(spec)) == 120
    assert picture_source(VideoSpec(file=path, layers=LAYERS, duration=Fraction(3))).duration == 3


def test_a_file_goes_through_the_encoder(tmp_path: Path) -> None:
    path = write_pictures(tmp_path / "film.mkv", "libx264", count=10)
    spec = VideoSpec(file=path, layers=(LayerSpec(80, 46, 40_000), LayerSpec(160, 90, 80_000)), fps=10)
    clip = encode_video(spec, picture_source(spec), "digest", lambda _share: None)
    assert clip.name == "film.mkv"
    for layer in clip.layers:
        for variant in layer.variants:
            found = [float(luma[20:26, 30:50].mean()) for luma in decoded("vp8", variant)]
            assert found == pytest.approx([brightness(number) for number in range(10)], abs=6)


def test_the_content_identifies_a_file(tmp_path: Path) -> None:
    paths = [write_pictures(tmp_path / f"{number}.y4m", "rawvideo", count=number) for number in (3, 4)]
    copy = tmp_path / "copy.y4m"
    copy.write_bytes(paths[0].read_bytes())
    found = [picture_source(VideoSpec(file=path, layers=LAYERS)).identity() for path in (*paths, copy)]
    assert found[0] == found[2] != found[1]


def test_a_file_that_breaks_off_is_used_so_far(tmp_path: Path) -> None:
    path = write_pictures(tmp_path / "film.y4m", "rawvideo", count=10)
    path.write_bytes(path.read_bytes()[:-50_000])
    found = shown(VideoSpec(file=path, layers=LAYERS, fps=10))
    assert len(found) == 10
    assert psnr(found[-1], found[-2]) > 60


def no_file(path: Path) -> None:
    """Leave ``path`` out."""


def text_file(path: Path) -> None:
    path.write_text("no film")


def sound_file(path: Path) -> None:
    write_sound(path, "pcm_s16le", 1)


def empty_film(path: Path) -> None:
    write_pictures(path, "rawvideo", count=1)
    path.write_bytes(path.read_bytes()[:100])


@pytest.mark.parametrize(
    ("name", "make", "cause"),
    [
        ("film.mkv", no_file, "No such file"),
        ("film.mkv", text_file, "Invalid data"),
        ("film.wav", sound_file, "it has no video"),
        ("film.y4m", empty_film, "nothing can be decoded of it"),
    ],
)
def test_what_is_no_film_is_refused(tmp_path: Path, name: str, make: Callable[[Path], None], cause: str) -> None:
    make(tmp_path / name)
    spec = VideoSpec(file=tmp_path / name, layers=LAYERS)
    with pytest.raises(ConfigurationError, match=f"video: can't publish {tmp_path / name}: .*{cause}"):
        shown(spec)


# --- sound ---


@pytest.mark.parametrize(
    ("name", "codec", "rate"),
    [
        ("voice.wav", "pcm_s16le", 44100),
        ("voice.ogg", "libopus", 48000),
        ("voice.flac", "flac", 44100),
        ("voice.mp4", "aac", 44100),
    ],
)
def test_sound_of_a_file(tmp_path: Path, name: str, codec: str, rate: int) -> None:
    path = write_sound(tmp_path / name, codec, 2.0, rate=rate)
    samples = sound_of(SoundSpec(file=path))
    assert samples.shape == (96000,)
    assert 4500 < float(np.sqrt(np.mean(np.square(samples[4800:40000], dtype=np.float64)))) < 6500
    assert np.abs(samples[55000:]).max() < 100


def test_sound_is_filled_up_with_silence_and_cut(tmp_path: Path) -> None:
    path = write_sound(tmp_path / "voice.wav", "pcm_s16le", 0.5)
    filled = sound_of(SoundSpec(file=path))
    assert filled.shape == (48000,)
    assert not filled[25000:].any()
    assert sound_of(SoundSpec(file=path, duration=Fraction(1, 10))).shape == (4800,)


def test_sound_and_picture_of_a_file_are_as_long(tmp_path: Path) -> None:
    path = tmp_path / "film.mkv"
    with av.open(str(path), "w") as container:
        pictures: Any = container.add_stream("libx264", rate=30)
        pictures.width, pictures.height, pictures.pix_fmt = 160, 90, "yuv420p"
        sound: Any = container.add_stream("pcm_s16le", rate=48000, layout="mono")
        for number in range(75):
            container.mux(pictures.encode(picture(number, 160, 90)))
        container.mux(pictures.encode(None))
        frame = AudioFrame.from_ndarray(np.full((1, 48000 * 3), 100, np.int16), format="s16", layout="mono")
        frame.sample_rate = 48000
        container.mux(sound.encode(frame))
    assert picture_source(VideoSpec(file=path, layers=LAYERS)).duration == 3
    assert sound_of(SoundSpec(file=path)).shape == (48000 * 3,)


def test_sound_that_begins_later_keeps_its_place(tmp_path: Path) -> None:
    path = tmp_path / "film.mkv"
    with av.open(str(path), "w") as container:
        pictures: Any = container.add_stream("libx264", rate=10)
        pictures.width, pictures.height, pictures.pix_fmt = 160, 90, "yuv420p"
        sound: Any = container.add_stream("pcm_s16le", rate=48000, layout="mono")
        frames = [picture(number, 160, 90) for number in range(20)]
        container.mux([packet for frame in frames for packet in pictures.encode(frame)] + pictures.encode(None))
        loud = AudioFrame.from_ndarray(np.full((1, 48000), 5000, np.int16), format="s16", layout="mono")
        loud.sample_rate, loud.pts, loud.time_base = 48000, 24000, Fraction(1, 48000)
        container.mux(sound.encode(loud))
    samples = sound_of(SoundSpec(file=path))
    assert samples.shape == (2 * 48000,)
    assert [int(samples[at]) for at in (23500, 24500, 71500, 72500)] == [0, 5000, 5000, 0]
    assert not sound_of(SoundSpec(file=path, duration=Fraction(2, 5))).any()


def damaged(path: Path, share: float) -> Path:
    """Overwrite a file from ``share`` of it on."""
    data = path.read_bytes()
    begin = int(len(data) * share)
    path.write_bytes(data[:begin] + b"\xff" * (len(data) - begin))
    return path


def test_damage_ends_a_file_early(tmp_path: Path, capsys: Captured) -> None:
    film = tmp_path / "film.ivf"
    whole = write_pictures(film, "libvpx-vp9", count=10, fps=25, options={"lag-in-frames": "0"}).read_bytes()
    film.write_bytes(whole + (50).to_bytes(4, "little") + (10).to_bytes(8, "little") + b"\xff" * 50)
    found = shown(VideoSpec(file=film, layers=LAYERS, fps=25, duration=Fraction(1)))
    assert [round(float(luma.mean())) for luma in found[8:]] == pytest.approx(
        [brightness(8)] + [brightness(9)] * 16, abs=3
    )
    voice = damaged(write_sound(tmp_path / "voice.mka", "aac", 4.0), 0.5)
    samples = sound_of(SoundSpec(file=voice, duration=Fraction(4)))
    assert samples[5000:40000].any()
    assert not samples[-960:].any()
    assert capsys.readouterr().out.count("clip_file_broken") == 2


def test_what_has_no_sound_is_refused(tmp_path: Path) -> None:
    path = write_pictures(tmp_path / "film.mkv", "libx264", count=2)
    with pytest.raises(ConfigurationError, match=r"audio: can't publish .*: it has no audio"):
        sound_of(SoundSpec(file=path))


def test_a_synthetic_sound_lasts_as_long_as_the_pictures() -> None:
    assert len(sound_of(SoundSpec())) == 8 * 48000
    voice = sound_of(SoundSpec(duration=Fraction(8)))
    changed = np.flatnonzero(voice[: 4 * 48000] != voice[4 * 48000 :]) / 48000
    assert len(changed)
    assert np.abs(changed % SPACING - MIDDLE).max() < 0.04  # but for the marks, the same again
    assert not (voice == sound_of(SoundSpec(pitch=200))).all()


def test_sound_that_cannot_be_decoded_is_refused(tmp_path: Path) -> None:
    path = damaged(write_sound(tmp_path / "voice.flac", "flac", 1.0), 0.3)
    with pytest.raises(ConfigurationError, match=r"audio: can't publish .*: nothing can be decoded of it"):
        sound_of(SoundSpec(file=path, duration=Fraction(1)))


def test_a_long_file_that_does_not_tell_its_length_is_cut(tmp_path: Path, capsys: Captured) -> None:
    path = write_pictures(tmp_path / "film.h264", "libx264", count=1600, fps=25, size=(32, 32))
    assert picture_source(VideoSpec(file=path, layers=LAYERS)).duration == 60
    assert "clip_cut" in capsys.readouterr().out


def test_a_file_that_is_gone_meanwhile_is_named(tmp_path: Path) -> None:
    path = write_pictures(tmp_path / "film.mkv", "libx264", count=2)
    source = picture_source(VideoSpec(file=path, layers=LAYERS))
    path.unlink()
    with pytest.raises(ConfigurationError, match=r"video: can't publish .*: .*No such file"):
        source.identity()
