"""An index for what was lately given to a user, however many transfers they have received."""

from __future__ import annotations

from alembic import op

revision = "0005"
down_revision = "0004"


STATEMENTS = ("CREATE INDEX event_given ON event (target_user, state, ended_at) WHERE ended_at IS NOT NULL",)


def upgrade() -> None:
    """Make the index."""
    for statement in STATEMENTS:
        op.execute(statement)
