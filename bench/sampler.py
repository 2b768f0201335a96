"""The decoder at the other end: which pictures a publisher's packets make."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
from aiortc.codecs.vpx import Vp8Decoder
from aiortc.jitterbuffer import JitterFrame
from av import FFmpegError, VideoFrame

from bench.messages import Picture
from bot.bridge.depacketize import unpack
from bot.bridge.frames import EncodedFrame, FrameAssembler
from bot.bridge.rtp import is_padding_only, parse_header

_PATIENCE = 0.2


class Sampler:
    """Decodes the VP8 of one publisher (SSRC ``video``), packets unprotected."""

    def __init__(self, video: int) -> None:
        self._video = video
        self._assembler = FrameAssembler(video=True, patience=_PATIENCE)
        self._decoder = Vp8Decoder()
        self._last: npt.NDArray[np.uint8] | None = None
        self._asked: float | None = None
        self._clear()

    def _clear(self) -> None:
        self._frames = self._changes = self._errors = 0
        self._waits: list[float] = []

    def ask(self, now: float) -> None:
        """Note that a key frame was asked for."""
        self._asked = now

    def packet(self, data: bytes, arrival: float) -> None:
        """Take a packet that came at ``arrival``; the patience for holes runs on the same clock."""
        header = parse_header(data)
        if header.ssrc != self._video or is_padding_only(data, header):
            return
        piece = unpack("vp8", header, data)
        if piece.starts_key and self._asked is not None and arrival > self._asked:
            self._waits.append(arrival - self._asked)
            self._asked = None
        for frame in (*self._assembler.feed(header.sequence, piece, arrival), *self._assembler.expire(arrival)):
            self._decode(frame)

    def _decode(self, frame: EncodedFrame) -> None:
        try:
            decoded = self._decoder.decode(JitterFrame(data=frame.data, timestamp=frame.timestamp))
        except FFmpegError:
            self._errors += 1
            return
        for item in decoded:
            if isinstance(item, VideoFrame):
                self._look(item)

    def _look(self, frame: VideoFrame) -> None:
        luma = np.frombuffer(memoryview(frame.planes[0]), np.uint8).reshape(-1, frame.planes[0].line_size)
        small = luma[::4, : frame.width : 4].copy()
        if self._last is None or self._last.shape != small.shape or not np.array_equal(small, self._last):
            self._changes += 1
        self._last = small
        self._size = frame.width, frame.height
        self._frames += 1

    def take(self) -> tuple[Picture, list[float]]:
        """What was seen since the last call, and how long key frames took that were asked for."""
        waits = self._waits
        if self._last is None:
            picture = Picture(errors=self._errors)
        else:
            width, height = self._size
            contrast = float(self._last.std())
            picture = Picture(
                frames=self._frames,
                width=width,
                height=height,
                contrast=contrast,
                changes=self._changes,
                errors=self._errors,
            )
        self._clear()
        return picture, waits
