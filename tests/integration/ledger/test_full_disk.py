"""The disk of the ledger is full in the middle of work: nothing is lost, and the work goes on when there is space."""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import psycopg
import pytest
from psycopg import sql

from ownership.domain.errors import Unavailable
from tests.harness import administrator, ledger_name
from tests.integration.small_disk import full, small_disk
from tests.integration.stages.transfer_world import World

TABLESPACE = "small_disk"


@contextmanager
def ledger_on(directory: Path, world: World) -> Iterator[None]:
    """The world's ledger lies in `directory`."""
    # The server runs as another user where this process is root.
    server_owns = directory / "data"
    server_owns.mkdir()
    if os.geteuid() == 0:
        shutil.chown(server_owns, "nobody")
    with administrator(world.ledger) as server:
        server.execute(
            sql.SQL("CREATE TABLESPACE {} LOCATION {}").format(sql.Identifier(TABLESPACE), str(server_owns))
        )
        try:
            _move(server, ledger_name(world.env), TABLESPACE)
            yield
        finally:
            _move(server, ledger_name(world.env), "pg_default")
            server.execute(sql.SQL("DROP TABLESPACE {}").format(sql.Identifier(TABLESPACE)))


def _move(server: psycopg.Connection[Any], database: str, tablespace: str) -> None:
    """Move a database; its sessions end, which opens them anew."""
    server.execute("SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE datname = %s", [database])
    move = sql.SQL("ALTER DATABASE {} SET TABLESPACE {}")
    server.execute(move.format(sql.Identifier(database), sql.Identifier(tablespace)))


def test_a_full_disk_of_the_ledger_is_named_and_nothing_is_lost(own_world: World):
    world = own_world
    old, new = world.users("old", "new")
    batches = world.batches(400, created_by=old)
    with small_disk("32m") as disk, ledger_on(disk, world):
        mids = [world.transfer(old, new, pad="x" * 100_000) for _ in range(20)]
        with full(disk):
            with pytest.raises(Unavailable, match="the server's disk is full; nothing was written"):
                world.run().pull()
            assert world.creators(batches) == [old] * len(batches)
        run = world.run().pull()
        assert run.pulled.received == len(mids)
        with full(disk):
            run.lookup()
            assert [str(e) for e in run.errors if "the server's disk is full" in str(e)]
        world.expire(*mids)
        world.job.drain()
        assert set(world.job.states(mids)) == {"completed"}
        assert world.creators(batches) == [new] * len(batches)
