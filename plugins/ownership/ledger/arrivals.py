"""Arrivals: events, rejected messages and the next offsets of their partitions, in one transaction."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Mapping, Sequence
from typing import NamedTuple

from sqlalchemy import ColumnElement, Connection, func, select
from sqlalchemy.dialects.postgresql import insert

from ownership.domain.clock import now_ms
from ownership.domain.event import Transfer
from ownership.domain.options import PLAIN, Options
from ownership.domain.states import Decision, EventState
from ownership.ledger.database import Database
from ownership.ledger.events import RejectedMessage
from ownership.ledger.months import ensure_months
from ownership.ledger.schema import (
    columns_of,
    consumed_offset,
    event,
    payload,
    queue,
    rejected_message,
    row_of,
)

MAX_WAIT_MS = 5 * 60 * 1000
"""An event counts as accepted at the time of its message, but at most this long ago: deadlines begin then."""
HOLD_MS = 30_000
"""Lease of events that a run brings: long enough for it to claim them, before the watcher's run does."""


class Origin(NamedTuple):
    """Where an event came from. `kafka_ms` is the broker's timestamp, or the time of a manual start."""

    source: str
    topic: str
    partition: int
    offset: int
    kafka_ms: int


class Arrival(NamedTuple):
    """An event on its way into the ledger."""

    transfer: Transfer
    origin: Origin
    payload: bytes
    organisation_id: str
    ets: int | None = None
    options: Options = PLAIN
    requested_by: str | None = None
    request_reason: str | None = None
    request_id: str | None = None
    decision: Decision | None = None
    """Set if it is decided already: a follow-up, whose users may have left since."""

    @property
    def mid(self) -> str:
        """The event's message id."""
        return self.transfer.mid


class Consumed(NamedTuple):
    """How far the ledger has read a partition of a topic."""

    topic: str
    partition: int
    next_offset: int
    last_offset: int | None = None
    """Of the last message that was read, None if there was none or the topic was created again."""
    last_digest: str | None = None
    """Names that message: where the topic has another one at its place, the topic was created again."""


def message_digest(kafka_ms: int, value: bytes) -> str:
    """Names a message by its timestamp and value."""
    return hashlib.sha256(b"%d:" % kafka_ms + value).hexdigest()[:32]


_UPSERT = insert(consumed_offset)
_SET = {n: _UPSERT.excluded[n] for n in ("next_offset", "last_offset", "last_digest")} | {
    "updated_at": func.now()
}


class Arrivals:
    """Inserts what arrives."""

    def __init__(self, database: Database) -> None:
        self._database = database

    def consumed(self, topic: str) -> dict[int, Consumed]:
        """By partition, how far the ledger has the topic."""
        query = select(*columns_of(consumed_offset, Consumed)).where(consumed_offset.c.topic == topic)
        return self._database.run(lambda c: {r.partition: Consumed(**r._asdict()) for r in c.execute(query)})

    def restart(self, topic: str, starts: Mapping[int, int]) -> None:
        """Begin anew at these offsets, by partition: the topic was created again."""
        consumed = [Consumed(topic, partition, offset) for partition, offset in starts.items()]
        self._database.run(lambda c: _set_offsets(c, consumed))

    def store(
        self,
        arrivals: Sequence[Arrival],
        rejected: Sequence[RejectedMessage] = (),
        consumed: Sequence[Consumed] = (),
        *,
        holder: str | None = None,
    ) -> set[str]:
        """Insert what the ledger does not have, and note how far the partitions are read; durable at the return.

        Events that a `holder` brings are held for it. Returns the mids of the events that were inserted. Where the
        ledger has one of them already, the offsets stay: the caller compares the two first.
        """
        ensure_months(self._database)

        def work(connection: Connection) -> set[str]:
            inserted = _insert(connection, arrivals, holder) if arrivals else set()
            if rejected:
                values = [row_of(r, without="received_at") for r in sorted(rejected)]
                connection.execute(insert(rejected_message).on_conflict_do_nothing(), values)
            if len(inserted) == len(arrivals):
                # Never back: what an operator has read again was in the ledger before.
                is_further = _UPSERT.excluded.next_offset > consumed_offset.c.next_offset
                _set_offsets(connection, consumed, is_further)
            return inserted

        return self._database.run(work)


def _insert(connection: Connection, arrivals: Sequence[Arrival], holder: str | None) -> set[str]:
    # In the order of their mids, so that two runs that accept the same messages never wait for each other.
    of = {a.mid: a for a in sorted(arrivals, key=lambda a: a.mid)}
    rows = connection.execute(
        insert(event).on_conflict_do_nothing(index_elements=["mid"]).returning(event.c.id, event.c.mid),
        [_event(a) for a in of.values()],
    ).all()
    if not rows:
        return set()
    # The inbox has let no message be ahead of the ledger's clock: where they are ahead of this worker's, that is behind.
    now = max([now_ms(), *(a.origin.kafka_ms for a in of.values() if a.origin.source == "kafka")])
    connection.execute(insert(payload), [{"event_id": r.id, "body": of[r.mid].payload} for r in rows])
    connection.execute(
        insert(queue),
        [
            {
                "event_id": r.id,
                # A producer's clock in the future must not keep an event young for ever.
                "accepted_at": min(max(of[r.mid].origin.kafka_ms, now - MAX_WAIT_MS), now),
                "holder": holder,
                "lease_expires_at": now + HOLD_MS if holder else None,
            }
            for r in rows
        ],
    )
    return {r.mid for r in rows}


def _event(a: Arrival) -> dict[str, object]:
    t, o = a.transfer, a.origin
    return {
        "mid": a.mid,
        "order_ms": t.key.t,
        "kafka_partition": t.key.partition,
        "kafka_offset": t.key.offset,
        "from_user": t.from_user,
        "to_user": t.to_user,
        "source_user": t.source,
        "target_user": t.target,
        "organisation_id": a.organisation_id,
        "origin": o.source,
        "topic": o.topic,
        "kafka_ms": o.kafka_ms,
        "ets": a.ets,
        "options": a.options.to_json(),
        "requested_by": a.requested_by,
        "request_reason": a.request_reason,
        "request_id": a.request_id,
        "state": EventState.RECEIVED,
        "verdict": a.decision,
    }


def _set_offsets(
    connection: Connection, consumed: Iterable[Consumed], where: ColumnElement[bool] | None = None
) -> None:
    """Write the partitions' offsets; of those that the ledger has, where the condition holds."""
    values = [row_of(c) for c in sorted(consumed)]
    if values:
        upsert = _UPSERT.on_conflict_do_update(
            index_elements=["topic", "kafka_partition"], set_=_SET, where=where
        )
        connection.execute(upsert, values)
