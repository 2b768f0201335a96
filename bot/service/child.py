"""A child process of this program that talks Python objects with its parent over a pair of sockets.

Each message is its length in four bytes and a pickle: both ends are this program, and nobody else has the sockets.
"""

from __future__ import annotations

import asyncio
import os
import pickle
import signal
import socket
import struct
import sys
from collections.abc import AsyncIterator, Callable, Coroutine
from contextlib import suppress
from typing import Any

_LENGTH = struct.Struct("!L")
#: Bytes that may wait for the parent before news that come again anyhow are left out.
MAX_WAITING = 8 * 1024 * 1024
#: Seconds between the request to end and the signal that ends.
KILL_AFTER = 10.0
_LINE_LIMIT = 1024 * 1024
#: The environment variable that names the child's end of the sockets, as a file descriptor.
SOCKET_VARIABLE = "JITSI_BOT_PARENT_SOCKET"


def pack(message: object) -> bytes:
    """One message as it is sent."""
    body = pickle.dumps(message, pickle.HIGHEST_PROTOCOL)
    return _LENGTH.pack(len(body)) + body


async def unpack(reader: asyncio.StreamReader) -> Any:
    """The next message. Raises EOFError when the other end is gone."""
    try:
        (length,) = _LENGTH.unpack(await reader.readexactly(_LENGTH.size))
        return pickle.loads(await reader.readexactly(length))  # noqa: S301 -- from our own child or parent
    except (asyncio.IncompleteReadError, ConnectionError):
        raise EOFError("the other process is gone") from None


def unpack_from(read: Callable[[int], bytes]) -> Any:
    """The next message where no asyncio is: ``read`` gives as many bytes as asked for, fewer at the end.

    Raises EOFError when the other end is gone.
    """
    header = read(_LENGTH.size)
    if len(header) < _LENGTH.size:
        raise EOFError("the other process is gone")
    (length,) = _LENGTH.unpack(header)
    body = read(length)
    if len(body) < length:
        raise EOFError("the other process is gone")
    return pickle.loads(body)  # noqa: S301 -- from our own child or parent


class ChildProcess:
    """A child that runs ``main`` of ``module``.

    ``on_message`` hears what it says, ``on_line`` what it writes to stderr, which is ours by default.
    """

    def __init__(
        self, module: str, on_message: Callable[[Any], None], on_line: Callable[[str], None] | None = None
    ) -> None:
        self._module = module
        self._on_message = on_message
        self._on_line = on_line or _to_stderr
        self._process: asyncio.subprocess.Process | None = None
        self._reader: asyncio.StreamReader | None = None
        self._writer: asyncio.StreamWriter | None = None

    def __repr__(self) -> str:
        return f"<ChildProcess {self._module} pid {self.pid}>"

    @property
    def pid(self) -> int | None:
        """Its process id, None before the start."""
        return self._process.pid if self._process is not None else None

    async def start(self) -> None:
        """Start it, out of reach of the terminal's signals: its parent says when to end. Raises OSError."""
        ours, theirs = socket.socketpair()
        try:
            self._process = await asyncio.create_subprocess_exec(
                sys.executable,
                "-c",
                f"from {self._module} import main; main()",
                stdin=asyncio.subprocess.DEVNULL,
                stderr=asyncio.subprocess.PIPE,
                limit=_LINE_LIMIT,
                pass_fds=(theirs.fileno(),),
                env=os.environ | {SOCKET_VARIABLE: str(theirs.fileno())},
                start_new_session=True,
            )
        except BaseException:
            ours.close()
            raise
        finally:
            theirs.close()
        self._reader, self._writer = await asyncio.open_connection(sock=ours)

    def send(self, message: object) -> None:
        """Send one message; to a child that is gone it says nothing."""
        if self._writer is not None and not self._writer.is_closing():
            self._writer.write(pack(message))

    async def run(self) -> int:
        """Pass on what it says until it has ended; returns its exit code. Cancelled, it is made to end."""
        if self._process is None or self._reader is None or self._process.stderr is None:
            raise RuntimeError("the child was not started")
        lines = asyncio.ensure_future(self._lines(self._process.stderr))
        try:
            with suppress(EOFError):
                while True:
                    self._on_message(await unpack(self._reader))
        finally:
            await asyncio.shield(asyncio.ensure_future(self._end(self._process, lines)))
        return self._process.returncode or 0

    async def _lines(self, stream: asyncio.StreamReader) -> None:
        while line := await stream.readline():
            self._on_line(line.decode(errors="replace"))

    async def _end(self, process: asyncio.subprocess.Process, lines: asyncio.Future[None]) -> None:
        if self._writer is not None:
            self._writer.close()  # it takes that for the request to end
            with suppress(ConnectionError):
                await self._writer.wait_closed()
        try:
            async with asyncio.timeout(KILL_AFTER):
                await process.wait()
        except TimeoutError:
            with suppress(ProcessLookupError):
                process.kill()
            await process.wait()
        await asyncio.wait([lines])


def _to_stderr(line: str) -> None:
    sys.stderr.write(line)
    sys.stderr.flush()


async def attended(work: Coroutine[Any, Any, object], *asides: Coroutine[Any, Any, None]) -> None:
    """Run ``work`` to its end, and ``asides`` as long as that."""
    tasks = [asyncio.create_task(aside, name="aside") for aside in asides]
    try:
        await work
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)


class Parent:
    """The child's end: ``receive`` what the parent says, ``send`` and ``offer`` what it shall know."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._reader = reader
        self._writer = writer
        #: News that were left out, as the parent did not read.
        self.dropped = 0

    @classmethod
    async def connect(cls) -> Parent:
        """The parent that started this process. Raises RuntimeError where none did."""
        number = os.environ.pop(SOCKET_VARIABLE, None)
        if number is None:
            raise RuntimeError("this process was not started by jitsi-bot")
        signal.signal(signal.SIGINT, signal.SIG_IGN)
        return cls(*await asyncio.open_connection(sock=socket.socket(fileno=int(number))))

    async def receive(self) -> Any:
        """The next message. Raises EOFError when the parent is gone."""
        return await unpack(self._reader)

    async def orders(self, stop: type) -> AsyncIterator[Any]:
        """What the parent says until it says a ``stop``, or is gone."""
        with suppress(EOFError):
            while not isinstance(order := await self.receive(), stop):
                yield order

    def send(self, message: object) -> None:
        """Say what must not be lost; to a parent that is gone it says nothing."""
        if not self._writer.transport.is_closing():
            self._writer.write(pack(message))

    def offer(self, message: object) -> None:
        """Say what is said again soon: it is left out where too much waits."""
        if self._writer.transport.get_write_buffer_size() > MAX_WAITING:
            self.dropped += 1
        else:
            self.send(message)

    async def close(self) -> None:
        """Send what waits and close."""
        with suppress(ConnectionError):
            await self._writer.drain()
            self._writer.close()
            await self._writer.wait_closed()
