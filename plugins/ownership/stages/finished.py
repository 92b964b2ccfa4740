"""What others are told of finished transfers: who gave to whom, and how many batches, by outcome. Pure.

Ids and counts only; the names of the event's profiles stay in the ledger.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

from ownership.domain.chunks import chunks
from ownership.domain.states import BatchOutcome
from ownership.ledger.changes import ROWS
from ownership.ledger.events import EventRow
from ownership.stages.working import batches_of

PER_EVENT = 500
"""Transfers that one asset event names; a run with more emits several."""


def extras(run_id: str, finished: Sequence[EventRow]) -> Iterator[dict[str, Any]]:
    """The `extra` of each asset event of a run; `moved` counts a batch that a chain moved once."""
    for some in chunks(finished, PER_EVENT):
        moved = batches_of(row.counts for row in some).get(BatchOutcome.MOVED, 0)
        yield {"run_id": run_id, "moved": moved, "transfers": [_told(row) for row in some]}


def _told(row: EventRow) -> dict[str, Any]:
    counts = {outcome: n for outcome, n in row.counts.items() if outcome != ROWS}
    return {
        "mid": row.mid,
        "from_user": row.transfer.from_user,
        "to_user": row.transfer.to_user,
        "organisation_id": row.organisation_id,
        "undo_of": row.options.undo_of,
        "moved": counts.get(BatchOutcome.MOVED, 0),
        "counts": counts,
    }
