"""What an operator orders beside transfers: approve, decline, abandon, redrive, execute a plan, undo.

Each order is answered in words for people, by the mid that it names.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping, Sequence
from datetime import datetime
from typing import Any, NamedTuple

import structlog

from ownership.domain.clock import HOUR_MS, now_ms, to_ms
from ownership.domain.conf import (
    MAX_EVENTS,
    Abandon,
    Approve,
    ConfError,
    DeadLetters,
    Decline,
    ExecutePlan,
    Orders,
    Redrive,
    Undo,
    apply_merge_patch,
    request_fields,
)
from ownership.domain.contracts import PlanSummary
from ownership.domain.decoding import decode
from ownership.domain.errors import Poison, Unavailable
from ownership.domain.event import check_shape, folded, manual_event, with_follow_ups
from ownership.domain.options import Options, Request
from ownership.domain.plan_report import escaped, markdown
from ownership.domain.queue import ClaimedEvent, QueuedEvent, Wait, WaitKind, choose
from ownership.domain.states import EventState
from ownership.ledger.events import EventRow
from ownership.platform.kafka import Message, Span, Topic
from ownership.stages.parts import Parts
from ownership.stages.update import settle_undecided

log = structlog.get_logger(__name__)

MAX_TAKE_OVERS = 20
"""Tries to act on an event that other runs take over meanwhile."""
MAX_HOURS = 24 * 400
"""Longest time range of an order, in hours."""


class Ordered(NamedTuple):
    """What came of orders."""

    requests: Sequence[Request] = ()
    """New events to queue."""
    notes: Mapping[str, str] = {}
    """What became of each event or dead letter that was named."""

    def __or__(self, other: Ordered) -> Ordered:
        """Both together."""
        return Ordered([*self.requests, *other.requests], {**self.notes, **other.notes})


def carry_out(
    parts: Parts, orders: Orders, *, run_id: str, at_ms: int, by: str, dead_letters: Topic | None
) -> Ordered:
    """Do what was ordered. `by` started the run; `dead_letters` is the dead-letter topic, None if out of reach.

    Repeating an order of the same run changes nothing more.

    :raises ConfError: for an order that contradicts the ledger.
    """
    done = Ordered()
    if orders.approve:
        done |= Ordered(notes={orders.approve.mid: approve(parts, orders.approve, run_id=run_id, by=by)})
    if orders.decline:
        done |= Ordered(notes={orders.decline.mid: decline(parts, orders.decline, run_id=run_id, by=by)})
    if orders.abandon:
        done |= Ordered(notes=abandon(parts, orders.abandon, run_id=run_id))
    if orders.redrive:
        done |= redrive(parts, orders.redrive, run_id=run_id, at_ms=at_ms, dead_letters=dead_letters)
    if orders.execute:
        done |= execute_plan(parts, orders.execute, run_id=run_id, at_ms=at_ms, by=by)
    if orders.undo:
        done |= undo(parts, orders.undo, run_id=run_id, at_ms=at_ms, by=by)
    return done


def abandon(parts: Parts, order: Abandon, *, run_id: str) -> dict[str, str]:
    """End open events for good. Returns by mid what became of each, with the events that it frees.

    The event is taken over first, even from a live holder: its stage finds the claim lost before its next
    write. What it moved until then stays moved, and is in the audit trail.
    """
    notes: dict[str, str] = {}
    queued = parts.queue.read()
    for mid in order.mids:
        notes[mid] = _end_event(
            parts,
            queued,
            mid,
            run_id,
            lambda event: parts.events.abandon(event, f"abandoned: {order.reason}"),
            "abandoned",
        )
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
        parts,
        order.mid,
        run_id,
        lambda event: parts.events.approve(event, order.digest, by),
        refusal=refusal,
    )
    note = refused or f"was approved by {by}"
    log.warning("transfer approved", mid=order.mid, run_id=run_id, by=by, outcome=note)
    return note


def decline(parts: Parts, order: Decline, *, run_id: str, by: str) -> str:
    """End a transfer that waits for its approval. Returns what became of it."""
    by = order.by or by
    note = _end_event(
        parts,
        parts.queue.read(),
        order.mid,
        run_id,
        lambda event: parts.events.decline(event, f"declined by {by}: {order.reason}"),
        f"declined by {by}",
        refusal=_awaits_nothing,
    )
    log.warning("transfer declined", mid=order.mid, run_id=run_id, by=by, why=order.reason, outcome=note)
    return note


def awaits_a_question(parts: Parts, asks: Callable[[str], bool]) -> bool:
    """True if a transfer awaits an approval that no run asks for; `asks` says whether a run still does."""
    return any(run is None or not asks(run) for run in parts.events.asking_runs())


def questions(parts: Parts, *, run_id: str, asks: Callable[[str], bool], limit: int) -> list[dict[str, Any]]:
    """What `run_id` asks people: a question for each transfer that awaits an approval which no run asks for yet.

    `asks` says whether another run still asks: it may have ended, or been deleted, before it was answered. At most
    `limit` questions are returned; another run asks the rest.
    """
    now = now_ms()
    gone = {run for run in parts.events.asking_runs() if run and run != run_id and not asks(run)}
    found = []
    for event in parts.events.to_be_asked(run_id, gone=gone, limit=limit):
        if not event.report:
            continue
        plan = PlanSummary.model_validate_json(event.report)
        users = f"{event.transfer.from_user} → {event.transfer.to_user}"
        asked_for = escaped(
            f"Requested by {event.requested_by or 'an unnamed person'}: {event.request_reason or 'no reason given'}."
        )
        found.append(
            {
                "mid": event.mid,
                "digest": event.digest,
                "label": users[:200],
                "subject": f"Approve: {plan.batches} course batches, {users}",
                "body": f"{asked_for}\n\n{markdown(plan)}",
                "seconds": (event.awaits_until_ms - now) // 1000,
            }
        )
    return found


def _awaits_nothing(event: EventRow) -> str | None:
    return None if event.state == EventState.AWAITING_APPROVAL else f"is {event.state} and awaits no approval"


def _end_event(
    parts: Parts,
    queued: Sequence[QueuedEvent],
    mid: str,
    run_id: str,
    end: Callable[[ClaimedEvent], bool],
    outcome: str,
    *,
    refusal: Callable[[EventRow], str | None] | None = None,
) -> str:
    """End an open event for good. Returns what became of it, with the events of `queued` that it blocked."""
    if refused := _act_on(parts, mid, run_id, end, refusal=refusal):
        return refused
    blocked = _blocked_by(mid, queued)
    return f"was {outcome}; it blocked {', '.join(blocked)}" if blocked else f"was {outcome}"


def _act_on(
    parts: Parts,
    mid: str,
    run_id: str,
    act: Callable[[ClaimedEvent], bool],
    *,
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
        claimed = parts.events.take_over(mid, run_id=run_id, awaiting=refusal is not None)
        if claimed and act(claimed):
            return ""
    raise Unavailable("queue", f"other runs keep claiming event {mid}; nothing was done about it")


def _blocked_by(mid: str, queued: Sequence[QueuedEvent]) -> list[str]:
    """Mids of the events that wait for `mid` alone or first of all."""
    now = now_ms()
    kept = [e._replace(holder=mid, lease_expires_ms=now + 1) if e.mid == mid else e for e in queued]
    choice = choose(kept, run_id="", now_ms=now, judged_ms=now, grace_ms=0, limit=len(queued), patient=False)
    return sorted(m for m, wait in choice.waits.items() if wait == Wait(WaitKind.BLOCKED, mid))


def redrive(
    parts: Parts, order: Redrive, *, run_id: str, at_ms: int, dead_letters: Topic | None = None
) -> Ordered:
    """New events for skipped ones and for dead letters; failed ones are in the queue, and this run tries them.

    :raises ConfError: if the order names too many, or offsets that the topic does not have.
    """
    if order.dead_letters:
        return _put_back(order.dead_letters, dead_letters, run_id=run_id, at_ms=at_ms)
    mids: Sequence[str] = order.mids
    if order.states:
        start = _ms(order.since)
        found = parts.events.of_window(
            start, _end(start, order.until, at_ms), [*map(EventState, order.states)]
        )
        mids = [e.mid for events in found for e in events]
        _bounded(mids, "redrive")
    rows = parts.events.read(mids)
    rejected = parts.events.rejected([m for m in mids if m not in rows])
    bodies = parts.events.bodies([m for m, row in rows.items() if row.state == EventState.SKIPPED])
    requests: list[Request] = []
    notes: dict[str, str] = {}
    for n, mid in enumerate(mids):
        row = rows.get(mid)
        if message := rejected.get(mid):
            advice = (
                f"put its dead letter back, mended: {message.next_conf}"
                if message.next_conf
                else "give it mended in `events`"
            )
            notes[mid] = f"is rejected: {advice}"
        elif row is None:
            notes[mid] = "is not in the ledger"
        elif not row.final:
            notes[mid] = f"is {row.state}, and is tried by this run if nothing blocks it"
        elif row.state != EventState.SKIPPED:
            notes[mid] = f"is {row.state} already; only failed and skipped events can be redriven"
        else:
            new = f"redrive:{run_id}:{n}"
            notes[mid] = f"is tried again as {new}"
            requests.append(_again(row, bodies.get(mid), new, at_ms, row.options, redrive_of=mid))
    return Ordered(requests, notes)


def _put_back(order: DeadLetters, dead_letters: Topic | None, *, run_id: str, at_ms: int) -> Ordered:
    if dead_letters is None:
        raise Unavailable("Kafka", "the dead-letter topic cannot be read, so nothing was put back")
    low, high = dead_letters.bounds(order.partition)
    if not low <= order.from_offset <= order.to_offset < high:
        raise ConfError(
            f"redrive: dead_letters: partition {order.partition} of '{dead_letters.name}' has the offsets "
            f"{low} to {high - 1}."
        )
    requests: list[Request] = []
    notes: dict[str, str] = {}
    span = Span(order.partition, order.from_offset, order.to_offset + 1)
    for message in dead_letters.read([span]):
        name, new = f"dead letter {message.partition}:{message.offset}", f"redrive:{run_id}:{message.offset}"
        try:
            requests.append(_mended(message, order.merge_patch, new, at_ms))
            notes[name] = f"is tried as {new}"
        except Poison as e:
            notes[name] = f"is no event yet: {e}"
    return Ordered(requests, notes)


def _mended(message: Message, merge_patch: Mapping[str, Any], mid: str, at_ms: int) -> Request:
    headers = message.headers
    if "truncated" in headers:
        raise Poison("it was cut for its size; send the whole event in `events`")
    try:
        value = decode(message.value)
    except Poison:
        if not merge_patch:
            raise
        value = None
    value = apply_merge_patch(value, merge_patch) if merge_patch else value
    check_shape(value)
    place = ":".join(headers.get(k, "") for k in ("topic", "partition", "offset"))
    envelope = {**value, "mid": mid, "ets": at_ms, "redrive_of": f"rejected:{place}"}
    try:
        return Request.of(envelope)
    except RecursionError:
        raise Poison("the JSON is nested too deeply") from None


def execute_plan(parts: Parts, order: ExecutePlan, *, run_id: str, at_ms: int, by: str) -> Ordered:
    """The event that applies the plan of a dry run.

    :raises ConfError: if there is no such plan, or it is not the one that was looked at.
    """
    mid = order.execute_plan
    row = parts.events.read([mid]).get(mid)
    if row is None:
        state = (
            f"is {EventState.REJECTED}, and no dry run with a plan"
            if parts.events.rejected([mid])
            else "is not in the ledger"
        )
        raise ConfError(f"execute_plan: event {mid} {state}.")
    if row.state != EventState.REHEARSED:
        raise ConfError(f"execute_plan: event {mid} is {row.state}, and no dry run with a plan.")
    if row.digest != order.digest:
        raise ConfError(f"digest: is not that of the plan of {mid}, which is {row.digest}.")
    new = f"execute:{run_id}"
    options = row.options.to_be_executed(mid, order.digest)
    asked_for = request_fields(order.reason, order.requested_by or by)
    body = parts.events.bodies([mid]).get(mid)
    request = _again(row, body, new, at_ms, options, asked_for=asked_for, plan_of=mid)
    return Ordered([request], {mid: f"is applied as {new}"})


def undo(parts: Parts, order: Undo, *, run_id: str, at_ms: int, by: str) -> Ordered:
    """Events that take back what others changed, the newest first.

    :raises ConfError: if the order names too many.
    """
    mids: Collection[str] = order.mids or _chosen(parts, order, at_ms)
    # What a transfer's second proof found belongs to it.
    rows = parts.events.read({one for m in mids for one in with_follow_ups(m)})
    _bounded(rows, "undo")
    rejected = parts.events.rejected([m for m in mids if m not in rows])
    notes = {m: "was no transfer" if m in rejected else "is not in the ledger" for m in mids if m not in rows}
    # A process that died after its writes, and an event that was abandoned then, left images without an outcome.
    settle_undecided(parts, parts.changes.undecided([m for m, row in rows.items() if row.final]))
    made = parts.changes.made(rows)
    by_age = sorted(rows.values(), key=lambda r: r.transfer.key)
    requests: list[Request] = []
    for row in reversed(by_age):
        if not row.final:
            notes[row.mid] = f"is {row.state}: abandon it first"
            continue
        if row.mid not in made:
            notes[row.mid] = f"is {row.state} and changed nothing"
            continue
        new = f"undo:{run_id}:{len(requests)}"
        notes[row.mid] = f"is {'rehearsed' if order.dry_run else 'taken back'} as {new}"
        requests.append(_undo_request(row, new, at_ms, order, by))
    return Ordered(requests, notes)


def _chosen(parts: Parts, order: Undo, at_ms: int) -> list[str]:
    """The transfers that the order describes, without those that are undos themselves."""
    if order.run_id:
        return [e.mid for e in parts.events.of_run(order.run_id)]
    start = _ms(order.since)
    found = parts.events.of_users(
        folded(order.from_user) if order.from_user else None,
        folded(order.to_user) if order.to_user else None,
        start,
        _end(start, order.until, at_ms),
    )
    return [e.mid for e in found if e.options.undo_of is None]


def _undo_request(row: EventRow, mid: str, at_ms: int, order: Undo, by: str) -> Request:
    envelope = manual_event(
        mid=mid,
        ets=at_ms,
        from_user=row.transfer.to_user,
        to_user=row.transfer.from_user,
        organisation_id=row.organisation_id or "",
        **request_fields(order.reason, order.requested_by or by),
    )
    envelope["undo_of"] = row.mid
    options = Options(undo_of=row.mid, dry_run=order.dry_run)
    return Request.of(envelope, options)


def _again(
    row: EventRow,
    body: bytes | None,
    mid: str,
    at_ms: int,
    options: Options,
    *,
    asked_for: Mapping[str, Any] | None = None,
    **marks: str,
) -> Request:
    """An event of the ledger as a new one; `body` is its message, None if that was erased."""
    if body is None:
        raise ConfError(f"The message of event {row.mid} was erased: give the transfer itself, in `events`.")
    try:
        envelope = {**decode(body), "mid": mid, "ets": at_ms, **marks}
        if asked_for:
            envelope["edata"] = {**envelope["edata"], **asked_for}
        return Request.of(envelope, options)
    except Poison as e:  # the mid and the marks have made it too large
        raise ConfError(f"Event {row.mid} cannot be given again: {e}.") from None


def _bounded(mids: Collection[str], what: str) -> None:
    if len(mids) > MAX_EVENTS:
        raise ConfError(f"{what}: {len(mids)} events are meant, at most {MAX_EVENTS} go into one run.")


def _end(start_ms: int, until: datetime | None, at_ms: int) -> int:
    end = _ms(until) if until else max(at_ms, now_ms()) + 1
    if end - start_ms > MAX_HOURS * HOUR_MS:
        raise ConfError(f"since: is more than {MAX_HOURS // 24} days before the end; narrow the range.")
    return end


def _ms(at: datetime | None) -> int:
    return to_ms(at) if at else now_ms()
