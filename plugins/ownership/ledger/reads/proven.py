"""The share of the accepted events that is proven: of the last days, and of one API call of the platform."""

from __future__ import annotations

from datetime import timedelta
from typing import Any, Final

from sqlalchemy import (
    ColumnElement,
    Connection,
    Integer,
    and_,
    case,
    cast,
    func,
    literal,
    not_,
    or_,
    select,
    type_coerce,
)

from ownership.domain.clock import from_ms
from ownership.domain.decoding import parse_json
from ownership.domain.proven import ProvenCounts, RequestCounts
from ownership.domain.states import OPEN_STATES, EventState
from ownership.ledger.arrivals import MAX_WAIT_MS
from ownership.ledger.reads.statements import Reader, residual
from ownership.ledger.schema import Time, among, event, payload, rejected_message

MAX_REDRIVES: Final = 1000
"""Events of a request that are looked at for what they tried again."""
_DAY_S: Final = 24 * 3600
_EVENT = event.c


class Proven(Reader):
    """Reads of how many events are proven."""

    def days(self, count: int, *, at_ms: int, deadline_minutes: int) -> list[ProvenCounts]:
        """The events that were accepted in each of the last `count` times 24 hours before `at_ms`, the newest first."""
        at = literal(from_ms(at_ms), Time)
        age_s = func.date_part("epoch", at - _EVENT.received_at)  # a float: many are counted
        day = func.greatest(cast(func.floor(age_s / _DAY_S), Integer), 0).label("day")
        place = _counted_as(at, deadline_minutes).label("place")
        since = from_ms(at_ms) - timedelta(days=count)
        query = select(day, place, func.count().label("events")).where(
            _EVENT.received_at > since, *self._of_visible
        )
        found: dict[int, dict[str, int]] = {}
        for r in self._database.run(lambda c: c.execute(query.group_by(day, place)).all()):
            found.setdefault(r.day, {})[r.place] = r.events
        return [ProvenCounts(**found.get(n, {})) for n in range(count)]

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


def _counted_as(at: ColumnElement[Any], deadline_minutes: int) -> ColumnElement[str]:
    """The field of `ProvenCounts` that counts an event at a time."""
    announced = func.to_timestamp(_EVENT.kafka_ms / 1000.0)
    # As the queue has it: a producer's clock, or a long backlog, must not eat up the deadline.
    earliest = _EVENT.received_at - timedelta(milliseconds=MAX_WAIT_MS)
    accepted = func.least(_EVENT.received_at, func.greatest(announced, earliest))
    due_at = type_coerce(accepted + timedelta(minutes=deadline_minutes), Time)
    proven, is_open = _EVENT.state == EventState.COMPLETED, among(_EVENT.state, OPEN_STATES)
    in_time = and_(proven, _EVENT.completed_at <= due_at)
    asked = or_(_EVENT.approved_digest.isnot(None), _EVENT.state == EventState.AWAITING_APPROVAL)
    return case(
        (in_time, "in_time"),
        (not_(or_(proven, is_open)), "unproven"),
        (asked, "asked"),
        (proven, "late"),
        (at > due_at, "overdue"),
        else_="pending",
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
