"""Each source of sound as one WAV or FLAC file for transcription: 16 kHz, one channel, in the recording's time.

Sample n is n / 16000 s after the recording began; what is missing is silence.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Literal, NamedTuple

import av
import numpy as np
import structlog
from av import AudioFrame, AudioResampler
from av.audio.stream import AudioStream
from av.container import InputContainer, OutputContainer
from numpy.typing import NDArray

from bot.recording.disk import FILE_MODE, Folder, Replace
from bot.recording.manifest import MANIFEST, Segment, SourceEntry, read_manifest
from bot.recording.names import sanitised

log = structlog.get_logger(__name__)

RATE = 16_000
#: Sound that is further (samples) from where its time stamp says is put there: a packet of 20 ms that is missing
#: counts, the jitter of time stamps does not.
TOLERANCE = RATE * 12 // 1000
Format = Literal["wav", "flac"]
CODECS: dict[Format, str] = {"wav": "pcm_s16le", "flac": "flac"}
Samples = NDArray[np.int16]


class Piece(NamedTuple):
    """Decoded sound that begins ``at`` samples after the recording began."""

    at: int
    samples: Samples


def add(folder: Path, format_: Format, *, check: Callable[[], None] = lambda: None) -> list[str]:
    """Make the files of a recording that has ended and name them in its manifest; returns their names.

    The caller keeps others out of the folder; ``check`` may raise to end it early. Raises OSError and ValueError.
    """
    manifest = read_manifest(folder)
    made = []
    for who in manifest.participants:
        for source in who.sources:
            if source.media == "audio" and source.segments:
                name = f"{sanitised(who.name or who.endpoint)}-{sanitised(source.name)}.{format_}"
                length = round(manifest.duration * RATE)
                with _whole(folder, name) as half, av.open(f"file:{half}", "w", format=format_) as container:
                    _write(container, CODECS[format_], _voice(folder, source, check), length)
                source.audio = name
                made.append(name)
    Folder(folder).carry_out(Replace(MANIFEST, manifest.to_json()))
    return made


@contextmanager
def _whole(folder: Path, name: str) -> Iterator[Path]:
    """A file to write into, which gets its name when it is whole."""
    half = folder / f".{name}.part"
    try:
        half.touch(FILE_MODE)
        yield half
        half.replace(folder / name)
    finally:
        half.unlink(missing_ok=True)


def _voice(folder: Path, source: SourceEntry, check: Callable[[], None]) -> Iterator[Piece]:
    for segment in source.segments:
        for piece in pieces(folder / Path(segment.file).name, segment):
            check()
            yield piece


def _write(container: OutputContainer, codec: str, voice: Iterable[Piece], length: int) -> None:
    writer = _Writer(container, codec)
    for piece in voice:
        writer.put(piece)
    writer.end(length)


def pieces(path: Path, segment: Segment) -> Iterator[Piece]:
    """The sound of a segment, resampled, in runs without a gap. What can't be decoded is left out, and logged."""
    resampler: AudioResampler | None = None
    begun = taken = 0
    for frame in _frames(path):
        at = round((segment.start + (frame.time or 0.0)) * RATE)
        expected = begun + taken * RATE // frame.sample_rate
        if resampler is None or abs(at - expected) > TOLERANCE:
            if resampler is not None:
                yield from _resampled(resampler, None, begun)
            resampler = AudioResampler(format="s16", layout="mono", rate=RATE)
            begun, taken = at, 0
        frame.pts = None  # runs are put where they belong; the resampler shall not mend them
        yield from _resampled(resampler, frame, begun)
        taken += frame.samples
    if resampler is not None:
        yield from _resampled(resampler, None, begun)


def _resampled(resampler: AudioResampler, frame: AudioFrame | None, begun: int) -> Iterator[Piece]:
    for made in resampler.resample(frame):
        if made.samples:
            yield Piece(begun, made.to_ndarray().reshape(-1).astype(np.int16, copy=False))


def _frames(path: Path) -> Iterator[AudioFrame]:
    broken = 0
    try:
        with av.open(f"file:{path}") as container:
            assert isinstance(container, InputContainer)
            for packet in container.demux(audio=0):
                try:
                    yield from (frame for frame in packet.decode() if isinstance(frame, AudioFrame))
                except av.FFmpegError:
                    broken += 1
    except (OSError, ValueError, IndexError) as error:
        log.warning("Sound can't be decoded", event_name="voice_incomplete", file=str(path), cause=str(error))
    if broken:
        log.warning("Some sound can't be decoded", event_name="voice_incomplete", file=str(path), packets=broken)


class _Writer:
    """Writes pieces one after the other, and silence between them; ``at`` is the next sample."""

    def __init__(self, container: OutputContainer, codec: str) -> None:
        self._container = container
        stream = container.add_stream(codec, rate=RATE)
        assert isinstance(stream, AudioStream)
        self._stream = stream
        self._stream.layout = "mono"
        self._stream.format = "s16"
        self._run = -1
        self._at = self._skip = 0

    def put(self, piece: Piece) -> None:
        """Write a piece; pieces of one run have the same ``at`` and follow each other."""
        samples = piece.samples
        if piece.at != self._run:
            self._run = piece.at
            self._silence(piece.at)
            self._skip = max(0, self._at - piece.at)
        if self._skip:
            skipped = min(self._skip, len(samples))
            self._skip -= skipped
            samples = samples[skipped:]
        self._samples(samples)

    def end(self, at: int) -> None:
        """Fill up to the end of the recording, and finish the stream."""
        self._silence(at)
        self._container.mux(self._stream.encode(None))

    def _silence(self, until: int) -> None:
        while self._at < until:
            self._samples(np.zeros(min(RATE, until - self._at), np.int16))

    def _samples(self, samples: Samples) -> None:
        if not len(samples):
            return
        frame = AudioFrame.from_ndarray(samples.reshape(1, -1), format="s16", layout="mono")
        frame.sample_rate, frame.pts = RATE, self._at
        self._at += len(samples)
        self._container.mux(self._stream.encode(frame))
