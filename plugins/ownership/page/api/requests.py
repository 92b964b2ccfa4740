"""What a request may be: parameters that its route has, and a body of JSON, a form or a file, of bounded size.

A page of elsewhere can make a browser send a form with the user's cookie, but no JSON and no token in a header: these
need the server's consent.
"""

from __future__ import annotations

from typing import Final

from fastapi import Depends, HTTPException, Request
from fastapi.dependencies.utils import get_flat_dependant
from starlette.types import Message, Receive

from ownership.domain.text import one_line
from ownership.page.access import GuardedRoute
from ownership.page.api.problems import wrong_field

MAX_BODY: Final = 1_000_000
"""Bytes of a body that is no file."""


class BoundedRoute(GuardedRoute):
    """A route that takes at most `MAX_BODY` bytes of a body."""

    def bounded(self, request: Request) -> Request:
        """The request with a bounded body."""
        return Request(request.scope, receive_at_most(request.receive, MAX_BODY))


class JsonRoute(BoundedRoute):
    """A route that takes a body only as JSON."""

    def bounded(self, request: Request) -> Request:
        """The request with a bounded body of JSON."""
        check_media_type(request, "application/json")
        return super().bounded(request)


def check_parameters(request: Request) -> None:
    """Answer 422 to a parameter that the route would not read: without a mistyped filter a list has everything."""
    known = sorted(p.alias for p in get_flat_dependant(request.scope["route"].dependant).query_params)
    for name in request.query_params:
        if name not in known:
            advice = f"is no parameter; known are {', '.join(known) or 'none'}"
            raise wrong_field(one_line(name, 200), advice)
        if len(request.query_params.getlist(name)) > 1:
            raise wrong_field(name, "is given more than once")


KnownParameters = Depends(check_parameters)


def check_media_type(request: Request, *allowed: str) -> None:
    """Answer 415 unless the body says that it is of one of these types."""
    if media_type(request) not in allowed:
        raise HTTPException(415, f"Send the body with Content-Type {' or '.join(allowed)}.")


def media_type(request: Request) -> str:
    """What the body says that it is, without parameters."""
    return request.headers.get("content-type", "").partition(";")[0].strip().lower()


def check_bearer(request: Request) -> None:
    """Answer 415 unless the request has a token in its header, which no form of elsewhere can send."""
    if request.headers.get("authorization", "")[:7].lower() != "bearer ":
        raise HTTPException(
            415, "Send a form with Authorization: Bearer …; with a cookie send the file itself."
        )


def receive_at_most(receive: Receive, limit: int) -> Receive:
    """The same body; reading it answers 413 when it has more than `limit` bytes, whatever length its header says."""
    got = 0

    async def counted() -> Message:
        nonlocal got
        message = await receive()
        got += len(message.get("body", b""))
        if got > limit:
            raise HTTPException(413, f"The body has more than {limit:,} bytes.")
        return message

    return counted
