"""A daemon with the API, in a process of its own, and a client of it."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import IO, Any

import requests

READ, OPERATE = "reading-is-allowed-here", "operating-is-allowed-here"
TOKENS = {"JITSI_API_READ_TOKENS": READ, "JITSI_API_OPERATE_TOKENS": f"another-one-of-them\n{OPERATE}"}
TIMEOUT = 20.0


class Daemon:
    """``jitsi-bot serve-api``, its log lines, and requests to it."""

    def __init__(self, process: subprocess.Popen[str], log: IO[str], port: int, token: str | None) -> None:
        self.process = process
        self.port = port
        self.token = token
        self._log = log

    @property
    def base(self) -> str:
        """Where it listens."""
        return f"http://127.0.0.1:{self.port}"

    @property
    def url(self) -> str:
        """Where the API begins."""
        return f"{self.base}/api/v1"

    def ask(self, method: str, path: str, body: Any = None, **more: Any) -> requests.Response:
        """A request with the token, and ``body`` as JSON."""
        headers = {"Authorization": f"Bearer {self.token}"} if self.token else {}
        headers |= more.pop("headers", {})
        return requests.request(
            method, f"{self.url}{path}", json=body, headers=headers, timeout=TIMEOUT, proxies={"http": ""}, **more
        )

    def lines(self, event: str) -> list[dict[str, Any]]:
        """The lines that it has logged of an event."""
        self._log.seek(0)
        found: list[dict[str, Any]] = [
            json.loads(line) for line in self._log.read().splitlines() if line.startswith("{")
        ]
        return [line for line in found if line.get("event_name") == event]


def wait(check: Any, what: str, seconds: float = TIMEOUT) -> Any:
    """The first true value of ``check``."""
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        if found := check():
            return found
        time.sleep(0.05)
    raise AssertionError(f"within {seconds:.0f} s not: {what}")


@contextmanager
def daemon(
    folder: Path,
    *flags: str,
    command: Sequence[str] = ("serve-api", "--embedded"),
    environment: Mapping[str, str] | None = None,
    token: str | None = OPERATE,
) -> Iterator[Daemon]:
    """One that runs with an embedded server, and has ended when the block has."""
    given = {
        "JITSI_LOG_FORMAT": "json",
        "JITSI_HTTP_PORT": "0",
        **(TOKENS if token else {}),
        **(environment or {}),
    }
    whole = [sys.executable, "-m", "bot", *command, "--embedded-port", "0", *flags]
    path = folder / "daemon.log"
    with path.open("w") as out, path.open() as log:
        process = subprocess.Popen(whole, env={**os.environ, **given}, stderr=out, cwd=folder, text=True)
        try:
            found = Daemon(process, log, 0, token)

            def began() -> list[dict[str, Any]]:
                return found.lines("api_started") or found.lines("health_started")

            wait(lambda: process.poll() is not None or began(), "the API is served")
            assert process.poll() is None, path.read_text()
            found.port = int(began()[0]["port"])
            yield found
        finally:
            process.terminate()
            process.wait(TIMEOUT)
