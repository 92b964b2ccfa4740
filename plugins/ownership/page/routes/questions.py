"""Questions: what an id or a part of a name is, what happened to a batch, which batches a user holds now."""

from __future__ import annotations

from collections.abc import Callable
from typing import Annotated, TypeVar

import structlog
from fastapi import APIRouter, HTTPException, Query
from fastapi.responses import RedirectResponse, Response

from ownership.domain.clock import now_ms
from ownership.domain.errors import MissingConnection, OwnershipError, Unavailable
from ownership.domain.plan import BatchId, Document, Row
from ownership.ledger.reads.batches import BatchTimeline
from ownership.ledger.reads.lists import PAGE_SIZE
from ownership.page import access
from ownership.page.platform import Asked, Platform, Stores
from ownership.page.rendering import rendered
from ownership.page.routes.parameters import NO_NUL
from ownership.page.store import Ledger
from ownership.page.views import links
from ownership.page.views.questions import (
    BatchNow,
    UserBatches,
    answers,
    batch_ids,
    batches_now,
    in_short,
    not_shown_for,
    step_lines,
)
from ownership.platform.name_search import FoundNames, NameSearch, name_words
from ownership.platform.search_index import MAX_SHOWN
from ownership.platform.user_org import User

log = structlog.get_logger(__name__)

FOUND = 20
"""Batches, users or courses of a search that are shown."""
MAX_PAGE = MAX_SHOWN // PAGE_SIZE
TEXT = Annotated[str, Query(max_length=256, pattern=NO_NUL)]
ID = Annotated[str, Query(min_length=1, max_length=256, pattern=NO_NUL)]
BEFORE = Annotated[int | None, Query(ge=0, lt=2**63)]
PAGE = Annotated[int, Query(ge=1, le=MAX_PAGE)]

T = TypeVar("T")
N = TypeVar("N", bound=NameSearch)
router = APIRouter()


@router.get("/find")
def find(store: Ledger, stores: Stores, q: TEXT = "") -> Response:
    """What a text is; a transfer's own mid leads to it at once."""
    text, notices = q.strip(), list[str]()
    if not text:
        return rendered(
            "find.html",
            text="",
            answers=[],
            batches=[],
            more=0,
            users=None,
            courses=None,
            missing=[],
            notices=[],
        )
    with store.reads() as reads:
        known = reads.questions.known(text)
    if known.transfer:
        return RedirectResponse(links.detail_href(text), status_code=303)
    found = None
    if store.visible.every:  # a document tells of any organisation's batch
        found = _asked(lambda: stores.index.ask(lambda index: index.matching(text, limit=FOUND)), notices)
    documents = found.documents if found else []
    ids = batch_ids(documents)
    is_known = answers(text, known, documents)
    # Else every look at an id would ask for it as a name.
    by_name = bool(name_words(text)) and not is_known
    missing: list[str] = []
    return rendered(
        "find.html",
        text=text,
        answers=is_known,
        batches=batches_now(ids, None, documents),
        more=found.total - len(documents) if found else 0,
        users=named(store, stores.users, text, notices) if by_name else None,
        courses=named(store, stores.courses, text, notices, missing) if by_name else None,
        missing=missing,
        sees_batches=store.visible.every,
        notices=notices,
    )


@router.get("/batch")
def batch(
    store: Ledger,
    stores: Stores,
    batch: ID,
    course: TEXT = "",
    before: BEFORE = None,
) -> Response:
    """What happened to a batch, the newest event first, and what row and document say now."""
    batch, course = batch.strip(), course.strip()
    with store.reads() as reads:
        timeline = reads.batches.timeline(batch, course, before)
    notices: list[str] = []
    now = batch_now(store, stores, batch, course, timeline, notices)
    runs = access.runs_of(s.event.run_id for s in timeline.steps)
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
    store: Ledger,
    stores: Stores,
    who: Annotated[ID, Query(alias="user")],
    page: PAGE = 1,
) -> Response:
    """Which batches a user holds now: rows and documents side by side."""
    who = who.strip()
    check_holder(store, stores, who)
    held = holdings(store, stores, who, page)
    last = held.total is None or page * PAGE_SIZE >= min(held.total, MAX_SHOWN)
    sentence = (
        in_short(held.total, who, (page - 1) * PAGE_SIZE, len(held.batches)) if held.total is not None else ""
    )
    return rendered(
        "user.html",
        who=who,
        held=held,
        sentence=sentence,
        older=None if last else links.user_href(who, page=str(page + 1)),
        newer=links.user_href(who, page=str(page - 1)) if page > 1 else None,
        notices=held.notices,
    )


def named(
    store: Ledger, service: Asked[N], text: str, notices: list[str], missing: list[str] | None = None
) -> FoundNames | None:
    """What has `text` in its name, of the organisations that the user may see; None where it could not be asked.

    `missing` is for a service that is optional: it takes the sentence that says which Connection to make.
    """

    def ask() -> FoundNames | None:
        try:
            return service.ask(lambda s: s.named(text, store.visible.ids, limit=FOUND))
        except MissingConnection as e:
            if missing is None:
                raise
            missing.append(str(e))
            return None

    return _asked(ask, notices)


def check_holder(store: Ledger, stores: Platform, who: str) -> None:
    """Answer 404 unless the user may see what `who` holds.

    Whoever may transfer a user's batches sees them all in a dry run; so they may if User-Org says that the user is of
    an organisation of theirs. It names none for a deleted account: that one only those may ask for who see everything.

    :raises Unavailable: if User-Org does not answer.
    """
    if store.visible.every:
        return
    found = stores.users.ask(lambda users: dict(users.read_all([who])))[who]
    if isinstance(found, Unavailable):
        raise found
    if not (isinstance(found, User) and store.visible.has(found.organisation_id)):
        raise HTTPException(404, "User-Org knows no such user of your organisations.")


def batch_now(
    store: Ledger, stores: Platform, batch: str, course: str, timeline: BatchTimeline, notices: list[str]
) -> list[BatchNow]:
    """A batch in both stores; of several courses where they have batches of the same id.

    A user from whom anything is hidden sees it only if a transfer that they see concerned it.
    """
    of_timeline = {s.change.id.course_id for s in timeline.steps}
    if not (store.visible.every or of_timeline):
        return []
    documents = _asked(
        lambda: list(stores.index.ask(lambda index: index.get([batch], everywhere=True)).get(batch, ())),
        notices,
    )
    if not store.visible.every:
        documents = documents and [d for d in documents if d.course_id in of_timeline]
    courses = {course} if course else of_timeline
    if not course:
        courses |= {d.course_id for d in documents or () if d.course_id}
    ids = sorted(BatchId(c, batch) for c in courses)
    rows = _rows(stores, ids, notices)
    return [b for b in batches_now(ids, rows, documents) if b.row or b.document or (course and not notices)]


def holdings(store: Ledger, stores: Platform, user: str, page: int) -> UserBatches:
    """A page of the batches whose documents name a user, and first of all what only rows say."""
    notices: list[str] = []
    offset = (page - 1) * PAGE_SIZE
    found = _asked(
        lambda: stores.index.ask(lambda index: index.owned_by(user, offset=offset, limit=PAGE_SIZE)), notices
    )
    ids = batch_ids(found.documents) if found else []
    given: list[BatchId] = []
    if page == 1:
        with store.reads() as reads:
            given = reads.questions.given_to(user)
    rows = _rows(stores, {*ids, *given}, notices)
    return UserBatches(
        total=found.total if found else None,
        page=page,
        batches=batches_now(ids, rows, found.documents if found else None),
        only_rows=_only_rows(stores, user, given, rows, notices),
        notices=notices,
    )


def _only_rows(
    stores: Platform,
    user: str,
    given: list[BatchId],
    rows: dict[BatchId, Row] | None,
    notices: list[str],
) -> list[BatchNow]:
    if not given or not rows:
        return []
    mine = {i: rows[i] for i in given if i in rows}
    names = {i.batch_id for i in mine}
    by_batch = _asked(lambda: stores.index.ask(lambda index: index.get(names)), notices)
    documents: list[Document] | None = None
    if by_batch is not None:
        documents = [d for of_batch in by_batch.values() for d in of_batch]
    return batches_now(not_shown_for(user, mine, documents or []), mine, documents)


def _rows(
    stores: Platform, ids: set[BatchId] | list[BatchId], notices: list[str]
) -> dict[BatchId, Row] | None:
    """The rows of batches, as far as these name a course; None if Cassandra does not answer."""
    keys = [i for i in ids if i.course_id]
    return _asked(lambda: stores.rows.ask(lambda rows: rows.read(keys)), notices) if keys else {}


def _asked(ask: Callable[[], T], notices: list[str]) -> T | None:
    """The answer of a store; a notice and None where it has none, so that the rest of the page is shown."""
    try:
        return ask()
    except OwnershipError as e:
        log.warning("page cannot ask a store", why=str(e))
        notices.append(str(e)[:300])
        return None
