"""Questions to the ledger and the platform's stores together. A store without an answer is a notice."""

from __future__ import annotations

from collections.abc import Callable
from typing import Annotated, TypeVar

import structlog
from fastapi import HTTPException, Query

from ownership.domain.errors import MissingConnection, OwnershipError, Unavailable
from ownership.domain.plan import BatchId, Document, Row
from ownership.ledger.reads.batches import BatchTimeline
from ownership.ledger.reads.lists import PAGE_SIZE
from ownership.page.platform import Asked, Platform
from ownership.page.store import Ledger
from ownership.page.views.questions import BatchNow, UserBatches, batch_ids, batches_now, not_shown_for
from ownership.platform.search_index import MAX_SHOWN
from ownership.platform.user_org import User

log = structlog.get_logger(__name__)

FOUND = 20
"""Batches, users or courses of a search that are shown."""
MAX_PAGE = MAX_SHOWN // PAGE_SIZE
BEFORE = Annotated[int | None, Query(ge=0, lt=2**63)]
PAGE = Annotated[int, Query(ge=1, le=MAX_PAGE)]

S = TypeVar("S")
T = TypeVar("T")


def _check_holder(store: Ledger, stores: Platform, who: str) -> None:
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


def batch_history(
    store: Ledger, stores: Platform, batch: str, course: str, before: int | None
) -> tuple[BatchTimeline, list[BatchNow], list[str]]:
    """A page of what happened to a batch, the batch as it is now, and a notice of each store that did not answer."""
    notices: list[str] = []
    with store.reads() as reads:
        timeline = reads.batches.timeline(batch, course, before)
    return timeline, _batch_now(store, stores, batch, course, timeline, notices), notices


def _batch_now(
    store: Ledger, stores: Platform, batch: str, course: str, timeline: BatchTimeline, notices: list[str]
) -> list[BatchNow]:
    """A batch in both stores; of several courses where they have batches of the same id.

    A user from whom anything is hidden sees it only if a transfer that they see concerned it.
    """
    of_timeline = {s.change.id.course_id for s in timeline.steps}
    if not (store.visible.every or of_timeline):
        return []
    found = answer_or_notice(stores.index, lambda index: index.get([batch], everywhere=True), notices)
    documents = None if found is None else list(found.get(batch, ()))
    if not store.visible.every:
        documents = documents and [d for d in documents if d.course_id in of_timeline]
    courses = {course} if course else of_timeline
    if not course:
        courses |= {d.course_id for d in documents or () if d.course_id}
    ids = sorted(BatchId(c, batch) for c in courses)
    rows = _rows(stores, ids, notices)
    return [b for b in batches_now(ids, rows, documents) if b.row or b.document or (course and not notices)]


def holdings(store: Ledger, stores: Platform, user: str, page: int) -> UserBatches:
    """A page of the batches whose documents name a user, and first of all what only rows say.

    Answers 404 if they are hidden: see `_check_holder`.
    """
    _check_holder(store, stores, user)
    notices: list[str] = []
    offset = (page - 1) * PAGE_SIZE
    found = answer_or_notice(
        stores.index, lambda index: index.owned_by(user, offset=offset, limit=PAGE_SIZE), notices
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
    stores: Platform, user: str, given: list[BatchId], rows: dict[BatchId, Row] | None, notices: list[str]
) -> list[BatchNow]:
    if not given or not rows:
        return []
    mine = {i: rows[i] for i in given if i in rows}
    names = {i.batch_id for i in mine}
    by_batch = answer_or_notice(stores.index, lambda index: index.get(names), notices)
    documents: list[Document] | None = None
    if by_batch is not None:
        documents = [d for of_batch in by_batch.values() for d in of_batch]
    return batches_now(not_shown_for(user, mine, documents or []), mine, documents)


def _rows(
    stores: Platform, ids: set[BatchId] | list[BatchId], notices: list[str]
) -> dict[BatchId, Row] | None:
    """The rows of batches, as far as these name a course; None if Cassandra does not answer."""
    keys = [i for i in ids if i.course_id]
    return answer_or_notice(stores.rows, lambda rows: rows.read(keys), notices) if keys else {}


def answer_or_notice(
    service: Asked[S], question: Callable[[S], T], notices: list[str], missing: list[str] | None = None
) -> T | None:
    """The answer of a store; a notice and None where it has none, so that the rest of the page is shown.

    `missing` is for a service that is optional: it takes the sentence that says which Connection to make.
    """
    try:
        return service.ask(question)
    except OwnershipError as e:
        if missing is not None and isinstance(e, MissingConnection):
            missing.append(str(e))
            return None
        log.warning("page cannot ask a store", why=str(e))
        notices.append(str(e)[:300])
        return None
