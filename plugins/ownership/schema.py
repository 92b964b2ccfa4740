"""The ledger's tables, beside the platform's own. No feature newer than Cassandra 3.11.

| table | holds |
| --- | --- |
| `transfer_open` | the queue: every event that is not final, in one partition |
| `transfer_event` | an event: payload, Kafka coordinates, verdict, state, counts, times |
| `transfer_event_by_hour` | mids by the hour of their message |
| `transfer_event_by_user` | mids by user, in event order |
| `transfer_event_by_run` | mids by the run that planned or skipped them |
| `transfer_change` | plan and before-images, append-only |
| `transfer_reconcile` | the parts of each reconciliation that are done, and the reports |
"""

from __future__ import annotations

from ownership.cql import Cql
from ownership.errors import SettingsError
from ownership.settings import Settings

OPEN = "transfer_open"
EVENT = "transfer_event"
BY_HOUR = "transfer_event_by_hour"
BY_USER = "transfer_event_by_user"
BY_RUN = "transfer_event_by_run"
CHANGE = "transfer_change"
RECONCILE = "transfer_reconcile"

QUEUE = "open"
"""Key of the only partition of `transfer_open`."""

# The open list sees many deletes in one partition: short gc_grace, an hourly flush and eager
# tombstone compaction keep its reads short. A row that comes back from the dead is harmless:
# the next claim finds its event final and removes it again.
_TABLES: dict[str, tuple[dict[str, str], str]] = {
    OPEN: (
        {
            "queue": "text",
            "version": "bigint static",
            "t": "bigint",
            "kafka_partition": "int",
            "kafka_offset": "bigint",
            "mid": "text",
            "from_user": "text",
            "to_user": "text",
            "accepted_ms": "bigint",
            "claim_token": "bigint",
            "holder": "text",
            "until_ms": "bigint",
            "next_try_ms": "bigint",
            "done": "boolean",
            "awaits": "text",
        },
        "queue, t, kafka_partition, kafka_offset, mid",
    ),
    EVENT: (
        {
            "mid": "text",
            "state": "text",
            "verdict": "text",
            "reason": "text",
            "source": "text",
            "topic": "text",
            "kafka_partition": "int",
            "kafka_offset": "bigint",
            "kafka_ms": "bigint",
            "message_mid": "text",
            "payload": "blob",
            "t": "bigint",
            "ets": "bigint",
            "from_user": "text",
            "to_user": "text",
            "organisation_id": "text",
            "options": "text",
            "requested_by": "text",
            "request_reason": "text",
            "late": "boolean",
            "claim_token": "bigint",
            "run_id": "text",
            "attempts": "int",
            "plan_of": "set<text>",
            "buckets": "int",
            "counts": "map<text, int>",
            "digest": "text",
            "report": "text",
            "approved_digest": "text",
            "approved_by": "text",
            "awaits_until_ms": "bigint",
            "asked_run": "text",
            "next_conf": "text",
            "received_at": "timestamp",
            "planned_at": "timestamp",
            "applied_at": "timestamp",
            "completed_at": "timestamp",
            "ended_at": "timestamp",
            "reproved_at": "timestamp",
        },
        "mid",
    ),
    BY_HOUR: (
        {
            "hour": "bigint",
            "t": "bigint",
            "kafka_partition": "int",
            "kafka_offset": "bigint",
            "mid": "text",
            "kafka_ms": "bigint",
        },
        "hour, t, kafka_partition, kafka_offset, mid",
    ),
    BY_USER: (
        {
            "user_id": "text",
            "t": "bigint",
            "kafka_partition": "int",
            "kafka_offset": "bigint",
            "mid": "text",
            "from_user": "text",
            "to_user": "text",
        },
        "user_id, t, kafka_partition, kafka_offset, mid",
    ),
    BY_RUN: ({"run_id": "text", "mid": "text"}, "run_id, mid"),
    CHANGE: (
        {
            "mid": "text",
            "bucket": "int",
            "courseid": "text",
            "batchid": "text",
            "claim_token": "bigint",
            "image": "timeuuid",
            "role": "text",
            "status": "int",
            "hop": "int",
            "hops": "int",
            "before_createdby": "text",
            "before_mentors": "frozen<list<text>>",
            "after_createdby": "text",
            "after_mentors": "frozen<list<text>>",
            "row_before_createdby": "text",
            "row_before_mentors": "frozen<list<text>>",
            "row_after_createdby": "text",
            "row_after_mentors": "frozen<list<text>>",
            "outcome": "text",
            "row_at": "timestamp",
            "document_at": "timestamp",
        },
        "(mid, bucket), courseid, batchid, claim_token, image",
    ),
    RECONCILE: (
        {
            "run_id": "text",
            "part": "text",
            "counts": "map<text, bigint>",
            "samples": "text",
            "report": "text",
            "started_at": "timestamp",
            "ended_at": "timestamp",
        },
        "run_id, part",
    ),
}
"""Columns with their types, and the primary key."""

_QUEUE_OPTIONS = (
    "gc_grace_seconds = 3600 AND memtable_flush_period_in_ms = 3600000 AND compaction = "
    "{'class': 'SizeTieredCompactionStrategy', 'unchecked_tombstone_compaction': 'true', "
    "'tombstone_compaction_interval': '3600'}"
)


def create(cql: Cql, settings: Settings) -> list[str]:
    """Create the tables and columns that are missing and set the retention; may be repeated.

    The keyspace must exist: its replication is the platform's decision. Returns the tables' names.
    """
    keyspace = settings.ledger_keyspace
    retention = settings.retention_days * 24 * 3600

    def run(statement: str) -> None:
        cql.session.execute(statement, timeout=60)

    for table, (columns, key) in _TABLES.items():
        options = _QUEUE_OPTIONS if table == OPEN else f"default_time_to_live = {retention}"
        declared = ", ".join(f"{name} {kind}" for name, kind in columns.items())
        run(f"CREATE TABLE IF NOT EXISTS {keyspace}.{table} ({declared}, PRIMARY KEY ({key})) WITH {options}")
    cluster = cql.session.cluster
    cluster.refresh_keyspace_metadata(keyspace)
    there = cluster.metadata.keyspaces[keyspace].tables
    for table, (columns, _) in _TABLES.items():
        # From an earlier version: its rows simply have no value in a column that is new.
        for name in columns.keys() - there[table].columns.keys():
            run(f"ALTER TABLE {keyspace}.{table} ADD {name} {columns[name]}")
        if table != OPEN and there[table].options.get("default_time_to_live") != retention:
            run(f"ALTER TABLE {keyspace}.{table} WITH default_time_to_live = {retention}")
    cql.conditional(f"INSERT INTO {keyspace}.{OPEN} (queue, version) VALUES (?, ?) IF NOT EXISTS", (QUEUE, 0))
    return [f"{keyspace}.{table}" for table in _TABLES]


def check(cql: Cql, settings: Settings) -> None:
    """Verify that the platform's table and the ledger's are there.

    :raises SettingsError: saying which is missing and what to set or run.
    """
    keyspaces = cql.session.cluster.metadata.keyspaces
    platform = keyspaces.get(settings.keyspace)
    if platform is None:
        raise SettingsError(
            f"Cassandra has no keyspace '{settings.keyspace}': set 'lms-cassandra.keyspace', "
            "or point Connection 'cassandra_default' to the platform's cluster."
        )
    table = platform.tables.get(settings.course_batch_table)
    if table is None:
        raise SettingsError(
            f"Keyspace '{settings.keyspace}' has no table '{settings.course_batch_table}': "
            "set 'lms-cassandra.course_batch.table'."
        )
    missing = {"courseid", "batchid", "createdby", "mentors", "status"} - set(table.columns)
    if missing:
        raise SettingsError(
            f"Table '{settings.keyspace}.{settings.course_batch_table}' has no column "
            f"{', '.join(sorted(missing))}: it is no course_batch table; set 'lms-cassandra.course_batch.table'."
        )
    ledger = keyspaces.get(settings.ledger_keyspace)
    tables = ledger.tables if ledger is not None else {}
    absent = [
        table if table not in tables else f"{table}.{column}"
        for table, (columns, _) in _TABLES.items()
        for column in (columns if table in tables else [""])
        if table not in tables or column not in tables[table].columns
    ]
    if absent:
        raise SettingsError(
            f"The ledger lacks table or column {', '.join(absent)} in keyspace '{settings.ledger_keyspace}': "
            "run `python -m ownership.create_ledger`, or set 'ledger.keyspace'."
        )
