"""What a run reports of its finished transfers: who gave to whom, and how many batches, by outcome. Pure.

Ids and counts only; the names of the event's profiles stay in the ledger.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any

from more_itertools import chunked

from ownership.domain.states import BatchOutcome
from ownership.ledger.changes import ROWS
from ownership.ledger.events import EventRow

PER_EVENT = 500
"""Transfers that one asset event names; a run with more emits several."""


def extras(run_id: str, finished: Sequence[EventRow]) -> Iterator[dict[str, Any]]:
    """The `extra` of each asset event of a run; `moved` counts a batch that a chain moved once."""
    for rows in chunked(finished, PER_EVENT):
        moved = total_batches(row.counts for row in rows).get(BatchOutcome.MOVED, 0)
        yield {"run_id": run_id, "moved": moved, "transfers": [_transfer(row) for row in rows]}


def total_batches(counts: Iterable[Mapping[str, int]]) -> dict[str, int]:
    """Batches by outcome over several events, from each event's counts: a batch that a chain moved counts once."""
    total: Counter[str] = Counter()
    for of_event in counts:
        total.update({k: n for k, n in of_event.items() if k not in (BatchOutcome.MOVED, ROWS)})
        if rows := of_event.get(ROWS):
            total[BatchOutcome.MOVED] += rows
    return dict(total)


def _transfer(row: EventRow) -> dict[str, Any]:
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
