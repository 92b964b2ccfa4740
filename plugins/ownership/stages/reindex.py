"""`reindex_course_batches`: documents follow rows, then the proof, then the commit."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from collections.abc import Set as AbstractSet
from typing import NamedTuple

import structlog

from ownership.domain.chunks import chunks
from ownership.domain.clock import now
from ownership.domain.contracts import Phase, Work
from ownership.domain.errors import Incomplete
from ownership.domain.plan import BatchId, Document
from ownership.ledger.changes import PlanRow
from ownership.platform.pools import pooled
from ownership.stages.parts import Parts
from ownership.stages.update import ROWS_PER_WAVE, judge, move
from ownership.stages.working import Working, batches_of

log = structlog.get_logger(__name__)

ROUNDS = 6
"""Rounds of the proof before an event is failed as incomplete."""
DOCUMENTS_PER_WAVE = 1000
WAVES_AT_ONCE = 3


def reindex_course_batches(parts: Parts, work: Work) -> Work:
    """Bring the documents in line with the rows, prove it in both stores, complete the events.

    :raises Incomplete: if something is still found after the last round; what could be proven
        is completed by then.
    :raises Unavailable: if a store is.
    :raises TakenOver: if the claim is lost.
    """
    if not work.phases:
        return work
    working = Working(parts, work)
    unproven = prove(working, parts.changes.batches(working.concerned_mids(working.phases)))
    proven = [p for p in working.phases if not any(p is q for q in unproven)]
    done, batches = _commit(working, proven)
    if unproven:
        mids = [h for p in unproven for h in p.held]
        why = "incomplete: batches still name the old user after the last round of the proof"
        parts.events.fail([(h, why, working.events[h.mid].attempts) for h in mids])
        raise Incomplete(f"{len(mids)} events are {why}")
    return work.step((), events={"completed": done}, batches=batches)


def prove(working: Working, ids: Collection[BatchId]) -> list[Phase]:
    """Sync and re-read until both stores agree and every search hit is explained.

    Returns the phases that are not proven after the last round.
    """
    parts = working.parts
    todo, created = set(ids), set[BatchId]()
    doubtful: set[BatchId] = set()
    for _ in range(ROUNDS):
        working.fence()
        if doubtful:
            # A document that was written since the last refresh is read from the log, which costs far more.
            parts.index.refresh()
        doubtful, outdated = sync(working, sorted(todo), created)
        for wave in chunks(sorted(outdated), ROWS_PER_WAVE):
            move(working, wave)
        if doubtful:
            continue  # only a read that agrees ends the loop, never a write
        parts.index.refresh()
        doubtful = _unexplained(working, todo)
        if not doubtful:
            return []
        todo |= doubtful
    rows = parts.rows.read(doubtful).values()
    unproven = {id(p): p for row in rows for p in working.concerned(row)}
    # Documents that differ from rows which name no source belong to no phase in particular.
    return list(unproven.values()) or list(working.phases)


class Synced(NamedTuple):
    """What one pass over some batches found and did. It holds no rows: there may be 100,000."""

    doubtful: set[BatchId]
    """Row or document was not right when it was read."""
    outdated: set[BatchId]
    """Those of them whose row still names a source."""
    created: set[BatchId]
    """Batches whose document was missing."""
    gone: set[BatchId]
    """Batches whose document was created in an earlier pass, and whose row has gone since."""


def sync(
    working: Working, ids: Sequence[BatchId], created: set[BatchId]
) -> tuple[set[BatchId], set[BatchId]]:
    """One pass: read documents, then rows; write the owner fields of documents that differ.

    Some waves at once: the two stores work in turn for each. `created` is kept up to date. Returns the
    batches that were not right when they were read, and those of them whose row was not.
    """
    doubtful, outdated = set[BatchId](), set[BatchId]()
    before = frozenset(created)
    with pooled(WAVES_AT_ONCE) as pool:
        waves = chunks(ids, DOCUMENTS_PER_WAVE)
        for done in pool.map(lambda wave: _sync_wave(working, wave, before), waves):
            doubtful |= done.doubtful
            outdated |= done.outdated
            created |= done.created
            created -= done.gone
    return doubtful, outdated


def _sync_wave(working: Working, ids: Sequence[BatchId], created: AbstractSet[BatchId]) -> Synced:
    """The sequence number is read before the row, so a document written after that read refuses ours."""
    parts = working.parts
    documents = parts.index.get({i.batch_id for i in ids})
    rows = parts.rows.read(ids)
    updates: list[tuple[Document, str | None, tuple[str, ...]]] = []
    missing: list[BatchId] = []
    gone: set[BatchId] = set()
    for i in ids:
        row, document = rows.get(i), documents.get(i.batch_id)
        if row is None:
            if i in created:
                parts.index.delete_created(i.batch_id)
                gone.add(i)
        elif document is None:
            missing.append(i)
        elif document.owners != row.owners:
            updates.append((document, *row.owners))
    whole = parts.rows.read_whole(missing) if missing else {}
    if updates or whole:
        parts.index.write(updates, whole.values())
    written = {document.batch_id for document, *_ in updates}
    outdated = {i for i in ids if not working.right(rows.get(i))}
    doubtful = outdated | {i for i in ids if i.batch_id in written} | set(whole)
    return Synced(doubtful, outdated, set(whole), gone)


def _unexplained(working: Working, known: Collection[BatchId]) -> set[BatchId]:
    """Search hits for the sources that neither an absent or finished row nor a right one explains."""
    parts = working.parts
    hits = {batch: users & working.sources for users, batch in parts.index.live_batches(working.sources)}
    if not hits:
        return set()
    rows = parts.rows.read(hits)
    documents = parts.index.get({b.batch_id for b in hits})
    unexplained = set()
    for batch in hits:
        row, document = rows.get(batch), documents.get(batch.batch_id)
        if row is None or not row.live:
            continue
        if working.right(row) and document is not None and document.owners == row.owners:
            continue
        unexplained.add(batch)
    new = [
        PlanRow(p, rows.get(batch), None)
        for batch in unexplained
        if batch not in known
        for p in working.planned(batch, rows.get(batch), hits[batch])
    ]
    parts.changes.plan(new, {h.mid: working.sources for h in working.held})
    return unexplained


def _commit(working: Working, phases: Sequence[Phase]) -> tuple[int, dict[str, int]]:
    """Record what became of every batch, then complete the events of the phases in one transaction."""
    parts = working.parts
    if not phases:
        return 0, {}
    mids, proven_at = working.concerned_mids(phases), now()
    judge(parts, parts.changes.undecided(mids))
    own = [m for m in mids if working.takes_back(m)]
    parts.changes.settle_moved(mids, own=own, proven_at=proven_at)
    while unmoved := parts.changes.unsettled(mids, proven_at):
        rows = parts.rows.read({p.id for p in unmoved})
        settled = [(p, working.unmoved(p, rows.get(p.id))) for p in unmoved]
        parts.changes.settle_plan(settled, proven_at=proven_at)

    counts = parts.changes.counts([h.mid for p in phases for h in p.held])
    committed = parts.events.complete([[(h, counts[h.mid]) for h in p.held] for p in phases])
    for h in committed:
        log.info(
            "transfer completed",
            mid=h.mid,
            from_user=h.transfer.from_user,
            to_user=h.transfer.to_user,
            run_id=working.run_id,
            **counts[h.mid],
        )
    return len(committed), batches_of(counts[h.mid] for h in committed)
