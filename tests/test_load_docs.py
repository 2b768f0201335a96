"""docs/load.md names every key of a scenario and every measure, with what the program says of them."""

from pathlib import Path
from typing import Any, get_args

from pydantic import BaseModel
from pydantic.fields import FieldInfo

from bot.load.catalogue import MEASURES
from bot.load.scenario import Churn, Group, Ramp, Scenario
from bot.load.shaping import Shaping

PAGE = Path(__file__).parents[1] / "docs" / "load.md"
TABLES: dict[str, type[BaseModel]] = {
    "": Scenario,
    "ramp": Ramp,
    "churn": Churn,
    "shaping": Shaping,
    "groups": Group,
}


def key_rows() -> list[str]:
    return [
        f"| `{prefix + '.' if prefix else ''}{name}` | {default(field)} | {described(field)} |"
        for prefix, model in TABLES.items()
        for name, field in model.model_fields.items()
    ]


def default(field: FieldInfo) -> str:
    value: Any = field.get_default()
    if field.is_required() or value in (None, (), "") or isinstance(value, BaseModel):
        return ""
    if field.default_factory is not None:
        return ""
    return f"`{str(value).lower()}`" if isinstance(value, bool) else f"`{value}`"


def described(field: FieldInfo) -> str:
    assert field.description
    words = [
        item for item in get_args(field.annotation) if isinstance(item, str) and item not in field.description
    ]
    choice = f" ({', '.join(f'`{word}`' for word in words)})" if words else ""
    return field.description + choice


def measure_rows() -> list[str]:
    return [f"| `{item.name}` | {item.kind} | {item.unit} | {item.text} |" for item in MEASURES.values()]


def test_every_key_is_described() -> None:
    assert [line for line in PAGE.read_text().splitlines() if line.startswith("| `")] == [
        *key_rows(),
        *measure_rows(),
    ]


def test_the_commands_are_those_there_are() -> None:
    for command in ("load --list", "report show", "report compare", "report schema"):
        assert f"jitsi-bot {command}" in PAGE.read_text()
