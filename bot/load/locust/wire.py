"""What a worker tells the master, as Locust's messages carry it (texts, numbers, lists, dicts). Pure.

Anybody who reaches the master's port can send it messages: what comes is checked, never unpickled.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from typing import Any

from pydantic import TypeAdapter

from bot.load.collector import Tally, WorstStream
from bot.load.measures import Measures
from bot.load.messages import Progress

_TALLY = TypeAdapter(Tally)
_WORST = TypeAdapter(tuple[WorstStream, ...])
_STATES = TypeAdapter(dict[str, int])


def to_wire(progress: Progress) -> dict[str, Any]:
    """``progress`` as a message."""
    return {
        "measures": progress.measures.to_json(),
        "tally": _TALLY.dump_python(progress.tally, mode="json"),
        "states": dict(progress.states),
        "in_room": progress.in_room,
        "cpu": progress.cpu,
        "worst": _WORST.dump_python(progress.worst, mode="json"),
        "last": progress.last,
    }


def from_wire(data: Mapping[str, Any]) -> Progress:
    """The opposite of ``to_wire``. Raises ValueError for what is none."""
    try:
        return Progress(
            measures=Measures.from_json(data["measures"]),
            tally=_TALLY.validate_python(data["tally"]),
            states=Counter(_STATES.validate_python(data["states"])),
            in_room=int(data["in_room"]),
            cpu=float(data["cpu"]),
            worst=_WORST.validate_python(data["worst"]),
            last=bool(data["last"]),
        )
    except (KeyError, TypeError, AttributeError) as error:
        raise ValueError(f"a worker's message can't be read: {error!r}") from error
