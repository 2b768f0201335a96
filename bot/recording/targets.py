"""Where recordings are delivered to, besides S3: another folder, a command, a web-hook."""

from __future__ import annotations

import asyncio
import filecmp
import json
import os
import shlex
import signal
import time
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

import aiohttp

from bot.recording.delivery import DeliveryState, NotDeliveredError, Stopped, files_of, in_thread, summary
from bot.recording.disk import FILE_MODE, FOLDER_MODE
from bot.recording.manifest import MANIFEST, read_manifest
from bot.service.signing import may_succeed_later, signed_headers

CHUNK = 4 * 1024 * 1024
HTTP_TIMEOUT = 30.0
#: A command that takes longer (seconds) is ended.
COMMAND_TIMEOUT = 3600.0
#: What a command is told of storage.
PLACES = {"folder": "JITSI_RECORDING_FOLDER_COPY", "s3": "JITSI_RECORDING_S3"}
#: What of a command's errors is kept.
MAX_WORDS = 500


class FolderTarget:
    """A copy in another folder, under the recording's name: there as a whole, or not at all."""

    name = "folder"
    stores = True

    def __init__(self, path: Path) -> None:
        self._path = path

    def __repr__(self) -> str:
        return f"<FolderTarget {self._path}>"

    async def deliver(self, folder: Path, delivery: DeliveryState, save: Callable[[], None]) -> None:
        """Copy what is not there yet, compare, and give it its name."""
        del save
        place = await in_thread(lambda stopped: self._copy(folder, stopped))
        delivery.targets[self.name].place = str(place)

    def _copy(self, folder: Path, stopped: Stopped) -> Path:
        there, half = self._path / folder.name, self._path / f".{folder.name}.part"
        files = files_of(folder)
        if there.exists():
            if all(_same(path, there / path.name) for path in files):
                return there
            raise NotDeliveredError(f"{there} is there, and holds something else", retryable=False)
        half.mkdir(mode=FOLDER_MODE, parents=True, exist_ok=True)
        for path in files:
            if not _same(path, half / path.name):
                _copy_file(path, half / path.name, stopped)
            if not _same(path, half / path.name):
                raise NotDeliveredError(f"{path.name} is not the same when it is read again")
        half.rename(there)
        return there


def _same(one: Path, two: Path) -> bool:
    return two.is_file() and filecmp.cmp(one, two, shallow=False)


def _copy_file(source: Path, destination: Path, stopped: Stopped) -> None:
    destination.unlink(missing_ok=True)
    flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW
    with source.open("rb") as reader, os.fdopen(os.open(destination, flags, FILE_MODE), "wb") as writer:
        while data := reader.read(CHUNK):
            stopped.check()
            writer.write(data)
        writer.flush()
        os.fsync(writer.fileno())


class CommandTarget:
    """A command of the user's, with the recording's folder as its last argument; 0 says that it took it."""

    name = "command"
    stores = False

    def __init__(self, command: str, *, timeout: float = COMMAND_TIMEOUT) -> None:
        self._words = shlex.split(command)
        self._timeout = timeout

    def __repr__(self) -> str:
        return f"<CommandTarget {self._words[0]}>"

    async def deliver(self, folder: Path, delivery: DeliveryState, save: Callable[[], None]) -> None:
        """Run it to its end."""
        del save
        manifest = read_manifest(folder)
        environment = {
            **os.environ,
            "JITSI_RECORDING_FOLDER": str(folder),
            "JITSI_RECORDING_MANIFEST": str(folder / MANIFEST),
            "JITSI_RECORDING_ROOM": manifest.room,
            **{PLACES[name]: item.place for name, item in delivery.targets.items() if name in PLACES},
        }
        try:
            process = await asyncio.create_subprocess_exec(
                *self._words,
                str(folder),
                env=environment,
                stdin=asyncio.subprocess.DEVNULL,
                stdout=asyncio.subprocess.DEVNULL,
                stderr=asyncio.subprocess.PIPE,
                start_new_session=True,
            )
        except OSError as error:
            raise NotDeliveredError(f"{self._words[0]}: {error.strerror}", retryable=False) from error
        await self._ended(process)

    async def _ended(self, process: asyncio.subprocess.Process) -> None:
        try:
            async with asyncio.timeout(self._timeout):
                _, said = await process.communicate()
        except TimeoutError:
            raise NotDeliveredError(f"{self._words[0]} took more than {self._timeout:.0f} s") from None
        finally:
            if process.returncode is None:
                with suppress(ProcessLookupError):
                    os.killpg(process.pid, signal.SIGKILL)  # and what it started
                await process.wait()
        if process.returncode:
            words = said.decode(errors="replace").strip()[-MAX_WORDS:]
            raise NotDeliveredError(f"{self._words[0]} ended with {process.returncode}: {words}")


class WebHookTarget:
    """A URL that is told of each recording by POST of JSON, signed where there is a secret; 2xx is for taken."""

    name = "webhook"
    stores = False

    def __init__(
        self,
        url: str,
        secret: str | None = None,
        *,
        wall: Callable[[], float] = time.time,
        timeout: float = HTTP_TIMEOUT,
    ) -> None:
        self._url = url
        self._secret = secret
        self._wall = wall
        self._timeout = timeout

    def __repr__(self) -> str:
        return f"<WebHookTarget {self._url}>"

    async def deliver(self, folder: Path, delivery: DeliveryState, save: Callable[[], None]) -> None:
        """Post it once."""
        del save
        body = json.dumps(summary(folder, delivery, files_of(folder)), separators=(",", ":")).encode()
        headers = signed_headers(body, folder.name, self._secret, self._wall())
        try:
            async with (
                aiohttp.ClientSession(timeout=aiohttp.ClientTimeout(total=self._timeout)) as http,
                http.post(self._url, data=body, headers=headers, allow_redirects=False) as response,
            ):
                if not 200 <= response.status < 300:
                    raise NotDeliveredError(
                        f"HTTP {response.status}", retryable=may_succeed_later(response.status)
                    )
        except (aiohttp.ClientError, TimeoutError) as error:
            raise NotDeliveredError(str(error) or type(error).__name__) from error
