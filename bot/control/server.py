"""The API over HTTP: who asks, is it well-formed, which operation, and how it is answered."""

from __future__ import annotations

import re
from collections.abc import Awaitable, Callable
from typing import Any, TypeVar
from urllib.parse import urlsplit

import structlog
from aiohttp import web
from pydantic import BaseModel, ValidationError

from bot.control import loads, overview, participants, probes, recordings
from bot.control.auth import Scope, allows
from bot.control.console import add_console
from bot.control.openapi import PATTERNS, PREFIX, Operation, document
from bot.control.options import is_loopback
from bot.control.overview import EVENT_STREAM, wanted
from bot.control.problems import CONTENT_TYPE, RequestError, invalid, not_found
from bot.control.service import AnyCall, Call, FileReply, Reply, Service

log = structlog.get_logger(__name__)

Handler = Callable[[web.Request], Awaitable[web.StreamResponse]]
M = TypeVar("M", bound=BaseModel)
OPERATIONS: tuple[Operation, ...] = (
    *overview.OPERATIONS,
    *participants.OPERATIONS,
    *recordings.OPERATIONS,
    *loads.OPERATIONS,
    *probes.OPERATIONS,
)
#: Seconds without an event after which a stream says that it is alive: proxies end what is silent.
HEARTBEAT = 15.0
_JSON = "application/json"


def make_app(service: Service) -> web.Application:
    """The application of the API."""
    app = web.Application(middlewares=[_problems], client_max_size=service.api.max_body)
    add_console(app)
    described = document(OPERATIONS)

    async def openapi(_: web.Request) -> web.Response:
        return web.json_response(described)

    app.router.add_get(f"{PREFIX}/openapi.json", openapi)
    for operation in OPERATIONS:
        app.router.add_route(operation.method, PREFIX + operation.path, _endpoint(service, operation))
    return app


@web.middleware
async def _problems(request: web.Request, handler: Handler) -> web.StreamResponse:
    """Every refusal is a problem document; what nobody thought of is one, too, and is logged."""
    try:
        return await handler(request)
    except RequestError as error:
        return _refusal(error)
    except web.HTTPException as error:
        if error.status < 400:
            raise
        headers = {"Allow": error.headers["Allow"]} if "Allow" in error.headers else {}
        code = error.reason.lower().replace(" ", "_")
        return _refusal(RequestError(error.status, code, error.reason, headers=headers))
    except Exception:
        log.exception("A request failed", event_name="request_failed", path=request.path, method=request.method)
        return _refusal(RequestError(500, "internal", "the daemon failed; its log has the reason"))


def _refusal(error: RequestError) -> web.Response:
    problem = error.problem
    return web.Response(
        status=problem.status, text=problem.model_dump_json(), content_type=CONTENT_TYPE, headers=error.headers
    )


def _endpoint(service: Service, operation: Operation) -> Handler:
    async def endpoint(request: web.Request) -> web.StreamResponse:
        scope = authorize(service, request, operation)
        if operation.creates and service.draining:
            raise RequestError(503, "draining", "the daemon ends", headers={"Retry-After": "30"})
        call: AnyCall = Call(
            scope=scope,
            path=_path(operation, request),
            body=await _body(operation, request),
            query=_query(operation, request),
        )
        if EVENT_STREAM in operation.answers.values():
            return await _stream(service, call, request)
        reply: Reply = await operation.handler(service, call)
        if isinstance(reply, FileReply):
            return _file(reply)
        if reply.body is None:
            return web.Response(status=reply.status, headers=reply.headers)
        text = reply.body.model_dump_json()
        return web.Response(status=reply.status, text=text, content_type=_JSON, headers=reply.headers)

    return endpoint


def _file(reply: FileReply) -> web.StreamResponse:
    """A file, whole or a range of it; whatever is in it runs nothing here."""
    headers = {
        "Content-Type": reply.content_type,
        "Content-Security-Policy": "default-src 'none'; style-src 'unsafe-inline'; img-src data:; sandbox",
        "X-Content-Type-Options": "nosniff",
        "Cache-Control": "private, no-cache",
    }
    return web.FileResponse(reply.file, headers=headers)


# --- who asks ------------------------------------------------------------------------------------------------


def authorize(service: Service, request: web.Request, operation: Operation) -> Scope:
    """The scope of the request. Raises RequestError where it is none, or too small."""
    tokens, needed = service.tokens, operation.scope or Scope.READ
    if operation.ticket and service.tickets.holds(request.path, request.query.get("ticket", "")):
        return Scope.READ
    if tokens.open:
        _check_local(request)
        return Scope.OPERATE
    scope = tokens.scope_of(request.headers.get("Authorization"))
    if scope is None:
        challenge = {"WWW-Authenticate": 'Bearer realm="jitsi-bot"'}
        raise RequestError(401, "unauthorized", "a bearer token is needed", headers=challenge)
    if not allows(scope, needed):
        challenge = {"WWW-Authenticate": f'Bearer error="insufficient_scope", scope="{needed}"'}
        raise RequestError(403, "forbidden", f"the token is not for {needed}", headers=challenge)
    return scope


def _check_local(request: web.Request) -> None:
    """Without tokens, let no web page of elsewhere operate the bots through the user's browser.

    Its requests carry its ``Origin``; and where its name was made to resolve to this machine (DNS rebinding), the
    ``Host`` is that name.
    """
    host = urlsplit(f"//{request.headers.get('Host', '')}")
    origin = request.headers.get("Origin")
    if not is_loopback(_hostname(host.netloc)):
        raise RequestError(403, "foreign_host", "without a token only loopback's own names are answered")
    if origin is not None and urlsplit(origin).netloc != host.netloc:
        raise RequestError(403, "foreign_origin", "without a token other sites' pages are not answered")


def _hostname(netloc: str) -> str:
    try:
        return urlsplit(f"//{netloc}").hostname or ""
    except ValueError:
        return ""


# --- is it well-formed ---------------------------------------------------------------------------------------


def _path(operation: Operation, request: web.Request) -> dict[str, str]:
    found = {name: request.match_info[name] for name in operation.parameters}
    for name, value in found.items():
        if not re.fullmatch(PATTERNS[name].removeprefix("^").removesuffix("$"), value):
            if operation.method == "put":
                raise RequestError(422, "invalid", f"path.{name}: does not match {PATTERNS[name]}")
            raise not_found(f"{name} of this form")
    return found


async def _body(operation: Operation, request: web.Request) -> BaseModel | None:
    if operation.body is None:
        return None
    if request.content_type != _JSON:
        raise RequestError(415, "unsupported_media_type", f"the body is {_JSON}")
    try:
        return operation.body.model_validate_json(await request.read())
    except ValidationError as error:
        raise invalid("body", error) from error


def _query(operation: Operation, request: web.Request) -> BaseModel | None:
    if operation.query is None:
        return None
    if len(request.query) != len(set(request.query)):
        raise RequestError(422, "invalid", "query: a parameter is given twice")
    try:
        return operation.query.model_validate(dict(request.query))
    except ValidationError as error:
        raise invalid("query", error) from error


# --- streams -------------------------------------------------------------------------------------------------


async def _stream(service: Service, call: Call[None, Any], request: web.Request) -> web.StreamResponse:
    """Server-sent events until the client goes, or the daemon ends."""
    headers = {
        "Content-Type": f"{EVENT_STREAM}; charset=utf-8",
        "Cache-Control": "no-store",
        "X-Accel-Buffering": "no",
    }
    response = web.StreamResponse(headers=headers)
    await response.prepare(request)
    await response.write(b": jitsi-bot\n\n")
    last = request.headers.get("Last-Event-ID")
    seen = service.events.after(last) if last is not None else service.events.newest
    events = service.events.follow(seen, wanted(call.query), HEARTBEAT)
    try:
        async for part in events:
            await response.write(part)
    except ConnectionResetError:
        pass  # the client is gone
    finally:
        await events.aclose()
    return response
