"""What recordings, load runs and probes have in common: files, and operations on one of them."""

from __future__ import annotations

import mimetypes
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any
from urllib.parse import quote

from pydantic import BaseModel

from bot.control.auth import Scope
from bot.control.jobmodel import FileQuery, FileView
from bot.control.openapi import PREFIX, Operation
from bot.control.service import AnyCall, FileReply, Reply, Service
from bot.control.shelf import file_of, files_in, size_of

ANY_TYPE = "*/*"
#: Types that this program writes, where the system's table may not know them.
_TYPES = {".mkv": "video/x-matroska", ".webm": "video/webm", ".mka": "audio/x-matroska", ".vtt": "text/vtt"}


def file_views(service: Service, kind: str, name: str, folder: Path) -> list[FileView]:
    """The files of a folder, with addresses that need no token."""
    return [_view(service, f"{PREFIX}/{kind}/{name}/files/", item) for item in files_in(folder)]


def _view(service: Service, folder: str, file: Path) -> FileView:
    ticket = service.tickets.make(folder + file.name)
    return FileView(name=file.name, bytes=size_of(file), url=f"{folder}{quote(file.name)}?ticket={ticket}")


def download(folder: Path, call: AnyCall) -> Reply:
    """The file that is asked for. Raises RequestError."""
    file = file_of(folder, call.path["file"])
    return FileReply(200, file=file, content_type=_TYPES.get(file.suffix) or _guessed(file.name))


def _guessed(name: str) -> str:
    return mimetypes.guess_type(name)[0] or "application/octet-stream"


Handler = Callable[[Service, AnyCall], Awaitable[Reply]]


def operations_on(
    kind: str,
    *,
    noun: str,
    view: type[BaseModel],
    show: Handler,
    stop: Handler,
    forget: Handler,
    file: Handler | None = None,
) -> tuple[Operation, ...]:
    """What can be done with one job of a kind."""
    one, word = f"/{kind}/{{id}}", kind.removesuffix("s")
    found: list[Any] = [
        Operation(
            method="get", path=one, name=f"get{noun}", summary=f"One {word}", handler=show, answers={200: view}
        ),
        Operation(
            method="post",
            path=f"{one}/stop",
            name=f"stop{noun}",
            summary=f"End a {word}, and keep what it has; what has ended stays so",
            handler=stop,
            scope=Scope.OPERATE,
            answers={202: view},
        ),
        Operation(
            method="delete",
            path=one,
            name=f"forget{noun}",
            summary=f"Free the id of a {word} that has ended; its files stay",
            handler=forget,
            scope=Scope.OPERATE,
            answers={204: None},
            refusals=(409,),
        ),
    ]
    if file is not None:
        found.append(
            Operation(
                method="get",
                path=f"{one}/files/{{file}}",
                name=f"get{noun}File",
                summary=f"A file of a {word}",
                handler=file,
                query=FileQuery,
                answers={200: ANY_TYPE, 206: ANY_TYPE},
                refusals=(416,),
                ticket=True,
            )
        )
    return tuple(found)
