"""The page's app: its routes, its headers, and what it answers when something goes wrong."""

from __future__ import annotations

import mimetypes
from typing import Annotated
from urllib.parse import urlencode

import structlog
from fastapi import Depends, FastAPI, HTTPException, Request
from fastapi.exceptions import RequestValidationError
from fastapi.responses import JSONResponse, Response
from starlette.datastructures import MutableHeaders
from starlette.exceptions import HTTPException as StarletteHTTPException
from starlette.types import Message, Receive, Scope, Send

from ownership.domain.errors import OwnershipError, SettingsError
from ownership.page.access import MayRead
from ownership.page.api.app import api, described
from ownership.page.rendering import STATIC, rendered
from ownership.page.routes import actions, imports, lists, questions, transfers
from ownership.page.store import Store, process_store

log = structlog.get_logger(__name__)

HEADERS = {
    # Nothing from elsewhere, nothing inline; Airflow itself shows the page in a frame.
    "content-security-policy": "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self'; "
    "connect-src 'self'; form-action 'self'; frame-ancestors 'self'; base-uri 'none'",
    "x-content-type-options": "nosniff",
    "x-frame-options": "SAMEORIGIN",
    "referrer-policy": "same-origin",
    "cross-origin-resource-policy": "same-origin",
    "cache-control": "no-store",
}

app = FastAPI(title="Ownership transfers", docs_url=None, redoc_url=None, openapi_url=None)
for routes in (lists, questions, transfers, actions, imports):
    app.include_router(routes.router, dependencies=[MayRead])
app.include_router(imports.files, dependencies=[MayRead])
app.mount("/api/v1", api)


class Secured:
    """The app with its headers on every answer, those of refusals and errors too."""

    def __init__(self, inner: FastAPI) -> None:
        self._inner = inner

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer one request."""

        async def secured(message: Message) -> None:
            if message["type"] == "http.response.start":
                headers = MutableHeaders(scope=message)
                for name, value in HEADERS.items():
                    headers.setdefault(name, value)
            await send(message)

        await self._inner(scope, receive, secured)


page = Secured(app)


@app.get("/static/{name}")
def static(name: str) -> Response:
    """The style sheet, the script or an icon: for everybody, because the page that asks to sign in needs them, too."""
    if name not in STATIC:
        raise HTTPException(404, "There is no such file.")
    kind = mimetypes.guess_type(name)[0] or "application/octet-stream"
    return Response(STATIC[name], media_type=kind, headers={"cache-control": "private, max-age=3600"})


@app.get("/api", dependencies=[MayRead])
def what_the_api_can_do() -> Response:
    """The operations of the API, with a link to its OpenAPI."""
    operations = [
        (method.upper(), path, operation["summary"])
        for path, methods in described()["paths"].items()
        for method, operation in methods.items()
    ]
    return rendered("api.html", operations=operations)


@app.get("/report")
def report(store: Annotated[Store, Depends(process_store)]) -> Response:
    """Have this API server report itself to the ledger, as any request does: health asks so, without a login."""
    store.report()
    return JSONResponse({})


_TITLES = {
    401: "You are not signed in",
    403: "You may not do this",
    404: "Not found",
    409: "This no longer applies",
}


@app.exception_handler(StarletteHTTPException)
def refused(request: Request, error: Exception) -> Response:
    """A refused request, as a page."""
    assert isinstance(error, StarletteHTTPException)  # noqa: S101  # registered for these
    status = error.status_code
    text = {
        401: "Sign in to Airflow; this page is shown afterwards.",
        403: error.detail if "form" in str(error.detail) else "Your role in Airflow does not allow it.",
    }.get(status, str(error.detail))
    title = _TITLES.get(status, "The request failed")
    return rendered("error.html", status, status=status, title=title, text=text, login=_login_href(request))


def _login_href(request: Request) -> str:
    """Airflow's login, which leads back: to what was asked for, or from a form to the list."""
    asked = str(request.url.replace(scheme="", netloc=""))
    back = asked if request.method == "GET" else f"{request.scope['root_path']}/"
    return f"../api/v2/auth/login?{urlencode({'next': back})}"


@app.exception_handler(RequestValidationError)
def wrong(request: Request, error: Exception) -> Response:  # noqa: ARG001  # Starlette's signature
    """A request whose parameters are not valid."""
    text = "A part of the address is too long, or has characters that it cannot have."
    return rendered("error.html", 422, status=422, title="The request failed", text=text)


@app.exception_handler(OwnershipError)
def unreachable(request: Request, error: Exception) -> Response:  # noqa: ARG001  # Starlette's signature
    """The page for a ledger that is unreachable or not set up."""
    log.warning("page cannot read the ledger", why=str(error))
    title = "The page is not set up" if isinstance(error, SettingsError) else "The ledger is unreachable"
    return rendered("error.html", 503, status=503, title=title, text=str(error)[:600])
