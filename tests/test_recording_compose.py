"""Composites and posters of recordings in files: what is seen and heard where and when."""

from __future__ import annotations

import io
import stat
from collections.abc import Iterable
from functools import cache
from pathlib import Path

import av
import numpy as np
import pytest
from av import AudioFrame, AudioResampler, VideoFrame
from av.audio.codeccontext import AudioCodecContext
from numpy.typing import NDArray
from PIL import Image
from typer.testing import CliRunner

from bot.cli import app
from bot.errors import ConfigurationError
from bot.recording import poster
from bot.recording.compose import ComposeOptions, Encoder, compose
from bot.recording.manifest import (
    MANIFEST,
    Cause,
    Manifest,
    ParticipantEntry,
    Segment,
    SourceEntry,
    Span,
    Speaker,
    read_manifest,
)
from bot.recording.matroska import Muxer, TrackFormat
from bot.recording.recover import locked, recover
from tests.codec_support import encoded
from tests.recording_support import STARTED, decoded, write

SMALL = ComposeOptions(height=180, fps=30)
Picture = NDArray[np.uint8]


@cache
def colored(red: int, green: int, blue: int, count: int, white: tuple[int, int] = (0, 0)) -> tuple[bytes, ...]:
    """VP8 of one color; white from one frame to another."""
    frames = []
    for number in range(count):
        color = (255, 255, 255) if white[0] <= number < white[1] else (red, green, blue)
        plain = np.full((72, 128, 3), color, np.uint8)
        frames.append(VideoFrame.from_ndarray(plain, format="rgb24").reformat(format="yuv420p"))
    return tuple(data for _, data in encoded("vp8", frames, 400_000, gop=30))


@cache
def beeping(count: int, start: int, end: int) -> tuple[bytes, ...]:
    """Opus blocks of 20 ms, of which those from ``start`` to ``end`` are a tone."""
    encoder = av.CodecContext.create("libopus", "w")
    assert isinstance(encoder, AudioCodecContext)
    encoder.sample_rate, encoder.format, encoder.layout = 48_000, "s16", "mono"
    found = []
    for number in range(count + 2):
        loud = 12_000 if start <= number < end else 0
        wave = (np.sin(np.arange(960) * 0.1) * loud).astype(np.int16)
        frame = AudioFrame.from_ndarray(wave.reshape(1, -1), format="s16", layout="mono")
        frame.sample_rate, frame.pts = 48_000, number * 960
        found += [bytes(packet) for packet in encoder.encode(frame)]
    return tuple(found[:count])


class Meeting:
    """A recording that is put together by hand."""

    def __init__(self, folder: Path, duration: float) -> None:
        self.folder = folder
        self.manifest = Manifest(
            program="p", room="r", started=STARTED, duration=duration, state="finished", end_cause="stopped"
        )

    def add(self, name: str, start: float = 0.0, end: float | None = None) -> ParticipantEntry:
        span = Span(start=start, end=self.manifest.duration if end is None else end)
        who = ParticipantEntry(endpoint=name.lower(), name=name, present=[span])
        self.manifest.participants.append(who)
        return who

    def film(self, who: ParticipantEntry, start: float, data: Iterable[bytes], ended: Cause = "end") -> Segment:
        frames = [(1, number * 1000 // 30, item, number % 30 == 0) for number, item in enumerate(data)]
        return self._segment(who, "video", TrackFormat("vp8", 128, 72), start, frames, ended)

    def voice(self, who: ParticipantEntry, start: float, data: Iterable[bytes], ended: Cause = "end") -> Segment:
        frames = [(1, number * 20, item, True) for number, item in enumerate(data)]
        return self._segment(who, "audio", TrackFormat("opus"), start, frames, ended)

    def _segment(
        self,
        who: ParticipantEntry,
        media: str,
        format_: TrackFormat,
        start: float,
        frames: list[tuple[int, int, bytes, bool]],
        ended: Cause,
    ) -> Segment:
        name = f"{who.endpoint}-{media[0]}0"
        source = next((item for item in who.sources if item.name == name), None)
        if source is None:
            source = SourceEntry.model_validate({"name": name, "media": media})
            who.sources.append(source)
        file = f"{who.name}-{name}-{len(source.segments) + 1}.webm"
        muxer = Muxer([format_], started=STARTED)
        write(self.folder / file, muxer, frames)
        end = start + muxer.duration / 1000
        source.segments.append(Segment(file=file, codec=format_.codec, start=start, end=end, ended=ended))
        return source.segments[-1]

    def done(self) -> Path:
        (self.folder / MANIFEST).write_bytes(self.manifest.to_json())
        return self.folder


def pictures(path: Path) -> list[tuple[float, Picture]]:
    """All pictures of a file with their times."""
    frames = [item for item in decoded(path) if isinstance(item, VideoFrame)]
    return [(item.time or 0.0, item.to_ndarray(format="rgb24").astype(np.uint8)) for item in frames]


def heard(path: Path) -> NDArray[np.float32]:
    """The sound of a file by its time stamps, mono at 48 kHz."""
    resampler, out = AudioResampler(format="flt", layout="mono", rate=48_000), np.zeros(48_000 * 30, np.float32)
    for frame in decoded(path):
        if isinstance(frame, AudioFrame):
            for item in resampler.resample(frame):
                data = item.to_ndarray()[0]
                at = max(0, round((frame.time or 0.0) * 48_000))
                out[at : at + data.size] = data
    return out


def at(found: list[tuple[float, Picture]], time: float) -> Picture:
    return min(found, key=lambda item: abs(item[0] - time))[1]


def is_color(picture: Picture, x: float, y: float, color: tuple[int, int, int]) -> bool:
    high, wide, _ = picture.shape
    seen = picture[int(y * high), int(x * wide)].astype(int)
    return bool(np.abs(seen - np.array(color)).max() < 40)


RED, BLUE = (200, 30, 30), (30, 30, 200)


@pytest.fixture
def two(tmp_path: Path) -> Path:
    """Ann is red, with the camera off from 1 s to 2 s; Bob is blue, and leaves at 2 s. Three seconds."""
    meeting = Meeting(tmp_path, 3.0)
    ann, bob = meeting.add("Ann"), meeting.add("Bob", 0.0, 2.0)
    meeting.film(ann, 0.0, colored(*RED, 30), "muted")
    meeting.film(ann, 2.0, colored(*RED, 30))
    meeting.film(bob, 0.0, colored(*BLUE, 60), "left")
    meeting.voice(ann, 0.0, beeping(150, 75, 80))
    meeting.manifest.dominant_speakers = [Speaker(at=0.5, endpoint="bob"), Speaker(at=1.5, endpoint="ann")]
    return meeting.done()


def test_tiles_follow_the_segments(two: Path) -> None:
    told: list[tuple[float, float]] = []
    done = compose(two, two / "composite.tile.mp4", SMALL, lambda *item: told.append(item))
    found = pictures(done.path)
    assert (len(found), done.frames, done.problems) == (90, 90, {})
    both, off, alone = (at(found, time) for time in (0.3, 1.3, 2.5))
    assert is_color(both, 0.25, 0.5, RED)
    assert is_color(both, 0.75, 0.5, BLUE)
    assert not is_color(off, 0.25, 0.4, RED)
    assert is_color(off, 0.75, 0.5, BLUE)
    assert is_color(alone, 0.25, 0.5, RED)
    assert is_color(alone, 0.75, 0.5, RED)
    assert told == sorted(told)
    assert told[-1] == (3.0, 3.0)
    assert stat.S_IMODE(done.path.stat().st_mode) == 0o600
    assert read_manifest(two).composites == ["composite.tile.mp4"]
    assert sorted(item.name for item in two.iterdir() if "composite" in item.name) == ["composite.tile.mp4"]


def test_the_speaker_is_large(two: Path) -> None:
    out = two / "composite.speaker.webm"
    found = pictures(compose(two, out, ComposeOptions("speaker", "webm", 180, 15)).path)
    first, second = at(found, 0.8), at(found, 1.8)
    assert is_color(first, 0.4, 0.5, BLUE)
    assert is_color(first, 0.9, 0.5, RED)
    assert not is_color(second, 0.4, 0.4, BLUE)
    assert is_color(second, 0.9, 0.5, BLUE)
    with av.open(str(out)) as container:
        codecs = sorted(stream.codec_context.codec.canonical_name for stream in container.streams)
    assert codecs == ["opus", "vp9"]


@pytest.mark.parametrize("format_", ["mp4", "webm"])
def test_lips_and_voice_stay_together(tmp_path: Path, format_: str) -> None:
    meeting = Meeting(tmp_path, 2.0)
    ann = meeting.add("Ann")
    meeting.film(ann, 0.31, colored(0, 0, 0, 45, (30, 36)))
    meeting.voice(ann, 0.21, beeping(80, 55, 65))  # 0.21 + 1.1 s is 0.31 + 1.0 s
    out = compose(meeting.done(), tmp_path / f"c.c.{format_}", ComposeOptions("tile", format_, 180)).path  # type: ignore[arg-type]
    flash = next(time for time, item in pictures(out) if is_color(item, 0.5, 0.3, (255, 255, 255)))
    loud = np.flatnonzero(np.abs(heard(out)) > 0.1)
    assert abs(loud[0] / 48_000 - 1.31) < 0.02
    assert abs(flash - loud[0] / 48_000) < 0.04
    assert abs(loud[-1] / 48_000 - 1.51) < 0.03


def test_voices_are_mixed(tmp_path: Path) -> None:
    meeting = Meeting(tmp_path, 2.0)
    meeting.voice(meeting.add("Ann"), 0.0, beeping(75, 0, 50))
    meeting.voice(meeting.add("Bob"), 0.5, beeping(75, 0, 75))
    out = compose(meeting.done(), tmp_path / "c.c.mp4", ComposeOptions(height=144, fps=10)).path
    found = heard(out)
    levels = [float(np.abs(found[int(time * 48_000) :][:9600]).mean()) for time in (0.2, 0.7, 1.3)]
    assert levels[0] > 0.1
    assert levels[2] > 0.1
    assert abs(levels[0] - levels[2]) < 0.05


def test_a_file_that_is_broken_is_told_and_the_others_are_seen(two: Path) -> None:
    [broken] = [item.file for item in read_manifest(two).segments() if item.file.startswith("Bob")]
    (two / broken).write_bytes(b"no file of ours")
    done = compose(two, two / "c.c.mp4", SMALL)
    assert list(done.problems) == [broken]
    assert is_color(at(pictures(done.path), 0.3), 0.25, 0.5, RED)


def test_files_outside_of_the_folder_are_not_read(two: Path, tmp_path_factory: pytest.TempPathFactory) -> None:
    secret = tmp_path_factory.mktemp("elsewhere") / "secret.webm"
    manifest = read_manifest(two)
    [bob] = [item for item in manifest.segments() if item.file.startswith("Bob")]
    (two / bob.file).rename(secret)
    bob.file = str(secret)
    (two / MANIFEST).write_bytes(manifest.to_json())
    done = compose(two, two / "c.c.mp4", SMALL)
    assert list(done.problems) == [str(secret)]


def test_a_recording_that_goes_on_is_refused(two: Path) -> None:
    manifest = read_manifest(two)
    manifest.state = "recording"
    (two / MANIFEST).write_bytes(manifest.to_json())
    with pytest.raises(ConfigurationError, match="still being recorded"):
        compose(two, two / "c.c.mp4", SMALL)


def test_a_composite_is_no_segment_that_a_repair_looks_at(two: Path) -> None:
    compose(two, two / "composite.tile.webm", ComposeOptions("tile", "webm", 144, 5))
    assert recover(two).unreadable == {}
    assert read_manifest(two).unlisted == []


# --- the command --------------------------------------------------------------------------------------------


def invoke(*words: object) -> tuple[int, str]:
    found = CliRunner().invoke(app, ["record", "compose", *map(str, words)])
    return found.exit_code, " ".join(found.output.split())


def test_the_command_says_how_far_it_is_and_what_it_made(two: Path) -> None:
    code, said = invoke(two, "--height", 144, "--fps", 10, "--layout", "speaker")
    assert code == 0
    assert "50 %" in said
    assert said.endswith("composite.speaker.mp4: 3.0 s")
    assert len(pictures(two / "composite.speaker.mp4")) == 30
    code, said = invoke(two, "--layout", "speaker")
    assert (code, "is there already (--overwrite replaces it)" in said) == (2, True)


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (("--out", "x.webm"), "x.webm is no name of a .mp4"),
        (("--out", "/no/where/x.mp4"), "there is no folder /no/where"),
        (("--font", "pyproject.toml"), "compose font: pyproject.toml can't be read"),
    ],
)
def test_what_is_wrong_is_named(two: Path, words: tuple[str, ...], message: str) -> None:
    code, said = invoke(two, *words)
    assert (code, message in said) == (2, True)


def test_a_folder_without_a_manifest_is_no_recording(tmp_path: Path) -> None:
    code, said = invoke(tmp_path)
    assert (code, "holds no recording" in said) == (2, True)


def test_a_composite_that_fails_leaves_nothing_behind(two: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*_: object) -> None:
        raise OSError(28, "No space left on device")

    close = Encoder.close

    def close_and_fail(encoder: Encoder) -> None:
        close(encoder)
        raise OSError(5, "Input/output error")  # nor can the end be written

    monkeypatch.setattr(Encoder, "sound", fail)
    monkeypatch.setattr(Encoder, "close", close_and_fail)
    code, said = invoke(two)
    assert (code, "can't be written: No space left on device" in said) == (2, True)
    assert not list(two.glob("composite*"))


# --- the poster ---------------------------------------------------------------------------------------------


def test_the_poster_shows_who_was_there(two: Path) -> None:
    with locked(two):
        assert poster.add(two) == "poster.jpg"
    assert read_manifest(two).poster == "poster.jpg"
    picture = np.asarray(Image.open(io.BytesIO((two / "poster.jpg").read_bytes())).convert("RGB"))
    assert picture.shape == (720, 1280, 3)
    assert is_color(picture, 0.25, 0.5, RED)
    assert is_color(picture, 0.75, 0.5, BLUE)
    assert stat.S_IMODE((two / "poster.jpg").stat().st_mode) == 0o600


def test_a_poster_needs_somebody_and_a_manifest(tmp_path: Path) -> None:
    assert poster.add(tmp_path) is None
    assert poster.add(Meeting(tmp_path, 1.0).done()) is None
    assert not (tmp_path / "poster.jpg").exists()


def test_what_can_not_be_decoded_is_an_avatar_on_the_poster(two: Path) -> None:
    for item in two.glob("Bob*"):
        item.write_bytes(b"")
    assert poster.add(two) == "poster.jpg"
