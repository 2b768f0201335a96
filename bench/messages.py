"""What the processes of the benchmark say to each other."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Literal

#: How media is carried: by the shared engine, or by aiortc as it is with encoders or with encoded packets.
Way = Literal["engine", "aiortc-encoding", "aiortc-packets", "aiortc-receiving"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Job:
    """What a process under test shall do. Times in seconds.

    ``participants`` of them each publish (where ``publish``) and receive ``streams`` pairs of picture and sound.
    ``peers`` are the paths of the peers' sockets. A warm-up comes before the ``windows`` that are measured. The
    peers decode what ``sampled`` of the publishers send.
    """

    way: Way
    participants: int
    publish: bool = True
    streams: int = 0
    warm_up: float = 3.0
    windows: int = 3
    window: float = 3.0
    sampled: int = 2
    peers: tuple[str, ...] = ()
    prefix: str = "0"


@dataclass(frozen=True, slots=True, kw_only=True)
class JoinJob:
    """Whole participants that shall join an embedded server at ``url``, so many to a room.

    What standing in the room costs is measured for ``steady`` seconds.
    """

    url: str
    participants: int
    room_size: int
    steady: float = 4.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Open:
    """Ask a peer for its side of a participant's transport; answered by an offer in XML."""

    endpoint: str
    streams: int
    sampled: bool


@dataclass(frozen=True, slots=True, kw_only=True)
class Accept:
    """Answer an offer (``jingle`` in XML); answered by True once connected."""

    endpoint: str
    jingle: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Look:
    """Ask a peer for what it saw since the last time; answered by a :class:`FarView`."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Asked:
    """A question with its number."""

    number: int
    question: Open | Accept | Look


@dataclass(frozen=True, slots=True, kw_only=True)
class Answered:
    """The answer to the question with that number; ``error`` says why there is none."""

    number: int
    answer: object = None
    error: str | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Listening:
    """A peer that can be connected to."""

    path: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Picture:
    """What the decoder at the other end saw of one sampled publisher."""

    frames: int = 0
    width: int = 0
    height: int = 0
    #: Standard deviation of the luma of the last picture: a grey one has none.
    contrast: float = 0.0
    #: How many of the frames differ from the one before.
    changes: int = 0
    errors: int = 0


@dataclass(frozen=True, slots=True, kw_only=True)
class FarView:
    """What one peer saw since it was last asked; times in seconds."""

    seconds: float
    #: Packets of publishers, their bytes, and those that never came (by transport-wide sequence numbers).
    packets: int = 0
    bytes: int = 0
    missing: int = 0
    publishers: int = 0
    #: Pictures a second of the publisher with the fewest, and of all together.
    fps_lowest: float = 0.0
    fps_mean: float = 0.0
    repairs: int = 0
    pictures: tuple[Picture, ...] = ()
    #: How late frames came, each against the earliest of its own stream.
    lateness: tuple[float, ...] = ()
    #: How long requested key frames took (of sampled publishers), and how many did not come at all.
    key_frames: tuple[float, ...] = ()
    #: Packets sent to receivers, those the system did not take, and feedback that came.
    sent: int = 0
    unsent: int = 0
    acknowledged: int = 0
    lost: int = 0
    feedback: int = 0
    #: How late the peer itself was with its work at the worst, and its share of a core.
    peer_late: float = 0.0
    peer_cpu: float = 0.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Window:
    """One measured stretch: wall time, CPU time of the process under test, packets by its own count."""

    seconds: float
    cpu: float
    sent: int = 0
    received: int = 0
    #: Of aiortc's receivers: frames decoded.
    decoded: int = 0
    far: tuple[FarView, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class Joined:
    """All participants are connected, the windows begin after the warm-up."""

    seconds: float
    cpu: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Measured:
    """What a job gave. ``memory`` is the process's own (proportional set size) in bytes, after the ramp."""

    windows: tuple[Window, ...]
    memory: int
    join_seconds: float
    join_cpu: float
    #: What the process tells of its pacer and its priority.
    notes: dict[str, float] = field(default_factory=dict)


@dataclass(frozen=True, slots=True, kw_only=True)
class JoinMeasured:
    """What joins cost: CPU seconds in all, and what standing in the room costs a participant (share of a core)."""

    participants: int
    seconds: float
    cpu: float
    #: Sum over participants of how long each stood connected within ``seconds``.
    stood: float
    steady: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Failed:
    """A job that could not be done."""

    reason: str
