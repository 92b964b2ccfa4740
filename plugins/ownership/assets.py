"""Airflow assets that a finished transfer updates, so that other teams' DAGs can be scheduled on it."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, Any

from airflow.sdk import Asset

from ownership.chunks import chunks

if TYPE_CHECKING:
    from ownership.ledger import EventRow

FINISHED = "ownership-finished"
"""Alias through which `settle` emits: a run without a finished transfer emits nothing."""
TABLE = Asset(name="course_batch.table", uri="x-ownership://course_batch/table")
"""The rows in Cassandra: owners that a transfer changed."""
INDEX = Asset(name="course_batch.index", uri="x-ownership://course_batch/index")
"""The documents in Elasticsearch: the same owners, proven."""
PER_EVENT = 500
"""Transfers that one asset event names; a run with more emits several."""


def extras(run_id: str, finished: Sequence[EventRow]) -> Iterator[dict[str, Any]]:
    """What the asset events of a run say: who gave to whom, and how many batches, by outcome. Pure.

    Ids and counts only; the names of the event's profiles stay in the ledger.
    """
    for some in chunks(finished, PER_EVENT):
        told = [_told(row) for row in some]
        yield {"run_id": run_id, "moved": sum(t["moved"] for t in told), "transfers": told}


def _told(row: EventRow) -> dict[str, Any]:
    assert row.transfer is not None  # noqa: S101  # only transfers complete
    return {
        "mid": row.mid,
        "from_user": row.transfer.from_user,
        "to_user": row.transfer.to_user,
        "organisation_id": row.organisation_id,
        "undo_of": row.options.undo_of,
        "moved": row.counts.get("moved", 0),
        "counts": dict(row.counts),
    }
