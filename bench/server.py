"""A process with the embedded server, which participants join."""

from __future__ import annotations

import os
from contextlib import suppress

from bench.messages import Listening
from bench.peer import allow_many_sockets
from bot import logs
from bot.service.child import Parent
from bot.service.loops import run
from bot.service.runner import embedded_server


async def _main() -> None:
    parent = await Parent.connect()
    async with embedded_server(0) as server:
        parent.send(Listening(path=server.url))
        with suppress(EOFError):
            await parent.receive()
        os._exit(0)


def main() -> None:
    """Run until the parent is gone."""
    logs.configure("warning", "json")
    allow_many_sockets()
    run(_main())
