"""The API as a page."""

from __future__ import annotations

from fastapi import APIRouter
from fastapi.responses import Response

from ownership.page.api.app import described
from ownership.page.rendering import rendered

router = APIRouter()


@router.get("/api")
def api() -> Response:
    """What the API can do, with a link to its OpenAPI."""
    operations = [
        (method.upper(), path, operation["summary"])
        for path, methods in described()["paths"].items()
        for method, operation in methods.items()
    ]
    return rendered("api.html", operations=operations)
