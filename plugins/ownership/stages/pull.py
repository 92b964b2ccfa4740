"""`pull_transfer_events`: accept what is there, claim what may be worked on, cut it into slices."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass, field
from typing import NamedTuple

import structlog

from ownership.conf import Orders
from ownership.contracts import Pulled, Slice, packed
from ownership.errors import Unavailable
from ownership.inbox import Accepted, Inbox
from ownership.lanes import label, lanes, pack
from ownership.open_list import Choice, Held, OpenRow, choose
from ownership.options import Request
from ownership.parts import Parts, now_ms
from ownership.stages.operate import Ordered, carry_out
from ownership.stages.second_proof import second_proof
from ownership.stages.working import tallies
from ownership.topic import Span, Topic

log = structlog.get_logger(__name__)

_ROUNDS = 50
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
    letters: Topic | None = None
    """The dead-letter topic."""
    missing: str = ""
    """Why there is no topic."""


def accept(topic: Topic, inbox: Inbox, window: Window | None) -> tuple[Accepted, int, dict[str, str]]:
    """Everything up to the watermarks into the ledger, then the offsets.

    Returns what was accepted, the clock (epoch ms) taken before the watermarks were read, by which
    'old enough' is judged, and what is to be told of a partition.
    """
    judged_ms = now_ms()
    backlog = topic.backlog()
    topic.claim_offsets(backlog)
    spans = [s for s in backlog if s.start < s.end]
    accepted = inbox.accept(topic.read(spans))
    topic.commit(backlog)
    if window:
        # Messages of the interval below the committed offsets: new only if the ledger lost them.
        below = topic.read(_below(topic.since(window.start_ms), backlog))
        accepted += inbox.accept(m for m in below if window.start_ms <= m.kafka_ms < window.end_ms)
    return accepted, judged_ms, _unread(topic, backlog)


def _unread(topic: Topic, backlog: Sequence[Span]) -> dict[str, str]:
    """Messages that retention has deleted before they were read: only their producer has them still."""
    told = {
        f"partition {s.partition}": f"of '{topic.name}' lost {s.deleted} messages unread, offsets "
        f"{s.start - s.deleted} to {s.start - 1}: they were deleted before any run came; have them sent again"
        for s in backlog
        if s.deleted
    }
    for partition, what in told.items():
        log.error("messages were deleted unread", where=partition, what=what)
    return told


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
    accepted, judged_ms, unread = _accept_or_go_on(intake, order)
    told = pulled.told | unread
    ordered = Ordered([], {})
    if first:
        ordered = carry_out(
            parts, order.orders, run_id=order.run_id, at_ms=order.at_ms, by=order.by, letters=intake.letters
        )
        told |= ordered.told
        requests = [*order.requests, *ordered.requests]
        accepted += intake.inbox.accept_manual(requests, run_id=order.run_id, at_ms=order.at_ms)
    follow_ups = 0
    if order.window and first:
        follow_ups = second_proof(parts, intake.inbox, order.window.start_ms, order.window.end_ms)

    own = [*pulled.own, *(r.event.mid for r in (*order.requests, *ordered.requests) if first)]
    mine = [h for s in pulled.slices for h in s.held]
    held, choice = claim(
        parts,
        run_id=order.run_id,
        judged_ms=judged_ms,
        patient=order.patient,
        mine=mine,
        known={t.mid for t in accepted.received},
        only=own if order.own_only else None,
    )
    if choice.left and not choice.young_until_ms:
        # What the run brought and cannot do itself is anybody's from now on.
        parts.open_list.release([Held(r.transfer, r.token) for r in choice.left], next_try_ms=0)
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
    mine: Sequence[Held] = (),
    known: Collection[str] = (),
    only: Collection[str] | None = None,
) -> tuple[list[Held], Choice]:
    """Take what may be taken, oldest first, up to `max_events`.

    `mine` was claimed in an earlier pass of this run; `known` are mids whose event rows this run
    has just written. What a dead holder committed is completed on the way, and rows whose event
    is final are removed.
    """
    settings = parts.settings
    taken: list[Held] = []
    orphans: set[str] = set()
    verified = set(known)
    for _ in range(_ROUNDS):
        version, rows = parts.open_list.read()
        if _help(parts, rows):
            continue
        choice = choose(
            rows,
            run_id=run_id,
            now_ms=now_ms(),
            judged_ms=judged_ms,
            grace_ms=settings.grace_ms,
            most=settings.max_events - len(taken) - len(mine),
            patient=patient,
            mine={h.transfer.key for h in (*mine, *taken)},
            orphans=orphans,
            only=only,
        )
        doubtful = [r for r in choice.take if r.transfer.mid not in verified]
        if doubtful:
            strays, missing = _strays(parts, doubtful)
            verified |= {r.transfer.mid for r in doubtful} - missing - {r.transfer.mid for r in strays}
            parts.open_list.remove([Held(r.transfer, r.token) for r in strays])
            orphans |= missing
            if strays or missing:
                continue
        if not choice.take:
            return taken, choice
        lives_ms = settings.claim_seconds * 1000
        got = parts.open_list.claim(choice.take, version, run_id=run_id, lives_ms=lives_ms)
        taken += got
        if len(got) == len(choice.take):
            return taken, choice
    if not taken:
        raise Unavailable("open list", "others keep changing it")
    return taken, choice


def let_go(parts: Parts, run_id: str) -> None:
    """Release whatever the run holds: anybody may claim it at once."""
    _, rows = parts.open_list.read()
    mine = [Held(r.transfer, r.token) for r in rows if r.holder == run_id and not r.done]
    parts.open_list.release(mine, next_try_ms=0)


def _help(parts: Parts, rows: Sequence[OpenRow]) -> bool:
    """Finish what a holder committed with `done` before it died. True if there was any."""
    done = [Held(r.transfer, r.token) for r in rows if r.done]
    if not done:
        return False
    # What became of every batch was written before `done`: the counts are drawn from it.
    events = parts.ledger.read([h.mid for h in done])
    planned, images = parts.changes.read({mid: e.buckets for mid, e in events.items()})
    counts = tallies(planned, images)
    parts.ledger.complete([(h, counts.get(h.mid, {})) for h in done])
    parts.open_list.remove(done)
    return True


def _strays(parts: Parts, rows: Sequence[OpenRow]) -> tuple[list[OpenRow], set[str]]:
    """Rows whose event is final or stands elsewhere in the queue, and mids without an event row."""
    events = parts.ledger.read([r.transfer.mid for r in rows])
    missing = {r.transfer.mid for r in rows} - set(events)
    strays = [
        r
        for r in rows
        if (e := events.get(r.transfer.mid)) and (e.final or e.transfer is None or e.transfer.key != r.key)
    ]
    return strays, missing


def slices(parts: Parts, held: Sequence[Held], run_id: str) -> list[Slice]:
    """Lanes as slices: one each while they are few, packed evenly above that."""
    by_mid = {h.mid: h for h in held}
    packs = pack(lanes(h.transfer for h in held), most_slices(parts))
    return [Slice(label=label(p), run_id=run_id, events=packed(by_mid[t.mid] for t in p)) for p in packs]


def most_slices(parts: Parts) -> int:
    """Upper bound on mapped instances of a stage."""
    settings = parts.settings
    return min(settings.max_mapped, settings.parallelism or settings.max_mapped)


def _ended(parts: Parts, own: Collection[str], known: Collection[str]) -> dict[str, str]:
    """Events of the conf that the ledger has as final: there is nothing to do for them."""
    return {
        mid: f"is {row.state} already; without its mid it is a new transfer"
        for mid, row in parts.ledger.read(set(own) & set(known)).items()
        if row.final
    }


def _waits(choice: Choice, asked: Collection[str]) -> dict[str, str]:
    """Why events stay in the queue: all that the conf names, and a few others."""
    first = {m: choice.waits[m] for m in asked if m in choice.waits}
    return first | dict(list(choice.waits.items())[: max(0, _WAITS_SHOWN - len(first))])
