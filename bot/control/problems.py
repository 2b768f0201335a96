"""Answers that say what is wrong: RFC 9457, ``application/problem+json``."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from http import HTTPStatus
from typing import Any

from pydantic import BaseModel, ConfigDict, Field, ValidationError

CONTENT_TYPE = "application/problem+json"


class FieldProblem(BaseModel):
    """What is wrong with one field; ``field`` is where it stands, as ``body.room``."""

    model_config = ConfigDict(extra="forbid")

    field: str
    message: str


class Problem(BaseModel):
    """RFC 9457. ``code`` is stable, as those of the events are; ``detail`` is for people."""

    model_config = ConfigDict(extra="forbid")

    title: str
    status: int = Field(ge=400, le=599)
    code: str
    detail: str
    errors: list[FieldProblem] = Field(default_factory=list)


class RequestError(Exception):
    """A request that is refused, with what its answer says."""

    def __init__(
        self,
        status: int,
        code: str,
        detail: str,
        *,
        errors: Sequence[FieldProblem] = (),
        headers: Mapping[str, str] | None = None,
    ) -> None:
        super().__init__(detail)
        self.headers = dict(headers or {})
        self.problem = Problem(
            title=HTTPStatus(status).phrase, status=status, code=code, detail=detail, errors=list(errors)
        )


def not_found(what: str) -> RequestError:
    """There is no such thing."""
    return RequestError(404, "not_found", f"there is no {what}")


def conflict(code: str, detail: str) -> RequestError:
    """It can't be now."""
    return RequestError(409, code, detail)


def invalid(place: str, error: ValidationError) -> RequestError:
    """What is wrong with the ``body``, ``path`` or ``query``; what was sent is not repeated."""
    return wrong(
        *((_where(place, item["loc"]), item["msg"].removeprefix("Value error, ")) for item in error.errors())
    )


def wrong(*fields: tuple[str, str]) -> RequestError:
    """Fields, and what is wrong with each."""
    errors = [FieldProblem(field=where, message=what) for where, what in fields]
    detail = "; ".join(f"{item.field}: {item.message}" for item in errors)
    return RequestError(422, "invalid", detail, errors=errors)


def _where(place: str, path: Sequence[Any]) -> str:
    return ".".join([place, *map(str, path)])
