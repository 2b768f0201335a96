"""What the participant publishes: its tracks, and what its presence says of them."""

from __future__ import annotations

from collections.abc import Sequence

from bot.media.synthetic import SyntheticAudioTrack, SyntheticVideoTrack
from bot.participant.config import ParticipantConfig

Track = SyntheticAudioTrack | SyntheticVideoTrack


class OwnMedia:
    """The tracks of one participant. Aiortc's senders stop theirs at their end: each session has new ones."""

    def __init__(self, config: ParticipantConfig, endpoint: str) -> None:
        self._config = config
        self._endpoint = endpoint
        self._tracks: list[Track] = []

    def __repr__(self) -> str:
        return f"<OwnMedia {', '.join(track.kind for track in self._tracks) or 'nothing'}>"

    @property
    def tracks(self) -> Sequence[Track]:
        """The tracks of now."""
        return tuple(self._tracks)

    @property
    def source_info(self) -> dict[str, object]:
        """Jitsi's SourceInfo for our presence, by source name."""
        return {f"{self._endpoint}-{track.kind[0]}0": {"muted": False} for track in self._tracks}

    def start(self) -> Sequence[Track]:
        """Make the tracks, unless they are there."""
        self._tracks = self._tracks or self._make()
        return self.tracks

    def stop(self) -> None:
        """Stop the tracks; the next session makes new ones."""
        for track in self._tracks:
            track.stop()
        self._tracks.clear()

    def _make(self) -> list[Track]:
        tracks: list[Track] = []
        config, settings = self._config, self._config.settings
        if config.audio == "speech":
            tracks.append(SyntheticAudioTrack(config.name, mode="speech"))
        elif config.audio == "tone":
            tracks.append(SyntheticAudioTrack(config.name, mode="tone"))
        if config.video != "none":
            tracks.append(
                SyntheticVideoTrack(
                    config.room, config.name, width=settings.width, height=settings.height, fps=settings.fps
                )
            )
        return tracks
