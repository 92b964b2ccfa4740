"""What one event planned and changed, batch by batch."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime
from typing import Any, NamedTuple

from sqlalchemy import (
    ColumnElement,
    Connection,
    FromClause,
    Select,
    func,
    lateral,
    literal,
    or_,
    select,
    true,
    tuple_,
    union,
)

from ownership.domain.plan import BatchId
from ownership.domain.states import BatchOutcome, ChangeOutcome
from ownership.ledger.changes import batch_outcome, change_outcome
from ownership.ledger.database import from_ledger
from ownership.ledger.event_ids import EventIds
from ownership.ledger.events import EventRow
from ownership.ledger.reads.lists import PAGE_SIZE
from ownership.ledger.reads.statements import BoundedDatabase, texts
from ownership.ledger.schema import among, change, plan


class Owners(NamedTuple):
    """Creator and mentors of a batch."""

    created_by: str | None
    mentors: tuple[str, ...]


class PlannedBatch(NamedTuple):
    """A batch in the plan of an event."""

    role: str | None
    before: Owners
    after: Owners | None
    """None where nothing was to change."""
    outcome: BatchOutcome | None
    proven_at: datetime | None


class BatchHop(NamedTuple):
    """An event's share of one compare-and-set on a batch."""

    role: str
    before: Owners
    after: Owners
    hop: int
    hops: int
    outcome: ChangeOutcome | None
    applied_at: datetime | None


class BatchChange(NamedTuple):
    """What an event did to a batch: its plan, which another event of its lane may have, and its hops, oldest first."""

    id: BatchId
    plan: PlannedBatch | None
    hops: list[BatchHop]


class ChangesPage(NamedTuple):
    """One page of an event's batches, by course and batch."""

    batches: list[BatchChange]
    next: BatchId | None
    """The batch after which the next page begins; None on the last page."""


class Progress(NamedTuple):
    """Batches of the phase of an event: planned, moved, proven in both stores."""

    planned: int
    moved: int
    proven: int


class Batches:
    """Reads of plans and changes of one event."""

    def __init__(self, database: BoundedDatabase) -> None:
        self._database = database

    def page(self, row: EventRow, after: BatchId | None = None, *, limit: int = PAGE_SIZE) -> ChangesPage:
        """One page of the batches that an event concerns, by course and batch."""

        def work(connection: Connection) -> ChangesPage:
            ids = EventIds().of(connection, {row.mid, *row.planned_with})
            own = ids.get(row.mid)
            batches = [] if own is None else _batches(connection, own, after, limit + 1)
            if own is None or not batches:
                return ChangesPage([], None)
            shown = batches[:limit]
            plans = _plans(connection, own, shown)
            others = sorted(i for i in ids.values() if i != own)
            if others and (lacking := [b for b in shown if b not in plans]):
                plans |= _plans_of_others(connection, others, lacking)
            hops = _hops(connection, own, shown)
            return ChangesPage(
                [BatchChange(b, plans.get(b), hops.get(b, [])) for b in shown],
                shown[-1] if len(batches) > limit else None,
            )

        return self._database.run(work)

    def progress(self, row: EventRow) -> Progress:
        """How far the batches of an event and of those it was planned with are."""

        def work(connection: Connection) -> Progress:
            ids = list(EventIds().of(connection, {row.mid, *row.planned_with}).values())
            planned = (
                select(
                    plan.c.course_id,
                    plan.c.batch_id,
                    func.bool_or(plan.c.outcome.isnot(None)).label("proven"),
                )
                .where(among(plan.c.event_id, ids))
                .group_by(plan.c.course_id, plan.c.batch_id)
                .subquery()
            )
            moved = (
                select(change.c.course_id, change.c.batch_id)
                .distinct()
                .where(among(change.c.event_id, ids), change.c.applied_at.isnot(None))
                .subquery()
            )
            same = (planned.c.course_id == moved.c.course_id) & (planned.c.batch_id == moved.c.batch_id)
            is_moved = or_(planned.c.proven, moved.c.batch_id.isnot(None))
            query = select(
                func.count(), func.count().filter(is_moved), func.count().filter(planned.c.proven)
            ).select_from(planned.outerjoin(moved, same))
            return Progress(*connection.execute(query).one())

        return self._database.run(work)


def _batches(connection: Connection, event_id: int, after: BatchId | None, limit: int) -> list[BatchId]:
    """The event's next batches."""

    def of(table: FromClause) -> Select[Any]:
        key = (table.c.course_id, table.c.batch_id)
        query = select(*key).where(table.c.event_id == event_id).group_by(*key).order_by(*key).limit(limit)
        return query.where(tuple_(*key) > tuple_(*map(literal, after))) if after else query

    both = union(of(plan), of(change)).subquery()
    query = select(both).order_by(both.c.course_id, both.c.batch_id).limit(limit)
    return [BatchId(course, batch) for course, batch in connection.execute(query)]


def _between(table: FromClause, event_id: int, batches: Sequence[BatchId]) -> ColumnElement[bool]:
    """The event's rows of these batches, which are all that it has from the first to the last."""
    key = tuple_(table.c.course_id, table.c.batch_id)
    first, last = (tuple_(*map(literal, b)) for b in (batches[0], batches[-1]))
    return (table.c.event_id == event_id) & (key >= first) & (key <= last)


def _plans(connection: Connection, event_id: int, batches: Sequence[BatchId]) -> dict[BatchId, PlannedBatch]:
    rows = connection.execute(select(plan).where(_between(plan, event_id, batches)))
    return {BatchId(r.course_id, r.batch_id): _planned(r) for r in rows}


def _plans_of_others(
    connection: Connection, event_ids: Sequence[int], batches: Sequence[BatchId]
) -> dict[BatchId, PlannedBatch]:
    """The first plan of each batch among other events: a batch that a chain moves is planned once."""
    courses, ids = zip(*batches, strict=True)
    wanted = (
        func.unnest(texts(courses), texts(ids))
        .table_valued("course_id", "batch_id", name="wanted")
        .render_derived()
    )
    first = lateral(
        select(plan)
        .where(
            among(plan.c.event_id, event_ids),
            plan.c.course_id == wanted.c.course_id,
            plan.c.batch_id == wanted.c.batch_id,
        )
        .order_by(plan.c.event_id)
        .limit(1)
    )
    rows = connection.execute(select(first).select_from(wanted.join(first, true())))
    return {BatchId(r.course_id, r.batch_id): _planned(r) for r in rows}


def _hops(connection: Connection, event_id: int, batches: Sequence[BatchId]) -> dict[BatchId, list[BatchHop]]:
    query = select(change).where(_between(change, event_id, batches))
    found: dict[BatchId, list[BatchHop]] = {}
    for r in connection.execute(query.order_by(change.c.fencing_token, change.c.recorded_at, change.c.image)):
        before, after = _owners(r, "before"), _owners(r, "after")
        hop = BatchHop(r.role, before, after, r.hop, r.hops, change_outcome(r.outcome), r.applied_at)
        found.setdefault(BatchId(r.course_id, r.batch_id), []).append(hop)
    return found


def _planned(r: Any) -> PlannedBatch:
    # An unchanged row has no owners afterwards.
    after = None if r.after_mentors is None else _owners(r, "after")
    return PlannedBatch(r.role, _owners(r, "before"), after, batch_outcome(r.outcome), r.proven_at)


def _owners(r: Any, when: str) -> Owners:
    creator, mentors = getattr(r, f"{when}_created_by"), getattr(r, f"{when}_mentors") or ()
    return Owners(creator and from_ledger(creator), tuple(map(from_ledger, mentors)))
