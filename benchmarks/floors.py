"""The floors of the machine: the same writes by bare clients, and the same tasks without work."""

from __future__ import annotations

import json
import time
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any
from uuid import uuid4

from cassandra.concurrent import execute_concurrent
from cassandra.query import BatchStatement, BatchType

from benchmarks import SIGNAL
from local.platform.schema import BATCH_INDEX
from local.platform.stores import Owners
from local.platform.world import Batch, Platform

ROWS_A_BATCH = 10
"""Rows of one partition in one conditional batch; the job's default of `threshold.batch.write.size`."""
CONCURRENT = 64
DOCUMENTS_A_BULK = 1000
_UPDATE = (
    "UPDATE sunbird_courses.course_batch SET createdby = ?, mentors = ? "
    "WHERE courseid = ? AND batchid = ? IF createdby = ? AND mentors = ?"
)


def stores(platform: Platform, batches: Sequence[Batch], owners: Mapping[str, Owners]) -> float:
    """Seconds for both stores: conditional updates by partition, bulk updates, one refresh.

    Without reads and without a ledger. `owners` are the new ones, by batch id. Raises RuntimeError when a write is
    rejected.
    """
    update = platform.session.prepare(_UPDATE)
    begun = time.monotonic()
    statements = ((batch, None) for batch in _by_partition(update, batches, owners))
    for success, result in execute_concurrent(platform.session, statements, concurrency=CONCURRENT):
        if not success or not result.one()["[applied]"]:
            raise RuntimeError("the floor's conditional update was refused")
    for start in range(0, len(batches), DOCUMENTS_A_BULK):
        operations: list[dict[str, Any]] = []
        for batch in batches[start : start + DOCUMENTS_A_BULK]:
            creator, mentors = owners[batch.batch_id]
            operations.append({"update": {"_id": batch.batch_id}})
            operations.append({"doc": {"createdBy": creator, "mentors": list(mentors)}})
        if platform.search.bulk(index=BATCH_INDEX, operations=operations)["errors"]:
            raise RuntimeError("the floor's bulk update was refused")
    platform.search.indices.refresh(index=BATCH_INDEX)
    return time.monotonic() - begun


def _by_partition(
    update: Any, batches: Sequence[Batch], owners: Mapping[str, Owners]
) -> Iterator[BatchStatement]:
    courses: dict[str, list[Batch]] = {}
    for batch in batches:
        courses.setdefault(batch.course_id, []).append(batch)
    for rows in courses.values():
        for start in range(0, len(rows), ROWS_A_BATCH):
            statement = BatchStatement(BatchType.UNLOGGED)
            for row in rows[start : start + ROWS_A_BATCH]:
                creator, mentors = owners[row.batch_id]
                new = (creator, list(mentors) or None)
                old = (row.created_by, list(row.mentors or ()) or None)
                statement.add(update, (*new, row.course_id, row.batch_id, *old))
            yield statement


def airflow(folder: Path, instances: int, *, timeout_s: float = 180, give_up_s: float = 20) -> float | None:
    """Seconds from the signal to the end of the last mapped task of the floor's DAG.

    None when no task has written its mark within `give_up_s` seconds: the watcher is not running yet.
    Raises TimeoutError when the run has started and does not end in time.
    """
    run = f"run-{uuid4().hex[:8]}"
    marks = folder / run
    marks.mkdir(parents=True)
    written = folder / f"{run}.json"
    written.write_text(json.dumps({"run": run, "instances": instances}))
    begun = time.monotonic()
    written.rename(folder / SIGNAL)
    while (done := sum(1 for _ in marks.iterdir())) < instances:
        passed = time.monotonic() - begun
        if not done and passed > give_up_s:
            return None
        if passed > timeout_s:
            raise TimeoutError(f"{done} of {instances} empty tasks ended within {timeout_s:.0f} s")
        time.sleep(0.02)
    return time.monotonic() - begun
