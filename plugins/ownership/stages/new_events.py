"""New events out of old ones: redrive, execute a plan, undo.

Their mids follow from the run's id, so a repeated order brings the same events again. What becomes of each event that
an order names is said in words, for people.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from datetime import datetime
from typing import Any, NamedTuple

from ownership.domain.clock import DAY_MS, now_ms, to_ms
from ownership.domain.conf import (
    MAX_EVENTS,
    ConfError,
    DeadLetters,
    ExecutePlan,
    Redrive,
    Undo,
    apply_merge_patch,
    request_fields,
)
from ownership.domain.decoding import decode
from ownership.domain.errors import Poison, Unavailable
from ownership.domain.event import check_shape, folded, follow_ups, manual_event
from ownership.domain.options import Options, Request
from ownership.domain.states import EventState
from ownership.ledger.events import EventRow, RejectedMessage
from ownership.platform.kafka import Message, Span, Topic
from ownership.stages.parts import Parts
from ownership.stages.update import settle_undecided

MAX_DAYS = 400
"""Longest time range of an order."""


class Ordered(NamedTuple):
    """What came of orders."""

    notes: Mapping[str, str]
    """What became of each event or dead letter that was named."""
    requests: Sequence[Request] = ()
    """New events to queue."""
    refused: Collection[str] = ()
    """Those of `notes` with which nothing was done, and something should have been."""

    def __or__(self, other: Ordered) -> Ordered:
        """Both together."""
        return Ordered(
            {**self.notes, **other.notes},
            [*self.requests, *other.requests],
            {*self.refused, *other.refused},
        )


def redrive(parts: Parts, order: Redrive, *, run_id: str, at_ms: int, dead_letters: Topic | None) -> Ordered:
    """New events for skipped ones and for dead letters; failed ones are in the queue, and this run tries them.

    :raises ConfError: if the order names too many, or offsets that the topic does not have.
    """
    if order.dead_letters:
        return _put_back(order.dead_letters, dead_letters, run_id=run_id, at_ms=at_ms)
    mids: Sequence[str] = order.mids
    if order.since:
        start_ms, end_ms = _range(order.since, order.until, at_ms)
        found = parts.events.of_window(start_ms, end_ms, [*map(EventState, order.states)])
        mids = [e.mid for events in found for e in events]
        if not mids:
            what = f"event that is {' or '.join(order.states)} and was sent {_when(order)}"
            return _nothing("redrive", f"{what}: look at the states and the time")
        _bounded(mids, "redrive")
    rows = parts.events.read(mids)
    rejected = parts.events.rejected([m for m in mids if m not in rows])
    bodies = parts.events.bodies([m for m, row in rows.items() if row.state == EventState.SKIPPED])
    requests: list[Request] = []
    notes: dict[str, str] = {}
    for n, mid in enumerate(mids):
        row = rows.get(mid)
        if mid in rejected or row is None or row.state != EventState.SKIPPED:
            notes[mid] = _why_not_redriven(row, rejected.get(mid))
            continue
        new = f"redrive:{run_id}:{n}"
        notes[mid] = f"is tried again as {new}"
        requests.append(_again(row, bodies.get(mid), new, at_ms, row.options, redrive_of=mid))
    return Ordered(notes, requests)


def _why_not_redriven(row: EventRow | None, rejected: RejectedMessage | None) -> str:
    """What becomes of a mid that was ordered and is no skipped event."""
    if rejected:
        conf = rejected.next_conf
        advice = f"put its dead letter back, mended: {conf}" if conf else "give it mended in `events`"
        return f"is rejected: {advice}"
    if row is None:
        return "is not in the ledger"
    if not row.final:
        return f"is {row.state}, and is tried by this run if nothing blocks it"
    return f"is {row.state} already; only failed and skipped events can be redriven"


def _put_back(order: DeadLetters, dead_letters: Topic | None, *, run_id: str, at_ms: int) -> Ordered:
    if dead_letters is None:
        raise Unavailable("Kafka", "the dead-letter topic cannot be read, so nothing was put back")
    if order.partition not in dead_letters.partitions():
        raise ConfError(f"redrive: dead_letters: '{dead_letters.name}' has no partition {order.partition}.")
    low, high = dead_letters.bounds(order.partition)
    if not low <= order.from_offset <= order.to_offset < high:
        raise ConfError(
            f"redrive: dead_letters: partition {order.partition} of '{dead_letters.name}' has the offsets "
            f"{low} to {high - 1}."
        )
    requests: list[Request] = []
    notes: dict[str, str] = {}
    refused: set[str] = set()
    span = Span(order.partition, order.from_offset, order.to_offset + 1)
    for message in dead_letters.read([span]):
        name, new = f"dead letter {message.partition}:{message.offset}", f"redrive:{run_id}:{message.offset}"
        try:
            requests.append(_mended(message, order.merge_patch, new, at_ms))
            notes[name] = f"is tried as {new}"
        except Poison as e:
            notes[name] = f"is no event yet: {e}"
            refused.add(name)
    if not notes:
        raise ConfError(
            f"redrive: dead_letters: partition {order.partition} has no message at these offsets."
        )
    return Ordered(notes, requests, refused)


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
        rejected = parts.events.rejected([mid])
        why = "is rejected, and no dry run with a plan" if rejected else "is not in the ledger"
        raise ConfError(f"execute_plan: event {mid} {why}.")
    if row.state != EventState.REHEARSED:
        raise ConfError(f"execute_plan: event {mid} is {row.state}, and no dry run with a plan.")
    if row.digest != order.digest:
        raise ConfError(f"digest: is not that of the plan of {mid}, which is {row.digest}.")
    new = f"execute:{run_id}"
    options = row.options.to_be_executed(mid, order.digest)
    asked_for = request_fields(order.reason, order.requested_by or by)
    body = parts.events.bodies([mid]).get(mid)
    request = _again(row, body, new, at_ms, options, asked_for=asked_for, plan_of=mid)
    return Ordered({mid: f"is applied as {new}"}, [request])


def undo(parts: Parts, order: Undo, *, run_id: str, at_ms: int, by: str) -> Ordered:
    """Events that take back what others changed, the newest first.

    :raises ConfError: if the order names too many.
    """
    mids: Collection[str] = order.mids or _chosen(parts, order, at_ms)
    if not mids:
        return _nothing("undo", _not_found(order))
    # What a transfer's second proof found belongs to it.
    rows = parts.events.read({one for m in mids for one in (m, *follow_ups(m))})
    _bounded(rows, "undo")
    rejected = parts.events.rejected([m for m in mids if m not in rows])
    notes = {m: "was no transfer" if m in rejected else "is not in the ledger" for m in mids if m not in rows}
    # A process that died after its writes, and an event that was abandoned then, left images without an outcome.
    settle_undecided(parts, [m for m, row in rows.items() if row.final])
    made = parts.changes.made(rows)
    by_age = sorted(rows.values(), key=lambda r: r.transfer.key)
    requests: list[Request] = []
    refused: set[str] = set()
    # A number is a place among all that are meant: an order that comes again, when one more of them is final, gives each
    # of the others its mid again.
    for n, row in reversed([*enumerate(by_age)]):
        if not row.final:
            notes[row.mid] = f"is {row.state}: abandon it first"
            refused.add(row.mid)
        elif row.mid not in made:
            notes[row.mid] = f"is {row.state} and changed nothing"
        else:
            new = f"undo:{run_id}:{n}"
            notes[row.mid] = f"is {'rehearsed' if order.dry_run else 'taken back'} as {new}"
            requests.append(_undo_request(row, new, at_ms, order, by))
    return Ordered(notes, requests, refused)


def _chosen(parts: Parts, order: Undo, at_ms: int) -> list[str]:
    """The transfers that the order describes, without those that are undos themselves."""
    if order.since:
        source, target = (folded(user) if user else None for user in (order.from_user, order.to_user))
        found = parts.events.of_users(source, target, *_range(order.since, order.until, at_ms))
        return [e.mid for e in found if e.options.undo_of is None]
    return [e.mid for e in parts.events.of_run(order.run_id or "")]


def _not_found(order: Undo) -> str:
    """What an order describes that found nothing, and what to look at."""
    if order.run_id:
        return f"transfer that run {order.run_id!r} was the last to carry out: look at the run's id"
    users = "".join(f" {word} {u!r}" for word, u in (("from", order.from_user), ("to", order.to_user)) if u)
    return f"transfer{users} {_when(order)}, apart from undos: look at the users and the time"


def _undo_request(row: EventRow, mid: str, at_ms: int, order: Undo, by: str) -> Request:
    envelope = manual_event(
        mid=mid,
        ets=at_ms,
        from_user=row.transfer.to_user,
        to_user=row.transfer.from_user,
        organisation_id=row.organisation_id or "",
        **request_fields(order.reason, order.requested_by or by),
    )
    options = Options(undo_of=row.mid, dry_run=order.dry_run)
    return Request.of({**envelope, "undo_of": row.mid}, options)


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


def _nothing(order: str, what: str) -> Ordered:
    """The outcome of an order that describes events of which there are none."""
    return Ordered({order: f"found no {what}, or give mids"}, refused={order})


def _when(order: Redrive | Undo) -> str:
    since, until = (at.isoformat() if at else "now" for at in (order.since, order.until))
    return f"since {since} and before {until}"


def _bounded(mids: Collection[str], what: str) -> None:
    if len(mids) > MAX_EVENTS:
        raise ConfError(f"{what}: {len(mids)} events are meant, at most {MAX_EVENTS} go into one run.")


def _range(since: datetime, until: datetime | None, at_ms: int) -> tuple[int, int]:
    """The time that an order means, epoch ms: up to now, where it does not say. `at_ms` is the run's time."""
    start_ms, end_ms = to_ms(since), to_ms(until) if until else max(at_ms, now_ms()) + 1
    if end_ms - start_ms > MAX_DAYS * DAY_MS:
        raise ConfError(f"since: is more than {MAX_DAYS} days before the end; narrow the range.")
    return start_ms, end_ms
