"""What a participant costs the machine that it runs on. Pure, but for the file that says it better.

The defaults were measured on two cores of a cloud machine (Python 3.11, uvloop): those of packets and joins by
``make bench``, those of memory and files with 42 and 61 participants of aiortc's media sessions on the embedded
server. ``build/bench.json``, written by a benchmark on the machine itself, goes before them.
"""

from __future__ import annotations

import json
from pathlib import Path

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from bot.errors import ConfigurationError

#: Where a benchmark leaves what it measured: ``{"costs": {"packet_sent": 9e-6, ...}}``.
BENCH = Path("build/bench.json")


class Costs(BaseModel):
    """Seconds of CPU, bytes and file descriptors."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    participant: float = Field(
        default=0.0005, ge=0, description="Share of a core for each participant: ICE consent, timers"
    )
    packet_sent: float = Field(
        default=11e-6,
        ge=0,
        description="CPU of a packet sent: header, SRTP, system call, feedback (0.18 % of a core for 119/s)",
    )
    packet_received: float = Field(
        default=2.6e-6,
        ge=0,
        description="CPU of a packet received, with statistics and transport-wide-cc feedback",
    )
    packet_shaped: float = Field(
        default=9e-6, ge=0, description="CPU of a packet either way over a bad network, on top: two sockets more"
    )
    join: float = Field(default=0.018, ge=0, description="CPU of a join: WebSocket, XMPP, ICE, DTLS")
    memory: float = Field(default=3.5e6, ge=0, description="Bytes of memory of each participant")
    process_memory: float = Field(
        default=100e6, ge=0, description="Bytes of memory of each process, its clips included"
    )
    process_files: int = Field(default=20, ge=0, description="File descriptors of each process")
    participant_files: int = Field(
        default=2, ge=0, description="File descriptors of each participant: WebSocket, channel"
    )


def read_costs(path: Path = BENCH) -> tuple[Costs, str]:
    """The costs, and where they come from. Without the file they are the defaults."""
    try:
        found = json.loads(path.read_text(encoding="utf-8"))
        if isinstance(found, dict) and "costs" not in found:
            return Costs(), "measured elsewhere"
        return Costs.model_validate(found["costs"]), str(path)
    except FileNotFoundError:
        return Costs(), "measured elsewhere"
    except (OSError, ValueError, TypeError) as error:
        raise ConfigurationError(f"{path}: {_said(error)}", hint="make bench writes it anew") from error


def _said(error: Exception) -> str:
    if isinstance(error, ValidationError):
        return "; ".join(f"costs.{item['loc'][0]}: {item['msg']}" for item in error.errors())
    return str(error)
