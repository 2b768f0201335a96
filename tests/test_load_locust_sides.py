"""The sides of a load run on Locust's master and workers, with a Locust that only passes their messages on."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from bot import events
from bot.errors import ConfigurationError
from bot.load import files
from bot.load.collector import Tally
from bot.load.locust import names, worker
from bot.load.locust.master import MasterSide, Wanted
from bot.load.locust.orders import Gone, Order, Told
from bot.load.locust.worker import OverError, WorkerSide
from bot.load.measures import Measures
from bot.load.messages import Prepare, Progress, Stop
from bot.load.report import files as reports
from bot.load.scenario import Scenario

HOST = "ws://127.0.0.1:1"


class BotProcess:
    """One that does as it is told at once."""

    made: list[BotProcess]
    error = ""

    def __init__(self, hear: Callable[[Any], None], ended: Callable[[Any, str], None]) -> None:
        self.hear, self.ended = hear, ended
        self.orders: list[Any] = []
        self.made.append(self)

    def start(self, prepare: Prepare, began: float) -> None:
        self.orders.append((prepare.share.settings.ws_url, began))

    def wait_ready(self) -> str:
        return self.error

    def send(self, order: Order) -> None:
        self.orders.append(order)
        if order.what == "join":
            joined = events.ConferenceJoined(room="r", participant="p", seconds=0.5, endpoint="e", occupants=1)
            self.hear(Told(order.seat, joined))
        else:
            self.hear(Gone(order.seat))

    def stop(self, seconds: float) -> None:
        assert seconds > 0
        self.orders.append(Stop())
        self.hear(progress(last=True))

    def die(self) -> None:
        self.ended(self, "signal 9")


def progress(*, joined: int = 0, last: bool = False) -> Progress:
    measures = Measures()
    for name in ("join", "rtt", "client.loop_lag", "fps"):
        measures.value(name, 0.5, 1, max(1, joined))
    states = Counter({"active": joined})
    return Progress(measures, Tally(tried=joined, joined=joined), states, joined, 0.1, (), last)


class Row:
    """A row of Locust's statistics."""

    def __init__(self) -> None:
        self.values: list[float] = []

    def log(self, value: float, _: int) -> None:
        self.values.append(value)


class Locust:
    """One process with both sides; with ``clients`` in its runner it is a master."""

    def __init__(self) -> None:
        self.listeners: dict[str, Callable[..., None]] = {}
        self.said: list[str] = []
        self.ended: list[str] = []
        self.requests: list[tuple[str, float | None, str]] = []
        self.rows: dict[str, Row] = {}
        runner = SimpleNamespace(
            register_message=self.register,
            send_message=self.send,
            target_user_count=2,
            get_worker_index=lambda client: int(client[1:]),
            quit=lambda: self.ended.append("quit"),
            stop=lambda: self.ended.append("stop"),
        )
        self.environment = SimpleNamespace(
            runner=runner,
            process_exit_code=None,
            web_ui=None,
            parsed_options=SimpleNamespace(headless=True),
            events=SimpleNamespace(request=SimpleNamespace(fire=self.request)),
            stats=SimpleNamespace(get=lambda name, _: self.rows.setdefault(name, Row())),
        )

    def register(self, name: str, listener: Callable[..., None], concurrent: bool = False) -> None:
        assert name not in self.listeners
        self.listeners[name] = listener

    def send(self, name: str, data: Any, client: str | None = None) -> None:
        self.said.append(name)
        if name in self.listeners:
            self.listeners[name](environment=self.environment, msg=SimpleNamespace(data=data, node_id="local"))

    def say(self, name: str, data: Any, client: str) -> None:
        """What another worker says."""
        self.listeners[name](environment=self.environment, msg=SimpleNamespace(data=data, node_id=client))

    def request(self, *, name: str, response_time: float | None, exception: Exception | None, **_: object) -> None:
        self.requests.append((name, response_time, str(exception or "")))


@pytest.fixture
def locust(monkeypatch: pytest.MonkeyPatch) -> Locust:
    monkeypatch.setattr(BotProcess, "made", [], raising=False)
    monkeypatch.setattr(worker, "BotProcess", BotProcess)
    return Locust()


def scenario(**keys: object) -> Scenario:
    return files.load(None, **({"senders": 0} | keys))


def sides(
    locust: Locust, *, out: Path | None = None, host: str = HOST, **keys: object
) -> tuple[MasterSide, WorkerSide]:
    """The master, and a worker in the same process."""
    other = WorkerSide(locust.environment)
    return MasterSide(locust.environment, Wanted(lambda: scenario(**keys), lambda: host, out=out)), other


def test_a_user_joins_stays_leaves_and_the_report_has_it(locust: Locust, tmp_path: Path) -> None:
    master, side = sides(locust, out=tmp_path, thresholds=("success > 99%",))
    master.begin()
    seat = side.seat()
    stay = side.join(seat)
    assert (seat, stay.joined.get(), stay.gone.is_set()) == (0, True, False)
    [process] = BotProcess.made
    process.hear(progress(joined=1))
    side.leave(seat)
    assert stay.gone.is_set()
    side.free(seat)
    assert side.seat() == 0
    master.finish()
    assert process.orders[1:] == [Order(0, "join"), Order(0, "leave"), Stop()]
    assert locust.requests == [("join", 500, "")]
    assert {name: len(row.values) for name, row in locust.rows.items()} == {"rtt": 2}
    report = reports.read(tmp_path)
    assert (report.participants.joined, report.participants.planned) == (1, 2)
    # Nothing says that a join succeeded here: a threshold without data is not met.
    assert (report.exit_code, locust.environment.process_exit_code) == (99, 99)
    master.begin()
    assert locust.environment.process_exit_code is None
    master.finish()


def test_a_worker_that_comes_late_is_told_and_one_that_is_told_twice_goes_on(locust: Locust) -> None:
    master, side = sides(locust)
    side.greet()
    assert locust.said == [names.HELLO]  # there is no run yet
    master.begin()
    side.greet()
    side.greet()
    assert locust.said.count(names.RUN) == 3
    assert len(BotProcess.made) == 1
    master.finish()
    with pytest.raises(OverError, match="the run is over"):
        side.join(0)
    with pytest.raises(OverError, match="the run is over"):
        side.seat()


def test_a_bot_process_that_dies_is_told_and_the_next_user_starts_another(locust: Locust) -> None:
    master, side = sides(locust)
    master.begin()
    stays = [side.join(side.seat()) for _ in range(2)]
    BotProcess.made[0].hear(progress(joined=2))
    BotProcess.made[0].die()
    assert all(stay.gone.is_set() for stay in stays)
    assert locust.requests[2:] == [("stay", None, "process_died")] * 2
    assert side.join(0).joined.get()
    assert len(BotProcess.made) == 2
    BotProcess.made[0].die()  # the one before: nothing of it counts any more
    master.finish()
    assert master.report is not None
    assert master.report.participants.lost == 2
    assert [item.what for item in master.report.moments] == ["process_died"]


def test_a_worker_that_is_not_heard_of_leaves_its_seats_to_others(locust: Locust) -> None:
    master, _ = sides(locust)
    master.begin()
    run = master._ledger
    assert run is not None
    locust.environment.runner.clients = {name: SimpleNamespace(state="running") for name in ("w0", "w1")}
    for client in ("w0", "w1", "w1"):
        locust.say(names.WANTED, {"ticket": 1}, client)
    assert len(run.seats) == 3
    locust.environment.runner.clients["w1"].state = "missing"
    locust.say(names.WANTED, {"ticket": 2}, "w0")
    assert (len(run.seats), run.busy) == (2, {"w0"})
    locust.say(names.ENDED, {}, "w0")
    master.finish()
    assert master.report is not None
    assert "Locust's worker 1 is not heard of" in master.report.moments[0].text


def test_what_a_worker_can_not_begin_ends_the_run(locust: Locust, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(BotProcess, "error", "no such token")
    master, side = sides(locust)
    master.begin()
    with pytest.raises(OverError, match="no such token"):
        side.join(side.seat())
    assert locust.environment.process_exit_code == 2
    with pytest.raises(OverError, match="no such token"):
        side.seat()
    master.finish()
    assert master.report is not None
    assert master.report.ended == "failed"


@pytest.mark.parametrize(
    ("host", "users", "keys", "text"),
    [
        ("nonsense", 1, {}, "--host: The address 'nonsense'"),
        ("https://meet.jit.si", 6, {}, "public service"),
        (HOST, 1, {"participants": -1}, "--participants"),
    ],
    ids=["address", "public", "scenario"],
)
def test_what_can_not_be_begun_is_said_before_and_nobody_gets_a_seat(
    locust: Locust, host: str, users: int, keys: dict[str, Any], text: str
) -> None:
    master, side = sides(locust, host=host, **keys)
    with pytest.raises(ConfigurationError, match=text):
        master.check(users)
    if users > 1:
        return  # known only where Locust says how many there shall be
    master.begin()
    with pytest.raises(OverError, match=text):
        side.seat()
    assert locust.requests == [("join", None, "refused")]
    assert locust.environment.process_exit_code == 2
    assert not BotProcess.made


def test_the_sixth_user_on_a_public_service_gets_no_seat(locust: Locust) -> None:
    master, side = sides(locust, host="wss://meet.jit.si")
    master.begin()
    assert [side.seat() for _ in range(5)] == list(range(5))
    with pytest.raises(OverError, match="public service"):
        side.seat()
    assert locust.environment.process_exit_code == 2
    master.finish()


def test_messages_of_another_run_and_broken_ones_change_nothing(
    locust: Locust, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level("WARNING", "bot.load.locust")
    master, _ = sides(locust)
    master.begin()
    run = master._ledger
    assert run is not None
    for data in ({"began": 1.0}, {}, None):
        locust.say(names.PROGRESS, data, "w0")
        locust.say(names.DIED, data, "w0")
        locust.say(names.FREE, data, "w0")
    locust.say(names.PROGRESS, {"began": run.run.began, "host": "x"}, "w0")
    assert "can't be read" in caplog.text
    master.finish()
    assert master.report is not None
    assert (master.report.moments, master.report.participants.joined) == ((), 0)


@pytest.mark.parametrize(("run_time", "ended"), [(None, "duration"), (60, "interrupted")])
def test_a_run_that_ends_before_its_time_was_interrupted(locust: Locust, run_time: int | None, ended: str) -> None:
    locust.environment.parsed_options.run_time = run_time
    master, _ = sides(locust)
    master.begin()
    master.finish()
    assert master.report is not None
    assert master.report.ended == ended


def test_reports_that_can_not_be_written_are_told_before(locust: Locust, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    master, _ = sides(locust, out=tmp_path / "file" / "out")
    with pytest.raises(ConfigurationError, match="--jitsi-out"):
        master.check()


def test_where_the_page_starts_runs_each_has_a_directory(locust: Locust, tmp_path: Path) -> None:
    locust.environment.web_ui = object()
    master, _ = sides(locust, out=tmp_path)
    before = master.current
    master.begin()
    now = master.current
    master.finish()
    [folder] = tmp_path.iterdir()
    assert before is None
    assert now is not None
    assert reports.read(folder).started == now.started
