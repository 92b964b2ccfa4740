"""Lists: transfers, and what reconciliations found."""

from __future__ import annotations

from fastapi import APIRouter
from fastapi.responses import RedirectResponse, Response

from ownership.domain.clock import now_ms
from ownership.domain.states import EventState
from ownership.ledger.reads.lists import OPEN, STATES, Filters, ListedEvent
from ownership.page import airflow_facts
from ownership.page.access import SeesEverything
from ownership.page.actions import RECONCILE_DAG
from ownership.page.cursors import ENTRIES
from ownership.page.names import UserNames
from ownership.page.parameters import AFTER, TEXT, Narrowed
from ownership.page.rendering import rendered
from ownership.page.settings import JobSettings
from ownership.page.store import Ledger
from ownership.page.views import links
from ownership.page.views.chart import MAX_BARS
from ownership.page.views.lists import list_view, unread
from ownership.page.views.proven import DAYS, proven_in_short, proven_view, request_in_short
from ownership.page.views.reconciliations import newest_in_short, reconciliations_view

router = APIRouter()


@router.get("/")
def listing(
    store: Ledger,
    settings: JobSettings,
    names: UserNames,
    narrowed: Narrowed,
    state: TEXT = "",
    since: TEXT = "",
    before: TEXT = "",
    after: AFTER = "",
    one: TEXT = "",
) -> Response:
    """Transfers, newest first. `one`: with a single transfer, redirect to it; the link of a task asks for that."""
    filters = narrowed._replace(
        state=state if state in (*STATES, OPEN) else "",
        since_ms=links.at_ms(since),
        before_ms=links.at_ms(before),
    )
    cursor, minutes = ENTRIES.key(after), settings().deadline_minutes
    with store.reads() as reads:
        listed = reads.lists.page(filters, cursor)
        open_counts = reads.lists.open_counts()
        reports = reads.reports(1)
        (day,) = reads.proven.days(1, at_ms=now_ms(), deadline_minutes=minutes)
        of_request = reads.proven.request(filters.request_id) if filters.request_id else None
        events = [e for e in listed.entries if isinstance(e, ListedEvent)]
        bodies = reads.details.short_bodies([e.mid for e in events])
    if one and len(listed.entries) == 1 and not listed.next:
        return RedirectResponse(links.detail_href(listed.entries[0].mid), status_code=303)
    runs = airflow_facts.runs_of(e.run_id for e in events)
    pairs = names.pairs([e.transfer for e in events], bodies, store.visible)
    return rendered(
        "list.html",
        view=list_view(filters, listed, runs, pairs, now_ms=now_ms(), first=cursor is None),
        filters=filters,
        unread=unread(filters, state=state, since=since, before=before),
        since=links.for_field(filters.since_ms),
        before=links.for_field(filters.before_ms),
        states=(OPEN, *STATES),
        open_counts=open_counts,
        proven=proven_in_short(day, minutes),
        of_request=of_request and request_in_short(of_request),
        compared=newest_in_short(reports[0] if reports else None) if store.visible.every else "",
        open_href=links.list_href(Filters(state=OPEN)),
        exports=links.exports(filters),
        waiting_href=links.list_href(Filters(state=EventState.AWAITING_APPROVAL)),
    )


@router.get("/proven")
def proven(store: Ledger, settings: JobSettings) -> Response:
    """How many of the last days' transfers were proven within their deadline."""
    minutes, now = settings().deadline_minutes, now_ms()
    with store.reads() as reads:
        days = reads.proven.days(DAYS, at_ms=now, deadline_minutes=minutes)
    return rendered("proven.html", view=proven_view(days, now_ms=now, deadline_minutes=minutes))


@router.get("/reconciliations", dependencies=[SeesEverything])
def reconciliations(store: Ledger) -> Response:
    """What the last reconciliations found, as a chart and as a table."""
    with store.reads() as reads:
        reports = reads.reports(MAX_BARS)
    runs = airflow_facts.runs_of((r.run_id for r in reports), (RECONCILE_DAG,))
    view = reconciliations_view(reports, runs)
    return rendered("reconciliations.html", view=view)
