"""The side of a load run on a Locust worker: its users' participants, their events and measures. Without media."""

from __future__ import annotations

import logging
import socket
import sys
from itertools import count
from pathlib import Path
from typing import Any

from gevent import Timeout
from gevent.event import AsyncResult, Event

from bot import events, settings
from bot.errors import ConfigurationError
from bot.load.catalogue import MEASURES
from bot.load.locust import names
from bot.load.locust.beside import GRACE, BotProcess
from bot.load.locust.ledger import Host, Run
from bot.load.locust.orders import Gone, Order, Told
from bot.load.locust.wire import to_wire
from bot.load.machine import this_machine
from bot.load.measures import Measures
from bot.load.messages import Prepare, Progress, Share
from bot.settings import Settings

log = logging.getLogger(__name__)  # Locust's own: its options and its page show what is logged

#: Type of our rows in Locust's statistics.
TYPE = "JITSI"
#: How long the master may take to give a seat (seconds).
SEAT_TIMEOUT = 30.0
#: Told as events, one by one; what else is measured in seconds are rows that don't add to Locust's total.
_TOLD = frozenset({"join", "join.media", "reconnect"})


class JitsiFailure(Exception):  # noqa: N818 -- Locust's statistics show the name
    """What a participant failed of, by the code of its error."""


class OverError(Exception):
    """Nobody joins any more: the run is over, or must not begin."""


class Stay:
    """One stay of a participant. ``joined`` is whether it came into the room, ``gone`` once it is over."""

    def __init__(self) -> None:
        self.joined: AsyncResult[bool] = AsyncResult()
        self.gone = Event()

    def __repr__(self) -> str:
        return f"<Stay joined={self.joined.ready()} gone={self.gone.is_set()}>"


class WorkerSide:
    """Of one worker. ``environment`` is Locust's."""

    def __init__(self, environment: Any, config: Path | None = None) -> None:
        self._environment = environment
        self._runner = environment.runner
        self._config = config
        self._run: Run | None = None
        self._settings: Settings | None = None
        self._process: BotProcess | None = None
        self._problem = ""
        self._stays: dict[int, Stay] = {}
        self._tickets = count()
        self._asked: dict[int, AsyncResult[dict[str, Any]]] = {}
        self._host = _this_host()
        self._runner.register_message(names.RUN, self._begin)
        self._runner.register_message(names.SEAT, self._seated)
        self._runner.register_message(names.END, self._end, concurrent=True)

    def greet(self) -> None:
        """Ask the master what is run: it comes before the first seat does."""
        self._runner.send_message(names.HELLO, {})

    def __repr__(self) -> str:
        return f"<WorkerSide {len(self._stays)} present>"

    # --- the run ---

    def _begin(self, msg: Any, **_: object) -> None:
        """The master says what is run: be ready before the first user comes. It may say so twice."""
        run = Run.from_wire(msg.data)
        if self._run is not None and self._run.began == run.began:
            return
        self.end()
        self._problem, self._run = "", run
        try:
            self._settings = settings.load(self._config, ws_url=run.ws_url)
            self._start()
        except (ConfigurationError, OSError) as error:
            self._fail(str(error))

    def _start(self) -> BotProcess:
        assert self._run is not None
        assert self._settings is not None
        found = self._settings
        as_json = found.log_format == "json" or (found.log_format == "auto" and not sys.stderr.isatty())
        level = found.log_level if "log_level" in found.model_fields_set else "warning"
        share = Share(self._run.scenario, found, "none", 0, 1)
        process = self._process = BotProcess(self._hear, self._died)
        process.start(Prepare(share, level, "json" if as_json else "console"), self._run.began)
        return process

    def _fail(self, text: str) -> None:
        """What can't be begun here: the master is told, once."""
        if not self._problem:
            self._problem = text
            log.error("Nobody can join: %s", text)
            self._say(names.PROBLEM, {"text": text})

    def end(self) -> None:
        """Let all leave, and tell the master the last of what was measured."""
        process, self._process = self._process, None
        run = self._run
        if process is not None and self._settings is not None:
            process.stop(self._settings.leave_timeout)
        for stay in self._stays.values():
            _over(stay)
        self._stays.clear()
        if self._run is run:
            self._run = None

    def _end(self, **_: object) -> None:
        self.end()
        self._runner.send_message(names.ENDED, {})

    def _say(self, name: str, data: dict[str, Any]) -> None:
        began = self._run.began if self._run is not None else None
        self._runner.send_message(name, data | {"began": began})

    # --- what users do ---

    def seat(self) -> int:
        """A seat for a user, from the master. Raises OverError where there is none."""
        ticket = next(self._tickets)
        answer: AsyncResult[dict[str, Any]] = AsyncResult()
        self._asked[ticket] = answer
        try:
            self._runner.send_message(names.WANTED, {"ticket": ticket})
            found = answer.get(timeout=SEAT_TIMEOUT)
        except Timeout:
            raise OverError(f"the master gave no seat within {SEAT_TIMEOUT:g} s") from None
        finally:
            del self._asked[ticket]
        if found["seat"] is None:
            self._request("join", None, JitsiFailure("refused"))
            raise OverError(str(found["text"]))
        return int(found["seat"])

    def _seated(self, msg: Any, **_: object) -> None:
        if (answer := self._asked.get(msg.data["ticket"])) is not None:
            answer.set(msg.data)

    def free(self, seat: int) -> None:
        """The user is gone."""
        self._say(names.FREE, {"seat": seat})

    def join(self, seat: int) -> Stay:
        """Let the participant of ``seat`` join; how it goes is in the stay. Raises OverError."""
        process = self._running()
        if error := process.wait_ready():
            if process is self._process:
                self._fail(error)
            raise OverError(error)
        stay = self._stays[seat] = Stay()
        process.send(Order(seat, "join"))
        return stay

    def _running(self) -> BotProcess:
        if self._run is None or self._problem:
            raise OverError(self._problem or "the run is over")
        try:
            return self._process or self._start()
        except OSError as error:
            self._fail(f"the bot process can't be started: {error}")
            raise OverError(self._problem) from error

    def leave(self, seat: int) -> None:
        """Let the participant of ``seat`` leave, and wait until it has."""
        stay = self._stays.get(seat)
        if stay is None or self._process is None or self._settings is None:
            return
        self._process.send(Order(seat, "leave"))
        stay.gone.wait(timeout=self._settings.leave_timeout + GRACE)

    # --- what the bot process says ---

    def _hear(self, message: object) -> None:
        match message:
            case Told():
                self._told(message.seat, message.event)
            case Gone():
                if (stay := self._stays.pop(message.seat, None)) is not None:
                    _over(stay)
            case Progress():
                self._rows(message.measures)
                self._say(names.PROGRESS, to_wire(message) | {"host": self._host.model_dump()})
            case _:
                log.error("The bot process said what nobody understands: %r", type(message))

    def _told(self, seat: int, event: events.Event) -> None:
        stay = self._stays.get(seat)
        match event:
            case events.ConferenceJoined():
                self._request("join", event.seconds)
                if stay is not None and not stay.joined.ready():
                    stay.joined.set(True)
            case events.JoinFailed():
                self._request("join", event.seconds, JitsiFailure(event.code))
            case events.MediaConnected():
                self._request("join.media", event.seconds)
            case events.MediaFailed():
                self._request("join.media", None, JitsiFailure(event.code))
            case events.RemovedFromRoom():
                self._request("stay", None, JitsiFailure(event.code))
            case events.ConnectionRecovered() | events.MediaRecovered():
                self._request("reconnect", event.seconds)
            case _:
                pass

    def _request(self, name: str, seconds: float | None, failure: Exception | None = None) -> None:
        """One row of Locust's statistics more, and of whoever listens to its requests."""
        self._environment.events.request.fire(
            request_type=TYPE,
            name=name,
            response_time=None if seconds is None else seconds * 1000,
            response_length=0,
            exception=failure,
            context={},
        )

    def _rows(self, measures: Measures) -> None:
        """What is measured all the time: in rows of their own, for the total counts what users did."""
        for name, values in measures.values.items():
            if name in _TOLD or name.startswith("client.") or MEASURES[name].unit != "s":
                continue
            entry = self._environment.stats.get(name, TYPE)
            for value, number in values.buckets():
                for _ in range(number):
                    entry.log(value * 1000, 0)

    def _died(self, process: BotProcess, how: str) -> None:
        """The bot process is gone, and its participants with it; who joins next starts another one."""
        if process is not self._process:
            return
        self._process = None
        log.error("The bot process died (%s), and its participants with it", how)
        for stay in self._stays.values():
            self._request("stay", None, JitsiFailure("process_died"))
            _over(stay)
        self._stays.clear()
        self._say(names.DIED, {"how": how})


def _over(stay: Stay) -> None:
    if not stay.joined.ready():
        stay.joined.set(False)
    stay.gone.set()


def _this_host() -> Host:
    machine = this_machine(1)
    return Host(
        name=socket.gethostname()[:200], cores=machine.cores, system=machine.system[:200], python=machine.python
    )
