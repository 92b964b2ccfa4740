"""Lists of events and rejected messages, a page at a time, newest first; counts.

The rows of a list of one user or one state come in an order that only the index of users or states has (`_in_order`).
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Iterable, Mapping, Sequence
from datetime import datetime
from typing import Any, Final, NamedTuple, TypeVar

from sqlalchemy import (
    BigInteger,
    ColumnElement,
    Connection,
    FromClause,
    Select,
    Text,
    and_,
    any_,
    case,
    cast,
    func,
    lateral,
    literal,
    null,
    or_,
    select,
    true,
    tuple_,
    union,
    union_all,
)
from sqlalchemy.dialects.postgresql import ARRAY

from ownership.domain.event import OrderKey, Transfer, folded
from ownership.domain.event_times import MAX_CLOCK_DRIFT_MS
from ownership.domain.options import PLAIN, Options
from ownership.domain.organisations import VisibleOrganisations
from ownership.domain.states import OPEN_STATES, EventState
from ownership.ledger.events import EventRow
from ownership.ledger.reads.statements import (
    Columns,
    Reader,
    key_of,
    newest_first,
    of_visible,
    read_first,
    residual,
    texts,
    values,
)
from ownership.ledger.schema import (
    ORDER_KEY,
    TRANSFER,
    among,
    change,
    event,
    event_run,
    order_key_of,
    plan,
    queue,
    rejected_message,
    transfer_of,
)

PAGE_SIZE: Final = 50
"""Entries of a list, and batches of an event, on one page."""
MAX_COUNTED: Final = 1000
"""Entries that are counted by state, the newest first."""
MAX_NARROWED: Final = 5000
"""Events of a run, a course or a batch that a list looks at, the last arrivals first."""
MAX_OPEN: Final = 20_000
"""Events of the queue that are counted."""
OPEN: Final = "open"
"""The filter that stands for every open state."""
STATES: Final = tuple(EventState)
"""What an entry of a list can be."""

Place = tuple[FromClause, ColumnElement[bool]]
"""A table with an `event_id`, and which of its rows."""

_FIRST_MS, _LAST_MS = -(2**63), 2**63 - 1
_LAST_KEY: Final = OrderKey(_LAST_MS, -(2**31), -(2**63), "")


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
    request_id: str = ""
    """The platform's API call that emitted the event, or the rejected message."""

    @property
    def states(self) -> tuple[EventState, ...]:
        """The states that fit."""
        if self.state == OPEN:
            return OPEN_STATES
        return (EventState(self.state),) if self.state else STATES

    @property
    def with_rejected(self) -> bool:
        """True if rejected messages can fit: they have neither users nor batches nor a run."""
        has_what_they_lack = self.user or self.run_id or self.course_id or self.batch_id
        return EventState.REJECTED in self.states and not has_what_they_lack

    def narrowed(self) -> list[list[Place]]:
        """Where the events are: of the run, and of course and batch."""
        found: list[list[Place]] = []
        if self.run_id:
            found.append(
                [(event_run, event_run.c.run_id == self.run_id), (queue, queue.c.holder == self.run_id)]
            )
        wanted = {"course_id": self.course_id, "batch_id": self.batch_id}
        if given := [(column, value) for column, value in wanted.items() if value]:
            found.append(
                [(t, and_(*(t.c[column] == value for column, value in given))) for t in (plan, change)]
            )
        return found

    def at(self, kafka_ms: ColumnElement[int]) -> list[ColumnElement[bool]]:
        """The conditions on a message's time."""
        found = [] if self.since_ms is None else [residual(kafka_ms >= self.since_ms)]
        return found if self.before_ms is None else [*found, residual(kafka_ms < self.before_ms)]


class ListedEvent(NamedTuple):
    """An event, as a list has it."""

    transfer: Transfer
    state: EventState
    kafka_ms: int
    origin: str = "kafka"
    organisation_id: str | None = None
    requested_by: str | None = None
    run_id: str | None = None
    reason: str | None = None
    counts: Mapping[str, int] = {}
    options: Options = PLAIN
    ended_at: datetime | None = None
    waits_for: str | None = None

    @property
    def mid(self) -> str:
        """The event's message id."""
        return self.transfer.mid

    @property
    def key(self) -> OrderKey:
        """Its place in the list."""
        return self.transfer.key


class ListedMessage(NamedTuple):
    """A rejected message, as a list has it."""

    key: OrderKey
    """Its place in the list, by its broker's timestamp."""
    reason: str

    @property
    def mid(self) -> str:
        """Its mid in the ledger."""
        return self.key.mid


ListEntry = ListedEvent | ListedMessage


class StateCounts(NamedTuple):
    """Numbers by state of the newest entries that fit a list's filters, whatever state the list has."""

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


class Lists(Reader):
    """Reads of lists and counts: what is not visible is neither listed nor counted."""

    def page(self, filters: Filters, after: OrderKey | None = None) -> ListPage:
        """One page of the entries that fit, newest first, and counts of all states that fit."""

        def work(connection: Connection) -> ListPage:
            narrowed = [_last_ids(connection, places) for places in filters.narrowed()]
            ids = set.intersection(*narrowed) if narrowed else None
            rows = connection.execute(
                _newest(filters, self._visible, after, ids, PAGE_SIZE + 1, LISTED_COLUMNS)
            )
            entries = [_entry(r, self._visible) for r in rows]
            if after is None and not filters.state and len(entries) <= PAGE_SIZE:
                counts = _counts_of(entries)  # the page has all that fit
            else:
                counts = _counted(connection, filters._replace(state=""), self._visible, ids)
            return ListPage(
                entries[:PAGE_SIZE],
                counts,
                entries[PAGE_SIZE - 1].key if len(entries) > PAGE_SIZE else None,
                # Of a run without a visible event nothing is said.
                cut=ids is not None and len(ids) > MAX_NARROWED and bool(counts.of or self._visible.every),
            )

        return self._database.run(work, in_order=True)

    def open_counts(self) -> OpenCounts:
        """How many events are open."""
        if self._visible.ids is None:
            queued = select(queue.c.awaits).limit(MAX_OPEN + 1).subquery()
        else:
            awaits = case((event.c.state == EventState.AWAITING_APPROVAL, event.c.state)).label("awaits")
            events = _of_organisations(
                select(awaits), self._visible.ids, OPEN_STATES, (_FIRST_MS, _LAST_KEY), MAX_OPEN + 1
            )
            queued = events.limit(MAX_OPEN + 1).subquery()
        query = select(func.count().label("events"), func.count(queued.c.awaits).label("awaiting"))

        def work(connection: Connection) -> OpenCounts:
            r = connection.execute(query.select_from(queued)).one()
            return OpenCounts(min(r.events, MAX_OPEN), r.awaiting, r.events > MAX_OPEN)

        return self._database.run(work, in_order=not self._visible.every)


def _counts_of(entries: Sequence[ListEntry]) -> StateCounts:
    states = Counter(e.state if isinstance(e, ListedEvent) else EventState.REJECTED for e in entries)
    return StateCounts(states, min((e.key.t for e in entries), default=None))


def _counted(
    connection: Connection, filters: Filters, visible: VisibleOrganisations, ids: Collection[int] | None
) -> StateCounts:
    newest = _newest(filters, visible, None, ids, MAX_COUNTED, _COUNTED_COLUMNS).subquery()
    oldest = func.min(newest.c.order_ms).label("oldest_ms")
    query = select(newest.c.state, func.count().label("n"), oldest).group_by(newest.c.state)
    counts = connection.execute(query).all()
    return StateCounts(
        {EventState(r.state): r.n for r in counts}, min((r.oldest_ms for r in counts), default=None)
    )


# -- the statements of a list ----------------------------------------------------------------------------------


def _newest(
    filters: Filters,
    visible: VisibleOrganisations,
    after: OrderKey | None,
    ids: Collection[int] | None,
    limit: int,
    columns: Columns,
) -> Select[Any]:
    """The newest entries before `after` that fit. `ids` are the events of a run, a course or a batch."""
    bounds = _bounds(filters, after)
    events = select(*columns).where(*filters.at(event.c.kafka_ms))
    of_state = [residual(among(event.c.state, filters.states))] if filters.state else []
    user = folded(filters.user)
    request = filters.request_id
    of_user = [residual(or_(event.c.source_user == user, event.c.target_user == user))] if user else []
    if ids is not None or user or request:
        events = events.where(*of_visible(visible))
    # What is sorted, or dropped by an index alone, is narrow: of that the rows that are shown are read.
    is_narrow = ids is not None or (bool(user) and not request)
    if is_narrow:
        events = events.with_only_columns(*_COUNTED_COLUMNS)
    if ids is not None:
        of_request = [residual(event.c.request_id == request)] if request else []
        found = read_first(events.where(_is_one_of(ids), *of_user, *of_request, *of_state))
        arms = [_in_order(select(found), key_of(found), bounds)]
    elif request:
        events = events.where(event.c.request_id.isnot(None), *of_user, *of_state)
        arms = [_in_order(events, ORDER_KEY, bounds, (event.c.request_id, request))]
    elif user:
        # Both indexes have what drops an event of this user: no row is read in vain.
        given = events.where(*of_state)
        taken = given.where(residual(event.c.source_user != user))
        arms = [
            _in_order(given, ORDER_KEY, bounds, (event.c.source_user, user)),
            _in_order(taken, ORDER_KEY, bounds, (event.c.target_user, user)),
        ]
    elif visible.ids is not None:
        arms = [_of_organisations(events, visible.ids, filters.states, bounds, limit)]
    elif filters.state:
        states = [s for s in filters.states if s != EventState.REJECTED]
        arms = [_in_order(events, ORDER_KEY, bounds, (event.c.state, s)) for s in states]
    else:
        arms = [_in_order(events, ORDER_KEY, bounds)]
    if is_narrow and columns is not _COUNTED_COLUMNS:
        found = read_first(_merged(arms, limit))
        rows = select(*columns).join_from(found, event, event.c.mid == found.c.mid)
        return rows.order_by(*newest_first(ORDER_KEY))
    if filters.with_rejected and visible.every:
        messages = select(*map(_of_rejected, columns)).where(*filters.at(rejected_message.c.kafka_ms))
        if request:
            found = read_first(messages.where(rejected_message.c.request_id == request))
            arms.append(_in_order(select(found), key_of(found), bounds))
        else:
            arms.append(_in_order(messages, REJECTED_KEY, bounds))
    return _merged(arms, limit)


def _is_one_of(ids: Collection[int]) -> ColumnElement[bool]:
    """The condition on an event's id, with the ids as one text."""
    numbers = literal("{" + ",".join(map(str, sorted(ids))) + "}", Text)
    return event.c.id == any_(cast(numbers, ARRAY(BigInteger)))


def _merged(arms: Sequence[Select[Any]], limit: int) -> Select[Any]:
    """The newest rows of queries that are each in order."""
    if len(arms) == 1:
        return arms[0].limit(limit)
    rows = union_all(*(arm.limit(limit) for arm in arms)).subquery()
    return select(rows).order_by(*newest_first(key_of(rows))).limit(limit)


def _bounds(filters: Filters, after: OrderKey | None) -> tuple[int, OrderKey]:
    """The part of the order in which the entries of a page are: first <= order time, key < second."""
    # The order time is never further than the drift from the message's own.
    low = _FIRST_MS if filters.since_ms is None else filters.since_ms - MAX_CLOCK_DRIFT_MS
    high = _LAST_MS if filters.before_ms is None else filters.before_ms + MAX_CLOCK_DRIFT_MS
    end = _LAST_KEY._replace(t=high)
    return low, min(after, end) if after else end


def _in_order(
    query: Select[Any],
    key: Columns,
    bounds: tuple[int, OrderKey],
    of: tuple[ColumnElement[str], str] | None = None,
) -> Select[Any]:
    """The rows within the bounds, newest first, by the index of `key`; `of` is a column before it, and its value.

    Two bounds say that the column is the value. With an equality the planner may also walk `event_order` until
    enough rows fit, which is the whole table where its statistics are old.
    """
    low: list[ColumnElement[Any]] = [literal(bounds[0], BigInteger)]
    high = values(bounds[1])
    if of:
        value: ColumnElement[Any] = literal(of[1], Text)
        key, low, high = (of[0], *key), [value, *low], [value, *high]
    within = query.where(tuple_(*key[: len(low)]) >= tuple_(*low), tuple_(*key) < tuple_(*high))
    return within.order_by(*newest_first(key))


def _of_organisations(
    events: Select[Any],
    organisations: Collection[str],
    states: Collection[EventState],
    bounds: tuple[int, OrderKey],
    limit: int,
) -> Select[Any]:
    """The newest `limit` events of these organisations in these states: of each pair the newest, by their index."""
    organisation, state = (
        func.unnest(texts(sorted(given))).table_valued("value", name=name).render_derived()
        for name, given in (("organisation", organisations), ("of_state", states))
    )
    first = (event.c.organisation_id, event.c.state)
    key = (*first, *ORDER_KEY)
    pair = (organisation.c.value, state.c.value)
    low = (*pair, literal(bounds[0], BigInteger))
    high = (*pair, *values(bounds[1]))
    newest = lateral(
        events.add_columns(*(c for c in ORDER_KEY if c.name not in events.selected_columns))
        .where(tuple_(*key[:3]) >= tuple_(*low), tuple_(*key) < tuple_(*high))
        .order_by(*newest_first(key))
        .limit(limit)
    )
    columns = (newest.c[c.name] for c in events.selected_columns)
    every = select(*columns).select_from(organisation).join(state, true()).join(newest, true())
    return every.order_by(*newest_first(key_of(newest)))


def last_events(places: Iterable[Place], limit: int, before: int | None = None) -> Select[Any]:
    """The last events in some places, the greatest id first; those below `before` if it is given."""

    def of(table: FromClause, condition: ColumnElement[bool]) -> Select[Any]:
        query = select(table.c.event_id).where(condition).group_by(table.c.event_id)
        query = query.order_by(table.c.event_id.desc()).limit(limit)
        return query.where(table.c.event_id < before) if before is not None else query

    every = union(*(of(*place) for place in places)).subquery()
    return select(every.c.event_id).order_by(every.c.event_id.desc()).limit(limit)


def _last_ids(connection: Connection, places: Iterable[Place]) -> set[int]:
    """The greatest ids of events in some tables, and one more than a list looks at if there are more.

    As one text, as they go back: the driver takes longer for thousands of rows than the server.
    """
    last = last_events(places, MAX_NARROWED + 1).subquery()
    ids = connection.scalar(select(cast(func.array_agg(last.c.event_id), Text)))
    return set(map(int, ids.strip("{}").split(","))) if ids else set()


# -- rows ------------------------------------------------------------------------------------------------------

_FIELDS = ListedEvent._fields[1:]
"""Those that are columns; the transfer is several."""
LISTED_COLUMNS = (*TRANSFER, *(event.c[name] for name in _FIELDS))
_COUNTED_COLUMNS = (*ORDER_KEY, event.c.state)
_MESSAGE = rejected_message.c
REJECTED_KEY = (_MESSAGE.kafka_ms, _MESSAGE.kafka_partition, _MESSAGE.kafka_offset, _MESSAGE.mid)
"""The place of a rejected message in the order of the list."""
_OF_REJECTED: Mapping[str, ColumnElement[Any]] = {
    **{of.name: column for column, of in zip(REJECTED_KEY, ORDER_KEY, strict=True)},
    "state": cast(literal(EventState.REJECTED), Text),
    "kafka_ms": _MESSAGE.kafka_ms,
    "reason": _MESSAGE.reason,
}


def _of_rejected(column: ColumnElement[Any]) -> ColumnElement[Any]:
    """What a rejected message has in a column of the events."""
    return _OF_REJECTED.get(column.name, cast(null(), column.type)).label(column.name)


WAITS: Final = "waits for another event, which goes first"
"""The reason of an event that waits, for whom the other event may be hidden."""
_Row = TypeVar("_Row", ListedEvent, EventRow)


def without_blocker(row: _Row, visible: VisibleOrganisations) -> _Row:
    """The event; where something is hidden, without the mid of the event that it waits for."""
    if row.waits_for is None or visible.every:
        return row
    return row._replace(waits_for=None, reason=WAITS)


def listed_event(r: Any, visible: VisibleOrganisations) -> ListedEvent:
    """An event from a row with `LISTED_COLUMNS`."""
    columns = {name: getattr(r, name) for name in _FIELDS}
    converted = {"state": EventState(r.state), "options": Options.of(r.options)}
    return without_blocker(ListedEvent(transfer_of(r), **columns | converted), visible)


def _entry(r: Any, visible: VisibleOrganisations) -> ListEntry:
    if r.state == EventState.REJECTED:
        return ListedMessage(order_key_of(r), r.reason)
    return listed_event(r, visible)
