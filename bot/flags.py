"""Flags of commands that are settings, too: their help is the setting's, with its twin in the environment."""

from __future__ import annotations

from typing import Any

import typer
from pydantic import BaseModel
from rich.markup import escape

from bot.settings import Settings, environment_name


def setting(field: str, *names: str) -> Any:
    """The flag ``names`` of a setting of the program."""
    return _option(Settings, field, field, names)


def job_setting(model: type[BaseModel], job: str, field: str, *names: str) -> Any:
    """The flag of a setting of a job (:func:`bot.settings.load_job`), by default of the same name."""
    return _option(model, field, f"{job}_{field}", names or (f"--{field.replace('_', '-')}",))


def _option(model: type[BaseModel], field: str, variable: str, names: tuple[str, ...]) -> Any:
    text = f"{model.model_fields[field].description} [env: {environment_name(variable)}]"
    return typer.Option(*names, help=escape(text), show_default=False)  # no markup: the brackets are to be seen
