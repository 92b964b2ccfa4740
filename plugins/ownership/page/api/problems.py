"""Errors as `application/problem+json` (RFC 9457)."""

from __future__ import annotations

from collections.abc import Sequence
from http import HTTPStatus
from typing import Any, Final

import structlog
from fastapi import FastAPI, HTTPException, Request
from fastapi.exceptions import RequestValidationError
from fastapi.responses import JSONResponse, Response
from pydantic import BaseModel
from starlette.exceptions import HTTPException as StarletteHTTPException

from ownership.domain.errors import OwnershipError
from ownership.domain.text import one_line

log = structlog.get_logger(__name__)

MEDIA_TYPE: Final = "application/problem+json"
MAX_ERRORS: Final = 100
"""Fields that one answer names."""
WHERE: Final = ("body", "query", "header", "path", "cookie")


class FieldError(BaseModel):
    """What is wrong with a field."""

    field: str
    """Its place, as in `transfers.3.to_user`; empty for the whole body."""
    detail: str


class Problem(BaseModel):
    """An error."""

    type: str
    title: str
    status: int
    detail: str
    errors: list[FieldError] = []


class ProblemError(HTTPException):
    """Answer with a problem of a type of its own, or one that names fields."""

    def __init__(
        self, status: int, detail: str, *, name: str = "", errors: Sequence[FieldError] = ()
    ) -> None:
        super().__init__(status, detail)
        self.name = name
        self.errors = list(errors)


def wrong_field(field: str, detail: str) -> ProblemError:
    """The request cannot be carried out, because of one field."""
    return ProblemError(422, f"{field}: {detail}", errors=[FieldError(field=field, detail=detail)])


RESPONSES: Final[dict[int | str, dict[str, Any]]] = {
    401: {"model": Problem, "description": "Not signed in"},
    403: {"model": Problem, "description": "Not allowed to this user"},
    422: {"model": Problem, "description": "A field is missing or wrong"},
    503: {"model": Problem, "description": "The ledger is unreachable or not set up"},
}
"""Of every route."""
HIDDEN: Final[dict[int | str, dict[str, Any]]] = {
    404: {"model": Problem, "description": "The user may not see the transfers of all organisations"}
}
"""Of a route for those from whom nothing is hidden."""
OF_BODIES: Final[dict[int | str, dict[str, Any]]] = {
    400: {"model": Problem, "description": "The body is no JSON that can be read"},
    413: {"model": Problem, "description": "The body is too large"},
    415: {"model": Problem, "description": "The body is of another media type"},
}
"""Of every route that takes a body."""


def answer(status: int, detail: str, *, name: str = "", errors: Sequence[FieldError] = ()) -> Response:
    """A problem as an answer."""
    title = HTTPStatus(status).phrase
    problem = Problem(
        type=f"urn:ownership:problem:{name}" if name else "about:blank",
        title=title,
        status=status,
        detail=one_line(detail),
        errors=list(errors)[:MAX_ERRORS],
    )
    return JSONResponse(problem.model_dump(), status, media_type=MEDIA_TYPE)


def add_handlers(app: FastAPI) -> None:
    """Every error of `app` becomes a problem."""

    @app.exception_handler(StarletteHTTPException)
    def refused(request: Request, error: StarletteHTTPException) -> Response:  # noqa: ARG001  # Starlette's signature
        problem = error if isinstance(error, ProblemError) else ProblemError(error.status_code, error.detail)
        response = answer(problem.status_code, str(problem.detail), name=problem.name, errors=problem.errors)
        response.headers.update(error.headers or {})
        return response

    @app.exception_handler(RequestValidationError)
    def wrong(request: Request, error: RequestValidationError) -> Response:  # noqa: ARG001  # Starlette's signature
        errors = [field_error(e) for e in error.errors()]
        first = f"{errors[0].field}: {errors[0].detail}" if errors[0].field else errors[0].detail
        more = f" (and {len(errors) - 1} more)" if len(errors) > 1 else ""
        return answer(422, f"{first}{more}", errors=errors)

    @app.exception_handler(OwnershipError)
    def unreachable(request: Request, error: OwnershipError) -> Response:  # noqa: ARG001  # Starlette's signature
        log.warning("the API cannot read the ledger", why=str(error))
        return answer(503, str(error), name="ledger")


def field_error(error: Any) -> FieldError:
    """From pydantic's error; the value is not repeated."""
    if error["type"] == "json_invalid":
        return FieldError(field="", detail=f"The body is no JSON, from character {error['loc'][-1]} on.")
    place = [str(part) for part in error["loc"]]
    if place and place[0] in WHERE:
        place = place[1:] if place[0] == "body" else place[1:2]  # behind a parameter only its kinds are named
    return FieldError(
        field=one_line(".".join(place), 200), detail=one_line(error["msg"].removeprefix("Value error, "), 500)
    )
