"""One event or rejected message, and the events that belong to it."""

from __future__ import annotations

from collections.abc import Collection
from typing import Any, Final

from sqlalchemy import Select, func, literal, not_, or_, select, tuple_, union

from ownership.domain.event import follow_ups
from ownership.domain.queue import QueuedEvent
from ownership.ledger.events import EVENT_COLUMNS, EventRow, RejectedMessage, event_row
from ownership.ledger.queue import QUEUED, queued_event
from ownership.ledger.reads.lists import LISTED_COLUMNS, PAGE_SIZE, ListedEvent, listed_event, without_blocker
from ownership.ledger.reads.statements import (
    Reader,
    key_of,
    newest_first,
    read_first,
    residual,
    texts,
    values,
)
from ownership.ledger.schema import (
    ORDER_KEY,
    among,
    columns_of,
    event,
    event_run,
    payload,
    queue,
    rejected_message,
)

MAX_LANE: Final = 50
"""Events of a lane that are read."""
MAX_SHORT: Final = 16 * 1024
"""Bytes of a message that is read only for its names."""


class Details(Reader):
    """Reads of one event by the ledger's mid: what is not visible is not there."""

    def event(self, mid: str) -> EventRow | None:
        """An event, None if there is none."""
        query = select(*EVENT_COLUMNS).where(event.c.mid == mid, *self._of_visible)
        row = self._database.run(lambda c: c.execute(query).first())
        return without_blocker(event_row(row), self._visible) if row else None

    def rejected_message(self, mid: str) -> RejectedMessage | None:
        """A rejected message, None if there is none. It has no organisation: only who sees everything sees it."""
        if not self._visible.every:
            return None
        query = select(*columns_of(rejected_message, RejectedMessage)).where(rejected_message.c.mid == mid)
        row = self._database.run(lambda c: c.execute(query).first())
        return RejectedMessage(**row._asdict()) if row else None

    def body(self, mid: str) -> bytes:
        """An event's message; empty if the ledger has none."""
        event_id = select(event.c.id).where(event.c.mid == mid, *self._of_visible).scalar_subquery()
        query = select(payload.c.body).where(payload.c.event_id == event_id)
        return self._database.run(lambda c: c.scalar(query)) or b""

    def short_bodies(self, mids: Collection[str]) -> dict[str, bytes]:
        """The messages of events, of those that have at most `MAX_SHORT` bytes."""
        query = (
            select(event.c.mid, payload.c.body)
            .join_from(event, payload, payload.c.event_id == event.c.id)
            .where(
                among(event.c.mid, mids),
                residual(func.octet_length(payload.c.body) <= MAX_SHORT),
                *self._of_visible,
            )
        )
        return self._database.run(lambda c: {r.mid: r.body for r in c.execute(query)}) if mids else {}

    def queued(self, mid: str) -> QueuedEvent | None:
        """An event's row in the queue."""
        query = QUEUED.where(event.c.mid == mid, *self._of_visible)
        row = self._database.run(lambda c: c.execute(query).first())
        return queued_event(row) if row else None

    def waits_for(self, queued: QueuedEvent) -> str | None:
        """Mid of the nearest event in the queue that goes before this one and shares a user with it.

        Empty if that event is not visible.
        """
        # All of the queue and nothing else: the users' other events, and earlier ones, may be many.
        every = read_first(
            select(
                *ORDER_KEY,
                event.c.source_user,
                event.c.target_user,
                event.c.organisation_id,
                queue.c.begun,
                queue.c.passes_to,
            ).join_from(queue, event, queue.c.event_id == event.c.id)
        )
        users = sorted(queued.users)
        turn = tuple_(not_(every.c.begun), *key_of(every))
        query = (
            select(every.c.mid, every.c.organisation_id)
            .where(
                turn < tuple_(literal(not queued.begun), *values(queued.key)),
                or_(
                    among(every.c.source_user, users),
                    among(every.c.target_user, users),
                    every.c.passes_to.overlap(texts(users)),
                ),
            )
            .order_by(*newest_first(key_of(every)))
            .limit(1)
        )
        blocker = self._database.run(lambda c: c.execute(query).first())
        if blocker is None:
            return None
        return blocker.mid if self._visible.has(blocker.organisation_id) else ""

    def lane(self, row: EventRow) -> list[ListedEvent]:
        """The events that were planned as one with `row`, in order, itself among them."""
        if not row.planned_with or not row.run_id:
            return []
        of_run = read_first(
            select(*LISTED_COLUMNS, event.c.planned_with)
            .join_from(event_run, event, event.c.id == event_run.c.event_id)
            .where(
                event_run.c.run_id == row.run_id, residual(event.c.run_id == row.run_id), *self._of_visible
            )
        )
        query = (
            select(of_run)
            .where(of_run.c.planned_with.overlap(texts(sorted(row.planned_with))))
            .order_by(*key_of(of_run))
            .limit(MAX_LANE)
        )
        return self._listed(query)

    def followed_by(self, mid: str) -> list[ListedEvent]:
        """Events that undo an event, apply its plan, or finish what its second proof found; in order."""
        listed = select(*LISTED_COLUMNS).where(*self._of_visible)
        rows = union(
            listed.where(event.c.options.isnot(None), event.c.follows.contains(texts([mid]))),
            listed.where(among(event.c.mid, follow_ups(mid))),
        ).subquery()
        return self._listed(select(rows).order_by(*key_of(rows)).limit(PAGE_SIZE))

    def _listed(self, query: Select[Any]) -> list[ListedEvent]:
        return self._database.run(lambda c: [listed_event(r, self._visible) for r in c.execute(query)])
