"""A foreign web client: lib-jitsi-meet of the npm package in Debian's Chromium, joining an embedded server."""

from __future__ import annotations

import asyncio
import base64
import json
import shutil
import subprocess
import tarfile
import tempfile
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from playwright.async_api import Browser, BrowserContext, Page, WebSocket, async_playwright

from tests.requirements import require, unavailable

ROOT = Path(__file__).parents[1]
#: Where the pages, and what was said, are kept after a run.
OUTPUT = ROOT / "test-output"
#: Packages for the page, with the paths that it loads them from.
PACKAGES = {"lib-jitsi-meet": "@lyno/lib-jitsi-meet@2.6726.2", "jquery": "jquery@3.7.1"}
_CACHE = ROOT / ".npm"
_ARGUMENTS = (
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--no-proxy-server",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
    "--autoplay-policy=no-user-gesture-required",
    "--use-fake-ui-for-media-stream",
    "--use-fake-device-for-media-stream=fps=15",
    "--disable-features=WebRtcHideLocalIpsWithMdns",
    "--allow-loopback-in-peer-connection",
    "--host-resolver-rules=MAP * ~NOTFOUND, EXCLUDE 127.0.0.1",
)

Stats = dict[str, Any]


# --- the client's packages ----------------------------------------------------------------------------------


def web_packages() -> dict[str, Path]:
    """Directories of :data:`PACKAGES` by name, fetched by npm where they aren't there yet; skips without npm.

    ``npm pack`` and not ``npm install``: the bundle needs none of the package's dependencies.
    """
    require("chromium", "npm")
    return {name: _package(name, spec) for name, spec in PACKAGES.items()}


def _package(name: str, spec: str) -> Path:
    target = _CACHE / f"{name}-{spec.rpartition('@')[2]}"
    if not target.is_dir():
        _CACHE.mkdir(exist_ok=True)
        with tempfile.TemporaryDirectory(dir=_CACHE) as scratch:
            archive = _pack(spec, Path(scratch))
            _unpack(archive, Path(scratch))
            (Path(scratch) / "package").rename(target)
    return target


def _unpack(archive: Path, directory: Path) -> None:
    """The plain files of a package: Debian's Python 3.11.2 knows no ``filter`` of ``extractall`` yet."""
    with tarfile.open(archive) as packed:
        for member in packed.getmembers():
            content = packed.extractfile(member) if member.isfile() else None
            target = (directory / member.name).resolve()
            if content is not None and target.is_relative_to(directory.resolve()):
                target.parent.mkdir(parents=True, exist_ok=True)
                target.write_bytes(content.read())


def _pack(spec: str, directory: Path) -> Path:
    command = ["npm", "pack", spec, "--json", "--ignore-scripts", "--pack-destination", str(directory)]
    try:
        done = subprocess.run(command, cwd=directory, capture_output=True, text=True, timeout=120, check=True)
    except subprocess.TimeoutExpired:
        unavailable(f"npm did not fetch {spec} within 120 s")
    except subprocess.CalledProcessError as error:
        unavailable(f"npm could not fetch {spec}: {error.stderr.strip()}")
    return directory / str(json.loads(done.stdout)[0]["filename"])


def static_paths(packages: Mapping[str, Path]) -> dict[str, Path]:
    """What the embedded server has to serve for :meth:`WebClient.join`."""
    return {"/client": ROOT / "tests" / "browser", **{f"/web/{name}": path for name, path in packages.items()}}


# --- browser and page ---------------------------------------------------------------------------------------


@asynccontextmanager
async def chromium() -> AsyncIterator[Browser]:
    """Debian's Chromium with a camera and a microphone that are no real ones; closed at the end."""
    async with async_playwright() as playwright:
        browser = await playwright.chromium.launch(executable_path=shutil.which("chromium"), args=list(_ARGUMENTS))
        try:
            yield browser
        finally:
            await browser.close()


@dataclass(frozen=True)
class Picture:
    """What a page shows of somebody. ``luma`` is rows x columns, 0 to 255; ``frames`` were presented so far."""

    width: int
    height: int
    frames: int
    luma: NDArray[np.uint8]

    def changed(self, other: Picture) -> float:
        """Share of the pixels that differ by more than a codec's noise does (40 of 255)."""
        difference = np.abs(self.luma.astype(np.int16) - other.luma.astype(np.int16))
        return float((difference > 40).mean())


class WebClient:
    """A page with lib-jitsi-meet in it. What it says and hears is kept in ``dialogue`` and ``console``."""

    def __init__(self, context: BrowserContext, page: Page) -> None:
        self.page = page
        #: Endpoint id, known when it has joined.
        self.endpoint = ""
        #: Text frames of its WebSockets, ``>>>`` sent and ``<<<`` received.
        self.dialogue: list[str] = []
        self.console: list[str] = []
        self._context = context
        page.on("websocket", self._listen)
        page.on("console", lambda message: self.console.append(f"{message.type}: {message.text}"))
        page.on("pageerror", lambda error: self.console.append(f"page error: {error}"))

    @classmethod
    @asynccontextmanager
    async def open(cls, browser: Browser, output: str) -> AsyncIterator[WebClient]:
        """An empty page; at its end what was said is written to ``test-output/OUTPUT-*.txt``."""
        context = await browser.new_context(viewport={"width": 1000, "height": 840})
        client = cls(context, await context.new_page())
        try:
            yield client
        finally:
            client.write(output)
            await context.close()

    async def join(self, server_url: str, room: str, name: str, *, height: int = 360, **options: Any) -> None:
        """Load the page from the server at ``server_url`` (ws://…) and join; ``options`` of the conference."""
        await self.page.goto(server_url.replace("ws://", "http://") + "/client/index.html")
        wanted = {"url": server_url, "domain": "meet.jitsi", "room": room, "name": name, "height": height}
        self.endpoint = await self._call("join", {**wanted, "options": options})

    def write(self, output: str) -> None:
        """Keep console and dialogue."""
        OUTPUT.mkdir(exist_ok=True)
        (OUTPUT / f"{output}-console.txt").write_text("\n".join(self.console) + "\n")
        (OUTPUT / f"{output}-dialogue.txt").write_text("\n".join(self.dialogue) + "\n")

    async def screenshot(self, output: str) -> Path:
        """Write ``test-output/OUTPUT.png``."""
        OUTPUT.mkdir(exist_ok=True)
        path = OUTPUT / f"{output}.png"
        await self.page.screenshot(path=path)
        return path

    # --- what it sees ----------------------------------------------------------------------------------------

    async def events(self, name: str) -> list[Stats]:
        """Events of the conference with this name, see client.js."""
        return [event for event in await self._call("events") if event["name"] == name]

    async def participants(self) -> list[str]:
        """Endpoint ids of the others in the room."""
        return [str(endpoint) for endpoint in await self._call("participants")]

    async def inbound(self, endpoint: str, kind: str) -> Stats:
        """The inbound-rtp statistics of an endpoint's ``audio`` or ``video``; empty while there are none."""
        for entry in await self._call("stats"):
            if (entry["type"], entry["endpoint"], entry["kind"]) == ("inbound-rtp", endpoint, kind):
                return dict(entry)
        return {}

    async def picture(self, endpoint: str) -> Picture | None:
        """What is shown of ``endpoint``, None before its first frame."""
        found = await self._call("picture", endpoint)
        if found is None:
            return None
        luma = np.frombuffer(base64.b64decode(found["luma"]), dtype=np.uint8)
        width, height = found["width"], found["height"]
        return Picture(width, height, found["frames"], luma.reshape(height, width))

    # --- what it does ----------------------------------------------------------------------------------------

    async def constrain(self, max_height: int) -> None:
        """Ask the bridge for pictures of at most ``max_height`` pixels."""
        await self._call("constrain", max_height)

    async def mute(self, media: str) -> None:
        """Mute our ``audio`` or ``video``."""
        await self._call("mute", media)

    async def remove_track(self, media: str) -> None:
        """Take our ``audio`` or ``video`` out of the conference."""
        await self._call("removeTrack", media)

    async def leave(self) -> None:
        """Leave the room and disconnect."""
        await self._call("leave")

    async def crash(self) -> None:
        """End the page's process as a browser that is killed does: no handler runs, nobody says goodbye."""
        session = await self._context.new_cdp_session(self.page)
        crashed = asyncio.Event()
        self.page.once("crash", lambda _: crashed.set())
        call = asyncio.ensure_future(session.send("Page.crash"))  # a page that is gone does not answer
        try:
            await asyncio.wait_for(crashed.wait(), 10)
        finally:
            call.cancel()
            await asyncio.gather(call, return_exceptions=True)

    async def _call(self, method: str, *arguments: Any) -> Any:
        return await self.page.evaluate("([name, values]) => client[name](...values)", [method, arguments])

    def _listen(self, socket: WebSocket) -> None:
        self.dialogue.append(f"--- open {socket.url}")
        socket.on("framesent", lambda frame: self.dialogue.append(f">>> {_text(frame)}"))
        socket.on("framereceived", lambda frame: self.dialogue.append(f"<<< {_text(frame)}"))
        socket.on("close", lambda _: self.dialogue.append(f"--- close {socket.url}"))


def _text(frame: str | bytes) -> str:
    return frame if isinstance(frame, str) else frame.hex()


async def until(check: Callable[[], Any], what: str, seconds: float = 20.0) -> Any:
    """The first true value of the coroutine function ``check``; fails with ``what`` where none comes."""
    try:
        async with asyncio.timeout(seconds):
            while True:
                if found := await check():
                    return found
                await asyncio.sleep(0.1)
    except TimeoutError:
        raise AssertionError(f"within {seconds:.0f} s not: {what}") from None
