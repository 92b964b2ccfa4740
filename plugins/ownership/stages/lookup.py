"""`lookup_users`: verdicts, phases, discovery, plan."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Sequence
from collections.abc import Set as AbstractSet
from typing import NamedTuple

import structlog

from ownership.domain.chunks import chunks
from ownership.domain.clock import from_ms, now_ms
from ownership.domain.contracts import Phase, Slice, Work, packed
from ownership.domain.effects import undoing
from ownership.domain.errors import Transient, Unavailable
from ownership.domain.event import Transfer
from ownership.domain.lanes import WHOLE, Kind, fold, lanes, phase, sources
from ownership.domain.plan import BatchId, Hop, Row
from ownership.domain.plan_report import PlanReport
from ownership.domain.queue import ClaimedEvent
from ownership.domain.states import BatchOutcome, EventState
from ownership.ledger.changes import PlanRow
from ownership.ledger.events import EventRow, Verdict
from ownership.platform.lms import Owners, WindowExceeded
from ownership.platform.user_org import Lookup, Unknown, User, same_id
from ownership.stages.gates import Plan, end_here
from ownership.stages.parts import Parts
from ownership.stages.working import Claim, Working, taken_hops

log = structlog.get_logger(__name__)

EVENTS_PER_PHASE = 1000
"""A phase is committed in one transaction; longer lanes go in several."""
ROWS_AT_ONCE = 2000
JUST_NOW_MS = 2 * 3600 * 1000
"""How far back a completed transfer may have given rows that the index does not show yet."""
WAITS = "waits: "
"""Reason of an event that this run claimed and leaves to a later one."""


class Judged(NamedTuple):
    """Verdicts of a slice's events."""

    valid: list[ClaimedEvent]
    skipped: list[tuple[ClaimedEvent, str]]
    outages: list[tuple[ClaimedEvent, str]]


def lookup_users(parts: Parts, work: Slice, *, last_try: bool = False) -> Work:
    """Decide the slice's events, choose its phases, find their batches, write the plan.

    Dry runs end here. What needs an approval is left to wait for it, and stands in nobody's way but its
    own users'.

    :raises Transient: if nothing of the slice could go on and this is not the last try; the
        claim then still is the run's.
    """
    claim = Claim(parts, work.held, work.run_id)
    claim.check()
    handed = Work(label=work.label, run_id=work.run_id)
    rows = parts.events.read([h.mid for h in claim.events])
    open_ = [h for h in claim.events if h.mid in rows and not rows[h.mid].final]
    expired = _decline_expired(parts, open_, rows)
    judged = _judge(parts, claim, [h for h in open_ if h not in expired], rows, work.run_id)
    parts.events.skip(judged.skipped, run_id=work.run_id)
    for h, why in judged.skipped:
        log.info("transfer skipped", why=why, **_words(h), run_id=work.run_id)
    for h, why in judged.outages:
        log.warning("transfer undecided", why=why, **_words(h), run_id=work.run_id)
    _fail(parts, judged.outages, rows)

    outages = {h.mid: why for h, why in judged.outages}
    phases, waiting, batches, ends = _planned_phases(parts, judged, rows, handed)
    parts.events.keep_waiting([(h, f"{WAITS}{why}") for h, why in waiting])
    if outages and not phases and not ends and not last_try:
        raise Transient(next(iter(outages.values())))
    counts = Counter(ends.values())
    counts.update(
        skipped=len(judged.skipped), failed=len(outages), waiting=len(waiting), declined=len(expired),
        planned=sum(len(p.events) for p in phases),
    )  # fmt: skip
    return handed.step(phases, events=dict(counts), batches={"planned": batches}, failures=outages)


def _planned_phases(
    parts: Parts, judged: Judged, rows: dict[str, EventRow], handed: Work
) -> tuple[list[Phase], list[tuple[ClaimedEvent, str]], int, dict[str, str]]:
    """The phases with their plans: those that go on, who waits, the number of batches, and how others end.

    A transfer above the size for which an approval is wanted is planned once more without the rest of
    its lane: what is approved is what it does alone.
    """
    limit = parts.settings.approval_batches
    alone: set[str] = set()
    while True:
        phases, waiting = _phases(parts, judged, rows, alone)
        if not phases:
            return [], waiting, 0, {}
        working = Working(parts, handed.step(phases, events={}))
        plan = _plan(working)
        composed = {h.mid for p in working.phases if len(p.events) > 1 for h in p.held}
        large = {m for m in composed - alone if limit and plan.reports[m].batches > limit}
        if not large:
            break
        alone |= large
    ends = end_here(working, plan)
    return [p for p in phases if any(p is q for q in working.phases)], waiting, plan.batches, ends


def _decline_expired(
    parts: Parts, events: Sequence[ClaimedEvent], rows: dict[str, EventRow]
) -> list[ClaimedEvent]:
    """End those that nobody approved in time."""
    now = now_ms()
    expired = [
        h
        for h in events
        if rows[h.mid].state == EventState.AWAITING_APPROVAL and rows[h.mid].awaits_until_ms <= now
    ]
    for h in expired:
        until = from_ms(rows[h.mid].awaits_until_ms)
        parts.events.decline(h, f"declined: nobody approved it until {until:%Y-%m-%d %H:%M} UTC")
        log.warning("transfer declined", why="nobody approved it in time", **_words(h))
    return expired


def _words(h: ClaimedEvent) -> dict[str, str]:
    return {"mid": h.mid, "from_user": h.transfer.from_user, "to_user": h.transfer.to_user}


def _judge(
    parts: Parts, claim: Claim, events: Sequence[ClaimedEvent], rows: dict[str, EventRow], run_id: str
) -> Judged:
    """A verdict for every event that has none, from User-Org; an outage decides nothing."""
    undecided = [h for h in events if rows[h.mid].verdict is None]
    # An undo gives back what was, also to a user who has left since.
    undos = [h for h in undecided if rows[h.mid].options.undo_of]
    undecided = [h for h in undecided if h not in undos]
    different = [h for h in undecided if not same_id(h.transfer.from_user, h.transfer.to_user)]
    found: dict[str, Lookup] = {}
    for user, answer in parts.users.read_all(
        {u for h in different for u in (h.transfer.from_user, h.transfer.to_user)}
    ):
        found[user] = answer
        claim.keep()
    verdicts: list[tuple[ClaimedEvent, Verdict]] = [(h, Verdict(valid=True)) for h in undos]
    outages: list[tuple[ClaimedEvent, str]] = []
    for h in undecided:
        if h not in different:
            verdicts.append((h, Verdict(valid=False, reason="old and new user are the same")))
            continue
        answers = [found[u] for u in (h.transfer.from_user, h.transfer.to_user)]
        if why := _invalid(answers, rows[h.mid].organisation_id or ""):
            verdicts.append((h, Verdict(valid=False, reason=why)))
        elif outage := next((a for a in answers if isinstance(a, Unavailable)), None):
            outages.append((h, str(outage)))
        else:
            verdicts.append((h, Verdict(valid=True)))
    before = {h.mid: v for h in events if (v := rows[h.mid].verdict) is not None}
    stands = before | parts.events.decide(verdicts, run_id=run_id)
    decided = [(h, v) for h in events if (v := stands.get(h.mid)) is not None]
    return Judged(
        [h for h, v in decided if v.valid],
        [(h, v.reason or "") for h, v in decided if not v.valid],
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


def _phases(
    parts: Parts, judged: Judged, rows: dict[str, EventRow], alone: AbstractSet[str]
) -> tuple[list[Phase], list[tuple[ClaimedEvent, str]]]:
    """The phases of the slice's lanes, and the valid events that must wait for a later run.

    `alone`: mids that get a phase to themselves.
    """
    held = {h.mid: h for h in [*judged.valid, *(h for h, _ in judged.outages)]}
    undecided = {h.mid for h, _ in judged.outages}
    taken_back: dict[str, list[Hop]] = {}

    def kind(e: Transfer) -> Kind:
        row = rows[e.mid]
        own = e.mid in alone or row.options.plan_of or row.approved_digest
        undo = row.options.undo_of is not None
        if row.options.whole and not own:
            return WHOLE
        if undo and not own:
            return Kind(undo=True, group="dry run" if row.options.dry_run else "")
        return Kind(undo=undo, group=e.mid)

    def closed(events: Sequence[Transfer]) -> bool:
        if len(events) == 1:
            return True
        for e in events:
            if e.mid not in taken_back:
                taken_back[e.mid] = taken_hops(parts, [rows[e.mid]])
        return undoing(hop for e in events for hop in taken_back[e.mid]).closed()

    chosen_lanes = []
    for lane in lanes(h.transfer for h in held.values()):
        chosen, moves = phase(
            lane, lambda e: e.mid in undecided, most=EVENTS_PER_PHASE, kind=kind, closed=closed
        )
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
    later = parts.events.later_completed(everyone, users)
    phases, late = [], []
    for chosen, moves in chosen_lanes:
        after = [e for e in later if e.transfer.key > chosen[0].key]
        # A later transfer that was restricted, or undone, passes nothing on but what it moved itself.
        folded = fold(chosen, [e.transfer for e in after if e.options.whole])
        own = sources(moves)
        gave = [e.mid for e in after if e.transfer.target in own]
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
            if any(a.transfer.key > e.key and a.transfer.users & e.users for a in after)
        ]
    parts.events.note(late, late=True)
    return phases, waiting


def _plan(working: Working) -> Plan:
    """Find every batch of the phases and write the plan.

    The plan is what the search shows, every row that was ever planned for these events (its
    document may be right already), and rows that a just completed transfer gave to a source.
    """
    parts = working.parts
    if working.sources:
        parts.index.refresh()
    named = _discover(parts, working)
    mids = working.concerned_mids(working.phases)
    old = parts.changes.planned(mids)
    given = parts.events.given_to(working.sources, since_ms=now_ms() - JUST_NOW_MS) if working.sources else []
    recent = parts.changes.batches([e.mid for e in given if e.mid not in working.events])
    ids = sorted({*named, *recent, *working.ids})
    reports = {
        h.mid: PlanReport(h.transfer) for h in working.held if _looked_at(parts, working.events[h.mid])
    }
    users = {h.mid: working.sources for h in working.held}

    batches = {i for _, i in old}
    planning: set[str] = set()
    for some in chunks(ids, ROWS_AT_ONCE):
        rows = parts.rows.read(some)
        found: list[PlanRow] = []
        for batch in some:
            found += _plan_row(working, batch, rows.get(batch), named.get(batch, frozenset()), reports)
        fresh = [
            r
            for r in found
            if (r.planned.mid, r.planned.id) not in old or working.events[r.planned.mid].options.dry_run
        ]
        parts.changes.plan(fresh, users)
        planning |= {r.planned.mid for r in fresh}
        batches |= {r.planned.id for r in found}
    _note(working, planning)
    return Plan(len(batches), reports, parts.changes.started(mids) if reports else frozenset())


def _looked_at(parts: Parts, event: EventRow) -> bool:
    """True if somebody may look at the event's plan."""
    return not event.options.whole or bool(event.approved_digest) or parts.settings.approval_batches > 0


def _plan_row(
    working: Working,
    batch: BatchId,
    row: Row | None,
    named: frozenset[str],
    reports: dict[str, PlanReport],
) -> list[PlanRow]:
    """What a batch is in the plans of the events that it concerns; told to their reports."""
    steps = working.steps(row, working.after(row)) if row else []
    for hop in steps:
        if report := reports.get(hop.mid):
            report.change(hop, BatchOutcome.MOVED)
    hop_of = {hop.mid: hop for hop in steps}
    found = []
    for planned in working.planned(batch, row, named):
        mid = planned.mid
        expected = BatchOutcome.MOVED if mid in hop_of else working.unmoved(planned, row)
        if mid in reports and mid not in hop_of:
            reports[mid].conflict(batch, row, expected)
        # A dry run ends with what it expects; of others it is written when it has come true.
        outcome = expected if working.events[mid].options.dry_run else None
        found.append(PlanRow(planned._replace(outcome=outcome), row, hop_of.get(mid)))
    return found


def _discover(parts: Parts, working: Working) -> dict[BatchId, frozenset[str]]:
    """The live batches whose documents name sources, with the sources (folded) that each names."""
    if not working.sources:
        return {}
    hits: Iterable[Owners]
    try:
        hits = parts.search.live_batches(working.sources)
    except WindowExceeded:
        hits = parts.index.live_batches(working.sources)
    # Intern the sets: many batches share few.
    once: dict[frozenset[str], frozenset[str]] = {}
    named = ((batch, users & working.sources) for users, batch in hits)
    return {batch: once.setdefault(users, users) for batch, users in named}


def _note(working: Working, planning: AbstractSet[str]) -> None:
    """Record for every event under which events its phase's plan stands, and that it is planned.

    `planning`: mids that have got plan rows now.
    """
    planned = []
    for p in working.phases:
        own = {h.mid for h in p.held}
        planned_with = frozenset(planning & own).union(*(working.events[mid].planned_with for mid in own))
        planned += [(h, working.events[h.mid].attempts + 1, planned_with) for h in p.held]
    working.parts.events.planned(planned, run_id=working.run_id)


def _fail(parts: Parts, outages: Sequence[tuple[ClaimedEvent, str]], rows: dict[str, EventRow]) -> None:
    parts.events.fail([(h, why, rows[h.mid].attempts + 1) for h, why in outages])
