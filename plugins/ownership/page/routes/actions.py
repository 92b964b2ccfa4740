"""Actions: what one will do, and its run."""

from __future__ import annotations

from typing import Annotated

import structlog
from fastapi import APIRouter, Form, HTTPException, Request
from fastapi.concurrency import run_in_threadpool
from fastapi.responses import RedirectResponse, Response

from ownership.domain.conf import MAX_REASON
from ownership.domain.contracts import PlanSummary
from ownership.domain.text import printable
from ownership.ledger.reads import Reads
from ownership.page import access, airflow_facts, forms
from ownership.page.access import User
from ownership.page.actions import ACTIONS, EXECUTE, REHEARSE_UNDO, UNDO, Action, offered
from ownership.page.api.requests import BoundedRoute
from ownership.page.details import detail
from ownership.page.parameters import ID, TEXT
from ownership.page.rendering import rendered
from ownership.page.starting import refused, trigger
from ownership.page.store import Ledger
from ownership.page.views import links
from ownership.page.views.batches import change_line
from ownership.page.views.details import DetailView

log = structlog.get_logger(__name__)

PREVIEW = 10
"""Batches that a confirmation shows."""

router = APIRouter(route_class=BoundedRoute)


@router.get("/confirm")
def confirm(request: Request, user: User, store: Ledger, mid: ID, action: TEXT) -> Response:
    """The confirmation of an action, which says what will happen."""
    wanted = _action(action)
    access.check_start(wanted.dag_id, request, user)
    event = store.event(mid)
    with store.reads() as reads:
        if wanted not in offered(event):
            raise HTTPException(409, wanted.refused(event.state))
        view = detail(reads, event, user)
        changed = (
            reads.batches.page(event, limit=PREVIEW) if wanted in (UNDO, REHEARSE_UNDO, EXECUTE) else None
        )
        rehearsed = _rehearsed(reads, view) if wanted is UNDO else None
    return rendered(
        "confirm.html",
        action=wanted,
        view=view,
        changes=[change_line(c) for c in changed.batches] if changed else [],
        more=bool(changed and changed.next),
        rehearsed=rehearsed,
        token=forms.form_token(user, wanted, mid, event.digest, event.state),
        max_reason=MAX_REASON,
        paused=airflow_facts.is_paused(wanted.dag_id),
        user=user.get_name(),
    )


def _rehearsed(reads: Reads, view: DetailView) -> PlanSummary | None:
    """The plan of the newest dry run of the event's undo: what the undo would do."""
    event = reads.details.event(view.rehearsed_undo) if view.rehearsed_undo else None
    return PlanSummary.model_validate_json(event.report) if event and event.report else None


@router.post("/act")
async def act(
    request: Request,
    user: User,
    store: Ledger,
    token: Annotated[str, Form(max_length=4000)] = "",
    reason: Annotated[str, Form(max_length=4 * MAX_REASON)] = "",
) -> Response:
    """Start the run that was confirmed, in the name of the signed-in user."""
    confirmed, state = forms.form_of(token, user)
    await run_in_threadpool(access.check_start, confirmed.action.dag_id, request, user)
    await run_in_threadpool(store.event, confirmed.mid)
    reason = printable(reason.strip())
    if len(reason) > MAX_REASON or (confirmed.action.reason == "required" and not reason):
        raise HTTPException(400, f"A reason of at most {MAX_REASON} characters is needed.")
    answer = await trigger(request, confirmed.action.dag_id, confirmed.run_id, confirmed.conf(reason))
    if answer.status_code not in (200, 409):  # 409: the same form was sent before, and its run is there
        log.warning(
            "page action refused", action=confirmed.action.name, mid=confirmed.mid, status=answer.status_code
        )
        raise refused(answer)
    log.info(
        "page action",
        action=confirmed.action.name,
        mid=confirmed.mid,
        by=user.get_name(),
        run_id=confirmed.run_id,
    )
    href = links.detail_href(confirmed.outcome_mid(state), started=confirmed.run_id)
    return RedirectResponse(href, status_code=303)


def _action(name: str) -> Action:
    action = ACTIONS.get(name)
    if action is None:
        raise HTTPException(404, "The page has no such action.")
    return action
