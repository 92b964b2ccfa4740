"""The hosts of workers, triggerers and API servers."""

from __future__ import annotations

from alembic import op

revision = "0003"
down_revision = "0002"


STATEMENTS = (
    """
    CREATE TABLE host (
        kind text NOT NULL CHECK (kind IN ('scheduler', 'worker', 'triggerer', 'api_server')),
        hostname text NOT NULL,
        traits jsonb NOT NULL,
        tries jsonb NOT NULL,
        clock_ahead_ms bigint NOT NULL,
        since timestamptz NOT NULL DEFAULT now(),
        seen_at timestamptz NOT NULL DEFAULT now(),
        PRIMARY KEY (kind, hostname)
    ) WITH (fillfactor = 50)
    """,
)
"""Few rows, each updated once a minute."""


def upgrade() -> None:
    """Create the table."""
    for statement in STATEMENTS:
        op.execute(statement)
