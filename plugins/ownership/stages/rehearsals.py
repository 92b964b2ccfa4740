"""What became of the batches of dry runs: their plans beside rows and documents as they are now.

While another program carries the same transfers out, it says what that program did against what the job would have.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from enum import StrEnum
from typing import NamedTuple

from ownership.domain.compare import differences, least_alike
from ownership.domain.event import Transfer
from ownership.domain.plan import BatchId, Document, Row
from ownership.domain.plan_report import owners_text
from ownership.domain.states import EventState
from ownership.ledger.changes import PlanRow
from ownership.stages.parts import Parts


class Outcome(StrEnum):
    """What became of a batch of a plan."""

    AS_PLANNED = "as planned"
    NOT_MOVED = "not moved"
    OTHERWISE = "changed otherwise"
    LEFT_ALONE = "left alone as planned"
    OVERWRITTEN = "to be left alone, but changed"
    STALE_DOCUMENT = "row as planned, document not"


GOOD = (Outcome.AS_PLANNED, Outcome.LEFT_ALONE)


class Finding(NamedTuple):
    """A batch that is not as its plan has it."""

    batch: BatchId
    outcome: Outcome
    found: str
    """The row's owners now."""


class Rehearsal(NamedTuple):
    """A dry run and what became of its batches."""

    transfer: Transfer
    counts: Counter[Outcome]
    findings: tuple[Finding, ...]

    def __str__(self) -> str:
        """One line: whose batches, and how many of each outcome."""
        counted = ", ".join(f"{self.counts[o]} {o}" for o in Outcome if self.counts[o])
        return f"{self.transfer.from_user} → {self.transfer.to_user}: {counted or 'no batches'}"


def compare(parts: Parts, start_ms: int, end_ms: int) -> Iterator[Rehearsal]:
    """Each dry run that was asked for in this time (epoch ms, the end excluded), in the order of its transfers.

    Of a batch in several plans, as in a chain, the last one counts.

    :raises Unavailable: if a store does not answer.
    """
    events = [e for part in parts.events.of_window(start_ms, end_ms, (EventState.REHEARSED,)) for e in part]
    plans = {e.mid: parts.changes.read_plan(e.mid) for e in events}
    last = {r.planned.id: e.mid for e in events for r in plans[e.mid]}
    for event in events:
        planned = [r for r in plans[event.mid] if last[r.planned.id] == event.mid]
        ids = {r.planned.id for r in planned}
        rows = parts.rows.read(ids)
        documents = parts.index.get({i.batch_id for i in ids})
        found = [
            Finding(
                i, outcome_of(r, row, documents.get(i.batch_id, ())), owners_text(row) if row else "no row"
            )
            for r in planned
            for i, row in [(r.planned.id, rows.get(r.planned.id))]
        ]
        counts = Counter(f.outcome for f in found)
        yield Rehearsal(event.transfer, counts, tuple(f for f in found if f.outcome not in GOOD))


def outcome_of(plan: PlanRow, row: Row | None, documents: tuple[Document, ...]) -> Outcome:
    """What became of one batch. Pure."""
    owners = row.owners if row else None
    before = plan.row.owners if plan.row else None
    if plan.hop is None:
        return Outcome.LEFT_ALONE if owners == before else Outcome.OVERWRITTEN
    if row and owners == plan.hop.after.owners:
        stale = differences(row, least_alike(row, documents))
        return Outcome.STALE_DOCUMENT if stale else Outcome.AS_PLANNED
    return Outcome.NOT_MOVED if owners == before else Outcome.OTHERWISE
