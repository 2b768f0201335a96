"""structlog: JSON lines when not on a terminal, readable ones on it; secrets never."""

from __future__ import annotations

import io
import logging
import re
import sys
from collections.abc import MutableMapping
from typing import Any, Literal, TextIO

import structlog

from bot.events import Event

LogFormat = Literal["auto", "json", "console"]

_TOKEN = re.compile(r"((?:[?&]|\b)(?:token|pwd|password)=)[^&\s\"']+", re.IGNORECASE)


def mask(text: str) -> str:
    """Hide tokens and passwords in URLs."""
    return _TOKEN.sub(r"\1***", text)


def _mask_secrets(_: Any, __: str, entry: MutableMapping[str, Any]) -> MutableMapping[str, Any]:
    for key, value in entry.items():
        if isinstance(value, str) and "=" in value:
            entry[key] = mask(value)
    return entry


def _round_floats(_: Any, __: str, entry: MutableMapping[str, Any]) -> MutableMapping[str, Any]:
    for key, value in entry.items():
        if isinstance(value, float):
            entry[key] = round(value, 4)
        elif isinstance(value, dict):
            entry[key] = {k: round(v, 4) if isinstance(v, float) else v for k, v in value.items()}
    return entry


class _CurrentStderr(io.StringIO):
    """Whatever ``sys.stderr`` is when a line is written: a live view takes it over for a while."""

    def write(self, text: str) -> int:
        return sys.stderr.write(text)

    def flush(self) -> None:
        sys.stderr.flush()

    def isatty(self) -> bool:
        return sys.stderr.isatty()


def _for_people(_: Any, __: str, entry: MutableMapping[str, Any]) -> MutableMapping[str, Any]:
    """Leave out what a reader of a terminal knows from the message, or that says nothing; JSON lines have all."""
    for key, nothing in (
        ("event_name", entry.get("event_name")),
        ("attempt", 1),
        ("seconds", 0.0),
        ("phases", {}),
    ):
        if key in entry and entry[key] == nothing:
            del entry[key]
    phases = entry.pop("phases", None)
    if phases:
        entry["phases"] = " ".join(f"{name} {seconds:.3f}" for name, seconds in phases.items())
    return entry


def configure(level: str = "info", form: LogFormat = "auto", stream: TextIO | None = None) -> None:
    """Set up structlog for the process: ``level`` and up to ``stream`` (stderr), as JSON or for people."""
    out = stream or _CurrentStderr()
    as_json = form == "json" or (form == "auto" and not out.isatty())
    renderer: structlog.typing.Processor = (
        structlog.processors.JSONRenderer(default=str)
        if as_json
        else structlog.dev.ConsoleRenderer(colors=out.isatty(), sort_keys=False, pad_event_to=28)
    )
    time = structlog.processors.TimeStamper(fmt="iso" if as_json else "%H:%M:%S", utc=as_json)
    structlog.configure(
        processors=[
            structlog.contextvars.merge_contextvars,
            structlog.processors.add_log_level,
            time,
            _mask_secrets,
            _round_floats,
            *(() if as_json else (_for_people,)),
            structlog.processors.format_exc_info,
            renderer,
        ],
        wrapper_class=structlog.make_filtering_bound_logger(logging.getLevelNamesMapping()[level.upper()]),
        logger_factory=structlog.WriteLoggerFactory(file=out),
        cache_logger_on_first_use=False,
    )
    # The libraries below speak through logging: their warnings only, in the same form.
    logging.basicConfig(level=logging.ERROR, stream=out, format="%(name)s: %(message)s", force=True)


def log_event(event: Event) -> None:
    """Write one event as one line: message, stable ``event_name``, and its fields."""
    logger = structlog.get_logger("bot")
    getattr(logger, event.level)(event.message, event_name=event.name, **event.as_dict())
