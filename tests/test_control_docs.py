"""docs/api.md names every operation and setting, with what the program says of them."""

from pathlib import Path

from bot.control.openapi import PREFIX
from bot.control.options import JOB, ApiSettings
from bot.control.server import OPERATIONS
from bot.settings import environment_name

PAGE = Path(__file__).parents[1] / "docs" / "api.md"


def rows() -> list[str]:
    operations = [
        f"| `{item.method.upper()} {PREFIX}{item.path}` | {item.scope} | {item.summary} |" for item in OPERATIONS
    ]
    return [*operations, *map(setting, ApiSettings.model_fields)]


def setting(name: str) -> str:
    field = ApiSettings.model_fields[name]
    default = "" if field.default in {None, ()} else f"`{field.default}`"
    return f"| `{name}` | `{environment_name(f'{JOB}_{name}')}` | {default} | {field.description} |"


def test_every_operation_and_setting_is_described() -> None:
    assert [line for line in PAGE.read_text().splitlines() if line.startswith("| `")] == rows()
