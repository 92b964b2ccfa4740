"""What an operator orders beside transfers: approve, decline, abandon, redrive, execute a plan, undo."""

from __future__ import annotations

import json
from collections.abc import Callable, Collection, Mapping, Sequence
from datetime import UTC, datetime
from typing import Any, NamedTuple

import structlog

from ownership.conf import (
    MOST_EVENTS,
    Abandon,
    Approve,
    ConfError,
    DeadLetters,
    Decline,
    ExecutePlan,
    Orders,
    Redrive,
    Undo,
    asked,
    merged,
)
from ownership.contracts import PlanTold
from ownership.errors import Poison, Unavailable
from ownership.events import event_from, folded, manual_event, with_follow_ups
from ownership.ledger import EventRow
from ownership.open_list import Held, OpenRow, choose
from ownership.options import PLAIN, Options, Request
from ownership.parts import Parts, now_ms
from ownership.plan import MOVED
from ownership.plan_report import escaped, markdown
from ownership.states import AWAITING_APPROVAL, REHEARSED, REJECTED, SKIPPED
from ownership.topic import Message, Span, Topic

log = structlog.get_logger(__name__)

_ROUNDS = 20
MOST_HOURS = 24 * 400
"""Longest time range of an order, in hours: each is a partition to look at."""


class Ordered(NamedTuple):
    """What became of the orders: new events to queue, and a sentence by mid."""

    requests: list[Request]
    told: dict[str, str]


def carry_out(
    parts: Parts, orders: Orders, *, run_id: str, at_ms: int, by: str, letters: Topic | None
) -> Ordered:
    """Do what was ordered. `by` started the run; `letters` is the dead-letter topic, None if out of reach.

    Repeating an order of the same run changes nothing more.

    :raises ConfError: for an order that contradicts the ledger.
    """
    requests: list[Request] = []
    told: dict[str, str] = {}
    if orders.approve:
        told[orders.approve.mid] = approve(parts, orders.approve, run_id=run_id, by=by)
    if orders.decline:
        told[orders.decline.mid] = decline(parts, orders.decline, run_id=run_id, by=by)
    if orders.abandon:
        told |= abandon(parts, orders.abandon, run_id=run_id)
    found: list[Ordered] = []
    if orders.redrive:
        found.append(redriven(parts, orders.redrive, run_id=run_id, at_ms=at_ms, letters=letters))
    if orders.execute:
        found.append(executed(parts, orders.execute, run_id=run_id, at_ms=at_ms, by=by))
    if orders.undo:
        found.append(undone(parts, orders.undo, run_id=run_id, at_ms=at_ms, by=by))
    for some in found:
        requests += some.requests
        told |= some.told
    return Ordered(requests, told)


def abandon(parts: Parts, order: Abandon, *, run_id: str) -> dict[str, str]:
    """End open events for good. Returns by mid what became of each, with the events that it frees.

    The event is taken over first, even from a live holder: its stage finds the claim lost before its next
    write. What it moved until then stays moved, and is in the audit trail.
    """
    told: dict[str, str] = {}
    for mid in order.mids:
        told[mid] = _ended(
            parts,
            mid,
            run_id,
            lambda held: parts.ledger.abandon(held, f"abandoned: {order.reason}"),
            "abandoned",
        )
        log.warning("transfer abandoned", mid=mid, run_id=run_id, why=order.reason, outcome=told[mid])
    return told


def approve(parts: Parts, order: Approve, *, run_id: str, by: str) -> str:
    """Let a transfer go on with the plan that it waits with.

    :raises ConfError: if the digest is not that plan's.
    """
    by = order.by or by

    def awaits(event: EventRow, row: OpenRow) -> str | None:
        if told := _awaits_none(event, row):
            return told
        if event.digest != order.digest:
            raise ConfError(
                f"approve: digest: is not that of the plan of {order.mid}, which is {event.digest}; look at it again."
            )
        return None

    def go_on(held: Held) -> bool:
        if not parts.ledger.approve(held, order.digest, by):
            return False
        parts.open_list.unpark(held)
        return True

    outcome = _taken(parts, order.mid, run_id, go_on, unless=awaits)
    told = outcome if isinstance(outcome, str) else f"was approved by {by}"
    log.warning("transfer approved", mid=order.mid, run_id=run_id, by=by, outcome=told)
    return told


def decline(parts: Parts, order: Decline, *, run_id: str, by: str) -> str:
    """End a transfer that waits for its approval."""
    by = order.by or by
    told = _ended(
        parts,
        order.mid,
        run_id,
        lambda held: parts.ledger.decline(held, f"declined by {by}: {order.reason}"),
        f"declined by {by}",
        unless=_awaits_none,
    )
    log.warning("transfer declined", mid=order.mid, run_id=run_id, by=by, why=order.reason, outcome=told)
    return told


def questions(parts: Parts, *, run_id: str) -> list[dict[str, Any]]:
    """What `run_id` asks people: a question for each transfer that awaits an approval nobody asks for yet."""
    waiting = [r for r in parts.open_list.read()[1] if r.awaits and not r.done]
    now = now_ms()
    found = []
    for event in parts.ledger.to_be_asked([r.transfer.mid for r in waiting], run_id):
        if not event.report or not event.transfer:
            continue
        plan = PlanTold.model_validate_json(event.report)
        users = f"{event.transfer.from_user} → {event.transfer.to_user}"
        asked_for = escaped(
            f"Requested by {event.requested_by or 'nobody named'}: {event.request_reason or 'no reason given'}."
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


def _awaits_none(event: EventRow, row: OpenRow) -> str | None:
    # A run that died just after it wrote an approval has left the event in its place.
    if event.state == AWAITING_APPROVAL or row.awaits:
        return None
    return f"is {event.state} and awaits no approval"


def _ended(
    parts: Parts,
    mid: str,
    run_id: str,
    end: Callable[[Held], bool],
    word: str,
    *,
    unless: Callable[[EventRow, OpenRow], str | None] | None = None,
) -> str:
    """End an open event for good; what is told of it, with the events that it blocked."""

    def ended(held: Held) -> bool:
        if not end(held):
            return False
        parts.open_list.remove([held])
        return True

    outcome = _taken(parts, mid, run_id, ended, unless=unless)
    if isinstance(outcome, str):
        return outcome
    freed = _blocked_by(mid, outcome)
    return f"was {word}; it blocked {', '.join(freed)}" if freed else f"was {word}"


def _taken(
    parts: Parts,
    mid: str,
    run_id: str,
    act: Callable[[Held], bool],
    *,
    unless: Callable[[EventRow, OpenRow], str | None] | None = None,
) -> str | list[OpenRow]:
    """Take an open event over and `act` on it. Returns the queue as it was, or why nothing was done.

    `act` answers False if the event was lost again. `unless` says why nothing is to be done with it.
    """
    for _ in range(_ROUNDS):
        event = parts.ledger.read([mid]).get(mid)
        if event is None:
            return "is not in the ledger"
        if event.final:
            return f"is {event.state} already"
        version, rows = parts.open_list.read()
        row = next((r for r in rows if r.transfer.mid == mid), None)
        if row is None or row.done:
            return "is just being completed"
        if unless and (why := unless(event, row)):
            return why
        taken = parts.open_list.claim([row], version, run_id=run_id, lives_ms=60_000)
        if taken and act(taken[0]):
            return rows
    raise Unavailable("open list", f"others keep changing it; nothing was done about event {mid}")


def _blocked_by(mid: str, rows: Sequence[OpenRow]) -> list[str]:
    """Mids of the events that wait for `mid` alone or first of all."""
    standing = [r._replace(done=True) if r.transfer.mid == mid else r for r in rows]
    now = now_ms()
    choice = choose(
        standing, run_id="", now_ms=now, judged_ms=now, grace_ms=0, most=len(rows), patient=False
    )  # fmt: skip
    return sorted(m for m, why in choice.waits.items() if why == f"waits for {mid}")


def redriven(
    parts: Parts, order: Redrive, *, run_id: str, at_ms: int, letters: Topic | None = None
) -> Ordered:
    """New events for skipped ones and for dead letters; the failed ones this run tries anyhow.

    :raises ConfError: if the order names too many, or offsets that the topic does not have.
    """
    if order.dead_letters:
        return _put_back(order.dead_letters, letters, run_id=run_id, at_ms=at_ms)
    mids: Sequence[str] = order.mids
    if order.states:
        start = _ms(order.since)
        rows = parts.ledger.read(parts.ledger.of_hours(start, _end(start, order.until, at_ms)))
        mids = [m for m, e in rows.items() if e.state in order.states]
        _bounded(mids, "redrive")
    rows = parts.ledger.read(mids)
    requests: list[Request] = []
    told: dict[str, str] = {}
    for n, mid in enumerate(mids):
        row = rows.get(mid)
        if row is None:
            told[mid] = "is not in the ledger"
        elif not row.final:
            told[mid] = f"is {row.state}, and is tried by this run if nothing blocks it"
        elif row.state == REJECTED:
            how = (
                f"put its dead letter back, mended: {row.next_conf}"
                if row.next_conf
                else "give it mended in `events`"
            )
            told[mid] = f"is rejected: {how}"
        elif row.state != SKIPPED:
            told[mid] = f"is {row.state} already; only failed and skipped events can be redriven"
        else:
            new = f"redrive:{run_id}:{n}"
            told[mid] = f"is tried again as {new}"
            requests.append(_again(row, new, at_ms, row.options, redrive_of=mid))
    return Ordered(requests, told)


def _put_back(order: DeadLetters, letters: Topic | None, *, run_id: str, at_ms: int) -> Ordered:
    if letters is None:
        raise Unavailable("Kafka", "the dead-letter topic cannot be read, so nothing was put back")
    low, high = letters.bounds(order.partition)
    if not low <= order.from_offset <= order.to_offset < high:
        raise ConfError(
            f"redrive: dead_letters: partition {order.partition} of '{letters.name}' has the offsets "
            f"{low} to {high - 1}."
        )
    requests: list[Request] = []
    told: dict[str, str] = {}
    span = Span(order.partition, order.from_offset, order.to_offset + 1)
    for message in letters.read([span]):
        name, new = f"dead letter {message.partition}:{message.offset}", f"redrive:{run_id}:{message.offset}"
        try:
            requests.append(_mended(message, order.mend, new, at_ms))
            told[name] = f"is tried as {new}"
        except Poison as e:
            told[name] = f"is no event yet: {e}"
    return Ordered(requests, told)


def _mended(message: Message, mend: Mapping[str, Any], mid: str, at_ms: int) -> Request:
    headers = message.headers
    if "truncated" in headers:
        raise Poison("it was cut for its size; send the whole event in `events`")
    try:
        value = json.loads(message.value) if message.value else None
    except (ValueError, RecursionError) as e:
        value = None
        if not mend:
            raise Poison(f"not JSON: {e}") from None
    value = merged(value, mend) if mend else value
    if not isinstance(value, dict):
        raise Poison("it is no JSON object; `mend` can give a whole event")
    came = ":".join(headers.get(k, "") for k in ("topic", "partition", "offset"))
    envelope = {**value, "mid": mid, "ets": at_ms, "redrive_of": f"rejected:{came}"}
    try:
        return Request(event_from(envelope), json.dumps(envelope, sort_keys=True).encode())
    except RecursionError:
        raise Poison("the JSON is nested too deeply") from None


def executed(parts: Parts, order: ExecutePlan, *, run_id: str, at_ms: int, by: str) -> Ordered:
    """The event that applies the plan of a dry run.

    :raises ConfError: if there is no such plan, or it is not the one that was looked at.
    """
    mid = order.execute_plan
    row = parts.ledger.read([mid]).get(mid)
    if row is None:
        raise ConfError(f"execute_plan: event {mid} is not in the ledger.")
    if row.state != REHEARSED:
        raise ConfError(f"execute_plan: event {mid} is {row.state}, and no dry run with a plan.")
    if row.digest != order.digest:
        raise ConfError(f"digest: is not that of the plan of {mid}, which is {row.digest}.")
    new = f"execute:{run_id}"
    options = row.options.to_be_executed(mid, order.digest)
    said = asked(order.reason, order.requested_by or by)
    return Ordered([_again(row, new, at_ms, options, said=said, plan_of=mid)], {mid: f"is applied as {new}"})


def undone(parts: Parts, order: Undo, *, run_id: str, at_ms: int, by: str) -> Ordered:
    """Events that take back what others changed, the newest first.

    :raises ConfError: if the order names too many.
    """
    mids: Collection[str] = order.mids or _chosen(parts, order, at_ms)
    # What a transfer's second proof found belongs to it.
    rows = parts.ledger.read({one for m in mids for one in with_follow_ups(m)})
    _bounded(rows, "undo")
    told: dict[str, str] = {m: "is not in the ledger" for m in mids if m not in rows}
    by_age = sorted(
        (r for r in rows.values() if r.transfer), key=lambda r: r.transfer.key if r.transfer else ()
    )
    requests: list[Request] = []
    for row in reversed(by_age):
        if not row.final:
            told[row.mid] = f"is {row.state}: abandon it first"
            continue
        if not _changed_something(parts, row):
            told[row.mid] = f"is {row.state} and changed nothing"
            continue
        new = f"undo:{run_id}:{len(requests)}"
        told[row.mid] = f"is {'rehearsed' if order.dry_run else 'taken back'} as {new}"
        requests.append(_undo(row, new, at_ms, order, by))
    told |= {m: "was no transfer" for m, r in rows.items() if r.transfer is None}
    return Ordered(requests, told)


def _chosen(parts: Parts, order: Undo, at_ms: int) -> list[str]:
    """The transfers that the order describes: not those that were undos themselves."""
    if order.run_id:
        rows = parts.ledger.read(parts.ledger.of_run(order.run_id))
        return [m for m, r in rows.items() if r.run_id == order.run_id]
    start = _ms(order.since)
    users = [folded(u) for u in (order.from_user, order.to_user) if u]
    rows = parts.ledger.read(parts.ledger.of_user(users[0], start, _end(start, order.until, at_ms)))
    wanted = [
        r
        for r in rows.values()
        if r.transfer
        and r.options.undo_of is None
        and (not order.from_user or r.transfer.source == folded(order.from_user))
        and (not order.to_user or r.transfer.target == folded(order.to_user))
    ]
    return [r.mid for r in wanted]


def _changed_something(parts: Parts, row: EventRow) -> bool:
    if row.counts:
        return row.state != REHEARSED and bool(row.counts.get(MOVED))
    # Abandoned half-way: what it moved is in its images only.
    return any(i.outcome is not None for i in parts.changes.read({row.mid: row.buckets})[1])


def _undo(row: EventRow, mid: str, at_ms: int, order: Undo, by: str) -> Request:
    assert row.transfer is not None  # noqa: S101  # only transfers get here
    envelope = manual_event(
        mid=mid,
        ets=at_ms,
        from_user=row.transfer.to_user,
        to_user=row.transfer.from_user,
        organisation_id=row.organisation_id or "",
        **asked(order.reason, order.requested_by or by),
    )
    envelope["undo_of"] = row.mid
    options = Options(undo_of=row.mid, dry_run=order.dry_run)
    return Request(event_from(envelope), json.dumps(envelope, sort_keys=True).encode(), options)


def _again(
    row: EventRow,
    mid: str,
    at_ms: int,
    options: Options = PLAIN,
    *,
    said: Mapping[str, Any] | None = None,
    **marks: str,
) -> Request:
    try:
        envelope = {**json.loads(row.payload), "mid": mid, "ets": at_ms, **marks}
        if said:
            envelope["edata"] = {**envelope["edata"], **said}
        return Request(event_from(envelope), json.dumps(envelope, sort_keys=True).encode(), options)
    except (ValueError, RecursionError, Poison) as e:  # it was read once: only a damaged ledger gets here
        raise Unavailable("ledger", f"the payload of event {row.mid} cannot be read: {e}") from None


def _bounded(mids: Collection[str], what: str) -> None:
    if len(mids) > MOST_EVENTS:
        raise ConfError(f"{what}: {len(mids)} events are meant, at most {MOST_EVENTS} go into one run.")


def _end(start_ms: int, until: datetime | None, at_ms: int) -> int:
    end = _ms(until) if until else max(at_ms, now_ms()) + 1
    if end - start_ms > MOST_HOURS * 3_600_000:
        raise ConfError(f"since: is more than {MOST_HOURS // 24} days before the end; narrow the range.")
    return end


def _ms(at: datetime | None) -> int:
    return int((at or datetime.now(UTC)).timestamp() * 1000)
