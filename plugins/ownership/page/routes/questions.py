"""Questions: what an id or a part of a name is, what happened to a batch, which batches a user holds now."""

from __future__ import annotations

from typing import Annotated

from fastapi import APIRouter, Query
from fastapi.responses import RedirectResponse, Response

from ownership.domain.clock import now_ms
from ownership.domain.plan import BatchId
from ownership.ledger.reads.lists import PAGE_SIZE
from ownership.page import airflow_facts
from ownership.page.parameters import ID, TEXT
from ownership.page.platform import Stores
from ownership.page.questions import BEFORE, FOUND, PAGE, answer_or_notice, batch_history, holdings
from ownership.page.rendering import rendered
from ownership.page.store import Ledger
from ownership.page.views import links
from ownership.page.views.questions import answers, batch_ids, batches_now, in_short, pages_around, step_lines
from ownership.platform.name_search import FoundNames, NameSearch, name_words

router = APIRouter()


@router.get("/find")
def find(store: Ledger, stores: Stores, text: Annotated[TEXT, Query(alias="q")] = "") -> Response:
    """What a text is; a transfer's own mid leads to it at once."""
    if not text:
        return rendered("find.html", text="")
    notices: list[str] = []
    with store.reads() as reads:
        known = reads.questions.known(text)
    if known.transfer:
        return RedirectResponse(links.detail_href(text), status_code=303)
    found = None
    if store.visible.every:  # a document tells of any organisation's batch
        found = answer_or_notice(stores.index, lambda index: index.matching(text, limit=FOUND), notices)
    documents = found.documents if found else []
    ids = batch_ids(documents)
    is_known = answers(text, known, documents)
    # Else every look at an id would ask for it as a name.
    by_name = bool(name_words(text)) and not is_known
    missing: list[str] = []

    def fitting(service: NameSearch) -> FoundNames:
        return service.named(text, store.visible.ids, limit=FOUND)

    return rendered(
        "find.html",
        text=text,
        answers=is_known,
        batches=batches_now(ids, None, documents),
        more=found.total - len(documents) if found else 0,
        users=answer_or_notice(stores.users, fitting, notices) if by_name else None,
        courses=answer_or_notice(stores.courses, fitting, notices, missing) if by_name else None,
        missing=missing,
        sees_batches=store.visible.every,
        notices=notices,
    )


@router.get("/batch")
def batch(store: Ledger, stores: Stores, batch: ID, course: TEXT = "", before: BEFORE = None) -> Response:
    """What happened to a batch, the newest event first, and what row and document say now."""
    timeline, now, notices = batch_history(store, stores, batch, course, before)
    runs = airflow_facts.runs_of(s.event.run_id for s in timeline.steps)
    key = BatchId(course, batch)
    return rendered(
        "batch.html",
        batch=key,
        now=now,
        steps=step_lines(timeline, runs, now_ms=now_ms()),
        older=links.batch_href(key, before=str(timeline.next)) if timeline.next else None,
        newest=links.batch_href(key) if before is not None else None,
        notices=notices,
    )


@router.get("/user")
def user_batches(
    store: Ledger, stores: Stores, who: Annotated[ID, Query(alias="user")], page: PAGE = 1
) -> Response:
    """Which batches a user holds now: rows and documents side by side."""
    held = holdings(store, stores, who, page)
    before, after = pages_around(held.total, page)
    sentence = (
        in_short(held.total, who, (page - 1) * PAGE_SIZE, len(held.batches)) if held.total is not None else ""
    )
    return rendered(
        "user.html",
        who=who,
        held=held,
        sentence=sentence,
        older=links.user_href(who, page=str(after)) if after else None,
        newer=links.user_href(who, page=str(before)) if before else None,
        notices=held.notices,
    )
