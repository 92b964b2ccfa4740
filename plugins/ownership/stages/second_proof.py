"""The second proof: a run looks once more at the completed events of a window.

It finds what came after the first proof: documents that the LMS wrote late from an older row, and batches that the
index did not show in time. It brings the documents in line with their rows. For batches that still name the old user
it queues a follow-up event right after the old one.
"""

from __future__ import annotations

import logging
from collections.abc import Collection, Iterable, Sequence
from functools import partial
from itertools import chain

from more_itertools import chunked

from ownership.domain.clock import DAY_MS, HOUR_MS
from ownership.domain.compare import own_documents
from ownership.domain.event import MAX_FOLLOW_UPS, follow_ups
from ownership.domain.options import Options
from ownership.domain.plan import BatchId, Row, Scope, map_owners
from ownership.domain.states import ChangeOutcome, EventState
from ownership.ledger.changes import Image
from ownership.ledger.events import EventRow
from ownership.stages.inbox import Inbox
from ownership.stages.parts import Parts
from ownership.stages.update import settle_undecided

log = logging.getLogger(__name__)

LOOK_BACK_MS = 6 * HOUR_MS
"""How long before a window an event may have completed that no run has proven since: its own window's run was too early,
or did not come."""
OLDEST_MS = 7 * DAY_MS
"""How much older than that its message may be, at least: an event is tried again until an outage is over."""
EVENTS_AT_ONCE = 200
BATCHES_AT_ONCE = 1000
MAX_ROUNDS = 3
"""Rounds of reading and writing documents: a row may change in between."""


def second_proof(parts: Parts, inbox: Inbox, start_ms: int, end_ms: int) -> int:
    """Prove the window's completed events again. Returns the number of follow-up events.

    Of an event that was abandoned lately, changes get their outcomes, and documents follow the rows that it has moved.

    :raises Unavailable: if a store is; events proven until then stay proven.
    """
    completed = partial(parts.events.of_window, states=(EventState.COMPLETED,), size=EVENTS_AT_ONCE)
    abandoned = partial(parts.events.of_window, states=(EventState.ABANDONED,), size=EVENTS_AT_ONCE)
    since_ms = start_ms - LOOK_BACK_MS
    # A message may be much older than its completion: its transfer waited for an approval, or for a service.
    oldest_ms = since_ms - max(parts.settings.approval_hours * HOUR_MS, OLDEST_MS)
    # The window's own are proven whenever it is run; older ones only if no run did it.
    older, own = completed(oldest_ms, start_ms, unproven_since_ms=since_ms), completed(start_ms, end_ms)
    for events in abandoned(oldest_ms, end_ms, unproven_since_ms=since_ms):
        settle_undecided(parts, [e.mid for e in events])
        follow_rows(parts, parts.changes.batches(_with_plans(events)))
    return sum(_prove(parts, inbox, events) for events in chain(older, own))


def _prove(parts: Parts, inbox: Inbox, events: Sequence[EventRow]) -> int:
    mids = _with_plans(events)
    _warn_of_uncertain_writes(parts.changes.unproven(mids))
    follow_rows(parts, parts.changes.batches(mids))
    parts.index.refresh()
    # An undo leaves its users' other batches to them, and a plan of a dry run names the batches that were its own.
    searched = [e for e in events if not e.options.undo_of and not e.options.plan_of]
    found = {
        batch for _, batch in parts.index.live_batches({e.transfer.source for e in searched}, every_copy=True)
    }
    follow_rows(parts, found)
    follow_ups = _follow_up(parts, inbox, searched, found)
    parts.events.reproved([e.mid for e in events])
    return follow_ups


def _with_plans(events: Iterable[EventRow]) -> set[str]:
    """The events under which their plans are kept."""
    return {mid for e in events for mid in (e.mid, *e.planned_with)}


def _warn_of_uncertain_writes(images: Iterable[Image]) -> None:
    for image in images:
        if image.outcome in (ChangeOutcome.LATE, ChangeOutcome.IN_DOUBT):
            log.warning(
                "batch %s of course %s: a write of token %s is %s; compare row and audit trail",
                image.id.batch_id, image.id.course_id, image.fencing_token, image.outcome,
            )  # fmt: skip


def follow_rows(parts: Parts, ids: Collection[BatchId]) -> None:
    """Bring documents in line with their rows as they are now. A missing document is created from its row."""
    for chunk in chunked(sorted(ids), BATCHES_AT_ONCE):
        for _ in range(MAX_ROUNDS):
            parts.index.refresh()
            documents = parts.index.get({i.batch_id for i in chunk})
            rows = parts.rows.read(chunk)
            updates = [
                (document, *row.owners)
                for i, row in rows.items()
                for document in own_documents(row, documents.get(i.batch_id, ()))
                if document.owners != row.owners
            ]
            missing = [i for i in rows if i.batch_id not in documents]
            if not updates and not missing:
                break
            parts.index.write(updates, parts.rows.read_whole(missing).values())


def _follow_up(parts: Parts, inbox: Inbox, events: Sequence[EventRow], found: Collection[BatchId]) -> int:
    """Queue a follow-up for each event whose old user is still named by a live row; how many."""
    rows = [r for r in parts.rows.read(found).values() if r.live]
    last: dict[tuple[str, str, Options, Scope], EventRow] = {}
    for e in sorted(events, key=lambda e: e.transfer.key):
        last[e.transfer.source, e.transfer.target, e.options, e.scope] = e
    count = 0
    for (from_user, *_), event in last.items():
        if not any(_should_have_moved(event, r) for r in rows):
            continue
        if not follow_ups(event.mid):
            log.warning(
                "event %s: batches still name %s after %s follow-ups", event.mid, from_user, MAX_FOLLOW_UPS
            )
            continue
        if parts.events.gave_back(event):
            continue
        received = inbox.follow_up(event)
        for t in received:
            log.warning("event %s: batches still name %s; follow-up %s queued", event.mid, from_user, t.mid)
        count += len(received)
    return count


def _should_have_moved(event: EventRow, row: Row) -> bool:
    """True if the row still names the old user where the event should have moved it."""
    if not event.scope.covers(row):
        return False
    moves = {event.transfer.source: event.transfer.to_user}
    return map_owners(moves, row, scope=event.scope) != row
