"""How a run stands, for whoever watches: a live view on a terminal, else lines."""

from __future__ import annotations

import sys
from collections.abc import Iterable
from typing import Self, TextIO

from rich.console import Console, Group, RenderableType
from rich.live import Live
from rich.progress_bar import ProgressBar
from rich.table import Table
from rich.text import Text

from bot.load import units
from bot.load.collector import FailureCount
from bot.load.standing import Standing
from bot.load.thresholds import State as Met

#: Seconds between two lines where there is no terminal.
LINE_INTERVAL = 5.0
_BAR = 40
_MEASURES = (
    ("join", "join"),
    ("join.media", "media after"),
    ("rtt", "round trip"),
    ("jitter", "jitter"),
    ("fps", "frames/s"),
    ("e2e_delay", "end to end"),
    ("client.loop_lag", "own lag"),
)


class TerminalView:
    """``with TerminalView(console) as view``: drawn once a second; log lines appear above it."""

    def __init__(self, console: Console) -> None:
        self._live = Live(console=console, auto_refresh=False, redirect_stdout=True, redirect_stderr=True)

    def __enter__(self) -> Self:
        self._live.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._live.stop()

    def say(self, text: str) -> None:
        """Show what goes on before it begins."""
        self._live.update(Text(text), refresh=True)

    def show(self, standing: Standing, at: float) -> None:
        """Draw it."""
        self._live.update(picture(standing, at), refresh=True)


class LineView:
    """A line every few seconds."""

    def __init__(self, stream: TextIO | None = None) -> None:
        self._stream = stream
        self._due = 0.0

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        pass

    def say(self, text: str) -> None:
        """Print what goes on before it begins."""
        self._print(text)

    def show(self, standing: Standing, at: float) -> None:
        """Print a line, if it is time for one."""
        if at >= self._due:
            self._due = at + LINE_INTERVAL
            self._print(line(standing, at))

    def _print(self, text: str) -> None:
        stream = self._stream or sys.stderr
        stream.write(text + "\n")
        stream.flush()


def line(standing: Standing, at: float) -> str:
    """The state of a run in one line."""
    joins, sent, received = standing.rates
    parts = [
        f"{at:6.0f} s of {standing.scenario.duration:g}",
        f"{standing.in_room} of {standing.scenario.total} in rooms",
        f"{standing.joining} joining",
        f"{joins:.1f} joins/s",
        f"sent {units.show_scaled(sent, 'bit/s')}",
        f"received {units.show_scaled(received, 'bit/s')}",
        f"loss {_share(standing, 'loss')}",
        f"failed {sum(item.count for item in standing.tally.failures.values())}",
    ]
    limits = standing.client_limits
    return ", ".join(parts) + (f"; THE CLIENT IS THE LIMIT: {limits[0]}" if limits else "")


def _share(standing: Standing, name: str) -> str:
    value = standing.measures.total(name)
    return "-" if value is None else units.show_percent(value)


def picture(standing: Standing, at: float) -> RenderableType:
    """All of it, as it is drawn on a terminal."""
    parts: list[RenderableType] = [_head(standing), _bar(standing, at), Text(), _flow(standing), Text()]
    parts.append(_side_by_side(_measures(standing), _thresholds(standing)))
    if standing.worst:
        parts += [Text(), _worst(standing)]
    if standing.tally.failures:
        parts += [Text(), _failures(standing)]
    if limits := standing.client_limits:
        parts += [Text(), Text(f"The client is the limit: {'; '.join(limits)}", style="bold red")]
    return Group(*parts)


def _head(standing: Standing) -> Text:
    scenario = standing.scenario
    return Text.assemble(
        (f"jitsi-bot load {scenario.name}".rstrip(), "bold"),
        f"  {scenario.conferences} x {scenario.participants} participants; Ctrl-C ends it with a report",
    )


def _bar(standing: Standing, at: float) -> Table:
    duration = standing.scenario.duration
    left = max(0.0, duration - at)
    grid = Table.grid(padding=(0, 1))
    warm = "warming up, " if at < standing.scenario.warm_up else ""
    grid.add_row(
        ProgressBar(total=duration, completed=min(at, duration), width=_BAR),
        Text(f"{min(1.0, at / duration):4.0%}  {warm}{_clock(left)} left" if left else "leaving"),
    )
    return grid


def _clock(seconds: float) -> str:
    minutes, rest = divmod(round(seconds), 60)
    return f"{minutes}:{rest:02}"


def _flow(standing: Standing) -> Table:
    joins, sent, received = standing.rates
    grid = Table.grid(padding=(0, 2))
    states = "  ".join(f"{name.replace('_', ' ')} {number}" for name, number in sorted(standing.states.items()))
    grid.add_row("in rooms", Text(f"{standing.in_room} of {standing.scenario.total}", style="bold"), states)
    grid.add_row("joins", f"{joins:.1f}/s", f"{standing.tally.joined} of {standing.tally.tried} succeeded")
    grid.add_row("sent", units.show_scaled(sent, "bit/s"), f"CPU {standing.cpu:.2f} cores")
    grid.add_row("received", units.show_scaled(received, "bit/s"), f"loss {_share(standing, 'loss')}")
    return grid


def _side_by_side(left: RenderableType, right: RenderableType | None) -> RenderableType:
    grid = Table.grid(padding=(0, 4))
    grid.add_row(*([left] if right is None else [left, right]))
    return grid


def _measures(standing: Standing) -> Table:
    table = Table(box=None, pad_edge=False)
    table.add_column("measured")
    for name in ("p50", "p95", "max"):
        table.add_column(name, justify="right")
    for name, text in _MEASURES:
        values = standing.measures.values.get(name)
        if values is not None and values.count:
            unit = "" if name == "fps" else "s"
            shown = [units.show(value or 0.0, unit) for value in map(values.quantile, (0.5, 0.95, 1))]
            table.add_row(text, *shown)
    return table


def _thresholds(standing: Standing) -> Table | None:
    verdicts = standing.verdicts
    if not verdicts:
        return None
    table = Table(box=None, pad_edge=False)
    for name in ("threshold", "now"):
        table.add_column(name)
    for verdict in verdicts:
        style = {Met.MET: "green", Met.MISSED: "red"}.get(verdict.state, "dim")
        table.add_row(verdict.threshold.text, Text(verdict.reason.removeprefix("measured "), style=style))
    return table


def _worst(standing: Standing) -> Table:
    table = Table(box=None, pad_edge=False)
    for name in ("worst streams", "of", "kind"):
        table.add_column(name)
    for name in ("loss", "frames/s", "bit rate"):
        table.add_column(name, justify="right")
    for item in standing.worst:
        table.add_row(
            f"{item.name} in {item.room}",
            item.owner or "?",
            item.media,
            units.show_percent(item.loss),
            "" if item.fps is None else f"{item.fps:.0f}",
            units.show_scaled(item.bitrate, "bit/s"),
        )
    return table


def _failures(standing: Standing) -> Table:
    table = Table(box=None, pad_edge=False)
    for name in ("failed", "count", "whose", "said"):
        table.add_column(name, no_wrap=name == "said")
    for cause, item in _most_frequent(standing):
        table.add_row(cause, str(item.count), item.whose, item.example)
    return table


def _most_frequent(standing: Standing) -> Iterable[tuple[str, FailureCount]]:
    return sorted(standing.tally.failures.items(), key=lambda item: -item[1].count)[:5]


def view(console: Console | None) -> TerminalView | LineView:
    """The live view on a terminal, else lines."""
    return LineView() if console is None else TerminalView(console)
