"""`pull_transfer_events`: accept what is there, claim what may be worked on, cut it into slices."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import NamedTuple

import structlog

from ownership.domain.clock import now_ms
from ownership.domain.conf import Orders
from ownership.domain.contracts import Pulled, Slice, packed
from ownership.domain.errors import Unavailable
from ownership.domain.lanes import label, lanes, pack
from ownership.domain.options import Request
from ownership.domain.queue import Choice, ClaimedEvent, QueuedEvent, choose
from ownership.ledger.arrivals import Consumed, message_digest
from ownership.platform.kafka import Message, Span, Topic
from ownership.stages.inbox import Accepted, Inbox
from ownership.stages.operate import Ordered, carry_out
from ownership.stages.parts import Parts
from ownership.stages.second_proof import second_proof

log = structlog.get_logger(__name__)

_WAITS_SHOWN = 20


@dataclass(frozen=True)
class Window:
    """A data interval, epoch ms: start <= t < end."""

    start_ms: int
    end_ms: int


@dataclass
class Order:
    """What a run is asked to pull."""

    run_id: str
    window: Window | None = None
    requests: list[Request] = field(default_factory=list)
    """Events that were given by hand."""
    at_ms: int = 0
    """Time of these events: the run's own, the same for every try."""
    orders: Orders = field(default_factory=Orders)
    """What else the run was asked to do."""
    patient: bool = True
    """Leave failed events alone until their next try is due; a run that a person or the clock
    started tries them now."""
    by: str = ""
    """Who started the run."""
    own_only: bool = False
    """Claim nothing but the run's own events."""

    @property
    def by_hand(self) -> bool:
        """True if it can be carried out without Kafka."""
        return bool(self.requests) or any(self.orders)


class Intake(NamedTuple):
    """Where events come from."""

    topic: Topic | None
    """None if Kafka is out of reach and the run can do without it."""
    inbox: Inbox
    dead_letters: Topic | None = None
    """The dead-letter topic."""
    missing: str = ""
    """Why there is no topic."""


class _CreatedAgain(Exception):
    """The topic has another message where the ledger has read one: it is another topic of the same name."""

    def __init__(self, partition: int) -> None:
        super().__init__(partition)
        self.partition = partition


def accept(topic: Topic, inbox: Inbox, window: Window | None) -> tuple[Accepted, int, dict[str, str]]:
    """Everything up to the watermarks into the ledger, then the offsets to Kafka, for its lag monitors.

    Returns what was accepted, the clock (epoch ms) taken before the watermarks were read, by which
    'old enough' is judged, and what is to be reported of a partition.
    """
    judged_ms = now_ms()
    consumed = inbox.consumed(topic.name)
    backlog = topic.backlog({p: c.next_offset for p, c in consumed.items()})
    if window:
        # A topic that was created again and has just as many messages as before shows no backlog.
        again = [
            s.partition for s in backlog if s.start == s.end and _differs(topic, consumed.get(s.partition))
        ]
        backlog = [_from_the_oldest(topic, s) if s.partition in again else s for s in backlog]
    while True:
        if starts := {s.partition: s.start for s in backlog if s.created_again}:
            inbox.restart(topic.name, starts)
        topic.claim_offsets(backlog)
        try:
            accepted = inbox.accept(_messages(topic, backlog, consumed))
            break
        except _CreatedAgain as e:
            backlog = [_from_the_oldest(topic, s) if s.partition == e.partition else s for s in backlog]
    # Of the others, too: a ledger that is restored from a backup must not follow the group past what it has.
    inbox.advance([Consumed(topic.name, s.partition, s.end) for s in backlog if s.partition not in consumed])
    topic.commit(backlog)
    if window:
        # Messages of the interval below the offsets: new only if the ledger lost them.
        below = topic.read(_below(topic.since(window.start_ms), backlog))
        accepted += inbox.accept(m for m in below if window.start_ms <= m.kafka_ms < window.end_ms)
    return accepted, judged_ms, _notes(topic, backlog, consumed)


def _messages(topic: Topic, backlog: Sequence[Span], consumed: Mapping[int, Consumed]) -> Iterator[Message]:
    """The messages of the backlog. Reading begins with the last one that the ledger has: it must be that one still."""
    for span in backlog:
        if span.start == span.end:
            continue
        before = None if span.created_again else consumed.get(span.partition)
        last = before.last_offset if before else None
        first = last if last == span.start - 1 else span.start
        for message in topic.read([span._replace(start=first)]):
            if before and message.offset == last and _digest(message) != before.last_digest:
                raise _CreatedAgain(span.partition)
            if message.offset >= span.start:
                yield message


def _differs(topic: Topic, consumed: Consumed | None) -> bool:
    """True if the topic has another message at the place of the last one that the ledger has read."""
    if consumed is None or consumed.last_offset is None:
        return False
    message = topic.message_at(consumed.partition, consumed.last_offset)
    return message is not None and _digest(message) != consumed.last_digest


def _digest(message: Message) -> str:
    return message_digest(message.kafka_ms, message.value)


def _from_the_oldest(topic: Topic, span: Span) -> Span:
    low, high = topic.bounds(span.partition)
    return Span(span.partition, low, high, created_again=True)


def _notes(topic: Topic, backlog: Sequence[Span], consumed: Mapping[int, Consumed]) -> dict[str, str]:
    """What operators must know of a partition: messages that only their producer still has, odd offsets."""
    notes: dict[str, str] = {}
    for s in backlog:
        where = f"partition {s.partition}"
        if s.deleted:
            notes[where] = (
                f"of '{topic.name}' lost {s.deleted} messages unread, offsets {s.start - s.deleted} to {s.start - 1}: "
                "they were deleted before any run came; have them sent again"
            )
            log.error("messages were deleted unread", where=where, what=notes[where])
        elif s.created_again:
            before = consumed[s.partition].next_offset
            notes[where] = (
                f"of '{topic.name}' is another one: the topic was created again after the ledger had read up to "
                f"offset {before}; it is read from its oldest message, offset {s.start}"
            )
            log.warning("the topic was created again", where=where, what=notes[where])
        elif s.ignored is not None:
            notes[where] = (
                f"of '{topic.name}': the consumer group stands at offset {s.ignored}, the ledger at {s.start}; an "
                "offset that was set forward is not followed, because it would skip messages"
            )
            log.warning("an offset was set forward", where=where, what=notes[where])
    return notes


def _below(spans: Sequence[Span], backlog: Sequence[Span]) -> list[Span]:
    """The part of `spans` that the backlog did not cover."""
    starts = {s.partition: s.start for s in backlog}
    return [s._replace(end=min(s.end, starts.get(s.partition, s.end))) for s in spans]


def pull(parts: Parts, intake: Intake, order: Order, before: Pulled | None) -> tuple[Pulled, int]:
    """One pass: accept, prove a window a second time, claim.

    `before` is the sum of the passes before, None at the first, which alone carries out the orders.
    Returns the sum and, if events are only too young to be claimed, the time (epoch ms) at which another
    pass may take them; else 0.
    """
    first, pulled = before is None, before or Pulled()
    accepted, judged_ms, notes = _accept_or_go_on(intake, order)
    told = pulled.told | notes
    ordered = Ordered([], {})
    if first:
        ordered = carry_out(
            parts,
            order.orders,
            run_id=order.run_id,
            at_ms=order.at_ms,
            by=order.by,
            dead_letters=intake.dead_letters,
        )
        told |= ordered.told
        requests = [*order.requests, *ordered.requests]
        accepted += intake.inbox.accept_manual(requests, run_id=order.run_id, at_ms=order.at_ms)
    follow_ups = 0
    if order.window and first:
        follow_ups = second_proof(parts, intake.inbox, order.window.start_ms, order.window.end_ms)

    own = [*pulled.own, *(r.event.mid for r in (*order.requests, *ordered.requests) if first)]
    mine = [e for s in pulled.slices for e in s.held]
    held, choice = claim(
        parts,
        run_id=order.run_id,
        judged_ms=judged_ms,
        patient=order.patient,
        mine=mine,
        only=own if order.own_only else None,
    )
    if choice.left and not choice.young_until_ms:
        # What the run brought and cannot do itself is anybody's from now on.
        left = [ClaimedEvent(e.transfer, e.fencing_token) for e in choice.left]
        parts.queue.release(left, next_try_ms=0)
    return (
        Pulled(
            slices=tuple(slices(parts, [*mine, *held], order.run_id)),
            received=pulled.received + len(accepted.received),
            known=pulled.known + len(accepted.known),
            rejected=pulled.rejected + len(accepted.rejected),
            claimed=len(mine) + len(held),
            follow_ups=pulled.follow_ups + follow_ups,
            told=told | _ended(parts, own, accepted.known),
            own=tuple(own),
            waits=_waits(choice, own),
        ),
        choice.young_until_ms,
    )


def _accept_or_go_on(intake: Intake, order: Order) -> tuple[Accepted, int, dict[str, str]]:
    """Accept what Kafka has; a run that brings its own work goes on without Kafka.

    Then it may overtake messages that nobody has read yet: they find what is done, and are marked late.
    """
    if intake.topic is None:
        return Accepted(), now_ms(), _not_read(intake.missing)
    try:
        return accept(intake.topic, intake.inbox, order.window)
    except Unavailable as e:
        if not order.by_hand:
            raise
        log.warning("the run goes on without Kafka", why=str(e), run_id=order.run_id)
        return Accepted(), now_ms(), _not_read(str(e))


def _not_read(why: str) -> dict[str, str]:
    return {"kafka": f"was not read: {why}"}


def claim(
    parts: Parts,
    *,
    run_id: str,
    judged_ms: int,
    patient: bool,
    mine: Sequence[ClaimedEvent] = (),
    only: Collection[str] | None = None,
) -> tuple[list[ClaimedEvent], Choice]:
    """Take what may be taken, oldest first, up to `max_events`; `mine` was claimed in an earlier pass of this run."""
    settings = parts.settings
    keys = {e.transfer.key for e in mine}

    def decide(queued: list[QueuedEvent]) -> Choice:
        return choose(
            queued,
            run_id=run_id,
            now_ms=now_ms(),
            judged_ms=judged_ms,
            grace_ms=settings.grace_ms,
            limit=settings.max_events - len(mine),
            patient=patient,
            mine=keys,
            only=only,
        )

    return parts.queue.claim(decide, run_id=run_id, lease_ms=settings.claim_seconds * 1000)


def slices(parts: Parts, held: Sequence[ClaimedEvent], run_id: str) -> list[Slice]:
    """Lanes as slices: one each while they are few, packed evenly above that."""
    by_mid = {h.mid: h for h in held}
    packs = pack(lanes(h.transfer for h in held), max_slices(parts))
    return [Slice(label=label(p), run_id=run_id, events=packed(by_mid[t.mid] for t in p)) for p in packs]


def max_slices(parts: Parts) -> int:
    """Upper bound on mapped instances of a stage."""
    settings = parts.settings
    return min(settings.max_mapped, settings.parallelism or settings.max_mapped)


def _ended(parts: Parts, own: Collection[str], known: Collection[str]) -> dict[str, str]:
    """Events of the conf that the ledger has as final: there is nothing to do for them."""
    return {
        mid: f"is {row.state} already; without its mid it is a new transfer"
        for mid, row in parts.events.read(set(own) & set(known)).items()
        if row.final
    }


def _waits(choice: Choice, asked: Collection[str]) -> dict[str, str]:
    """Why events stay in the queue: all that the conf names, and a few others."""
    first = {m: choice.waits[m] for m in asked if m in choice.waits}
    return first | dict(list(choice.waits.items())[: max(0, _WAITS_SHOWN - len(first))])
