"""`pull_transfer_events`: start the run, collect what it may work on, cut that into slices."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass, field, replace
from itertools import islice

import structlog

from ownership.domain.clock import now_ms
from ownership.domain.conf import Orders
from ownership.domain.contracts import Pulled, Slice
from ownership.domain.errors import Unavailable
from ownership.domain.lanes import label, lanes, pack
from ownership.domain.options import Request
from ownership.domain.queue import Choice, ClaimedEvent, QueuedEvent, WaitKind, choose, in_words, is_at_work
from ownership.stages.inbox import Accepted
from ownership.stages.intake import Intake, Window, accept
from ownership.stages.orders import carry_out
from ownership.stages.parts import Parts
from ownership.stages.second_proof import second_proof

log = structlog.get_logger(__name__)

MAX_WAITS_REPORTED = 20


@dataclass(frozen=True)
class RunRequest:
    """What a run is asked to pull."""

    run_id: str
    window: Window | None = None
    requests: Sequence[Request] = ()
    """Events that were given by hand."""
    at_ms: int = 0
    """Time of these events: the run's own, the same for every try."""
    orders: Orders = field(default_factory=Orders)
    """What else the run was asked to do."""
    patient: bool = True
    """Leave failed events alone until their next try is due; a run that a person or the clock
    started tries them now."""
    started_by: str = ""
    own_only: bool = False
    """Claim nothing but the run's own events."""

    @property
    def by_hand(self) -> bool:
        """True if it can be carried out without Kafka."""
        return bool(self.requests) or any(self.orders)


@dataclass(frozen=True)
class Collected:
    """What a run has so far."""

    request: RunRequest
    intake: Intake
    accepted: Accepted = field(default_factory=Accepted)
    notes: dict[str, str] = field(default_factory=dict)
    """See `Pulled.notes`."""
    follow_ups: int = 0
    own: tuple[str, ...] = ()
    """Mids of the events that the run brought."""
    refused: dict[str, str] = field(default_factory=dict)
    """See `Pulled.refused`."""
    claimed: tuple[ClaimedEvent, ...] = ()
    choice: Choice = field(default_factory=Choice)
    """The last look at the queue."""
    tail_until_ms: int = 0
    """Epoch ms: when the events are old enough that were too young at the run's first claim."""
    complete: bool = False
    """True if another look in a moment would find nothing that is worth waiting for."""

    @property
    def young_until_ms(self) -> int:
        """When the events are old enough that the run waits for, epoch ms; 0 if there are none."""
        return self.tail_until_ms if self.claimed else self.choice.young_until_ms


def start_run(parts: Parts, intake: Intake, request: RunRequest) -> Collected:
    """Carry out the orders of the conf, queue the events given by hand, prove the window a second time.

    Repeating it for the same run changes nothing more.

    :raises ConfError: for an order that contradicts the ledger.
    :raises Unavailable: if a store is, or Kafka and the run needs it.
    """
    started = Collected(request, intake)
    if not request.by_hand and not request.window:
        return started
    # The topic comes first: an order may name an event that no run has read yet.
    started, _ = _read_topic(started, request.window)
    ordered = carry_out(
        parts, request.orders, run_id=request.run_id, at_ms=request.at_ms, by=request.started_by,
        dead_letters=started.intake.dead_letters,
    )  # fmt: skip
    requests = [*request.requests, *ordered.requests]
    accepted = intake.inbox.accept_manual(requests, run_id=request.run_id, at_ms=request.at_ms)
    follow_ups = 0
    if window := request.window:
        follow_ups = second_proof(parts, intake.inbox, window.start_ms, window.end_ms)
    return replace(
        started,
        accepted=started.accepted + accepted,
        notes={**started.notes, **ordered.notes},
        follow_ups=follow_ups,
        own=tuple(r.event.mid for r in requests),
        refused={mid: ordered.notes[mid] for mid in ordered.refused}
        | {mid: f"was rejected: {why}" for mid, why in accepted.refused.items()},
    )


def collect(parts: Parts, so_far: Collected) -> Collected:
    """One pass: accept what is on the topic, claim what may be worked on, oldest first, up to `max_events`.

    A run that has claimed something is complete when the events are old enough that were too young then: the tail
    of a burst. A run that has nothing waits for young events, and while another run works on what its own events
    wait for.

    :raises Unavailable: if the ledger is, or Kafka and the run needs it. What was claimed stays the run's.
    """
    so_far, judged_ms = _read_topic(so_far)
    taken, choice = _claim(parts, so_far, judged_ms)
    young_until_ms = choice.young_until_ms
    tail_until_ms = so_far.tail_until_ms if so_far.claimed else young_until_ms
    claimed = (*so_far.claimed, *taken)
    if claimed:
        complete = not young_until_ms or judged_ms >= tail_until_ms
    else:
        complete = not young_until_ms and not _soon_free(parts, choice, so_far.own)
    return replace(so_far, claimed=claimed, choice=choice, tail_until_ms=tail_until_ms, complete=complete)


def hand_over(parts: Parts, collected: Collected) -> Pulled:
    """Cut what was claimed into slices, and release the events that the run brought and cannot work on."""
    unusable = [ClaimedEvent(e.transfer, e.fencing_token) for e in collected.choice.unusable]
    parts.queue.release(unusable, next_try_ms=0)
    accepted, own = collected.accepted, collected.own
    return Pulled(
        slices=tuple(_slices(parts, collected)),
        received=len(accepted.received),
        known=len(accepted.known),
        rejected=len(accepted.rejected),
        lost=accepted.lost,
        claimed=len(collected.claimed),
        follow_ups=collected.follow_ups,
        notes=collected.notes | accepted.notes | _ended(parts, own, accepted.known),
        own=own,
        refused=collected.refused,
        waits=_waits(collected.choice, own),
    )


def _read_topic(so_far: Collected, window: Window | None = None) -> tuple[Collected, int]:
    """Accept what Kafka has; also the clock by which events are old enough.

    A run by hand goes on without Kafka. Then it may overtake messages that no run has read yet: they find what is
    done, and are marked late.
    """
    accepted, judged_ms = Accepted(), now_ms()
    intake, notes = so_far.intake, so_far.notes
    if intake.topic:
        try:
            accepted, judged_ms = accept(intake.topic, intake.inbox, window)
        except Unavailable as e:
            if not so_far.request.by_hand:
                raise
            log.warning("the run goes on without Kafka", why=str(e), run_id=so_far.request.run_id)
            intake = intake._replace(topic=None, missing=str(e))
    if not intake.topic:
        notes = {**notes, "kafka": f"was not read: {intake.missing}"}
    return replace(so_far, intake=intake, accepted=so_far.accepted + accepted, notes=notes), judged_ms


def _claim(parts: Parts, so_far: Collected, judged_ms: int) -> tuple[list[ClaimedEvent], Choice]:
    """What is taken beside what the run has, oldest first, and the choice."""
    request, settings = so_far.request, parts.settings
    mine = {e.transfer.key for e in so_far.claimed}

    def decide(queued: list[QueuedEvent]) -> Choice:
        return choose(
            queued,
            run_id=request.run_id,
            now_ms=now_ms(),
            judged_ms=judged_ms,
            grace_ms=settings.grace_ms,
            limit=settings.max_events - len(mine),
            patient=request.patient,
            mine=mine,
            only=frozenset(so_far.own) if request.own_only else None,
        )

    return parts.queue.claim(decide, run_id=request.run_id, lease_ms=settings.claim_seconds * 1000)


def _soon_free(parts: Parts, choice: Choice, own: Collection[str]) -> bool:
    """True if another run works on one of `own`, or on an event that one of them waits for."""
    now, lease_ms = now_ms(), parts.settings.claim_seconds * 1000
    causes = [c for mid in own if (c := choice.cause(mid)) and c.kind is WaitKind.HELD]
    return any(is_at_work(c.until_ms, now_ms=now, lease_ms=lease_ms) for c in causes)


def _slices(parts: Parts, collected: Collected) -> list[Slice]:
    settings = parts.settings
    of = {e.mid: e for e in collected.claimed}
    packs = pack(
        lanes(e.transfer for e in collected.claimed),
        max_mapped=settings.max_mapped,
        slices=settings.parallelism,
    )
    run_id = collected.request.run_id
    return [Slice(label=label(p), run_id=run_id, events=tuple(of[t.mid] for t in p)) for p in packs]


def _ended(parts: Parts, own: Collection[str], known: Collection[str]) -> dict[str, str]:
    """Events of the conf that are final in the ledger already: there is nothing to do for them."""
    return {
        mid: f"is {row.state} already; without its mid it is a new transfer"
        for mid, row in parts.events.read(set(own) & set(known)).items()
        if row.final
    }


def _waits(choice: Choice, own: Collection[str]) -> dict[str, str]:
    """Why events stay in the queue, in words: all of the run's own, and a few others."""
    first = dict.fromkeys(m for m in own if m in choice.waits)
    others = islice((m for m in choice.waits if m not in first), max(0, MAX_WAITS_REPORTED - len(first)))
    return {mid: in_words(choice.waits[mid]) for mid in (*first, *others)}
