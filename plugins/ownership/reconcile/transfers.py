"""The ledger's transfers of the last days: moves never proven, users who gave everything away, what is under way.

An event whose message is older than that is not seen.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Iterator, Sequence
from typing import NamedTuple

from ownership.domain.clock import DAY_MS, HOUR_MS, now_ms, to_ms
from ownership.domain.compare import UNPROVEN, is_same_user
from ownership.domain.plan import CREATED, EVERYTHING, MENTORED, BatchId, Document, Row, Scope
from ownership.domain.reconciliation import IN_FLIGHT, Tally
from ownership.domain.states import OPEN_STATES, ChangeOutcome, EventState
from ownership.ledger.changes import Image
from ownership.ledger.events import EventRow
from ownership.reconcile.pace import Pace
from ownership.stages.parts import Parts

EVENTS_AT_ONCE = 50
MAX_SOURCES = 50_000
"""Old users in memory at once; the newest."""
UNDER_WAY_MS = HOUR_MS
"""An open event is under way until so long after its message: its stages are tried again for an hour."""


class Gave(NamedTuple):
    """A user's last transfer of everything, or of everything of an organisation."""

    completed_ms: int
    mid: str
    scope: Scope = EVERYTHING


def sources(parts: Parts, days: int) -> dict[str, Gave]:
    """By old user (folded), their last completed transfer of everything within the days, `MAX_SOURCES` at most."""
    found: dict[str, Gave] = {}
    for e in (e for events in _recent(parts, days, (EventState.COMPLETED,)) for e in events):
        source = e.transfer.source
        if e.options.whole and (source in found or len(found) < MAX_SOURCES):
            gave = Gave(to_ms(e.completed_at) if e.completed_at else 0, e.mid, e.scope)
            found[source] = max(gave, found.get(source, gave), key=lambda g: g[:2])
    return found


def unproven(parts: Parts, days: int, pace: Pace) -> Tally:
    """Count batches that a transfer moved and that were never proven.

    Of an event that is not completed: rows that are as its images left them. Of a completed one: images that are
    late, or without an outcome, where the row is as they left it, and images in doubt. What an event that is under
    way moved is in flight.
    """
    tally = Tally()
    for events in _recent(parts, days, tuple(EventState)):
        if planned := [e for e in events if e.planned_at]:
            _look(parts, planned, tally, pace)
    return tally


def _look(parts: Parts, events: Sequence[EventRow], tally: Tally, pace: Pace) -> None:
    of = {e.mid: e for e in events}
    images = parts.changes.unproven(of)
    pace.take(len(images))
    suspects = [(h.mid, i) for i in images for h in i.hops if _doubtful(of.get(h.mid), i)]
    if not suspects:
        return
    under_way = _under_way(parts, events)
    rows = parts.rows.read({i.id for _, i in suspects})
    # An event may have completed meanwhile, and proven what it moved.
    states = {m: e.state for m, e in parts.events.read({mid for mid, _ in suspects}).items()}
    standing: dict[tuple[str, BatchId], Image] = {}
    for mid, image in suspects:
        if _stands(image, rows.get(image.id)):
            standing.setdefault((mid, image.id), image)
    for (mid, batch), image in standing.items():
        state = states.get(mid, of[mid].state)
        if state == EventState.COMPLETED and of[mid].state != EventState.COMPLETED:
            continue
        note = f"{mid} is {state}, its image {image.outcome or 'without an outcome'}"
        if mid in under_way:
            tally.found(IN_FLIGHT, rows[batch], None, note)
        else:
            tally.found(UNPROVEN, rows[batch], None, note)
            tally.left()


def _stands(image: Image, row: Row | None) -> bool:
    """True if the row is as the image left it, or nobody knows."""
    in_doubt = image.outcome == ChangeOutcome.IN_DOUBT
    return row is not None and (in_doubt or row.owners == image.after.owners)


def _doubtful(event: EventRow | None, image: Image) -> bool:
    if event is None:  # a hop of an event of another group, which looks at it itself
        return False
    if event.state == EventState.COMPLETED:
        return image.outcome in (ChangeOutcome.LATE, ChangeOutcome.IN_DOUBT, None)
    return image.outcome in (ChangeOutcome.APPLIED, ChangeOutcome.LATE, ChangeOutcome.IN_DOUBT, None)


def _under_way(parts: Parts, events: Iterable[EventRow]) -> set[str]:
    """Open events that a run holds, or whose message is young."""
    now = now_ms()
    held = {e.mid for e in parts.queue.read() if e.is_held(now)}
    young = {e.mid for e in events if e.state in OPEN_STATES and e.kafka_ms > now - UNDER_WAY_MS}
    return held | young


def _recent(parts: Parts, days: int, states: Collection[EventState]) -> Iterator[list[EventRow]]:
    """The events of the last days in one of `states`, the newest first, `EVENTS_AT_ONCE` at a time."""
    end_ms = now_ms() + DAY_MS  # a message may be ahead of this clock
    start_ms = end_ms - (days + 1) * DAY_MS if days > 0 else end_ms
    return parts.events.of_window(start_ms, end_ms, states, size=EVENTS_AT_ONCE, newest_first=True)


def found_by(event: EventRow, row: Row, document: Document | None) -> bool:
    """True if the proof of an open event will come across the batch: its search finds the document.

    Undos and plans that are applied exactly search for nothing: they keep to their plan.
    """
    if document is None or event.final:
        return False
    options = event.options
    if options.dry_run or options.undo_of or options.plan_of or not event.scope.covers(row):
        return False
    source, roles = event.transfer.source, event.scope.roles
    return (CREATED in roles and is_same_user(document.created_by, source)) or (
        MENTORED in roles and any(is_same_user(m, source) for m in document.mentors)
    )
