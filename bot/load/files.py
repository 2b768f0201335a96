"""Reads scenarios: shipped profiles and TOML files, with flags before them, and errors that name the line."""

from __future__ import annotations

import re
import tomllib
from collections.abc import Iterator, Mapping
from importlib import resources
from importlib.resources.abc import Traversable
from pathlib import Path
from typing import Any

from pydantic import ValidationError
from pydantic_core import ErrorDetails

from bot.errors import ConfigurationError
from bot.load.catalogue import nearest
from bot.load.scenario import Scenario, nearest_key

_SUFFIX = ".toml"
_TABLE = re.compile(r"\s*(\[\[?)\s*([^\[\]]+?)\s*\]\]?\s*(?:#.*)?")
_KEY = re.compile(r"""\s*([\w."'-]+(?:\s*\.\s*[\w"'-]+)*)\s*=""")
Place = tuple[int | str, ...]


def profiles() -> dict[str, Scenario]:
    """The shipped scenarios by name."""
    return {name: _read(text, name, {}) for name, text in sorted(_shipped())}


def _shipped() -> Iterator[tuple[str, str]]:
    for item in _directory().iterdir():
        if item.name.endswith(_SUFFIX):
            yield item.name.removesuffix(_SUFFIX), item.read_text(encoding="utf-8")


def _directory() -> Traversable:
    return resources.files("bot.load").joinpath("profiles")


def load(source: str | None = None, **flags: Any) -> Scenario:
    """The scenario of a profile or a TOML file, or the default one; flags (None = not given) go before it.

    Raises ConfigurationError, which names the key or the flag, and where in the file it stands.
    """
    given = {key: value for key, value in flags.items() if value is not None}
    if source is None:
        return _read("", "", given)
    shipped = dict(_shipped())
    if source in shipped:
        return _read(shipped[source], source, given)
    return _read(_text(Path(source), shipped), source, given)


def _text(path: Path, shipped: Mapping[str, Any]) -> str:
    try:
        return path.read_text(encoding="utf-8")
    except FileNotFoundError:
        raise ConfigurationError(
            f"{path} is neither a file nor a profile{nearest(str(path), shipped)}", hint="jitsi-bot load --list"
        ) from None
    except OSError as error:
        raise ConfigurationError(f"cannot read {path}: {error.strerror}") from error
    except UnicodeDecodeError as error:
        raise ConfigurationError(f"{path} is not valid TOML: {error}") from error


def _read(text: str, name: str, flags: Mapping[str, Any]) -> Scenario:
    try:
        values = tomllib.loads(text)
    except tomllib.TOMLDecodeError as error:
        raise ConfigurationError(f"{name} is not valid TOML: {error}") from error
    values.setdefault("name", Path(name).stem)
    try:
        return Scenario.model_validate(_with(values, flags))
    except ValidationError as error:
        problems = sorted(error.errors(), key=lambda item: line_of(text, tuple(item["loc"])) or 0)
        lines = [_explain(item, text, name, flags) for item in problems]
        raise ConfigurationError("; ".join(dict.fromkeys(lines))) from error


def _with(values: Mapping[str, Any], flags: Mapping[str, Any]) -> dict[str, Any]:
    """``flags`` before ``values``; a flag named ``ramp_up`` is the key ``up`` of the table ``ramp``."""
    found = {**values}
    if isinstance(ramp := found.get("ramp", {}), Mapping):  # anything else is for the model to refuse
        found["ramp"] = {
            **ramp,
            **{key: value for flag, value in flags.items() for table, key in [_key_of(flag)] if table},
        }
        _drop_pace(found, flags)
    found.update({flag: value for flag, value in flags.items() if not _key_of(flag)[0]})
    return found


def _drop_pace(values: dict[str, Any], flags: Mapping[str, Any]) -> None:
    """Leave out what else of the file says how fast they come, where a flag says it: it has three names.

    Of steps, how fast those of a step come and when the last step begins are two things.
    """
    pace, up = {"join_delay", "join_rate"}, {"ramp_up"}
    same = [pace, up] if values["ramp"].get("shape") == "steps" else [pace | up]
    gone = {name for names in same if names & flags.keys() for name in names - flags.keys()}
    for name in gone:
        table, key = _key_of(name)
        (values[table] if table else values).pop(key, None)


def _key_of(flag: str) -> tuple[str, str]:
    return ("ramp", flag.removeprefix("ramp_")) if flag.startswith("ramp_") else ("", flag)


def _explain(error: ErrorDetails, text: str, name: str, flags: Mapping[str, Any]) -> str:
    place: Place = tuple(error["loc"])
    said = error["msg"].removeprefix("Value error, ")
    if error["type"] == "extra_forbidden":
        said = f"unknown key{nearest_key(str(place[-1]), place[:-1])}"
    flag = _flag_of(place, flags)
    if flag:
        return f"{option(flag)}: {said}"
    where = f"{name}, line {line}" if (line := line_of(text, place)) else name
    key = _dotted(place)
    return ": ".join(part for part in (where, key, said) if part)


def _flag_of(place: Place, flags: Mapping[str, Any]) -> str:
    for flag in flags:
        if place[: 2 if flag.startswith("ramp_") else 1] == tuple(filter(None, _key_of(flag))):
            return flag
    return ""


def option(flag: str) -> str:
    """How a flag is written on the command line."""
    return "--threshold" if flag == "thresholds" else f"--{flag.replace('_', '-')}"


def _dotted(place: Place) -> str:
    """``groups[2].shaping.loss``, counted from 1 as people do."""
    text = ""
    for part in place:
        text += f"[{part + 1}]" if isinstance(part, int) else f".{part}"
    return text.removeprefix(".")


def line_of(text: str, place: Place) -> int | None:
    """The line (from 1) where the value at ``place`` stands, or the table that it belongs to; None for the file.

    tomllib keeps no places. Keys are looked for line by line, which finds all that stand on lines of their own; of
    values inside inline tables and arrays it is the line of these.
    """
    found: dict[Place, int] = {}
    for number, where in _places(text):
        for end in range(1, len(where) + 1):
            found.setdefault(where[:end], number)
    for end in range(len(place), 0, -1):
        if place[:end] in found:
            return found[place[:end]]
    return None


def _places(text: str) -> Iterator[tuple[int, Place]]:
    """Each line that begins a table or a key, with its place."""
    table: Place = ()
    seen: dict[Place, int] = {}
    for number, line in enumerate(text.splitlines(), 1):
        if header := _TABLE.fullmatch(line):
            table = _table(header[1], _names(header[2]), seen)
            yield number, table
        elif key := _KEY.match(line):
            yield number, (*table, *_names(key[1]))


def _table(brackets: str, names: Place, seen: dict[Place, int]) -> Place:
    """The place of a table: tables inside an array of tables belong to its last one."""
    found: Place = ()
    for depth, name in enumerate(names):
        found = (*found, name)
        if brackets == "[[" and depth == len(names) - 1:
            seen[found] = seen.get(found, -1) + 1
        if found in seen:
            found = (*found, seen[found])
    return found


def _names(dotted: str) -> Place:
    return tuple(part.strip().strip("\"'") for part in dotted.split("."))
