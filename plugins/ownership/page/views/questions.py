"""Answers to questions: what an id is, what happened to a batch, and what a user holds now."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final, NamedTuple

from ownership.domain.compare import LABELS, MISSING, ORPHAN, differences, is_same_user, least_alike
from ownership.domain.event import folded
from ownership.domain.plan import BatchId, Document, Row
from ownership.ledger.reads.batches import BatchTimeline
from ownership.ledger.reads.lists import PAGE_SIZE, Filters
from ownership.ledger.reads.questions import Known
from ownership.page.views.batches import ChangeLine, change_line
from ownership.page.views.formats import counted, owner_lines, plain
from ownership.page.views.links import RunLink, batch_href, detail_href, list_href, user_href
from ownership.page.views.lists import ListLine, event_line
from ownership.platform.search_index import MAX_SHOWN

STATUS_NAMES: Final[Mapping[Any, str]] = {0: "upcoming", 1: "ongoing", 2: "completed"}
"""Of a batch."""


class Answer(NamedTuple):
    """Something that a text is known as."""

    what: str
    href: str


@dataclass(frozen=True)
class BatchNow:
    """A batch as it is now. The row says the truth, and the document should say the same."""

    course_id: str
    batch_id: str
    name: str
    status: str
    row: tuple[str, ...]
    """Creator and mentors, a line each; empty where there is no row, or Cassandra did not answer."""
    document: tuple[str, ...]
    """The same in the search index."""
    differences: tuple[str, ...]
    """In words; empty where row and document agree, or one of the stores was not asked."""


@dataclass(frozen=True)
class UserBatches:
    """One page of what a user holds."""

    total: int | None
    """Batches whose documents name the user; None if the index did not answer."""
    page: int
    batches: list[BatchNow]
    only_rows: list[BatchNow]
    """Batches that transfers gave the user lately, whose rows name them and whose documents do not. On the first page."""
    notices: list[str]
    """What could not be asked."""


class StepLine(NamedTuple):
    """An event in the timeline of a batch."""

    event: ListLine
    change: ChangeLine
    undo_of: str | None


def answers(text: str, known: Known, found: Sequence[Document]) -> list[Answer]:
    """What a text is known as, by the ledger and by the documents that a search found."""
    user = folded(text)
    owns = any(is_same_user(v, user) for d in found for v in (d.created_by, *d.mentors))
    is_batch = known.batch or any(folded(d.batch_id) == user for d in found)
    has_course = known.course or any(folded(d.course_id or "") == user for d in found)
    all_known = (
        (known.transfer, "Transfer", detail_href(text)),
        (known.user or owns, "User: the batches of today", user_href(text)),
        (known.user, "User: the transfers from and to them", list_href(Filters(user=text))),
        (is_batch, "Batch: what happened to it", batch_href(BatchId("", text))),
        (has_course, "Course: the transfers that concerned it", list_href(Filters(course_id=text))),
        (known.request, "Request: its transfers", list_href(Filters(request_id=text))),
        (known.run, "Run: its transfers", list_href(Filters(run_id=text))),
    )
    return [Answer(what, href) for fits, what, href in all_known if fits]


def batches_now(
    ids: Collection[BatchId], rows: Mapping[BatchId, Row] | None, documents: Sequence[Document] | None
) -> list[BatchNow]:
    """Batches side by side, in the order of `ids`. None: that store did not answer."""
    of_batch: dict[str, list[Document]] = {}
    for d in documents or ():
        of_batch.setdefault(d.batch_id, []).append(d)
    return [_now(i, rows, None if documents is None else of_batch.get(i.batch_id, [])) for i in ids]


def _now(
    batch: BatchId, rows: Mapping[BatchId, Row] | None, documents: Sequence[Document] | None
) -> BatchNow:
    row = rows.get(batch) if rows is not None else None
    shown = least_alike(row, documents or ()) if row else next(iter(documents or ()), None)
    source = shown.source if shown else {}
    kinds: tuple[str, ...] = ()
    if rows is not None and documents is not None:
        kinds = differences(row, shown) if row else (ORPHAN,) if shown else ()
    status = row.status if row else source.get("status")
    words = [LABELS[k] for k in kinds]
    if row and shown and MISSING not in kinds and row.status != source.get("status"):
        words.append(f"the document says {_status(source.get('status'))}")
    return BatchNow(
        *batch,
        plain(source.get("name")),
        _status(status) if row or shown else "",
        owner_lines(row.created_by, row.mentors) if row else (),
        owner_lines(shown.created_by, shown.mentors) if shown else (),
        tuple(words),
    )


def not_shown_for(user: str, rows: Mapping[BatchId, Row], documents: Sequence[Document]) -> list[BatchId]:
    """The rows that name a user and whose documents do not, by course and batch."""
    name = folded(user)
    shown = {d.batch_id for d in documents if any(is_same_user(v, name) for v in (d.created_by, *d.mentors))}
    return sorted(i for i, row in rows.items() if row.names({name}) and i.batch_id not in shown)


def batch_ids(documents: Sequence[Document]) -> list[BatchId]:
    """The batches that documents name, in their order. A document that names no course has no row."""
    return list(dict.fromkeys(BatchId(d.course_id or "", d.batch_id) for d in documents))


def step_lines(timeline: BatchTimeline, runs: Mapping[str, RunLink], *, now_ms: int) -> list[StepLine]:
    """The events of a batch."""
    return [
        StepLine(event_line(s.event, runs, now_ms=now_ms), change_line(s.change), s.event.options.undo_of)
        for s in timeline.steps
    ]


def in_short(total: int, user: str, first: int, shown: int) -> str:
    """How many batches a user holds by the index, and which of them are shown."""
    if not total:
        return f"The index shows no batch of {user}."
    here = f"here are {first + 1} to {first + shown}" if shown else "there is nothing on this page"
    return f"The index shows {counted(total, 'batch', 'batches')} of {user}; {here}."


def pages_around(total: int | None, page: int) -> tuple[int | None, int | None]:
    """The pages before and after one, None where there is none; before a page beyond the last is the last.

    `total`: None if the index did not answer.
    """
    if total is None:
        return page - 1 or None, None
    last = max(-(-min(total, MAX_SHOWN) // PAGE_SIZE), 1)
    return min(page - 1, last) or None, page + 1 if page < last else None


def _status(value: Any) -> str:
    return STATUS_NAMES.get(value, f"status {plain(value)}") if isinstance(value, int | str) else "no status"
