"""Voices for transcription: what is heard is where the manifest says, and silence where nothing was recorded."""

from __future__ import annotations

import asyncio
import json
import wave
from pathlib import Path
from typing import Any

import av
import numpy as np
import pytest
from av import AudioFrame
from av.audio.codeccontext import AudioCodecContext
from numpy.typing import NDArray
from typer.testing import CliRunner

from bot.cli import app
from bot.recording import voices
from bot.recording.delivery import NotDeliveredError, Stopped, mark, read_state
from bot.recording.destinations import deliverer_of
from bot.recording.manifest import MANIFEST, Manifest, Segment, SourceEntry, read_manifest
from bot.recording.matroska import Muxer, TrackFormat
from bot.recording.options import RecordOptions
from bot.recording.voices import RATE
from tests.recording_support import STARTED, write

#: Opus looks ahead by 6.5 ms (RFC 6716 section 2): what it decodes is later by as much.
LOOKAHEAD = 0.0065
#: A window (seconds) that loudness is measured in.
WINDOW = 0.01


def beeps(seconds: float, at: list[float], *, channels: str = "stereo") -> list[bytes]:
    """Opus frames of 20 ms with tones of 0.1 s that begin at these times, silence between them."""
    encoder = av.CodecContext.create("libopus", "w")
    assert isinstance(encoder, AudioCodecContext)
    encoder.sample_rate, encoder.format, encoder.layout = 48_000, "s16", channels
    times = np.arange(round(seconds * 48_000)) / 48_000
    loud = np.zeros(len(times), bool)
    for start in at:
        loud |= (times >= start) & (times < start + 0.1)
    wave_ = (np.sin(times * 2 * np.pi * 1000) * 12_000 * loud).astype(np.int16)
    count = 2 if channels == "stereo" else 1
    found = []
    for number in range(len(times) // 960):
        part = wave_[number * 960 : (number + 1) * 960]
        frame = AudioFrame.from_ndarray(np.repeat(part, count).reshape(1, -1), format="s16", layout=channels)
        frame.sample_rate, frame.pts = 48_000, number * 960
        found += [bytes(packet) for packet in encoder.encode(frame)]
    return found


def add_segment(
    folder: Path,
    source: SourceEntry,
    start: float,
    frames: list[bytes],
    *,
    without: range = range(0),
    drift: float = 0,
) -> None:
    """A file of frames, those of ``without`` left out; time stamps are too fast by the share ``drift``."""
    number = len(source.segments) + 1
    name = f"{source.name}-{number}.webm"
    kept = [(index, data) for index, data in enumerate(frames) if index not in without]
    muxed = [(1, round(20 * index * (1 + drift)), data, True) for index, data in kept]
    write(folder / name, Muxer([TrackFormat("opus")], started=STARTED), muxed)
    end = start + 0.02 * (1 + drift) * len(frames)
    source.segments.append(Segment(file=name, codec="opus", start=start, end=end, ended="end"))


def recording(folder: Path, duration: float) -> tuple[Manifest, SourceEntry]:
    manifest = Manifest(program="test", room="room", started=STARTED, duration=duration, state="finished")
    who = manifest.participant("ab12")
    who.name = "Ann/../x"
    source = SourceEntry(name="ab12-a0", media="audio")
    who.sources += [source, SourceEntry(name="ab12-v0", media="video")]
    manifest.participant("cd34").sources.append(SourceEntry(name="cd34-a0", media="audio"))
    return manifest, source


def save(folder: Path, manifest: Manifest) -> None:
    (folder / MANIFEST).write_bytes(manifest.to_json())


def samples(path: Path) -> NDArray[np.int16]:
    with av.open(str(path)) as container:
        stream = container.streams.audio[0]
        assert (stream.rate, stream.layout.nb_channels) == (RATE, 1)
        return np.concatenate([frame.to_ndarray().reshape(-1) for frame in container.decode(audio=0)])


def onsets(found: NDArray[np.int16]) -> list[float]:
    """When it gets loud (seconds)."""
    step = round(WINDOW * RATE)
    whole = found[: len(found) // step * step].reshape(-1, step).astype(float)
    loud = np.sqrt((whole**2).mean(axis=1)) > 2000
    starts = np.flatnonzero(loud & ~np.concatenate([[False], loud[:-1]]))
    return [float(item) * WINDOW for item in starts]


@pytest.mark.parametrize("format_", ["wav", "flac"])
def test_sound_is_where_the_manifest_says_and_silence_elsewhere(tmp_path: Path, format_: voices.Format) -> None:
    manifest, source = recording(tmp_path, 10.0)
    add_segment(tmp_path, source, 0.5, beeps(2, [0.5, 1.5]))
    add_segment(tmp_path, source, 4.25, beeps(3, [0.25, 2.0]), without=range(50, 90))  # 1.0 to 1.8 s are lost
    add_segment(tmp_path, source, 8.0, beeps(1, [0.5], channels="mono"))
    save(tmp_path, manifest)
    [name] = voices.add(tmp_path, format_)
    assert name == f"Ann____x-ab12-a0.{format_}"
    assert (tmp_path / name).stat().st_mode & 0o777 == 0o600
    assert not list(tmp_path.glob(".*"))
    found = samples(tmp_path / name)
    assert len(found) == 10 * RATE
    assert onsets(found) == pytest.approx([1.0, 2.0, 4.5, 6.25, 8.5], abs=WINDOW + LOOKAHEAD + 0.001)
    assert not found[: RATE // 2].any()
    assert not found[round(2.6 * RATE) : round(4.2 * RATE)].any()
    read = read_manifest(tmp_path)
    assert [item.audio for who in read.participants for item in who.sources] == [name, None, None]
    if format_ == "wav":
        with wave.open(str(tmp_path / name)) as file:  # and a reader that is not FFmpeg's
            assert (file.getframerate(), file.getnchannels(), file.getsampwidth()) == (RATE, 1, 2)
            assert file.getnframes() == 10 * RATE


@pytest.mark.parametrize("drift", [0.002, -0.002])
def test_a_clock_that_drifts_is_followed(tmp_path: Path, drift: float) -> None:
    manifest, source = recording(tmp_path, 31.0)
    times = [float(second) for second in range(1, 30, 4)]
    add_segment(tmp_path, source, 0.0, beeps(30, times), drift=drift)
    save(tmp_path, manifest)
    found = onsets(samples(tmp_path / voices.add(tmp_path, "wav")[0]))
    apart = [abs(one - two * (1 + drift)) for one, two in zip(found, times, strict=True)]
    assert max(apart) < voices.TOLERANCE / RATE + 2 * WINDOW + LOOKAHEAD


def test_files_that_are_broken_or_gone_are_silence(tmp_path: Path) -> None:
    manifest, source = recording(tmp_path, 4.0)
    add_segment(tmp_path, source, 0.0, beeps(1, [0.5]))
    add_segment(tmp_path, source, 1.0, [*beeps(1, [0.5])[:10], b"\xff\xff", *beeps(1, [0.5])[11:]])
    for name in ("gone.webm", "broken.webm", "../../outside.webm"):
        source.segments.append(Segment(file=name, codec="opus", start=2.0, end=3.0))
    (tmp_path / "broken.webm").write_bytes(b"no Matroska")
    save(tmp_path, manifest)
    found = samples(tmp_path / voices.add(tmp_path, "flac")[0])
    assert len(found) == 4 * RATE
    assert onsets(found) == pytest.approx([0.5, 1.5], abs=2 * WINDOW)


def test_an_interruption_leaves_nothing_behind(tmp_path: Path) -> None:
    manifest, source = recording(tmp_path, 2.0)
    add_segment(tmp_path, source, 0.0, beeps(2, []))
    save(tmp_path, manifest)
    before = sorted(tmp_path.iterdir())
    stopped = Stopped()
    stopped.set()
    with pytest.raises(NotDeliveredError):
        voices.add(tmp_path, "wav", check=stopped.check)
    assert sorted(tmp_path.iterdir()) == before


def recorded(out: Path) -> Path:
    folder = out / "room-20260102T030405Z"
    folder.mkdir(parents=True)
    manifest, source = recording(folder, 2.0)
    add_segment(folder, source, 0.0, beeps(2, [1.0]))
    save(folder, manifest)
    return folder


async def test_voices_are_made_once_before_a_recording_is_delivered(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = await asyncio.to_thread(recorded, tmp_path / "out")
    mark(folder)
    made: list[Path] = []
    add = voices.add

    def counted(folder: Path, *others: Any, **more: Any) -> list[str]:
        made.append(folder)
        return add(folder, *others, **more)

    monkeypatch.setattr(voices, "add", counted)
    options = RecordOptions.of(audio="flac", deliver_folder=tmp_path / "there")
    for _ in range(2):
        deliverer = deliverer_of(options, lambda _: None)
        deliverer.add(folder)
        assert await deliverer.drain(30)
        await deliverer.close()
    assert made == [folder]
    assert (tmp_path / "there" / folder.name / "Ann____x-ab12-a0.flac").exists()
    state = read_state(folder)
    assert state is not None
    assert state.done


def test_the_commands_make_voices_and_deliver_what_was_recorded_before(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = recorded(tmp_path / "out")
    runner = CliRunner()
    done = runner.invoke(app, ["record", "audio", str(tmp_path / "out"), "--format", "flac"])
    assert (done.exit_code, done.stdout) == (0, f"{folder}: Ann____x-ab12-a0.flac\n")
    assert runner.invoke(app, ["record", "audio", str(folder), "--format", "mp3"]).exit_code == 2
    assert runner.invoke(app, ["record", "deliver", str(folder)]).exit_code == 2
    monkeypatch.setenv("JITSI_RECORD_DELIVER_FOLDER", str(tmp_path / "there"))
    assert runner.invoke(app, ["record", "deliver", str(tmp_path / "out")]).exit_code == 0
    manifest = json.loads((tmp_path / "there" / folder.name / MANIFEST).read_bytes())
    assert manifest["participants"][0]["sources"][0]["audio"] == "Ann____x-ab12-a0.flac"
