"""What a probe saw, and what it makes of it. Pure; times in seconds, shares from 0 to 1."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from enum import IntEnum, StrEnum
from types import MappingProxyType
from typing import Any

from bot.media.measure import Percentiles


class Stage(StrEnum):
    """Where a call breaks, in the order in which it is made."""

    DNS = "dns"
    CONNECT = "connect"
    TLS = "tls"
    PROXY = "proxy"
    WEBSOCKET = "websocket"
    AUTHENTICATION = "authentication"
    FOCUS = "focus"
    ROOM = "room"
    BRIDGE = "bridge"
    ICE = "ice"
    DTLS = "dtls"
    MEDIA = "media"
    CHANNEL = "channel"
    TURN = "turn"
    QUALITY = "quality"
    #: The probe itself could not do its work.
    PROBE = "probe"
    NONE = "none"

    @property
    def number(self) -> int:
        """The place in the order."""
        return list(Stage).index(self)


class Severity(IntEnum):
    """How bad it is; the numbers are the exit codes of the Monitoring Plugins' guidelines."""

    OK = 0
    WARNING = 1
    CRITICAL = 2
    UNKNOWN = 3

    @property
    def rank(self) -> int:
        """Worse ones have higher ranks: what is unknown is better than what is known to be broken."""
        return (0, 1, 3, 2)[self]


#: Seconds by which the event loop may be late, and the share of frames that may be dropped for want of time.
MAX_LAG, MAX_DROPPED = 0.3, 0.05


@dataclass(frozen=True, slots=True)
class Failure:
    """What went wrong, in the words of ``bot.errors``."""

    code: str
    cause: str


@dataclass(frozen=True, slots=True)
class Preflight:
    """What was found before anybody joined: seconds of each step that went well, and the one that did not.

    ``certificate`` is the Unix time at which the server's certificate ends, None without TLS.
    """

    seconds: Mapping[Stage, float] = field(default_factory=lambda: MappingProxyType({}))
    failed: Stage | None = None
    failure: Failure | None = None
    certificate: float | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class BotSeen:
    """One probing bot. ``phases`` are the seconds of each phase of joining that was done.

    ``error`` is what ended its stay, ``media_error`` what ended a media session. ``focus`` says whether the focus
    stood in the room, ``others`` how many others did. ``sent``, ``acked`` and ``unacked`` count our packets and
    what the bridge says of them (transport-wide-cc); ``decoded`` and ``dropped`` are frames. ``channel_error``
    is set while the bridge channel is lost.
    """

    name: str
    endpoint: str = ""
    phases: Mapping[str, float] = field(default_factory=lambda: MappingProxyType({}))
    joined: bool = False
    focus: bool = True
    focus_cause: str = ""
    lobby: bool = False
    others: int = 0
    offered: bool = False
    connected: bool = False
    error: Failure | None = None
    media_error: Failure | None = None
    channel_error: str | None = None
    sent: int = 0
    acked: int = 0
    unacked: int = 0
    decoded: int = 0
    dropped: int = 0
    round_trip: float | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class PathSeen:
    """What one bot got of another in ``seconds``. ``packets`` and ``lost`` (never came) are of RTP.

    ``pictures`` and ``sounds`` are those whose marks were read, ``decoded`` all pictures that came out of the
    decoder; ``expected`` is how many pictures were sent. Delays are from the clip to the decoded frame.
    """

    sender: str
    receiver: str
    seconds: float
    audio_packets: int = 0
    video_packets: int = 0
    audio_lost: int = 0
    video_lost: int = 0
    pictures: int = 0
    decoded: int = 0
    expected: int = 0
    sounds: int = 0
    freezes: int = 0
    frozen: float = 0.0
    picture_delay: Percentiles | None = None
    sound_delay: Percentiles | None = None
    lip_sync: Percentiles | None = None

    @property
    def where(self) -> str:
        """For people: who to whom."""
        return f"{self.sender} to {self.receiver}"

    def loss(self, media: str) -> float | None:
        """The share of packets of ``media`` that never came, None where nothing did."""
        packets, lost = (
            (self.audio_packets, self.audio_lost) if media == "audio" else (self.video_packets, self.video_lost)
        )
        return lost / (packets + lost) if packets else None


@dataclass(frozen=True, slots=True, kw_only=True)
class PassSeen:
    """One meeting of the bots. ``name``: ``direct``, ``relay``, or ``region:NAME``; ``timeout`` is for the join.

    ``lag`` is the longest time by which the event loop was late while media was measured.
    """

    name: str = "direct"
    preflight: Preflight = field(default_factory=Preflight)
    bots: tuple[BotSeen, ...] = ()
    paths: tuple[PathSeen, ...] = ()
    timeout: float = 20.0
    lag: float = 0.0

    @property
    def overloaded(self) -> str:
        """Why what was measured says more of this machine than of the deployment; empty where it does not."""
        dropped = sum(bot.dropped for bot in self.bots)
        frames = dropped + sum(bot.decoded for bot in self.bots)
        if self.lag > MAX_LAG:
            return f"the probe's event loop was late by {self.lag:.1f} s"
        if dropped > MAX_DROPPED * frames:
            return f"{dropped} of {frames} frames were not decoded in time"
        return ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Verdict:
    """Where it broke (``stage``), why, and what to look at. ``code`` is stable, ``where`` names bots."""

    stage: Stage = Stage.NONE
    severity: Severity = Severity.OK
    code: str = "fine"
    cause: str = ""
    hint: str = ""
    where: str = ""

    @property
    def ok(self) -> bool:
        """Whether all is fine."""
        return self.severity is Severity.OK

    @property
    def text(self) -> str:
        """For people, in one line."""
        if self.ok:
            return self.cause or "all fine"
        who = f" ({self.where})" if self.where else ""
        return f"{self.stage.value}: {self.cause}{who}"

    def as_dict(self) -> dict[str, Any]:
        """For JSON."""
        return {**asdict(self), "stage": self.stage.value, "severity": self.severity.name.lower()}


#: What is measured of a pass, by name: the worst of all bots and paths.
Measures = Mapping[str, float]


@dataclass(frozen=True, slots=True, kw_only=True)
class PassResult:
    """A pass, what was measured of it, and the verdict."""

    seen: PassSeen
    verdict: Verdict
    measures: Measures

    @property
    def name(self) -> str:
        """The pass's name."""
        return self.seen.name

    def as_dict(self) -> dict[str, Any]:
        """For JSON."""
        seen = self.seen
        before = seen.preflight
        return {
            "pass": seen.name,
            "verdict": self.verdict.as_dict(),
            "measures": dict(self.measures),
            "preflight": {
                "seconds": {stage.value: seconds for stage, seconds in before.seconds.items()},
                "certificate_expires": before.certificate,
            },
            "bots": [{**_plain(item), "phases": dict(item.phases)} for item in seen.bots],
            "paths": [_path(item) for item in seen.paths],
        }


def _plain(item: BotSeen) -> dict[str, Any]:
    names = BotSeen.__dataclass_fields__
    failures = {"error": item.error, "media_error": item.media_error}
    found = {name: getattr(item, name) for name in names}
    return {**found, **{name: asdict(value) if value is not None else None for name, value in failures.items()}}


def _path(item: PathSeen) -> dict[str, Any]:
    found = {name: getattr(item, name) for name in PathSeen.__dataclass_fields__}
    return {key: value._asdict() if isinstance(value, Percentiles) else value for key, value in found.items()}


@dataclass(frozen=True, slots=True, kw_only=True)
class ProbeResult:
    """One run of the probe: ``at`` is when it began (Unix seconds), ``seconds`` how long it took."""

    at: float
    seconds: float
    url: str
    room: str
    verdict: Verdict
    passes: tuple[PassResult, ...] = ()

    @property
    def measures(self) -> Measures:
        """Those of the first pass, which is what most users get."""
        return self.passes[0].measures if self.passes else {}

    def as_dict(self) -> dict[str, Any]:
        """For JSON: the form of the web-hook, of the history and of ``--format json``."""
        return {
            "at": round(self.at, 3),
            "seconds": round(self.seconds, 3),
            "url": self.url,
            "room": self.room,
            "verdict": self.verdict.as_dict(),
            "measures": dict(self.measures),
            "passes": [item.as_dict() for item in self.passes],
        }
