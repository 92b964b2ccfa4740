"""`reindex_course_batches`: documents follow rows, then the proof, then the commit."""

from __future__ import annotations

import time
from collections import defaultdict
from collections.abc import Collection, Mapping, Sequence
from collections.abc import Set as AbstractSet
from typing import NamedTuple

import structlog
from more_itertools import chunked

from ownership.domain.clock import now, now_ms
from ownership.domain.compare import own_documents
from ownership.domain.contracts import Phase, Work
from ownership.domain.errors import Incomplete
from ownership.domain.phase_book import PhaseBook
from ownership.domain.plan import BatchId, Document
from ownership.domain.unwritable import Unwritable, sentence
from ownership.ledger.changes import Planned, PlanRow
from ownership.platform.pools import pooled
from ownership.platform.search_answers import Version
from ownership.stages.claimed_work import ClaimedWork, load
from ownership.stages.finished import total_batches
from ownership.stages.parts import Parts
from ownership.stages.update import ROWS_PER_WAVE, move, settle_undecided

log = structlog.get_logger(__name__)

ROUNDS = 6
"""Rounds of the proof before an event is failed as incomplete."""
PATIENCE_US = 5_000_000
"""How long the proof waits for a row that can be overwritten soon."""
POLL_US = 1_000_000
MARGIN_US = 50_000
MAX_REFUSED = 3
"""Refused documents that an event's reason names."""
DOCUMENTS_PER_WAVE = 1000
DOCUMENTS_PER_REFRESH = 20_000
"""Documents that are written before they are read again: their versions are in memory."""
WAVES_AT_ONCE = 3


def reindex_course_batches(parts: Parts, work: Work) -> Work:
    """Bring the documents in line with the rows, prove it in both stores, complete the events.

    :raises Incomplete: if something is still found after the last round, or a row keeps its value for now; what
        could be proven is completed by then.
    :raises Unavailable: if a store is.
    :raises TakenOver: if the claim is lost.
    """
    claimed = load(parts, work)
    if not claimed.book.phases:
        return work.step((), events={})
    mids = claimed.mids_with_plans(claimed.book.phases)
    # Before the proof: it may change rows.
    settle_undecided(parts, mids, claimed.claim.keep_alive, claimed.book.fencing_tokens)
    unproven = prove(parts, claimed, parts.changes.batches(mids))
    done, batches = _commit(parts, claimed, [p for p in claimed.book.phases if p.key not in unproven])
    failed = [(e, unproven[p.key]) for p in claimed.book.phases if p.key in unproven for e in p.events]
    if failed:
        parts.events.fail([(e, why, claimed.events[e.mid].attempts) for e, why in failed])
        raise Incomplete(f"{len(failed)} events are {failed[0][1]}")
    return work.step((), events={"completed": done}, batches=batches)


def prove(parts: Parts, claimed: ClaimedWork, ids: Collection[BatchId]) -> dict[str, str]:
    """Sync and re-read until both stores agree and every search hit is explained.

    Rows that keep their value for now are waited for, a few seconds. Beyond that, and where the index refuses a
    document, all but their phases is proven. Returns the keys of the phases that are not, each with the reason.
    """
    known = set(ids)
    todo: AbstractSet[BatchId] = known
    created = set[BatchId]()
    unwritable: dict[BatchId, Unwritable] = {}
    refused: dict[BatchId, str] = {}
    for rounds_left in reversed(range(ROUNDS)):
        claimed.fence()
        parts.index.refresh()
        doubtful, outdated = set[BatchId](), set[BatchId]()
        for part in chunked(sorted(i for i in todo if i not in refused), DOCUMENTS_PER_REFRESH):
            claimed.claim.keep_alive()
            synced = sync(parts, claimed.book, part, created, refused)
            parts.index.refresh()
            doubtful |= synced.doubtful | _changed_since(parts, synced.in_line)
            outdated |= synced.outdated
        unwritable = {
            u.id: u
            for wave in chunked(sorted(outdated), ROWS_PER_WAVE)
            for u in move(parts, claimed, wave).unwritable
        }
        todo = set(doubtful)
        if unwritable and rounds_left and _wait_for(claimed, unwritable.values()):
            continue
        doubtful -= unwritable.keys() | refused.keys()
        if doubtful:
            continue  # only a read that agrees ends the loop, never a write
        doubtful = _unexplained(parts, claimed, known) - unwritable.keys() - refused.keys()
        if not doubtful:
            break
        todo |= doubtful
        known |= doubtful
    return _unproven(parts, claimed, doubtful, unwritable, refused)


def _unproven(
    parts: Parts,
    claimed: ClaimedWork,
    doubtful: AbstractSet[BatchId],
    unwritable: Mapping[BatchId, Unwritable],
    refused: Mapping[BatchId, str],
) -> dict[str, str]:
    """The phases of these batches, by the plan and by the users that the rows name, each with the reason."""
    ids = {*doubtful, *unwritable, *refused}
    if not ids:
        return {}
    phases = claimed.book.phases
    phase_of = {mid: p for p in phases for mid in claimed.mids_with_plans([p])}
    found: dict[str, set[BatchId]] = defaultdict(set)
    for mid, i in parts.changes.planned(phase_of.keys()):
        if i in ids:
            found[phase_of[mid].key].add(i)
    for row in parts.rows.read(ids).values():
        for p in claimed.book.phases_of(row):
            found[p.key].add(row.id)
    if doubtful and not doubtful & set().union(*found.values()):
        # A document that differs from a row which names no source belongs to no phase in particular.
        for p in phases:
            found[p.key] |= doubtful
    return {key: _reason(batches, doubtful, unwritable, refused) for key, batches in found.items()}


def _reason(
    batches: AbstractSet[BatchId],
    doubtful: AbstractSet[BatchId],
    unwritable: Mapping[BatchId, Unwritable],
    refused: Mapping[BatchId, str],
) -> str:
    """Why a phase with these batches is not proven."""
    reasons = sorted(refused[i] for i in batches & refused.keys())[:MAX_REFUSED]
    if rows := [unwritable[i] for i in sorted(batches & unwritable.keys())]:
        reasons.append(sentence(rows))
    if batches & doubtful:
        reasons.append("batches still name the old user after the last round of the proof")
    return f"incomplete: {'; '.join(reasons)}"


def _wait_for(claimed: ClaimedWork, unwritable: Collection[Unwritable]) -> bool:
    """Wait until the first of these rows can be overwritten. False if none can be soon.

    Of mentors nothing says when: they are tried again in a second.
    """
    now_us = now_ms() * 1000
    soon = [u.until_us - now_us if u.until_us else POLL_US for u in unwritable]
    waits = [max(wait, 0) for wait in soon if wait <= PATIENCE_US]
    if not waits:
        return False
    time.sleep((min(waits) + MARGIN_US) / 1_000_000)
    claimed.claim.keep_alive()
    return True


class Synced(NamedTuple):
    """What one pass over some batches found and did."""

    doubtful: set[BatchId]
    """Row or document was not up to date when it was read, and it is not known to be now."""
    outdated: set[BatchId]
    """Those of them whose row still names a source."""
    in_line: dict[str, tuple[BatchId, Version]]
    """By ``_id``, documents in line with their rows, and in which version: as read, or as written."""

    def add(self, other: Synced) -> None:
        """Take in what another wave found."""
        self.doubtful.update(other.doubtful)
        self.outdated.update(other.outdated)
        self.in_line.update(other.in_line)


def sync(
    parts: Parts, book: PhaseBook, ids: Sequence[BatchId], created: set[BatchId], refused: dict[BatchId, str]
) -> Synced:
    """One pass: read documents, then rows; write the owner fields of documents that differ.

    Several waves at once: each uses the two stores in turn. Updates `created`, the batches whose document was missing
    and is made from the row, and `refused`, those whose document the index does not take, with the reason.
    """
    found = Synced(set(), set(), {})
    with pooled(WAVES_AT_ONCE) as pool:
        waves = chunked(ids, DOCUMENTS_PER_WAVE)
        for done in pool.map(lambda wave: _sync_wave(parts, book, wave, created, refused), waves):
            found.add(done)
    return found


def _sync_wave(
    parts: Parts, book: PhaseBook, ids: Sequence[BatchId], created: set[BatchId], refused: dict[BatchId, str]
) -> Synced:
    """The sequence number is read before the row, so a document written after that read refuses our write."""
    documents = parts.index.get({i.batch_id for i in ids})
    rows = parts.rows.read(ids)
    updates: list[tuple[Document, str | None, tuple[str, ...]]] = []
    missing: list[BatchId] = []
    batch_of: dict[str, BatchId] = {}
    in_line: dict[str, tuple[BatchId, Version]] = {}
    for i in ids:
        row = rows.get(i)
        if row is None:
            if i in created:
                parts.index.delete_created(i.batch_id)
                created.discard(i)
        elif i.batch_id not in documents:
            missing.append(i)
        else:
            own = own_documents(row, documents[i.batch_id])
            differ = [d for d in own if d.owners != row.owners]
            updates += [(d, *row.owners) for d in differ]
            batch_of |= {d.document_id: i for d in differ}
            in_line |= {d.document_id: (i, (d.seq_no, d.primary_term)) for d in own if d not in differ}
    whole = parts.rows.read_whole(missing) if missing else {}
    versions, refusals = parts.index.write(updates, whole.values())
    reasons = {r.batch_id: str(r) for r in refusals}
    refused |= {i: reasons[i.batch_id] for i in ids if i.batch_id in reasons}
    created |= whole.keys() - refused.keys()
    in_line |= {d: (i, versions[d]) for d, i in batch_of.items() if d in versions}
    outdated = {i for i in ids if not book.is_up_to_date(rows.get(i))}
    unknown = {i for d, i in batch_of.items() if d not in versions}
    return Synced((outdated | unknown | whole.keys()) - refused.keys(), outdated, in_line)


def _changed_since(parts: Parts, in_line: Mapping[str, tuple[BatchId, Version]]) -> set[BatchId]:
    """The batches of documents that are not as they were when they were in line with their rows.

    A document in the version that our write made has the owners of the row that was read before it.
    """
    unchanged = parts.index.unchanged({d: version for d, (_, version) in in_line.items()})
    return {i for d, (i, _) in in_line.items() if d not in unchanged}


def _unexplained(parts: Parts, claimed: ClaimedWork, known: Collection[BatchId]) -> set[BatchId]:
    """Search hits for the sources, except where the row is gone, finished, or agrees with the document."""
    book = claimed.book
    hits: dict[BatchId, frozenset[str]] = {}
    if book.sources:
        for users, batch in parts.index.live_batches(book.sources, every_copy=True):
            hits[batch] = hits.get(batch, frozenset()) | (users & book.sources)
    if not hits:
        return set()
    rows = parts.rows.read(hits)
    documents = parts.index.get({b.batch_id for b in hits})
    unexplained = set()
    for batch in hits:
        row = rows.get(batch)
        if row is None or not row.live:
            continue
        own = own_documents(row, documents.get(batch.batch_id, ()))
        if book.is_up_to_date(row) and own and all(d.owners == row.owners for d in own):
            continue
        unexplained.add(batch)
    new = [
        PlanRow(Planned(mid, batch), rows.get(batch), None)
        for batch in unexplained
        if batch not in known
        for mid in book.planned_by(batch, rows.get(batch), hits[batch])
    ]
    parts.changes.plan(new, {e.mid: book.sources for e in book.held})
    return unexplained


def _commit(parts: Parts, claimed: ClaimedWork, phases: Sequence[Phase]) -> tuple[int, dict[str, int]]:
    """Record the outcome of every batch, then complete the events of the phases in one transaction."""
    if not phases:
        return 0, {}
    mids, proven_at = claimed.mids_with_plans(phases), now()
    own = [m for m in mids if claimed.book.is_undo(m)]
    parts.changes.settle_moved(mids, own=own, proven_at=proven_at)
    while unmoved := parts.changes.unsettled(mids, proven_at):
        claimed.claim.keep_alive()
        rows = parts.rows.read({p.id for p in unmoved})
        settled = []
        for p in unmoved:
            outcome = claimed.book.unmoved_outcome(p.mid, p.id, rows.get(p.id))
            settled.append(PlanRow(p._replace(outcome=outcome), rows.get(p.id), None))
        parts.changes.settle_plan(settled, proven_at=proven_at)

    counts = parts.changes.counts([e.mid for p in phases for e in p.events])
    committed = parts.events.complete([[(e, counts[e.mid]) for e in p.events] for p in phases])
    for e in committed:
        log.info(
            "transfer completed",
            mid=e.mid,
            from_user=e.transfer.from_user,
            to_user=e.transfer.to_user,
            run_id=claimed.run_id,
            **counts[e.mid],
        )
    return len(committed), total_batches(counts[e.mid] for e in committed)
