"""A poster: one picture of a meeting that has ended, beside its files and named in its manifest.

Of each file that is seen one key frame is decoded, whatever the length of the meeting.
"""

from __future__ import annotations

import io
from itertools import pairwise
from pathlib import Path
from typing import NamedTuple

import av
import structlog
from av import VideoFrame
from av.container import InputContainer

from bot.recording.compose import ComposeOptions, Painter
from bot.recording.compose_plan import Scene, Timeline
from bot.recording.disk import Folder, Replace
from bot.recording.manifest import MANIFEST, Manifest, Segment, read_manifest

POSTER = "poster.jpg"
HEIGHT, QUALITY = 720, 85

log = structlog.get_logger(__name__)


class _Moment(NamedTuple):
    pictures: int
    length: float
    time: float


def best_moment(timeline: Timeline, room: int) -> float:
    """When most pictures are seen; of several such times the middle of the longest. Pure."""
    found = [_Moment(0, 0.0, timeline.duration / 2)]
    for start, end in pairwise(timeline.turns):
        middle = (start + end) / 2
        scene = timeline.scene(middle, "tile", room)
        pictures = sum(item.segment is not None for item in scene.tiles)
        found.append(_Moment(pictures, end - start, middle))
    return max(found).time


def add(folder: Path) -> str | None:
    """Make the poster of a recording and name it in its manifest; returns the name.

    The caller keeps others out of the folder. None for a meeting that nobody came to, and where there can't be
    one: a recording is as good without. What can't be decoded is an avatar.
    """
    try:
        manifest = read_manifest(folder)
        if (data := poster_of(folder, manifest)) is None:
            return None
        manifest.poster = POSTER
        disk = Folder(folder)
        disk.carry_out(Replace(POSTER, data))
        disk.carry_out(Replace(MANIFEST, manifest.to_json()))
    except (OSError, ValueError) as error:
        log.warning("There is no poster", event_name="poster_failed", folder=str(folder), cause=str(error))
        return None
    return POSTER


def poster_of(folder: Path, manifest: Manifest) -> bytes | None:
    """The poster as a JPEG."""
    painter = Painter(ComposeOptions(height=HEIGHT))
    timeline = Timeline(manifest)
    when = best_moment(timeline, painter.room)
    scene = timeline.scene(when, "tile", painter.room)
    if not scene.tiles:
        return None
    painter.paint(scene._replace(speaker=None), _pictures(folder, scene, when))
    data = io.BytesIO()
    painter.canvas.image().save(data, "JPEG", quality=QUALITY)
    return data.getvalue()


def _pictures(folder: Path, scene: Scene, when: float) -> dict[str, VideoFrame | None]:
    return {
        item.key: _key_frame(folder / Path(item.segment.file).name, item.segment, when)
        for item in scene.tiles
        if item.segment is not None
    }


def _key_frame(path: Path, segment: Segment, when: float) -> VideoFrame | None:
    """The last key frame before ``when``."""
    try:
        with av.open(f"file:{path}") as container:
            assert isinstance(container, InputContainer)
            container.streams.video[0].codec_context.thread_count = 1
            container.seek(max(0, int((when - segment.start) * av.time_base)))
            return next(container.decode(video=0), None)
    except (OSError, ValueError, IndexError) as error:
        log.warning("A file has no picture for the poster", event_name="poster_incomplete", cause=str(error))
        return None
