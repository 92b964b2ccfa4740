"""A PostgreSQL for the tests of one module, and new ledgers in it."""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator
from typing import Any

import pytest

from local.paths import TEST_STACKS
from local.servers import postgres
from local.servers.layout import Layout
from local.servers.ports import HOST
from local.stack import claim
from ownership.ledger.database import Database
from ownership.ledger.upgrade import upgrade


@pytest.fixture(scope="module")
def server() -> Iterator[dict[str, Any]]:
    """Parameters of a connection to a server of this module's own."""
    directory = TEST_STACKS / f"{os.getpid()}-page"
    claim(directory)
    layout = Layout.of(directory)
    try:
        with postgres.server(layout) as started:
            yield {
                "host": HOST,
                "port": layout.port(postgres.NAME),
                "user": "postgres",
                "socket": started.address,
            }
    finally:
        shutil.rmtree(directory, ignore_errors=True)


def opened(server: dict[str, Any], name: str) -> Database:
    """A new ledger in a database of that name."""
    postgres.create_database(server["socket"], name)
    database = Database.at({k: v for k, v in server.items() if k != "socket"} | {"dbname": name})
    upgrade(database)
    return database
