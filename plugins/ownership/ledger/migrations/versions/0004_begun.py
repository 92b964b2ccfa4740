"""Events that a run has begun to carry out."""

from __future__ import annotations

from alembic import op

revision = "0004"
down_revision = "0003"
branch_labels = None
depends_on = None


def upgrade() -> None:
    """Add the column."""
    op.execute("ALTER TABLE queue ADD COLUMN begun boolean NOT NULL DEFAULT false")
