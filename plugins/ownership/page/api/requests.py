"""What a body may be: JSON, of bounded size.

A page of elsewhere can make a browser send a form with the user's cookie, but no JSON: that needs the server's consent.
"""

from __future__ import annotations

from collections.abc import Callable, Coroutine
from typing import Any, Final

from fastapi import HTTPException, Request
from fastapi.responses import Response
from fastapi.routing import APIRoute
from starlette.types import Message, Receive

MAX_BODY: Final = 1_000_000
"""Bytes of a JSON body."""


class JsonRoute(APIRoute):
    """A route that takes a body only as JSON, and at most `MAX_BODY` bytes of it."""

    def get_route_handler(self) -> Callable[[Request], Coroutine[Any, Any, Response]]:
        """FastAPI's own handler, with a bounded body."""
        handle = super().get_route_handler()

        async def bounded(request: Request) -> Response:
            if request.method != "GET":
                check_media_type(request, "application/json")
                request = Request(request.scope, receive_at_most(request.receive, MAX_BODY))
            return await handle(request)

        return bounded


def check_media_type(request: Request, *allowed: str) -> None:
    """Answer 415 unless the body says that it is of one of these types."""
    given = request.headers.get("content-type", "").partition(";")[0].strip().lower()
    if given not in allowed:
        raise HTTPException(415, f"Send the body with Content-Type {' or '.join(allowed)}.")


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
