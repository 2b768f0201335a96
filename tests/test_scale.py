"""What a change costs is what it changes, however large the room is.

Operations are counted, not timed: the interpreter's own instructions, which are the same on every machine.
"""

import asyncio
import sys
import xml.etree.ElementTree as ET
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from math import inf
from types import FrameType
from typing import Any

import pytest

from bot.bridge import receive
from bot.bridge.inbound import InboundMedia
from bot.bridge.payloads import PayloadFormat
from bot.bridge.receive import MAX_STREAMS, SILENT_FOR, ReceiveStatistics
from bot.bridge.receiver import ReceiverReports
from bot.bridge.rtp import build, parse_header
from bot.bridge.streams import NamedSource
from bot.bridge.streams import RemoteSources as RemoteStreams
from bot.jingle.model import MediaSources, Source, SourceGroup, SourceMap
from bot.jingle.sources import SourceTable
from bot.participant.sources import RemoteSources
from bot.xmpp.occupants import OccupantTable
from tests.bridge_support import until
from tests.test_participant_moves import Bench, bench

__all__ = ["bench"]  # the fixture

FEW, MANY = 100, 4000
VP8 = PayloadFormat(100, "video", "vp8", 90_000, nack=True)


class Count:
    """How many instructions were executed."""

    value = 0


@contextmanager
def counted() -> Iterator[Count]:
    """Count the instructions of Python functions that are called inside, comprehensions included."""
    count = Count()

    def trace(frame: FrameType, event: str, _argument: object) -> Any:
        frame.f_trace_opcodes = True
        count.value += event == "opcode"
        return trace

    before = sys.gettrace()  # that of coverage
    sys.settrace(trace)
    try:
        yield count
    finally:
        sys.settrace(before)


def cost(work: Callable[[], object]) -> int:
    """Instructions that ``work`` takes."""
    with counted() as count:
        work()
    return count.value


def sources(owner: int) -> SourceMap:
    """Sound, and a picture in three layers, each with its retransmissions: seven SSRCs, two sources."""
    first, name = 10 * owner + 1, f"e{owner}"
    ssrcs = range(first, first + 6)
    groups = [SourceGroup("SIM", tuple(ssrcs[::2]))]
    groups += [SourceGroup("FID", (ssrc, ssrc + 1)) for ssrc in ssrcs[::2]]
    video = tuple(Source(ssrc, f"{name}-v0", name, video_type="camera") for ssrc in ssrcs)
    audio = MediaSources((Source(first + 6, f"{name}-a0", name),))
    return SourceMap(audio, MediaSources(video, tuple(groups)))


def mapped(owner: int) -> NamedSource:
    return NamedSource(owner + 1, "video", f"e{owner}-v0", f"e{owner}", owner + 100_001, "camera")


def known_sources(size: int) -> list[int]:
    """Costs of each step where so many sources are known."""
    known = RemoteSources()
    known.mapped("video", map(mapped, range(size)))
    moved = NamedSource(50_000, "video", f"e{size}-v0", f"e{size}")
    return [
        cost(lambda: known.mapped("video", [mapped(size)])),
        cost(lambda: known.mapped("video", [moved])),
        cost(lambda: known.left(f"e{size}")),
        cost(lambda: known.added(sources(90_000))),
        cost(lambda: known.videos_of("e90000")),
        cost(lambda: known.removed(sources(90_000))),
    ]


def table(size: int) -> list[int]:
    found = SourceTable(10 * size + 100)
    for owner in range(size):
        found.add(sources(owner))
    return [
        cost(lambda: found.add(sources(90_000))),
        cost(lambda: found.remove(sources(90_000))),
        cost(lambda: found.remove_owner("e7")),
    ]


def streams(size: int) -> list[int]:
    found = RemoteStreams(0.0)
    found.name(map(mapped, range(size)))
    return [
        cost(lambda: found.name([mapped(size)])),
        cost(lambda: found.ssrc_of("e7-v0")),
        cost(lambda: found.forget([size + 1])),
    ]


def packets(size: int) -> list[int]:
    """A packet, and a lost one with the request for it, where so many streams were received."""
    inbound = InboundMedia({100: VP8}, ssrc=1, started=0.0)

    def take(ssrc: int, sequence: int) -> None:
        data = build(payload_type=100, sequence=sequence, timestamp=0, ssrc=ssrc, body=b"x" * 50)
        inbound.packet(data, parse_header(data), 1.0)

    for ssrc in range(1, size + 1):
        take(ssrc, 1)
    return [
        cost(lambda: take(7, 2)),
        cost(lambda: take(7, 5)),
        cost(lambda: inbound.due(1.1)),
        cost(inbound.next_deadline),
        cost(lambda: inbound.forget([8])),
    ]


def presence(endpoint: str, kind: str | None = None) -> ET.Element:
    return ET.Element("presence", {"from": f"r@muc/{endpoint}"} | ({"type": kind} if kind else {}))


def occupants(size: int) -> list[int]:
    found = OccupantTable("me")
    for number in range(size):
        found.feed(presence(f"e{number}"))
    return [
        cost(lambda: found.feed(presence("new"))),
        cost(lambda: found.count),
        cost(lambda: found.feed(presence("new", "unavailable"))),
    ]


@pytest.mark.parametrize("steps", [known_sources, table, streams, packets, occupants])
def test_a_change_costs_the_same_in_a_room_of_any_size(steps: Callable[[int], list[int]]) -> None:
    few, many = steps(FEW), steps(MANY)
    assert min(few) > 0
    assert many == pytest.approx(few, rel=0.2, abs=10)


def test_counting_sees_what_is_linear() -> None:
    """The check of the check."""
    found = [cost(lambda size=size: [item for item in range(size)]) for size in (FEW, MANY)]  # type: ignore[misc]  # noqa: C416
    assert found[1] > 20 * found[0]


async def test_a_hundred_participants_with_two_sources_each_come_and_go(bench: Bench) -> None:
    """By the focus's stanzas, through parser, session machine, tables and events."""
    await bench.order("session-initiate")
    loop = asyncio.get_running_loop()
    began, costs = loop.time(), []
    for action, event in (("source-add", "remote_source_added"), ("source-remove", "remote_source_removed")):
        for owner in range(1, 101):
            seen = bench.names().count(event)
            with counted() as count:
                bench.tell(bench.stanza(action, sources(owner)))
                await until(lambda seen=seen, event=event: bench.names().count(event) == seen + 4)  # type: ignore[misc]
            costs.append(count.value)
    assert loop.time() - began < 60
    by_tens = [sum(costs[start : start + 10]) for start in range(0, len(costs), 10)]
    adding, removing = by_tens[:10], by_tens[10:]
    for tens in (adding, removing):
        assert max(tens) < 1.5 * min(tens)
    assert bench.session.remote_sources({}).keys() == {"alice-v0"}


def test_streams_that_ended_make_room_for_others() -> None:
    statistics = ReceiveStatistics()
    retired: list[int] = []
    statistics.on_retired = retired.extend
    reports = ReceiverReports(statistics)

    def receive(ssrc: int, now: float) -> bool:
        data = build(payload_type=100, sequence=1, timestamp=0, ssrc=ssrc, body=b"x")
        return statistics.feed(data, now, 90_000) is not None

    for ssrc in range(MAX_STREAMS):
        receive(ssrc, 0.0 if ssrc % 2 else 50.0)
    reports.blocks(1.0)
    assert not receive(90_000, 59.0)  # all may still come again
    assert statistics.ignored == 1
    assert receive(90_000, SILENT_FOR + 1)
    assert len(retired) == MAX_STREAMS // 2
    assert 1 not in statistics.streams
    assert [block.ssrc for block in reports.blocks(SILENT_FOR + 1)] == [90_000]
    assert statistics.last == SILENT_FOR + 1


def test_what_was_received_of_streams_that_made_room_is_forgotten(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(receive, "MAX_STREAMS", 2)
    inbound = InboundMedia({100: VP8}, ssrc=1, started=0.0)
    for ssrc, sequence, now in ((1, 1, 0.0), (1, 4, 0.0), (2, 1, 50.0), (3, 1, 70.0)):
        data = build(payload_type=100, sequence=sequence, timestamp=0, ssrc=ssrc, body=b"x" * 50)
        inbound.packet(data, parse_header(data), now)
    assert [stream.ssrc for stream in inbound.snapshot(70.0)] == [2, 3]
    assert inbound.next_deadline() == inf
    assert inbound.due(70.0) == []
