"""The page's routes. Each takes Airflow's own user; reading needs the DAG, acting the right to trigger it."""

from __future__ import annotations

import hashlib
import mimetypes
from collections.abc import Awaitable, Callable, MutableMapping
from pathlib import Path
from typing import Annotated, Any
from urllib.parse import quote

import httpx
import structlog
from fastapi import FastAPI, Form, HTTPException, Query, Request
from fastapi.concurrency import run_in_threadpool
from fastapi.exceptions import RequestValidationError
from fastapi.responses import HTMLResponse, RedirectResponse, Response
from jinja2 import Environment, FileSystemLoader, StrictUndefined
from starlette.exceptions import HTTPException as StarletteHTTPException

from ownership.domain.clock import now_ms
from ownership.domain.conf import MAX_REASON
from ownership.domain.errors import OwnershipError, SettingsError
from ownership.domain.plan import BatchId
from ownership.domain.states import EventState
from ownership.domain.text import printable
from ownership.ledger.events import EventRow
from ownership.ledger.reads import Reads
from ownership.ledger.reads.lists import OPEN, STATES, Filters, ListedEvent, from_cursor
from ownership.page.access import (
    MayRead,
    User,
    check_start,
    form_of,
    form_token,
    is_paused,
    may_start,
    runs_of,
)
from ownership.page.actions import (
    ACTIONS,
    EXECUTE,
    RECONCILE_DAG,
    REHEARSE_UNDO,
    UNDO,
    Action,
    offered,
)
from ownership.page.entry import AIRFLOW
from ownership.page.store import Store
from ownership.page.views import formats, links
from ownership.page.views.batches import change_lines
from ownership.page.views.details import DetailView, detail_view
from ownership.page.views.lists import list_view
from ownership.page.views.messages import message_view
from ownership.page.views.reconciliations import newest_in_short, reconciliations_view
from ownership.reconcile.chart import MAX_BARS as TREND

log = structlog.get_logger(__name__)

HERE = Path(__file__).parent
HEADERS = {
    # Nothing from elsewhere, nothing inline; Airflow itself shows the page in a frame.
    "content-security-policy": "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self'; "
    "connect-src 'self'; form-action 'self'; frame-ancestors 'self'; base-uri 'none'",
    "x-content-type-options": "nosniff",
    "x-frame-options": "SAMEORIGIN",
    "referrer-policy": "same-origin",
    "cross-origin-resource-policy": "same-origin",
}
ENDED = ("success", "failed")
"""States of a run that has ended."""
PREVIEW = 10
"""Batches that a confirmation shows."""
NO_NUL = r"^[^\x00]*$"
"""PostgreSQL's text has no such character."""
MID = Annotated[str, Query(min_length=1, max_length=320, pattern=NO_NUL)]
TEXT = Annotated[str, Query(max_length=320, pattern=NO_NUL)]

Receive = Callable[[], Awaitable[MutableMapping[str, Any]]]
Send = Callable[[MutableMapping[str, Any]], Awaitable[None]]

templates = Environment(
    loader=FileSystemLoader(HERE / "templates"),
    autoescape=True,
    undefined=StrictUndefined,
    trim_blocks=True,
    lstrip_blocks=True,
)
_STATIC = {f.name: f.read_bytes() for f in sorted((HERE / "static").iterdir()) if f.is_file()}
_VERSION = hashlib.sha256(b"".join(_STATIC.values())).hexdigest()[:10]
templates.globals |= {
    "version": _VERSION,
    "short": formats.short,
    "number": formats.number,
    "run_label": links.run_label,
    "state_names": formats.STATE_NAMES,
    "detail_href": links.detail_href,
}

store = Store()
app = FastAPI(title="Ownership transfers", docs_url=None, redoc_url=None, openapi_url=None)


class Secured:
    """The app with its headers on every answer, those of refusals and errors too."""

    def __init__(self, inner: FastAPI) -> None:
        self._inner = inner

    async def __call__(self, scope: MutableMapping[str, Any], receive: Receive, send: Send) -> None:
        """Answer one request."""

        async def secured(message: MutableMapping[str, Any]) -> None:
            if message["type"] == "http.response.start":
                given = {name.lower() for name, _ in message["headers"]}
                more = {**HEADERS, "cache-control": "no-store"}
                message["headers"] = [
                    *message["headers"],
                    *((n.encode(), v.encode()) for n, v in more.items() if n.encode() not in given),
                ]
            await send(message)

        await self._inner(scope, receive, secured)


page = Secured(app)


def _html(name: str, code: int = 200, **values: Any) -> HTMLResponse:
    return HTMLResponse(templates.get_template(name).render(**values), status_code=code)


# -- the list ---------------------------------------------------------------------------------------------------


@app.get("/", dependencies=[MayRead])
def listing(
    user: User,
    who: Annotated[str, Query(alias="user", max_length=256, pattern=NO_NUL)] = "",
    state: TEXT = "",
    run: TEXT = "",
    course: TEXT = "",
    batch: TEXT = "",
    since: TEXT = "",
    before: TEXT = "",
    after: Annotated[str, Query(max_length=2000)] = "",
    mid: TEXT = "",
    one: TEXT = "",
) -> Response:
    """Transfers, newest first. `one`: with a single transfer, redirect to it; the link of a task asks for that."""
    if mid.strip():
        return RedirectResponse(links.detail_href(mid.strip()), status_code=303)
    filters = Filters(
        user=who.strip(),
        state=state if state in (*STATES, OPEN) else "",
        run_id=run.strip(),
        course_id=course.strip(),
        batch_id=batch.strip(),
        since_ms=links.at_ms(since),
        before_ms=links.at_ms(before),
    )
    cursor = from_cursor(after)
    with store.reads() as reads:
        listed = reads.lists.page(filters, cursor)
        open_counts = reads.lists.open_counts()
        reports = reads.reconciliations.last(1)
    if one and len(listed.entries) == 1 and not listed.next:
        return RedirectResponse(links.detail_href(listed.entries[0].mid), status_code=303)
    runs = runs_of(e.run_id for e in listed.entries if isinstance(e, ListedEvent))
    return _html(
        "list.html",
        view=list_view(filters, listed, runs, now_ms=now_ms(), first=cursor is None),
        filters=filters,
        since=since if filters.since_ms is not None else "",
        before=before if filters.before_ms is not None else "",
        states=(OPEN, *STATES),
        open_counts=open_counts,
        compared=newest_in_short(reports[0] if reports else None),
        open_href=links.list_href(Filters(state=OPEN)),
        waiting_href=links.list_href(Filters(state=EventState.AWAITING_APPROVAL)),
        user=user.get_name(),
    )


@app.get("/reconciliations", dependencies=[MayRead])
def reconciliations(user: User) -> Response:  # noqa: ARG001  # for users only
    """What the last reconciliations found, as a chart and as a table."""
    with store.reads() as reads:
        reports = reads.reconciliations.last(TREND)
    runs = runs_of((r.run_id for r in reports), (RECONCILE_DAG,))
    view = reconciliations_view(reports, runs)
    return _html("reconciliations.html", view=view)


# -- one transfer -----------------------------------------------------------------------------------------------


def _detail(reads: Reads, event: EventRow, user: User) -> DetailView:
    now = now_ms()
    queued = None if event.final else reads.details.queued(event.mid)
    blocker = None
    if queued and not queued.is_held(now):
        blocker = reads.details.waits_for(event.transfer)
    followed = reads.details.followed_by(event.mid)
    return detail_view(
        event,
        reads.details.body(event.mid),
        now_ms=now,
        runs=runs_of([event.run_id, *(f.run_id for f in followed)]),
        queued=queued,
        blocker=blocker,
        progress=None if event.final or event.state == EventState.RECEIVED else reads.batches.progress(event),
        lane=reads.details.lane(event),
        followed=followed,
        startable=may_start(user),
    )


@app.get("/transfer", dependencies=[MayRead])
def transfer(
    user: User,
    mid: MID,
    course: TEXT = "",
    batch: TEXT = "",
    started: TEXT = "",
    dag: TEXT = "",
    part: TEXT = "",
) -> Response:
    """One transfer; `part=live` answers with only what moves while it is carried out."""
    run = runs_of([started]).get(started) if started else None
    with store.reads() as reads:
        event = reads.details.event(mid)
        if event is None:
            message = reads.details.rejected_message(mid)
            if message is None:
                return _not_there(mid, started, run, part)
            return _html("live.html" if part == "live" else "message.html", view=message_view(message))
        view = _detail(reads, event, user)
        if part == "live":
            return _html("live.html", view=view)
        after = BatchId(course, batch) if course else None
        changed = reads.batches.page(event, after)
    older = None
    if changed.next:
        older = (
            links.detail_href(mid, course=changed.next.course_id, batch=changed.next.batch_id) + "#changes"
        )
    return _html(
        "transfer.html",
        view=view,
        changes=change_lines(changed),
        older=older,
        first=links.detail_href(mid) + "#changes" if after else None,
        started=started,
        run=run,
        dag=dag,
        user=user.get_name(),
    )


def _not_there(mid: str, started: str, run: links.RunLink | None, part: str) -> Response:
    """An event that the ledger does not have, or not yet, if a run that brings it is under way."""
    coming = run is not None and run.state not in ENDED
    if part == "live":
        return _html("live.html", 200 if coming else 404, view=None, run=run)
    return _html("absent.html", 200 if coming else 404, mid=mid, started=started, run=run, coming=coming)


# -- actions ----------------------------------------------------------------------------------------------------


@app.get("/confirm", dependencies=[MayRead])
def confirm(request: Request, user: User, mid: MID, action: TEXT) -> Response:
    """The confirmation of an action, which says what will happen."""
    wanted = _action(action)
    check_start(wanted, request, user)
    with store.reads() as reads:
        event = reads.details.event(mid)
        if event is None:
            raise HTTPException(404, "The ledger has no such event.")
        if wanted not in offered(event.state, event.counts, event.digest):
            state = formats.STATE_NAMES[event.state]
            raise HTTPException(409, f"This event is {state} now: {_name(wanted)} does not apply.")
        view = _detail(reads, event, user)
        changed = (
            reads.batches.page(event, limit=PREVIEW) if wanted in (UNDO, REHEARSE_UNDO, EXECUTE) else None
        )
        rehearsal = _rehearsal(reads, view) if wanted is UNDO else None
    return _html(
        "confirm.html",
        action=wanted,
        view=view,
        changes=change_lines(changed) if changed else [],
        more=bool(changed and changed.next),
        rehearsal=rehearsal,
        token=form_token(user, wanted, mid, event.digest, event.state),
        max_reason=MAX_REASON,
        paused=is_paused(wanted.dag_id),
        user=user.get_name(),
    )


def _rehearsal(reads: Reads, view: DetailView) -> DetailView | None:
    """The newest dry run of the event's undo: its plan is what the undo would do."""
    event = reads.details.event(view.rehearsed_undo) if view.rehearsed_undo else None
    return detail_view(event, b"", now_ms=now_ms(), runs={}) if event else None


def _name(action: Action) -> str:
    return action.label.rstrip("…").lower()


@app.post("/act", dependencies=[MayRead])
async def act(
    request: Request,
    user: User,
    token: Annotated[str, Form(max_length=4000)] = "",
    reason: Annotated[str, Form(max_length=4 * MAX_REASON)] = "",
) -> Response:
    """Start the run that was confirmed, in the name of the signed-in user."""
    form = form_of(token, user)
    confirmed = form.confirmed
    await run_in_threadpool(check_start, confirmed.action, request, user)
    reason = printable(reason.strip())
    if len(reason) > MAX_REASON or (confirmed.action.reason == "required" and not reason):
        raise HTTPException(400, f"A reason of at most {MAX_REASON} characters is needed.")
    answer = await _trigger(request, confirmed.action.dag_id, confirmed.run_id, confirmed.conf(reason))
    if answer.status_code not in (200, 409):  # 409: the same form was sent before, and its run is there
        log.warning(
            "page action refused", action=confirmed.action.name, mid=confirmed.mid, status=answer.status_code
        )
        raise HTTPException(
            answer.status_code if answer.status_code < 500 else 502,
            f"Airflow refused the run: {_why(answer)}",
        )
    log.info(
        "page action",
        action=confirmed.action.name,
        mid=confirmed.mid,
        by=user.get_name(),
        run_id=confirmed.run_id,
    )
    mid = confirmed.outcome_mid(form.state)
    return RedirectResponse(
        links.detail_href(mid, started=confirmed.run_id, dag=confirmed.action.dag_id), status_code=303
    )


async def _trigger(request: Request, dag_id: str, run_id: str, conf: dict[str, Any]) -> httpx.Response:
    """Trigger the DAG through Airflow's own API, in this process, with the user's own credentials."""
    passed = ("cookie", "authorization", "referer", "user-agent", "x-forwarded-for")
    headers = {name: value for name, value in request.headers.items() if name in passed}
    transport = httpx.ASGITransport(app=request.scope[AIRFLOW], raise_app_exceptions=False)
    async with httpx.AsyncClient(
        transport=transport, base_url=str(request.base_url.replace(path="/"))
    ) as api:
        return await api.post(
            f"/api/v2/dags/{quote(dag_id, safe='')}/dagRuns",
            json={"dag_run_id": run_id, "logical_date": None, "conf": conf},
            headers=headers,
        )


def _why(answer: httpx.Response) -> str:
    try:
        return str(answer.json()["detail"])[:500]
    except (ValueError, KeyError, TypeError):
        return f"HTTP {answer.status_code}"


def _action(name: str) -> Action:
    action = ACTIONS.get(name)
    if action is None:
        raise HTTPException(404, "The page has no such action.")
    return action


# -- files, and what goes wrong ---------------------------------------------------------------------------------


@app.get("/static/{name}")
def static(user: User, name: str) -> Response:  # noqa: ARG001  # a file needs a signed-in user too
    """The style sheet, the script or an icon."""
    if name not in _STATIC:
        raise HTTPException(404, "There is no such file.")
    kind = mimetypes.guess_type(name)[0] or "application/octet-stream"
    return Response(_STATIC[name], media_type=kind, headers={"cache-control": "private, max-age=3600"})


_TITLES = {
    401: "You are not signed in",
    403: "You may not do this",
    404: "Not found",
    409: "This no longer applies",
}


@app.exception_handler(StarletteHTTPException)
def refused(request: Request, error: Exception) -> Response:  # noqa: ARG001  # Starlette's signature
    """A refused request, as a page."""
    assert isinstance(error, StarletteHTTPException)  # noqa: S101  # registered for these
    status = error.status_code
    text = {
        401: "Sign in to Airflow, then open this page again.",
        403: error.detail if "form" in str(error.detail) else "Your role in Airflow does not allow it.",
    }.get(status, str(error.detail))
    return _html(
        "error.html", status, status=status, title=_TITLES.get(status, "The request failed"), text=text
    )


@app.exception_handler(RequestValidationError)
def wrong(request: Request, error: Exception) -> Response:  # noqa: ARG001  # Starlette's signature
    """A request whose parameters are not valid."""
    text = "A part of the address is too long, or has characters that it cannot have."
    return _html("error.html", 422, status=422, title="The request failed", text=text)


@app.exception_handler(OwnershipError)
def unreachable(request: Request, error: Exception) -> Response:  # noqa: ARG001  # Starlette's signature
    """The page for a ledger that is unreachable or not set up."""
    log.warning("page cannot read the ledger", why=str(error))
    title = "The page is not set up" if isinstance(error, SettingsError) else "The ledger is unreachable"
    return _html("error.html", 503, status=503, title=title, text=str(error)[:600])
