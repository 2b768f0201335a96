"""The live table: who stands where and what goes each way. On a terminal only."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Self

from rich.console import Console
from rich.live import Live
from rich.table import Table

from bot.service.report import Row

#: Rows that are shown; what is beyond stands in the last line only.
MAX_ROWS = 20
_COLUMNS = ("packets out", "kbit/s out", "packets in", "kbit/s in", "lost", "streams")


class LiveTable:
    """``with LiveTable(console) as table``, then ``show`` once a second. Log lines appear above it."""

    def __init__(self, console: Console) -> None:
        self._live = Live(console=console, auto_refresh=False, redirect_stdout=True, redirect_stderr=True)

    def __enter__(self) -> Self:
        self._live.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._live.stop()

    def show(self, rows: Sequence[Row]) -> None:
        """Draw these rows."""
        self._live.update(table(rows), refresh=True)


def table(rows: Sequence[Row]) -> Table:
    """One line a participant, and their sum below."""
    found = Table(title="jitsi-bot: Ctrl-C leaves", title_justify="left", pad_edge=False)
    for name in ("participant", "room", "state"):
        found.add_column(name, no_wrap=True)
    for name in _COLUMNS:
        found.add_column(name, justify="right", no_wrap=True)
    for row in rows[:MAX_ROWS]:
        found.add_row(row.config.name, row.config.room, row.state.value, *_numbers([row]))
    if len(rows) > 1:
        rest = f" ({len(rows) - MAX_ROWS} not shown)" if len(rows) > MAX_ROWS else ""
        found.add_section()
        found.add_row(f"all {len(rows)}{rest}", "", "", *_numbers(rows))
    return found


def _numbers(rows: Iterable[Row]) -> list[str]:
    rows = list(rows)
    values = (
        sum(row.traffic.packets_sent for row in rows),
        sum(row.interval.bitrate_sent for row in rows) / 1000,
        sum(row.traffic.packets_received for row in rows),
        sum(row.interval.bitrate_received for row in rows) / 1000,
        sum(row.traffic.lost for row in rows),
        sum(row.traffic.streams for row in rows),
    )
    return [f"{value:,.0f}" for value in values]
