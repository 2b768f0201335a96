"""The line from a process under test to a peer."""

from __future__ import annotations

import asyncio
from contextlib import suppress
from itertools import count
from typing import Any

from bench.messages import Accept, Answered, Asked, Look, Open
from bot.service.child import pack, unpack


class PeerError(RuntimeError):
    """A peer could not do what it was asked for."""


class PeerLink:
    """Questions to one peer and its answers, which come in any order."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._reader, self._writer = reader, writer
        self._numbers = count()
        self._waiting: dict[int, asyncio.Future[Any]] = {}
        self._reading = asyncio.create_task(self._read(), name="peer link")

    @classmethod
    async def connect(cls, path: str) -> PeerLink:
        """Connect to the peer at the socket ``path``."""
        return cls(*await asyncio.open_unix_connection(path))

    async def ask(self, question: Open | Accept | Look) -> Any:
        """The answer. Raises PeerError."""
        number = next(self._numbers)
        future = self._waiting[number] = asyncio.get_running_loop().create_future()
        self._writer.write(pack(Asked(number=number, question=question)))
        return await future

    async def _read(self) -> None:
        with suppress(EOFError):
            while True:
                answered: Answered = await unpack(self._reader)
                future = self._waiting.pop(answered.number)
                if answered.error is None:
                    future.set_result(answered.answer)
                else:
                    future.set_exception(PeerError(answered.error))
        for future in self._waiting.values():
            future.set_exception(PeerError("the peer is gone"))
