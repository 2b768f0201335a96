"""What the participant publishes: its sources, their tracks, and what others are told of them."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Collection, Mapping, Sequence

from aiortc.mediastreams import MediaStreamTrack

from bot import events
from bot.errors import BotError, OwnSourceError
from bot.media.feed import Feed, Kind
from bot.media.files import make_file_track
from bot.media.synthetic import SyntheticAudioTrack, SyntheticVideoTrack
from bot.participant.clips import ClipSource, LibraryUse, sound_clip, speech_of, video_clip
from bot.participant.codecs import ENCODABLE, send_codec
from bot.participant.config import ParticipantConfig
from bot.participant.publication import Publication
from bot.settings import FILE

#: Reports an event of the participant: its class and its fields.
Emit = Callable[..., None]
_FIRST: Mapping[Kind, str] = {"audio": "a0", "video": "v0"}


class LocalSource:
    """One source: ``label`` is its name without the endpoint id (``a0``, ``v0``, ``v1`` …); it stays.

    ``made`` is a track that is ours to stop, where the settings asked for one. ``clip`` is what is sent instead of
    a track until there is one, ``max_height`` up to how many pixels the bridge wants it, None is all.
    """

    def __init__(self, label: str, feed: Feed, video_type: str | None = None) -> None:
        self.label = label
        self.feed = feed
        self.video_type = video_type
        self.made: MediaStreamTrack | None = None
        self.clip: ClipSource | None = None
        self.max_height: int | None = None
        #: Whether it shall have the track of the settings.
        self.untouched = False

    def __repr__(self) -> str:
        return f"<LocalSource {self.label} {self.feed!r}>"

    @property
    def kind(self) -> Kind:
        """Sound or picture."""
        return self.feed.kind

    @property
    def muted(self) -> bool:
        """Whether others see it as muted: it is, or it has no track and will have none."""
        return self.feed.muted or (self.feed.track is None and self.clip is None and not self.untouched)

    @property
    def silent(self) -> bool:
        """Whether nothing is sent of it now."""
        return self.feed.silent if self.clip is None else self.feed.muted or self.feed.paused

    @property
    def info(self) -> dict[str, object]:
        """Its entry in Jitsi's SourceInfo; a camera is not spelled out, as web clients do it."""
        kind = {"videoType": self.video_type} if self.video_type not in {None, "camera"} else {}
        return {"muted": self.muted, **kind}


def check_media(configs: Collection[ParticipantConfig]) -> None:
    """See that the files to publish can be. It reads and decodes. Raises ConfigurationError."""
    wanted = {(item.audio, "audio") for item in configs} | {(item.video, "video") for item in configs}
    for chosen, kind in sorted(wanted):
        if chosen.startswith(FILE):
            make_file_track(chosen.removeprefix(FILE), "audio" if kind == "audio" else "video").stop()


def make_track(config: ParticipantConfig, kind: Kind) -> MediaStreamTrack:
    """A track of what ``config`` says is published. A file is opened, which blocks. Raises ConfigurationError."""
    settings = config.settings
    chosen = config.audio if kind == "audio" else config.video
    if chosen.startswith(FILE):
        return make_file_track(chosen.removeprefix(FILE), kind)
    if kind == "audio":
        return SyntheticAudioTrack(config.name, mode="tone" if chosen == "tone" else "speech")
    return SyntheticVideoTrack(
        config.room, config.name, width=settings.width, height=settings.height, fps=settings.fps
    )


class OwnMedia:
    """The sources of one participant, whatever connections and media sessions it goes through.

    Every method works at any time, before the first session and between two, and what was set stays. Sources are
    named by their labels; the whole name (``deadbeef-v1``) does as well. Tracks are any of aiortc's; who made one
    stops it: neither a session's end nor ``replace_track`` does. Where a track gives packets that are encoded
    already, set ``video_codec`` to their codec.
    """

    def __init__(self, config: ParticipantConfig, emit: Emit) -> None:
        self._config = config
        self._emit = emit
        self._started = False
        self._sources: dict[str, LocalSource] = {}
        self._publication: Publication | None = None
        self._clips: LibraryUse | None = None
        self._lock = asyncio.Lock()
        self._removals: set[asyncio.Task[None]] = set()
        self._endpoint = ""
        #: A visitor's stay: nothing is published, and nothing said of what could be.
        self._receive_only = False
        self._on_presence: Callable[[], None] = _nothing
        self._on_video_types: Callable[[], None] = _nothing
        self._removed: set[str] = set()
        #: Raises OwnSourceError where the room does not let us unmute a kind of this video type.
        self.may_unmute: Callable[[Kind, str | None], None] = _anything
        if config.audio != "none":
            self._from_settings("a0", "audio", None, muted=config.start_muted_audio)
        if config.video != "none":
            self._from_settings("v0", "video", "camera", muted=config.start_muted_video)

    def __repr__(self) -> str:
        return f"<OwnMedia {', '.join(self._sources) or 'nothing'}>"

    @property
    def sources(self) -> Sequence[LocalSource]:
        """All sources, in the order they were added."""
        return tuple(self._sources.values())

    @property
    def source_info(self) -> dict[str, object]:
        """Jitsi's SourceInfo for our presence, by source name."""
        shown = () if self._receive_only else self._sources.values()
        return {f"{self._endpoint}-{source.label}": source.info for source in shown}

    # --- what a participant does ---

    def mute(self, source: str) -> None:
        """Mute a source, or the first of a kind (``audio``, ``video``).

        It stays signalled; of a sound some silence is sent (DTX), of a picture nothing. Raises OwnSourceError.
        """
        self._set_muted(self._find(source), muted=True)

    def unmute(self, source: str) -> None:
        """Unmute a source, or the first of a kind. Raises OwnSourceError, also where a moderator forbids it."""
        found = self._find(source)
        self.may_unmute(found.kind, found.video_type)
        self._set_muted(found, muted=False)

    async def set_video(self, track: MediaStreamTrack | None) -> None:
        """Start the camera's picture with ``track``, or stop it. Raises OwnSourceError."""
        await self._set("video", track)

    async def set_audio(self, track: MediaStreamTrack | None) -> None:
        """Start the first sound with ``track``, or stop it. Raises OwnSourceError."""
        await self._set("audio", track)

    def replace_track(self, source: str, track: MediaStreamTrack) -> None:
        """Send ``track`` as ``source`` from now on: the same SSRC, time stamps and sequence numbers go on.

        Nothing is negotiated, and a muted source stays muted. Raises OwnSourceError.
        """
        found = self._find(source)
        was = found.muted
        self._swap(found, track)
        self._shown(found, was)

    async def add_source(self, track: MediaStreamTrack, video_type: str = "desktop") -> str:
        """Publish a further source and return its label; ``video_type`` is ``camera`` or ``desktop``.

        Raises OwnSourceError where the track is of no use, or the focus refuses.
        """
        if video_type not in {"camera", "desktop"}:
            raise OwnSourceError(f"video_type must be camera or desktop, not {video_type!r}")
        kind: Kind = "audio" if track.kind == "audio" else "video"
        async with self._lock:
            label = next(name for number in range(1000) if (name := f"{kind[0]}{number}") not in self._sources)
            await self._add(label, kind, track, video_type if kind == "video" else None)
        return label

    async def remove_source(self, source: str) -> None:
        """Take a source away, with source-remove. Raises OwnSourceError."""
        async with self._lock:
            found = self._find(source)
            was = found.muted
            found.feed.muted = True
            self._shown(found, was)
            if self._publication is not None:
                await self._publication.remove(found)
            await self._forget(found)
        self._emit(events.LocalSourceRemoved, source=found.label, media=found.kind)

    # --- what its stays and sessions do ---

    def enter(
        self,
        endpoint: str,
        *,
        on_presence: Callable[[], None],
        on_video_types: Callable[[], None],
        receive_only: bool = False,
    ) -> None:
        """Take part in another stay, as ``endpoint``: who tells the room, and who the bridge, what changes.

        With ``receive_only`` nothing is published in it; what is set meanwhile is for later stays.
        """
        self._endpoint, self._receive_only = endpoint, receive_only
        self._on_presence, self._on_video_types = on_presence, on_video_types

    def leave(self) -> None:
        """The stay is over: there is nobody to tell."""
        self.withdraw()
        self._on_presence = self._on_video_types = _nothing
        self.may_unmute = _anything

    def start(self) -> Sequence[LocalSource]:
        """Make the tracks that the settings ask for, unless they are there. Raises ConfigurationError."""
        if self._receive_only:
            return ()
        for source in self._sources.values():
            if source.untouched:
                source.untouched = False
                source.clip = self._make_clip(source.kind)
                if source.clip is None:
                    source.made = make_track(self._config, source.kind)
                    source.feed.set_track(source.made)
            source.feed.start()
        self._started = True
        return self.sources

    def publish(self, publication: Publication) -> None:
        """Take part in another media session, with all sources; one before it is over."""
        self.withdraw()
        if self._receive_only:
            return
        self._publication = publication
        for source in self._sources.values():
            source.feed.paused, source.max_height = False, None
            publication.allocate(source)

    def withdraw(self) -> None:
        """The media session is over; tracks and settings stay."""
        if self._publication is not None:
            self._publication.close()
            self._publication = None

    def constrain(self, name: str, max_height: int) -> None:
        """The bridge wants a source up to ``max_height`` pixels tall: 0 is not at all, below 0 without a limit."""
        source = self._sources.get(_label(name))
        if source is None or source.kind != "video":
            return
        was = source.silent
        source.feed.paused, source.max_height = max_height == 0, max_height if max_height >= 0 else None
        if source.clip is not None and self._publication is not None:
            self._publication.adjust(source)
        self._emit(events.SenderConstraintsChanged, source=source.label, max_height=max_height)
        self._resumed(source, was)

    async def close(self) -> None:
        """Stop reading all tracks, and those that we made; may be called twice."""
        self.withdraw()
        for task in self._removals:
            task.cancel()
        await asyncio.gather(*self._removals, return_exceptions=True)
        for source in self._sources.values():
            await source.feed.close()
            if source.made is not None:
                source.made.stop()
        if self._clips is not None:
            await self._clips.close()

    # --- small steps ---

    def _find(self, name: str) -> LocalSource:
        label = _FIRST["audio"] if name == "audio" else _FIRST["video"] if name == "video" else _label(name)
        if label not in self._sources:
            known = ", ".join(self._sources) or "none"
            raise OwnSourceError(f"This participant publishes no {name} (its sources: {known})")
        return self._sources[label]

    def _from_settings(self, label: str, kind: Kind, video_type: str | None, *, muted: bool) -> None:
        source = self._new(label, kind, video_type)
        source.feed.muted, source.untouched = muted, True

    def _new(self, label: str, kind: Kind, video_type: str | None = None) -> LocalSource:
        source = LocalSource(label, Feed(kind, on_ended=lambda _, cause: self._ended(label, cause)), video_type)
        self._sources[label] = source
        return source

    def _make_clip(self, kind: Kind) -> ClipSource | None:
        """The clip that the settings ask for, None where it is to be a track."""
        config, settings = self._config, self._config.settings
        if settings.media_engine != "shared":
            return None
        spec = video_clip(config) if kind == "video" else sound_clip(config)
        if spec is None:
            return None
        if self._clips is None:
            self._clips = LibraryUse(settings.cache_dir)
        speech = speech_of(config) if kind == "audio" else None
        found = ClipSource(spec, self._clips.library, red=settings.opus_red, speech=speech)
        found.prepare(send_codec(settings.video_codec, settings.codecs, (), ENCODABLE))
        return found

    async def _set(self, kind: Kind, track: MediaStreamTrack | None) -> None:
        async with self._lock:
            source = self._sources.get(_FIRST[kind])
            if track is not None:
                self.may_unmute(kind, source.video_type if source is not None else None)
            if source is not None:
                was = source.muted
                self._swap(source, track)
                self._set_muted(source, muted=track is None, was=was)
            elif track is not None:
                await self._add(_FIRST[kind], kind, track, "camera" if kind == "video" else None)

    async def _add(self, label: str, kind: Kind, track: MediaStreamTrack, video_type: str | None) -> None:
        source = self._new(label, kind, video_type)
        try:
            self._swap(source, track)
            if self._started:
                source.feed.start()
            if label in self._removed:
                # Videobridge keeps what it was told of a name for the next source of that name.
                self._on_video_types()
            if self._publication is not None:
                await self._publication.add(source)
        except BaseException as error:
            await self._forget(source)
            if isinstance(error, BotError) and not isinstance(error, OwnSourceError):
                raise OwnSourceError(f"The focus refused {label}: {error}") from error
            raise
        self._changed(source)
        self._emit(events.LocalSourceAdded, source=label, media=kind, video_type=video_type)

    async def _forget(self, source: LocalSource) -> None:
        self._sources.pop(source.label, None)
        self._removed.add(source.label)
        await source.feed.close()
        if source.made is not None:
            source.made.stop()
        self._on_presence()

    def _swap(self, source: LocalSource, track: MediaStreamTrack | None) -> None:
        was = source.silent
        try:
            before = source.feed.set_track(track)
        except ValueError as error:
            raise OwnSourceError(f"{source.label} can't have this track: {error}") from error
        source.untouched = False
        if source.clip is not None:
            source.clip = None
            if self._publication is not None:
                self._publication.exchange(source)
        if source.made is not None and before is source.made is not track:
            source.made.stop()
            source.made = None
        self._resumed(source, was)

    def _set_muted(self, source: LocalSource, *, muted: bool, was: bool | None = None) -> None:
        was, silent = source.muted if was is None else was, source.silent
        source.feed.muted = muted
        if source.clip is not None and self._publication is not None:
            self._publication.adjust(source)
        self._resumed(source, silent)
        self._shown(source, was)

    def _resumed(self, source: LocalSource, was_silent: bool) -> None:
        """A picture that comes back begins with a key frame."""
        if was_silent and not source.silent and self._publication is not None:
            self._publication.resume(source)

    def _shown(self, source: LocalSource, was_muted: bool) -> None:
        """Tell everybody when others shall see a source otherwise than before."""
        if source.muted is not was_muted:
            self._emit(events.LocalMuteChanged, source=source.label, media=source.kind, muted=source.muted)
            self._changed(source)

    def _changed(self, source: LocalSource) -> None:
        """Presence first, then the bridge: the order of web clients."""
        self._on_presence()
        if source.kind == "video":
            self._on_video_types()

    def _ended(self, label: str, cause: str) -> None:
        """A track ended by itself: the first ones of their kinds stay and are muted, further sources go."""
        source = self._sources[label]
        removed = label not in _FIRST.values()
        outcome = "removed" if removed else "muted"
        self._emit(events.LocalTrackEnded, source=label, media=source.kind, outcome=outcome, cause=cause)
        if not source.feed.muted:
            self._emit(events.LocalMuteChanged, source=label, media=source.kind, muted=True)
            self._changed(source)
        if removed:
            task = asyncio.get_running_loop().create_task(self._remove_ended(label), name=f"remove {label}")
            self._removals.add(task)
            task.add_done_callback(self._removals.discard)

    async def _remove_ended(self, label: str) -> None:
        source = self._sources.get(label)
        if source is not None and source.feed.track is None:  # nobody gave it another one
            await self.remove_source(label)


def _nothing() -> None:
    """Nobody is told."""


def _anything(_: Kind, __: str | None) -> None:
    """Nobody forbids anything."""


def _label(name: str) -> str:
    return name.rpartition("-")[2]
