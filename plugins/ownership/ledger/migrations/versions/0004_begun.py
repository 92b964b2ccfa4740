"""Events that a run has begun to carry out, and whom they reach; indexes for the lists of users with many transfers, and of requests."""

from __future__ import annotations

from alembic import op

revision = "0004"
down_revision = "0003"


STATEMENTS = (
    "ALTER TABLE queue ADD COLUMN begun boolean NOT NULL DEFAULT false, "
    "ADD COLUMN passes_to text[] NOT NULL DEFAULT '{}'",
    "DROP INDEX event_source_user, event_target_user, event_request",
    # A list of a user drops events by what these two include, without reading their rows.
    """
    CREATE INDEX event_source_user ON event (source_user, order_ms, kafka_partition, kafka_offset, mid)
        INCLUDE (organisation_id, state)
    """,
    """
    CREATE INDEX event_target_user ON event (target_user, order_ms, kafka_partition, kafka_offset, mid)
        INCLUDE (organisation_id, state, source_user)
    """,
    """
    CREATE INDEX event_request ON event (request_id, order_ms, kafka_partition, kafka_offset, mid)
        WHERE request_id IS NOT NULL
    """,
)


def upgrade() -> None:
    """Add the columns, and make the indexes anew."""
    for statement in STATEMENTS:
        op.execute(statement)
