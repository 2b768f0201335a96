"""The clips of a process: each is encoded once, in a thread, whoever asks for it and however many do."""

from __future__ import annotations

import asyncio
import hashlib
import json
import threading
import time
from dataclasses import asdict
from pathlib import Path
from typing import Any

import structlog

from bot.clips.format import FORMAT_VERSION
from bot.clips.model import Clip
from bot.clips.spec import ClipSpec, SoundSpec, VideoSpec
from bot.errors import BotError
from bot.media.clipcache import DEFAULT_SIZE, ClipCache, default_directory
from bot.media.clipencode import ENCODERS, Progress, encode_sound, encode_video, encoder_versions
from bot.media.clipsource import Decoration, picture_source, sound_of

log = structlog.get_logger(__name__)

#: Seconds of encoding before it is told of, and between further words.
_PATIENCE = 1.0
_REPEAT = 5.0


class ClipClosedError(BotError):
    """The library was closed while the clip was being made."""


class ClipLibrary:
    """Gives clips, from memory, from the cache on disk, or encoded now. One for a process and its event loop.

    ``directory`` is where they are kept between runs, that of the user's caches if None; ``keep`` False keeps
    none. ``size`` bounds it in bytes. ``decoration`` is added to synthetic media. ``close`` when done.
    """

    def __init__(
        self,
        directory: Path | None = None,
        *,
        keep: bool = True,
        size: int = DEFAULT_SIZE,
        decoration: Decoration | None = None,
    ) -> None:
        self._cache = ClipCache(directory or default_directory(), size=size) if keep else None
        self._decoration = decoration
        self._tasks: dict[ClipSpec, asyncio.Task[Clip]] = {}
        self._ended = threading.Event()
        #: How many clips were encoded, as opposed to found on disk.
        self.encoded = 0

    def __repr__(self) -> str:
        return f"<ClipLibrary {len(self._tasks)} clips>"

    async def get(self, spec: ClipSpec) -> Clip:
        """The clip; the same object for the same ``spec``, a changed file included, until the library is closed.

        Raises ConfigurationError for what can't be read or encoded, ClipClosedError after ``close``.
        """
        if self._ended.is_set():
            raise ClipClosedError("the clips are closed")
        task = self._tasks.get(spec)
        if task is None:
            task = self._tasks[spec] = asyncio.create_task(self._make(spec), name=f"clip {spec.name}")
            task.add_done_callback(lambda done: self._made(spec, done))
        return await asyncio.shield(task)  # one who asks and gives up does not end it for the others

    async def close(self) -> None:
        """End what is being encoded, and forget all clips; may be called twice."""
        self._ended.set()
        tasks = list(self._tasks.values())
        if tasks:
            await asyncio.wait(tasks)
        self._tasks.clear()

    def _made(self, spec: ClipSpec, done: asyncio.Task[Clip]) -> None:
        """What failed is tried again when it is asked for again."""
        if done.cancelled() or done.exception() is not None:
            self._tasks.pop(spec, None)

    async def _make(self, spec: ClipSpec) -> Clip:
        job = _Job(spec, self._cache, self._decoration, self._ended)
        began = time.monotonic()
        thread = asyncio.get_running_loop().run_in_executor(None, job.run)
        try:
            waited, _ = await asyncio.wait({thread}, timeout=_PATIENCE)
            while not waited:
                log.info(
                    "A clip is being encoded",
                    event_name="clip_encoding",
                    clip=spec.name,
                    percent=round(100 * job.share),
                )
                waited, _ = await asyncio.wait({thread}, timeout=_REPEAT)
        except asyncio.CancelledError:
            job.cancelled.set()
            await asyncio.wait({thread})
            thread.exception()  # it is the end that was asked for
            raise
        clip = thread.result()
        self.encoded += job.encoded
        log.info(
            "A clip is ready",
            event_name="clip_ready",
            clip=repr(clip),
            encoded=job.encoded,
            seconds=round(time.monotonic() - began, 3),
            bytes=clip.size,
        )
        return clip


class _Job:
    """One clip being made in a thread. ``share`` is how much of it is done."""

    def __init__(
        self, spec: ClipSpec, cache: ClipCache | None, decoration: Decoration | None, ended: threading.Event
    ) -> None:
        self._spec = spec
        self._cache = cache
        self._decoration = decoration
        self._ended = ended
        self.cancelled = threading.Event()
        self.share = 0.0
        self.encoded = False

    def run(self) -> Clip:
        """Find or encode the clip."""
        if isinstance(self._spec, VideoSpec):
            return self._video(self._spec)
        return self._sound(self._spec)

    def _video(self, spec: VideoSpec) -> Clip:
        source = picture_source(spec, self._decoration)
        digest = digest_of(spec, source.identity())
        return self._kept(digest) or self._keep(encode_video(spec, source, digest, self._progress))

    def _sound(self, spec: SoundSpec) -> Clip:
        samples = sound_of(spec, self._decoration)
        digest = digest_of(spec, f"sound {hashlib.sha256(samples.tobytes()).hexdigest()}")
        return self._kept(digest) or self._keep(encode_sound(spec, samples, digest, self._progress))

    def _kept(self, digest: str) -> Clip | None:
        return self._cache.get(digest) if self._cache is not None else None

    def _keep(self, clip: Clip) -> Clip:
        self.encoded = True
        if self._cache is not None:
            self._cache.put(clip)
        return clip

    def _progress(self, share: float) -> None:
        self.share = share
        if self._ended.is_set() or self.cancelled.is_set():
            raise ClipClosedError("the clips were closed")


def digest_of(spec: ClipSpec, identity: str) -> str:
    """The key of a clip: of what it is made, how, by which encoder, and how it is written."""
    settings: dict[str, Any] = {**asdict(spec), "file": None}
    codec = "opus"
    if isinstance(spec, VideoSpec):
        codec, settings["temporal_layers"] = spec.codec, spec.temporal_layers
    parts = [FORMAT_VERSION, encoder_versions(), ENCODERS[codec], identity, spec.name, settings]
    return hashlib.sha256(json.dumps(parts, sort_keys=True, default=str).encode()).hexdigest()


__all__ = ["ClipClosedError", "ClipLibrary", "Decoration", "Progress", "digest_of"]
