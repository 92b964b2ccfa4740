"""The share of the accepted events that is proven: of the last days, and of one API call of the platform."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Any, Final

from sqlalchemy import (
    ColumnElement,
    Connection,
    Integer,
    and_,
    case,
    func,
    literal,
    literal_column,
    not_,
    or_,
    select,
    true,
    type_coerce,
)
from sqlalchemy.dialects.postgresql import ARRAY

from ownership.domain.clock import from_ms
from ownership.domain.decoding import parse_json
from ownership.domain.proven import ProvenCounts, RequestCounts
from ownership.domain.states import OPEN_STATES, EventState
from ownership.ledger.arrivals import MAX_WAIT_MS
from ownership.ledger.reads.statements import Reader, residual
from ownership.ledger.schema import Time, among, event, payload, rejected_message

MAX_REDRIVES: Final = 1000
"""Events of a request that are looked at for what they tried again."""
_NEVER: Final = datetime.max.replace(tzinfo=UTC)
_EVENT = event.c


class Proven(Reader):
    """Reads of how many events are proven."""

    def days(self, count: int, *, at_ms: int, deadline_minutes: int) -> list[ProvenCounts]:
        """The events that were accepted in each of the last `count` times 24 hours before `at_ms`, the newest first."""
        at = from_ms(at_ms)
        begins = [at - timedelta(days=n + 1) for n in range(count)]
        ends = [_NEVER, *begins[:-1]]
        # Many are counted: a day is a range of the index, and what an event counts as is a number.
        day = (
            func.unnest(*(literal(times, ARRAY(Time)) for times in (begins, ends)))
            .table_valued("begin", "end", with_ordinality="n", name="day")
            .render_derived()
        )
        place = _place(literal(at, Time), deadline_minutes).label("place")
        counted = (
            select(place, func.count().label("events"))
            .where(_EVENT.received_at > day.c.begin, _EVENT.received_at <= day.c.end, *self._of_visible)
            .group_by(place)
            .lateral()
        )
        query = select(day.c.n, counted).join_from(day, counted, true())
        rows = self._database.run(lambda c: c.execute(query).all())
        counts = {(r.n, r.place): r.events for r in rows}
        places = range(len(ProvenCounts._fields))
        return [ProvenCounts(*(counts.get((n, p), 0) for p in places)) for n in range(1, count + 1)]

    def request(self, request_id: str) -> RequestCounts:
        """The events and rejected messages of an API call. One that was tried again counts as its newest try."""

        def work(connection: Connection) -> RequestCounts:
            again = _tried_again(connection, request_id)
            r = connection.execute(
                select(
                    func.count().label("events"),
                    func.count().filter(_EVENT.state == EventState.COMPLETED).label("proven"),
                    func.count().filter(among(_EVENT.state, OPEN_STATES)).label("open"),
                ).where(
                    _EVENT.request_id == request_id,
                    *self._of_visible,
                    residual(_EVENT.state != EventState.REHEARSED),
                    residual(not_(among(_EVENT.mid, again))),
                )
            ).one()
            rejected = select(func.count()).where(
                rejected_message.c.request_id == request_id,
                residual(not_(among(rejected_message.c.mid, again))),
            )
            # Rejected messages have no organisation.
            count = connection.scalar(rejected) if self._visible.every else 0
            return RequestCounts(*r, ended=r.events - r.proven - r.open, rejected=count or 0)

        return self._database.run(work)


def _place(at: ColumnElement[Any], deadline_minutes: int) -> ColumnElement[int]:
    """The place in `ProvenCounts` of the field that counts an event at a time."""
    fields = {name: literal_column(str(n), Integer) for n, name in enumerate(ProvenCounts._fields)}
    deadline, max_wait = timedelta(minutes=deadline_minutes), timedelta(milliseconds=MAX_WAIT_MS)
    announced = func.to_timestamp(_EVENT.kafka_ms / 1000.0)
    # As the queue has it: a producer's clock, or a long backlog, must not eat up the deadline.
    accepted = func.least(_EVENT.received_at, func.greatest(announced, _EVENT.received_at - max_wait))
    due_at = type_coerce(accepted + deadline, Time)
    due_earliest = type_coerce(_EVENT.received_at + (deadline - max_wait), Time)
    proven, is_open = _EVENT.state == EventState.COMPLETED, among(_EVENT.state, OPEN_STATES)
    # Most are in time whenever they were announced.
    in_time = and_(proven, or_(_EVENT.completed_at <= due_earliest, _EVENT.completed_at <= due_at))
    asked = or_(_EVENT.approved_digest.isnot(None), _EVENT.state == EventState.AWAITING_APPROVAL)
    return case(
        (in_time, fields["in_time"]),
        (not_(or_(proven, is_open)), fields["unproven"]),
        (asked, fields["asked"]),
        (proven, fields["late"]),
        (at > due_at, fields["overdue"]),
        else_=fields["pending"],
    )


def _tried_again(connection: Connection, request_id: str) -> list[str]:
    """The mids that a later event of the request tries again."""
    query = (
        select(payload.c.body)
        .join_from(event, payload, payload.c.event_id == _EVENT.id)
        .where(_EVENT.request_id == request_id, residual(_EVENT.mid.startswith("redrive:")))
        .limit(MAX_REDRIVES)
    )
    return [mid for body in connection.scalars(query) if (mid := _redrive_of(body))]


def _redrive_of(body: bytes) -> str | None:
    """The mid that an event says it tries again; None if its message was erased."""
    value = parse_json(body) if body else {}
    mid = value.get("redrive_of") if isinstance(value, dict) else None
    return mid if isinstance(mid, str) else None
