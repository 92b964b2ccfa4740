"""The audit trail: which batches an event concerns, and each change before it is made.

A row of `plan` says that the event's batch was found, and in the end its outcome. An *image* is one
compare-and-set on a row of the platform, before and after. A change that several events of a lane share has one row
of `change` for each of them: the event's own hop. The first hop begins where the image does, the last one ends there.
"""

from __future__ import annotations

import json
from collections import defaultdict
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from datetime import datetime
from sys import intern
from typing import Any, NamedTuple, TypeVar
from uuid import UUID, uuid4

from sqlalchemy import ColumnElement, Connection, Table, TextClause, delete, or_, select, text

from ownership.domain.plan import BatchId, Hop, Row, changed_role, role
from ownership.domain.queue import ClaimedEvent
from ownership.domain.states import MADE, BatchOutcome, ChangeOutcome, EventState
from ownership.ledger.database import NO_NESTED_LOOP, Database, copy, from_ledger, to_ledger
from ownership.ledger.event_ids import EventIds
from ownership.ledger.queue import lock
from ownership.ledger.schema import among, change, event, plan

T = TypeVar("T")

BATCHES_AT_ONCE = 5000
"""Batches whose plan and images are in memory together."""

ROWS = "rows"
"""In an event's counts: rows whose change ended with this event."""


class Planned(NamedTuple):
    """A batch that an event concerns, and its outcome so far."""

    mid: str
    id: BatchId
    outcome: BatchOutcome | None = None


class PlanRow(NamedTuple):
    """A planned batch with its row as it was found, and the event's change to it, if it has one."""

    planned: Planned
    row: Row | None
    hop: Hop | None


class Image(NamedTuple):
    """One compare-and-set on a row, as it is recorded before it is made."""

    id: BatchId
    fencing_token: int
    uuid: UUID
    before: Row
    after: Row
    hops: tuple[Hop, ...]
    outcome: ChangeOutcome | None = None
    applied_at: datetime | None = None


def new_image(batch: BatchId, token: int, before: Row, after: Row, hops: Iterable[Hop]) -> Image:
    """An image of its own for this try."""
    return Image(batch, token, uuid4(), before, after, tuple(hops))


_PLAN = select(event.c.mid, plan).join_from(plan, event, plan.c.event_id == event.c.id)
_PLANNED = _PLAN.with_only_columns(event.c.mid, plan.c.course_id, plan.c.batch_id, plan.c.outcome)
"""The same without rows."""
_CHANGE = (
    select(event.c.mid, change)
    .join_from(change, event, change.c.event_id == event.c.id)
    .order_by(change.c.fencing_token, change.c.recorded_at, change.c.image, change.c.hop)
)
_INSERT_PLAN = text(
    "INSERT INTO plan SELECT * FROM json_populate_recordset(CAST(NULL AS plan), :rows) "
    "ON CONFLICT (event_id, course_id, batch_id) DO NOTHING"
)
_CHANGE_COLUMNS = (
    "event_id, course_id, batch_id, image, hop, hops, fencing_token, role, status, before_created_by, before_mentors, "
    "after_created_by, after_mentors"
)


def _settling(table: str, values: str, condition: str) -> TextClause:
    """Sets `values` of the table's rows `t` that are given as JSON, `v`, where the condition holds."""
    return text(
        f"WITH v AS MATERIALIZED (SELECT * FROM json_populate_recordset(CAST(NULL AS {table}), :rows)) "
        f"UPDATE {table} t SET {values} FROM v "
        "WHERE t.event_id = v.event_id AND t.course_id = v.course_id AND t.batch_id = v.batch_id "
        "AND t.course_id BETWEEN (SELECT min(course_id) FROM v) AND (SELECT max(course_id) FROM v) "
        f"AND t.event_id = ANY(:ids) AND {condition}"
    )


_SETTLE_IMAGES = _settling(
    "change",
    "outcome = v.outcome, applied_at = CASE WHEN v.outcome = 'applied' THEN now() END",
    "t.image = v.image AND (t.outcome IS NULL OR t.outcome <> ALL(:stay)) "
    "AND t.image NOT IN (SELECT image FROM v WHERE fencing_token IS NOT NULL AND NOT EXISTS ("
    "SELECT FROM queue q WHERE q.event_id = v.event_id AND q.fencing_token = v.fencing_token))",
)
_SETTLE_PLAN = _settling(
    "plan",
    "outcome = v.outcome, proven_at = :proven_at, status = coalesce(t.status, v.status), "
    "before_created_by = CASE WHEN t.status IS NULL THEN v.before_created_by ELSE t.before_created_by END, "
    "before_mentors = CASE WHEN t.status IS NULL THEN v.before_mentors ELSE t.before_mentors END",
    "t.outcome IS DISTINCT FROM 'moved'",
)
_MOVED = (
    "UPDATE plan SET outcome = 'moved', proven_at = :proven_at WHERE event_id = ANY(:ids) AND EXISTS ("
    "SELECT FROM change c WHERE c.event_id = ANY(:by) AND c.course_id = plan.course_id "
    "AND c.batch_id = plan.batch_id AND c.outcome = 'applied'"
)
_SETTLE_MOVED = text(_MOVED + ")")
_SETTLE_MOVED_BY_ITSELF = text(_MOVED + " AND c.event_id = plan.event_id)")
_COUNT_MOVED = text(
    "SELECT event_id, count(DISTINCT (course_id, batch_id)) AS moved, "
    "count(DISTINCT (course_id, batch_id)) FILTER (WHERE hop = hops - 1) AS rows "
    "FROM change WHERE event_id = ANY(:ids) AND outcome = 'applied' GROUP BY event_id"
)
_COUNT_UNMOVED = text(
    "SELECT event_id, outcome, count(*) AS batches FROM plan "
    "WHERE event_id = ANY(:ids) AND outcome <> 'moved' GROUP BY event_id, outcome"
)


class Changes:
    """Plans and images of events."""

    def __init__(self, database: Database) -> None:
        self._database = database
        self._ids = EventIds()

    # -- reads ---------------------------------------------------------------------------------------------

    def read(self, mids: Collection[str]) -> tuple[list[Planned], list[Image]]:
        """Plan and images of events; the images in the order in which they were recorded."""
        if not mids:
            return [], []

        def work(connection: Connection) -> tuple[list[Planned], list[Image]]:
            ids = self._ids.of(connection, mids)
            planned = connection.execute(_PLANNED.where(_of_events(plan.c.event_id, ids)))
            changes = connection.execute(_CHANGE.where(_of_events(change.c.event_id, ids))).all()
            return [_planned(r) for r in planned], _images(connection, changes)

        return self._database.run(work)

    def unproven(self, mids: Collection[str]) -> list[Image]:
        """Images of events that may stand on a row without a proof.

        Of a completed event those that are late, in doubt or without an outcome; of another the applied ones, too.
        """

        def work(connection: Connection) -> list[Image]:
            applied = (change.c.outcome == ChangeOutcome.APPLIED) & (event.c.state != EventState.COMPLETED)
            query = _CHANGE.where(
                _of_events(change.c.event_id, self._ids.of(connection, mids)),
                or_(
                    change.c.outcome.is_(None),
                    change.c.outcome.in_((ChangeOutcome.LATE, ChangeOutcome.IN_DOUBT)),
                    applied,
                ),
            )
            return _images(connection, connection.execute(query).all())

        return self._database.run(work) if mids else []

    def undecided(self, mids: Collection[str]) -> list[Image]:
        """All images of these events, of the batches that have one without an outcome, or a superseded one."""

        def work(connection: Connection) -> list[Image]:
            mine = _of_events(change.c.event_id, self._ids.of(connection, mids))
            open_ = or_(change.c.outcome.is_(None), change.c.outcome == ChangeOutcome.SUPERSEDED)
            query = select(change.c.course_id, change.c.batch_id).where(mine, open_)
            batches = {BatchId(*r) for r in connection.execute(query)}
            return _images_of(connection, batches, mine) if batches else []

        return self._database.run(work) if mids else []

    def of_batches(self, batches: Collection[BatchId]) -> list[Image]:
        """All images of batches, of whatever event, in the order in which they were recorded."""
        return self._database.run(lambda c: _images_of(c, batches)) if batches else []

    def unsettled(self, mids: Collection[str], proven_at: datetime) -> list[Planned]:
        """Planned batches that were not moved, and whose outcome was not written at `proven_at`.

        `BATCHES_AT_ONCE` at most.
        """

        def work(connection: Connection) -> list[Planned]:
            query = (
                _PLANNED.where(
                    _of_events(plan.c.event_id, self._ids.of(connection, mids)),
                    plan.c.proven_at.is_distinct_from(proven_at),
                    # What was moved stays so, whatever a try finds that was frozen and comes late.
                    plan.c.outcome.is_distinct_from(BatchOutcome.MOVED),
                )
                .order_by(plan.c.event_id, plan.c.course_id, plan.c.batch_id)
                .limit(BATCHES_AT_ONCE)
            )
            return [_planned(r) for r in connection.execute(query)]

        return self._database.run(work)

    def counts(self, mids: Collection[str]) -> dict[str, dict[str, int]]:
        """By mid, batches by outcome: those that the event moved, and those of its plan that it did not.

        A batch that a chain moves is `MOVED` by each of its events; `ROWS` counts it for the last one only.
        """

        def work(connection: Connection) -> dict[str, dict[str, int]]:
            mid_of = {i: m for m, i in self._ids.of(connection, mids).items()}
            found: dict[str, dict[str, int]] = {m: {} for m in mids}
            for r in connection.execute(_COUNT_MOVED, {"ids": list(mid_of)}):
                found[mid_of[r.event_id]] = {BatchOutcome.MOVED: r.moved} | ({ROWS: r.rows} if r.rows else {})
            for r in connection.execute(_COUNT_UNMOVED, {"ids": list(mid_of)}):
                found[mid_of[r.event_id]][r.outcome] = r.batches
            return found

        return self._database.run(work)

    def batches(self, mids: Collection[str]) -> set[BatchId]:
        """The planned batches of events, without their outcomes."""
        return self._batches(plan, mids, lambda _, batch: batch)

    def to_change(self, mid: str) -> set[BatchId]:
        """The batches that an event's plan changes, without those that it only names."""
        return self._batches(plan, [mid], lambda _, batch: batch, plan.c.after_mentors.isnot(None))

    def changed(self, mids: Collection[str]) -> set[BatchId]:
        """Batches that have an image of these events; one that a chain changes is planned for its first event alone."""
        return self._batches(change, mids, lambda _, batch: batch)

    def planned(self, mids: Collection[str]) -> set[tuple[str, BatchId]]:
        """What is planned for events: mid and batch."""
        return self._batches(plan, mids, lambda mid, batch: (mid, batch))

    def _batches(
        self,
        table: Table,
        mids: Collection[str],
        made: Callable[[str, BatchId], T],
        *which: ColumnElement[bool],
    ) -> set[T]:
        """What is `made` of mid and batch of each row that a table has of events. There may be 100,000 rows."""
        if not mids:
            return set()

        def work(connection: Connection) -> set[T]:
            ids = self._ids.of(connection, mids)
            mid_of = {i: m for m, i in ids.items()}
            query = select(table.c.event_id, table.c.course_id, table.c.batch_id)
            found = connection.execute(query.where(_of_events(table.c.event_id, ids), *which))
            return {
                made(mid_of[event_id], BatchId(intern(course_id), batch_id))  # many batches share a course
                for event_id, course_id, batch_id in found
            }

        return self._database.run(work)

    def has_planned(self, mid: str, batch: BatchId) -> bool:
        """True if an event has planned the batch."""
        query = _PLAN.where(
            event.c.mid == mid, plan.c.course_id == batch.course_id, plan.c.batch_id == batch.batch_id
        )
        return self._database.run(lambda c: c.execute(query).first() is not None)

    def started(self, mids: Collection[str]) -> set[str]:
        """Those of `mids` that have an image: their changes have begun."""
        return self._with_images(mids)

    def made(self, mids: Collection[str]) -> set[str]:
        """Those of `mids` that changed a row."""
        return self._with_images(mids, change.c.outcome.in_(MADE))

    def _with_images(self, mids: Collection[str], *conditions: ColumnElement[bool]) -> set[str]:
        query = (
            select(event.c.mid)
            .distinct()
            .join_from(change, event, change.c.event_id == event.c.id)
            .where(among(event.c.mid, mids), *conditions)
        )
        return self._database.run(lambda c: set(c.scalars(query)))

    def read_plan(
        self, mid: str, *, outcome: BatchOutcome | None = None, limit: int | None = None
    ) -> list[PlanRow]:
        """The plan of one event, with owners before and after as they were planned, in the order of batches."""
        query = _PLAN.where(event.c.mid == mid).order_by(plan.c.course_id, plan.c.batch_id).limit(limit)
        if outcome:
            query = query.where(plan.c.outcome == outcome)
        return self._database.run(lambda c: [_plan_row(r) for r in c.execute(query)])

    # -- writes --------------------------------------------------------------------------------------------

    def forget_plans(self, rehearsed: Sequence[ClaimedEvent]) -> None:
        """Remove the plans of dry runs, which are planned anew each time, where they still are the caller's."""

        def work(connection: Connection) -> None:
            mine = lock(connection, rehearsed).values()
            connection.execute(delete(plan).where(among(plan.c.event_id, mine)))

        if rehearsed:
            self._database.run(work)

    def plan(
        self,
        rows: Sequence[PlanRow],
        users: Mapping[str, frozenset[str]],
        *,
        rehearsed: Sequence[ClaimedEvent] = (),
    ) -> None:
        """Add to plans what they lack.

        `users` are each event's sources (by mid), for the role of unchanged rows. `rehearsed` are the dry runs among
        the events: people look at their plans, so nothing is added where they are not the caller's any more.
        """
        if not rows:
            return

        def work(connection: Connection) -> None:
            ids = self._ids.of(connection, {r.planned.mid for r in rows})
            lost = {e.mid for e in rehearsed} - lock(connection, rehearsed).keys()
            unique = {(r.planned.mid, r.planned.id): r for r in rows if r.planned.mid not in lost}
            values = [_plan_values(ids[m], r, users.get(m, ())) for (m, _), r in unique.items()]
            connection.execute(_INSERT_PLAN, {"rows": json.dumps(values)})

        self._database.run(work)

    def record(self, images: Sequence[Image]) -> None:
        """Write images; durable when this returns, so the rows may be changed."""
        if not images:
            return

        def work(connection: Connection) -> None:
            ids = self._ids.of(connection, {h.mid for i in images for h in i.hops})
            # A repeated transaction finds what it wrote before: the images of a wave are written together.
            first = images[0]
            there = select(change.c.image).where(
                change.c.event_id == ids[first.hops[0].mid],
                change.c.course_id == first.id.course_id,
                change.c.batch_id == first.id.batch_id,
                change.c.image == first.uuid,
            )
            if connection.execute(there).first():
                return
            rows = ((ids[h.mid], n, i, h) for i in images for n, h in enumerate(i.hops))
            copy(connection, "change", _CHANGE_COLUMNS.split(", "), (_change_values(*r) for r in rows))

        self._database.run(work)

    def settle_images(
        self,
        outcomes: Sequence[tuple[Image, ChangeOutcome]],
        *,
        stay: Collection[ChangeOutcome] = (),
        tokens: Mapping[str, int] | None = None,
    ) -> None:
        """Write the outcomes of images, in one statement. Those that have one of `stay` keep it.

        With `tokens`, the fencing tokens of their events by mid, images of an event that has another token by now, or
        that is final, are left as they are: whoever took it over has judged them, or will.
        """
        if not outcomes:
            return

        def work(connection: Connection) -> None:
            ids = self._ids.of(connection, {h.mid for i, _ in outcomes for h in i.hops})
            # Every writer locks rows in one order.
            rows = sorted(
                (ids[h.mid], *i.id, str(i.uuid), outcome, tokens[h.mid] if tokens else None)
                for i, outcome in outcomes
                for h in i.hops
            )
            names = ("event_id", "course_id", "batch_id", "image", "outcome", "fencing_token")
            values = json.dumps([dict(zip(names, row, strict=True)) for row in rows])
            connection.execute(NO_NESTED_LOOP)
            given = {"rows": values, "ids": list(ids.values()), "stay": list(stay)}
            connection.execute(_SETTLE_IMAGES, given)

        self._database.run(work)

    def settle_plan(self, rows: Sequence[PlanRow], *, proven_at: datetime) -> None:
        """Write the outcomes of planned batches that were not moved, and when row and document were seen to agree.

        Each with its row as it is then, for a plan that was made without reading it.
        """
        if not rows:
            return

        def work(connection: Connection) -> None:
            ids = self._ids.of(connection, {r.planned.mid for r in rows})
            values = json.dumps([_plan_values(ids[r.planned.mid], r) for r in rows])
            connection.execute(NO_NESTED_LOOP)
            given = {"rows": values, "ids": list(ids.values()), "proven_at": proven_at}
            connection.execute(_SETTLE_PLAN, given)

        self._database.run(work)

    def settle_moved(self, mids: Collection[str], *, own: Collection[str], proven_at: datetime) -> None:
        """Mark the planned batches of events as moved, of which one of their changes was applied.

        Events of `own` moved a batch only by a change of their own, the others also by another event's.
        """

        def work(connection: Connection) -> None:
            ids = self._ids.of(connection, mids)
            by_itself = [ids[m] for m in own]
            by_any = list(set(ids.values()) - set(by_itself))
            connection.execute(NO_NESTED_LOOP)
            for statement, settled, by in (
                (_SETTLE_MOVED, by_any, list(ids.values())),
                (_SETTLE_MOVED_BY_ITSELF, by_itself, by_itself),
            ):
                if settled:
                    connection.execute(statement, {"ids": settled, "by": by, "proven_at": proven_at})

        self._database.run(work)


def _of_events(column: ColumnElement[int], ids: Mapping[str, int]) -> ColumnElement[bool]:
    """The rows of events. For a single event the index returns them in the order of batches."""
    return column == next(iter(ids.values())) if len(ids) == 1 else among(column, ids.values())


def _images_of(
    connection: Connection, batches: Collection[BatchId], *conditions: ColumnElement[bool]
) -> list[Image]:
    # By one parameter: PostgreSQL takes 65,535 of them. Courses may have batches of the same id.
    named = _CHANGE.where(among(change.c.batch_id, {i.batch_id for i in batches}), *conditions)
    return _images(connection, [r for r in connection.execute(named) if (r.course_id, r.batch_id) in batches])


def _images(connection: Connection, rows: Sequence[Any]) -> list[Image]:
    """Images from the hops of events, with the hops of other events that share them."""
    shared = {r.image for r in rows if r.hops > 1}
    if shared:
        others = connection.execute(_CHANGE.where(among(change.c.image, shared), change.c.hops > 1))
        rows = [*(r for r in rows if r.hops == 1), *others]
    parts: dict[UUID, list[Any]] = defaultdict(list)
    for r in rows:
        parts[r.image].append(r)
    images = [(hops[0].recorded_at, _image(hops)) for hops in parts.values()]
    return [i for _, i in sorted(images, key=lambda pair: (pair[1].fencing_token, pair[0], pair[1].uuid))]


def _image(rows: Sequence[Any]) -> Image:
    first = rows[0]
    batch = BatchId(first.course_id, first.batch_id)
    hops = tuple(Hop(r.mid, _row(batch, r, "before"), _row(batch, r, "after")) for r in rows)
    return Image(
        batch,
        first.fencing_token,
        first.image,
        hops[0].before,
        hops[-1].after,
        hops,
        first.outcome and ChangeOutcome(first.outcome),
        first.applied_at,
    )


def owners_of(r: Any, when: str) -> tuple[str | None, tuple[str, ...]]:
    """Creator and mentors `before` or `after`, from a row of `plan` or `change`."""
    creator, mentors = getattr(r, f"{when}_created_by"), getattr(r, f"{when}_mentors") or ()
    return creator and from_ledger(creator), tuple(map(from_ledger, mentors))


def _row(batch: BatchId, r: Any, when: str) -> Row:
    return Row(batch, *owners_of(r, when), r.status)


def _planned(r: Any) -> Planned:
    return Planned(r.mid, BatchId(r.course_id, r.batch_id), r.outcome and BatchOutcome(r.outcome))


def _plan_row(r: Any) -> PlanRow:
    planned = _planned(r)
    if r.before_mentors is None:  # a row that was read has a list, though its status may be null
        return PlanRow(planned, None, None)
    before = _row(planned.id, r, "before")
    # An unchanged row has no owners afterwards.
    hop = None if r.after_mentors is None else Hop(r.mid, before, _row(planned.id, r, "after"))
    return PlanRow(planned, before, hop)


def _plan_values(event_id: int, r: PlanRow, users: Collection[str] = ()) -> dict[str, Any]:
    planned, row, hop = r
    values: dict[str, Any] = {"event_id": event_id, **planned.id._asdict(), "outcome": planned.outcome}
    if row:
        values["role"] = changed_role(hop) if hop else role(row, users)
        values["status"] = row.status
        values["before_created_by"], values["before_mentors"] = _columns(hop.before if hop else row)
    if hop:
        values["after_created_by"], values["after_mentors"] = _columns(hop.after)
    return values


def _change_values(event_id: int, n: int, image: Image, hop: Hop) -> tuple[Any, ...]:
    return (
        event_id,
        *image.id,
        image.uuid,
        n,
        len(image.hops),
        image.fencing_token,
        changed_role(hop),
        image.before.status,
        *_columns(hop.before),
        *_columns(hop.after),
    )


def _columns(row: Row) -> tuple[str | None, list[str]]:
    return row.created_by and to_ledger(row.created_by), list(map(to_ledger, row.mentors))
