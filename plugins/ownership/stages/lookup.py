"""`lookup_users`: verdicts, phases, discovery, plan."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Collection, Container, Iterable, Iterator, Mapping, Sequence
from collections.abc import Set as AbstractSet
from sys import intern
from typing import NamedTuple

import structlog
from more_itertools import chunked

from ownership.domain.clock import HOUR_MS, from_ms, now_ms
from ownership.domain.contracts import Phase, Slice, Work
from ownership.domain.errors import Transient
from ownership.domain.event import folded
from ownership.domain.phase_book import PhaseBook
from ownership.domain.plan import EVERYTHING, BatchId, Row
from ownership.domain.plan_report import PlanReport
from ownership.domain.queue import ClaimedEvent
from ownership.domain.states import BatchOutcome, EventState
from ownership.ledger.changes import Planned, PlanRow
from ownership.ledger.events import EventRow
from ownership.platform.lms import IncompleteAnswer
from ownership.platform.search_documents import Hit
from ownership.stages.claim import Claim, read_events
from ownership.stages.claimed_work import ClaimedWork, load
from ownership.stages.gates import Plan, end_here
from ownership.stages.parts import Parts
from ownership.stages.phases import Waiting, choose_phases
from ownership.stages.verdicts import Judged, judge

log = structlog.get_logger(__name__)

ROWS_AT_ONCE = 2000
JUST_NOW_MS = 2 * HOUR_MS
"""How far back a completed transfer may have given rows that the index does not show yet."""


class Shown(NamedTuple):
    """What the stores show of some sources (folded) before rows are read."""

    documents: dict[BatchId, frozenset[str]]
    """The live batches whose documents name sources, with the sources that each names."""
    given: Sequence[EventRow]
    """Events that lately gave to sources what the index may not show yet."""

    def divided(self, groups: Collection[frozenset[str]]) -> Iterator[Shown]:
        """What is shown of each group of these sources."""
        if len(groups) == 1:
            yield self
            return
        batches: dict[str, list[BatchId]] = defaultdict(list)
        for batch, users in self.documents.items():
            for user in users:
                batches[user].append(batch)
        for group in groups:
            documents = {b: self.documents[b] & group for user in group for b in batches.get(user, ())}
            yield Shown(documents, [e for e in self.given if e.transfer.target in group])


class Concerned(NamedTuple):
    """A batch that some phases may concern."""

    book: PhaseBook
    batch: BatchId
    named: frozenset[str]
    """Sources that its document names."""
    with_row: bool
    """True if the plan depends on its row."""


class Planning(NamedTuple):
    """What became of a slice's valid events in this stage."""

    phases: list[Phase]
    """Those that go on."""
    waiting: Waiting
    ends: dict[str, EventState]
    """By mid, the state of events that end here or await an approval."""
    batches: int


def lookup_users(parts: Parts, work: Slice, *, last_try: bool = False) -> Work:
    """Decide the slice's events, choose its phases, find their batches, write the plan.

    Dry runs end here. An event that needs an approval is left to wait for it, and blocks only later events of its
    own users.

    :raises Transient: if nothing of the slice could go on and this is not the last try; the run then still
        holds the claim.
    :raises SettingsError: if the ledger has none of the events.
    """
    claim = Claim(parts, work.events, work.run_id)
    lost = claim.check()
    rows = read_events(parts, work.events)
    unfinished = [e for e in work.events if e.mid in rows and not rows[e.mid].final]
    open_ = [e for e in unfinished if e.mid not in lost]
    expired = _decline_expired(parts, open_, rows)
    judged = _decide(parts, claim, [e for e in open_ if e not in expired], rows, work.run_id)
    rows |= {mid: rows[mid]._replace(verdict=v) for mid, v in judged.verdicts.items()}

    outages = {e.mid: why for e, why in judged.outages}
    decided = {e.mid for e in (*judged.valid, *expired, *(e for e, _ in judged.skipped))}
    undecided = [e for e in unfinished if e.mid not in decided]
    planned = _choose_and_plan(parts, work, judged.valid, undecided, rows)
    if outages and not planned.phases and not planned.ends and not last_try:
        raise Transient(next(iter(outages.values())))
    counts: Counter[str] = Counter(planned.ends.values())
    counts.update(
        skipped=len(judged.skipped), failed=len(outages), waiting=len(planned.waiting), declined=len(expired),
        planned=sum(len(p.events) for p in planned.phases),
    )  # fmt: skip
    return work.step(
        planned.phases, events=dict(counts), batches={"planned": planned.batches}, failures=outages,
        waiting=[e for e, _ in planned.waiting],
    )  # fmt: skip


def _decide(
    parts: Parts, claim: Claim, events: Sequence[ClaimedEvent], rows: Mapping[str, EventRow], run_id: str
) -> Judged:
    """Judge events. Those that are invalid end as skipped; an outage fails this try of those that it leaves open."""
    judged = judge(parts, claim, events, rows, run_id)
    parts.events.skip(judged.skipped, run_id=run_id)
    for e, why in judged.skipped:
        log.info("transfer skipped", why=why, **_named(e), run_id=run_id)
    for e, why in judged.outages:
        log.warning("transfer undecided", why=why, **_named(e), run_id=run_id)
    parts.events.fail([(e, why, rows[e.mid].attempts + 1) for e, why in judged.outages])
    return judged


def _keep_waiting(parts: Parts, waiting: Waiting, rows: Mapping[str, EventRow]) -> None:
    """Record what events wait for, where that is news: a long lane has many phases."""
    parts.events.keep_waiting(
        [
            (e, blocker)
            for e, blocker in waiting
            if (rows[e.mid].waits_for, rows[e.mid].fencing_token) != (blocker, e.fencing_token)
        ]
    )


def _choose_and_plan(
    parts: Parts,
    work: Slice,
    valid: Sequence[ClaimedEvent],
    undecided: Sequence[ClaimedEvent],
    rows: Mapping[str, EventRow],
) -> Planning:
    """Choose the phases, write their plans, and end those that do not go on.

    `undecided`: events that this run leaves alone; they hold back later ones of their users.

    A transfer above the size for which an approval is wanted is planned once more without the rest of
    its lane: the approval is about what it does alone.
    """
    limit = parts.settings.approval_batches
    alone: set[str] = set()
    while True:
        chosen = choose_phases(parts, valid, undecided, rows, alone)
        parts.events.note(chosen.late, late=True)
        if not chosen.phases:
            _keep_waiting(parts, chosen.waiting, rows)
            return Planning([], chosen.waiting, {}, 0)
        claimed = load(parts, work.step(chosen.phases, events={}))
        plan = _plan(parts, claimed)
        composed = {e.mid for p in claimed.book.phases if len(p.events) > 1 for e in p.events}
        large = {m for m in composed - alone if limit and plan.reports[m].batches > limit}
        if not large:
            break
        alone |= large
        # The plan has made them `planned`: nothing says any more that they wait.
        rows = {**rows, **parts.events.read(composed)}
    ends = end_here(parts, claimed, plan)
    _keep_waiting(parts, chosen.waiting, rows)
    overtaken = _begin(parts, claimed)
    parts.events.keep_waiting(overtaken)
    return Planning(list(claimed.book.phases), [*chosen.waiting, *overtaken], ends, plan.batches)


def _begin(parts: Parts, claimed: ClaimedWork) -> Waiting:
    """Begin the phases that go on. Leaves out those before which an event goes that came late; their events."""
    phases = claimed.book.phases
    if not phases:
        return []
    passes_to = {e.mid: beyond for p in phases if (beyond := _beyond(p)) for e in p.events}
    blockers = parts.queue.begin([p.events for p in phases], run_id=claimed.run_id, passes_to=passes_to)
    overtaken = [p for p in phases if any(e.mid in blockers for e in p.events)]
    claimed.drop(overtaken)
    found = []
    for p in overtaken:
        blocker = next(blockers[e.mid] for e in p.events if e.mid in blockers)
        found += [(e, blockers.get(e.mid, blocker)) for e in p.events]
    return found


def _beyond(phase: Phase) -> frozenset[str]:
    """Users (folded) that a phase which came late gives to, beside those of its transfers."""
    users = frozenset().union(*(e.transfer.users for e in phase.events))
    return frozenset(map(folded, phase.moves.values())) - users


def _decline_expired(
    parts: Parts, events: Sequence[ClaimedEvent], rows: Mapping[str, EventRow]
) -> list[ClaimedEvent]:
    """End the events whose approval did not come in time."""
    now = now_ms()
    expired = [
        e
        for e in events
        if rows[e.mid].state == EventState.AWAITING_APPROVAL and rows[e.mid].awaits_until_ms <= now
    ]
    for e in expired:
        until = from_ms(rows[e.mid].awaits_until_ms)
        parts.events.decline(e, f"declined: nobody approved it until {until:%Y-%m-%d %H:%M} UTC")
        log.warning("transfer declined", why="nobody approved it in time", **_named(e))
    return expired


def _named(e: ClaimedEvent) -> dict[str, str]:
    return {"mid": e.mid, "from_user": e.transfer.from_user, "to_user": e.transfer.to_user}


def _plan(parts: Parts, claimed: ClaimedWork) -> Plan:
    """Find every batch of the phases and write the plan.

    The plan is what the search shows, every row that was ever planned for these events (its
    document may be up to date already), and rows that a just completed transfer gave to a source.
    Rows are read where the plan depends on them; a transfer of everything that nobody looks at
    beforehand takes what its documents name.
    """
    book, events = claimed.book, claimed.events
    mids = claimed.mids_with_plans(book.phases)
    rehearsed = [e for e in book.held if events[e.mid].options.dry_run]
    parts.changes.forget_plans(rehearsed)
    old = parts.changes.planned(mids)
    reports = {e.mid: PlanReport(e.transfer) for e in book.held if _needs_report(parts, events[e.mid])}
    # A dry run is planned as if no other transfer were under way.
    books = book.divided(lambda p: events[p.events[0].mid].options.dry_run)
    users = {e.mid: b.sources for b in books for e in b.held}

    found_no_more = {i for _, i in old}
    batches = 0
    planning: set[str] = set()
    for part in chunked(_concerned(parts, claimed, books, reports), ROWS_AT_ONCE):
        claimed.claim.keep_alive()
        rows = parts.rows.read(list(dict.fromkeys(c.batch for c in part if c.with_row)))
        found: list[PlanRow] = []
        for c in part:
            found += _plan_rows(c.book, events, c.batch, rows.get(c.batch), c.named, reports)
        fresh = [r for r in found if (r.planned.mid, r.planned.id) not in old]
        parts.changes.plan(fresh, users, rehearsed=rehearsed)
        planning |= {r.planned.mid for r in fresh}
        now_found = {r.planned.id for r in found}
        found_no_more -= now_found
        batches += len(now_found)
    _note_planned(parts, claimed, planning)
    return Plan(
        batches + len(found_no_more), reports, parts.changes.started(mids) if reports else frozenset()
    )


def _concerned(
    parts: Parts, claimed: ClaimedWork, books: Sequence[PhaseBook], reports: Container[str]
) -> Iterator[Concerned]:
    """The batches that the phases may concern, book by book; one search shows those of all of them."""
    events = claimed.events
    shown = _look(parts, claimed.book.sources)
    for book, of_book in zip(books, shown.divided([b.sources for b in books]), strict=True):
        recent = parts.changes.changed([e.mid for e in of_book.given if e.mid not in events])
        rows_matter = any(e.mid in reports or events[e.mid].scope != EVERYTHING for e in book.held)
        for batch in (*recent, *book.ids):
            of_book.documents.setdefault(batch, frozenset())
        for batch in sorted(of_book.documents):
            named = of_book.documents[batch]
            yield Concerned(book, batch, named, rows_matter or not named)


def _look(parts: Parts, sources: frozenset[str]) -> Shown:
    """What the search and the ledger show of sources."""
    if not sources:
        return Shown({}, [])
    parts.index.refresh()
    documents = _discover(parts, sources)
    return Shown(documents, parts.events.given_to(sources, since_ms=now_ms() - JUST_NOW_MS))


def _needs_report(parts: Parts, event: EventRow) -> bool:
    """True if a person may look at the event's plan."""
    return not event.options.whole or bool(event.approved_digest) or parts.settings.approval_batches > 0


def _plan_rows(
    book: PhaseBook,
    events: Mapping[str, EventRow],
    batch: BatchId,
    row: Row | None,
    document_users: frozenset[str],
    reports: Mapping[str, PlanReport],
) -> list[PlanRow]:
    """The batch's rows in the plans of the events that it concerns; their reports count it."""
    hops = {hop.mid: hop for hop in (book.hops(row, book.apply(row)) if row else ())}
    for mid, hop in hops.items():
        if mid in reports:
            reports[mid].add_change(hop)
    found = []
    for mid in book.planned_by(batch, row, document_users):
        expected = BatchOutcome.MOVED if mid in hops else book.unmoved_outcome(mid, batch, row)
        if mid in reports and mid not in hops:
            reports[mid].add_conflict(batch, row, expected)
        # A dry run ends with the outcome that it expects; for other events it is written once it is true.
        outcome = expected if events[mid].options.dry_run else None
        found.append(PlanRow(Planned(mid, batch, outcome), row, hops.get(mid)))
    return found


def _discover(parts: Parts, sources: frozenset[str]) -> dict[BatchId, frozenset[str]]:
    """The live batches whose documents name sources, with the sources that each names: 100,000 at times."""
    hits: Iterable[Hit]
    try:
        hits = parts.search.live_batches(sources)
    except IncompleteAnswer:
        hits = parts.index.live_batches(sources)
    # Many batches share a course, and a set of users.
    once: dict[frozenset[str], frozenset[str]] = {}
    named = ((BatchId(intern(batch.course_id), batch.batch_id), users & sources) for users, batch in hits)
    return {batch: once.setdefault(users, users) for batch, users in named}


def _note_planned(parts: Parts, claimed: ClaimedWork, planning: AbstractSet[str]) -> None:
    """Record for every event that it is planned, and under which events its phase's plan is kept.

    `planning`: mids that have got plan rows now.
    """
    planned = []
    for p in claimed.book.phases:
        rows = {e.mid: claimed.events[e.mid] for e in p.events}
        planned_with = frozenset(planning & rows.keys()).union(*(row.planned_with for row in rows.values()))
        planned += [(e, rows[e.mid].attempts + 1, planned_with) for e in p.events]
    parts.events.planned(planned, run_id=claimed.run_id)
