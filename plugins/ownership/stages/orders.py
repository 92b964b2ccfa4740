"""What an operator orders beside transfers: approve, decline and abandon open events; new events out of old ones.

Each order is answered in words for people, by the mid that it names.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Sequence

import structlog

from ownership.domain.clock import now_ms
from ownership.domain.conf import Abandon, Approve, ConfError, Decline, Orders
from ownership.domain.errors import Unavailable
from ownership.domain.queue import ClaimedEvent, QueuedEvent, Wait, WaitKind, choose
from ownership.domain.states import OPEN_STATES, EventState
from ownership.ledger.events import EventRow
from ownership.platform.kafka import Topic
from ownership.stages.new_events import Ordered, execute_plan, redrive, undo
from ownership.stages.parts import Parts
from ownership.stages.update import settle_undecided

log = structlog.get_logger(__name__)

MAX_TAKE_OVERS = 20
"""Tries to act on an event that other runs take over meanwhile."""


def carry_out(
    parts: Parts, orders: Orders, *, run_id: str, at_ms: int, by: str, dead_letters: Topic | None
) -> Ordered:
    """Do what was ordered. `by` started the run; `dead_letters` is the dead-letter topic, None if out of reach.

    Repeating an order of the same run changes nothing more.

    :raises ConfError: for an order that contradicts the ledger.
    """
    notes: dict[str, str] = {}
    if orders.approve:
        notes[orders.approve.mid] = approve(parts, orders.approve, run_id=run_id, by=by)
    if orders.decline:
        notes[orders.decline.mid] = decline(parts, orders.decline, run_id=run_id, by=by)
    if orders.abandon:
        notes |= abandon(parts, orders.abandon, run_id=run_id)
    done = Ordered(notes)
    if orders.redrive:
        done |= redrive(parts, orders.redrive, run_id=run_id, at_ms=at_ms, dead_letters=dead_letters)
    if orders.execute:
        done |= execute_plan(parts, orders.execute, run_id=run_id, at_ms=at_ms, by=by)
    if orders.undo:
        done |= undo(parts, orders.undo, run_id=run_id, at_ms=at_ms, by=by)
    return done | Ordered({}, refused=_not_done(parts, orders))


def _not_done(parts: Parts, orders: Orders) -> set[str]:
    """The named events that the ledger has not, or that ended, or go on, otherwise than was ordered."""
    rows = parts.events.read(list(orders.named))
    states = {mid: row.state for mid, row in rows.items()}
    states |= dict.fromkeys(parts.events.rejected(orders.named - rows.keys()), EventState.REJECTED)
    goes_on = {*OPEN_STATES, EventState.COMPLETED}
    is_over = set(EventState) - goes_on
    wanted: list[tuple[Collection[str], set[EventState]]] = []
    if orders.approve:
        wanted.append(([orders.approve.mid], goes_on))
    if orders.decline:
        wanted.append(([orders.decline.mid], is_over))
    if orders.abandon:
        wanted.append((orders.abandon.mids, is_over))
    if orders.redrive:
        wanted.append((orders.redrive.mids, goes_on | {EventState.SKIPPED}))
    if orders.undo:
        wanted.append((orders.undo.mids, set(EventState)))
    return {mid for mids, good in wanted for mid in mids if states.get(mid) not in good}


def abandon(parts: Parts, order: Abandon, *, run_id: str) -> dict[str, str]:
    """End open events for good. Returns by mid what became of each, with the events that it frees.

    The event is taken over first, even from a live holder: its stage finds the claim lost before its next
    write. What it moved until then stays moved, and is in the audit trail.
    """

    def end(event: ClaimedEvent) -> bool:
        try:
            # While nobody else may change the rows: afterwards they no longer tell what became of the images.
            settle_undecided(parts, [event.mid])
        except Unavailable as e:
            log.warning("changes without an outcome", mid=event.mid, run_id=run_id, why=str(e))
        return parts.events.abandon(event, reason)

    notes: dict[str, str] = {}
    reason = f"abandoned: {order.reason}"
    queued = parts.queue.read()
    for mid in order.mids:
        refused = _act_on(parts, mid, run_id, end)
        notes[mid] = refused or f"was abandoned{_freed(mid, queued)}"
        queued = [e for e in queued if e.mid != mid]
        log.warning("transfer abandoned", mid=mid, run_id=run_id, why=order.reason, outcome=notes[mid])
    return notes


def approve(parts: Parts, order: Approve, *, run_id: str, by: str) -> str:
    """Let a transfer go on with the plan that it waits with. Returns what became of it.

    :raises ConfError: if the digest is not that plan's.
    """
    by = order.by or by

    def refusal(event: EventRow) -> str | None:
        if reason := _awaits_nothing(event):
            return reason
        if event.digest != order.digest:
            raise ConfError(
                f"approve: digest: is not that of the plan of {order.mid}, which is {event.digest}; look at it again."
            )
        return None

    refused = _act_on(
        parts, order.mid, run_id, lambda event: parts.events.approve(event, order.digest, by), refusal
    )
    note = refused or f"was approved by {by}"
    log.warning("transfer approved", mid=order.mid, run_id=run_id, by=by, outcome=note)
    return note


def decline(parts: Parts, order: Decline, *, run_id: str, by: str) -> str:
    """End a transfer that waits for its approval. Returns what became of it."""
    by = order.by or by
    reason = f"declined by {by}: {order.reason}"
    queued = parts.queue.read()
    refused = _act_on(
        parts, order.mid, run_id, lambda event: parts.events.decline(event, reason), _awaits_nothing
    )
    note = refused or f"was declined by {by}{_freed(order.mid, queued)}"
    log.warning("transfer declined", mid=order.mid, run_id=run_id, by=by, why=order.reason, outcome=note)
    return note


def _awaits_nothing(event: EventRow) -> str | None:
    return None if event.state == EventState.AWAITING_APPROVAL else f"is {event.state} and awaits no approval"


def _act_on(
    parts: Parts,
    mid: str,
    run_id: str,
    act: Callable[[ClaimedEvent], bool],
    refusal: Callable[[EventRow], str | None] | None = None,
) -> str:
    """Take an open event over and `act` on it. Returns why nothing was done, empty if `act` was done.

    `act` returns False if the event was lost again: another order, or the end of its own stage, was faster.
    `refusal` says why nothing is to be done with an event that awaits no approval. One that was approved meanwhile is
    not taken over: a run may be changing its batches.

    :raises Unavailable: if other runs take the event over each time.
    """
    for _ in range(MAX_TAKE_OVERS):
        event = parts.events.read([mid]).get(mid)
        if event is None:
            rejected = parts.events.rejected([mid])
            return f"is {EventState.REJECTED} already" if rejected else "is not in the ledger"
        if event.final:
            return f"is {event.state} already"
        if refusal and (refused := refusal(event)):
            return refused
        claimed = parts.queue.take_over(mid, run_id=run_id, awaiting=refusal is not None)
        if claimed and act(claimed):
            return ""
    raise Unavailable("queue", f"other runs keep claiming event {mid}; nothing was done about it")


def _freed(mid: str, queued: Sequence[QueuedEvent]) -> str:
    """Of an event that has ended: the events of the queue that waited for it alone or first of all, for its note."""
    now = now_ms()
    kept = [e._replace(holder=mid, lease_expires_ms=now + 1) if e.mid == mid else e for e in queued]
    choice = choose(kept, run_id="", now_ms=now, judged_ms=now, grace_ms=0, limit=len(queued), patient=False)
    blocked = sorted(m for m, wait in choice.waits.items() if wait == Wait(WaitKind.BLOCKED, mid))
    return f"; it blocked {', '.join(blocked)}" if blocked else ""
