"""The benchmark's own parts: numbers with their spread, the table and the JSON, and that a small run works."""

import asyncio
import json
import socket
import struct
import sys
import time
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from rich.console import Console

from bench import checks, figures, plan, report
from bench.figures import Figure, Target
from bench.measures import Results, growth, measures
from bench.messages import FarView, Job, JoinMeasured, Measured, Picture, Window
from bench.mmsg import SO_TIMESTAMPNS, Batch
from bench.peer import lateness
from bench.playback import Playback, remote_sources, script, video_ssrc
from bench.sink import Sink
from bot.bridge import rtcp
from bot.bridge.rtp import build, parse_header, transport_sequence
from bot.bridge.twcc import parse_feedback
from bot.embedded.offer import TRANSPORT_CC_ID

KEYS = {
    "publishers_per_core",
    "publish_ratio_aiortc_encoding",
    "publish_ratio_aiortc_packets",
    "receive_us_per_packet",
    "receive20_core_percent",
    "receive_ratio_aiortc",
    "participants_per_core_4",
    "participants_per_core_20",
    "pacing_p99_ms",
    "memory_mb_per_participant",
    "join_cpu_ms",
    "process_speedup_2",
}
GOOD = Picture(frames=90, width=640, height=360, contrast=60.0, changes=88)
AUDIO, VIDEO, REPAIR = 1, 2, 3


def far(**changes: Any) -> FarView:
    values: dict[str, Any] = {
        "seconds": 3.0,
        "packets": 3000,
        "publishers": 10,
        "fps_lowest": 29.5,
        "fps_mean": 30.0,
        "pictures": (GOOD,),
        "lateness": tuple(number / 1000 for number in range(100)),
    }
    return FarView(**(values | changes))


def measured(cpu: float = 0.3, *, memory: int = 10**8, **changes: Any) -> Measured:
    window = Window(seconds=3.0, cpu=cpu, sent=3000, received=3000, decoded=900, far=(far(**changes),))
    return Measured(windows=(window, window), memory=memory, join_seconds=1.0, join_cpu=0.5)


# --- figures ---


def test_a_figure_has_the_spread_of_its_repetitions() -> None:
    assert Figure.of([1.0, 2.0, 6.0]) == Figure(3.0, 1.0, 6.0)
    with pytest.raises(ValueError, match="no repetition"):
        Figure.of([])


@given(st.lists(st.floats(0.01, 100), min_size=1), st.lists(st.floats(0.01, 100), min_size=1))
def test_the_spread_of_a_quotient_holds_every_pair(left: list[float], right: list[float]) -> None:
    found = Figure.of(left).over(Figure.of(right))
    slack = 1e-9
    for a in left:
        for b in right:
            assert found.low * (1 - slack) <= a / b <= found.high * (1 + slack)
    inverse = Figure.of(left).inverse()
    assert inverse.low <= inverse.value * (1 + slack)
    assert inverse.value <= inverse.high * (1 + slack)


def test_percentiles_are_values_that_were_there() -> None:
    values = [float(number) for number in range(1, 101)]
    assert figures.percentile(values, 0.99) == 99
    assert figures.percentile(values, 0.5) == 50
    assert figures.percentile([7.0], 0.0) == 7
    with pytest.raises(ValueError, match="no value"):
        figures.percentile([], 0.5)


def test_targets_are_met_on_their_side() -> None:
    assert Target(4, at_most=True).met(4)
    assert not Target(4, at_most=True).met(4.1)
    assert Target(500).met(500)
    assert not Target(500).met(499)
    assert (str(Target(4, at_most=True)), str(Target(1.8))) == ("≤ 4", "≥ 1.8")


# --- measures, table, JSON ---


def results(scale: plan.Scale) -> Results:
    """A run in which a publisher takes 1 % of a core and aiortc ten times as much."""
    found: dict[str, tuple[Measured, ...] | JoinMeasured] = {}
    for name, case in plan.cases(scale).items():
        if case.job is None:
            found[name] = JoinMeasured(participants=10, seconds=2.0, cpu=0.3, stood=10.0, steady=0.01)
        else:
            share = 0.1 if case.job.way.startswith("aiortc") else 0.01
            size = case.job.participants
            one = measured(share * size * 3.0, memory=10**8 + size * 500_000, publishers=size)
            found[name] = (one,) * case.processes
    return found


def test_the_numbers_follow_from_the_cases() -> None:
    scale = plan.FULL
    found = {item.key: item.compute(results(scale), scale) for item in measures(scale)}
    assert found.keys() >= KEYS
    assert found["publishers_per_core"].value == pytest.approx(100)
    assert found["publish_ratio_aiortc_encoding"].value == pytest.approx(10)
    assert found["receive20_core_percent"].value == pytest.approx(1)
    assert found["receive_us_per_packet"].value == pytest.approx(0.01 * scale.receiving * 3 / 3000 * 1e6)
    assert found["receive_ratio_aiortc"].value == pytest.approx(10 * 20 / scale.aiortc_streams)
    assert found["memory_mb_per_participant"].value == pytest.approx(0.5)
    assert found["join_cpu_ms"].value == pytest.approx((0.3 - 0.1) / 10 * 1000)
    assert found["process_speedup_2"].value == pytest.approx(2)
    assert found["pacing_p99_ms"].value == pytest.approx(98)
    rows = growth(results(scale), scale)
    assert [row["publishers"] for row in rows] == [1, 10, 50, 200, 500]
    assert {round(row["core_percent_per_publisher"], 6) for row in rows} == {1.0}


def test_the_json_is_a_flat_map_with_null_where_there_is_no_number(tmp_path: Path) -> None:
    scale = plan.QUICK
    wanted = measures(scale)
    found = {"join_cpu_ms": Figure(12.34567, 10.0, 15.0)}
    content = report.as_json(wanted, found, {"pacing_p99_ms": "not there"}, [{"publishers": 1}], {"quick": True})
    report.write(tmp_path / "build" / "bench.json", content)
    read = json.loads((tmp_path / "build" / "bench.json").read_text())
    assert read["join_cpu_ms"] == 12.35
    assert read["spread"]["join_cpu_ms"] == [10.0, 15.0]
    assert read["pacing_p99_ms"] is None
    assert read["errors"] == {"pacing_p99_ms": "not there"}
    assert set(read) >= KEYS | {"growth", "quick"}


def test_the_table_says_which_numbers_are_as_wanted() -> None:
    wanted = measures(plan.FULL)
    found = {"join_cpu_ms": Figure(30.0, 30.0, 30.0), "pacing_p99_ms": Figure(3.0, 2.0, 4.0)}
    console = Console(width=200, record=True, file=open("/dev/null", "w"))  # noqa: SIM115, PTH123
    console.print(report.table(wanted, found, {"publishers_per_core": "publish-200: the peers were late"}))
    console.file.close()
    lines = console.export_text().splitlines()
    row = {name: next(line for line in lines if name in line) for name in ("A join", "Pacing", "Publishers per")}
    assert "no" in row["A join"]
    assert "yes" in row["Pacing"]
    assert "2 … 4" in row["Pacing"]
    assert "the peers were late" in row["Publishers per"]


def test_the_growth_table_says_which_rows_it_has_not() -> None:
    rows = growth(results(plan.QUICK), plan.QUICK)
    console = Console(width=200, record=True, file=open("/dev/null", "w"))  # noqa: SIM115, PTH123
    console.print(report.growth_table(rows, {"publish-500": "nothing came within 60 s"}))
    console.file.close()
    text = console.export_text()
    assert "publish-500: nothing came within 60 s" in text
    assert "1.000 %" in text


# --- whether media was real ---


PUBLISH = Job(way="engine", participants=10)


def test_real_media_has_no_fault() -> None:
    assert checks.faults(PUBLISH, measured()) == []


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"publishers": 9}, "9 of 10 publishers"),
        ({"missing": 40}, "40 of 3040 published packets were missing"),
        ({"fps_lowest": 20.0}, "20.0 pictures a second"),
        ({"pictures": ()}, "nothing was decoded"),
        ({"pictures": (Picture(frames=10, errors=80),)}, "10 pictures were decoded"),
        ({"pictures": (Picture(frames=90, width=320, height=180, contrast=60, changes=90),)}, "320x180"),
        ({"pictures": (Picture(frames=90, width=640, height=360, contrast=1.0, changes=90),)}, "no pattern"),
        ({"pictures": (Picture(frames=90, width=640, height=360, contrast=60.0, changes=1),)}, "no pattern"),
    ],
)
def test_publishing_without_real_media_is_a_fault(changes: dict[str, Any], said: str) -> None:
    assert said in checks.faults(PUBLISH, measured(**changes))[0]


def received(way: Any, received: int, decoded: int = 0, **changes: Any) -> list[str]:
    job = Job(way=way, participants=1, publish=False, streams=10)
    view = far(**({"sent": 3300, "feedback": 30} | changes))
    window = Window(seconds=3.0, cpu=0.1, received=received, decoded=decoded, far=(view,))
    return checks.faults(job, Measured(windows=(window,), memory=1, join_seconds=1, join_cpu=1))


def test_receiving_without_real_media_is_a_fault() -> None:
    assert received("engine", 3290) == []
    assert "2000 packets a second and not" not in received("engine", 3290)
    assert "of 1100 packets a second were received" in received("engine", 2000)[0]
    assert "the peers sent 500 packets a second" in received("engine", 1500, sent=1500)[0]
    assert "feedback 1.0 times" in received("engine", 3290, feedback=3)[0]
    assert received("aiortc-receiving", 3290, decoded=890) == []
    assert "10.0 pictures a second" in received("aiortc-receiving", 3290, decoded=300)[0]


# --- the peers' parts ---


def packet(number: int, *, ssrc: int = VIDEO, stamp: int = 0) -> bytes:
    values = {TRANSPORT_CC_ID: struct.pack("!H", number & 0xFFFF)}
    return build(payload_type=100, sequence=number, timestamp=stamp, ssrc=ssrc, body=b"x" * 50, values=values)


def test_a_sink_counts_what_is_missing_and_reports_each_arrival() -> None:
    sink = Sink(9, audio=AUDIO, video=VIDEO, repair=REPAIR, now=0.0)
    for number in (65_534, 65_535, 0, 2, 3):
        sink.rtp(packet(number, stamp=number * 3000), 1.0 + number / 1_000_000)
    seen = sink.look()
    assert (seen.packets, seen.numbered, seen.expected, seen.frames) == (5, 5, 6, 5)
    (feedback,) = rtcp.parse(sink.due(0.5)[0][0])
    assert isinstance(feedback, rtcp.Feedback)
    arrived = {number for number, arrival in parse_feedback(feedback).packets if arrival is not None}
    assert arrived == {65_534, 65_535, 0, 2, 3}


def test_a_sink_asks_as_a_bridge_does() -> None:
    sink = Sink(9, audio=AUDIO, video=VIDEO, repair=REPAIR, now=0.0)
    sink.rtp(packet(7), 0.1)
    sink.rtp(packet(8, ssrc=77), 0.1)
    assert sink.strange == 1
    sink.sender_report(rtcp.SenderReport(VIDEO, 5 << 32, 0, 1, 50), 0.2)
    packets, asks = sink.due(2.6)
    found = [item for data in packets for item in rtcp.parse(data)]
    assert asks
    (report_,) = [item for item in found if isinstance(item, rtcp.ReceiverReport)]
    assert (report_.blocks[0].ssrc, report_.blocks[0].last_sr) == (VIDEO, 5 << 16)
    requests = [item for item in found if isinstance(item, rtcp.Feedback)]
    assert [rtcp.nacked(item) for item in requests if item.fmt == rtcp.FMT_NACK and item.kind == rtcp.RTPFB] == [
        [7]
    ]
    assert [rtcp.keyframe_requests(item) for item in requests if item.kind == rtcp.PSFB] == [(VIDEO,)]
    assert sink.due(2.7) == ([], False)


def test_lateness_is_against_the_soonest_of_the_same_stream() -> None:
    sinks = [Sink(9, audio=AUDIO, video=VIDEO, repair=REPAIR, now=0.0) for _ in range(2)]
    for sink, offset in zip(sinks, (5.0, 8.0), strict=True):
        for index, late in enumerate((0.002, 0.0, 0.010)):
            sink.rtp(packet(index, stamp=index * 3000), offset + index / 30 + late)
    found = lateness([sink.look() for sink in sinks])
    assert found == pytest.approx((0.002, 0.0, 0.010) * 2, abs=1e-6)


def test_a_playback_goes_on_over_the_loop_at_an_even_pace() -> None:
    streams = 3
    playback = Playback(streams, 0.0, 1000.0)
    counts = []
    packets: list[bytes] = []
    for tick in range(1, 501):
        due = playback.due(tick / 100)
        counts.append(len(due))
        packets += due
    headers = [parse_header(data) for data in packets]
    numbers = [
        transport_sequence(data, header, TRANSPORT_CC_ID) for data, header in zip(packets, headers, strict=True)
    ]
    assert numbers == list(range(len(packets)))
    first = [header for header in headers if header.ssrc == video_ssrc(0)]
    assert [item.sequence for item in first] == list(range(len(first)))
    stamps = [item.timestamp for item in first]
    assert stamps == sorted(stamps)
    assert len(set(stamps)) in {150, 151}  # the last is due at the very end
    assert max(counts) <= 20  # three pictures of some packets, and three sounds, at the very worst
    assert len(script(streams)) == pytest.approx(4 * streams * 112, rel=0.1)
    (report_, _) = rtcp.parse(playback.report(5.0))
    assert isinstance(report_, rtcp.SenderReport)
    assert report_.packets == len(first)


def test_remote_sources_pair_each_picture_with_its_repair() -> None:
    sources = remote_sources(4)
    assert len(sources.audio.sources) == 4
    assert [group.ssrcs[0] for group in sources.video.groups] == [video_ssrc(number) for number in range(4)]


@pytest.mark.skipif(sys.platform != "linux", reason="recvmmsg and sendmmsg are Linux's")
def test_many_datagrams_go_and_come_at_once() -> None:
    with socket.socket(type=socket.SOCK_DGRAM) as near, socket.socket(type=socket.SOCK_DGRAM) as there:
        for item in (near, there):
            item.setblocking(False)
            item.setsockopt(socket.SOL_SOCKET, SO_TIMESTAMPNS, 1)
            item.bind(("127.0.0.1", 0))
        near.connect(there.getsockname())
        there.connect(near.getsockname())
        batch = Batch(depth=8)
        packets = [bytes((number,)) * (100 + number) for number in range(20)]
        before = time.monotonic()
        assert batch.send(near.fileno(), packets) == 20
        found = batch.receive(there.fileno())
        assert [data for _, data in found] == packets
        assert all(before - 0.05 <= arrival <= time.monotonic() + 0.05 for arrival, _ in found)
        assert batch.receive(there.fileno()) == []


@pytest.mark.skipif(sys.platform != "linux", reason="its peers need recvmmsg and sendmmsg of Linux")
@pytest.mark.timeout(150)
async def test_a_quick_run_ends_with_all_its_numbers(tmp_path: Path) -> None:
    output = tmp_path / "bench.json"
    process = await asyncio.create_subprocess_exec(
        sys.executable,
        "-m",
        "bench",
        "--quick",
        "--output",
        str(output),
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.STDOUT,
        cwd=Path(__file__).parent.parent,
    )
    try:
        async with asyncio.timeout(140):
            said, _ = await process.communicate()
    finally:
        if process.returncode is None:
            process.kill()
            await process.wait()
    assert process.returncode == 0, said.decode()
    content = json.loads(output.read_text())
    assert set(content) >= KEYS | {"growth", "machine", "versions", "spread", "errors"}
    assert content["errors"] == {}
    assert all(isinstance(content[key], float) for key in KEYS)
    assert content["aiortc_encoding_core_percent"] > 0
    assert [row["publishers"] for row in content["growth"]] == list(plan.QUICK.growth)
