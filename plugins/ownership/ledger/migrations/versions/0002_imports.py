"""Imports: files of transfers, and their rows."""

from __future__ import annotations

from alembic import op

revision = "0002"
down_revision = "0001"

STATEMENTS = (
    """
    CREATE TABLE import (
        id text PRIMARY KEY,
        created_by text NOT NULL,
        created_at timestamptz NOT NULL DEFAULT now(),
        file_name text NOT NULL,
        file_digest text NOT NULL,
        rows integer NOT NULL CHECK (rows > 0),
        wrong_rows integer NOT NULL CHECK (wrong_rows BETWEEN 0 AND rows - 1),
        organisation_ids text[] NOT NULL,
        started_by text,
        started_at timestamptz,
        CHECK ((started_by IS NULL) = (started_at IS NULL))
    )
    """,
    "CREATE INDEX import_created ON import (created_at, id)",
    # The mids are those of events; an event comes later than its row, or never.
    """
    CREATE TABLE import_row (
        import_id text NOT NULL REFERENCES import (id),
        number integer NOT NULL CHECK (number > 1),
        from_user text NOT NULL,
        to_user text NOT NULL,
        organisation_id text NOT NULL,
        reason text NOT NULL,
        assets integer,
        error_column text,
        error text,
        dry_run_mid text,
        transfer_mid text,
        PRIMARY KEY (import_id, number),
        CHECK ((error_column IS NULL) = (error IS NULL)),
        CHECK ((error IS NULL) = (dry_run_mid IS NOT NULL)),
        CHECK (transfer_mid IS NULL OR dry_run_mid IS NOT NULL)
    )
    """,
)


def upgrade() -> None:
    """Create both tables."""
    for statement in STATEMENTS:
        op.execute(statement)
