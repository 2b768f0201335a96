"""What a scenario asks of client and server, and whether this machine can carry it. Pure."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

from bot.clips.spec import LayerSpec
from bot.load.costs import Costs
from bot.load.machine import Machine
from bot.load.scenario import Scenario
from bot.load.timetable import Seat, Timetable, timetable
from bot.participant.clips import layers_of
from bot.participant.layout import THUMBNAIL, tile_height

#: Bytes around a payload: IPv4, UDP, RTP, header extensions (abs-send-time, transport-wide-cc), SRTP tag.
OVERHEAD = 20 + 8 + 12 + 12 + 10
#: Most bytes of payload in a packet.
PAYLOAD = 1100
#: Opus: packets a second of 20 ms, and its bit rate.
SOUND_PACKETS, SOUND_BITRATE = 50, 32_000
#: Bit/s of a picture by codec and height, as lib-jitsi-meet has them (STANDARD_CODEC_SETTINGS).
BITRATES: Mapping[str, Mapping[int, int]] = {
    "vp8": {180: 200_000, 360: 500_000, 720: 1_500_000, 1080: 3_000_000},
    "h264": {180: 200_000, 360: 500_000, 720: 1_500_000, 1080: 3_000_000},
    "vp9": {180: 100_000, 360: 300_000, 720: 1_200_000, 1080: 2_500_000},
    "av1": {180: 100_000, 360: 300_000, 720: 1_000_000, 1080: 2_000_000},
}
#: Width of a picture by its lines, 16:9.
WIDTHS = {180: 320, 360: 640, 720: 1280, 1080: 1920}
#: Codecs that are sent in several layers, and the lines that a picture needs for that, as in the settings.
SIMULCAST, MIN_SIMULCAST = frozenset({"vp8"}), 360
#: More of the CPU and memory than this leaves nothing for what was not foreseen.
USABLE = 0.8


@dataclass(frozen=True, slots=True)
class Flow:
    """Packets/s and bit/s, headers included."""

    packets: float = 0.0
    bits: float = 0.0

    def __add__(self, other: Flow) -> Flow:
        return Flow(self.packets + other.packets, self.bits + other.bits)

    def __mul__(self, number: float) -> Flow:
        return Flow(self.packets * number, self.bits * number)


@dataclass(frozen=True, slots=True)
class Demand:
    """What a process, or all of them, needs while everybody is there."""

    participants: int
    up: Flow
    down: Flow
    cores: float
    #: Cores for the joins of the busiest second, on top.
    joining: float
    memory: float
    files: int


@dataclass(frozen=True, slots=True)
class Problem:
    """Why this machine can't carry it: what is needed, and what there is."""

    resource: str
    text: str


@dataclass(frozen=True, slots=True)
class Plan:
    """The timetable, what it needs, what is missing. The server receives ``total.up``, sends ``total.down``."""

    scenario: Scenario
    timetable: Timetable
    processes: Sequence[Demand]
    total: Demand
    problems: Sequence[Problem]
    machine: Machine
    costs: Costs
    costs_from: str

    @property
    def fits(self) -> bool:
        """Whether this machine can carry it."""
        return not self.problems


def make_plan(
    scenario: Scenario, machine: Machine, costs: Costs, *, processes: int | None = None, costs_from: str = ""
) -> Plan:
    """Plan the run on ``processes`` processes (None or 0: one for each core, as far as they are of use)."""
    number = max(1, min(processes or machine.cores, scenario.total))
    times = timetable(scenario, number)
    flows = _Flows(scenario)
    demands = [_demand(times.of_process(index), flows, costs, machine) for index in range(number)]
    total = _sum(demands)
    problems = list(_problems(demands, total, machine))
    return Plan(scenario, times, demands, total, problems, machine, costs, costs_from)


# --- media ---------------------------------------------------------------------------------------------------


def is_simulcast(scenario: Scenario) -> bool:
    """Whether pictures are sent in several layers; a quarter of a small one would show nothing."""
    return scenario.simulcast and scenario.codec in SIMULCAST and scenario.height >= MIN_SIMULCAST


def layers(scenario: Scenario) -> tuple[LayerSpec, ...]:
    """The layers that a picture is sent in, lowest first: those that its clip has."""
    height, codec = scenario.height, scenario.codec
    return layers_of(WIDTHS[height], height, BITRATES[codec][height], simulcast=is_simulcast(scenario))


def picture(scenario: Scenario, layer: LayerSpec) -> Flow:
    """One layer of a picture."""
    return _flow(scenario.fps * math.ceil(layer.bitrate / 8 / scenario.fps / PAYLOAD), layer.bitrate)


SOUND = Flow(SOUND_PACKETS, SOUND_BITRATE + SOUND_PACKETS * OVERHEAD * 8)


def _flow(packets: float, bitrate: float) -> Flow:
    return Flow(packets, bitrate + packets * OVERHEAD * 8)


class _Flows:
    """What each seat sends and receives while all are there; alike seats are counted once."""

    def __init__(self, scenario: Scenario) -> None:
        self._scenario = scenario
        self._layers = layers(scenario)
        self._known: dict[tuple[object, ...], Flow] = {}
        self._video = min(scenario.participants, _senders(scenario, "senders", scenario.video_senders))
        self._audio = min(scenario.participants, _senders(scenario, "audio_senders", scenario.sound_senders))

    def up(self, seat: Seat) -> Flow:
        """What the seat sends."""
        pictures = [picture(self._scenario, layer) for layer in self._layers] if seat.video else []
        return sum([*pictures, *([SOUND] if seat.audio else [])], Flow())

    def down(self, seat: Seat) -> Flow:
        """What the bridge sends to the seat."""
        key = (seat.video, seat.audio, seat.layout, seat.last_n, seat.receive_height)
        if key not in self._known:
            self._known[key] = self._pictures(seat) + SOUND * self._sounds(seat)
        return self._known[key]

    def _sounds(self, seat: Seat) -> int:
        others = self._audio - seat.audio
        loudest = self._scenario.loudest
        return others if loudest < 0 else min(others, loudest)

    def _pictures(self, seat: Seat) -> Flow:
        return sum((picture(self._scenario, self._delivered(height)) for height in self._asked(seat)), Flow())

    def _asked(self, seat: Seat) -> list[int]:
        """The height asked for of each picture that comes."""
        number = self._video - seat.video
        number = number if seat.last_n < 0 else min(number, seat.last_n)
        if seat.layout == "audio-only" or not number or not seat.receive_height:
            return []
        if seat.layout == "stage":
            return [seat.receive_height, *[min(seat.receive_height, THUMBNAIL)] * (number - 1)]
        return [tile_height(self._scenario.participants - 1, seat.receive_height)] * number

    def _delivered(self, asked: int) -> LayerSpec:
        """The tallest layer that is not taller than asked for; the lowest one always comes, as of Videobridge."""
        return next((layer for layer in reversed(self._layers) if layer.height <= asked), self._layers[0])


def _senders(scenario: Scenario, name: str, general: int) -> int:
    """How many of a conference send: those of groups that say so, and the scenario's among the others."""
    own: list[tuple[int | None, int]] = [(getattr(item, name), item.participants) for item in scenario.groups]
    said = sum(number for number, _ in own if number is not None)
    others = scenario.participants - sum(size for number, size in own if number is not None)
    return said + min(general, others)


# --- the client ----------------------------------------------------------------------------------------------


def _demand(times: Timetable, flows: _Flows, costs: Costs, machine: Machine) -> Demand:
    seats, joins = times.seats, times.joins_per_second()
    up = sum((flows.up(seat) for seat in seats), Flow())
    down = sum((flows.down(seat) for seat in seats), Flow())
    shaped = sum((flows.up(seat) + flows.down(seat) for seat in seats if seat.shaping), Flow())
    media = up.packets * costs.packet_sent + down.packets * costs.packet_received
    number = len(seats)
    return Demand(
        participants=number,
        up=up,
        down=down,
        cores=number * costs.participant + media + shaped.packets * costs.packet_shaped,
        joining=joins * costs.join,
        memory=costs.process_memory + number * costs.memory,
        files=costs.process_files + number * costs.participant_files + machine.addresses * _sockets(seats),
    )


def _sockets(seats: Iterable[Seat]) -> int:
    """Sockets of media at each address; a shaped network is a pair of them more (bot.engine.shaped)."""
    return sum(3 if seat.shaping else 1 for seat in seats)


def _sum(demands: Iterable[Demand]) -> Demand:
    found = list(demands)
    return Demand(
        participants=sum(item.participants for item in found),
        up=sum((item.up for item in found), Flow()),
        down=sum((item.down for item in found), Flow()),
        cores=sum(item.cores for item in found),
        joining=sum(item.joining for item in found),
        memory=sum(item.memory for item in found),
        files=sum(item.files for item in found),
    )


def _problems(demands: Sequence[Demand], total: Demand, machine: Machine) -> Iterable[Problem]:
    yield from _cpu_problems(demands, total, machine)
    files = max(item.files for item in demands)
    if files > machine.open_files:
        limit = f"the limit is {machine.open_files} (ulimit -n)"
        yield Problem("files", f"{files} open files are needed in a process, {limit}")
    if total.memory > machine.memory * USABLE:
        needed = _gib(total.memory / USABLE)
        yield Problem("memory", f"{needed} of memory are needed, {_gib(machine.memory)} are available")


def _cpu_problems(demands: Sequence[Demand], total: Demand, machine: Machine) -> Iterable[Problem]:
    """Media comes first: where it alone is too much, slower joins don't help."""
    for busy, what in ((0.0, ""), (1.0, " while they join: fewer joins per second need less")):
        needed = math.ceil((total.cores + busy * total.joining) / USABLE)
        busiest = max(item.cores + busy * item.joining for item in demands)
        if needed > machine.cores:
            yield Problem("cores", f"{needed} cores are needed{what}; this machine has {machine.cores}")
            return
        if busiest > USABLE and needed > len(demands):
            yield Problem(
                "processes", f"{needed} processes are needed{what}; there are {len(demands)} of one core each"
            )
            return


def _gib(number: float) -> str:
    return f"{number / 2**30:.1f} GiB"


def groups_of(plan: Plan) -> Counter[str]:
    """Participants by group; those of none have the empty name."""
    return Counter(seat.group for seat in plan.timetable.seats)
