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
    and_,
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
from ownership.ledger.changes import owners_of
from ownership.ledger.event_ids import EventIds
from ownership.ledger.events import EventRow
from ownership.ledger.reads.lists import LISTED_COLUMNS, PAGE_SIZE, ListedEvent, last_events, listed_event
from ownership.ledger.reads.statements import Reader, residual, texts
from ownership.ledger.schema import among, change, event, plan


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


class BatchStep(NamedTuple):
    """An event that concerned a batch, and what it did to it."""

    event: ListedEvent
    change: BatchChange


class BatchTimeline(NamedTuple):
    """One page of a batch's events, the last accepted first."""

    steps: list[BatchStep]
    next: int | None
    """Where the next page begins; None on the last page."""


class Progress(NamedTuple):
    """Batches of the phase of an event: planned, moved, proven in both stores."""

    planned: int
    moved: int
    proven: int


class Batches(Reader):
    """Reads of plans and changes of one event."""

    def page(self, row: EventRow, after: BatchId | None = None, *, limit: int = PAGE_SIZE) -> ChangesPage:
        """One page of the batches that an event concerns, by course and batch."""

        def work(connection: Connection) -> ChangesPage:
            ids = EventIds().of(connection, {row.mid, *row.planned_with})
            own = ids.get(row.mid)
            batches = [] if own is None else _batches(connection, own, after, limit + 1)
            if own is None or not batches:
                return ChangesPage([], None)
            shown = batches[:limit]
            plans = _plans(connection, select(plan).where(_between(plan, own, shown)))
            others = sorted(i for i in ids.values() if i != own)
            if others and (lacking := [b for b in shown if (own, b) not in plans]):
                of_others = _plans(connection, _first_plans(others, lacking))
                plans |= {(own, batch): planned for (_, batch), planned in of_others.items()}
            hops = _hops(connection, _between(change, own, shown))
            return ChangesPage(
                [BatchChange(b, plans.get((own, b)), hops.get((own, b), [])) for b in shown],
                shown[-1] if len(batches) > limit else None,
            )

        return self._database.run(work)

    def timeline(
        self, batch_id: str, course_id: str = "", before: int | None = None, *, limit: int = PAGE_SIZE
    ) -> BatchTimeline:
        """One page of the events that concerned a batch, or all batches of that id where no course is given."""

        def work(connection: Connection) -> BatchTimeline:
            tables = [
                (table, and_(_is_of(table, batch_id, course_id), *self._is_visible(table)))
                for table in (plan, change)
            ]
            ids = connection.scalars(last_events(tables, limit + 1, before)).all()
            shown = ids[:limit]
            listed = select(event.c.id, *LISTED_COLUMNS).where(among(event.c.id, shown))
            events = {r.id: listed_event(r, self._visible) for r in connection.execute(listed)}
            of_plan, of_change = (
                _is_of(table, batch_id, course_id) & among(table.c.event_id, shown)
                for table in (plan, change)
            )
            plans = _plans(connection, select(plan).where(of_plan))
            hops = _hops(connection, of_change)
            return BatchTimeline(
                [
                    BatchStep(events[i], BatchChange(b, plans.get((i, b)), hops.get((i, b), [])))
                    for i, b in sorted(plans.keys() | hops.keys(), reverse=True)
                ],
                shown[-1] if len(ids) > limit else None,
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


_OLDEST_TRY = (change.c.fencing_token, change.c.recorded_at, change.c.image)


def _is_of(table: FromClause, batch_id: str, course_id: str) -> ColumnElement[bool]:
    of_batch = table.c.batch_id == batch_id
    return of_batch & residual(table.c.course_id == course_id) if course_id else of_batch


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


def _plans(connection: Connection, query: Select[Any]) -> dict[tuple[int, BatchId], PlannedBatch]:
    """Plans, by event and batch."""
    rows = connection.execute(query)
    return {(r.event_id, BatchId(r.course_id, r.batch_id)): _planned(r) for r in rows}


def _first_plans(event_ids: Sequence[int], batches: Sequence[BatchId]) -> Select[Any]:
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
    return select(first).select_from(wanted.join(first, true()))


def _hops(
    connection: Connection, condition: ColumnElement[bool]
) -> dict[tuple[int, BatchId], list[BatchHop]]:
    """Hops by event and batch, oldest first."""
    found: dict[tuple[int, BatchId], list[BatchHop]] = {}
    for r in connection.execute(select(change).where(condition).order_by(*_OLDEST_TRY)):
        found.setdefault((r.event_id, BatchId(r.course_id, r.batch_id)), []).append(_hop(r))
    return found


def _hop(r: Any) -> BatchHop:
    before, after = Owners(*owners_of(r, "before")), Owners(*owners_of(r, "after"))
    outcome = r.outcome and ChangeOutcome(r.outcome)
    return BatchHop(r.role, before, after, r.hop, r.hops, outcome, r.applied_at)


def _planned(r: Any) -> PlannedBatch:
    # An unchanged row has no owners afterwards.
    after = None if r.after_mentors is None else Owners(*owners_of(r, "after"))
    outcome = r.outcome and BatchOutcome(r.outcome)
    return PlannedBatch(r.role, Owners(*owners_of(r, "before")), after, outcome, r.proven_at)
