"""What a transfer changed, batch by batch."""

from __future__ import annotations

from typing import NamedTuple

from ownership.domain.states import MADE, BatchOutcome, ChangeOutcome
from ownership.ledger.reads.batches import BatchChange, BatchHop, PlannedBatch
from ownership.page.views.formats import Moment, counted, moment, owner_lines


class ChangeLine(NamedTuple):
    """A batch and its outcome."""

    course_id: str
    batch_id: str
    role: str
    before: tuple[str, ...]
    after: tuple[str, ...]
    outcome: str
    row_at: Moment | None
    document_at: Moment | None
    note: str


def chosen(c: BatchChange) -> tuple[BatchHop | None, BatchHop | PlannedBatch | None]:
    """The hop that was applied, if one was; and what to show: that, else the plan, else the last try."""
    applied = [h for h in c.hops if h.outcome in MADE]
    hop = applied[-1] if applied else None
    return hop, hop or c.plan or (c.hops[-1] if c.hops else None)


def change_line(c: BatchChange) -> ChangeLine:
    """A row of the change table."""
    hop, shown = chosen(c)
    tries = sum(h.outcome not in MADE for h in c.hops)
    before = owner_lines(*shown.before) if shown and shown.before else ()
    after = owner_lines(*shown.after) if shown and shown.after else ()
    notes = []
    if hop and hop.hops > 1:
        notes.append(f"hop {hop.hop + 1} of {hop.hops}")
    if tries:
        notes.append(f"{counted(tries, 'other try', 'other tries')}")
    if hop and hop.outcome == ChangeOutcome.LATE:
        notes.append("applied after the claim was lost")
    return ChangeLine(
        c.id.course_id,
        c.id.batch_id,
        (shown.role or "") if shown else "",
        before,
        after if after != before else (),
        (c.plan and c.plan.outcome) or (BatchOutcome.MOVED if hop else "planned"),
        moment(hop.applied_at) if hop else None,
        moment(c.plan.proven_at) if c.plan else None,
        ", ".join(notes),
    )
