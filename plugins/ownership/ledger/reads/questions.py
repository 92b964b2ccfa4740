"""What an id is known as, and which batches a user was given: where a question begins."""

from __future__ import annotations

from typing import Any, Final, NamedTuple

from sqlalchemy import Column, ColumnElement, Connection, exists, literal, or_, select

from ownership.domain.event import folded
from ownership.domain.plan import BatchId
from ownership.ledger.reads.statements import Reader, newest_first
from ownership.ledger.schema import ORDER_KEY, among, change, event, event_run, plan, rejected_message

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


class Questions(Reader):
    """Reads that look for a text of a person's."""

    def known(self, text: str) -> Known:
        """What the ledger has under exactly this text, of what is visible; users in any case."""
        user = folded(text)

        def has(column: Column[Any], value: str = text) -> ColumnElement[bool]:
            return exists().where(column == value, *self._is_visible(column.table))

        conditions = (
            or_(has(event.c.mid), has(rejected_message.c.mid)),
            or_(has(event.c.source_user, user), has(event.c.target_user, user)),
            or_(has(plan.c.batch_id), has(change.c.batch_id)),
            or_(has(plan.c.course_id), has(change.c.course_id)),
            or_(has(event.c.request_id), has(rejected_message.c.request_id)),
            has(event_run.c.run_id),
        )
        query = select(*(c.label(name) for name, c in zip(Known._fields, conditions, strict=True)))
        return self._database.run(lambda c: Known(**c.execute(query).one()._asdict()))

    def given_to(self, user: str) -> list[BatchId]:
        """Batches that the newest transfers to a user changed, `MAX_BATCHES` at most, by course and batch."""

        def work(connection: Connection) -> list[BatchId]:
            of_user = select(event.c.id).where(
                event.c.target_user == literal(folded(user)), *self._of_visible
            )
            ids = list(connection.scalars(of_user.order_by(*newest_first(ORDER_KEY)).limit(MAX_EVENTS)))
            key = (change.c.course_id, change.c.batch_id)
            changed = select(*key).where(among(change.c.event_id, ids), change.c.applied_at.isnot(None))
            rows = connection.execute(changed.group_by(*key).order_by(*key).limit(MAX_BATCHES))
            return [BatchId(*r) for r in rows]

        return self._database.run(work)
