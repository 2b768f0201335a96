"""The last results, in memory and as lines of JSON in a file."""

from __future__ import annotations

import asyncio
from collections import deque
from pathlib import Path

import structlog

from bot.monitor.model import ProbeResult
from bot.monitor.report import as_json

log = structlog.get_logger(__name__)


class History:
    """Keeps ``size`` results. The file is cut to as many lines whenever it has twice as many."""

    def __init__(self, size: int, path: Path | None = None) -> None:
        self._size = size
        self._path = path
        self._results: deque[ProbeResult] = deque(maxlen=size)
        self._lines: int | None = None

    def __repr__(self) -> str:
        return f"<History of {len(self._results)} results>"

    @property
    def results(self) -> tuple[ProbeResult, ...]:
        """The results of this process, the oldest first."""
        return tuple(self._results)

    async def add(self, result: ProbeResult) -> None:
        """Keep ``result``. A file that can't be written is logged: it never touches the probe."""
        self._results.append(result)
        if self._path is None:
            return
        try:
            await asyncio.to_thread(self._write, self._path, as_json(result))
        except OSError as error:
            log.warning("The history can't be written", event_name="probe_history_failed", cause=str(error))

    def _write(self, path: Path, line: str) -> None:
        if self._lines is None:
            self._lines = len(path.read_bytes().splitlines()) if path.exists() else 0
        with path.open("a", encoding="utf-8") as file:
            file.write(line + "\n")
        self._lines += 1
        if self._lines >= 2 * self._size:
            kept = path.read_text(encoding="utf-8").splitlines()[-self._size :]
            new = path.with_name(f"{path.name}.new")
            new.write_text("".join(f"{item}\n" for item in kept), encoding="utf-8")
            new.replace(path)  # whoever reads sees the one or the other
            self._lines = len(kept)
