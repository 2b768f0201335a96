"""Decoding on request: frames from the packets of those streams that are asked for, by the process's threads."""

from __future__ import annotations

import asyncio
import re
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass
from math import inf

import structlog
from av import VideoFrame

from bot.bridge import pool as pools
from bot.bridge.decoder import Decoded, DecodedFrame, decode_batch, decoder_of, make_decoder
from bot.bridge.depacketize import unpack
from bot.bridge.frames import EncodedFrame, FrameAssembler
from bot.bridge.nack import MAX_AGE
from bot.bridge.payloads import PayloadFormat
from bot.bridge.pool import DecodePool
from bot.bridge.rotation import Rotation
from bot.bridge.rtp import RtpError, RtpHeader, is_padding_only
from bot.jingle.model import Media

log = structlog.get_logger(__name__)

#: ``none``, ``audio``, ``video``, ``all``, or ``sample:K`` for K streams at a time.
Decode = str

#: Streams of one session that are decoded at the same time; others are only counted.
MAX_DECODED = 64
#: Streams of one session that wait to be decoded, or never are; there are no more in the statistics, either.
MAX_KNOWN = 4096
#: How long ``sample:K`` stays with the same streams (seconds).
DWELL = 10.0
#: A sampled stream that is silent for this long makes room where others wait (seconds).
SILENCE = 3.0
#: Encoded frames of one stream that wait for a thread: two seconds of video, one of sound.
QUEUE = 60
#: Bytes of these, two frames of a sharp 5K screen.
QUEUE_BYTES = 4 * 1024 * 1024
#: Encoded frames that a stream may have decoded before it is another's turn.
TURN = 4
#: How long a hole in a stream is waited for (seconds): what NACK repairs comes within the first.
VIDEO_PATIENCE = MAX_AGE
PLAIN_PATIENCE = 0.1
#: Log lines of one session about frames that can't be decoded: hundreds of streams can be broken at once.
MAX_LINES = 16


@dataclass(frozen=True, slots=True)
class DecodeRule:
    """What the setting ``decode`` says: which media, how many streams at a time, and for how long (seconds)."""

    kinds: tuple[Media, ...]
    limit: int
    dwell: float = inf

    @classmethod
    def parse(cls, decode: Decode) -> DecodeRule:
        """Read ``none``, ``audio``, ``video``, ``all`` or ``sample:K``. Raises ValueError."""
        if sample := re.fullmatch(r"sample:([1-9]\d?)", decode):
            limit = int(sample[1])
            if limit <= MAX_DECODED:
                return cls(("audio", "video"), limit, DWELL)
        kinds: dict[str, tuple[Media, ...]] = {
            "none": (),
            "audio": ("audio",),
            "video": ("video",),
            "all": ("audio", "video"),
        }
        if decode not in kinds:
            raise ValueError(
                f"decode={decode!r} is none of none, audio, video, all, sample:1 to sample:{MAX_DECODED}"
            )
        return cls(kinds[decode], MAX_DECODED)


@dataclass(frozen=True, slots=True)
class DecodeTotals:
    """What a session decoded so far, also of streams that ended; ``dropped`` because it can't keep up."""

    frames: int = 0
    dropped: int = 0
    errors: int = 0


class DecodedStream:
    """What was decoded of one stream. ``last`` is the newest frame, ``dropped`` were not decoded in time."""

    def __init__(self, ssrc: int, format_: PayloadFormat) -> None:
        self.ssrc = ssrc
        self.media: Media = format_.media
        self.codec = format_.codec
        self.frames = 0
        self.last: DecodedFrame | None = None
        #: Encoded frames that were thrown away because decoding, or the receiver of frames, could not keep up, or
        #: because there was no memory for them.
        self.dropped = 0
        #: Encoded frames that the decoder could not read.
        self.errors = 0

    def __repr__(self) -> str:
        return f"<DecodedStream {self.ssrc} {self.codec} frames {self.frames} dropped {self.dropped}>"

    @property
    def size(self) -> tuple[int, int] | None:
        """Width and height of the newest picture in pixels."""
        return (self.last.width, self.last.height) if isinstance(self.last, VideoFrame) else None


OnFrame = Callable[[DecodedStream, DecodedFrame], None]


class _Job:
    """One stream being decoded: its frames wait here while a thread has its decoder."""

    def __init__(self, ssrc: int, format_: PayloadFormat, pool: DecodePool, now: float) -> None:
        patience = VIDEO_PATIENCE if format_.nack else PLAIN_PATIENCE
        self.format = format_
        self.heard = now
        self.stream = DecodedStream(ssrc, format_)
        self.assembler = FrameAssembler(video=format_.media == "video", patience=patience)
        self.waiting: deque[EncodedFrame] = deque()
        self.busy = False
        self.ended = False
        self._pool = pool
        self._decoder = make_decoder(format_, pool.pixels)
        self._bytes = 0

    def queue(self, frame: EncodedFrame) -> bool:
        """Let ``frame`` wait; False where there is no room for it, in this stream or in the process."""
        size = len(frame.data)
        if len(self.waiting) >= QUEUE or self._bytes + size > QUEUE_BYTES or not self._pool.waiting.take(size):
            return False
        self._bytes += size
        self.waiting.append(frame)
        return True

    def take(self) -> EncodedFrame:
        """The frame that waited longest."""
        frame = self.waiting.popleft()
        self._bytes -= len(frame.data)
        self._pool.waiting.give(len(frame.data))
        return frame

    def turn(self) -> asyncio.Future[Decoded]:
        """Have some of what waits decoded."""
        self.busy = True
        batch = [self.take() for _ in range(min(TURN, len(self.waiting)))]
        return self._pool.run(decode_batch, self._decoder, batch)

    def end(self) -> None:
        """Give back all that it holds, what a thread has when that is done."""
        self.ended = True
        while self.waiting:
            self.take()
        if not self.busy:
            self._decoder.close()

    def done(self) -> None:
        """A turn is over."""
        self.busy = False
        if self.ended:
            self._decoder.close()


class Decoders:
    """All streams of a session that are decoded. ``packet`` is called from the loop; frames come there, too.

    ``need_key_frame(ssrc, needed)`` hears when a stream can't go on without one, and when it came; ``wake`` when
    there is a new deadline. ``endpoint_of(ssrc)`` says whose a stream is, where that is known.
    """

    def __init__(
        self,
        decode: Decode,
        *,
        on_frame: OnFrame | None = None,
        need_key_frame: Callable[[int, bool], None] = lambda _ssrc, _needed: None,
        wake: Callable[[], None] = lambda: None,
        endpoint_of: Callable[[int], str | None] = lambda _: None,
        pool: DecodePool | None = None,
    ) -> None:
        rule = DecodeRule.parse(decode)
        self._rule = rule
        #: Whether anything is decoded at all.
        self.active = bool(rule.kinds)
        self._on_frame = on_frame
        self._need_key_frame = need_key_frame
        self._wake = wake
        self._pool = pool or pools.POOL
        self._joined = False
        self._jobs: dict[int, _Job] = {}
        #: Streams that are decoded or wait for that, and those that are never.
        self._formats: dict[int, PayloadFormat] = {}
        self._refused: set[int] = set()
        self._rotation = Rotation(rule.limit, dwell=rule.dwell, endpoint_of=endpoint_of)
        self._running: set[asyncio.Future[Decoded]] = set()
        self._before = DecodeTotals()
        self._told: set[str] = set()
        self._lines = 0
        self._now = 0.0
        self._closed = False

    def __repr__(self) -> str:
        return f"<Decoders {len(self._jobs)} streams>"

    @property
    def totals(self) -> DecodeTotals:
        """What was decoded and dropped so far."""
        found: list[DecodeTotals | DecodedStream] = [self._before, *(job.stream for job in self._jobs.values())]
        return DecodeTotals(
            sum(item.frames for item in found),
            sum(item.dropped for item in found),
            sum(item.errors for item in found),
        )

    def get(self, ssrc: int) -> DecodedStream | None:
        """What was decoded of ``ssrc``, None when it is not being decoded."""
        job = self._jobs.get(ssrc)
        return job.stream if job else None

    # --- packets -------------------------------------------------------------------------------------------

    def wants(self, ssrc: int) -> bool:
        """Whether packets of ``ssrc`` have to be unprotected for ``packet``; True until one was taken of it.

        It answers for SSRCs with media, not for those of retransmissions. The answer may change with each
        ``packet``, ``expire`` and ``forget``.
        """
        if ssrc in self._jobs:
            return not self._closed
        return self.active and not self._closed and ssrc not in self._refused and ssrc not in self._formats

    def packet(self, format_: PayloadFormat, header: RtpHeader, data: bytes, now: float) -> None:
        """Take one packet of a media stream, repaired ones and those with padding only included."""
        self._now = now
        if format_.media not in self._rule.kinds:
            if header.ssrc not in self._formats:
                self._refuse(header.ssrc)
            return
        job = self._jobs.get(header.ssrc)
        if (job is None or job.format is not format_) and not is_padding_only(data, header):
            # A probe for bandwidth begins no stream and changes no codec, whatever its payload type says.
            job = self._consider(header.ssrc, format_, now)
        if job is None or self._closed:
            return
        job.heard = now
        try:
            piece = unpack(format_.codec, header, data)
        except (RtpError, ValueError):
            self._unreadable(job, 1)
            return
        waited = job.assembler.next_deadline()
        self._frames(job, job.assembler.feed(header.sequence, piece, now))
        if job.assembler.next_deadline() < waited:
            self._wake()

    def expire(self, now: float) -> None:
        """Go on behind holes that were waited for long enough, and with other streams when it is time."""
        for job in self._jobs.values():
            if job.assembler.next_deadline() <= now:
                self._frames(job, job.assembler.expire(now))
        if self._samples:
            for ssrc in [ssrc for ssrc, job in self._jobs.items() if job.heard + SILENCE <= now]:
                self._leave(ssrc)  # heard again, it is new
            self._rotation.turn(now)
            self._follow(now)

    def next_deadline(self) -> float:
        """When ``expire`` is to be called."""
        holes = min((job.assembler.next_deadline() for job in self._jobs.values()), default=inf)
        if not self._samples:
            return holes
        silent = min((job.heard for job in self._jobs.values()), default=inf) + SILENCE
        return min(holes, silent, self._rotation.next_deadline())

    def forget(self, *ssrcs: int) -> None:
        """End the decoding of ``ssrcs``; the next packet of each begins anew."""
        for ssrc in ssrcs:
            self._refused.discard(ssrc)
            self._leave(ssrc)
        self._follow(self._now)

    async def close(self) -> None:
        """Wait for the threads to end; may be called twice."""
        self._closed = True
        for job in self._jobs.values():
            job.end()
        if self._running:
            await asyncio.wait(self._running)
        if self._joined:
            self._joined = False
            self._pool.leave()

    # --- which streams -------------------------------------------------------------------------------------

    @property
    def _samples(self) -> bool:
        """Whether streams wait for those that are decoded to make room."""
        return self._rule.dwell < inf and self._rotation.waiting

    def _consider(self, ssrc: int, format_: PayloadFormat, now: float) -> _Job | None:
        """Take a stream that is new, or has another payload type than before; its job if it is decoded."""
        before = self._formats.get(ssrc)
        if before is format_ or self._closed:
            return self._jobs.get(ssrc)
        decoder = decoder_of(format_)
        if decoder is None or len(self._formats) - (before is not None) >= MAX_KNOWN:
            self._refuse(ssrc)
            self._tell(ssrc, "there are too many already" if decoder else f"no decoder for {format_.codec}")
            return None
        self._formats[ssrc] = format_
        if before is not None and decoder == decoder_of(before):
            if (job := self._jobs.get(ssrc)) is not None:
                job.format = format_
            return job
        return self._begin(ssrc, format_, now)

    def _begin(self, ssrc: int, format_: PayloadFormat, now: float) -> _Job | None:
        self._refused.discard(ssrc)
        if ssrc in self._rotation:
            self._end(ssrc)  # another codec takes the place
        else:
            self._rotation.add(ssrc, format_.media, now)
        self._follow(now)
        if self._rotation.waiting and self._rule.dwell == inf:
            self._tell(ssrc, "there are too many already")
        elif self._rotation.waiting:
            self._wake()
        return self._jobs.get(ssrc)

    def _refuse(self, ssrc: int) -> None:
        if ssrc in self._formats:
            self._leave(ssrc)
        if len(self._refused) < MAX_KNOWN:
            self._refused.add(ssrc)

    def _tell(self, ssrc: int, why: str) -> None:
        """Say it of the first stream: a flood of them is one cause, not thousands of lines."""
        if why not in self._told:
            self._told.add(why)
            log.warning("A stream is not decoded", event_name="stream_not_decoded", ssrc=ssrc, cause=why)

    def _leave(self, ssrc: int) -> None:
        self._end(ssrc)
        self._rotation.remove(ssrc)
        self._formats.pop(ssrc, None)

    def _follow(self, now: float) -> None:
        """Decode what is chosen, and nothing else."""
        self._rotation.fill()
        chosen = self._rotation.chosen
        for ssrc in [ssrc for ssrc in self._jobs if ssrc not in chosen]:
            self._end(ssrc)
        for ssrc in chosen:
            if ssrc not in self._jobs and not self._closed:
                self._open(ssrc, now)

    def _open(self, ssrc: int, now: float) -> None:
        if not self._joined:
            self._joined = True
            self._pool.join()
        job = self._jobs[ssrc] = _Job(ssrc, self._formats[ssrc], self._pool, now)
        if job.assembler.needs_key_frame:
            self._need_key_frame(ssrc, True)

    def _end(self, ssrc: int) -> None:
        job = self._jobs.pop(ssrc, None)
        if job is None:
            return
        job.end()
        before, stream = self._before, job.stream
        self._before = DecodeTotals(
            before.frames + stream.frames, before.dropped + stream.dropped, before.errors + stream.errors
        )
        self._need_key_frame(ssrc, False)

    # --- frames --------------------------------------------------------------------------------------------

    def _frames(self, job: _Job, frames: list[EncodedFrame]) -> None:
        self._need_key_frame(job.stream.ssrc, job.assembler.needs_key_frame)
        for at, frame in enumerate(frames):
            if not job.queue(frame):
                self._drop(job, frames[at:])
                break
        if job.waiting and not job.busy:
            self._start(job)

    def _drop(self, job: _Job, left: list[EncodedFrame]) -> None:
        """Too much is waiting: pictures go on with a key frame, sound with the newest."""
        if job.stream.media == "video":
            job.stream.dropped += len(job.waiting) + len(left)
            while job.waiting:
                job.take()
        for frame in left if job.stream.media == "audio" else ():
            while len(job.waiting) >= QUEUE // 2:
                job.take()
                job.stream.dropped += 1
            if not job.queue(frame):
                job.stream.dropped += 1
        job.assembler.restart()
        self._need_key_frame(job.stream.ssrc, job.assembler.needs_key_frame)

    def _start(self, job: _Job) -> None:
        running = job.turn()
        self._running.add(running)
        running.add_done_callback(lambda done: self._decoded(job, done))

    def _decoded(self, job: _Job, done: asyncio.Future[Decoded]) -> None:
        job.done()
        self._running.discard(done)
        if done.cancelled() or self._closed or job.ended:
            return
        found = done.result()
        job.stream.dropped += found.refused
        if found.errors + found.refused and not job.assembler.needs_key_frame and job.stream.media == "video":
            job.assembler.restart()
            self._need_key_frame(job.stream.ssrc, True)
        self._unreadable(job, found.errors)
        for frame in found.frames:
            self._deliver(job.stream, frame)
        if job.waiting and not job.ended:
            self._start(job)

    def _unreadable(self, job: _Job, count: int) -> None:
        """Count what could not be decoded; the first of a stream is told, the others are statistics."""
        if count and not job.stream.errors and self._lines < MAX_LINES:
            self._lines += 1
            log.warning(
                "A frame could not be decoded",
                event_name="frame_unreadable",
                ssrc=job.stream.ssrc,
                codec=job.stream.codec,
            )
        job.stream.errors += count

    def _deliver(self, stream: DecodedStream, frame: DecodedFrame) -> None:
        stream.frames += 1
        stream.last = frame
        if self._on_frame is None:
            return
        try:
            self._on_frame(stream, frame)
        except Exception:
            # A broken receiver of frames never touches the call.
            log.exception("A receiver of frames failed", event_name="frame_receiver_failed", ssrc=stream.ssrc)
