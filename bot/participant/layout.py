"""What a participant wants to see, as a web client with that layout says it to the bridge. Pure.

jitsi-meet's ``video-quality/subscriber`` names every picture on the screen and asks for nothing by default. We
look at everybody, so that a default says the same: the bridge applies it where a source is not named
(``AllocationSettings.getConstraints``), and a message does not grow with the room.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Mapping
from dataclasses import dataclass, field, replace
from typing import Any, Literal

from bot.bridge.channel import Message
from bot.settings import Settings

Mode = Literal["tile", "stage", "audio-only", "custom"]
#: Item of a stage that stands for whoever speaks.
SPEAKER = "speaker"
#: Heights that web clients ask for (``VIDEO_QUALITY_LEVELS``); -1 is as tall as there is.
ULTRA, STANDARD, THUMBNAIL, UNLIMITED = 2160, 360, 180, -1
#: Up to so many pictures are shown in full height (``maxFullResolutionParticipants``).
MAX_FULL = 2
#: Up to so many tiles, three rows of three, are 360 pixels tall in a window of 1080; more are thumbnails.
MAX_STANDARD = 9


@dataclass(frozen=True, slots=True, kw_only=True)
class Layout:
    """What to see. ``stage`` and ``selected`` name sources or endpoints, or ``speaker``.

    An empty stage is the speaker's.
    ``height`` is that of the tallest picture in pixels, ``last_n`` the most video sources (-1 all), and
    ``assumed_bandwidth`` in bit/s goes before the bridge's own estimate where it allows that (-1 does not).
    ``heights`` of single sources are for ``custom``, where everything else has ``height``.
    """

    mode: Mode = "tile"
    height: int = 360
    last_n: int = -1
    stage: tuple[str, ...] = ()
    selected: tuple[str, ...] = ()
    heights: Mapping[str, int] = field(default_factory=dict)
    assumed_bandwidth: int = -1

    def __post_init__(self) -> None:
        """Raise ValueError for what no bridge can be asked for."""
        if self.mode not in _MODES:
            raise ValueError(f"unknown layout {self.mode!r}; known are {', '.join(_MODES)}")
        numbers = {"height": self.height, "last_n": self.last_n, "assumed_bandwidth": self.assumed_bandwidth}
        for name, value in (numbers | dict(self.heights)).items():
            if not isinstance(value, int) or value < UNLIMITED:
                raise ValueError(f"{name} must be a number from -1 on, and not {value!r}")


@dataclass(frozen=True, slots=True)
class AudioSubscription:
    """Whose sound to receive: ``everyone``, and ``include`` besides, but never ``exclude`` (source names)."""

    everyone: bool = True
    include: tuple[str, ...] = ()
    exclude: tuple[str, ...] = ()


@dataclass(slots=True)
class Wishes:
    """What a participant wants to receive, in all its stays. Without ``audio`` a bridge sends what it will."""

    layout: Layout = field(default_factory=Layout)
    audio: AudioSubscription | None = None

    @classmethod
    def of(cls, settings: Settings) -> Wishes:
        """What the settings say."""
        layout = Layout(
            mode=settings.layout,
            height=settings.receive_height,
            last_n=settings.last_n,
            stage=settings.stage_sources,
            selected=settings.selected_sources,
            assumed_bandwidth=settings.assumed_bandwidth,
        )
        return cls(layout, None if settings.receive_audio else AudioSubscription(everyone=False))

    def set_layout(self, **changes: Any) -> None:
        """Change fields of the layout. Raises ValueError, which names what is wrong."""
        self.layout = replace(self.layout, **{key: _names(key, value) for key, value in changes.items()})

    def subscribe_audio(
        self, *, everyone: bool = True, include: Iterable[str] = (), exclude: Iterable[str] = ()
    ) -> None:
        """Choose whose sound to receive, by source names."""
        self.audio = AudioSubscription(everyone, tuple(include), tuple(exclude))


@dataclass(frozen=True, slots=True, kw_only=True)
class Scene:
    """What there is to see: how many others, who speaks, and which video sources are whose."""

    others: int = 0
    speaker: str | None = None
    #: Names of the shared screens.
    desktops: Collection[str] = ()
    #: Names of the video sources of an endpoint.
    sources_of: Callable[[str], Collection[str]] = lambda _: ()


def _names(key: str, value: Any) -> Any:
    """The value of a field of the layout: one name is as good as a list of one."""
    if key not in ("stage", "selected"):
        return value
    return (value,) if isinstance(value, str) else tuple(value)


def constraints(layout: Layout, scene: Scene) -> Message:
    """The ReceiverVideoConstraints for ``layout`` in ``scene``."""
    return {
        "colibriClass": "ReceiverVideoConstraints",
        "assumedBandwidthBps": layout.assumed_bandwidth,
        "lastN": layout.last_n,
        **_MODES[layout.mode](layout, scene),
    }


def _message(
    default: int,
    *,
    heights: Mapping[str, int] | None = None,
    stage: Collection[str] = (),
    selected: Collection[str] = (),
) -> Message:
    return {
        "constraints": {name: {"maxHeight": height} for name, height in (heights or {}).items()},
        "defaultConstraints": {"maxHeight": default},
        "onStageSources": list(stage),
        "selectedSources": list(selected),
    }


def _tile(layout: Layout, scene: Scene) -> Message:
    """Shared screens come before cameras, as jitsi-meet has them."""
    height = tile_height(scene.others + len(scene.desktops), layout.height)
    return _message(height, selected=_resolve(layout.selected, scene) or list(scene.desktops))


def tile_height(tiles: int, height: int) -> int:
    """How tall each of ``tiles`` pictures is asked for, ``height`` at most."""
    if tiles <= MAX_FULL:
        return height
    return min(height, STANDARD if tiles <= MAX_STANDARD else THUMBNAIL)


def _stage(layout: Layout, scene: Scene) -> Message:
    """One source on stage is served before all others; of several each is, which ``selected`` means."""
    stage = _resolve(layout.stage or (SPEAKER,), scene)
    selected = _resolve(layout.selected, scene)
    return _message(
        min(layout.height, THUMBNAIL),
        heights={name: _stage_height(name, layout, scene) for name in stage},
        stage=stage if len(stage) == 1 else (),
        selected=selected if len(stage) == 1 else list(dict.fromkeys([*stage, *selected])),
    )


def _stage_height(name: str, layout: Layout, scene: Scene) -> int:
    return UNLIMITED if name in scene.desktops and layout.height >= ULTRA else layout.height


def _audio_only(layout: Layout, scene: Scene) -> Message:
    del layout, scene
    return {**_message(0), "lastN": 0}


def _custom(layout: Layout, scene: Scene) -> Message:
    named = {name: height for item, height in layout.heights.items() for name in _resolve((item,), scene)}
    stage, selected = _resolve(layout.stage, scene), _resolve(layout.selected, scene)
    return _message(layout.height, heights=named, stage=stage, selected=selected)


_MODES: Mapping[Mode, Callable[[Layout, Scene], Message]] = {
    "tile": _tile,
    "stage": _stage,
    "audio-only": _audio_only,
    "custom": _custom,
}


def _resolve(items: Collection[str], scene: Scene) -> list[str]:
    """The source names that ``items`` mean, each once; a speaker that nobody is means none."""
    names: dict[str, None] = {}
    for item in items:
        endpoint = scene.speaker if item == SPEAKER else item
        if endpoint:
            names.update(dict.fromkeys(_sources(endpoint, scene)))
    return list(names)


def _sources(item: str, scene: Scene) -> Collection[str]:
    """The sources of an endpoint; a source name stands for itself. Shared screens come first."""
    if "-" in item:
        return (item,)
    known = scene.sources_of(item)
    shared = [name for name in known if name in scene.desktops]
    # Jitsi's names: the camera of an endpoint that is not signalled yet.
    return shared[:1] or list(known)[:1] or (f"{item}-v0",)
