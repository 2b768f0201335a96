"""Whether media was real: a number that was measured without it is none. Pure."""

from __future__ import annotations

from collections.abc import Iterator

from bench.messages import FarView, Job, Measured, Picture, Window
from bench.recorded import FPS, HEIGHT, WIDTH

#: Packets a second of a remote participant, and how much of it has to arrive.
STREAM_RATE = 105.0
_ENOUGH = 0.95
_MOST_MISSING = 0.01
_LEAST_FPS = 0.85 * FPS
#: Standard deviation of the luma: the pattern has about 70, a plain picture none.
_LEAST_CONTRAST = 20.0
#: Transport-wide-cc feedback a second of each receiver.
_LEAST_FEEDBACK = 5.0


def faults(job: Job, measured: Measured) -> list[str]:
    """What was wrong with the media of a run, empty where all was well."""
    found: list[str] = []
    for window in measured.windows:
        if job.publish:
            found += _of_publishers(job, window)
        if job.streams:
            found += _of_receivers(job, window)
    return found


def _of_publishers(job: Job, window: Window) -> Iterator[str]:
    far = window.far
    publishers, missing = sum(item.publishers for item in far), sum(item.missing for item in far)
    packets = sum(item.packets for item in far)
    if publishers != job.participants:
        yield f"{publishers} of {job.participants} publishers were seen"
    if missing > _MOST_MISSING * max(1, packets):
        yield f"{missing} of {packets + missing} published packets were missing"
    for view in far:
        if view.publishers and view.fps_lowest < _LEAST_FPS:
            yield f"a publisher sent {view.fps_lowest:.1f} pictures a second"
        for picture in view.pictures:
            yield from _of_picture(picture, view)
    if not any(view.pictures for view in far):
        yield "nothing was decoded"


def _of_picture(picture: Picture, view: FarView) -> Iterator[str]:
    if picture.frames < _LEAST_FPS * view.seconds:
        yield f"{picture.frames} pictures were decoded in {view.seconds:.1f} s, {picture.errors} were broken"
    elif (picture.width, picture.height) != (WIDTH, HEIGHT):
        yield f"the decoded picture has {picture.width}x{picture.height} pixels"
    elif picture.contrast < _LEAST_CONTRAST or picture.changes < picture.frames / 2:
        yield f"the decoded picture is no pattern (contrast {picture.contrast:.0f}, {picture.changes} changes)"


def _of_receivers(job: Job, window: Window) -> Iterator[str]:
    wanted = job.participants * job.streams * STREAM_RATE
    sent = sum(item.sent / item.seconds for item in window.far)
    received = window.received / window.seconds
    if sent < _ENOUGH * wanted:
        yield f"the peers sent {sent:.0f} packets a second and not {wanted:.0f}"
    if received < _ENOUGH * sent:
        yield f"{received:.0f} of {sent:.0f} packets a second were received"
    if job.way == "aiortc-receiving":
        rate = window.decoded / window.seconds / job.streams
        if rate < _LEAST_FPS:
            yield f"{rate:.1f} pictures a second of each stream were decoded"
    else:
        feedback = sum(item.feedback / item.seconds for item in window.far) / job.participants
        if feedback < _LEAST_FEEDBACK:
            yield f"a receiver sent transport-wide-cc feedback {feedback:.1f} times a second"
