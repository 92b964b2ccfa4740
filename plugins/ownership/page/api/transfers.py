"""Transfers, read."""

from __future__ import annotations

from datetime import datetime
from typing import Annotated, Any, Literal, TypeVar

from fastapi import APIRouter, Depends, HTTPException, Query
from fastapi.responses import JSONResponse, Response

from ownership.domain.clock import to_ms
from ownership.domain.states import EventState
from ownership.ledger.reads.lists import Filters, ListedEvent
from ownership.page import airflow_facts
from ownership.page.access import User
from ownership.page.api import models
from ownership.page.api.problems import Problem, wrong_field
from ownership.page.api.requests import JsonRoute
from ownership.page.cursors import BATCHES, ENTRIES, Cursor
from ownership.page.details import detail, named
from ownership.page.names import UserNames
from ownership.page.parameters import AFTER, ID, TEXT, Narrowed
from ownership.page.store import Ledger

router = APIRouter(route_class=JsonRoute, tags=["transfers"])

K = TypeVar("K", bound=tuple[Any, ...])
NOT_THERE: dict[int | str, dict[str, Any]] = {
    404: {"model": Problem, "description": "The ledger has no such transfer"}
}


def place(cursor: Cursor[K], after: str) -> K | None:
    """Where a page begins; answer 422 for what is no cursor."""
    key = cursor.key(after) if after else None
    if after and key is None:
        raise wrong_field("after", "is not the `next` of a page")
    return key


def filters_of(
    narrowed: Narrowed,
    state: EventState | Literal["open"] | None = None,
    since: Annotated[
        datetime | None, Query(description="Announced then or later; UTC without a zone")
    ] = None,
    before: Annotated[datetime | None, Query(description="Announced before then; UTC without a zone")] = None,
) -> Filters:
    """What a list or an export is narrowed to."""
    return narrowed._replace(
        state=state or "",
        since_ms=to_ms(since) if since else None,
        before_ms=to_ms(before) if before else None,
    )


QueryFilters = Annotated[Filters, Depends(filters_of)]


@router.get("/transfers", summary="Transfers, newest first")
def transfers(
    store: Ledger, names: UserNames, filters: QueryFilters, after: AFTER = ""
) -> models.TransferList:
    """One page of 50. Rejected messages are among them."""
    cursor = place(ENTRIES, after)
    with store.reads() as reads:
        page = reads.lists.page(filters, cursor)
        events = [e for e in page.entries if isinstance(e, ListedEvent)]
        bodies = reads.details.short_bodies([e.mid for e in events])
    return models.transfer_list(page, names.pairs([e.transfer for e in events], bodies, store.visible))


@router.get(
    "/transfer",
    summary="One transfer",
    response_model=models.Transfer,
    responses={202: {"model": models.Coming, "description": "Its run is under way"}, **NOT_THERE},
)
def transfer(
    user: User,
    store: Ledger,
    names: UserNames,
    mid: ID,
    run: Annotated[TEXT, Query(description="The run that was started for it")] = "",
) -> models.Transfer | Response:
    """With `run`, 202 until that run has brought it, and the state of the run beside it from then on."""
    started = airflow_facts.runs_of([run]).get(run) if run else None
    with store.reads() as reads:
        event = reads.details.event(mid)
        view = detail(reads, event, user) if event else None
        message = None if event else reads.details.rejected_message(mid)
    if event and view:
        return models.transfer(event, named(view, names, store.visible), started)
    if message is not None:
        return models.rejected(message)
    if started and not started.ended:
        coming = models.Coming(mid=mid, started=started)
        return JSONResponse(coming.model_dump(), 202, {"retry-after": "1"})
    why = f"; the run is {started.state}" if started else ""
    raise HTTPException(404, f"The ledger has no such transfer{why}.")


@router.get("/transfer/changes", summary="The batches of a transfer", responses={**NOT_THERE})
def changes(store: Ledger, mid: ID, after: AFTER = "") -> models.ChangeList:
    """One page of 50, by course and batch: owners before and after, outcome, times of change and proof."""
    cursor, event = place(BATCHES, after), store.event(mid)
    with store.reads() as reads:
        return models.change_list(reads.batches.page(event, cursor))
