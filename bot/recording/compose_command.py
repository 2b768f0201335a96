"""``jitsi-bot record compose``."""

from __future__ import annotations

import signal
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from types import FrameType
from typing import Annotated

import typer
from rich.console import Console
from rich.progress import BarColumn, Progress, TaskProgressColumn, TextColumn, TimeRemainingColumn

from bot.errors import BotError, ConfigurationError
from bot.recording.compose import Composed, ComposeOptions, compose, default_out
from bot.recording.compose_live import compose_live
from bot.recording.compose_plan import Format, Layout
from bot.terminal import EXIT_INTERRUPTED, fail, warn

EXIT_TERMINATED = 143
#: Without a terminal a line is printed each so many percent.
STEP = 10


def compose_recording(
    folder: Annotated[Path, typer.Argument(help="A recording", exists=True, file_okay=False)],
    layout: Annotated[
        Layout, typer.Option("--layout", help="All alike, or the dominant speaker large and the others beside")
    ] = "tile",
    format_: Annotated[Format, typer.Option("--format", help="mp4 is H.264 and AAC, webm VP9 and opus")] = "mp4",
    height: Annotated[
        int, typer.Option("--height", min=144, max=2160, help="Height of the picture, which is of 16:9")
    ] = 720,
    fps: Annotated[int, typer.Option("--fps", min=1, max=60, help="Pictures in a second")] = 30,
    out: Annotated[
        Path | None,
        typer.Option("--out", "-o", help="File to write [default: composite.LAYOUT.FORMAT in the recording]"),
    ] = None,
    overwrite: Annotated[bool, typer.Option("--overwrite", help="Replace the file where there is one")] = False,
    threads: Annotated[
        int, typer.Option("--threads", min=0, max=64, help="Files decoded at once; 0 = one for each processor")
    ] = 0,
    live: Annotated[
        bool, typer.Option("--live", help="Follow a recording that is being made to its end, some seconds behind")
    ] = False,
    font: Annotated[
        Path | None, typer.Option("--font", help="Font for names [default: one of the system]", dir_okay=False)
    ] = None,
) -> None:
    """Make one file of a finished recording: everybody in one picture with names, and all voices."""
    options = ComposeOptions(layout, format_, height, fps, threads, font)
    path = out or default_out(folder, options)
    try:
        _check(path, format_, overwrite=overwrite)
        with _interrupted():
            done = compose_live(folder, path, options, tell=warn) if live else _composed(folder, path, options)
    except BotError as error:
        fail(error)
    except KeyboardInterrupt:
        raise typer.Exit(EXIT_INTERRUPTED) from None
    _tell(done)


def _composed(folder: Path, out: Path, options: ComposeOptions) -> Composed:
    with _shown(folder.name) as progress:
        return compose(folder, out, options, progress)


def _check(out: Path, format_: Format, *, overwrite: bool) -> None:
    if out.suffix != f".{format_}":
        raise ConfigurationError(f"compose out: {out.name} is no name of a .{format_}", hint="set --format")
    if not out.parent.is_dir():
        raise ConfigurationError(f"compose out: there is no folder {out.parent}")
    if out.exists() and not overwrite:
        raise ConfigurationError(f"compose out: {out} is there already", hint="--overwrite replaces it")


def _tell(done: Composed) -> None:
    for name, why in sorted(done.problems.items()):
        warn(f"{name}: {why}")
    if done.dropped:
        warn(f"{done.dropped} pictures were left out, as this machine was too slow")
    sys.stdout.write(f"{done.path}: {done.seconds:.1f} s\n")


@contextmanager
def _interrupted() -> Iterator[None]:
    """SIGTERM leaves no half file behind, as Ctrl-C doesn't."""

    def ended(_number: int, _frame: FrameType | None) -> None:
        raise typer.Exit(EXIT_TERMINATED)

    before = signal.signal(signal.SIGTERM, ended)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)


@contextmanager
def _shown(title: str) -> Iterator[Callable[[float, float], None]]:
    """Progress for people: a bar on a terminal, lines elsewhere."""
    console = Console(stderr=True)
    if not console.is_terminal:
        yield Lines(title, console)
        return
    columns = (
        TextColumn("{task.description}"),
        BarColumn(),
        TaskProgressColumn(),
        TextColumn("{task.fields[speed]}"),
        TimeRemainingColumn(),
    )
    with Progress(*columns, console=console) as bar:
        task = bar.add_task(title, total=None, speed="")
        began = time.monotonic()

        def update(done: float, total: float) -> None:
            speed = done / max(time.monotonic() - began, 0.001)
            bar.update(task, completed=done, total=total, speed=f"{speed:.1f}×")

        yield update


class Lines:
    """Says now and then how far it is."""

    def __init__(self, title: str, console: Console) -> None:
        self._title = title
        self._console = console
        self._next = STEP

    def __repr__(self) -> str:
        return f"<Lines {self._title}>"

    def __call__(self, done: float, total: float) -> None:
        """Take the seconds that are done, and of how many."""
        percent = int(100 * done / total) if total else 100
        if percent >= self._next:
            self._next = percent - percent % STEP + STEP
            self._console.print(f"{self._title}: {min(percent, 100)} %", highlight=False, markup=False)
