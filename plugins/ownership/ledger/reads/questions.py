"""What an id is known as, and which batches a user was given: where a question begins."""

from __future__ import annotations

from typing import Final, NamedTuple

from sqlalchemy import Connection, exists, literal, or_, select

from ownership.domain.event import folded
from ownership.domain.plan import BatchId
from ownership.ledger.reads.statements import BoundedDatabase, newest_first
from ownership.ledger.schema import (
    ORDER_KEY,
    among,
    change,
    event,
    event_run,
    plan,
    rejected_message,
)

MAX_EVENTS: Final = 20
"""Transfers to a user, the newest, whose batches are looked at."""
MAX_BATCHES: Final = 200


class Known(NamedTuple):
    """What the ledger knows by a text."""

    transfer: bool
    """An event, or a rejected message."""
    user: bool
    batch: bool
    course: bool
    request: bool
    run: bool


class Questions:
    """Reads that look for a text of a person's."""

    def __init__(self, database: BoundedDatabase) -> None:
        self._database = database

    def known(self, text: str) -> Known:
        """What the ledger has under exactly this text; users in any case."""
        user = folded(text)
        conditions = (
            or_(exists().where(event.c.mid == text), exists().where(rejected_message.c.mid == text)),
            or_(exists().where(event.c.source_user == user), exists().where(event.c.target_user == user)),
            or_(*(exists().where(table.c.batch_id == text) for table in (plan, change))),
            or_(*(exists().where(table.c.course_id == text) for table in (plan, change))),
            or_(*(exists().where(table.c.request_id == text) for table in (event, rejected_message))),
            exists().where(event_run.c.run_id == text),
        )
        query = select(*(c.label(name) for name, c in zip(Known._fields, conditions, strict=True)))
        return self._database.run(lambda c: Known(**c.execute(query).one()._asdict()))

    def given_to(self, user: str) -> list[BatchId]:
        """Batches that the newest transfers to a user changed, `MAX_BATCHES` at most, by course and batch."""

        def work(connection: Connection) -> list[BatchId]:
            of_user = select(event.c.id).where(event.c.target_user == literal(folded(user)))
            ids = list(connection.scalars(of_user.order_by(*newest_first(ORDER_KEY)).limit(MAX_EVENTS)))
            key = (change.c.course_id, change.c.batch_id)
            changed = select(*key).where(among(change.c.event_id, ids), change.c.applied_at.isnot(None))
            rows = connection.execute(changed.group_by(*key).order_by(*key).limit(MAX_BATCHES))
            return [BatchId(*r) for r in rows]

        return self._database.run(work)
