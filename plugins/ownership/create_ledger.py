"""Create the ledger's tables: ``python -m ownership.create_ledger`` in Airflow's environment.

Idempotent: run it at every deployment. It uses Connection `cassandra_default` and the settings.
"""

from __future__ import annotations

import sys

from ownership.errors import OwnershipError, SettingsError
from ownership.hooks import load_settings, opened_cql
from ownership.schema import create


def main() -> int:
    """Create what is missing. Returns the exit code."""
    try:
        settings = load_settings()
        with opened_cql() as cql:
            cql.session.cluster.refresh_schema_metadata()
            if settings.ledger_keyspace not in cql.session.cluster.metadata.keyspaces:
                raise SettingsError(
                    f"Cassandra has no keyspace '{settings.ledger_keyspace}': create it (its replication is "
                    "yours to decide), or set 'ledger.keyspace'."
                )
            for table in create(cql, settings):
                print(f"ready: {table}")
    except OwnershipError as e:
        print(f"create_ledger: {e}", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
