"""How commands tell people that something is wrong."""

from __future__ import annotations

from typing import NoReturn

import typer
from rich.console import Console
from rich.markup import escape

from bot.errors import BotError

#: Bad usage or configuration; other exit codes belong to what a command does.
EXIT_USAGE = 2
#: Ended by Ctrl-C: 128 and the number of SIGINT, as shells say it.
EXIT_INTERRUPTED = 130
errors = Console(stderr=True, soft_wrap=True)


def fail(error: BotError, code: int = EXIT_USAGE) -> NoReturn:
    """Print ``error`` and end with ``code``."""
    errors.print(f"[bold red]error:[/] {escape(str(error))}", highlight=False)
    raise typer.Exit(code)


def warn(text: str) -> None:
    """Print what is odd and goes on all the same."""
    errors.print(f"[bold yellow]warning:[/] {escape(text)}", highlight=False)
