"""Airflow assets that a finished transfer updates, so that other teams' DAGs can be scheduled on it."""

from __future__ import annotations

from airflow.sdk import Asset

FINISHED = "ownership-finished"
"""Alias through which `settle` emits: a run without a finished transfer emits nothing."""
TABLE = Asset(name="course_batch.table", uri="x-ownership://course_batch/table")
"""The rows in Cassandra: owners that a transfer changed."""
INDEX = Asset(name="course_batch.index", uri="x-ownership://course_batch/index")
"""The documents in Elasticsearch: the same owners, proven."""
