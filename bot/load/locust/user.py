"""``JitsiUser``: a user of Locust that is a participant. For locustfiles; whoever imports it has gevent's patches.

The participant is in a bot process beside the worker: gevent never shares a process with media.
"""

from __future__ import annotations

import sys
from functools import partial
from pathlib import Path
from typing import Any, ClassVar

from locust import User, constant, events, task
from locust.argument_parser import LocustArgumentParser
from locust.exception import StopUser
from locust.runners import LocalRunner, MasterRunner, WorkerRunner
from locust.user.task import LOCUST_STATE_STOPPING

from bot.errors import BotError
from bot.load import files
from bot.load.locust.master import MasterSide, Wanted
from bot.load.locust.worker import OverError, Stay, WorkerSide
from bot.load.report import page, texts
from bot.load.scenario import Scenario
from bot.terminal import EXIT_USAGE

_workers: dict[int, WorkerSide] = {}


class JitsiUser(User):
    """A participant of a conference of the scenario: it joins when Locust starts it, and leaves when it stops it.

    Override ``meet`` for another life than to stay. One who can't join, or is sent away, comes again after
    ``wait_time``. ``scenario`` is a file or a profile, ``changes`` its keys that are different; the option
    ``--jitsi-scenario`` goes before it. What it says of when to come and go is left to Locust.
    """

    abstract = True
    wait_time = constant(10)
    scenario: ClassVar[str | None] = None
    changes: ClassVar[dict[str, Any]] = {}

    def __init__(self, environment: Any) -> None:
        super().__init__(environment)
        self._side = _workers[id(environment)]
        self._seat: int | None = None
        self._stay: Stay | None = None

    @task
    def _live(self) -> None:
        self.meet()

    def meet(self) -> None:
        """Join, and stay until Locust stops this user, or the stay is ended by others."""
        if self.join():
            self.stay()
            self.leave()

    def join(self) -> bool:
        """Join; whether it came into the room. Failures are in Locust's statistics. Raises StopUser at the end."""
        try:
            if self._seat is None:
                self._seat = self._side.seat()
            self._stay = self._side.join(self._seat)
        except OverError as error:
            raise StopUser(str(error)) from error
        return bool(self._stay.joined.get())

    def stay(self, seconds: float | None = None) -> bool:
        """Stay for so long, or until Locust stops this user; whether it is still there."""
        waited = 0.0
        while self._stay is not None and self._state != LOCUST_STATE_STOPPING:
            step = 1.0 if seconds is None else min(1.0, seconds - waited)
            if step <= 0 or self._stay.gone.wait(timeout=step):
                break
            waited += step
        return self._stay is not None and not self._stay.gone.is_set()

    def leave(self) -> None:
        """Leave, and wait until it is done."""
        if self._seat is not None:
            self._side.leave(self._seat)
        self._stay = None

    def on_stop(self) -> None:
        """Leave, and let others have the seat."""
        self.leave()
        if self._seat is not None:
            self._side.free(self._seat)
            self._seat = None


def _add_options(parser: LocustArgumentParser, **_: object) -> None:
    parser.add_argument(
        "--jitsi-scenario",
        metavar="FILE|PROFILE",
        env_var="LOCUST_JITSI_SCENARIO",
        default="",
        help="What the meetings are like, as of 'jitsi-bot load'; only the master reads it",
    )
    parser.add_argument(
        "--jitsi-config",
        metavar="FILE",
        env_var="JITSI_CONFIG",
        default="",
        include_in_web_ui=False,
        help="TOML file of the settings, on each machine",
    )
    parser.add_argument(
        "--jitsi-out",
        metavar="DIR",
        env_var="LOCUST_JITSI_OUT",
        default="",
        include_in_web_ui=False,
        help="Directory for report.json, report.html, junit.xml and summary.md",
    )
    parser.add_argument(
        "--i-own-this-server",
        action="store_true",
        include_in_web_ui=False,
        help="Allow more than 5 participants on a public service",
    )


def _init(environment: Any, runner: Any, web_ui: Any = None, **_: object) -> None:
    options = environment.parsed_options
    config = Path(options.jitsi_config) if options.jitsi_config else None
    if isinstance(runner, WorkerRunner | LocalRunner):
        _add_worker(environment, WorkerSide(environment, config))
    if isinstance(runner, MasterRunner | LocalRunner):
        out = Path(options.jitsi_out) if options.jitsi_out else None
        scenario, host = partial(_scenario, environment), partial(_host, environment)
        wanted = Wanted(scenario, host, config, out, options.i_own_this_server)
        _add_master(environment, MasterSide(environment, wanted), web_ui)


def _add_worker(environment: Any, side: WorkerSide) -> None:
    _workers[id(environment)] = side
    if isinstance(environment.runner, WorkerRunner):
        side.greet()
    environment.events.test_stop.add_listener(lambda **_: side.end())
    # Before Locust tells the master that this worker quits: nothing of ours would be heard then.
    environment.events.quitting.add_listener(lambda **_: side.end())


def _add_master(environment: Any, side: MasterSide, web_ui: Any) -> None:
    options = environment.parsed_options
    try:
        if options.headless:
            side.check(0 if environment.shape_class else options.num_users or 0)
    except BotError as error:
        sys.stderr.write(f"{error}\n")
        sys.exit(EXIT_USAGE)
    environment.events.test_start.add_listener(lambda **_: side.begin())
    environment.events.test_stop.add_listener(lambda **_: side.finish())
    environment.events.quit.add_listener(lambda **_: _summarize(options, side))
    if web_ui is not None:
        _add_pages(web_ui, side)


def _scenario(environment: Any) -> Scenario:
    """The scenario of the option, else that of the first user class that has one."""
    named = next((item for item in _classes(environment) if item.scenario or item.changes), None)
    source = environment.parsed_options.jitsi_scenario or (named.scenario if named else None)
    return files.load(source, **(named.changes if named else {}))


def _host(environment: Any) -> str | None:
    """The address of the option or the page, else that of a user class, else (None) of the settings."""
    return environment.host or next((item.host for item in _classes(environment) if item.host), None)


def _classes(environment: Any) -> list[type[JitsiUser]]:
    return [item for item in environment.user_classes if issubclass(item, JitsiUser)]


def _summarize(options: Any, side: MasterSide) -> None:
    if side.report is not None and not options.json:
        sys.stdout.write(texts.markdown(side.report).rstrip() + "\n")
        sys.stdout.flush()


def _add_pages(web_ui: Any, side: MasterSide) -> None:
    """The report until now, beside Locust's pages."""

    @web_ui.app.route("/jitsi/report.html")  # type: ignore[untyped-decorator]
    @web_ui.auth_required_if_enabled  # type: ignore[untyped-decorator]
    def report_page() -> Any:
        report = side.current
        return page.render(report) if report is not None else ("There was no run yet", 404)

    @web_ui.app.route("/jitsi/report.json")  # type: ignore[untyped-decorator]
    @web_ui.auth_required_if_enabled  # type: ignore[untyped-decorator]
    def report_json() -> Any:
        report = side.current
        return report.model_dump_json() if report is not None else ("There was no run yet", 404)


events.init_command_line_parser.add_listener(_add_options)  # type: ignore[no-untyped-call]
events.init.add_listener(_init)  # type: ignore[no-untyped-call]
