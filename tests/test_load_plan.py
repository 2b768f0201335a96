"""Plans: what is expected of client and server, and what this machine can't carry."""

import json
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bot.clips.spec import LayerSpec
from bot.errors import ConfigurationError
from bot.load import dryrun, files, machine
from bot.load.costs import Costs, read_costs
from bot.load.guard import refuse_public
from bot.load.machine import Machine, this_machine
from bot.load.plan import SOUND, Flow, Plan, layers, make_plan, picture
from bot.load.scenario import Scenario
from bot.load.seating import config_of
from bot.load.timetable import timetable
from bot.participant.clips import video_clip
from bot.settings import load

LARGE = Machine(cores=64, memory=2**37, open_files=2**20, addresses=1)


#: Whatever is measured by and by.
COSTS = Costs(packet_sent=9e-6, packet_received=4.4e-6, join=0.05)


def plan(
    where: Machine = LARGE, processes: int | None = None, costs: Costs | None = None, **values: object
) -> Plan:
    return make_plan(Scenario.model_validate(values), where, costs or COSTS, processes=processes)


# --- what is expected ---------------------------------------------------------------------------------------


def test_sound_and_pictures_in_packets_and_bits() -> None:
    assert (SOUND.packets, SOUND.bits) == (50, 32_000 + 50 * 62 * 8)
    # 500 kbit/s in 30 frames of 2084 bytes: two packets each.
    assert picture(Scenario(), LayerSpec(640, 360, 500_000)) == Flow(60, 500_000 + 60 * 62 * 8)


def heights(**values: Any) -> list[int]:
    return [layer.height for layer in layers(Scenario.model_validate(values))]


def test_layers() -> None:
    assert heights() == [180, 360, 720]
    assert heights(height=360) == [90, 180, 360]
    assert heights(height=1080) == [270, 540, 1080]
    assert heights(height=180) == [180]
    assert heights(simulcast=False) == [720]
    assert heights(codec="av1") == [720]


@pytest.mark.parametrize("values", [{}, {"height": 180}, {"height": 360, "simulcast": False}, {"codec": "vp9"}])
def test_the_layers_that_are_planned_are_those_that_are_sent(values: dict[str, Any]) -> None:
    scenario = Scenario.model_validate(values)
    sent = video_clip(config_of(load(), scenario, timetable(scenario).seats[0]))
    assert sent is not None
    assert sent.layers == layers(scenario)


def flows(**values: Any) -> list[Flow]:
    """Of each layer, highest first."""
    scenario = Scenario.model_validate(values)
    return [picture(scenario, layer) for layer in reversed(layers(scenario))]


def test_two_see_and_hear_each_other() -> None:
    found = plan(simulcast=False, height=360).total
    one = flows(simulcast=False, height=360)[0] + SOUND
    assert (found.up, found.down) == (one * 2, one * 2)


def test_simulcast_costs_on_the_way_up_and_saves_on_the_way_down() -> None:
    found = plan(participants=12, senders=12, audio_senders=0).total
    one = sum(flows(), Flow())
    assert found.up.packets == one.packets * 12
    assert found.up.bits == pytest.approx(one.bits * 12)
    assert found.down.packets == pytest.approx(flows()[-1].packets * 12 * 11), "twelve tiles are thumbnails"


def test_layouts() -> None:
    def down(**values: Any) -> float:
        return plan(participants=5, audio_senders=0, **values).total.down.packets / 5

    large, middle, small = (flow.packets for flow in flows())
    assert down(layout="stage") == large + 3 * small
    assert down(layout="tile") == 4 * middle
    assert down(layout="tile", last_n=2) == 2 * middle
    assert down(layout="stage", receive_height=360) == middle + 3 * small
    assert down(layout="audio-only", senders=5) == 0
    assert down(layout="tile", last_n=0) == 0
    assert down(layout="tile", receive_height=0) == 0
    assert down(simulcast=False) == 4 * large, "there is no smaller one"


def test_a_bad_network_costs_those_who_have_it() -> None:
    good = plan(participants=4, audio_senders=0).total
    group = {"name": "far", "participants": 1, "shaping": {"delay": 0.1}}
    bad = plan(participants=4, audio_senders=0, groups=[group]).total
    packets = (good.up.packets + good.down.packets) / 4
    assert bad.cores - good.cores == pytest.approx(packets * COSTS.packet_shaped)
    assert bad.files - good.files == 2


def test_the_bridge_routes_the_loudest() -> None:
    def sounds(**values: Any) -> float:
        return plan(participants=10, senders=0, **values).total.down.packets / SOUND.packets

    assert sounds() == 10 * 3
    assert sounds(loudest=-1) == 10 * 9
    assert sounds(loudest=1) == 10
    assert sounds(audio_senders=2) == 2 * 1 + 8 * 2


def test_senders_of_groups_are_seen_by_all() -> None:
    groups = [{"name": "panel", "participants": 2, "senders": 2, "audio_senders": 2}]
    found = plan(participants=10, senders=1, audio_senders=0, groups=groups, simulcast=False).total
    one = flows()[0].packets
    assert found.up.packets == 3 * one + 2 * SOUND.packets
    assert found.down.packets == one * (3 * 2 + 7 * 3) + SOUND.packets * (2 * 1 + 8 * 2)


@given(st.integers(1, 3), st.integers(1, 12), st.integers(0, 12), st.sampled_from(["tile", "stage"]))
def test_processes_need_together_what_one_would(rooms: int, size: int, senders: int, layout: str) -> None:
    values: dict[str, Any] = {
        "conferences": rooms,
        "participants": size,
        "senders": min(senders, size),
        "layout": layout,
    }
    one, three = plan(processes=1, **values), plan(processes=3, **values)
    assert sum(item.participants for item in three.processes) == one.total.participants
    assert three.total.up.packets == pytest.approx(one.total.up.packets)
    assert three.total.down.bits == pytest.approx(one.total.down.bits)
    assert three.total.cores == pytest.approx(one.total.cores)


# --- what is missing ----------------------------------------------------------------------------------------


def test_a_large_machine_carries_it() -> None:
    assert plan().fits
    assert len(plan(conferences=50, duration=600).processes) == 64


def problems(found: Plan) -> dict[str, str]:
    assert not found.fits
    return {item.resource: item.text for item in found.problems}


def test_cores() -> None:
    small = Machine(cores=2, memory=2**37, open_files=2**20, addresses=1)
    found = problems(plan(small, participants=200, duration=600, layout="stage"))
    assert "8 cores are needed; this machine has 2" in found["cores"]
    joining = problems(plan(small, participants=200, join_delay=0, senders=0, audio_senders=0))
    assert "13 cores are needed while they join: fewer joins per second" in joining["cores"]


def test_processes() -> None:
    found = problems(plan(participants=100, duration=600, processes=1))
    assert found["processes"].endswith("there are 1 of one core each")


def test_files_and_memory() -> None:
    small = Machine(cores=64, memory=2**28, open_files=64, addresses=2)
    found = problems(plan(small, participants=100, senders=0, processes=2))
    assert found["files"] == "220 open files are needed in a process, the limit is 64 (ulimit -n)"
    assert found["memory"] == "0.6 GiB of memory are needed, 0.2 GiB are available"


# --- machine and costs --------------------------------------------------------------------------------------


def test_this_machine() -> None:
    found = this_machine()
    assert found.cores >= 1
    assert found.memory > 2**20
    assert found.open_files >= 64
    assert this_machine(addresses=3).addresses == 3


def test_memory_of_machines_that_say_less(tmp_path: Path) -> None:
    unknown = 2**63
    assert machine._available(tmp_path / "none") == unknown
    (tmp_path / "meminfo").write_text("MemTotal: 8 kB\n")
    assert machine._available(tmp_path / "meminfo") == unknown
    (tmp_path / "meminfo").write_text("MemAvailable:   8 kB\n")
    assert machine._available(tmp_path / "meminfo") == 8192
    assert machine._cgroup(tmp_path) == unknown
    (tmp_path / "memory.max").write_text("max\n")
    (tmp_path / "memory.current").write_text("300\n")
    assert machine._cgroup(tmp_path) == unknown
    (tmp_path / "memory.max").write_text("1000\n")
    assert machine._cgroup(tmp_path) == 700
    assert machine._limit(-1) == 2**31
    assert machine._is_local("fe80::1")


def test_costs_of_a_benchmark_go_first(tmp_path: Path) -> None:
    file = tmp_path / "bench.json"
    assert read_costs(file) == (Costs(), "measured elsewhere")
    file.write_text(json.dumps({"costs": {"packet_sent": 1e-6}, "more": 1}))
    found, source = read_costs(file)
    file.write_text("{}")
    assert read_costs(file) == (Costs(), "measured elsewhere")
    assert (found.packet_sent, found.packet_received, source) == (1e-6, Costs().packet_received, str(file))


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("{", "bench.json: Expecting"),
        ("[]", "bench.json: list indices"),
        ('{"costs": {"packets": 1}}', "costs.packets: Extra inputs"),
        ('{"costs": {"join": -1}}', "costs.join: Input should be greater"),
    ],
)
def test_a_benchmark_that_can_not_be_read(tmp_path: Path, text: str, said: str) -> None:
    (tmp_path / "bench.json").write_text(text)
    with pytest.raises(ConfigurationError, match=said):
        read_costs(tmp_path / "bench.json")


# --- public services ----------------------------------------------------------------------------------------


@pytest.mark.parametrize("url", ["wss://meet.jit.si", "wss://beta.meet.jit.si/x", "wss://8x8.vc", "wss://8X8.vc."])
def test_public_services_are_no_target(url: str) -> None:
    refuse_public(url, 5)
    refuse_public(url, 6, own=True)
    with pytest.raises(ConfigurationError, match="6 participants are refused there, 5 are allowed"):
        refuse_public(url, 6)


@pytest.mark.parametrize("url", ["ws://localhost:8000", "wss://meet.jit.si.example.com", "nothing"])
def test_other_servers_are(url: str) -> None:
    refuse_public(url, 1000)


# --- as text and JSON ---------------------------------------------------------------------------------------


def test_the_text_says_it_all() -> None:
    found = plan(
        participants=30, warm_up=10, last_n=4, thresholds=["loss < 1%"], groups=[{"name": "x", "participants": 2}]
    )
    text = dryrun.as_text(found)
    for line in (
        "participants   30: 1 x 30, 30 send pictures, 30 sound",
        "               2 of them in group x",
        "pictures       vp8, 180p + 360p + 720p, 30 frames/s",
        "layout         tile, last-n 4",
        "threshold      loss < 1%",
        "duration       60 s, of which 10 s don't count",
        "timetable           0.0 s  join  bot-1-1 of jitsi-bot-load-1",
        "                           … 21 more",
        "                   60.0 s  leave  30 participants",
        "This machine can carry it.",
    ):
        assert line in text.splitlines()


def test_the_text_says_what_is_missing() -> None:
    text = dryrun.as_text(plan(Machine(1, 2**37, 10, 1), participants=3, senders=0))
    assert (
        "This machine can't carry it: 29 open files are needed in a process, the limit is 10 (ulimit -n)." in text
    )
    assert dryrun.as_text(plan(senders=0, audio_senders=0, participants=1, costs=Costs(join=0))).count("\n") > 15


def test_the_json_holds_the_whole_timetable() -> None:
    found = json.loads(json.dumps(dryrun.as_json(make_plan(files.load("churn"), LARGE, Costs(), processes=2))))
    assert found["participants"] == len(found["seats"]) == 50
    assert len(found["client"]["processes"]) == 2
    assert found["server"]["sent"] == found["client"]["received"]
    assert {what for _, _, what in found["actions"]} == {"join", "leave"}
    assert found["fits"] is True
