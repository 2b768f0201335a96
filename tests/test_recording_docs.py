"""docs/record.md names every option of a recording, with what the program says of it."""

import re
from pathlib import Path

from bot.recording.options import JOB, RecordOptions
from bot.settings import environment_name

PAGE = Path(__file__).parents[1] / "docs" / "record.md"
#: Only in the TOML file.
LISTS = {"rooms"}


def setting(name: str) -> str:
    field = RecordOptions.model_fields[name]
    variable = "only in the TOML file" if name in LISTS else f"`{environment_name(f'{JOB}_{name}')}`"
    default = "" if field.default in (None, (), "") else f"`{field.default}`"
    return f"| `{name}` | {variable} | {default} | {field.description} |"


def test_every_option_is_described() -> None:
    rows = [line for line in PAGE.read_text().splitlines() if re.match(r"\| `[a-z_0-9]+` \| ", line)]
    assert rows == list(map(setting, RecordOptions.model_fields))
