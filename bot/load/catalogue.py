"""What is measured: names, units, and which way is better. The words of thresholds, reports and metrics. Pure."""

from __future__ import annotations

import difflib
from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import Literal

from bot.participant.timing import PHASES

Unit = Literal["s", "bit/s", "ratio", "fps", "px", ""]
#: Many values, of which percentiles are asked for; a share of a whole; or a number of times something happened.
Kind = Literal["values", "share", "count"]
Better = Literal["lower", "higher"]


@dataclass(frozen=True, slots=True)
class Measure:
    """One measure. A share that is also measured for each stream has ``values``, too."""

    name: str
    kind: Kind
    unit: Unit
    better: Better
    text: str
    values: bool = False

    @property
    def has_values(self) -> bool:
        """Whether percentiles can be asked for."""
        return self.kind == "values" or self.values

    @property
    def has_total(self) -> bool:
        """Whether it is one number that needs no function."""
        return self.kind != "values"


_PHASE_TEXTS = {
    "websocket": "WebSocket opened, TCP and TLS included",
    "sasl": "logged in (SASL)",
    "bind": "resource bound",
    "focus": "focus has answered the conference request",
    "muc": "room entered",
    "offer": "the focus's offer came (session-initiate)",
    "ice": "ICE connected",
    "dtls": "DTLS connected",
    "channel": "bridge channel open",
    "first_packet_out": "first packet sent",
    "first_packet_in": "first packet received",
}


def _phases() -> list[Measure]:
    return [
        Measure(f"join.{phase}", "values", "s", "lower", f"Phase of joining: {_PHASE_TEXTS[phase]}")
        for phase in PHASES
    ]


_ALL = [
    Measure("join", "values", "s", "lower", "Start of the attempt until in the room"),
    *_phases(),
    Measure("join.first_key_frame", "values", "s", "lower", "Phase of joining: first whole key frame received"),
    Measure("join.media", "values", "s", "lower", "In the room and not alone, until media flows"),
    Measure("success", "share", "ratio", "higher", "Joins that succeeded, of those tried"),
    Measure("loss", "share", "ratio", "lower", "Packets that never came, of those sent to us", values=True),
    Measure("jitter", "values", "s", "lower", "Interarrival jitter of each received stream (RFC 3550)"),
    Measure("rtt", "values", "s", "lower", "Round-trip time to the bridge"),
    Measure("bitrate.audio", "values", "bit/s", "higher", "Bit rate of each received sound"),
    Measure("bitrate.video", "values", "bit/s", "higher", "Bit rate of each received picture"),
    Measure("bitrate.sent", "values", "bit/s", "higher", "Bit rate that each participant sends"),
    Measure("bandwidth", "values", "bit/s", "higher", "The bridge's estimate of the way to each participant"),
    Measure("fps", "values", "fps", "higher", "Frame rate of each received picture"),
    Measure("height", "values", "px", "higher", "Height of the layer received of each picture"),
    Measure(
        "freeze",
        "values",
        "s",
        "lower",
        "Length of each freeze of a picture (W3C webrtc-stats), by the arrival of its frames",
    ),
    Measure("e2e_delay", "values", "s", "lower", "Sender's clip to receiver's decoder, on sampled decoders"),
    Measure("lip_sync", "values", "s", "lower", "How far sound and picture are apart, on sampled decoders"),
    Measure("reconnect", "values", "s", "lower", "Length of each interruption until media flowed again"),
    Measure(
        "speaker_change",
        "values",
        "s",
        "lower",
        "Start of speech until the bridge names the speaker, with switch_speakers",
    ),
    Measure("client.loop_lag", "values", "s", "lower", "How late the client's event loop is"),
    Measure("client.pacing_late", "values", "s", "lower", "How late the client sends its packets"),
    Measure("client.cpu", "values", "ratio", "lower", "Share of one core that each process of the client uses"),
    Measure("freezes", "count", "", "lower", "Freezes of pictures; a player's buffer would hide the shortest"),
    Measure("reconnects", "count", "", "lower", "Interruptions that participants came back from"),
    Measure("failures", "count", "", "lower", "Joins and media sessions that failed, by cause"),
    Measure("lost", "count", "", "lower", "Participants lost during the run, by cause"),
    Measure("rate_limited", "count", "", "lower", "Times that the server limited the rate, by where"),
    Measure("speaker_changes", "count", "", "higher", "Times that the bridge named another dominant speaker"),
]
MEASURES: Mapping[str, Measure] = MappingProxyType({item.name: item for item in _ALL})


def measure(name: str) -> Measure:
    """The measure of that name. Raises ValueError with the nearest known ones."""
    found = MEASURES.get(name)
    if found is None:
        raise ValueError(f"unknown measure {name!r}{nearest(name)}")
    return found


def nearest(name: str, known: Mapping[str, object] | None = None) -> str:
    """``, did you mean 'join'?`` for a name that nothing has; of ``known``, else of the measures."""
    names = list(MEASURES if known is None else known)
    ends = [item for item in names if item.rpartition(".")[2] == name]
    close = (ends or difflib.get_close_matches(name.lower(), names, n=2, cutoff=0.5))[:2]
    if close:
        return f", did you mean {' or '.join(map(repr, close))}?"
    return f"; known are {', '.join(names)}"
