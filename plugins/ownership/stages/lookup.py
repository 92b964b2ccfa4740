"""`lookup_users`: verdicts, phases, discovery, plan."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from datetime import UTC, datetime
from typing import NamedTuple

import structlog

from ownership.batches import Owners, WindowExceeded
from ownership.changes import Place, Planned, buckets_for, place
from ownership.contracts import Phase, Slice, Work, packed
from ownership.errors import Transient, Unavailable
from ownership.lanes import fold, lanes, phase, sources
from ownership.ledger import PLANNED, RECEIVED, VALID, EventRow
from ownership.open_list import Held, chunks
from ownership.parts import Parts, now_ms
from ownership.plan import BatchId, Row
from ownership.stages.working import Claim, Working
from ownership.users import Lookup, Unknown, User, same_id

log = structlog.get_logger(__name__)

EVENTS_PER_PHASE = 1000
"""A phase is committed in one conditional batch; longer lanes go in several."""
ROWS_AT_ONCE = 2000
USERS_AT_ONCE = 32
"""Users looked up between two looks at the claim: even a service at its time-outs takes less than a claim's life."""
JUST_NOW_MS = 2 * 3600 * 1000
"""How far back a completed transfer may have given rows that the index does not show yet."""
WAITS = "waits: "
"""Reason of an event that this run claimed and leaves to a later one."""


class Judged(NamedTuple):
    """Verdicts of a slice's events."""

    valid: list[Held]
    skipped: list[tuple[Held, str]]
    outages: list[tuple[Held, str]]


def lookup_users(parts: Parts, work: Slice, *, last_try: bool = False) -> Work:
    """Decide the slice's events, choose its phases, find their batches, write the plan.

    :raises Transient: if nothing of the slice could go on and this is not the last try; the
        claim then still is the run's.
    """
    claim = Claim(parts, work.held, work.run_id)
    claim.check()
    handed = Work(label=work.label, run_id=work.run_id)
    rows = parts.ledger.read([h.mid for h in claim.events])
    open_ = [h for h in claim.events if h.mid in rows and not rows[h.mid].final]
    judged = _judge(parts, claim, open_, rows, work.run_id)
    parts.ledger.skip([(h, why) for h, why in judged.skipped])
    parts.open_list.remove([h for h, _ in judged.skipped])
    for h, why in judged.skipped:
        log.info("transfer skipped", why=why, **_words(h), run_id=work.run_id)
    for h, why in judged.outages:
        log.warning("transfer undecided", why=why, **_words(h), run_id=work.run_id)

    outages = {h.mid: why for h, why in judged.outages}
    phases, waiting = _phases(parts, judged)
    _fail(parts, judged.outages, rows)
    parts.ledger.note_each([(h, {"state": RECEIVED, "reason": f"{WAITS}{why}"}) for h, why in waiting])
    if outages and not phases and not last_try:
        raise Transient(next(iter(outages.values())))

    counts = {"skipped": len(judged.skipped), "failed": len(outages), "waiting": len(waiting)}
    failures = {h.mid: why for h, why in judged.outages}
    ready = handed.step(phases, events={**counts, "planned": sum(len(p.events) for p in phases)})
    if not phases:
        return handed.step((), events=counts, failures=failures)
    batches = _plan(Working(parts, ready))
    return handed.step(phases, events=ready.events, batches={"planned": batches}, failures=failures)


def _words(h: Held) -> dict[str, str]:
    return {"mid": h.mid, "from_user": h.transfer.from_user, "to_user": h.transfer.to_user}


def _judge(
    parts: Parts, claim: Claim, events: Sequence[Held], rows: dict[str, EventRow], run_id: str
) -> Judged:
    """A verdict for every event that has none, from User-Org; an outage decides nothing."""
    undecided = [h for h in events if rows[h.mid].verdict is None]
    different = [h for h in undecided if not same_id(h.transfer.from_user, h.transfer.to_user)]
    found: dict[str, Lookup] = {}
    for some in chunks(
        sorted({u for h in different for u in (h.transfer.from_user, h.transfer.to_user)}), USERS_AT_ONCE
    ):
        found |= parts.users.read_all(some)
        claim.check()
    verdicts: list[tuple[Held, bool, str | None]] = []
    outages: list[tuple[Held, str]] = []
    for h in undecided:
        if h not in different:
            verdicts.append((h, False, "old and new user are the same"))
            continue
        answers = [found[u] for u in (h.transfer.from_user, h.transfer.to_user)]
        if why := _invalid(answers, rows[h.mid].organisation_id or ""):
            verdicts.append((h, False, why))
        elif outage := next((a for a in answers if isinstance(a, Unavailable)), None):
            outages.append((h, str(outage)))
        else:
            verdicts.append((h, True, None))
    stands = parts.ledger.decide_all(verdicts, run_id=run_id)
    verdict_of = {h.mid: rows[h.mid].verdict for h in events}
    verdict_of |= {h.mid: v for (h, _, _), v in zip(verdicts, stands, strict=True)}
    decided = [(h, v) for h in events if (v := verdict_of[h.mid]) is not None]
    return Judged(
        [h for h, v in decided if v == VALID],
        [(h, v.removeprefix("invalid: ")) for h, v in decided if v != VALID],
        outages,
    )


def _invalid(answers: Iterable[Lookup], organisation: str) -> str | None:
    """Why users are invalid by the service's own word, None if it gave none."""
    for answer in answers:
        if isinstance(answer, Unknown):
            return f"user {answer.user_id!r} is unknown to User-Org"
        if isinstance(answer, User) and not same_id(answer.organisation_id, organisation):
            return f"user {answer.user_id!r} belongs to another organisation than the event's"
    return None


def _phases(parts: Parts, judged: Judged) -> tuple[list[Phase], list[tuple[Held, str]]]:
    """The phases of the slice's lanes, and the valid events that must wait for a later run."""
    held = {h.mid: h for h in [*judged.valid, *(h for h, _ in judged.outages)]}
    undecided = {h.mid for h, _ in judged.outages}
    chosen_lanes = []
    for lane in lanes(h.transfer for h in held.values()):
        chosen, moves = phase(lane, lambda e: e.mid in undecided, most=EVENTS_PER_PHASE)
        if chosen:
            chosen_lanes.append((chosen, moves))
    taken = {e.mid for chosen, _ in chosen_lanes for e in chosen}
    waiting = [
        (h, "an earlier event of its lane must be completed first")
        for h in judged.valid
        if h.mid not in taken
    ]
    if not chosen_lanes:
        return [], waiting

    everyone = [e for chosen, _ in chosen_lanes for e in chosen]
    users = {u for e in everyone for u in e.users}
    later = [e for e in parts.ledger.later_completed(everyone, users) if e.transfer]
    phases, late = [], []
    for chosen, moves in chosen_lanes:
        after = [e for e in later if e.transfer and e.transfer.key > chosen[0].key]
        folded = fold(chosen, [e.transfer for e in after if e.transfer])
        own = sources(moves)
        gave = [e.mid for e in after if e.transfer and e.transfer.target in own]
        phases.append(
            Phase(
                events=packed(held[e.mid] for e in chosen),
                moves={u: folded.get(u, v) for u, v in moves.items()},
                later=tuple(gave),
            )
        )
        late += [
            held[e.mid]
            for e in chosen
            if any(a.transfer and a.transfer.key > e.key and a.transfer.users & e.users for a in after)
        ]
    parts.ledger.note(late, late=True)
    return phases, waiting


def _plan(working: Working) -> int:
    """Find every batch of the phases and write the plan. Returns the number of batches.

    The plan is what the search shows, every row that was ever planned for these events (its
    document may be right already), and rows that a just completed transfer gave to a source.
    """
    parts = working.parts
    parts.index.refresh()
    hits = _discover(parts, working)
    named: dict[BatchId, frozenset[str]] = {batch: users & working.sources for users, batch in hits}
    old = {(p.place.mid, p.id) for p in parts.changes.read(working.buckets)[0]}
    given = parts.ledger.given_to(working.sources, since_ms=now_ms() - JUST_NOW_MS)
    recent = {
        p.id for p in parts.changes.read({e.mid: e.buckets for e in given if e.mid not in working.events})[0]
    }
    ids = sorted(set(named) | recent)

    planned: list[tuple[Planned, Row | None]] = []
    for some in chunks(ids, ROWS_AT_ONCE):
        rows = parts.rows.read(some)
        for batch in some:
            row = rows.get(batch)
            planned += [(p, row) for p in working.planned(batch, row, named.get(batch, ()))]

    # The number of partitions is known only now that the number of rows is.
    sizes: dict[str, int] = {}
    for p, _ in planned:
        sizes[p.place.mid] = sizes.get(p.place.mid, 0) + 1
    buckets = {mid: e.buckets or buckets_for(sizes.get(mid, 0)) for mid, e in working.events.items()}
    fresh = [
        (p._replace(place=place(p.place.mid, p.id, buckets[p.place.mid])), row)
        for p, row in planned
        if (p.place.mid, p.id) not in old
    ]
    parts.changes.plan(fresh, {h.mid: working.sources for h in working.held})
    _note(working, buckets, {p.place for p, _ in fresh})
    return len({i for _, i in old} | {p.id for p, _ in planned})


def _discover(parts: Parts, working: Working) -> list[Owners]:
    try:
        return parts.search.live_batches(working.sources)
    except WindowExceeded:
        return list(parts.index.live_batches(working.sources))


def _note(working: Working, buckets: dict[str, int], places: set[Place]) -> None:
    """Record for every event where its phase's plan is, and that it is planned."""
    planning = {at.mid for at in places}
    now = datetime.now(UTC)
    notes = []
    for p in working.phases:
        own = {h.mid for h in p.held}
        plan_of = (planning & own) | {m for mid in own for m in working.events[mid].plan_of}
        for h in p.held:
            event = working.events[h.mid]
            notes.append(
                (
                    h,
                    {
                        "state": PLANNED,
                        "reason": None,
                        "run_id": working.run_id,
                        "attempts": event.attempts + 1,
                        "buckets": buckets[h.mid],
                        "plan_of": plan_of,
                        "planned_at": now,
                    },
                )
            )
    working.parts.ledger.note_each(notes)


def _fail(parts: Parts, outages: Sequence[tuple[Held, str]], rows: dict[str, EventRow]) -> None:
    parts.ledger.fail([(h, why, rows[h.mid].attempts + 1) for h, why in outages])
