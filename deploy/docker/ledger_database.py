"""The ledger's role and database on the PostgreSQL that has Airflow's metadata; may be repeated.

    python -m deploy.docker.ledger_database

Both addresses are those of the environment. It does nothing when the ledger is on another server.
"""

# ruff: noqa: INP001, T201  # a script of the image; it talks to `docker compose logs`

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from contextlib import suppress
from urllib.parse import urlsplit

import psycopg
from psycopg import errors, sql


def make(airflow_url: str, ledger: Mapping[str, str | int]) -> bool:
    """Make them as Airflow's role, where they are missing, and set the role's password.

    Returns False if the ledger is on another server. Raises psycopg.Error.
    """
    at = urlsplit(airflow_url)
    if (ledger["host"], ledger["port"]) != (at.hostname, at.port):
        return False
    role, database = sql.Identifier(str(ledger["login"])), sql.Identifier(str(ledger["schema"]))
    with psycopg.connect(airflow_url, connect_timeout=10, autocommit=True) as connection:
        with suppress(errors.DuplicateObject):
            connection.execute(sql.SQL("CREATE ROLE {} LOGIN").format(role))
        password = sql.Literal(ledger["password"])
        connection.execute(sql.SQL("ALTER ROLE {} PASSWORD {}").format(role, password))
        with suppress(errors.DuplicateDatabase):
            connection.execute(sql.SQL("CREATE DATABASE {} OWNER {}").format(database, role))
        # A commit that is acknowledged must outlive a crash, whatever the server's default is.
        connection.execute(sql.SQL("ALTER DATABASE {} SET synchronous_commit = on").format(database))
    return True


def main(environment: Mapping[str, str] = os.environ) -> None:
    """Make them and say so."""
    airflow_url = environment["AIRFLOW__DATABASE__SQL_ALCHEMY_CONN"].replace("+psycopg2", "", 1)
    ledger = json.loads(environment["AIRFLOW_CONN_OWNERSHIP_LEDGER"])
    if make(airflow_url, ledger):
        print(f"The ledger's role and its database {ledger['schema']} are there.")
    else:
        print(f"The ledger is on {ledger['host']}: role and database are that server's to make.")


if __name__ == "__main__":
    main()
