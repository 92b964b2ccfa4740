"""Whether the ledger is as this version of the job needs it: one sentence where it is not."""

from __future__ import annotations

from sqlalchemy import Connection, func, select, text

from ownership.domain.errors import SettingsError, Unavailable
from ownership.ledger.database import CONNECTION, PART, UPGRADE, Database
from ownership.ledger.schema import PARTITIONED, REVISION, metadata

MIN_SERVER = 130000
"""PostgreSQL 13, as in `server_version_num`."""


def revision_of(connection: Connection) -> str | None:
    """The migration that the database has; None if it has none."""
    if connection.scalar(select(func.to_regclass("alembic_version"))) is None:
        return None
    found: str | None = connection.scalar(text("SELECT version_num FROM alembic_version"))
    return found


def refuse_newer(found: str | None) -> None:
    """Verify that a ledger's schema is not beyond this version of the job.

    :raises SettingsError: if it is.
    """
    if found is not None and found > REVISION:
        raise SettingsError(
            f"The ledger has schema {found}, newer than {REVISION} of this version: install the version of the job "
            "that made it."
        )


def check(database: Database) -> None:
    """Verify server, schema and grants.

    :raises SettingsError: with one sentence that says what to do.
    :raises Unavailable: if the database does not answer, or is read-only.
    """
    database.run(_check)


def _check(connection: Connection) -> None:
    server, durable, read_only = connection.execute(
        text(
            "SELECT current_setting('server_version_num')::int, current_setting('synchronous_commit'), "
            "pg_is_in_recovery() OR current_setting('transaction_read_only') = 'on'"
        )
    ).one()
    if server < MIN_SERVER:
        raise SettingsError(f"{PART} is version {server // 10000}: the ledger needs 13 or newer.")
    if read_only:
        raise Unavailable(PART, "the server is read-only, so it is a standby")
    if durable == "off":
        raise SettingsError(
            f"{PART} has synchronous_commit = off, so a crash can lose what it acknowledged: set it to on, "
            "as in `ALTER DATABASE ownership SET synchronous_commit = on`."
        )
    found = revision_of(connection)
    if found is None:
        raise SettingsError(
            f"The database of Connection '{CONNECTION}' has no ledger: {UPGRADE}, or set the Connection's schema."
        )
    if found < REVISION:
        raise SettingsError(
            f"The ledger has schema {found}, older than {REVISION} of this version: {UPGRADE}."
        )
    refuse_newer(found)
    denied = connection.scalar(
        text(
            "SELECT string_agg(t, ', ' ORDER BY t) FROM unnest(CAST(:tables AS text[])) AS t "
            "WHERE NOT (SELECT bool_and(has_table_privilege(t, p)) FROM unnest(CAST(:privileges AS text[])) AS p)"
        ),
        {"privileges": ["SELECT", "INSERT", "UPDATE", "DELETE"], "tables": list(metadata.tables)},
    )
    if denied:
        raise SettingsError(
            f"The role of Connection '{CONNECTION}' may not read and write {denied}: log in as the owner of the "
            "database, or grant it."
        )
    of_others = connection.scalar(
        text(
            "SELECT string_agg(relname, ', ' ORDER BY relname) FROM pg_class "
            "WHERE oid = ANY(CAST(:tables AS regclass[])) AND NOT pg_has_role(relowner, 'USAGE')"
        ),
        {"tables": list(PARTITIONED)},
    )
    if of_others:
        raise SettingsError(
            f"The role of Connection '{CONNECTION}' does not own {of_others}, and so cannot make the next month's "
            "partitions: log in as the owner of the database, or give it the tables with ALTER TABLE … OWNER TO."
        )
