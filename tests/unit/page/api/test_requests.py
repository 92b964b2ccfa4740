"""What the API answers before a route sees a request, and how it says what is wrong."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from typing import Annotated, Any

import httpx
import pytest
from fastapi import APIRouter, FastAPI, HTTPException, Query
from pydantic import BaseModel

from ownership.domain.errors import SettingsError, Unavailable
from ownership.page import access
from ownership.page.api import problems
from ownership.page.api.requests import MAX_BODY, JsonRoute

JSON = {"content-type": "application/json"}


class Body(BaseModel):
    to_user: str
    more: list[int] = []


def an_app(refusal: int = 0) -> FastAPI:
    """An app, where every user may read, or is refused with this status."""

    def user() -> None:
        if refusal:
            raise HTTPException(refusal)

    signed_in = access.User.__metadata__[0].dependency  # type: ignore[attr-defined]  # an Annotated
    app = FastAPI()
    app.dependency_overrides |= {signed_in: user, access.MayRead.dependency: lambda: None}
    router = APIRouter(route_class=JsonRoute)

    @router.post("/things")
    def things(body: Body) -> str:
        return body.to_user

    @router.get("/things")
    def one(n: Annotated[int, Query(le=9)]) -> str:
        raise {
            1: Unavailable("the ledger", "gone"),
            2: SettingsError("set it"),
            3: HTTPException(409, "not now"),
            4: problems.wrong_field("digest", "is another"),
        }[n]

    app.include_router(router)
    problems.add_handlers(app)
    return app


def asked(method: str, address: str, *, refusal: int = 0, **how: Any) -> httpx.Response:
    async def answered() -> httpx.Response:
        transport = httpx.ASGITransport(an_app(refusal))
        async with httpx.AsyncClient(transport=transport, base_url="http://api") as client:
            return await client.request(method, address, **how)

    return asyncio.run(answered())


def problem(answer: httpx.Response) -> problems.Problem:
    assert answer.headers["content-type"] == "application/problem+json"
    found = problems.Problem.model_validate_json(answer.content)
    assert found.status == answer.status_code
    return found


def test_a_json_body_is_taken() -> None:
    answer = asked("POST", "/things", json={"to_user": "u"})
    assert (answer.status_code, answer.json()) == (200, "u")


@pytest.mark.parametrize(
    "kind", ["", "text/plain", "application/x-www-form-urlencoded", "multipart/form-data", "text/json"]
)
def test_a_body_that_a_form_of_elsewhere_can_send_is_refused(kind: str) -> None:
    answer = asked("POST", "/things", content=b'{"to_user": "u"}', headers={"content-type": kind})
    assert problem(answer).status == 415


def test_a_body_beyond_the_limit_is_refused_by_what_it_has_not_by_what_it_says() -> None:
    async def endless() -> AsyncIterator[bytes]:
        while True:
            yield b" " * 65_536

    big = b'{"to_user": "' + b"u" * MAX_BODY + b'"}'
    assert problem(asked("POST", "/things", content=big, headers=JSON)).status == 413
    assert problem(asked("POST", "/things", content=endless(), headers=JSON)).status == 413


@pytest.mark.parametrize(
    ("content", "status", "field"),
    [
        (b"{}", 422, "to_user"),
        (b'{"to_user": "u", "more": [1, "x"]}', 422, "more.1"),
        (b"[]", 422, ""),
        (b"{", 422, ""),
        (b'{"to_user": "\xff"}', 400, None),
        (b"[" * 100_000, 400, None),
        (b"", 422, ""),
    ],
)
def test_a_body_that_is_wrong_is_answered_with_its_field(
    content: bytes, status: int, field: str | None
) -> None:
    found = problem(asked("POST", "/things", content=content, headers=JSON))
    assert found.status == status
    assert [e.field for e in found.errors][:1] == ([] if field is None else [field])


@pytest.mark.parametrize("refusal", [401, 403])
@pytest.mark.parametrize("kind", ["application/json", "text/plain"])
@pytest.mark.parametrize("content", [b"{", b"{}", b"", b"\xff", b" " * (MAX_BODY + 1)])
def test_nothing_is_said_about_a_body_of_somebody_who_may_not_read(
    content: bytes, kind: str, refusal: int
) -> None:
    answer = asked("POST", "/things", content=content, headers={"content-type": kind}, refusal=refusal)
    assert problem(answer).status == refusal


@pytest.mark.parametrize(
    ("n", "status", "kind"),
    [
        (1, 503, "urn:ownership:problem:ledger"),
        (2, 503, "urn:ownership:problem:ledger"),
        (3, 409, "about:blank"),
        (4, 422, "about:blank"),
        (10, 422, "about:blank"),
    ],
)
def test_every_error_is_a_problem(n: int, status: int, kind: str) -> None:
    found = problem(asked("GET", "/things", params={"n": n}))
    assert (found.status, found.type) == (status, kind)
    if status == 422:
        assert found.errors[0].field in ("digest", "n")


def test_an_address_and_a_method_that_are_not_there_are_problems_too() -> None:
    assert problem(asked("GET", "/nothing")).status == 404
    assert problem(asked("PUT", "/things")).status == 405
