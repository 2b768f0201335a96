"""The report as one page that needs nothing else: no network, no scripts; light and dark, phone and desktop."""

from __future__ import annotations

from functools import cache
from importlib import resources

from jinja2 import Environment, StrictUndefined, Template

from bot.load.report import view
from bot.load.report.model import Report

#: Sizes of a chart in CSS pixels: two columns of a desktop page, and a phone.
WIDE, NARROW = (590, 220), (340, 200)


@cache
def _template() -> Template:
    text = resources.files("bot.load.report").joinpath("page.html.j2").read_text(encoding="utf-8")
    return Environment(
        autoescape=True, undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True
    ).from_string(text)


def render(report: Report) -> str:
    """The page."""
    return _template().render(report=report, view=view, wide=WIDE, narrow=NARROW)
