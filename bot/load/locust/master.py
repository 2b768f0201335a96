"""The side of a load run on Locust's master, or where Locust runs in one process: seats, measures, the report."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from gevent import Greenlet, sleep, spawn

from bot import settings
from bot.errors import BotError, ConfigurationError, WrongAddressError
from bot.load.guard import refuse_public
from bot.load.locust import names
from bot.load.locust.beside import GRACE
from bot.load.locust.ledger import Ended, Ledger, Run
from bot.load.report import files
from bot.load.report.model import EXIT_FINE, Report
from bot.load.scenario import Scenario
from bot.settings import Settings
from bot.terminal import EXIT_USAGE
from bot.xmpp.address import xmpp_websocket_url

log = logging.getLogger(__name__)  # Locust's own: its options and its page show what is logged

_MISSING = "missing"  # as Locust calls the state of a worker that is not heard of
_LOCAL = "local"


@dataclass(frozen=True, slots=True)
class Wanted:
    """What the user of Locust asked for, of ours. Scenario and address are asked anew for each run."""

    scenario: Callable[[], Scenario]
    host: Callable[[], str | None]
    config: Path | None = None
    out: Path | None = None
    own: bool = False


class MasterSide:
    """Of the master. ``environment`` is Locust's."""

    def __init__(self, environment: Any, wanted: Wanted) -> None:
        self._environment = environment
        self._runner = environment.runner
        self._wanted = wanted
        self._ledger: Ledger | None = None
        self._settings: Settings | None = None
        self._problem = ""
        self._ended: Ended = "duration"
        self._code: int | None = None
        self._ticker: Greenlet[..., None] | None = None
        #: The report of the run that ended last.
        self.report: Report | None = None
        for name, listener in (
            (names.HELLO, self._greeted),
            (names.WANTED, self._seat),
            (names.FREE, self._free),
            (names.PROGRESS, self._heard),
            (names.DIED, self._died),
            (names.PROBLEM, self._troubled),
            (names.ENDED, self._left),
        ):
            self._runner.register_message(name, listener)

    def __repr__(self) -> str:
        return f"<MasterSide {self._ledger!r}>"

    # --- before and after ---

    def check(self, users: int = 0) -> tuple[Scenario, Settings]:
        """What a run would be now. Raises ConfigurationError for what can't be begun."""
        scenario = self._wanted.scenario()
        found = settings.load(self._wanted.config, ws_url=self._wanted.host())
        try:
            xmpp_websocket_url(found.ws_url, scenario.room_prefix)
        except WrongAddressError as error:
            raise ConfigurationError(f"--host: {error.message}", hint=error.hint) from error
        refuse_public(found.ws_url, users, own=self._wanted.own)
        if self._wanted.out is not None:
            files.check_writable(self._wanted.out, "--jitsi-out")
        return scenario, found

    def begin(self) -> None:
        """A run begins: tell the workers what it is."""
        self._problem, self._ended = "", "duration"
        if self._environment.process_exit_code == self._code:
            self._exit_with(None)  # that was the run before
        try:
            scenario, self._settings = self.check()
        except BotError as error:
            self._ledger = None
            self._refuse(str(error))
            return
        self._ledger = Ledger(
            Run(scenario, self._settings.ws_url, time.time()), self._settings, own=self._wanted.own
        )
        self._runner.send_message(names.RUN, self._ledger.run.to_wire())
        self._ticker = spawn(self._tick, self._ledger)

    def finish(self) -> None:
        """The run ends: let all leave, hear their last words, and write the report."""
        ledger = self._ledger
        if ledger is None or self._settings is None:
            return
        at = ledger.at(time.time())
        self._runner.send_message(names.END, {})
        until = time.monotonic() + self._settings.leave_timeout + 2 * GRACE
        while self._alive(ledger.busy) and time.monotonic() < until:
            sleep(0.05)
        if self._ticker is not None:
            self._ticker.kill()
        self._look(ledger)
        self._ledger = None
        limit = getattr(self._environment.parsed_options, "run_time", None)
        if limit and at < limit - 1 and self._ended == "duration":
            self._ended = "interrupted"
        self.report = ledger.report(time.time(), self._ended)
        if self.report.exit_code != EXIT_FINE and self._environment.process_exit_code is None:
            self._exit_with(self.report.exit_code)
        self._write(self.report)

    def _write(self, report: Report) -> None:
        """Write it to ``out``; where a web page starts runs, each to a directory of its own."""
        if self._wanted.out is None:
            return
        options = self._environment.parsed_options
        many = self._environment.web_ui is not None and not getattr(options, "autostart", False)
        out = self._wanted.out / f"{report.started:%Y%m%d-%H%M%S}" if many else self._wanted.out
        try:
            files.write(report, out)
        except OSError as error:
            log.warning("The report can't be written to %s: %s", out, error)

    @property
    def current(self) -> Report | None:
        """The report of the run until now, or of the one before."""
        return self._ledger.report(time.time()) if self._ledger is not None else self.report

    # --- while it runs ---

    def _tick(self, ledger: Ledger) -> None:
        while True:
            sleep(1.0 - time.time() % 1.0)
            self._look(ledger)
            if (reason := ledger.tick(time.time())) is not None and self._ended == "duration":
                self._ended = "threshold"
                log.error("A threshold was missed: %s", reason)
                spawn(self._end_run)

    def _look(self, ledger: Ledger) -> None:
        """See who is gone without a word, and how many there shall be."""
        ledger.expect(int(self._runner.target_user_count))
        for owner in ledger.busy - self._alive(ledger.busy):
            log.error("Worker %s is gone, and its participants with it", owner)
            ledger.gone(owner, time.time(), f"Locust's worker {self._index(owner)} is not heard of")
        if not self._alive_at_all() and self._ended == "duration":
            self._ended = "failed"

    def _alive(self, owners: set[str]) -> set[str]:
        """Those of ``owners`` that Locust hears of."""
        clients = getattr(self._runner, "clients", None)
        if clients is None:
            return owners
        return {owner for owner in owners if owner in clients and clients[owner].state != _MISSING}

    def _alive_at_all(self) -> bool:
        clients = getattr(self._runner, "clients", None)
        return clients is None or bool(self._alive(set(clients)))

    def _index(self, owner: str) -> int:
        return int(self._runner.get_worker_index(owner)) if owner != _LOCAL else 0

    def _end_run(self) -> None:
        """End the run as Locust does at its end."""
        options = self._environment.parsed_options
        if options is not None and getattr(options, "headless", False):
            self._runner.quit()
        else:
            self._runner.stop()

    def _exit_with(self, code: int | None) -> None:
        """Let Locust end with it, in the place of its own judgement."""
        self._environment.process_exit_code = self._code = code

    def _refuse(self, text: str) -> None:
        self._problem = text
        self._exit_with(EXIT_USAGE)
        log.error("Nobody can join: %s", text)

    # --- what workers say ---

    def _of_run(self, msg: Any) -> Ledger | None:
        """The book, where the message is of the run that it is of."""
        ledger = self._ledger
        return ledger if ledger is not None and (msg.data or {}).get("began") == ledger.run.began else None

    def _greeted(self, msg: Any, **_: object) -> None:
        """A worker came late, or before it could be told."""
        if self._ledger is not None:
            self._runner.send_message(names.RUN, self._ledger.run.to_wire(), msg.node_id)

    def _seat(self, msg: Any, **_: object) -> None:
        seat, text = None, self._problem or "the run is over"
        if self._ledger is not None and not self._problem:
            self._look(self._ledger)  # Locust starts the users of a worker that is gone anew: their seats are free
            try:
                seat = self._ledger.seat(msg.node_id, self._index(msg.node_id))
            except ConfigurationError as error:
                text = str(error)
                self._exit_with(EXIT_USAGE)
        answer = {"ticket": msg.data["ticket"], "seat": seat, "text": text}
        self._runner.send_message(names.SEAT, answer, msg.node_id)

    def _free(self, msg: Any, **_: object) -> None:
        if (ledger := self._of_run(msg)) is not None:
            ledger.free(msg.node_id, int(msg.data["seat"]))

    def _heard(self, msg: Any, **_: object) -> None:
        if (ledger := self._of_run(msg)) is None:
            return
        try:
            ledger.heard(msg.node_id, self._index(msg.node_id), msg.data)
        except (ValueError, KeyError) as error:
            log.warning("What worker %s has measured can't be read: %s", msg.node_id, error)

    def _died(self, msg: Any, **_: object) -> None:
        if (ledger := self._of_run(msg)) is not None:
            ledger.died(msg.node_id, self._index(msg.node_id), time.time(), str(msg.data["how"]))

    def _left(self, msg: Any, **_: object) -> None:
        if self._ledger is not None:
            self._ledger.ended(msg.node_id)

    def _troubled(self, msg: Any, **_: object) -> None:
        """A worker can't begin: nobody would know what was measured without its users."""
        if self._of_run(msg) is None or self._problem:
            return
        self._refuse(str(msg.data["text"]))
        self._ended = "failed"
        spawn(self._end_run)
