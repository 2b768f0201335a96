"""The console: a page at ``/`` that shows and operates the daemon by its API. Three files, as they are."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from importlib import resources

from aiohttp import web

#: What the page may do: run its own script, look as its own sheet says, and talk to its own daemon.
POLICY = (
    "default-src 'none'; script-src 'self'; style-src 'self'; connect-src 'self'; media-src 'self'; "
    "img-src 'self' data:; base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
)
FILES = {
    "/": ("index.html", "text/html"),
    "/console.css": ("console.css", "text/css"),
    "/console.js": ("console.js", "text/javascript"),
}


def add_console(app: web.Application) -> None:
    """Serve the page. It holds no secret: whoever sees it needs a token for all that it asks."""
    for path, (name, kind) in FILES.items():
        text = resources.files("bot.control").joinpath("page", name).read_text(encoding="utf-8")
        app.router.add_get(path, _serves(text, kind))


def _serves(text: str, kind: str) -> Callable[[web.Request], Awaitable[web.Response]]:
    headers = {
        "Content-Security-Policy": POLICY,
        "X-Content-Type-Options": "nosniff",
        "Referrer-Policy": "no-referrer",
        "Cache-Control": "no-cache",
    }

    async def serve(_: web.Request) -> web.Response:
        return web.Response(text=text, content_type=kind, charset="utf-8", headers=headers)

    return serve
