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
from typing import Any, Final, NamedTuple, TypeVar

from pydantic import BaseModel, ConfigDict, Field, ValidationError
from sqlalchemy import (
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
from sqlalchemy.dialects.postgresql import ARRAY, JSONB

from ownership.events import MAX_CLOCK_DRIFT_MS, LedgerId, OrderKey, Transfer, folded, with_follow_ups
from ownership.ledger.database import STATEMENT_MS, Database
from ownership.ledger.events import EVENT_COLUMNS, EventRow, RejectedMessage, event_row
from ownership.ledger.queue import queued_event
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
from ownership.options import Options
from ownership.plan import BatchId
from ownership.queue import QueuedEvent
from ownership.reconcile.report import Report
from ownership.states import FINAL_STATES, OPEN_STATES, REJECTED

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
STATES: Final = tuple(dict.fromkeys((*OPEN_STATES, *FINAL_STATES, REJECTED)))
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


class Cursor(BaseModel):
    """The last entry of a page: the next page begins after it. Clients see it as text and may send anything."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    t: int = Field(ge=_FIRST_MS, le=_LAST_MS)
    partition: int = Field(ge=-(2**31), lt=2**31)
    offset: int = Field(ge=-(2**63), lt=2**63)
    mid: LedgerId

    @property
    def key(self) -> OrderKey:
        """The entry's place in the order."""
        return OrderKey(self.t, self.partition, self.offset, self.mid)

    def text(self) -> str:
        """For an address."""
        packed = json.dumps(self.key).encode()
        return base64.urlsafe_b64encode(packed).decode().rstrip("=")

    @classmethod
    def of(cls, text: str) -> Cursor | None:
        """From an address; None for anything else."""
        try:
            values = json.loads(base64.urlsafe_b64decode(text + "=" * (-len(text) % 4)))
            return cls(**dict(zip(OrderKey._fields, values, strict=True)))
        except (ValueError, TypeError, ValidationError, RecursionError):
            return None

    @classmethod
    def after(cls, key: OrderKey) -> Cursor:
        """What comes after `key`."""
        return cls(**key._asdict())


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
        return REJECTED in self.states and not (self.user or self._narrowed)

    @property
    def _narrowed(self) -> bool:
        return bool(self.run_id or self.course_id or self.batch_id)


class ListEntry(NamedTuple):
    """An event or a rejected message, as a list has it."""

    key: OrderKey
    """A rejected message has its place by its broker's timestamp."""
    state: str
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

    of: Mapping[str, int]
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
    next: Cursor | None
    """None on the last page."""
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
    outcome: str | None
    proven_at: datetime | None


class BatchHop(NamedTuple):
    """An event's share of one compare-and-set on a batch."""

    role: str
    before: Owners
    after: Owners
    hop: int
    hops: int
    outcome: str | None
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

    def page(self, filters: Filters, after: Cursor | None = None) -> ListPage:
        """One page of the entries that fit, newest first, and counts of all states that fit."""

        def work(connection: Connection) -> ListPage:
            connection.execute(_IN_ORDER)
            ids = _narrowed(connection, filters)
            rows = connection.execute(page_statement(filters, after, ids)).all()
            counts = connection.execute(counts_statement(filters, ids)).all()
            entries = [_entry(r) for r in rows]
            more = len(entries) > PAGE_SIZE
            return ListPage(
                entries[:PAGE_SIZE],
                StateCounts({r.state: r.n for r in counts}, min((r.oldest_ms for r in counts), default=None)),
                Cursor.after(entries[PAGE_SIZE - 1].key) if more else None,
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
        query = select(payload.c.body).where(payload.c.event_id == _id_of(mid))
        return self._run(lambda c: c.scalar(query)) or b""

    def queued(self, mid: str) -> QueuedEvent | None:
        """An event's row in the queue."""
        query = (
            select(*ORDER_KEY, event.c.from_user, event.c.to_user, queue)
            .join_from(event, queue, queue.c.event_id == event.c.id)
            .where(event.c.mid == mid)
        )

        def work(connection: Connection) -> QueuedEvent | None:
            row = connection.execute(query).first()
            return queued_event(row) if row else None

        return self._run(work)

    def waits_for(self, transfer: Transfer) -> str | None:
        """Mid of the nearest earlier event in the queue that shares a user with `transfer`."""
        # All of the queue and nothing else: the users' other events, and earlier ones, may be many.
        queued = (
            select(*ORDER_KEY, event.c.source_user, event.c.target_user)
            .join_from(queue, event, queue.c.event_id == event.c.id)
            .cte("queued")
            .prefix_with("MATERIALIZED")
        )
        users = sorted(transfer.users)
        query = (
            select(queued.c.mid)
            .where(
                tuple_(*_key_of(queued)) < _values(transfer.key),
                or_(among(queued.c.source_user, users), among(queued.c.target_user, users)),
            )
            .order_by(*(c.desc() for c in _key_of(queued)))
            .limit(1)
        )
        return self._run(lambda c: c.scalar(query))

    def lane(self, row: EventRow) -> list[ListEntry]:
        """The events that were planned as one with `row`, in order, itself among them."""
        if not row.planned_with or not row.run_id:
            return []
        of_run = (
            select(*_ENTRY_COLUMNS, event.c.planned_with)
            .join_from(event_run, event, event.c.id == event_run.c.event_id)
            .where(event_run.c.run_id == row.run_id, _residual(event.c.run_id == row.run_id))
            .cte("of_run")
            .prefix_with("MATERIALIZED")
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
        told = select(*_ENTRY_COLUMNS)
        rows = union(
            told.where(event.c.options.isnot(None), event.c.follows.contains(_texts([mid]))),
            told.where(among(event.c.mid, with_follow_ups(mid)[1:])),
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
            if own is None:
                return ChangesPage([], None)
            batches = _batches(connection, own, after, limit + 1)
            shown = batches[:limit]
            if not shown:
                return ChangesPage([], None)
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


def page_statement(filters: Filters, after: Cursor | None, ids: Collection[int] | None) -> Select[Any]:
    """The entries of one page and the first of the next. `ids` are the events of a run, a course or a batch."""
    return _newest(filters, after.key if after else None, ids, PAGE_SIZE + 1)


def counts_statement(filters: Filters, ids: Collection[int] | None) -> Select[Any]:
    """Counts of every state among the newest entries that fit."""
    newest = _newest(filters._replace(state=""), None, ids, MAX_COUNTED).subquery()
    return select(
        newest.c.state, func.count().label("n"), func.min(newest.c.order_ms).label("oldest_ms")
    ).group_by(newest.c.state)


def _newest(filters: Filters, after: OrderKey | None, ids: Collection[int] | None, limit: int) -> Select[Any]:
    """The newest entries before `after` that fit."""
    bounds = _Bounds.of(filters, after)
    if ids is not None:
        arms = [_of_ids(filters, bounds, ids)]
    elif filters.user:
        user = folded(filters.user)
        given = _in_order(event.c.source_user, user, bounds).where(*_rest(filters, state=True))
        taken = _in_order(event.c.target_user, user, bounds).where(
            *_rest(filters, state=True), _residual(event.c.source_user != user)
        )
        arms = [given, taken]
    elif filters.state:
        states = [s for s in filters.states if s != REJECTED]
        arms = [_in_order(event.c.state, s, bounds).where(*_rest(filters)) for s in states]
    else:
        arms = [_all_in_order(bounds).where(*_rest(filters))]
    if filters.with_rejected:
        arms.append(_rejected_in_order(filters, bounds))
    if len(arms) == 1:
        return arms[0].limit(limit)
    rows = union_all(*(arm.limit(limit) for arm in arms)).subquery()
    return select(rows).order_by(*(c.desc() for c in _key_of(rows))).limit(limit)


class _Bounds(NamedTuple):
    """The part of the order in which the entries of a page are: low <= order time, key < high."""

    low_ms: int
    high: OrderKey

    @classmethod
    def of(cls, filters: Filters, after: OrderKey | None) -> _Bounds:
        # The order time is never further than the drift from the message's own.
        low = _FIRST_MS if filters.since_ms is None else filters.since_ms - MAX_CLOCK_DRIFT_MS
        high = _LAST_MS if filters.before_ms is None else filters.before_ms + MAX_CLOCK_DRIFT_MS
        end = OrderKey(high, -(2**31), -(2**63), "")
        return cls(low, min(after, end) if after else end)


def _in_order(column: ColumnElement[str], value: str, bounds: _Bounds) -> Select[Any]:
    """The entries whose `column` is `value`, newest first, by the index that begins with `column`.

    Two bounds say that the column is the value. With an equality the planner may also walk `event_order` until
    enough rows fit, which is the whole table where its statistics are old.
    """
    first = literal(value, Text)
    return (
        select(*_ENTRY_COLUMNS)
        .where(
            tuple_(column, event.c.order_ms) >= tuple_(first, literal(bounds.low_ms, BigInteger)),
            tuple_(column, *ORDER_KEY) < tuple_(first, *_value_list(bounds.high)),
        )
        .order_by(column.desc(), *_NEWEST_FIRST)
    )


def _all_in_order(bounds: _Bounds) -> Select[Any]:
    return (
        select(*_ENTRY_COLUMNS)
        .where(event.c.order_ms >= bounds.low_ms, tuple_(*ORDER_KEY) < _values(bounds.high))
        .order_by(*_NEWEST_FIRST)
    )


def _rejected_in_order(filters: Filters, bounds: _Bounds) -> Select[Any]:
    columns = _REJECTED_KEY
    times = _times(rejected_message.c.kafka_ms, filters)
    return (
        select(*_REJECTED_ENTRY_COLUMNS)
        .where(columns[0] >= bounds.low_ms, tuple_(*columns) < _values(bounds.high), *times)
        .order_by(*(c.desc() for c in columns))
    )


def _of_ids(filters: Filters, bounds: _Bounds, ids: Collection[int]) -> Select[Any]:
    """The entries of some events. All of them are read before they are put in order."""
    found = (
        select(*_ENTRY_COLUMNS)
        .where(among(event.c.id, sorted(ids)), *_rest(filters, user=True, state=True))
        .cte("found")
        .prefix_with("MATERIALIZED")
    )
    key = _key_of(found)
    query = select(found).where(found.c.order_ms >= bounds.low_ms, tuple_(*key) < _values(bounds.high))
    return query.order_by(*(c.desc() for c in key))


def _rest(filters: Filters, *, user: bool = False, state: bool = False) -> list[ColumnElement[bool]]:
    """The conditions that no index serves: of the time always, of user and state where it is asked for."""
    found = _times(event.c.kafka_ms, filters)
    if user and filters.user:
        value = folded(filters.user)
        found.append(_residual(or_(event.c.source_user == value, event.c.target_user == value)))
    if state and filters.state:
        found.append(_residual(among(event.c.state, filters.states)))
    return found


def _times(column: ColumnElement[int], filters: Filters) -> list[ColumnElement[bool]]:
    found = [] if filters.since_ms is None else [_residual(column >= filters.since_ms)]
    return found if filters.before_ms is None else [*found, _residual(column < filters.before_ms)]


def _residual(condition: ColumnElement[bool]) -> ColumnElement[bool]:
    """A condition for which the planner takes no index: rows come from another one, and this drops some."""
    return condition.is_(true())


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

_ENTRY_COLUMNS = (
    *ORDER_KEY,
    event.c.state,
    event.c.kafka_ms,
    event.c.from_user,
    event.c.to_user,
    event.c.organisation_id,
    event.c.requested_by,
    event.c.run_id,
    event.c.reason,
    event.c.counts,
    event.c.options,
    event.c.ended_at,
)
_NEWEST_FIRST = tuple(c.desc() for c in ORDER_KEY)
_REJECTED_KEY = (
    rejected_message.c.kafka_ms,
    rejected_message.c.kafka_partition,
    rejected_message.c.kafka_offset,
    rejected_message.c.mid,
)
_NO_TEXT = cast(null(), Text)
_REJECTED_ENTRY_COLUMNS = (
    rejected_message.c.kafka_ms.label("order_ms"),
    *_REJECTED_KEY[1:],
    cast(literal(REJECTED), Text).label("state"),
    rejected_message.c.kafka_ms.label("kafka_ms"),
    *(_NO_TEXT.label(name) for name in ("from_user", "to_user", "organisation_id", "requested_by", "run_id")),
    rejected_message.c.reason,
    cast(null(), JSONB).label("counts"),
    cast(null(), JSONB).label("options"),
    rejected_message.c.received_at.label("ended_at"),
)


def _entry(r: Any) -> ListEntry:
    """An entry from a row with the columns above."""
    return ListEntry(
        OrderKey(r.order_ms, r.kafka_partition, r.kafka_offset, r.mid),
        r.state,
        r.kafka_ms,
        r.from_user,
        r.to_user,
        r.organisation_id,
        r.requested_by,
        r.run_id,
        r.reason,
        r.counts or {},
        Options.of(r.options),
        r.ended_at,
    )


def _key_of(table: FromClause) -> tuple[ColumnElement[Any], ...]:
    return tuple(table.c[column.name] for column in ORDER_KEY)


def _value_list(key: OrderKey) -> list[ColumnElement[Any]]:
    return [literal(value, column.type) for value, column in zip(key, ORDER_KEY, strict=True)]


def _values(key: OrderKey) -> ColumnElement[Any]:
    return tuple_(*_value_list(key))


def _texts(values: Sequence[str]) -> ColumnElement[Any]:
    return literal(list(values), ARRAY(Text))


def _id_of(mid: str) -> Any:
    return select(event.c.id).where(event.c.mid == mid).scalar_subquery()


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
        found.setdefault(BatchId(r.course_id, r.batch_id), []).append(
            BatchHop(r.role, _before(r), _after(r), r.hop, r.hops, r.outcome, r.applied_at)
        )
    return found


def _planned(r: Any) -> PlannedBatch:
    # An unchanged row has no owners afterwards.
    after = None if r.after_mentors is None else _after(r)
    return PlannedBatch(r.role, _before(r), after, r.outcome, r.proven_at)


def _before(r: Any) -> Owners:
    return Owners(r.before_created_by, tuple(r.before_mentors or ()))


def _after(r: Any) -> Owners:
    return Owners(r.after_created_by, tuple(r.after_mentors or ()))
