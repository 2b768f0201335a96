"""Between a track and who sends it: tracks are exchanged, muted and paused while the stream goes on.

Aiortc's senders stop their track when they end, and die of a track that ends. Here neither ends the other: the
feed reads the track, for as long as its owner wants; each sender gets an outlet of its own.
"""

from __future__ import annotations

import asyncio
import time
from collections import deque
from collections.abc import Callable
from typing import Any, Literal, TypeAlias

import structlog
from aiortc.mediastreams import MediaStreamError, MediaStreamTrack
from av import AudioFrame, AudioResampler, Packet, VideoFrame

from bot.media.sound import FRAME_SAMPLES, SAMPLE_RATE
from bot.media.synthetic import AUDIO_TIME_BASE, VIDEO_CLOCK_RATE, VIDEO_TIME_BASE, planes_of
from bot.media.timeline import Timeline

log = structlog.get_logger(__name__)

Kind = Literal["audio", "video"]
Data: TypeAlias = "AudioFrame | VideoFrame | Packet[Any]"
#: Hears of a track that ended, and why.
OnEnded = Callable[[MediaStreamTrack, str], None]

#: A muted sound ends in so many frames of silence; after them one is sent every 400 ms (RFC 7587 section 3.1.3).
SILENT_FRAMES = 10
SILENT_INTERVAL = 0.4
#: Least seconds between two reads whose result is dropped: not every track waits until a frame is due.
_DRAIN_PAUSE = 0.005


class Feed:
    """Reads one track after the other for one outlet after the other.

    ``muted`` is the participant's wish and ``paused`` the bridge's: either way the track is not sent. Meanwhile
    one that makes its frames when asked (``on_demand``, see ``PacedTrack``) is left alone; of any other the frames
    are dropped, lest they pile up in it.
    """

    def __init__(
        self,
        kind: Kind,
        *,
        on_ended: OnEnded = lambda _track, _cause: None,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self.kind: Kind = kind
        self._on_ended = on_ended
        self._clock = clock
        self._track: MediaStreamTrack | None = None
        self._muted = False
        self._paused = False
        self._started = False
        self._task: asyncio.Task[None] | None = None
        self._ending: set[asyncio.Task[None]] = set()
        self._kick = asyncio.Event()
        self._outlet: Outlet | None = None

    def __repr__(self) -> str:
        flags = "".join(f" {name}" for name in ("muted", "paused") if getattr(self, name))
        return f"<Feed {self.kind} {self._track!r}{flags}>"

    @property
    def track(self) -> MediaStreamTrack | None:
        """The track of now."""
        return self._track

    @property
    def muted(self) -> bool:
        """Whether nothing is sent because the participant wants it so."""
        return self._muted

    @muted.setter
    def muted(self, value: bool) -> None:
        if value is not self._muted:
            self._muted = value
            self._changed()

    @property
    def paused(self) -> bool:
        """Whether nothing is sent because nobody wants it."""
        return self._paused

    @paused.setter
    def paused(self, value: bool) -> None:
        if value is not self._paused:
            self._paused = value
            self._changed()

    @property
    def silent(self) -> bool:
        """Whether the track is not to be sent, or there is none."""
        return self._muted or self._paused or self._track is None

    def set_track(self, track: MediaStreamTrack | None) -> MediaStreamTrack | None:
        """Read ``track`` from now on; returns the one before, which goes on living. Raises ValueError."""
        if track is not None:
            check_track(track, self.kind)
        before, self._track = self._track, track
        if before is not track:
            self._restart()
        return before

    def start(self) -> None:
        """Begin to read; an event loop must run."""
        if not self._started:
            self._started = True
            self._restart()

    def outlet(self) -> Outlet:
        """The track for one sender; it takes the place of the one before, which ends."""
        if self._outlet is not None:
            self._outlet.stop()
        self._outlet = Outlet(self, self._clock)
        self._kick.set()
        return self._outlet

    async def close(self) -> None:
        """Stop reading and end the outlet; the track goes on living. May be called twice."""
        self._started = False
        self._restart()
        if self._outlet is not None:
            self._outlet.stop()
        while self._ending:
            await asyncio.wait(self._ending)

    # --- reading ---

    def _restart(self) -> None:
        """Another track, or none: what was asked of the one before is not waited for."""
        if self._task is not None and not self._task.done():
            self._task.cancel()
            self._ending.add(self._task)
            self._task.add_done_callback(self._ending.discard)
        self._task = None
        if self._started and self._track is not None:
            self._task = asyncio.get_running_loop().create_task(self._pump(self._track), name=f"feed {self.kind}")
        self._changed()

    def _changed(self) -> None:
        if self._outlet is not None:
            self._outlet.interrupted()
        self._kick.set()

    async def _pump(self, track: MediaStreamTrack) -> None:
        track.add_listener("ended", self._kick.set)
        try:
            await self._read(track)
        except MediaStreamError:
            cause = "it ended"
        except Exception as error:
            log.exception("A track failed", event_name="track_failed", kind=self.kind)
            cause = f"it failed: {error!r}"
        finally:
            if self._kick.set in track.listeners("ended"):
                track.remove_listener("ended", self._kick.set)
        if self._track is track:
            self._track = self._task = None
            self._changed()
            self._on_ended(track, cause)

    async def _read(self, track: MediaStreamTrack) -> None:
        on_demand = bool(getattr(track, "on_demand", False))
        while True:
            if track.readyState != "live":
                raise MediaStreamError
            if self._hungry:
                self._deliver(await track.recv())
            elif on_demand or not self._deaf:
                self._kick.clear()
                await self._kick.wait()
            else:
                self._deliver(await track.recv())  # dropped, unless it is wanted by now
                await asyncio.sleep(_DRAIN_PAUSE)

    @property
    def _deaf(self) -> bool:
        """Whether nothing that the track gives is of use."""
        return self.silent or self._outlet is None or self._outlet.readyState != "live"

    @property
    def _hungry(self) -> bool:
        return not self._deaf and self._outlet is not None and self._outlet.waiting

    def _deliver(self, data: Any) -> None:
        if self._hungry and self._outlet is not None:
            self._outlet.take(data)

    def wanted(self) -> None:
        """Let the outlet have the next frame."""
        self._kick.set()


class Outlet(MediaStreamTrack):
    """What one sender reads: one stream, whatever tracks it is made of. ``stop`` ends it and no track.

    All frames come in the form that aiortc's encoders take (sound: 48 kHz, stereo, 20 ms; pictures: YUV 4:2:0 with
    even sides), with time stamps on one line. Packets that were encoded before begin with a key frame.
    """

    def __init__(self, feed: Feed, clock: Callable[[], float]) -> None:
        super().__init__()
        self.kind = feed.kind
        self._feed = feed
        self._clock = clock
        self._timeline = Timeline(SAMPLE_RATE if feed.kind == "audio" else VIDEO_CLOCK_RATE)
        self._ready: deque[Data] = deque()
        self._wake = asyncio.Event()
        self._resampler: AudioResampler | None = None
        self._needs_key = True
        self._silences = 0
        self._silence_due = 0.0
        #: Whether a frame is asked for right now.
        self.waiting = False
        #: Time stamp of the frame or packet that was given last, in the stream's clock; None before the first.
        self.stamp: int | None = None

    def __repr__(self) -> str:
        return f"<Outlet {self.kind} {self.readyState} {self._timeline!r}>"

    async def recv(self) -> Data:
        """The next frame or packet. Raises MediaStreamError once the outlet is stopped."""
        while True:
            if self.readyState != "live":
                raise MediaStreamError
            if self._ready:
                data = self._ready.popleft()
                self.stamp = data.pts
                return data
            if not self._make_silence():
                await self._wait()

    async def _wait(self) -> None:
        """Wait for a frame, a change, or until silence is due."""
        self._wake.clear()
        self.waiting = True
        timer = None
        if self._sends_silence:
            delay = max(0.0, self._silence_due - self._clock())
            timer = asyncio.get_running_loop().call_later(delay, self._wake.set)
        self._feed.wanted()
        try:
            await self._wake.wait()
        finally:
            self.waiting = False
            if timer is not None:
                timer.cancel()

    def interrupted(self) -> None:
        """The track is another one, or was muted or paused, or is no more so."""
        self._timeline.cut()
        self._ready.clear()
        self._resampler = None
        self._needs_key = True
        if not self._feed.silent:
            self._silences = 0
        self._wake.set()

    def take(self, data: Data) -> None:
        """Take what the track gave."""
        if isinstance(data, Packet):
            self._take_packet(data)
        elif isinstance(data, AudioFrame):
            self._ready.extend(self._placed_sound(frame) for frame in self._sound(data))
        else:
            self._ready.append(self._placed_picture(data))
        if self._ready:
            self.waiting = False
            self._wake.set()

    def stop(self) -> None:
        """End it; the track goes on living."""
        super().stop()
        self._ready.clear()
        self._wake.set()

    # --- forms ---

    def _take_packet(self, packet: Packet[Any]) -> None:
        if self.kind == "video" and self._needs_key and not packet.is_keyframe:
            return
        self._needs_key = False
        base = AUDIO_TIME_BASE if self.kind == "audio" else VIDEO_TIME_BASE
        copy = Packet(bytes(packet))  # whoever else reads the track has the same object
        stamp = (
            None if packet.pts is None or packet.time_base is None else int(packet.pts * packet.time_base / base)
        )
        copy.pts = copy.dts = self._timeline.place(stamp, self._clock())
        copy.time_base = base
        copy.is_keyframe = packet.is_keyframe
        self._ready.append(copy)

    def _sound(self, frame: AudioFrame) -> list[AudioFrame]:
        """Frames that no one else has, as the encoder takes them."""
        if _is_fresh(self._feed.track) and _is_plain(frame):
            return [frame]
        if self._resampler is None:
            self._resampler = AudioResampler("s16", "stereo", SAMPLE_RATE, FRAME_SAMPLES)
        return list(self._resampler.resample(frame))

    def _placed_sound(self, frame: AudioFrame) -> AudioFrame:
        frame.pts = self._timeline.place(_stamp(frame, SAMPLE_RATE), self._clock(), step=FRAME_SAMPLES)
        frame.time_base = AUDIO_TIME_BASE
        return frame

    def _placed_picture(self, frame: VideoFrame) -> VideoFrame:
        stamp = _stamp(frame, VIDEO_CLOCK_RATE)
        picture = frame if _is_fresh(self._feed.track) else _copied(frame)
        picture.pts = self._timeline.place(stamp, self._clock())
        picture.time_base = VIDEO_TIME_BASE
        return picture

    # --- silence ---

    @property
    def _sends_silence(self) -> bool:
        return self.kind == "audio" and self._feed.silent

    def _make_silence(self) -> bool:
        """Put a frame of silence in its place where one is due (discontinuous transmission)."""
        now = self._clock()
        if not self._sends_silence or now < self._silence_due:
            return False
        self._silences += 1
        self._silence_due = now + (1 / 50 if self._silences < SILENT_FRAMES else SILENT_INTERVAL)
        frame = AudioFrame(format="s16", layout="stereo", samples=FRAME_SAMPLES)
        frame.planes[0].update(bytes(frame.planes[0].buffer_size))
        frame.sample_rate = SAMPLE_RATE
        self._ready.append(self._placed_sound(frame))
        return True


def check_track(track: MediaStreamTrack, kind: Kind) -> None:
    """Raise ValueError for what can't be published as ``kind``."""
    if not isinstance(track, MediaStreamTrack):
        raise ValueError(f"a MediaStreamTrack of aiortc is needed, not {track!r}")  # noqa: TRY004 -- one kind of error
    if track.kind != kind:
        raise ValueError(f"a track of {kind} is needed, not of {track.kind}")
    if track.readyState != "live":
        raise ValueError(f"the track has ended: {track!r}")


def _is_fresh(track: MediaStreamTrack | None) -> bool:
    """Whether the frames of ``track`` are nobody else's; those of a relay are."""
    return bool(getattr(track, "on_demand", False))


def _is_plain(frame: AudioFrame) -> bool:
    return (frame.format.name, frame.layout.name, frame.sample_rate, frame.samples) == (
        "s16",
        "stereo",
        SAMPLE_RATE,
        FRAME_SAMPLES,
    )


def _stamp(frame: AudioFrame | VideoFrame, rate: int) -> int | None:
    if frame.pts is None or frame.time_base is None:
        return None
    return int(frame.pts * frame.time_base * rate)


def _copied(frame: VideoFrame) -> VideoFrame:
    """The picture in a frame of its own, in YUV 4:2:0 with even sides."""
    width, height = frame.width & ~1, frame.height & ~1
    if (frame.format.name, frame.width, frame.height) != ("yuv420p", width, height):
        return frame.reformat(width=width, height=height, format="yuv420p")
    copy = VideoFrame(width, height, "yuv420p")
    for target, source in zip(planes_of(copy), planes_of(frame), strict=True):
        target[...] = source
    return copy
