"""The bot process beside a Locust worker, seen from the worker: started, talked with and ended on gevent."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable
from typing import Any

from gevent import Greenlet, Timeout, socket, spawn, subprocess
from gevent.event import AsyncResult
from gevent.lock import RLock

from bot.load.messages import Begin, Prepare, Ready, Stop
from bot.service.child import SOCKET_VARIABLE, pack, unpack_from

_MODULE = "bot.load.locust.process"
#: Encoding what is sent for the first time takes its time (seconds).
PREPARE_TIMEOUT = 300.0
#: Time to leave beside the setting ``leave_timeout``, after which the process is made to end (seconds).
GRACE = 10.0


class BotProcess:
    """One bot process, once. ``hear`` gets its messages, ``ended`` how it ended (not where it was told to)."""

    def __init__(self, hear: Callable[[Any], None], ended: Callable[[BotProcess, str], None]) -> None:
        self._hear = hear
        self._ended = ended
        self._ready: AsyncResult[str] = AsyncResult()
        self._lock = RLock()
        self._stopping = False
        self._socket: socket.socket | None = None
        self._process: subprocess.Popen[bytes] | None = None
        self._reader: Greenlet[..., None] | None = None

    def __repr__(self) -> str:
        return f"<BotProcess pid {self.pid}>"

    @property
    def pid(self) -> int | None:
        """Its process id, None before the start."""
        return self._process.pid if self._process is not None else None

    def start(self, prepare: Prepare, began: float) -> None:
        """Start it, out of reach of the terminal's signals. Raises OSError."""
        ours, theirs = socket.socketpair()
        try:
            self._process = subprocess.Popen(
                [sys.executable, "-c", f"from {_MODULE} import main; main()"],
                stdin=subprocess.DEVNULL,
                pass_fds=(theirs.fileno(),),
                env=os.environ | {SOCKET_VARIABLE: str(theirs.fileno())},
                start_new_session=True,
            )
        except BaseException:
            ours.close()
            raise
        finally:
            theirs.close()
        self._socket = ours
        self._reader = spawn(self._read, ours, self._process)
        self.send(prepare)
        self.send(Begin(began))

    def wait_ready(self) -> str:
        """Wait until participants can join; why they can't, where they can't."""
        try:
            return str(self._ready.get(timeout=PREPARE_TIMEOUT))
        except Timeout:
            return f"the bot process was not ready after {PREPARE_TIMEOUT:g} s"

    def send(self, message: object) -> None:
        """Say something; to a process that is gone it says nothing."""
        if self._socket is None:
            return
        with self._lock:
            try:
                self._socket.sendall(pack(message))
            except OSError:
                return

    def stop(self, seconds: float) -> None:
        """Let all leave, within ``seconds``, and end it: what it says until then is heard."""
        if self._reader is None or self._process is None:
            return
        self._stopping = True
        self.send(Stop())
        self._reader.join(timeout=seconds + GRACE)
        if not self._reader.dead:
            self._process.kill()
            self._reader.join()

    def _read(self, ours: socket.socket, process: subprocess.Popen[bytes]) -> None:
        try:
            with ours.makefile("rb") as file:
                while True:
                    self._take(unpack_from(file.read))
        except (EOFError, OSError):
            pass  # it has ended, or is about to
        code = process.wait()
        ours.close()
        how = f"signal {-code}" if code < 0 else f"exit code {code}"
        if not self._ready.ready():
            self._ready.set(f"the bot process ended before it was ready, {how}")
        if not self._stopping:
            self._ended(self, how)

    def _take(self, message: object) -> None:
        if isinstance(message, Ready):
            self._ready.set(message.error)
        else:
            self._hear(message)
