"""The API's app: its routers and its OpenAPI."""

from __future__ import annotations

from typing import Any

from fastapi import FastAPI
from fastapi.openapi.utils import get_openapi
from fastapi.responses import JSONResponse, Response

from ownership.page.access import MayRead
from ownership.page.api import exports, health, imports, orders, problems, questions, transfers
from ownership.page.api.requests import JsonRoute, KnownParameters

api = FastAPI(
    title="Ownership transfers",
    version="1",
    dependencies=[MayRead, KnownParameters],
    responses=problems.RESPONSES,
    docs_url=None,
    redoc_url=None,
    openapi_url=None,
    # A redirect has the scheme that the server hears, which behind a proxy may be without TLS: a token would follow it.
    redirect_slashes=False,
)
api.router.route_class = JsonRoute
problems.add_handlers(api)
for routes in (transfers, questions, orders, imports, exports, health):
    api.include_router(routes.router)
api.include_router(imports.files)


def described() -> dict[str, Any]:
    """The OpenAPI of the routes. Errors have their own media type, which FastAPI knows no way to say."""
    found = get_openapi(title=api.title, version=api.version, routes=api.routes)
    for path in found["paths"].values():
        for operation in path.values():
            for status, response in operation["responses"].items():
                content = response.get("content", {})
                if int(status) >= 400 and "application/json" in content:
                    response["content"] = {problems.MEDIA_TYPE: content["application/json"]}
    # Relative: Airflow may be served below any path.
    return found | {"servers": [{"url": "."}]}


@api.get("/openapi.json", include_in_schema=False)
def openapi() -> Response:
    """The OpenAPI of these routes."""
    return JSONResponse(described())
