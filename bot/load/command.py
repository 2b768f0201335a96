"""``jitsi-bot load``: reads the scenario, plans it, and says what it needs."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.markup import escape

from bot import settings
from bot.errors import BotError, ConfigurationError
from bot.load import dryrun, files
from bot.load.costs import read_costs
from bot.load.guard import refuse_public
from bot.load.machine import this_machine
from bot.load.plan import Plan, make_plan
from bot.load.scenario import Ramp, Scenario
from bot.settings import Settings
from bot.terminal import EXIT_USAGE, fail


def _flag(key: str) -> Any:
    """A flag of the same name as the scenario's key, with its description."""
    table, _, name = key.rpartition(".")
    description = (Ramp if table else Scenario).model_fields[name].description
    option = files.option(key.replace(".", "_"))
    both = f"{option}/--no-{option.removeprefix('--')}"
    names = both if key in {"simulcast", "abort_on_fail"} else option
    return typer.Option(names, help=escape(str(description)), show_default=False)


Source = Annotated[str | None, typer.Argument(metavar="FILE|PROFILE", help="A TOML file, or a shipped profile")]


def load(
    source: Source = None,
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
    try:
        _load(
            _one(source, profile),
            {**given, "thresholds": tuple(threshold) if threshold else None},
            config=config,
            url=url,
            processes=processes,
            own=own,
            output=_output(dry_run, as_json),
        )
    except BotError as error:
        fail(error)


_KEYS = frozenset({*Scenario.model_fields, *(f"ramp_{key}" for key in Ramp.model_fields)})
Output = Callable[[Plan], str] | None


def _output(dry_run: bool, as_json: bool) -> Output:
    if not dry_run:
        return None
    return (lambda plan: json.dumps(dryrun.as_json(plan), indent=2) + "\n") if as_json else dryrun.as_text


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


def _load(
    source: str | None,
    flags: dict[str, Any],
    *,
    config: Path | None,
    url: str | None,
    processes: str | None,
    own: bool,
    output: Output,
) -> None:
    scenario = files.load(source, **flags)
    found = settings.load(config, ws_url=url, processes=processes or "auto")
    plan = plan_of(scenario, found)
    if output is None:
        refuse_public(found.ws_url, scenario.total, own=own)
        raise ConfigurationError("running is not supported yet", hint="--dry-run prints the plan")
    sys.stdout.write(output(plan))
    if not plan.fits:
        raise typer.Exit(EXIT_USAGE)


def plan_of(scenario: Scenario, found: Settings) -> Plan:
    """The plan for this machine, with the settings' processes and addresses."""
    costs, costs_from = read_costs()
    machine = this_machine(len(found.ice_addresses) or None)
    return make_plan(scenario, machine, costs, processes=found.processes, costs_from=costs_from)
