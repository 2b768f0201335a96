"""``jitsi-bot load``: reads the scenario, plans it, and says what it needs, or runs it."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.markup import escape

from bot import settings
from bot.errors import BotError, ConfigurationError, WrongAddressError
from bot.load import dryrun, files
from bot.load.costs import read_costs
from bot.load.guard import refuse_public
from bot.load.launch import How, start, start_search
from bot.load.machine import this_machine
from bot.load.plan import Plan, make_plan
from bot.load.report import texts
from bot.load.scenario import Ramp, Scenario
from bot.settings import Settings
from bot.terminal import EXIT_USAGE, fail
from bot.xmpp.address import xmpp_websocket_url


def _flag(key: str) -> Any:
    """A flag of the same name as the scenario's key, with its description."""
    table, _, name = key.rpartition(".")
    description = (Ramp if table else Scenario).model_fields[name].description
    option = files.option(key.replace(".", "_"))
    both = f"{option}/--no-{option.removeprefix('--')}"
    names = both if key in {"simulcast", "abort_on_fail"} else option
    return typer.Option(names, help=escape(str(description)), show_default=False)


Words = Annotated[
    list[str] | None,
    typer.Argument(
        metavar="[capacity] [FILE|PROFILE]",
        help="A TOML file, or a shipped profile; the word capacity before it is the same as --capacity",
    ),
]
CAPACITY = "capacity"


def load(
    words: Words = None,
    profile: Annotated[str | None, typer.Option("--profile", help="The same as PROFILE")] = None,
    conferences: Annotated[int | None, _flag("conferences")] = None,
    participants: Annotated[int | None, _flag("participants")] = None,
    senders: Annotated[int | None, _flag("senders")] = None,
    audio_senders: Annotated[int | None, _flag("audio_senders")] = None,
    simulcast: Annotated[bool | None, _flag("simulcast")] = None,
    codec: Annotated[str | None, _flag("codec")] = None,
    height: Annotated[int | None, _flag("height")] = None,
    layout: Annotated[str | None, _flag("layout")] = None,
    last_n: Annotated[int | None, _flag("last_n")] = None,
    receive_height: Annotated[int | None, _flag("receive_height")] = None,
    switch_speakers: Annotated[str | None, _flag("switch_speakers")] = None,
    duration: Annotated[str | None, _flag("duration")] = None,
    join_delay: Annotated[str | None, _flag("join_delay")] = None,
    join_rate: Annotated[float | None, _flag("join_rate")] = None,
    join_order: Annotated[str | None, _flag("join_order")] = None,
    ramp_shape: Annotated[str | None, _flag("ramp.shape")] = None,
    ramp_up: Annotated[str | None, _flag("ramp.up")] = None,
    ramp_down: Annotated[str | None, _flag("ramp.down")] = None,
    ramp_steps: Annotated[int | None, _flag("ramp.steps")] = None,
    warm_up: Annotated[str | None, _flag("warm_up")] = None,
    tokens: Annotated[str | None, _flag("tokens")] = None,
    region: Annotated[str | None, _flag("region")] = None,
    room_prefix: Annotated[str | None, _flag("room_prefix")] = None,
    seed: Annotated[int | None, _flag("seed")] = None,
    threshold: Annotated[list[str] | None, _flag("thresholds")] = None,
    abort_on_fail: Annotated[bool | None, _flag("abort_on_fail")] = None,
    config: Annotated[Path | None, typer.Option("--config", "-c", help="TOML file of the settings")] = None,
    url: Annotated[str | None, typer.Option("--url", help="Address of the server's XMPP WebSocket")] = None,
    processes: Annotated[
        str | None, typer.Option(help="Processes that share the participants [default: auto]")
    ] = None,
    own: Annotated[
        bool, typer.Option("--i-own-this-server", help="Allow more than 5 participants on a public service")
    ] = False,
    embedded: Annotated[
        bool, typer.Option("--embedded", help="Start an embedded Jitsi on loopback and load that: for a first try")
    ] = False,
    out: Annotated[
        Path | None, typer.Option("--out", help="Directory for report.json, report.html, junit.xml and summary.md")
    ] = None,
    http_port: Annotated[int | None, typer.Option(help="Port of /metrics while it runs; 0 = any free one")] = None,
    capacity: Annotated[
        bool,
        typer.Option(
            "--capacity",
            help="Look for the largest part of the scenario that meets its thresholds: of its conferences, or of "
            "the participants of its only one; each size is a run of its own",
        ),
    ] = False,
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Print the plan and whether this machine carries it")
    ] = False,
    as_json: Annotated[bool, typer.Option("--json", help="The plan of --dry-run as JSON")] = False,
    listing: Annotated[bool, typer.Option("--list", help="Print the shipped profiles")] = False,
) -> None:
    """Load a server with participants, as a scenario says; flags go before the file.

    Exit code 0 fine, 2 usage or a machine that can't carry it, 3 nobody could join, 99 thresholds missed.
    """
    given = {key: value for key, value in locals().items() if key in _KEYS}
    if listing:
        _list()
        return
    if embedded and url:
        fail(ConfigurationError("--embedded and --url exclude each other", hint="one server at a time"))
    flags = {**given, "thresholds": tuple(threshold) if threshold else None}
    try:
        searches, source = _told(words or [])
        scenario = files.load(_one(source, profile), **flags)
        found = settings.load(config, ws_url=url, processes=processes or "auto", http_port=http_port)
        plan = plan_of(scenario, found)
        if dry_run:
            _print_plan(plan, as_json=as_json)
            return
        how = How(embedded=embedded, out=out)
        if not embedded:
            _check_server(found, scenario, own=own)
        if capacity or searches:
            if not scenario.thresholds:
                raise ConfigurationError("capacity needs a threshold to break", hint="--threshold 'loss < 1%'")
            text, code = start_search(plan, found, how, plan_of)
        else:
            report = start(plan, found, how)
            text, code = texts.markdown(report), report.exit_code
    except BotError as error:
        fail(error)
    sys.stdout.write(text.rstrip() + "\n")
    raise typer.Exit(code)


_KEYS = frozenset({*Scenario.model_fields, *(f"ramp_{key}" for key in Ramp.model_fields)})


def _print_plan(plan: Plan, *, as_json: bool) -> None:
    text = json.dumps(dryrun.as_json(plan), indent=2) + "\n" if as_json else dryrun.as_text(plan)
    sys.stdout.write(text)
    if not plan.fits:
        raise typer.Exit(EXIT_USAGE)


def _check_server(found: Settings, scenario: Scenario, *, own: bool) -> None:
    """Refuse what can't be Jitsi's address, and too many on a service that is everybody's."""
    try:
        xmpp_websocket_url(found.ws_url, scenario.room_prefix)
    except WrongAddressError as error:
        raise ConfigurationError(f"ws_url: {error.message}", hint=error.hint) from error
    refuse_public(found.ws_url, scenario.total, own=own)


def _told(words: list[str]) -> tuple[bool, str | None]:
    """Whether the capacity is looked for, and the scenario's file or profile. Raises ConfigurationError."""
    searches = words[:1] == [CAPACITY]
    rest = words[searches:]
    if len(rest) > 1:
        raise ConfigurationError(f"{rest[0]} and {rest[1]} exclude each other", hint="one scenario at a time")
    return searches, rest[0] if rest else None


def _one(source: str | None, profile: str | None) -> str | None:
    if source and profile:
        raise ConfigurationError(
            f"{source} and --profile {profile} exclude each other", hint="one scenario at a time"
        )
    if profile and profile not in files.profiles():
        raise ConfigurationError(f"there is no profile {profile!r}", hint="jitsi-bot load --list")
    return source or profile


def _list() -> None:
    for name, scenario in files.profiles().items():
        sys.stdout.write(f"{name:<18} {scenario.description}\n")


def plan_of(scenario: Scenario, found: Settings) -> Plan:
    """The plan for this machine, with the settings' processes and addresses."""
    costs, costs_from = read_costs()
    machine = this_machine(len(found.ice_addresses) or None)
    return make_plan(scenario, machine, costs, processes=found.processes, costs_from=costs_from)
