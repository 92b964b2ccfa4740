"""Exports: every transfer or change that fits, however many, in pages of bounded size, the oldest arrivals first.

A page looks at the next events by id, whatever fits of them. So each statement reads a bounded number of rows by the
primary key, and between two pages nothing is held: no cursor, no transaction, no connection.
"""

from __future__ import annotations

import uuid
from collections.abc import Collection
from typing import Any, Final, Generic, NamedTuple, TypeVar

from sqlalchemy import ColumnElement, Connection, Select, func, literal, or_, select, tuple_, union

from ownership.domain.clock import DAY_MS, calendar_time
from ownership.domain.event import OrderKey, folded
from ownership.domain.options import Options
from ownership.domain.organisations import VisibleOrganisations
from ownership.domain.states import BatchOutcome, EventState
from ownership.ledger.changes import owners_of
from ownership.ledger.reads.lists import REJECTED_KEY, WAITS, Filters
from ownership.ledger.reads.statements import Reader, residual, values
from ownership.ledger.schema import MONTH_SHIFT, among, change, event, month_of, rejected_message

LOOKED_AT: Final = 5000
"""Events that a page looks at."""
MAX_CHANGES: Final = 2000
"""Changes on a page."""
BEFORE_ALL: Final = OrderKey(-(2**63), -(2**31), -(2**63), "")
"""Before all rejected messages."""

TRANSFER_COLUMNS: Final = (
    "mid", "state", "sent_at", "from_user", "to_user", "organisation_id", "origin", "requested_by", "request_reason",
    "run_id", "reason", "dry_run", "undo_of", "plan_of", *BatchOutcome, "late", "received_at", "completed_at",
    "ended_at", "proven_again_at",
)  # fmt: skip
CHANGE_COLUMNS: Final = (
    "mid", "from_user", "to_user", "organisation_id", "course_id", "batch_id", "role", "status", "before_created_by",
    "before_mentors", "after_created_by", "after_mentors", "outcome", "hop", "hops", "recorded_at", "applied_at",
)  # fmt: skip
_EVENT: Final = [
    event.c[name]
    for name in (
        "mid", "state", "kafka_ms", "from_user", "to_user", "organisation_id", "origin", "requested_by",
        "request_reason", "run_id", "reason", "waits_for", "options", "counts", "late", "received_at", "completed_at",
        "ended_at", "reproved_at",
    )
]  # fmt: skip
"""What is read of an event: its report, and the mids of a large lane, are more than all of this."""

P = TypeVar("P")


class Page(NamedTuple, Generic[P]):
    """Some rows, each with the values of the export's columns, and the place at which the next page begins."""

    rows: list[tuple[Any, ...]]
    next: P | None
    """None at the end."""


class Span(NamedTuple):
    """Events by id: first < id <= last."""

    first: int
    last: int


class ChangePlace(NamedTuple):
    """The change after which a page begins, and the last event of the export."""

    event_id: int
    course_id: str
    batch_id: str
    image: uuid.UUID
    last: int

    @classmethod
    def before(cls, event_id: int, last: int) -> ChangePlace:
        """Before all changes of an event."""
        return cls(event_id, "", "", uuid.UUID(int=0), last)


class Exports(Reader):
    """Reads of exports."""

    def span(self, filters: Filters, mid: str = "") -> Span:
        """The events that an export looks at: up to the newest of now; `mid`: one event only."""
        if mid:
            query = select(event.c.id).where(event.c.mid == mid, *self._of_visible)
            one = self._database.run(lambda c: c.scalar(query))
            return Span(one - 1, one) if one else Span(0, 0)
        last = self._database.run(lambda c: c.scalar(select(func.max(event.c.id)))) or 0
        return Span(_first_id(filters), last)

    def transfers(self, filters: Filters, span: Span) -> Page[Span]:
        """The next events that fit."""

        def work(connection: Connection) -> Page[Span]:
            last = _last_of(connection, span)
            if last is None:
                return Page([], None)
            looked_at = Span(span.first, last)
            fit = (*_fit(filters, looked_at), *self._of_visible)
            query = select(*_EVENT).where(*fit).order_by(event.c.id)
            rows = [_transfer(r, self._visible) for r in connection.execute(query)]
            return Page(rows, None if last == span.last else Span(last, span.last))

        return self._database.run(work)

    def messages(self, filters: Filters, after: OrderKey = BEFORE_ALL) -> Page[OrderKey]:
        """The next rejected messages that fit."""
        if not (filters.with_rejected and self._visible.every):
            return Page([], None)
        columns, key = rejected_message.c, REJECTED_KEY
        query = select(*key, columns.origin, columns.reason, columns.received_at)
        query = query.where(tuple_(*key) > tuple_(*values(after)), *filters.at(columns.kafka_ms))
        if filters.request_id:
            query = query.where(residual(columns.request_id == filters.request_id))
        found = self._database.run(lambda c: c.execute(query.order_by(*key).limit(LOOKED_AT)).all())
        place = OrderKey(*found[-1][: len(key)]) if len(found) == LOOKED_AT else None
        return Page([_message(r) for r in found], place)

    def changes(self, filters: Filters, after: ChangePlace) -> Page[ChangePlace]:
        """The next changes of events that fit."""

        def work(connection: Connection) -> Page[ChangePlace]:
            last = _last_of(connection, Span(after.event_id - 1, after.last))
            if last is None:
                return Page([], None)
            looked_at = Span(after.event_id - 1, last)
            columns = (event.c.id, event.c.mid, event.c.from_user, event.c.to_user, event.c.organisation_id)
            fit = select(*columns).where(*_fit(filters, looked_at), *self._of_visible)
            events = {r.id: tuple(r)[1:] for r in connection.execute(fit)}
            found = connection.execute(_changes(after, last, events.keys())).all() if events else []
            rows = [_change(r, events[r.event_id]) for r in found]
            if len(found) == MAX_CHANGES:
                r = found[-1]
                return Page(rows, ChangePlace(r.event_id, r.course_id, r.batch_id, r.image, after.last))
            return Page(rows, None if last == after.last else ChangePlace.before(last + 1, after.last))

        return self._database.run(work)


def _first_id(filters: Filters) -> int:
    """No event that fits has an id up to this: it begins with the month in which the event arrived."""
    if filters.since_ms is None:
        return 0
    try:
        # The clocks of broker and ledger may differ.
        return (month_of(filters.since_ms - DAY_MS) << MONTH_SHIFT) - 1
    except (OverflowError, ValueError):
        return 0


def _last_of(connection: Connection, span: Span) -> int | None:
    """The last event of a span that a page looks at; None if it has none."""
    some = select(event.c.id).where(event.c.id > span.first, event.c.id <= span.last)
    ids = some.order_by(event.c.id).limit(LOOKED_AT).subquery()
    found: int | None = connection.scalar(select(func.max(ids.c.id)))
    return found


def _fit(filters: Filters, span: Span) -> list[ColumnElement[bool]]:
    """The conditions on the events of a span; only the first takes an index."""
    conditions: list[ColumnElement[bool]] = [event.c.id > span.first, event.c.id <= span.last]
    if filters.user:
        user = folded(filters.user)
        conditions.append(residual(or_(event.c.source_user == user, event.c.target_user == user)))
    if filters.state:
        conditions.append(residual(among(event.c.state, filters.states)))
    if filters.request_id:
        conditions.append(residual(event.c.request_id == filters.request_id))
    conditions += filters.at(event.c.kafka_ms)
    for places in filters.narrowed():
        ids = ((table.c.event_id, of_filter) for table, of_filter in places)
        of_span = (select(i).where(i > span.first, i <= span.last, of_filter) for i, of_filter in ids)
        conditions.append(event.c.id.in_(union(*of_span)))
    return conditions


def _changes(after: ChangePlace, last: int, events: Collection[int]) -> Select[Any]:
    key = (change.c.event_id, change.c.course_id, change.c.batch_id, change.c.image)
    place = (literal(value, column.type) for value, column in zip(after[:4], key, strict=True))
    return (
        select(change)
        .where(
            change.c.event_id >= max(after.event_id, min(events)),
            change.c.event_id <= min(last, max(events)),
            tuple_(*key) > tuple_(*place),
            residual(among(change.c.event_id, events)),
        )
        .order_by(*key)
        .limit(MAX_CHANGES)
    )


def _transfer(r: Any, visible: VisibleOrganisations) -> tuple[Any, ...]:
    options = Options.of(r.options)
    reason = r.reason if visible.every or r.waits_for is None else WAITS
    return (
        r.mid, r.state, calendar_time(r.kafka_ms), r.from_user, r.to_user, r.organisation_id, r.origin, r.requested_by,
        r.request_reason, r.run_id, reason, options.dry_run, options.undo_of, options.plan_of,
        *(r.counts.get(outcome, 0) for outcome in BatchOutcome),
        r.late, r.received_at, r.completed_at, r.ended_at, r.reproved_at,
    )  # fmt: skip


def _message(r: Any) -> tuple[Any, ...]:
    known = {
        "mid": r.mid, "state": str(EventState.REJECTED), "sent_at": calendar_time(r.kafka_ms), "origin": r.origin,
        "reason": r.reason, "received_at": r.received_at,
    }  # fmt: skip
    return tuple(known.get(column) for column in TRANSFER_COLUMNS)


def _change(r: Any, of_event: tuple[Any, ...]) -> tuple[Any, ...]:
    return (
        *of_event, r.course_id, r.batch_id, r.role, r.status, *owners_of(r, "before"), *owners_of(r, "after"),
        r.outcome, r.hop, r.hops, r.recorded_at, r.applied_at,
    )  # fmt: skip
