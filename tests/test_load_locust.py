"""Load runs on Locust, without Locust: seats, messages, the master's book, and the bot process beside a worker."""

import asyncio
import json
import time
from collections import Counter
from typing import Any

import pytest

from bot import events
from bot.embedded.server import EmbeddedServer
from bot.errors import ConfigurationError
from bot.load import files
from bot.load.collector import Note, Tally, WorstStream
from bot.load.locust.ledger import Host, Ledger, Run
from bot.load.locust.orders import Gone, Order, Told
from bot.load.locust.seats import Cloakroom, Seats
from bot.load.locust.wire import from_wire, to_wire
from bot.load.measures import Measures
from bot.load.messages import Begin, Prepare, Progress, Ready, Share, Stop
from bot.load.moments import moments_of
from bot.load.scenario import Scenario
from bot.load.timetable import timetable
from bot.service.child import ChildProcess, pack, unpack_from
from bot.service.runner import embedded_settings
from bot.settings import load
from tests.bridge_support import until

HOST = Host(name="a", cores=2, system="Linux", python="3.12")
PUBLIC = "wss://meet.jit.si"


def scenario(**keys: object) -> Scenario:
    return files.load(None, **({"participants": 2, "height": 180, "simulcast": False} | keys))


def ledger(*, ws_url: str = "ws://127.0.0.1", own: bool = False, **keys: object) -> Ledger:
    return Ledger(Run(scenario(**keys), ws_url, 1000.0), load(), own=own)


def progress(*, joined: int = 0, states: int = 0, last: bool = False) -> Progress:
    measures, tally = Measures(), Tally(tried=joined, joined=joined)
    for _ in range(joined):
        measures.value("join", 0.5, 3)
        measures.share("success", 1, 1, 3)
    return Progress(measures, tally, Counter({"active": states}), states, 0.5, (), last)


def said(found: Progress) -> dict[str, Any]:
    """As Locust carries it."""
    message = to_wire(found) | {"host": HOST.model_dump()}
    data = json.loads(json.dumps(message))
    assert data == message
    assert isinstance(data, dict)
    return data


# --- seats ---


def test_the_seats_go_on_in_further_conferences_that_are_alike() -> None:
    found = Seats(timetable(scenario(conferences=2, participants=3, senders=1)).seats)
    seats = [found.seat(number) for number in range(12)]
    assert [(item.index, item.room, item.name) for item in seats[5:8]] == [
        (5, "jitsi-bot-load-2", "bot-2-3"),
        (6, "jitsi-bot-load-3", "bot-3-1"),
        (7, "jitsi-bot-load-4", "bot-4-1"),
    ]
    assert Counter(item.room for item in seats) == {f"jitsi-bot-load-{number}": 3 for number in (1, 2, 3, 4)}
    assert [item.video for item in seats[:6]] == [item.video for item in seats[6:]]
    assert found.place(7) == 1


def test_the_lowest_seat_is_taken_and_those_of_a_lost_worker_first() -> None:
    room = Cloakroom()
    assert [room.take(owner) for owner in ("a", "b", "a", "b")] == [0, 1, 2, 3]
    assert room.drop("a") == 2
    assert len(room) == 2
    room.free("a", 1)  # it is b's
    assert [room.take("c") for _ in range(3)] == [0, 2, 4]
    room.free("b", 3)
    room.free("b", 3)
    assert [room.take("b"), room.take("b")] == [3, 5]


# --- messages ---


def test_what_was_measured_comes_as_it_was_sent() -> None:
    found = progress(joined=3, states=2)
    found.tally.fail("ice_failed", "No pair", "server", 2)
    found.tally.note(Note(1.5, "media_lost", "bot-1-1 of a", "ice_failed"))
    found.tally.versions["prosody"] = "0.12"
    found.measures.over_time("rtt", 0.01, 2)
    worst = WorstStream("room", "bot-1-1", None, "video", 0.1, None, 1000.0)
    sent = Progress(found.measures, found.tally, found.states, 2, 0.5, (worst,), True)
    came = from_wire(said(sent))
    assert came.measures.to_json() == sent.measures.to_json()
    assert (came.tally, came.states, came.in_room, came.cpu) == (sent.tally, sent.states, 2, 0.5)
    assert (came.worst, came.last) == ((worst,), True)


@pytest.mark.parametrize(
    ("key", "value"),
    [
        (
            "measures",
            {"warm_up": 0, "values": {"join": {"accuracy": 1}}, "shares": {}, "counts": {}, "series": {}},
        ),
        ("measures", {}),
        ("measures", None),
        ("tally", {"tried": "many"}),
        ("states", {"active": "x"}),
        ("in_room", None),
        ("worst", [{"room": 1}]),
    ],
    ids=["other-accuracy", "no-measures", "none", "tally", "states", "in-room", "worst"],
)
def test_a_message_that_can_not_be_read_is_an_error_and_nothing_worse(key: str, value: object) -> None:
    with pytest.raises(ValueError, match=r"accuracy|read|validation"):
        from_wire(said(progress()) | {key: value})


def test_a_run_comes_as_it_was_sent() -> None:
    run = Run(files.load("webinar"), "wss://meet.example.com", 1234.5)
    assert Run.from_wire(json.loads(json.dumps(run.to_wire()))) == run


def test_messages_are_read_without_asyncio_and_a_torn_one_is_the_end() -> None:
    whole = pack({"a": 1})

    def reader(data: bytes) -> Any:
        rest = bytearray(data)

        def read(number: int) -> bytes:
            found = bytes(rest[:number])
            del rest[:number]
            return found

        return read

    assert unpack_from(reader(whole)) == {"a": 1}
    for length in range(len(whole)):
        with pytest.raises(EOFError):
            unpack_from(reader(whole[:length]))


# --- the master's book ---


def test_workers_are_added_up_to_one_report() -> None:
    book = ledger(thresholds=("success > 99%",))
    assert [book.seat("a", 0), book.seat("b", 1), book.seat("a", 0)] == [0, 1, 2]
    book.heard("a", 0, said(progress(joined=2, states=2)))
    book.heard("b", 1, said(progress(joined=1, states=1)))
    for users in (3, 1):
        book.expect(users)
    assert book.tick(1005.0) is None
    assert book.standing.in_room == 3
    book.heard("a", 0, said(progress(last=True)))
    book.ended("b")
    assert (book.busy, len(book.seats)) == (set(), 0)
    report = book.report(1010.0)
    assert (report.exit_code, report.seconds) == (0, 10)
    assert report.participants.model_dump() == {"planned": 3, "tried": 3, "joined": 3, "peak": 3, "lost": 0}
    assert report.client.model_dump(exclude={"reasons"}) == {
        "limited": False,
        "processes": 2,
        "cores": 2,
        "system": "Linux",
        "python": "3.12",
    }
    assert max(value or 0 for value in report.measured.series["participants"].values()) == 3


def test_a_worker_that_is_gone_is_told_and_its_seats_are_free() -> None:
    book = ledger()
    seats = [book.seat(owner, index) for owner, index in (("a", 0), ("b", 1), ("b", 1))]
    book.heard("a", 0, said(progress(joined=1, states=1)))
    book.heard("b", 1, said(progress(joined=2, states=2)))
    book.gone("b", 1007.0, "Locust's worker 1 is not heard of")
    book.gone("b", 1008.0, "told once")
    assert [book.seat("a", 0), book.seat("a", 0)] == seats[1:]
    report = book.report(1010.0)
    assert report.participants.lost == 2
    assert report.client.reasons == ("1 of its processes died",)
    assert [item.text for item in report.moments] == [
        "1 process died with its participants (Locust's worker 1 is not heard of): all 2 of process 2"
    ]
    assert [(item.cause, item.count, item.whose) for item in report.failures] == [("process_died", 2, "client")]


def test_a_bot_process_that_died_is_told_and_its_worker_goes_on() -> None:
    book = ledger()
    book.seat("a", 0)
    book.heard("a", 0, said(progress(joined=1, states=1)))
    book.died("a", 0, 1003.0, "signal 9")
    assert book.busy == {"a"}
    book.heard("a", 0, said(progress(joined=1, states=1)))
    assert (book.standing.in_room, book.report(1004.0).participants.lost) == (1, 1)


def test_a_public_service_has_no_sixth_seat_even_where_a_worker_is_not_heard_of() -> None:
    book = ledger(ws_url=PUBLIC)
    for _ in range(5):
        book.seat("a", 0)
    with pytest.raises(ConfigurationError, match=r"meet\.jit\.si is a public service.*i-own-this-server"):
        book.seat("b", 1)
    book.gone("a", 1001.0, "not heard of")
    with pytest.raises(ConfigurationError, match="public"):
        book.seat("b", 1)
    own = ledger(ws_url=PUBLIC, own=True)
    assert [own.seat("a", 0) for _ in range(6)] == list(range(6))


def test_a_missed_threshold_ends_the_run_where_it_is_to() -> None:
    book = ledger(thresholds=("p95(join) < 100ms",), abort_on_fail=True, warm_up=2.0)
    book.seat("a", 0)
    book.heard("a", 0, said(progress(joined=1, states=1)))
    assert book.tick(1001.0) is None
    assert "p95(join)" in (book.tick(1004.0) or "")
    report = book.report(1005.0, "threshold")
    assert (report.exit_code, report.ended, report.moments[-1].what) == (99, "threshold", "threshold_missed")


def test_several_processes_that_died_are_one_moment() -> None:
    notes = [Note(1.0, "process_died", f"all 2 of process {number}", "signal 9") for number in (1, 2)]
    assert [item.text for item in moments_of(notes)] == [
        "2 processes died with theirs (signal 9): all 2 of process 1, all 2 of process 2"
    ]


# --- the bot process ---


async def test_the_bot_process_does_what_it_is_told_and_ends_with_its_worker() -> None:
    server = EmbeddedServer(port=0)
    await server.start()
    heard: list[Any] = []
    child = ChildProcess("bot.load.locust.process", heard.append)
    await child.start()
    task = asyncio.create_task(child.run())
    try:
        settings = embedded_settings(load(), server)
        what = scenario(senders=0, audio_senders=0)
        child.send(Prepare(Share(what, settings, "none", 0, 1), "error", "json"))
        await until(lambda: bool(heard) or task.done())
        assert heard == [Ready()]
        child.send(Begin(time.time()))
        for seat in (0, 3):  # the second one is of a conference beyond the scenario's
            child.send(Order(seat, "join"))
        await until(lambda: _told(heard, events.ConferenceJoined) == {0, 3} or task.done())
        child.send(Order(0, "leave"))
        await until(lambda: Gone(0) in heard or task.done())
        assert {item.event.room for item in heard if isinstance(item, Told)} == {
            "jitsi-bot-load-1",
            "jitsi-bot-load-2",
        }
        child.send(Stop())
        assert await asyncio.wait_for(task, 30) == 0
    finally:
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)
        await server.stop()
    assert Gone(3) in heard
    parts = [item for item in heard if isinstance(item, Progress)]
    assert [item.last for item in parts].index(True) == len(parts) - 1
    assert sum(item.tally.joined for item in parts) == 2


def _told(heard: list[Any], kind: type[events.Event]) -> set[int]:
    return {item.seat for item in heard if isinstance(item, Told) and isinstance(item.event, kind)}


async def test_what_can_not_be_prepared_is_told() -> None:
    heard: list[Any] = []
    child = ChildProcess("bot.load.locust.process", heard.append)
    await child.start()
    child.send(Prepare(Share(scenario(tokens="room"), load(), "none", 0, 1), "error", "json"))
    assert await asyncio.wait_for(child.run(), 30) == 0
    assert heard == [Ready("tokens = 'room' needs jwt_app_id and jwt_app_secret, to make them with")]
