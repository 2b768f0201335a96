"""What others send, as aiortc tracks: ``recv`` gives the decoded frames of one remote source."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable, Iterator, Mapping

from aiortc.mediastreams import MediaStreamError, MediaStreamTrack
from av import AudioFrame, VideoFrame

#: Frames that wait for a reader that is slow; the oldest are dropped beyond it: 2 s of video, 1 s of sound.
BACKLOG = 60

Frame = VideoFrame | AudioFrame


class RemoteTrack(MediaStreamTrack):
    """One remote source. Works wherever aiortc takes a track (recorder, relay, another connection).

    ``source`` is Jitsi's source name (``ENDPOINT-a0``), ``owner`` the endpoint id. It ends when the source is
    removed; it stays the same while the bridge moves or puts the source on another SSRC.
    """

    def __init__(self, kind: str, source: str, owner: str | None) -> None:
        self.kind = kind
        super().__init__()
        self.source = source
        self.owner = owner
        #: Frames that nobody took in time.
        self.dropped = 0
        #: The SSRCs that carry it; none when it is gone.
        self.ssrcs: set[int] = set()
        self._frames: deque[Frame] = deque()
        self._news = asyncio.Event()

    def __repr__(self) -> str:
        return f"<RemoteTrack {self.kind} {self.source} {self.readyState}>"

    def put(self, frame: Frame) -> None:
        """Hand in a decoded frame."""
        if self.readyState != "live":
            return
        if len(self._frames) >= BACKLOG:
            self._frames.popleft()
            self.dropped += 1
        self._frames.append(frame)
        self._news.set()

    async def recv(self) -> Frame:
        """The next frame. Raises MediaStreamError when the source is gone."""
        while not self._frames:
            if self.readyState != "live":
                raise MediaStreamError
            self._news.clear()
            await self._news.wait()
        return self._frames.popleft()

    def stop(self) -> None:
        """End the track: whoever waits in ``recv`` gets what is left, then MediaStreamError."""
        super().stop()
        self._news.set()


class RemoteTracks(Mapping[str, RemoteTrack]):
    """The live tracks by source name. ``on_added`` hears of each new one."""

    def __init__(self, on_added: Callable[[RemoteTrack], None] = lambda _: None) -> None:
        self._tracks: dict[str, RemoteTrack] = {}
        self._by_ssrc: dict[int, RemoteTrack] = {}
        self._on_added = on_added

    def __getitem__(self, source: str) -> RemoteTrack:
        return self._tracks[source]

    def __iter__(self) -> Iterator[str]:
        return iter(self._tracks)

    def __len__(self) -> int:
        return len(self._tracks)

    def add(self, kind: str, source: str, owner: str | None, ssrc: int) -> None:
        """Take a source, or a further SSRC of one."""
        track = self._tracks.get(source)
        if track is None:
            track = self._tracks[source] = RemoteTrack(kind, source, owner)
            self._on_added(track)
        track.ssrcs.add(ssrc)
        self._by_ssrc[ssrc] = track

    def remove(self, source: str, ssrc: int) -> None:
        """Drop an SSRC of a source; with its last one the track ends."""
        track = self._tracks.get(source)
        if track is None:
            return
        track.ssrcs.discard(ssrc)
        if self._by_ssrc.get(ssrc) is track:
            del self._by_ssrc[ssrc]
        if not track.ssrcs:
            del self._tracks[source]
            track.stop()

    def frame(self, ssrc: int, frame: Frame) -> None:
        """Hand a decoded frame to the track of its SSRC."""
        if (track := self._by_ssrc.get(ssrc)) is not None:
            track.put(frame)

    def close(self) -> None:
        """End all tracks."""
        for track in self._tracks.values():
            track.stop()
        self._tracks.clear()
        self._by_ssrc.clear()
