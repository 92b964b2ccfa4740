"""The ledger for people: lists a page at a time, one event with everything about it, counts.

A statement here never depends on the planner's statistics, which are old just when many events arrive. The rows of a
list come from one index, in the list's order, and end with the page: where a list is of one user or one state, the
statement asks for an order that only the index of users or states has (`_in_order`). Other conditions on these rows
are written so that no index serves them (`_residual`). The events of a run, a course or a batch are looked up first.
"""

from __future__ import annotations

import base64
import json
from collections.abc import Callable, Collection, Mapping, Sequence
from datetime import datetime
from typing import Annotated, Any, Final, NamedTuple, TypeVar

from pydantic import Field, TypeAdapter
from sqlalchemy import (
    CTE,
    BigInteger,
    ColumnElement,
    Connection,
    FromClause,
    Select,
    Text,
    cast,
    func,
    lateral,
    literal,
    null,
    or_,
    select,
    text,
    true,
    tuple_,
    union,
    union_all,
)
from sqlalchemy.dialects.postgresql import ARRAY

from ownership.domain.event import LedgerId, OrderKey, Transfer, folded, with_follow_ups
from ownership.domain.event_times import MAX_CLOCK_DRIFT_MS
from ownership.domain.options import Options
from ownership.domain.plan import BatchId
from ownership.domain.queue import QueuedEvent
from ownership.domain.reconciliation import Report
from ownership.domain.states import FINAL_STATES, OPEN_STATES, BatchOutcome, ChangeOutcome, EventState
from ownership.ledger.changes import batch_outcome, change_outcome
from ownership.ledger.database import STATEMENT_MS, Database
from ownership.ledger.events import EVENT_COLUMNS, EventRow, RejectedMessage, event_row
from ownership.ledger.queue import QUEUED, queued_event
from ownership.ledger.reports import Reconciliations
from ownership.ledger.schema import (
    ORDER_KEY,
    among,
    change,
    event,
    event_run,
    payload,
    plan,
    queue,
    rejected_message,
)

PAGE_SIZE: Final = 50
"""Entries of a list, and batches of an event, on one page."""
MAX_COUNTED: Final = 1000
"""Entries that are counted by state, the newest first."""
MAX_NARROWED: Final = 5000
"""Events of a run, a course or a batch that a list looks at, the last arrivals first."""
MAX_OPEN: Final = 20_000
"""Events of the queue that are counted."""
MAX_LANE: Final = 50
"""Events of a lane that are read."""
OPEN: Final = "open"
"""The filter that stands for every open state."""
STATES: Final = (*OPEN_STATES, *FINAL_STATES)
"""What an entry of a list can be."""

T = TypeVar("T")

_FIRST_MS, _LAST_MS = -(2**63), 2**63 - 1
_BY_INDEX = text(
    # The page reads no table as a whole, and is done before a compiler would be.
    "SELECT set_config('enable_seqscan', 'off', true), set_config('jit', 'off', true)"
)
_IN_ORDER = text(
    # A bitmap has no order: all rows that fit would be read and sorted.
    "SELECT set_config('enable_bitmapscan', 'off', true)"
)


_Bigint = Annotated[int, Field(ge=_FIRST_MS, le=_LAST_MS)]
_KEY: TypeAdapter[Any] = TypeAdapter(
    tuple[_Bigint, Annotated[int, Field(ge=-(2**31), lt=2**31)], _Bigint, LedgerId]
)


def to_cursor(key: OrderKey) -> str:
    """The last entry of a page, for an address: the next page begins after it."""
    return base64.urlsafe_b64encode(json.dumps(key).encode()).decode().rstrip("=")


def from_cursor(text: str) -> OrderKey | None:
    """From an address, in which clients may send anything; None if it is no cursor."""
    try:
        return OrderKey(*_KEY.validate_json(base64.urlsafe_b64decode(text + "=" * (-len(text) % 4))))
    except ValueError:
        return None


class Filters(NamedTuple):
    """What a list is narrowed to; empty is everything. Times in epoch ms; `before_ms` is not included."""

    user: str = ""
    """Old or new user, in any case."""
    state: str = ""
    """A state, or `OPEN`."""
    run_id: str = ""
    """A run that planned or skipped the event, or holds it."""
    course_id: str = ""
    batch_id: str = ""
    since_ms: int | None = None
    """Time of the message."""
    before_ms: int | None = None

    @property
    def states(self) -> tuple[str, ...]:
        """The states that are wanted."""
        if self.state == OPEN:
            return OPEN_STATES
        return (self.state,) if self.state else STATES

    @property
    def with_rejected(self) -> bool:
        """True if rejected messages can fit: they have neither users nor batches nor a run."""
        return EventState.REJECTED in self.states and not (self.user or self._narrowed)

    @property
    def _narrowed(self) -> bool:
        return bool(self.run_id or self.course_id or self.batch_id)


class ListEntry(NamedTuple):
    """An event or a rejected message, as a list has it."""

    key: OrderKey
    """A rejected message has its place by its broker's timestamp."""
    state: EventState
    kafka_ms: int
    from_user: str | None
    """None for a rejected message, like `to_user`."""
    to_user: str | None
    organisation_id: str | None
    requested_by: str | None
    run_id: str | None
    reason: str | None
    counts: Mapping[str, int]
    options: Options
    ended_at: datetime | None

    @property
    def mid(self) -> str:
        """The event's message id."""
        return self.key.mid


class StateCounts(NamedTuple):
    """Numbers by state of the newest entries that fit a list's filters, whatever state is wanted."""

    of: Mapping[EventState, int]
    oldest_ms: int | None
    """Order time of the oldest entry that is counted."""

    @property
    def total(self) -> int:
        """Entries that are counted: all that fit, if fewer than `MAX_COUNTED`."""
        return sum(self.of.values())


class ListPage(NamedTuple):
    """One page of a list, newest first."""

    entries: list[ListEntry]
    counts: StateCounts
    next: OrderKey | None
    """The entry after which the next page begins; None on the last page."""
    cut: bool = False
    """True if the run, course or batch has more than `MAX_NARROWED` events: the list leaves the others out."""


class OpenCounts(NamedTuple):
    """Events in the queue."""

    events: int
    awaiting_approval: int
    more: bool
    """True if there are more than were counted."""


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


class Reads:
    """Bounded reads of the ledger. Each is one short transaction."""

    def __init__(self, database: Database, *, statement_ms: int = STATEMENT_MS) -> None:
        """`statement_ms`: the server ends a statement after this."""
        self._database = database
        self._statement_ms = statement_ms

    # -- lists ---------------------------------------------------------------------------------------------

    def page(self, filters: Filters, after: OrderKey | None = None) -> ListPage:
        """One page of the entries that fit, newest first, and counts of all states that fit."""

        def work(connection: Connection) -> ListPage:
            connection.execute(_IN_ORDER)
            ids = _narrowed(connection, filters)
            entries = [_entry(r) for r in connection.execute(_newest(filters, after, ids, PAGE_SIZE + 1))]
            newest = _newest(filters._replace(state=""), None, ids, MAX_COUNTED).subquery()
            columns = (
                newest.c.state,
                func.count().label("n"),
                func.min(newest.c.order_ms).label("oldest_ms"),
            )
            counts = connection.execute(select(*columns).group_by(newest.c.state)).all()
            return ListPage(
                entries[:PAGE_SIZE],
                StateCounts(
                    {EventState(r.state): r.n for r in counts},
                    min((r.oldest_ms for r in counts), default=None),
                ),
                entries[PAGE_SIZE - 1].key if len(entries) > PAGE_SIZE else None,
                cut=ids is not None and len(ids) > MAX_NARROWED,
            )

        return self._run(work)

    def open_counts(self) -> OpenCounts:
        """How many events are open."""
        some = select(queue.c.awaits).limit(MAX_OPEN + 1).subquery()
        query = select(func.count().label("events"), func.count(some.c.awaits).label("awaiting"))

        def work(connection: Connection) -> OpenCounts:
            r = connection.execute(query.select_from(some)).one()
            return OpenCounts(min(r.events, MAX_OPEN), r.awaiting, r.events > MAX_OPEN)

        return self._run(work)

    def reconciliations(self, limit: int) -> list[Report]:
        """The reports of the last runs, the newest first."""
        return Reconciliations(self._database).last(limit)

    # -- one event -----------------------------------------------------------------------------------------

    def event(self, mid: str) -> EventRow | RejectedMessage | None:
        """An event or a rejected message by the ledger's mid, None if there is none."""

        def work(connection: Connection) -> EventRow | RejectedMessage | None:
            if r := connection.execute(select(*EVENT_COLUMNS).where(event.c.mid == mid)).first():
                return event_row(r)
            found = connection.execute(select(rejected_message).where(rejected_message.c.mid == mid)).first()
            return RejectedMessage(*found) if found else None

        return self._run(work)

    def body(self, mid: str) -> bytes:
        """An event's message; empty if the ledger has none."""
        event_id = select(event.c.id).where(event.c.mid == mid).scalar_subquery()
        query = select(payload.c.body).where(payload.c.event_id == event_id)
        return self._run(lambda c: c.scalar(query)) or b""

    def queued(self, mid: str) -> QueuedEvent | None:
        """An event's row in the queue."""
        row = self._run(lambda c: c.execute(QUEUED.where(event.c.mid == mid)).first())
        return queued_event(row) if row else None

    def waits_for(self, transfer: Transfer) -> str | None:
        """Mid of the nearest earlier event in the queue that shares a user with `transfer`."""
        # All of the queue and nothing else: the users' other events, and earlier ones, may be many.
        queued = _read_first(
            select(*ORDER_KEY, event.c.source_user, event.c.target_user).join_from(
                queue, event, queue.c.event_id == event.c.id
            )
        )
        users = sorted(transfer.users)
        query = (
            select(queued.c.mid)
            .where(
                tuple_(*_key_of(queued)) < tuple_(*_values(transfer.key)),
                or_(among(queued.c.source_user, users), among(queued.c.target_user, users)),
            )
            .order_by(*_newest_first(_key_of(queued)))
            .limit(1)
        )
        return self._run(lambda c: c.scalar(query))

    def lane(self, row: EventRow) -> list[ListEntry]:
        """The events that were planned as one with `row`, in order, itself among them."""
        if not row.planned_with or not row.run_id:
            return []
        of_run = _read_first(
            select(*_ENTRY_COLUMNS, event.c.planned_with)
            .join_from(event_run, event, event.c.id == event_run.c.event_id)
            .where(event_run.c.run_id == row.run_id, _residual(event.c.run_id == row.run_id))
        )
        query = (
            select(of_run)
            .where(of_run.c.planned_with.overlap(_texts(sorted(row.planned_with))))
            .order_by(*_key_of(of_run))
            .limit(MAX_LANE)
        )
        return self._entries(query)

    def followed_by(self, mid: str) -> list[ListEntry]:
        """Events that undo an event, apply its plan, or finish what its second proof found; in order."""
        entries = select(*_ENTRY_COLUMNS)
        rows = union(
            entries.where(event.c.options.isnot(None), event.c.follows.contains(_texts([mid]))),
            entries.where(among(event.c.mid, with_follow_ups(mid)[1:])),
        ).subquery()
        return self._entries(select(rows).order_by(*_key_of(rows)).limit(PAGE_SIZE))

    def _entries(self, query: Select[Any]) -> list[ListEntry]:
        return self._run(lambda c: [_entry(r) for r in c.execute(query)])

    # -- what it changed -----------------------------------------------------------------------------------

    def changes(self, row: EventRow, after: BatchId | None = None, *, limit: int = PAGE_SIZE) -> ChangesPage:
        """One page of the batches that an event concerns, by course and batch."""

        def work(connection: Connection) -> ChangesPage:
            ids = _ids_of(connection, {row.mid, *row.planned_with})
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

        return self._run(work)

    def progress(self, row: EventRow) -> Progress:
        """How far the batches of an event and of those it was planned with are."""

        def work(connection: Connection) -> Progress:
            ids = list(_ids_of(connection, {row.mid, *row.planned_with}).values())
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

        return self._run(work)

    def _run(self, work: Callable[[Connection], T]) -> T:
        def by_index(connection: Connection) -> T:
            connection.execute(_BY_INDEX)
            return work(connection)

        return self._database.run(by_index, statement_ms=self._statement_ms)


# -- the statements of a list ----------------------------------------------------------------------------------


def _newest(filters: Filters, after: OrderKey | None, ids: Collection[int] | None, limit: int) -> Select[Any]:
    """The newest entries before `after` that fit. `ids` are the events of a run, a course or a batch."""
    bounds = _bounds(filters, after)
    events = select(*_ENTRY_COLUMNS).where(*_times(event.c.kafka_ms, filters))
    of_state = [_residual(among(event.c.state, filters.states))] if filters.state else []
    user = folded(filters.user)
    if ids is not None:
        of_user = [_residual(or_(event.c.source_user == user, event.c.target_user == user))] if user else []
        found = _read_first(events.where(among(event.c.id, sorted(ids)), *of_user, *of_state))
        arms = [_in_order(select(found), _key_of(found), bounds)]
    elif user:
        given = events.where(*of_state)
        taken = given.where(_residual(event.c.source_user != user))
        arms = [
            _in_order(given, ORDER_KEY, bounds, (event.c.source_user, user)),
            _in_order(taken, ORDER_KEY, bounds, (event.c.target_user, user)),
        ]
    elif filters.state:
        states = [s for s in filters.states if s != EventState.REJECTED]
        arms = [_in_order(events, ORDER_KEY, bounds, (event.c.state, s)) for s in states]
    else:
        arms = [_in_order(events, ORDER_KEY, bounds)]
    if filters.with_rejected:
        messages = select(*_REJECTED_ENTRY_COLUMNS).where(*_times(rejected_message.c.kafka_ms, filters))
        arms.append(_in_order(messages, _REJECTED_KEY, bounds))
    if len(arms) == 1:
        return arms[0].limit(limit)
    rows = union_all(*(arm.limit(limit) for arm in arms)).subquery()
    return select(rows).order_by(*_newest_first(_key_of(rows))).limit(limit)


def _bounds(filters: Filters, after: OrderKey | None) -> tuple[int, OrderKey]:
    """The part of the order in which the entries of a page are: first <= order time, key < second."""
    # The order time is never further than the drift from the message's own.
    low = _FIRST_MS if filters.since_ms is None else filters.since_ms - MAX_CLOCK_DRIFT_MS
    high = _LAST_MS if filters.before_ms is None else filters.before_ms + MAX_CLOCK_DRIFT_MS
    end = OrderKey(high, -(2**31), -(2**63), "")
    return low, min(after, end) if after else end


def _in_order(
    query: Select[Any],
    key: _Columns,
    bounds: tuple[int, OrderKey],
    of: tuple[ColumnElement[str], str] | None = None,
) -> Select[Any]:
    """The rows within the bounds, newest first, by the index of `key`; `of` is a column before it, and its value.

    Two bounds say that the column is the value. With an equality the planner may also walk `event_order` until
    enough rows fit, which is the whole table where its statistics are old.
    """
    low: list[ColumnElement[Any]] = [literal(bounds[0], BigInteger)]
    high = _values(bounds[1])
    if of:
        value: ColumnElement[Any] = literal(of[1], Text)
        key, low, high = (of[0], *key), [value, *low], [value, *high]
    within = query.where(tuple_(*key[: len(low)]) >= tuple_(*low), tuple_(*key) < tuple_(*high))
    return within.order_by(*_newest_first(key))


def _times(column: ColumnElement[int], filters: Filters) -> list[ColumnElement[bool]]:
    found = [] if filters.since_ms is None else [_residual(column >= filters.since_ms)]
    return found if filters.before_ms is None else [*found, _residual(column < filters.before_ms)]


def _residual(condition: ColumnElement[bool]) -> ColumnElement[bool]:
    """A condition for which the planner takes no index: rows come from another one, and this drops some."""
    return condition.is_(true())


def _read_first(query: Select[Any]) -> CTE:
    """Rows that are all read before anything else is done with them."""
    return query.cte().prefix_with("MATERIALIZED")


def _narrowed(connection: Connection, filters: Filters) -> set[int] | None:
    """Ids of the events of the run, the course and the batch that are wanted; None if none is."""
    found: list[set[int]] = []
    if filters.run_id:
        planned = select(event_run.c.event_id).where(event_run.c.run_id == filters.run_id)
        held = select(queue.c.event_id).where(queue.c.holder == filters.run_id)
        found.append(_last_ids(connection, planned, held))
    if filters.course_id or filters.batch_id:
        found.append(_last_ids(connection, *(_of_batches(table, filters) for table in (plan, change))))
    return set.intersection(*found) if found else None


def _of_batches(table: FromClause, filters: Filters) -> Select[Any]:
    query = select(table.c.event_id).group_by(table.c.event_id)
    if filters.course_id:
        query = query.where(table.c.course_id == filters.course_id)
    return query.where(table.c.batch_id == filters.batch_id) if filters.batch_id else query


def _last_ids(connection: Connection, *queries: Select[Any]) -> set[int]:
    """The greatest ids of queries for `event_id`, and one more than a list looks at if there are more."""
    limit = MAX_NARROWED + 1
    every = union(*(q.order_by(q.selected_columns[0].desc()).limit(limit) for q in queries)).subquery()
    column = every.c.event_id
    return set(connection.scalars(select(column).order_by(column.desc()).limit(limit)))


# -- rows ------------------------------------------------------------------------------------------------------

_Columns = tuple[ColumnElement[Any], ...]
_ENTRY_FIELDS = ListEntry._fields[1:]
"""Those that are columns; the key is four."""
_ENTRY_COLUMNS = (*ORDER_KEY, *(event.c[name] for name in _ENTRY_FIELDS))
_MESSAGE = rejected_message.c
_REJECTED_KEY = (_MESSAGE.kafka_ms, _MESSAGE.kafka_partition, _MESSAGE.kafka_offset, _MESSAGE.mid)
_OF_REJECTED: Mapping[str, ColumnElement[Any]] = {
    "state": cast(literal(EventState.REJECTED), Text),
    "kafka_ms": _MESSAGE.kafka_ms,
    "reason": _MESSAGE.reason,
    "ended_at": _MESSAGE.received_at,
}
_REJECTED_ENTRY_COLUMNS = (
    *(column.label(of.name) for column, of in zip(_REJECTED_KEY, ORDER_KEY, strict=True)),
    *(_OF_REJECTED.get(name, cast(null(), event.c[name].type)).label(name) for name in _ENTRY_FIELDS),
)


def _entry(r: Any) -> ListEntry:
    """An entry from a row with the columns above."""
    key = OrderKey(r.order_ms, r.kafka_partition, r.kafka_offset, r.mid)
    columns = {name: getattr(r, name) for name in _ENTRY_FIELDS}
    converted = {
        "state": EventState(r.state),
        "counts": r.counts or {},
        "options": Options.of(r.options),
    }
    return ListEntry(key, **columns | converted)


def _key_of(table: FromClause) -> _Columns:
    return tuple(table.c[column.name] for column in ORDER_KEY)


def _newest_first(key: _Columns) -> list[ColumnElement[Any]]:
    return [column.desc() for column in key]


def _values(key: OrderKey) -> list[ColumnElement[Any]]:
    return [literal(value, column.type) for value, column in zip(key, ORDER_KEY, strict=True)]


def _texts(values: Sequence[str]) -> ColumnElement[Any]:
    return literal(list(values), ARRAY(Text))


def _ids_of(connection: Connection, mids: Collection[str]) -> dict[str, int]:
    rows = connection.execute(select(event.c.mid, event.c.id).where(among(event.c.mid, sorted(mids))))
    return {r.mid: r.id for r in rows}


# -- rows of the audit trail -----------------------------------------------------------------------------------


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
        func.unnest(_texts(courses), _texts(ids))
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
    return Owners(getattr(r, f"{when}_created_by"), tuple(getattr(r, f"{when}_mentors") or ()))
