"""The API's operations, and the OpenAPI document that is made of them. Pure."""

from __future__ import annotations

import re
from collections.abc import Awaitable, Callable, Iterable, Mapping
from dataclasses import dataclass, field
from http import HTTPStatus
from typing import Any, Literal

from pydantic import BaseModel
from pydantic.json_schema import JsonSchemaMode, models_json_schema

from bot import __version__
from bot.control.auth import Scope
from bot.control.model import ID
from bot.control.problems import CONTENT_TYPE, Problem

PREFIX = "/api/v1"
_REF = "#/components/schemas/{model}"
_PARAMETER = re.compile(r"\{(\w+)\}")
#: What the parts of paths may be.
PATTERNS = {"id": ID, "file": r"^[A-Za-z0-9_-][^/\\\u0000-\u001f\u007f]{0,254}$"}


@dataclass(frozen=True, slots=True, kw_only=True)
class Operation:
    """One method of one path. ``answers`` are models, or media types of what is no JSON, by status."""

    method: Literal["get", "put", "post", "patch", "delete"]
    path: str
    name: str
    summary: str
    handler: Callable[..., Awaitable[Any]]
    scope: Scope | None = Scope.READ
    body: type[BaseModel] | None = None
    query: type[BaseModel] | None = None
    answers: Mapping[int, type[BaseModel] | str | None] = field(default_factory=dict)
    #: Refusals beside those that every operation of its kind has.
    refusals: tuple[int, ...] = ()
    #: Whether it creates what would have to leave at once while the daemon ends.
    creates: bool = False
    #: Whether a ticket in the query does in the place of a token.
    ticket: bool = False

    @property
    def parameters(self) -> list[str]:
        """The variable parts of the path."""
        return _PARAMETER.findall(self.path)

    @property
    def problems(self) -> list[int]:
        """The statuses of all refusals."""
        found = {400, *self.refusals}
        if self.scope is not None:
            found |= {401, 403}
        if self.parameters:
            found |= {404, 422}
        if self.query is not None:
            found |= {422}
        if self.body is not None:
            found |= {413, 415, 422}
        if self.creates:
            found |= {409, 503}
        return sorted(found)


def document(operations: Iterable[Operation]) -> dict[str, Any]:
    """The OpenAPI 3.1 document."""
    operations = list(operations)
    refs, definitions = _schemas(operations)
    paths: dict[str, dict[str, Any]] = {}
    for operation in operations:
        paths.setdefault(PREFIX + operation.path, {})[operation.method] = _operation(operation, refs)
    return {
        "openapi": "3.1.0",
        "info": {
            "title": "jitsi-bot",
            "version": __version__,
            "description": "Participants, recordings, load runs and probes of one daemon.",
            "license": {"name": "Apache-2.0", "identifier": "Apache-2.0"},
        },
        "paths": paths,
        "components": {
            "schemas": definitions,
            "securitySchemes": {"token": {"type": "http", "scheme": "bearer"}},
            "responses": {"Problem": _problem(refs)},
        },
    }


def _schemas(operations: Iterable[Operation]) -> tuple[dict[Any, Any], dict[str, Any]]:
    wanted: dict[tuple[type[BaseModel], JsonSchemaMode], None] = {(Problem, "serialization"): None}
    for operation in operations:
        if operation.body is not None:
            wanted[operation.body, "validation"] = None
        for model in operation.answers.values():
            if isinstance(model, type):
                wanted[model, "serialization"] = None
    refs, found = models_json_schema(list(wanted), ref_template=_REF)
    return refs, found["$defs"]


def _operation(operation: Operation, refs: Mapping[Any, Any]) -> dict[str, Any]:
    found: dict[str, Any] = {
        "operationId": operation.name,
        "summary": operation.summary,
        "tags": [operation.path.split("/")[1]],
        "parameters": [*_path_parameters(operation), *_query_parameters(operation)],
        "responses": {str(status): _answer(status, kind, refs) for status, kind in operation.answers.items()},
    }
    for status in operation.problems:
        found["responses"][str(status)] = {"$ref": "#/components/responses/Problem"}
    if operation.scope is not None:
        found["security"] = [{"token": []}]
        found["description"] = f"Needs a token of scope `{operation.scope}`, where the daemon has any."
    if operation.body is not None:
        schema = refs[operation.body, "validation"]
        found["requestBody"] = {"required": True, "content": {"application/json": {"schema": schema}}}
    return found


def _path_parameters(operation: Operation) -> list[dict[str, Any]]:
    return [
        {"name": name, "in": "path", "required": True, "schema": {"type": "string", "pattern": PATTERNS[name]}}
        for name in operation.parameters
    ]


def _query_parameters(operation: Operation) -> list[dict[str, Any]]:
    if operation.query is None:
        return []
    found = []
    for name, schema in operation.query.model_json_schema()["properties"].items():
        text = schema.pop("description", "")
        schema.pop("title", None)
        found.append({"name": name, "in": "query", "required": False, "description": text, "schema": schema})
    return found


def _answer(status: int, kind: type[BaseModel] | str | None, refs: Mapping[Any, Any]) -> dict[str, Any]:
    text = HTTPStatus(status).phrase
    if kind is None:
        return {"description": text}
    if isinstance(kind, str):
        return {"description": text, "content": {kind: {"schema": {"type": "string"}}}}
    return {"description": text, "content": {"application/json": {"schema": refs[kind, "serialization"]}}}


def _problem(refs: Mapping[Any, Any]) -> dict[str, Any]:
    schema = refs[Problem, "serialization"]
    return {"description": "Why it was refused (RFC 9457)", "content": {CONTENT_TYPE: {"schema": schema}}}
