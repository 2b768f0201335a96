"""Whose limit it was: what the client itself could not carry, and what the server only rationed. Pure."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Literal

from bot.load import units
from bot.load.measures import Measures

Whose = Literal["server", "client", "rate limit", "unknown"]
#: So late (seconds) one in twenty turns of an event loop may be, and one packet in a hundred: beyond, what is
#: measured is ours. Packets that late are left out by the pacer.
MAX_LOOP_LAG = 0.1
MAX_PACING_LATE = 0.1
#: A process that uses so much of its core, every tenth second, has none left.
MAX_CPU = 0.95
#: Share of datagrams that full buffers of our sockets may turn away.
MAX_OVERFLOW = 0.001
#: Values below which a percentile says little.
_FEW = 20
#: What servers say that ration: HTTP 429, and the stanza and stream errors of RFC 6120 (8.3.3, 4.9.3).
_RATIONED = ("rate_limited", "resource-constraint", "policy-violation", "429")
#: Failures that are of our own making whatever the server does.
_OURS = frozenset({"process_died", "configuration", "internal", "media_unsupported", "own_source"})
_LIMITS = (
    ("client.loop_lag", 0.95, MAX_LOOP_LAG, "the event loop was {} late (95th percentile)"),
    ("client.pacing_late", 0.99, MAX_PACING_LATE, "packets were sent {} late (99th percentile)"),
    ("client.cpu", 0.9, MAX_CPU, "a process used {} of its core (90th percentile)"),
)


def reasons(measures: Measures, *, overflow: int = 0, received: int = 0, dead: int = 0) -> list[str]:
    """What of the client was overloaded; nothing where it kept up.

    ``overflow`` datagrams were turned away by full socket buffers, beside ``received``; ``dead`` processes died.
    """
    return [*_late(measures), *_others(overflow, received, dead)]


def _late(measures: Measures) -> Iterable[str]:
    for name, share, limit, text in _LIMITS:
        values = measures.values.get(name)
        if values is None or values.count < _FEW:
            continue
        found = values.quantile(share)
        if found is not None and found > limit:
            yield text.format(units.show(found, "ratio" if name == "client.cpu" else "s"))


def _others(overflow: int, received: int, dead: int) -> Iterable[str]:
    if overflow > MAX_OVERFLOW * max(1, overflow + received):
        yield f"{overflow} datagrams were turned away by full socket buffers"
    if dead:
        yield f"{dead} of its processes died"


def is_rationed(code: str, cause: str) -> bool:
    """Whether the server limited the rate, by the error's code or what it said."""
    return any(word in code or word in cause for word in _RATIONED)


def whose(code: str, cause: str, *, overloaded: bool) -> Whose:
    """Whose limit a failure was. While the client is ``overloaded`` nothing is the server's."""
    if is_rationed(code, cause):
        return "rate limit"
    return "client" if overloaded or code in _OURS else "server"
