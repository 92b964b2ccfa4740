"""### Batches received: an example of a DAG that follows ownership transfers.

It runs when transfers have finished: rows in Cassandra and documents in the search index are proven. Copy it into
your own DAG folder; it needs nothing of this project but the asset's name and uri.

Each asset event is a run of the transfer job, and its `extra` has up to 500 transfers. A run that is cleared sends the
same transfers again: a DAG that counts them or sends mails must remember each `mid`.
"""

from __future__ import annotations

from collections import Counter
from datetime import UTC, datetime
from typing import Any

from airflow.sdk import DAG, Asset, task

INDEX = Asset(name="course_batch.index", uri="x-ownership://course_batch/index")

with DAG(
    dag_id="batches_received",
    doc_md=__doc__,
    schedule=[INDEX],
    start_date=datetime(2026, 1, 1, tzinfo=UTC),
    catchup=False,
    tags=["example"],
) as dag:

    @task
    def received(*, triggering_asset_events: Any = None) -> dict[str, int]:
        """The number of batches that each new owner has received, by user id."""
        batches: Counter[str] = Counter()
        seen: set[str] = set()
        for event in triggering_asset_events[INDEX]:
            for transfer in event.extra.get("transfers", ()):  # none in an event that was made by hand
                if transfer["mid"] not in seen:
                    seen.add(transfer["mid"])
                    batches[transfer["to_user"]] += transfer["moved"]
        return {user: n for user, n in batches.items() if n}

    received()
