"""The second proof: completed events of a window are looked at once more.

It finds what came after the first proof: documents that the LMS wrote late from an older row, and
batches that the index did not show in time. Documents are brought in line; a batch that still
names the old user becomes a follow-up event right after the old one.
"""

from __future__ import annotations

import logging
from collections.abc import Collection, Sequence

from more_itertools import chunked

from ownership.domain.event import MAX_FOLLOW_UPS
from ownership.domain.options import Options
from ownership.domain.plan import BatchId, Row, map_owners
from ownership.domain.states import ChangeOutcome, EventState
from ownership.ledger.events import EventRow
from ownership.stages.inbox import Inbox
from ownership.stages.parts import Parts

log = logging.getLogger(__name__)

LOOK_BACK_MS = 6 * 3_600_000
"""Events that completed after their own window's run are caught by one of the next windows."""
EVENTS_AT_ONCE = 200
ROUNDS_OF_SYNC = 3


def second_proof(parts: Parts, inbox: Inbox, start_ms: int, end_ms: int) -> int:
    """Prove the window's completed events again. Returns the number of follow-up events.

    :raises Unavailable: if a store is; events proven until then stay proven.
    """
    follow_ups = 0
    for done in parts.events.of_window(
        start_ms - LOOK_BACK_MS, end_ms, (EventState.COMPLETED,), size=EVENTS_AT_ONCE
    ):
        # The window's own are proven whenever it is run; older ones only if no run did it.
        if events := [e for e in done if e.kafka_ms >= start_ms or e.reproved_at is None]:
            follow_ups += _prove(parts, inbox, events)
    return follow_ups


def _prove(parts: Parts, inbox: Inbox, events: Sequence[EventRow]) -> int:
    planned, images = parts.changes.read([e.mid for e in events])
    for image in images:
        if image.outcome in (ChangeOutcome.LATE, ChangeOutcome.IN_DOUBT):
            log.warning(
                "batch %s of course %s: a write of token %s is %s; compare row and audit trail",
                image.id.batch_id, image.id.course_id, image.fencing_token, image.outcome,
            )  # fmt: skip
    follow_rows(parts, {p.id for p in planned})
    parts.index.refresh()
    # An undo leaves the batches that its users had besides, and the plan of a dry run says which were its.
    searched = [e for e in events if not e.options.undo_of and not e.options.plan_of]
    users = {e.transfer.source for e in searched}
    hits = list(parts.index.live_batches(users))
    follow_ups = 0
    if hits:
        follow_rows(parts, {batch for _, batch in hits})
        follow_ups = _follow_up(parts, inbox, searched, {batch for _, batch in hits})
    parts.events.reproved([e.mid for e in events])
    return follow_ups


def follow_rows(parts: Parts, ids: Collection[BatchId]) -> None:
    """Documents follow rows, as they are now. A missing document is created from its row."""
    for some in chunked(sorted(ids), 1000):
        for _ in range(ROUNDS_OF_SYNC):
            documents = parts.index.get({i.batch_id for i in some})
            rows = parts.rows.read(some)
            updates = [
                (d, *row.owners)
                for i, row in rows.items()
                if (d := documents.get(i.batch_id)) is not None and d.owners != row.owners
            ]
            missing = [i for i in rows if i.batch_id not in documents]
            if not updates and not missing:
                break
            parts.index.write(updates, parts.rows.read_whole(missing).values())


def _follow_up(parts: Parts, inbox: Inbox, events: Sequence[EventRow], hits: Collection[BatchId]) -> int:
    """Queue a follow-up for each event whose old user is still named by a live row."""
    rows = [r for r in parts.rows.read(hits).values() if r.live]
    last: dict[tuple[str, str, Options], EventRow] = {}
    for e in sorted(events, key=lambda e: e.transfer.key):
        last[e.transfer.source, e.transfer.target, e.options] = e
    count = 0
    for (from_user, *_), event in last.items():
        if not any(_still_theirs(event, r) for r in rows):
            continue
        if event.mid.endswith("+" * MAX_FOLLOW_UPS):
            log.warning(
                "event %s: batches still name %s after %s follow-ups", event.mid, from_user, MAX_FOLLOW_UPS
            )
            continue
        if parts.events.gives_back(event):  # what a later transfer gave, or gives, is theirs
            continue
        received = inbox.follow_up(event)
        for t in received:
            log.warning("event %s: batches still name %s; follow-up %s queued", event.mid, from_user, t.mid)
        count += len(received)
    return count


def _still_theirs(event: EventRow, row: Row) -> bool:
    """True if the row still names the old user where the event should have moved it."""
    if not event.options.scope.covers(row):
        return False
    moves = {event.transfer.source: event.transfer.to_user}
    return map_owners(moves, row, scope=event.options.scope) != row
