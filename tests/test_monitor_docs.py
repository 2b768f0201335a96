"""docs/probe.md names every stage, measure and setting, with what the program says of them."""

import re
from pathlib import Path

from bot.monitor.diagnosis import HINTS
from bot.monitor.model import Stage
from bot.monitor.settings import JOB, ProbeSettings
from bot.monitor.thresholds import DEFAULTS, MEASURES
from bot.settings import environment_name

PAGE = Path(__file__).parents[1] / "docs" / "probe.md"
UNITS = {"s": "seconds", "": "share", "d": "days"}


def rows() -> list[str]:
    limits = {text.split()[0]: text for text in DEFAULTS}
    stages = [f"| `{stage.value}` | {HINTS[stage]} |" for stage in Stage if stage is not Stage.NONE]
    measures = [
        f"| `{item.name}` | {UNITS[item.unit]} | {item.text} | {f'`{limits[name]}`' if name in limits else ''} |"
        for name, item in MEASURES.items()
    ]
    return [*stages, *measures, *map(setting, ProbeSettings.model_fields)]


def setting(name: str) -> str:
    field = ProbeSettings.model_fields[name]
    default = "" if field.default in (None, ()) else f"`{field.default}`"
    return f"| `{name}` | `{environment_name(f'{JOB}_{name}')}` | {default} | {field.description} |"


def test_every_stage_measure_and_setting_is_described() -> None:
    assert [line for line in PAGE.read_text().splitlines() if re.match(r"\| `[a-z_]+` \| ", line)] == rows()
