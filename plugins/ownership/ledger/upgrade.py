"""Creates and migrates the ledger."""

from __future__ import annotations

from pathlib import Path

from alembic import command
from alembic.config import Config
from sqlalchemy import Connection

from ownership.ledger.check import refuse_newer, revision_of
from ownership.ledger.database import Database
from ownership.ledger.months import lock_schema, make_months
from ownership.ledger.schema import REVISION

SECONDS = 600
"""Longest statement of a migration."""


def upgrade(database: Database) -> list[str]:
    """Create or migrate the ledger in one transaction, under a lock; may be repeated. Returns what was done.

    :raises SettingsError: if the role may not, or the ledger is of a newer version.
    :raises Unavailable: if the database does not answer.
    """

    def work(connection: Connection) -> list[str]:
        lock_schema(connection)
        before = revision_of(connection)
        refuse_newer(before)
        config = Config()
        config.set_main_option("script_location", str(Path(__file__).parent / "migrations"))
        config.attributes["connection"] = connection
        command.upgrade(config, REVISION)
        made = make_months(connection)
        done = [] if before == REVISION else [f"migrated from {before or 'nothing'} to {REVISION}"]
        return [*done, *(f"made partition {name}" for name in made)]

    return database.run(work, statement_ms=SECONDS * 1000)
